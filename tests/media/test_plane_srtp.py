"""SRTP on a leg, the other side being a second implementation: what is heard and sent, and who is not believed."""

from __future__ import annotations

import random

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from rustpbx.errors import LocalError
from rustpbx.media.dtmf import DigitReceiver
from rustpbx.media.events import Direction, MediaFormat, Pcm, SrtpKey, SrtpKeys, SrtpSuite
from rustpbx.media.plane.latch import ENOUGH
from rustpbx.media.plane.leg import Leg
from rustpbx.media.rtcp import Bye, ReceiverReport, build_rtcp, parse_rtcp
from rustpbx.media.rtp import RtpPacket, is_rtcp, parse_rtp
from tests.kit.srtp import Protector
from tests.media.plane_rig import PHONE, STRANGER, Rig, Stream, as_sent, g711, pcm_of, tone
from tests.media.test_plane_receive import NARROW, WIDE, heard, off

CM_80, CM_32, CM_256, CM_256_32, GCM, GCM_256 = SrtpSuite
SUITES = pytest.mark.parametrize("suite", SrtpSuite)


def keys(suite: SrtpSuite = CM_80, send: int = 1, receive: int = 2) -> SrtpKeys:
    """Both keys, by the numbers they are made from."""
    ours, theirs = (SrtpKey(suite, random.Random(seed).randbytes(suite.key_size)) for seed in (send, receive))
    return SrtpKeys(send=ours, receive=theirs)


def secure(agreed: SrtpKeys | None = None, **changes: object) -> MediaFormat:
    """`g711()` under SRTP."""
    return g711(srtp=agreed or keys(), **changes)


class Phone:
    """A phone's side of the keys."""

    def __init__(self, rig: Rig, agreed: SrtpKeys | None = None, stream: Stream | None = None) -> None:
        agreed = agreed or keys()
        self._rig = rig
        self.sends = Protector(agreed.receive)
        self.hears = Protector(agreed.send)
        self.stream = stream or Stream()

    def packet(self, pcm: Pcm | None = None) -> bytes:
        """Its next packet, sealed."""
        roc = self.stream.sequence >> 16
        return self.sends.seal(self.stream.packet(pcm), roc)

    def talk(self, port: int, pcm: Pcm, source: tuple[str, int] = PHONE) -> None:
        """20 ms packets, one a tick."""
        for at in range(0, pcm.size, 160):
            self._rig.ports.arrive(port, self.packet(pcm[at : at + 160]), source)
            self._rig.tick()

    def opened(self, port: int, roc: int = 0) -> list[RtpPacket]:
        """What was sent from a port, opened; forgets it."""
        sent = [data for handle, data, _ in self._rig.ports.sent if handle == port and not is_rtcp(data)]
        self._rig.ports.sent = [item for item in self._rig.ports.sent if item[0] != port]
        packets = [parse_rtp(self.hears.open(data, roc)) for data in sent]
        return [packet for packet in packets if packet is not None]


def leg_of(rig: Rig) -> Leg:
    """The leg, which is there."""
    leg = rig.plane.leg("a")
    assert leg is not None
    return leg


def counted(rig: Rig) -> dict[str, int]:
    """What was counted, but for what the jitter buffer does."""
    return {name: count for name, count in rig.plane.counters.items() if name != "frames_left_out"}


@SUITES
@pytest.mark.parametrize("legs", [1, 8])
async def test_both_sides_hear_each_other(suite: SrtpSuite, legs: int) -> None:
    """Every suite, on a leg alone and among others, where packets are placed all at once; some of them plain."""
    rig = Rig()
    agreed = [keys(suite, 10 + leg, 20 + leg) if leg % 3 == 0 else None for leg in range(legs)]
    ports = [rig.open(str(leg), g711(srtp=pair)) for leg, pair in enumerate(agreed)]
    phones = [Phone(rig, pair, Stream(ssrc=leg)) for leg, pair in enumerate(agreed)]
    taps = [rig.plane.tap(str(leg)) for leg in range(legs)]
    async with rig.plane.source("0", 1) as source:
        await source.write(tone(1.0))
        for at in range(0, NARROW.size, 160):
            for port, phone, pair in zip(ports, phones, agreed, strict=True):
                pcm = NARROW[at : at + 160]
                rig.ports.arrive(port, phone.packet(pcm) if pair else phone.stream.packet(pcm))
            rig.tick()
        for tap in taps:
            assert off(heard(tap), WIDE) < 300
        packets = phones[0].opened(ports[0])
        assert len(packets) == 100
        assert np.array_equal(pcm_of(packets[:50]), as_sent(tone(1.0)))
        assert [packet.sequence for packet in packets] == [packets[0].sequence + index for index in range(100)]
    assert rig.plane.counters == {}


@SUITES
async def test_keys_are_sealed_too(suite: SrtpSuite) -> None:
    """Telephone-events in the sequence of the audio: each packet is opened by the phone, and none is missing."""
    rig = Rig()
    port = rig.open(media=secure(keys(suite)))
    rig.tick(3)
    rig.plane.press("a", "5", duration=100, gap=40, inband=False)
    rig.tick(20)
    packets = Phone(rig, keys(suite)).opened(port)
    assert {packet.payload_type for packet in packets} == {0, 101}
    assert [packet.sequence - packets[0].sequence for packet in packets] == list(range(23))
    digits = DigitReceiver()
    told = [digits.receive(packet.ssrc, packet.timestamp, packet.payload) for packet in packets if packet.payload_type]
    assert [digit for digit in told if digit] == ["5"]


@pytest.mark.parametrize("ptime", [20, 40, 60])
async def test_the_peers_packet_time_is_kept(ptime: int) -> None:
    """Longer packets are sealed whole, frame after frame."""
    rig = Rig()
    port = rig.open(media=secure(ptime=ptime))
    async with rig.plane.source("a", 1) as source:
        await source.write(tone(0.6))
        rig.tick(30)
    packets = Phone(rig).opened(port)
    assert {len(packet.payload) for packet in packets} == {8 * ptime}
    assert np.array_equal(pcm_of(packets), as_sent(tone(0.6)))


async def test_a_sequence_number_that_wraps() -> None:
    """Both rollover counters count: 1500 s of a call, of which these are the seconds around the wrap."""
    rig = Rig()
    port = rig.open(media=secure())
    phone = Phone(rig, stream=Stream(sequence=65_500))
    rig.plane._bank.sequence[leg_of(rig).slot] = 65_500
    tap = rig.plane.tap("a")
    for at in range(0, 36 * 160, 160):
        rig.ports.arrive(port, phone.packet(NARROW[at : at + 160]))
        rig.tick()
    assert len(phone.opened(port)) == 36
    phone.talk(port, NARROW[36 * 160 :])
    assert [packet.sequence for packet in phone.opened(port, roc=1)] == list(range(64))
    assert off(heard(tap), WIDE) < 300
    assert rig.plane.counters == {}


# -- who is not believed ---------------------------------------------------------------------------------------------


async def test_plain_forged_and_replayed_packets_are_dropped_and_counted() -> None:
    """Each among good ones: the call is heard without a scratch, and nothing else happens."""
    rig = Rig()
    port, phone, forger = rig.open(media=secure()), Phone(rig), Phone(rig, keys(receive=9))
    tap, plain = rig.plane.tap("a"), Stream(ssrc=phone.stream.ssrc)
    for at in range(0, NARROW.size, 160):
        good = phone.packet(NARROW[at : at + 160])
        for data in (plain.packet(), forger.packet(), good, good, good[:-1], good[:20], b"\x80", b"\0\1stun", b""):
            rig.ports.arrive(port, data)
        rig.tick()
    assert off(heard(tap), WIDE) < 300
    # A number that was heard before is a replay, whether or not the rest of the packet is what was sealed.
    assert rig.plane.counters == {"srtp_rejected": 400, "srtp_replayed": 200, "rtp_malformed": 200}
    assert rig.told() == []
    stats = rig.plane.close_leg("a")
    assert (stats.packets_received, stats.packets_dropped) == (100, 800)


async def test_only_a_sealed_stream_teaches_the_latch() -> None:
    """At once after SDP, with the signalled address silent, plain and forged streams from elsewhere teach nothing."""
    rig = Rig()
    port = rig.open(media=secure(remote=("10.0.0.5", 4000)))
    plain, forger, phone = Stream(), Phone(rig, keys(receive=9)), Phone(rig)
    for _ in range(3 * ENOUGH):
        rig.ports.arrive(port, plain.packet(), STRANGER)
        rig.ports.arrive(port, forger.packet(), STRANGER)
        rig.tick()
    assert leg_of(rig).believed is None
    phone.talk(port, NARROW[: 160 * ENOUGH])
    assert leg_of(rig).believed == PHONE
    assert rig.plane.counters == {"srtp_rejected": 6 * ENOUGH, "rtp_stranger": ENOUGH - 1}
    rig.ports.sent.clear()
    rig.tick(5)
    assert rig.destinations(port) == {PHONE}


async def test_a_plain_packet_from_the_signalled_address_is_not_the_peer() -> None:
    """Not even where SDP says: whoever can write that address does not have the key."""
    rig = Rig()
    port = rig.open(media=secure())
    rig.ports.arrive(port, Stream().packet())
    rig.tick()
    assert leg_of(rig).believed is None
    assert rig.plane.counters == {"srtp_rejected": 1}


async def test_what_strangers_send_later_is_not_even_opened() -> None:
    """Once the peer is known its packets, replayed from elsewhere, cost a comparison and no cryptography."""
    rig = Rig()
    port, phone = rig.open(media=secure()), Phone(rig)
    phone.talk(port, NARROW[:1600])
    phone.talk(port, NARROW[:1600], STRANGER)
    assert rig.plane.counters == {"rtp_stranger": 10}
    phone.talk(port, NARROW[:1600])
    assert rig.plane.close_leg("a").packets_received == 20


async def test_reports_are_sealed_both_ways() -> None:
    """SRTCP out and in, BYE at the end; a plain report, a forged and a replayed one are counted."""
    rig = Rig()
    port, phone = rig.open(media=secure()), Phone(rig)
    sealed = phone.sends.seal_report(build_rtcp([ReceiverReport(ssrc=phone.stream.ssrc)]))
    for data in (sealed, sealed, build_rtcp([ReceiverReport(ssrc=1)]), sealed[:-1] + b"x", b"\x80\xc9"):
        rig.ports.arrive(port + 1, data, (PHONE[0], PHONE[1] + 1))
    phone.talk(port, np.zeros(400 * 160, np.int16))
    assert counted(rig) == {"srtcp_rejected": 4}
    rig.plane.close_leg("a")
    reports = [phone.hears.open_report(data) for handle, data, _ in rig.ports.sent if handle == port + 1]
    assert len(reports) >= 2
    assert isinstance(parse_rtcp(reports[-1])[-1], Bye)


async def test_muxed_reports_are_sealed_too() -> None:
    """On the RTP port an SRTCP packet is told from SRTP by its type, which is not encrypted."""
    rig = Rig()
    port, phone = rig.open(media=secure(rtcp=PHONE, rtcp_mux=True)), Phone(rig)
    report = build_rtcp([ReceiverReport(ssrc=phone.stream.ssrc)])
    for index in range(1, 5):
        rig.ports.arrive(port, phone.sends.seal_report(report, index))
    rig.ports.arrive(port, report)
    phone.talk(port, np.zeros(400 * 160, np.int16))
    assert counted(rig) == {"srtcp_rejected": 1}
    sealed = [data for handle, data, _ in rig.ports.sent if handle == port and is_rtcp(data)]
    assert [phone.hears.open_report(data)[:2] for data in sealed] == [b"\x81\xc8"] * len(sealed) != []


# -- re-INVITEs ------------------------------------------------------------------------------------------------------


async def test_hold_keeps_the_keys_and_their_counters() -> None:
    """Held and resumed with the same keys: both streams go on, and what was heard before the hold is still a replay."""
    rig = Rig()
    port, phone = rig.open(media=secure()), Phone(rig)
    old = phone.packet()
    rig.ports.arrive(port, old)
    phone.talk(port, NARROW[:1600])
    first = phone.opened(port)
    rig.plane.set_remote("a", secure(direction=Direction.RECVONLY))
    phone.talk(port, NARROW[:1600])
    assert phone.opened(port) == []
    rig.plane.set_remote("a", secure())
    rig.ports.arrive(port, old)
    phone.talk(port, NARROW[:1600])
    assert phone.opened(port)[0].sequence == first[-1].sequence + 1
    assert rig.plane.counters["srtp_replayed"] == 1
    assert rig.plane.close_leg("a").packets_received == 31


async def test_new_keys_start_anew() -> None:
    """From the new agreement on only the new keys open anything, in either direction, rollover counters from zero."""
    rig = Rig()
    port, phone = rig.open(media=secure()), Phone(rig)
    phone.talk(port, NARROW[:1600])
    phone.opened(port)
    changed = keys(GCM_256, 3, 4)
    rig.plane.set_remote("a", secure(changed))
    after = Phone(rig, changed, phone.stream)
    rig.ports.arrive(port, phone.packet())
    after.talk(port, NARROW[:1600])
    assert len(after.opened(port)) == 10
    assert rig.plane.counters == {"srtp_rejected": 1}


async def test_a_new_ssrc_under_the_same_key() -> None:
    """A peer that restarts its stream, as music on hold does: heard with its second packet, its counter from zero."""
    rig = Rig()
    port, phone = rig.open(media=secure()), Phone(rig, stream=Stream(sequence=65_535))
    phone.talk(port, np.zeros(1600, np.int16))
    tap = rig.plane.tap("a")
    Phone(rig, stream=Stream(ssrc=5, sequence=7)).talk(port, NARROW)
    assert off(heard(tap), WIDE) < 300
    assert rig.plane.counters == {}


async def test_a_call_may_begin_plain_and_become_srtp_and_back() -> None:
    """What is agreed holds from one packet to the next; no keystream is used for two packets."""
    rig = Rig()
    port, phone = rig.open(), Phone(rig)
    for media in (g711(), secure(), g711(), secure()):
        rig.plane.set_remote("a", media)
        rig.ports.sent.clear()
        if media.srtp is None:
            rig.ports.arrive(port, phone.stream.packet())
            rig.tick(3)
            assert {len(packet.payload) for packet in rig.rtp(port)} == {160}
        else:
            phone.talk(port, NARROW[:480])
            assert len(phone.opened(port)) == 3
    assert counted(rig) == {}


async def test_what_cannot_be_sealed_does_not_leave() -> None:
    """Never in the clear instead: it is left out and counted, and the other legs' packets go."""
    rig = Rig()
    port, other = rig.open(media=secure()), rig.open("b")
    rig.tick(2)
    bank, slot = rig.plane._bank, leg_of(rig).slot
    rig.ports.sent.clear()
    bank.sequence[slot] -= 1  # what was sealed already is not sealed again
    rig.tick()
    assert {handle for handle, _, _ in rig.ports.sent} == {other}
    assert rig.plane.counters == {"srtp_not_sealed": 1, "sends_refused": 1}
    rig.tick()
    assert len(Phone(rig).opened(port)) == 1


@SUITES
def test_a_key_has_the_size_of_its_suite(suite: SrtpSuite) -> None:
    """The library reads as many bytes as the suite has, whatever it was given: another size cannot be built."""
    for size in (0, suite.key_size - 1, suite.key_size + 1):
        with pytest.raises(LocalError, match="bytes"):
            SrtpKey(suite, bytes(size))


@settings(max_examples=60)
@given(
    suite=st.sampled_from([CM_80, CM_32, GCM]),
    fates=st.lists(st.sampled_from(["good", "again", "bent", "cut", "plain", "noise", "lost"]), max_size=80),
    seed=st.integers(0, 2**16),
)
def test_a_hostile_wire_is_not_heard(suite: SrtpSuite, fates: list[str], seed: int) -> None:
    """Whatever comes between, what is received is what was sealed, each packet once, and no leg fails."""

    async def scenario() -> None:
        rig, rng = Rig(), random.Random(seed)
        agreed = keys(suite)
        port, phone, plain = rig.open(media=secure(agreed)), Phone(rig, agreed), Stream()
        good, sent = 0, [phone.packet()]
        for fate in fates:
            data = phone.packet() if fate in ("good", "bent", "cut", "lost") else rng.choice(sent)
            match fate:
                case "good":
                    good += 1
                    sent.append(data)
                case "bent":
                    at = rng.randrange(len(data))
                    data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
                case "cut":
                    data = data[: rng.randrange(len(data))]
                case "plain":
                    data = plain.packet()
                case "noise":
                    data = rng.randbytes(rng.randrange(300))
                case "lost":
                    continue
                case _:
                    if data == sent[0]:
                        continue
            rig.ports.arrive(port, data)
            rig.tick()
        assert rig.told() == []
        stats = rig.plane.close_leg("a")
        assert stats.packets_received == good
        assert rig.plane.counters["legs_failed"] == 0

    trio.run(scenario)
