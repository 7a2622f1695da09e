"""Who may ask us anything: networks, scanners, rates, digest for strangers; and calls that no flood touches."""

from __future__ import annotations

import ipaddress
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.core import Address
from rustpbx.sip import auth_server
from rustpbx.sip.admission import SCANNERS, Admission, AdmissionRules, Refused
from rustpbx.sip.auth import DigestClient
from rustpbx.sip.auth_server import Claim, DigestServer, Proof, Realm, User, secret
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import Answer, Credentials
from rustpbx.sip.message import CSeq, Lines, Request, Response
from tests.kit.peers_sip import ANSWER, Lone, Packet, invite, request
from tests.kit.raw_credentials import prove

KEY = bytes(range(32))
PASSWORD = "wonder"
ALGORITHMS = ("SHA-256", "MD5", "SHA-512-256")
ALICE = User({name: secret(name, "alice", "rustpbx", PASSWORD) for name in ALGORITHMS})
REALM = Realm(name="rustpbx", users={"alice": ALICE})
STRANGER: Address = ("198.51.100.7", 5060)
RULES = AdmissionRules(realm=REALM)


def judged(admission: Admission, message: Request, host: str = STRANGER[0], now: float = 0.0, calls: int = 0) -> Any:
    """The verdict: None if it is admitted, else reason and status."""
    verdict = admission.judge(message, host, calls, now)
    return (verdict.reason, verdict.status) if isinstance(verdict, Refused) else None


def challenge_of(lines: Lines, message: Request) -> Response:
    """The 401 with these lines, as a client sees it."""
    return Response(
        status=401,
        reason="Unauthorized",
        vias=message.vias,
        from_=message.from_,
        to=message.to.tagged("x"),
        call_id=message.call_id,
        cseq=message.cseq,
        lines=lines,
    )


def proven(message: Request, lines: Lines, user: str = "alice", password: str = PASSWORD) -> Request:
    """The request again, with what our own client makes of the challenge."""
    client = DigestClient(Credentials(user, password))
    client.challenged(challenge_of(lines, message))
    lines = client.authorization(message.method, str(message.uri), message.body, "cnonce")
    return attrs.evolve(message, lines=message.lines + lines)


# -- digest ----------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("7616", "3.3")
def test_the_strongest_algorithm_is_offered_first() -> None:
    """One header field for each, SHA-256 before MD5, with one nonce that is sealed."""
    lines = DigestServer(REALM, KEY).challenge(STRANGER[0], 0.0)
    assert [name for name, _ in lines] == ["WWW-Authenticate"] * 2
    assert [value.partition("algorithm=")[2] for _, value in lines] == ["SHA-256, stale=false", "MD5, stale=false"]


@pytest.mark.rfc("3261", "22.4")
@pytest.mark.parametrize("algorithm", ["SHA-256", "MD5"])
def test_our_client_satisfies_our_server(algorithm: str) -> None:
    """A right password proves, in either algorithm; a wrong one, and a user whom nobody knows, do not."""
    server = DigestServer(attrs.evolve(REALM, algorithms=(algorithm,)), KEY)
    lines = server.challenge(STRANGER[0], 0.0)
    assert server.check(proven(invite(), lines), STRANGER[0], 1.0).proof is Proof.VALID
    assert server.check(proven(invite(), lines, password="wander"), STRANGER[0], 1.0).proof is Proof.WRONG
    assert server.check(proven(invite(), lines, user="mallory"), STRANGER[0], 1.0).proof is Proof.WRONG
    assert server.check(invite(), STRANGER[0], 1.0).proof is Proof.MISSING


@pytest.mark.rfc("7616", "3.4")
def test_a_proof_is_good_once_for_its_source_and_its_time() -> None:
    """Sent again, from elsewhere, too late, or after a restart of ours, it says that the nonce is stale."""
    server = DigestServer(REALM, KEY)
    message = proven(invite(), server.challenge(STRANGER[0], 0.0))
    assert server.check(message, "198.51.100.8", 1.0).proof is Proof.STALE
    assert server.check(message, STRANGER[0], 1.0) == Claim(Proof.VALID, ALICE)
    assert server.check(message, STRANGER[0], 1.0).proof is Proof.STALE
    late = proven(invite(), server.challenge(STRANGER[0], 0.0))
    assert server.check(late, STRANGER[0], REALM.lifetime + 1).proof is Proof.STALE
    assert DigestServer(REALM, bytes(32)).check(late, STRANGER[0], 1.0).proof is Proof.STALE


@pytest.mark.rfc("7616", "3.3")
def test_a_wrong_password_is_never_told_that_its_nonce_is_stale() -> None:
    """However old the nonce: else whoever guesses would learn from `stale` that he has guessed right."""
    server = DigestServer(REALM, KEY)
    lines = server.challenge(STRANGER[0], 0.0)
    assert server.check(proven(invite(), lines, password="x"), STRANGER[0], 1e6).proof is Proof.WRONG
    elsewhere = [server.check(proven(invite(), lines, password=word), "198.51.100.8", 1.0) for word in ("x", PASSWORD)]
    assert elsewhere == [Claim(Proof.STALE)] * 2


@pytest.mark.rfc("7616", "3.4")
def test_counts_of_a_nonce_must_rise() -> None:
    """The next count is good, one again or below is not; another spelling of the number makes no new one."""
    server = DigestServer(REALM, KEY)
    client = DigestClient(Credentials("alice", PASSWORD))
    client.challenged(challenge_of(server.challenge(STRANGER[0], 0.0), invite()))
    first, second, third = (
        attrs.evolve(invite(), lines=client.authorization("INVITE", "sip:bob@192.0.2.2", b"", f"c{n}"))
        for n in range(3)
    )
    verdicts = [server.check(message, STRANGER[0], 1.0).proof for message in (second, first, second, third)]
    assert verdicts == [Proof.VALID, Proof.STALE, Proof.STALE, Proof.VALID]


def test_a_forgotten_count_proves_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more nonces are used than are remembered, the oldest are stale, not good once more."""
    monkeypatch.setattr(auth_server, "MOST_NONCES", 10)
    server = DigestServer(REALM, KEY)
    messages = [proven(invite(), server.challenge(STRANGER[0], float(n))) for n in range(30)]
    assert [server.check(message, STRANGER[0], 30.0).proof for message in messages] == [Proof.VALID] * 30
    assert [server.check(message, STRANGER[0], 31.0).proof for message in messages] == [Proof.STALE] * 30
    assert len(server._counts) == 10
    assert server.check(proven(invite(), server.challenge(STRANGER[0], 31.0)), STRANGER[0], 32.0).user == ALICE


@pytest.mark.rfc("7616", "3.4.3")
def test_the_body_may_be_protected_too() -> None:
    """`auth-int` of a client that insists on it: the body counts."""
    server = DigestServer(REALM, KEY)
    lines = tuple((name, value.replace('"auth"', '"auth-int"')) for name, value in server.challenge(STRANGER[0], 0.0))
    message = proven(invite(), lines)
    assert "qop=auth-int" in (message.header("Authorization") or "")
    assert server.check(attrs.evolve(message, body=b"v=1"), STRANGER[0], 1.0).proof is Proof.WRONG
    assert server.check(message, STRANGER[0], 1.0).user == ALICE


def test_a_user_may_have_one_algorithm_only() -> None:
    """Hashes instead of a password: what there is none of is wrong, as if nobody had that name."""
    bob = User({"MD5": secret("MD5", "bob", "rustpbx", "b")})
    server = DigestServer(attrs.evolve(REALM, users={"bob": bob}), KEY)
    weak = server.challenge(STRANGER[0], 0.0)[1:]
    assert server.check(proven(invite(), weak, "bob", "b"), STRANGER[0], 1.0).user == bob
    strong = server.challenge(STRANGER[0], 0.0)[:1]
    assert server.check(proven(invite(), strong, "bob", "b"), STRANGER[0], 1.0).proof is Proof.WRONG


@pytest.mark.parametrize(
    "spoilt",
    [
        ("qop=auth", "qop=auth-conf"),
        ("qop=auth", "x=auth"),
        ("nc=00000001", "nc=1"),
        ("nc=00000001", "nc=0000000g"),
        ("algorithm=SHA-256", "algorithm=SHA-1"),
        ("Digest", "Basic"),
        ('realm="rustpbx"', 'realm="other"'),
        ("response=", "answer="),
        ('nonce="', 'nonce="\u00e9'),
        ('nonce="', 'nonce="*'),
    ],
)
def test_what_is_spoilt_proves_nothing(spoilt: tuple[str, str]) -> None:
    """Each part of the credentials counts."""
    server = DigestServer(attrs.evolve(REALM, algorithms=("SHA-256",)), KEY)
    message = proven(invite(), server.challenge(STRANGER[0], 0.0))
    value = message.header("Authorization") or ""
    assert spoilt[0] in value
    changed = attrs.evolve(message, lines=(("Authorization", value.replace(*spoilt)),))
    assert server.check(changed, STRANGER[0], 1.0).user is None
    assert server.check(message, STRANGER[0], 1.0).user == ALICE


@given(data=st.one_of(st.binary(max_size=200), st.builds(b'Digest nonce="NONCE", %b'.__mod__, st.binary(max_size=200))))
def test_any_authorization_field_proves_what_it_should(data: bytes) -> None:
    """Nothing raises, nothing is proven twice, whatever is in it."""
    prove(data)


# -- verdicts --------------------------------------------------------------------------------------------------------


def test_networks_decide_first() -> None:
    """Trusted ones need no password and have no rate, denied ones get no answer, or 403 where that is wished."""
    rules = attrs.evolve(
        RULES,
        trusted=(ipaddress.ip_network("10.0.0.0/8"),),
        denied=(ipaddress.ip_network("203.0.113.0/24"),),
        invites=1.0,
        burst=1.0,
    )
    admission = Admission(rules, KEY)
    assert [judged(admission, invite(), "10.1.2.3") for _ in range(20)] == [None] * 20
    assert judged(admission, invite(), "203.0.113.9") == ("denied", None)
    assert judged(Admission(attrs.evolve(rules, unknown="reject"), KEY), invite(), "203.0.113.9") == ("denied", 403)
    assert (admission.sources, admission.failing) == (0, 0)


@pytest.mark.parametrize(
    ("unknown", "verdict"),
    [("challenge", ("no_credentials", 401)), ("reject", ("unknown", 403)), ("drop", ("unknown", None))],
)
def test_strangers_get_what_is_configured(unknown: str, verdict: object) -> None:
    """A challenge, a refusal, or nothing that shows that we are there."""
    assert judged(Admission(attrs.evolve(RULES, unknown=unknown), KEY), invite()) == verdict


@pytest.mark.parametrize("agent", SCANNERS)
def test_scanners_get_no_answer(agent: str) -> None:
    """By the names they go under, in any case."""
    message = attrs.evolve(invite(), lines=(("User-Agent", f"{agent.upper()} 1.0"),))
    assert judged(Admission(AdmissionRules(), KEY), message) == ("scanner", None)


def test_a_source_is_served_at_its_rate() -> None:
    """A burst at once, then so many a second; others are not touched, and this machine has no rate."""
    admission = Admission(AdmissionRules(requests=10.0, invites=2.0, burst=2.0), KEY)
    assert [judged(admission, invite(), now=0.0) for _ in range(6)] == [None] * 4 + [("invite_rate", None)] * 2
    assert judged(admission, invite(), "198.51.100.8") is None
    assert judged(admission, invite(), now=0.5) is None
    options = request("OPTIONS")
    assert sum(judged(admission, options, now=0.5) is None for _ in range(50)) == 18
    assert judged(admission, options, now=0.5) == ("rate", None)
    assert {judged(admission, invite(), "127.0.0.1") for _ in range(100)} == {None}
    assert admission.counters["refused_invite_rate"] == 2


def test_an_ipv6_source_is_its_network() -> None:
    """Whoever has a /64 has one rate, whatever address he takes."""
    admission = Admission(AdmissionRules(invites=1.0, burst=1.0), KEY)
    verdicts = [judged(admission, invite(), f"2001:db8::{n:x}") for n in range(1, 10)]
    assert verdicts == [None] + [("invite_rate", None)] * 8


def test_who_guesses_passwords_is_not_answered_any_more_for_a_while() -> None:
    """After so many wrong proofs a source is quiet; then it may try again. A right one forgives those before it."""
    rules = attrs.evolve(RULES, failures=3, quiet=60.0)
    admission = Admission(rules, KEY)
    server = DigestServer(REALM, KEY)

    def tried(password: str, now: float) -> Any:
        return judged(admission, proven(invite(), server.challenge(STRANGER[0], now), password=password), now=now)

    assert [tried("a", 0.0), tried("b", 1.0), tried("wonder", 2.0)] == [("wrong_credentials", 401)] * 2 + [None]
    assert [tried(word, 3.0) for word in "cde"] == [("wrong_credentials", 401)] * 3
    assert tried("wonder", 4.0) == ("quiet", None)
    assert tried("wonder", 62.9) == ("quiet", None)
    assert tried("wonder", 63.1) is None


def guess(admission: Admission, host: str, times: int, now: float = 0.0) -> None:
    """Send wrong passwords, each with a nonce of one's own."""
    server = DigestServer(REALM, KEY)
    for _ in range(times):
        judged(admission, proven(invite(), server.challenge(host, now), password="guess"), host, now)


def test_nobody_is_silenced_in_his_name() -> None:
    """Wrong credentials count against who has our nonce; whoever spoofs an address cannot have it."""
    admission = Admission(attrs.evolve(RULES, failures=3), KEY)
    server = DigestServer(REALM, KEY)
    elsewhere = proven(invite(), server.challenge("203.0.113.1", 0.0), password="guess")
    garbage = attrs.evolve(invite(), lines=(("Authorization", 'Digest username="alice", realm="rustpbx", x'),))
    for message in (elsewhere, garbage) * 50:
        judged(admission, message, now=1.0)
    assert admission.failing == 0
    assert judged(admission, proven(invite(), server.challenge(STRANGER[0], 1.0)), now=1.0) is None


def test_a_flood_does_not_make_a_guesser_forgotten() -> None:
    """Who failed stays known while spoofed sources come and go; of those who fail there are not too many, either."""
    admission = Admission(attrs.evolve(RULES, failures=3, sources=100), KEY)
    guess(admission, STRANGER[0], 3)
    for n in range(1000):
        judged(admission, invite(), str(ipaddress.IPv4Address(0x0B000000 + n)))
    assert judged(admission, invite()) == ("quiet", None)
    for n in range(200):
        guess(admission, str(ipaddress.IPv4Address(0x0C000000 + n)), 1)
    assert (admission.sources, admission.failing) == (100, 100)


def test_who_stops_guessing_is_forgiven() -> None:
    """Failures are forgotten after the time of silence, and nothing of the source is kept."""
    admission = Admission(attrs.evolve(RULES, failures=3, quiet=60.0), KEY)
    guess(admission, STRANGER[0], 2)
    guess(admission, STRANGER[0], 2, now=61.0)
    assert judged(admission, invite(), now=61.0) == ("no_credentials", 401)
    assert judged(admission, invite(), now=200.0) == ("no_credentials", 401)
    assert admission.failing == 0


@pytest.mark.parametrize(
    ("callers", "verdict"),
    [
        (None, None),
        (("alice",), None),
        (("alice@192.0.2.1",), None),
        (("carol", "bob"), ("caller", 403)),
        ((), ("caller", 403)),
    ],
)
def test_a_user_calls_as_who_he_is(callers: tuple[str, ...] | None, verdict: object) -> None:
    """With a list of callers, any other From is refused by name."""
    realm = attrs.evolve(REALM, users={"alice": attrs.evolve(ALICE, callers=callers)})
    admission = Admission(AdmissionRules(realm=realm), KEY)
    message = proven(invite(), DigestServer(realm, KEY).challenge(STRANGER[0], 0.0))
    assert judged(admission, message) == verdict


@pytest.mark.rfc("3261", "22.1")
@pytest.mark.parametrize("method", ["CANCEL", "BYE", "INFO", "UPDATE"])
def test_what_is_of_calls_is_not_challenged(method: str) -> None:
    """It cannot begin anything; where strangers are not answered it is not, either."""
    assert judged(Admission(RULES, KEY), request(method)) is None
    assert judged(Admission(attrs.evolve(RULES, unknown="drop"), KEY), request(method)) == ("unknown", None)


def test_refusals_are_told_once_and_then_now_and_then() -> None:
    """Of one source and reason the 1st, 8th, 16th ...; of challenges nothing, they are part of every call."""
    admission = Admission(AdmissionRules(), KEY)
    scan = attrs.evolve(invite(), lines=(("User-Agent", "sipvicious"),))
    verdicts = [admission.judge(scan, STRANGER[0], 0, 0.0) for _ in range(40)]
    assert [v.number for v in verdicts if isinstance(v, Refused) and v.noteworthy] == [1, 8, 16, 32]
    asked = Admission(RULES, KEY).judge(invite(), STRANGER[0], 0, 0.0)
    assert isinstance(asked, Refused)
    assert not asked.noteworthy


def test_calls_of_one_source_are_limited() -> None:
    """More than it may have at one time are told to come later."""
    admission = Admission(AdmissionRules(calls=2), KEY)
    assert judged(admission, invite(), calls=1) is None
    assert judged(admission, invite(), calls=2) == ("calls_of_source", 503)


def test_spoofed_sources_are_not_remembered() -> None:
    """Spoofed addresses cost a bounded number of small entries."""
    admission = Admission(AdmissionRules(sources=500), KEY)
    for n in range(10_000):
        admission.judge(invite(), str(ipaddress.IPv4Address(0x0B000000 + n)), 0, 0.0)
    assert admission.sources == 500


# -- within an endpoint ----------------------------------------------------------------------------------------------


STRAY = """SIP/2.0 200 OK
Via: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKxNUMBER
From: <sip:a@b>;tag=1
To: <sip:a@b>;tag=2
Call-ID: NUMBER
CSeq: 1 INVITE
Content-Length: 0

"""


def guarded(**rules: Any) -> Lone:
    """An endpoint that asks strangers for a password."""
    rules = {"realm": REALM, **rules}
    return Lone(EndpointConfig(port=5060, admission=AdmissionRules(**rules), nonce_key=KEY), peer=STRANGER)


def statuses(packets: list[Packet]) -> list[int]:
    """Of the responses."""
    return [packet.message.status for packet in packets if isinstance(packet.message, Response)]


def test_a_challenged_call_comes_through_and_nothing_is_kept_of_the_challenge() -> None:
    """401 without a transaction; the second INVITE, with the password, rings."""
    lone = guarded()
    first = lone.send(invite())
    assert statuses(first) == [401]
    assert lone.side.endpoint.counters["transactions_running"] == 0
    challenge = first[0].message
    again = attrs.evolve(invite(), cseq=CSeq(2, "INVITE"), vias=invite(branch="z9hG4bKagain").vias)
    assert statuses(lone.send(proven(again, challenge.lines))) == [100]


def test_a_flood_of_strangers_touches_no_call() -> None:
    """A call that is up is served through thousands of INVITEs, REGISTERs and responses that nobody asked for."""
    lone = Lone(
        EndpointConfig(port=5060, admission=AdmissionRules(invites=5.0, requests=10.0, burst=1.0)), peer=STRANGER
    )
    lone.send(invite(call_id="honest"))
    lone.wish(Answer(lone.leg, ANSWER))
    lone.send(request("ACK", call_id="honest", to_tag=lone.tag, cseq=1))
    before = lone.side.endpoint.counters["calls"]
    for n in range(1000):
        lone.send(invite(call_id=f"flood-{n}", branch=f"z9hG4bKf{n}"))
        lone.send(request("REGISTER", call_id=f"reg-{n}", branch=f"z9hG4bKr{n}"))
        lone.send(STRAY.replace("NUMBER", str(n)))
    counters = lone.side.endpoint.counters
    assert counters["refused_rate"] + counters["refused_invite_rate"] >= 1900
    assert counters["calls"] - before <= 10
    assert statuses(lone.send(request("BYE", call_id="honest", to_tag=lone.tag, cseq=2, branch="z9hG4bKbye"))) == [200]
