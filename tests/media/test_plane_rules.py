"""The rules of RTP input beyond the ordinary: new SSRCs, early packets, reused ports, RTCP in the wrong place."""

from __future__ import annotations

import numpy as np
import pytest
import trio

from rustpbx.media.dtmf import digit_packets
from rustpbx.media.events import DigitPressed, Fact, MediaFormat
from rustpbx.media.plane.early import FRESH, MOST
from rustpbx.media.plane.latch import ENOUGH, LEARN_FOR
from rustpbx.media.plane.leg import Leg
from rustpbx.media.rtcp import Bye, ReceiverReport, build_rtcp
from rustpbx.media.rtp import RtpPacket, build_rtp
from tests.media.plane_rig import PHONE, STRANGER, Rig, Stream, g711
from tests.media.test_plane_receive import NARROW, WIDE, heard, off

LOUD = np.full(160, 30000, np.int16)
PIECES = [NARROW[at : at + 160] for at in range(0, NARROW.size, 160)]


def leg_of(rig: Rig, name: str = "a") -> Leg:
    """A leg, which is there."""
    leg = rig.plane.leg(name)
    assert leg is not None
    return leg


# -- a new SSRC -------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("3550", "A.1")
@pytest.mark.parametrize("every", [1, 3])
async def test_packets_of_other_ssrcs_among_the_phones_are_not_heard(every: int) -> None:
    """Each with an SSRC of its own, or one stream beside the phone's: never believed, the buffer never restarted."""
    rig = Rig()
    port, stream, other = rig.open(), Stream(), Stream(ssrc=1, timestamp=5000)
    tap = rig.plane.tap("a")
    for index, pcm in enumerate(PIECES):
        rig.ports.arrive(port, stream.packet(pcm))
        if index % every == 0:
            other.ssrc = 1 if every == 1 else index + 2
            rig.ports.arrive(port, other.packet(LOUD))
        rig.tick()
    assert off(heard(tap), WIDE) < 300
    assert rig.plane.counters == {"rtp_probation": -(-100 // every) - 1}
    assert rig.plane.close_leg("a").packets_received == 100


@pytest.mark.rfc("3550", "A.1")
async def test_a_new_ssrc_is_heard_from_its_first_packet_once_the_second_is_there() -> None:
    """The phone restarts its stream: two in sequence are believed, a gap or a repetition is not."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    for _ in range(10):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    new = Stream(ssrc=9, sequence=65_534)
    first = new.packet()
    rig.ports.arrive(port, first)
    rig.ports.arrive(port, first)
    rig.tick()
    new.skip()
    rig.ports.arrive(port, new.packet())
    rig.tick()
    bank, slot = rig.plane._bank, leg_of(rig).slot
    assert bank.ssrc_in[slot] == stream.ssrc
    tap = rig.plane.tap("a")
    heard(tap)
    new = Stream(ssrc=9, sequence=65_535)
    for pcm in PIECES:
        rig.ports.arrive(port, new.packet(pcm))
        rig.tick()
    assert bank.ssrc_in[slot] == 9
    assert off(heard(tap), WIDE) < 300
    assert rig.plane.close_leg("a").packets_received == 110


async def test_the_first_ssrc_of_a_call_waits_for_nobody() -> None:
    """From the address in SDP the very first packet is heard: there is nothing that it could displace."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a")
    rig.ports.arrive(port, stream.packet(LOUD))
    rig.tick(10)
    assert int(np.abs(heard(tap).astype(int)).max()) > 10_000


async def test_digits_may_have_an_ssrc_of_their_own() -> None:
    """As some gateways send them: told, and the audio of the other SSRC is heard on without a scratch."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a")
    digits = [
        build_rtp(RtpPacket(payload_type=101, sequence=7 + at, timestamp=99, ssrc=77, payload=one.payload))
        for at, one in enumerate(digit_packets("5", duration=100))
    ]
    for index, pcm in enumerate(PIECES):
        rig.ports.arrive(port, stream.packet(pcm))
        if 20 <= index < 20 + len(digits):
            rig.ports.arrive(port, digits[index - 20])
        rig.tick()
    assert off(heard(tap), WIDE) < 300
    assert [fact.digit for fact in rig.told() if isinstance(fact, DigitPressed)] == ["5"]
    assert rig.plane.close_leg("a").packets_received == 100


async def test_digits_before_any_audio_do_not_name_the_audio() -> None:
    """The SSRC of the first digit is not taken for that of the audio, which needs no probation then."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    packet = RtpPacket(payload_type=101, sequence=7, timestamp=99, ssrc=77, payload=digit_packets("1")[0].payload)
    rig.ports.arrive(port, build_rtp(packet))
    rig.ports.arrive(port, stream.packet(LOUD))
    tap = rig.plane.tap("a")
    rig.tick(10)
    assert int(np.abs(heard(tap).astype(int)).max()) > 10_000
    assert rig.plane.counters == {}


# -- before SDP -------------------------------------------------------------------------------------------------------


def opened_without_peer(rig: Rig) -> int:
    """A leg that knows no peer yet; its port."""
    send, rig.facts["a"] = trio.open_memory_channel[Fact](1000)
    return rig.plane.open_leg("a", send).port


async def test_what_comes_before_sdp_is_heard_when_it_is_there() -> None:
    """A phone that talks at once, its 200 still on the way: from its first sample on, and without lasting delay."""
    rig = Rig()
    port, stream = opened_without_peer(rig), Stream()
    tap = rig.plane.tap("a")
    for pcm in PIECES[:5]:
        rig.ports.arrive(port, stream.packet(pcm))
        rig.tick()
    assert heard(tap).size == 0
    rig.plane.set_remote("a", g711())
    for pcm in PIECES[5:]:
        rig.ports.arrive(port, stream.packet(pcm))
        rig.tick()
    rig.tick(5)
    assert off(heard(tap), WIDE) < 300
    stats = rig.plane.close_leg("a")
    assert (stats.packets_received, stats.packets_lost, stats.packets_dropped) == (100, 0, 0)
    assert stats.jitter < 0.001


async def test_only_the_newest_of_it_is_kept() -> None:
    """A minute of early media that nobody agreed to hear costs half a second of memory, and is no delay afterwards."""
    rig = Rig()
    port, stream = opened_without_peer(rig), Stream()
    for _ in range(3000):
        rig.ports.arrive(port, stream.packet(LOUD))
        rig.tick()
    rig.plane.set_remote("a", g711())
    received = rig.plane.close_leg("a").packets_received
    assert 0 < received <= min(MOST, round(FRESH / 0.02) + 1)


async def test_what_strangers_sent_before_sdp_teaches_nothing() -> None:
    """However much in sequence: the time to learn begins with SDP."""
    rig = Rig()
    port, attack = opened_without_peer(rig), Stream()
    for _ in range(3 * ENOUGH):
        rig.ports.arrive(port, attack.packet(LOUD), STRANGER)
        rig.tick()
    rig.plane.set_remote("a", g711())
    assert leg_of(rig).believed is None
    assert rig.plane.counters == {"rtp_stranger": 3 * ENOUGH}
    rig.tick(10)
    assert rig.destinations(port) == {PHONE}


# -- RTP Bleed --------------------------------------------------------------------------------------------------------


async def test_nobody_is_sent_our_audio_for_the_asking() -> None:
    """RTP Bleed: a stream sprayed at the port gets nothing back, with the phone talking, silent, or long learned."""
    for silent_from in (0, 10, 10_000):
        rig = Rig()
        port, stream, attack = rig.open(), Stream(), Stream(ssrc=666)
        for index in range(round(LEARN_FOR / 0.02) + 100):
            if index < 10 or index < silent_from:
                rig.ports.arrive(port, stream.packet())
            if index > 20:
                rig.ports.arrive(port, attack.packet(LOUD), STRANGER)
            rig.tick()
        assert rig.destinations(port) == {PHONE}
        assert rig.plane.counters["rtp_stranger"] == round(LEARN_FOR / 0.02) + 100 - 21


async def test_a_port_that_is_used_again_does_not_know_its_last_call() -> None:
    """Its phone, who has lost our BYE, talks on to it: not heard in the new call and never learned, before or after
    the new phone speaks; where SDP names that address again, it is believed.
    """
    rig = Rig(first_port=12000, last_port=12001, quarantine=0.0)
    old = Stream(ssrc=1)
    port = rig.open(media=g711(remote=("10.0.0.9", 4000)))
    for _ in range(10):
        rig.ports.arrive(port, old.packet(), STRANGER)
        rig.tick()
    assert leg_of(rig).believed == STRANGER
    rig.plane.close_leg("a")
    assert rig.open("b") == port
    tap, stream = rig.plane.tap("b"), Stream()
    rig.ports.sent.clear()
    for _ in range(3 * ENOUGH):
        rig.ports.arrive(port, old.packet(LOUD), STRANGER)
        rig.tick()
    assert rig.destinations(port) == {PHONE}
    heard(tap)
    for pcm in PIECES:
        rig.ports.arrive(port, old.packet(LOUD), STRANGER)
        rig.ports.arrive(port, stream.packet(pcm))
        rig.tick()
    assert off(heard(tap), WIDE) < 300
    rig.plane.close_leg("b")
    assert rig.open("c", media=g711(remote=STRANGER)) == port
    rig.ports.arrive(port, old.packet(), STRANGER)
    rig.tick()
    assert leg_of(rig, "c").believed == STRANGER


# -- RTCP -------------------------------------------------------------------------------------------------------------

NEXT = (PHONE[0], PHONE[1] + 1)
REPORT = build_rtcp([ReceiverReport(ssrc=0xABCD)])


@pytest.mark.parametrize(
    ("media", "to", "source"),
    [
        (g711(rtcp=PHONE, rtcp_mux=True), 1, NEXT),
        (g711(rtcp=PHONE, rtcp_mux=True), 1, PHONE),
        (g711(), 0, PHONE),
        (g711(), 1, PHONE),
        (g711(), 1, NEXT),
    ],
)
async def test_reports_are_taken_on_either_port(media: MediaFormat, to: int, source: tuple[str, int]) -> None:
    """Muxed or not as agreed, or the other way as some phones do it: read, and no audio is disturbed."""
    rig = Rig()
    port, stream = rig.open(media=media), Stream()
    tap = rig.plane.tap("a")
    for pcm in PIECES:
        rig.ports.arrive(port, stream.packet(pcm))
        rig.ports.arrive(port + to, REPORT, source)
        rig.tick()
    assert off(heard(tap), WIDE) < 300
    assert rig.plane.counters == {}


@pytest.mark.rfc("3550", "6.6")
async def test_rtcp_bye_ends_no_call() -> None:
    """A source that leaves is no hang-up: the call goes on, with what the phone sends next, under any SSRC."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    for _ in range(10):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    rig.ports.arrive(port + 1, build_rtcp([ReceiverReport(ssrc=stream.ssrc), Bye(ssrcs=(stream.ssrc,))]), NEXT)
    rig.tick(10)
    assert rig.told() == []
    tap, after = rig.plane.tap("a"), Stream(ssrc=5)
    for pcm in PIECES:
        rig.ports.arrive(port, after.packet(pcm))
        rig.tick()
    assert off(heard(tap), WIDE) < 300
    assert len(rig.rtp(port)) == 120
