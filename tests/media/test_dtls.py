"""DTLS between two ends on a clock of ours: loss, strangers, wrong certificates, and the keys that come of it."""

from __future__ import annotations

import random
from pathlib import Path as File

import attrs
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from rustpbx.core import NEVER
from rustpbx.media.dtls import (
    Association,
    Certificate,
    Certificates,
    Close,
    Closed,
    Datagram,
    Failed,
    Path,
    Send,
    Trust,
)
from rustpbx.media.dtls.record import (
    ALERT,
    FIRST_HELLO,
    HANDSHAKE,
    MTU,
    Record,
    pack,
    read_hello,
    read_records,
    verify_request,
)
from rustpbx.media.dtls.tables import DtlsState
from rustpbx.media.dtls.trust import fingerprint, is_promised, usable
from rustpbx.media.events import SrtpSuite
from rustpbx.media.rtp import RtpPacket, build_rtp
from rustpbx.media.sdp import encode_sdp, parse_sdp
from rustpbx.media.sdp.fingerprint import Fingerprint, Setup, answering, parse_fingerprint, parse_setup
from rustpbx.media.srtp import Opener, Sealer
from tests.kit.peers_dtls import ALICE, BOB, DELAY, MALLORY, Couple, Misfortune, certificate

GOLDEN = File(__file__).parent.parent / "golden" / "sdp"
SECURE, FAILED, CLOSED = DtlsState.SECURE, DtlsState.FAILED, DtlsState.CLOSED


def states(couple: Couple) -> tuple[DtlsState, DtlsState]:
    """Where both stand."""
    return couple.alice.state, couple.bob.state


# -- two ends that mean well ----------------------------------------------------------------------------------------


@pytest.mark.rfc("5764", "4.2")
@pytest.mark.rfc("5764", "4.1.2")
def test_both_ends_have_the_keys_of_the_media() -> None:
    """Three round trips, and what one seals with its key the other opens, both ways, by the best profile."""
    couple = Couple().start().run()
    alice, bob = couple.keys()
    assert (alice.keys.send, alice.keys.receive) == (bob.keys.receive, bob.keys.send)
    assert alice.keys.send != alice.keys.receive
    assert alice.keys.send.suite is SrtpSuite.AEAD_AES_128_GCM
    packet = build_rtp(RtpPacket(payload_type=0, sequence=1, timestamp=2, ssrc=3, payload=b"audio"))
    for one, other in ((alice, bob), (bob, alice)):
        sealed = Sealer(one.keys.send).sealed(packet)
        assert sealed is not None
        assert Opener(other.keys.receive).opened(sealed) == packet
    assert couple.now == pytest.approx(100 + 6 * DELAY)
    assert (couple.alice.deadline(), couple.bob.deadline()) == (NEVER, NEVER)


def test_datagrams_fit_through_a_tunnel() -> None:
    """Nothing that is sent is larger than our MTU, and each is whole records."""
    couple = Couple().start().run()
    assert max(len(sent.data) for sent in couple.carried) <= MTU
    assert [b"".join(map(bytes, read_records(sent.data))) == sent.data for sent in couple.carried] == [True] * 6


def test_records_are_packed_in_order() -> None:
    """As many as fit into a datagram; one that is too large travels alone."""
    records = [Record(HANDSHAKE, 0xFEFD, 0, n, bytes(size)) for n, size in enumerate((500, 500, 200, 2000, 10))]
    assert [[r.sequence for r in read_records(data)] for data in pack(records)] == [[0, 1], [2], [3], [4]]


def test_the_profile_is_one_that_both_have() -> None:
    """With a peer that knows AES-CM only, AES-CM it is."""
    old = Certificate(1_800_000_000.0)
    old.active.set_tlsext_use_srtp(b"SRTP_AES128_CM_SHA1_80")
    couple = Couple()
    couple.alice = couple.at[ALICE] = Association(old, active=True, entropy=random.Random(1).randbytes)
    couple.give(BOB, Trust((old.fingerprint,)))
    couple.give(ALICE, Trust((certificate("bob").fingerprint,)))
    couple.give(BOB, Path(ALICE))
    couple.give(ALICE, Path(BOB))
    alice, bob = couple.run().keys()
    assert alice.keys.send.suite is bob.keys.send.suite is SrtpSuite.AES_CM_128_HMAC_SHA1_80
    assert alice.keys.send == bob.keys.receive


def test_a_goodbye_is_heard() -> None:
    """Whoever closes says so, and the other reports it once."""
    couple = Couple().start().run()
    couple.give(ALICE, Close())
    couple.run()
    assert states(couple) == (CLOSED, CLOSED)
    assert couple.facts[BOB][1:] == [Closed()]
    assert couple.bob.handle(Datagram(b"\x16", ALICE), couple.now) == []


@pytest.mark.parametrize("whom", [ALICE, BOB])
def test_closing_early_leaves_nothing(whom: tuple[str, int]) -> None:
    """In the middle of a handshake, too, an end that is closed is quiet and has no timer."""
    couple = Couple().start().run(until=3 * DELAY + 0.001)
    couple.give(whom, Close())
    assert couple.at[whom].done
    assert couple.at[whom].deadline() == NEVER


def test_the_path_may_move_during_the_handshake() -> None:
    """After a new nomination answers go to the new address, and the old one is a stranger."""
    couple = Couple().start().run(until=3 * DELAY + 0.001)
    couple.give(BOB, Path(MALLORY))
    effects = couple.give(BOB, Datagram(couple.flying[0].data, ALICE))
    assert (effects, couple.bob.counters["dtls_from_elsewhere"]) == ([], 1)
    sent = couple.give(BOB, Datagram(couple.flying[0].data, MALLORY))
    assert {effect.destination for effect in sent if isinstance(effect, Send)} <= {MALLORY}


# -- loss -----------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("6347", "4.2.4")
@pytest.mark.parametrize("lost", range(6))
def test_every_single_loss_is_made_good(lost: int) -> None:
    """Each of the six datagrams may be lost: its flight is said again after 200 ms, on our clock."""
    couple = Couple()
    couple.lose = {lost}
    couple.start().run()
    couple.keys()
    assert 100 + 6 * DELAY + 0.1 < couple.now < 100 + 6 * DELAY + 0.5


@pytest.mark.rfc("6347", "4.2.4")
@pytest.mark.parametrize("seed", range(60))
def test_lossy_handshakes_come_off(seed: int) -> None:
    """20 % of the datagrams lost, some twice, some late: within the time that a handshake has, always the same keys."""
    couple = Couple(seed, Misfortune(loss=0.2, duplication=0.05, reorder=0.1)).start().run()
    alice, bob = couple.keys()
    assert alice.keys.send == bob.keys.receive
    assert alice.keys.receive == bob.keys.send


def test_repetitions_are_numbered_anew() -> None:
    """A plain record never has the number of another, even if it says the same (replay windows would drop it)."""
    couple = Couple()
    couple.lose = {0, 1, 3, 4, 5}
    couple.start().run()
    couple.keys()
    for source in (ALICE, BOB):
        sent = [
            record for datagram in couple.carried if datagram.source == source for record in read_records(datagram.data)
        ]
        numbers = [record.sequence for record in sent if record.is_plain]
        assert len(numbers) == len(set(numbers))


def test_nobody_there_fails_in_time() -> None:
    """Hellos into the void: at 0.2, 0.6, 1.4, 3.0 s and each two seconds then; after 15 s it is over, and says why."""
    couple = Couple()
    couple.give(ALICE, Trust((certificate("bob").fingerprint,)))
    couple.give(ALICE, Path(MALLORY))
    couple.run()
    times = [round(sent.at - DELAY - 100, 3) for sent in couple.carried]
    assert times == [0, 0.2, 0.6, 1.4, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0]
    assert couple.now == 115
    assert couple.facts[ALICE] == [Failed("no DTLS with the peer: the peer did not answer")]


def test_a_browser_that_never_begins_fails_in_time() -> None:
    """The passive side gives up as well."""
    couple = Couple(timeout=5.0)
    couple.give(BOB, Path(ALICE))
    assert couple.run().facts[BOB] == [Failed("no DTLS with the peer: the peer did not begin")]
    assert couple.now == 105


# -- certificates ---------------------------------------------------------------------------------------------------


@pytest.mark.rfc("8122", "5")
@pytest.mark.parametrize("promised", [(), (Fingerprint("sha-256", bytes(32)),), (Fingerprint("sha-1", bytes(20)),)])
def test_another_certificate_gets_no_keys(promised: tuple[Fingerprint, ...]) -> None:
    """An end that is shown what SDP did not promise fails, at once; so it does if SDP promised nothing it believes."""
    couple = Couple()
    couple.give(BOB, Trust(promised))
    couple.give(ALICE, Trust((certificate("bob").fingerprint,)))
    couple.give(BOB, Path(ALICE))
    couple.give(ALICE, Path(BOB))
    couple.run(until=1.0)
    problem = "the peer's certificate is not the one that its SDP has the fingerprint of"
    assert couple.facts[BOB] == [Failed(f"no DTLS with the peer: {problem}")]
    assert couple.bob.state is FAILED


@pytest.mark.rfc("5763", "5")
def test_the_handshake_may_be_faster_than_the_answer() -> None:
    """Keys wait for the fingerprint; it may come after the last flight, and lets them out then."""
    couple = Couple().start(trust=False).run(until=1.0)
    assert states(couple) == (DtlsState.UNPROVEN, DtlsState.UNPROVEN)
    assert couple.facts == {ALICE: [], BOB: []}
    couple.give(ALICE, Trust((certificate("bob").fingerprint,)))
    couple.give(BOB, Trust((certificate("bob").fingerprint,)))
    assert states(couple) == (SECURE, FAILED)
    assert len(couple.facts[ALICE]) == 1


def test_a_fingerprint_that_never_comes() -> None:
    """Without one there are no keys, ever."""
    couple = Couple().start(trust=False).run()
    problem = "no DTLS with the peer: the fingerprint of the peer's certificate did not come"
    assert couple.facts == {ALICE: [Failed(problem)], BOB: [Failed(problem)]}


def test_a_peer_without_srtp_gets_no_keys() -> None:
    """The right certificate is not enough: without a profile there is nothing to make keys for."""
    bare = Certificate(1_800_000_000.0)
    bare.active.set_tlsext_use_srtp(b"SRTP_AES128_CM_SHA1_32")
    couple = Couple()
    couple.alice = couple.at[ALICE] = Association(bare, active=True, entropy=random.Random(1).randbytes)
    couple.give(BOB, Trust((bare.fingerprint,)))
    couple.give(BOB, Path(ALICE))
    couple.give(ALICE, Path(BOB))
    couple.run(until=1.0)
    assert couple.facts[BOB] == [Failed("no DTLS with the peer: the peer agreed on no way of SRTP that we have")]


@pytest.mark.rfc("8122", "5")
def test_which_fingerprints_count() -> None:
    """Those of the best hash that is there; one of them must fit. SHA-1, MD5 and unknown ones prove nothing."""
    der = certificate("alice").certificate.public_bytes(Encoding.DER)
    good, strong = fingerprint(der), fingerprint(der, "sha-512")
    other = Fingerprint("sha-256", bytes(32))
    assert is_promised(der, [other, good])
    assert is_promised(der, [Fingerprint("whirlpool", b"x"), strong])
    assert not is_promised(der, [good, Fingerprint("sha-512", bytes(64))])
    assert not is_promised(der, [Fingerprint("sha-1", fingerprint(der, "sha-1").digest)])
    assert not is_promised(der, [])
    assert usable([good, strong, other]) == (strong,)


def test_the_lines_of_sdp() -> None:
    """Written as RFC 8122 has it; read in any case, and not at all if something is missing."""
    text = "sha-256 " + ":".join(["AB"] * 32)
    found = parse_fingerprint(text)
    assert found == Fingerprint("sha-256", b"\xab" * 32)
    assert str(found) == text
    assert parse_fingerprint(f"SHA-256  {text[8:].lower()} ") == found
    assert [parse_fingerprint(bad) for bad in ("", "sha-256", "sha-256 AB:C", "sha-256 AB:CD:", "a b c")] == [None] * 5
    assert [parse_setup(setup.value.upper()) for setup in Setup] == list(Setup)
    assert parse_setup("both") is None


@pytest.mark.rfc("5763", "5")
def test_who_begins() -> None:
    """A peer that leaves it to us begins itself; one that waits does not wait in vain."""
    parts = {
        Setup.ACTPASS: Setup.PASSIVE,
        Setup.ACTIVE: Setup.PASSIVE,
        Setup.PASSIVE: Setup.ACTIVE,
        None: Setup.PASSIVE,
    }
    assert {offered: answering(offered) for offered in parts} == parts
    assert answering(Setup.HOLDCONN) is Setup.HOLDCONN


def test_what_stands_for_the_session_stands_for_its_media() -> None:
    """Lines before the first m= hold for all that have none of their own; the golden offer of a browser has its own."""
    body = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 0A\r\na=setup:active\r\n"
    lines = b"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"
    own = b"a=fingerprint:sha-1 0B\r\na=fingerprint:sha-256 0C\r\na=setup:passive\r\n"
    description = parse_sdp(body + lines + lines + own)
    bare, full = description.media
    assert description.fingerprints_of(bare) == (Fingerprint("sha-256", b"\x0a"),)
    assert description.setup_of(bare) is Setup.ACTIVE
    assert description.fingerprints_of(full) == (Fingerprint("sha-1", b"\x0b"), Fingerprint("sha-256", b"\x0c"))
    assert description.setup_of(full) is Setup.PASSIVE
    assert encode_sdp(description) == body + lines + lines + own
    chrome = parse_sdp((GOLDEN / "chrome.sdp").read_bytes())
    assert [one.algorithm for one in chrome.fingerprints_of(chrome.media[0])] == ["sha-256"]
    assert chrome.setup_of(chrome.media[0]) is Setup.ACTPASS


def test_one_certificate_for_all_calls_of_a_day() -> None:
    """Another one after a day, or if the clock went back; whoever has the old one keeps it."""
    certificates = Certificates(rotation=86_400)
    first = certificates.current(1_800_000_000.0)
    assert certificates.current(1_800_086_399.0) is first
    second = certificates.current(1_800_086_400.0)
    assert second.fingerprint != first.fingerprint
    assert certificates.current(1_800_000_000.0) not in (first, second)
    assert first.certificate.not_valid_before_utc.timestamp() < 1_800_000_000
    assert first.certificate.not_valid_after_utc.timestamp() > 1_802_000_000


# -- strangers ------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("6347", "4.2.1")
def test_a_hello_from_elsewhere_is_not_even_answered() -> None:
    """Only the validated address is listened to, before, during and after the handshake."""
    couple = Couple()
    couple.give(BOB, Datagram(FIRST_HELLO, ALICE))
    couple.start()
    for until in (0.001, 3 * DELAY + 0.001, 60):
        couple.run(until=until)
        assert couple.give(BOB, Datagram(FIRST_HELLO, MALLORY)) == []
    couple.keys()
    assert couple.bob.counters == {"dtls_from_elsewhere": 4, "dtls_bare_hellos": 1}


@pytest.mark.rfc("6347", "4.2.1")
@pytest.mark.parametrize("seed", range(5))
def test_a_spray_of_spoofed_hellos_neither_kills_nor_steals(seed: int) -> None:
    """Hundreds of hellos with the peer's own address, with and without some cookie, at any time: the peer gets through.

    Nothing is kept of any of them, and what is sent for one is smaller than it was.
    """
    couple, rng = Couple(seed), random.Random(seed)
    couple.start()
    spoofed = bytearray(FIRST_HELLO)
    for step in range(300):
        spoofed[27:59] = rng.randbytes(32)
        hello = read_hello(bytes(spoofed))
        assert hello is not None
        data = bytes(spoofed) if step % 2 else _with_cookie(bytes(spoofed), rng.randbytes(20))
        for effect in couple.bob.handle(Datagram(data, ALICE), couple.now):
            assert isinstance(effect, Send)
            assert len(effect.data) <= len(data) + 10
        couple.run(until=step / 1000)
    couple.run()
    assert couple.keys()[0].keys.send == couple.keys()[1].keys.receive
    assert couple.bob.state is SECURE


def _with_cookie(hello: bytes, cookie: bytes) -> bytes:
    record = next(read_records(hello))
    body = record.body[12:46] + b"\0" + bytes([len(cookie)]) + cookie + record.body[48:]
    size = len(body).to_bytes(3)
    return bytes(attrs.evolve(record, body=b"\1" + size + b"\0\0" + bytes(3) + size + body))


def test_a_cookie_is_of_one_address_and_one_association() -> None:
    """What another association asked for, or this one at another address, opens nothing."""
    couple, other = Couple(seed=1), Couple(seed=2)
    couple.start()
    other.start().run(until=DELAY + 0.001)
    question = other.flying[0].data
    cookie = question[13 + 12 + 3 :]
    couple.bob.handle(Datagram(_with_cookie(FIRST_HELLO, cookie), ALICE), couple.now)
    assert couple.bob.state is DtlsState.LISTENING
    assert couple.bob.counters["dtls_bare_hellos"] == 1


def test_alerts_in_plain_text_end_nothing() -> None:
    """Anybody may have written them: they are counted, and named if nothing better explains the end."""
    couple = Couple().start()
    alert = bytes(Record(ALERT, 0xFEFD, 0, 9, b"\x02\x28"))
    for until in (0.001, 2 * DELAY + 0.001, 3 * DELAY + 0.001, 5 * DELAY + 0.001, 60):
        couple.run(until=until)
        for whom, other in ((ALICE, BOB), (BOB, ALICE)):
            couple.give(whom, Datagram(alert, other))
    couple.keys()
    assert states(couple) == (SECURE, SECURE)


def test_a_hello_that_nothing_can_be_done_with_does_not_end_the_wait() -> None:
    """A peer with the right cookie but no cipher of ours breaks its handshake only; a good one is still welcome."""
    couple = Couple().start().run(until=DELAY + 0.001)
    cookie = couple.flying[0].data[13 + 12 + 3 :]
    foolish = _with_cookie(FIRST_HELLO, cookie).replace(b"\xc0\x2b", b"\x00\x00")
    message = bytearray(foolish)
    message[10] = message[18] = 1  # a second record with a second message, as it follows our question
    couple.give(BOB, Datagram(bytes(message), ALICE))
    assert couple.bob.state is DtlsState.LISTENING
    assert couple.bob.counters["dtls_broken"] == 1
    couple.run()
    couple.keys()


def test_a_peer_that_begins_anew_gets_through() -> None:
    """A browser that lost its first handshake half-way, and starts another one, is heard."""
    couple = Couple().start().run(until=3 * DELAY + 0.001)
    couple.flying.clear()
    couple.alice = couple.at[ALICE] = Association(certificate("alice"), active=True, entropy=random.Random(9).randbytes)
    couple.give(ALICE, Trust((certificate("bob").fingerprint,)))
    couple.give(ALICE, Path(BOB))
    couple.run()
    couple.keys()


@given(
    data=st.binary(max_size=200), moment=st.sampled_from([0.0, 0.04, 0.07, 0.1, 0.13, 0.16, 1.0]), active=st.booleans()
)
@settings(max_examples=150, deadline=None)
def test_any_bytes_from_the_peers_address(data: bytes, moment: float, active: bool) -> None:
    """Whatever comes in between: no exception, and the handshake comes off, or was over already."""
    whom, other = (ALICE, BOB) if active else (BOB, ALICE)
    couple = Couple().start().run(until=moment)
    couple.give(whom, Datagram(b"\x16\xfe\xfd" + data, other))
    couple.give(whom, Datagram(data, other))
    couple.run()
    assert couple.keys()[0].keys.send == couple.keys()[1].keys.receive


@given(st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_hellos_are_read_or_not(data: bytes) -> None:
    """Any bytes are a hello or none; one that is read can be answered, and the answer is a record."""
    for candidate in (data, FIRST_HELLO[:27] + data, FIRST_HELLO[:61] + data):
        hello = read_hello(candidate)
        if hello is not None:
            assert len(list(read_records(verify_request(hello, bytes(20))))) == 1
