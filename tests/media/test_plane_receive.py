"""What comes in: playout, loss, odd packets, strangers, DTMF, RTCP."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.codec.g711 import PCMA, PCMU
from rustpbx.media.dtmf import digit_packets
from rustpbx.media.events import Codec, DigitPressed, Direction, LegStats, Pcm
from rustpbx.media.plane.tap import Tap
from rustpbx.media.rtcp import ReceiverReport, SenderReport, parse_rtcp
from rustpbx.media.rtp import RtpPacket, build_rtp, is_rtcp
from tests.media.plane_rig import PHONE, STRANGER, Rig, Stream, as_sent, g711, tone

LAG = 2 * 320 + 23
"""Samples at 16 kHz between a leg's first packet and its audio in a tap: 40 ms of jitter buffer, then the filter."""


def heard(tap: Tap) -> Pcm:
    """Everything in a tap."""
    blocks = []
    while True:
        try:
            blocks.append(tap.blocks.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            return np.concatenate([block.pcm for block in blocks]) if blocks else np.zeros(0, np.int16)


def off(heard_pcm: Pcm, expected: Pcm) -> int:
    """The largest difference after the lag, borders left aside."""
    size = min(heard_pcm.size - LAG, expected.size) - 100
    return int(np.abs(heard_pcm[LAG + 100 : LAG + size].astype(int) - expected[100:size]).max())


WIDE = tone(2.0, rate=16000)
NARROW = tone(2.0)


@pytest.mark.parametrize("samples", [80, 160, 240, 320, 480])
async def test_any_packet_time_is_heard_whole(samples: int) -> None:
    """A phone that sends 10 to 60 ms a packet is heard as it spoke."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a")
    spoken = 0
    for tick in range(100):
        while spoken < (tick + 1) * 160 and spoken + samples <= NARROW.size:
            rig.ports.arrive(port, stream.packet(NARROW[spoken : spoken + samples]))
            spoken += samples
        rig.tick()
    assert off(heard(tap), WIDE) < 300
    assert rig.plane.close_leg("a").packets_received == spoken // samples


async def test_many_calls_do_not_hear_each_other() -> None:
    """Eight legs at once (the batch way), each with its own tone: each tap has its own leg's."""
    rig = Rig()
    ports = [rig.open(str(leg)) for leg in range(8)]
    taps = [rig.plane.tap(str(leg)) for leg in range(8)]
    streams = [Stream(ssrc=leg, sequence=65500, timestamp=2**32 - 800) for leg in range(8)]
    tones = [tone(1.0, hertz=300.0 + 100 * leg) for leg in range(8)]
    for tick in range(50):
        for port, stream, spoken in zip(ports, streams, tones, strict=True):
            rig.ports.arrive(port, stream.packet(spoken[tick * 160 : tick * 160 + 160]))
        rig.tick()
    for leg, tap in enumerate(taps):
        assert off(heard(tap), tone(1.0, rate=16000, hertz=300.0 + 100 * leg)) < 450
    assert rig.plane.close_leg("3") == LegStats(packets_sent=50, packets_received=50)


@given(st.randoms(use_true_random=False))
def test_reordering_within_the_buffer_is_not_heard(rng: random.Random) -> None:
    """Packets swapped with a neighbour, by either way into the ring, come out in order."""

    async def scenario() -> None:
        rig = Rig()
        ports = [rig.open(str(leg)) for leg in range(6)]
        tap = rig.plane.tap("0")
        stream, rest = Stream(), Stream(ssrc=1)
        batch = rng.random() < 0.5
        for pair in range(20):
            first, second = (stream.packet(NARROW[at : at + 160]) for at in (pair * 320, pair * 320 + 160))
            swapped = pair > 2 and rng.random() < 0.5
            for data in (second, first) if swapped else (first, second):
                rig.ports.arrive(ports[0], data)
                for port in ports[1:] if batch else []:
                    rig.ports.arrive(port, rest.packet())
                rig.tick()
        assert off(heard(tap), WIDE) < 300

    trio.run(scenario)


async def test_loss_is_concealed_and_counted() -> None:
    """One packet in ten is missing: the stream keeps its time, has no hole of silence, and the loss is told."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a")
    for index in range(100):
        if index % 10 == 5:
            stream.skip()
        else:
            rig.ports.arrive(port, stream.packet(NARROW[index * 160 : index * 160 + 160]))
        rig.tick()
    pcm = heard(tap)[LAG + 320 : LAG + 90 * 320].reshape(-1, 320).astype(float)
    assert np.sqrt((pcm**2).mean(axis=1)).min() > 3000
    stats = rig.plane.close_leg("a")
    assert (stats.packets_received, stats.packets_lost) == (90, 10)


async def test_the_buffer_grows_with_jitter_and_shrinks_again() -> None:
    """Late by up to 80 ms: the delay grows, nothing is dropped as late; in time again, the delay goes away again."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    bank, slot = rig.plane._bank, rig.plane._legs["a"].slot
    for _ in range(40):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    assert bank.delay[slot] == 2
    for _ in range(20):
        rig.tick(4)
        for _ in range(5):
            rig.ports.arrive(port, stream.packet())
        rig.tick()
    assert 3 <= bank.delay[slot] <= 5
    assert rig.plane.counters["rtp_late"] == 0
    for _ in range(700):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    assert 1 <= bank.delay[slot] <= 2


async def test_a_burst_after_a_stall_does_not_stay_as_delay() -> None:
    """Half a second of packets at once: at most 200 ms of it are kept waiting."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    for _ in range(20):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    rig.tick(25)
    for _ in range(25):
        rig.ports.arrive(port, stream.packet())
    for _ in range(30):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    assert rig.plane._bank.lead[rig.plane._legs["a"].slot] <= 10


async def test_a_new_ssrc_starts_again() -> None:
    """The phone restarts its stream with other numbers: heard at once, counters go on."""
    rig = Rig()
    port = rig.open()
    tap = rig.plane.tap("a")
    for stream in (Stream(), Stream(ssrc=99, sequence=40000, timestamp=7)):
        for index in range(50):
            rig.ports.arrive(port, stream.packet(NARROW[index * 160 : index * 160 + 160]))
            rig.tick()
    pcm = heard(tap)
    assert off(pcm[50 * 320 :], WIDE) < 300
    assert rig.plane.close_leg("a").packets_received == 100
    assert rig.plane.counters["rtp_late"] == 0


async def test_a_jump_of_time_is_followed_by_the_second_packet() -> None:
    """A lone stray is dropped; a stream that goes on elsewhere is heard from its second packet on."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    for _ in range(20):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    stream.timestamp += 1_000_000
    for _ in range(20):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    assert rig.plane.counters["rtp_out_of_window"] == 1


async def test_silence_fills_what_the_phone_does_not_say() -> None:
    """A phone that stops sending is heard as silence, without a gap in the blocks' times."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a")
    for _ in range(20):
        rig.ports.arrive(port, stream.packet(tone(0.02)))
        rig.tick()
    rig.tick(80)
    blocks = [tap.blocks.receive_nowait() for _ in range(20)]
    assert not any(block.pcm.any() for block in blocks[8:])
    steps = np.diff([block.at for block in blocks[8:]])
    assert np.allclose(steps, 0.1)


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        (b"", "rtp_malformed"),
        (b"\x80\x00", "rtp_malformed"),
        (b"\x40" + bytes(171), "rtp_malformed"),
        (b"\x8f\x00" + bytes(20), "rtp_malformed"),
        (build_rtp(RtpPacket(payload_type=0, sequence=1, timestamp=1, ssrc=1, payload=b"")), "rtp_malformed"),
        (build_rtp(RtpPacket(payload_type=0, sequence=1, timestamp=1, ssrc=1, payload=bytes(1400))), "rtp_malformed"),
        (build_rtp(RtpPacket(payload_type=9, sequence=1, timestamp=1, ssrc=1, payload=bytes(160))), "rtp_wrong_type"),
        (bytes(3000), "rtp_malformed"),
    ],
)
async def test_bad_packets_are_counted_and_nothing_else(data: bytes, counter: str) -> None:
    """Once the phone is believed, whatever else it sends is dropped with its reason, and its audio goes on."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a")
    for index in range(50):
        rig.ports.arrive(port, stream.packet(NARROW[index * 160 : index * 160 + 160]))
        if index % 2:
            rig.ports.arrive(port, data)
        rig.tick()
    assert off(heard(tap), WIDE) < 300
    assert rig.plane.counters == {counter: 25}
    assert rig.plane.close_leg("a").packets_dropped == 25


@given(st.lists(st.binary(max_size=300), max_size=40), st.booleans())
def test_any_bytes_are_survived(noise: list[bytes], known: bool) -> None:
    """Random datagrams, from the phone or from anybody, raise nothing and eject nobody."""

    async def scenario() -> None:
        rig = Rig()
        port = rig.open()
        rig.ports.arrive(port, Stream().packet())
        for data in noise:
            rig.ports.arrive(port, data, PHONE if known else STRANGER)
            rig.ports.arrive(port + 1, data, PHONE if known else STRANGER)
        rig.tick(3)
        assert rig.told() == []
        assert rig.plane.counters["legs_failed"] == 0

    trio.run(scenario)


async def test_padding_extensions_and_csrcs_are_understood() -> None:
    """The payload is found behind CSRCs and an extension and before padding."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a")
    for index in range(50):
        plain = stream.packet(NARROW[index * 160 : index * 160 + 160])
        odd = bytes([0xB1]) + plain[1:12] + bytes(4) + b"\xbe\xde\x00\x01abcd" + plain[12:] + b"\0\0\x03"
        rig.ports.arrive(port, odd)
        rig.tick()
    assert off(heard(tap), WIDE) < 300


async def test_a_stranger_is_neither_heard_nor_answered() -> None:
    """While the phone talks, a stranger's well-formed stream is dropped, and our audio still goes to the phone."""
    rig = Rig()
    port, stream, attack = rig.open(), Stream(), Stream(ssrc=666, timestamp=5000)
    tap = rig.plane.tap("a")
    for index in range(50):
        rig.ports.arrive(port, attack.packet(np.full(160, 30000, np.int16)), STRANGER)
        rig.ports.arrive(port, stream.packet(NARROW[index * 160 : index * 160 + 160]))
        rig.tick()
    assert off(heard(tap), WIDE) < 300
    assert rig.destinations(port) == {PHONE}
    assert rig.plane.counters == {"rtp_stranger": 50}


async def test_a_phone_behind_nat_is_learned_and_answered() -> None:
    """SDP named a private address: after five packets from elsewhere both directions use that."""
    rig = Rig()
    port, stream = rig.open(media=g711(remote=("10.0.0.5", 4000), rtcp=("10.0.0.5", 4001))), Stream()
    for _ in range(10):
        rig.ports.arrive(port, stream.packet(), PHONE)
        rig.tick()
    last = [destination for handle, _, destination in rig.ports.sent if handle == port][-5:]
    assert last == [PHONE] * 5
    rig.tick(300)
    rtcp = {destination for handle, _, destination in rig.ports.sent if handle == port + 1}
    assert rtcp == {(PHONE[0], PHONE[1] + 1)}


async def test_a_reinvite_moves_everything() -> None:
    """New address, codec and payload type in mid-call: both ways follow, the old address is a stranger then."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a")
    for _ in range(50):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    there = ("198.51.100.9", 6000)
    rig.plane.set_remote("a", g711(codec=Codec.PCMA, receive_pt=8, send_pt=8, remote=there, rtcp=None))
    rig.rtp(port)
    heard(tap)
    moved = Stream(ssrc=5, payload_type=8)
    for index in range(50):
        pcm = NARROW[index * 160 : index * 160 + 160]
        data = moved.packet(pcm)
        rig.ports.arrive(port, data[:12] + PCMA.encode(pcm).tobytes(), there)
        rig.ports.arrive(port, stream.packet(), PHONE)
        rig.tick()
    pcm = heard(tap)
    assert int(np.abs(pcm[LAG + 700 : 15000].astype(int)).max()) > 7500
    assert rig.destinations(port) == {there}
    packets = rig.rtp(port)
    assert {(packet.payload_type, packet.payload[0]) for packet in packets} == {(8, 0xD5)}
    assert rig.plane.counters == {"rtp_stranger": 50}


async def test_a_held_leg_hears_nothing_and_says_so() -> None:
    """While our direction is sendonly what comes in is ignored; the blocks go on with silence."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a")
    for _ in range(20):
        rig.ports.arrive(port, stream.packet(tone(0.02)))
        rig.tick()
    rig.plane.set_remote("a", g711(direction=Direction.SENDONLY))
    rig.tick(5)
    heard(tap)
    for _ in range(50):
        rig.ports.arrive(port, stream.packet(tone(0.02)))
        rig.ports.arrive(port, _dtmf("5", stream)[0])
        rig.tick()
    assert heard(tap).size == 10 * 1600
    assert not heard(tap).any()
    assert rig.told() == []


def _dtmf(digit: str, stream: Stream) -> list[bytes]:
    return [
        build_rtp(
            RtpPacket(
                payload_type=101,
                sequence=stream.sequence + index & 0xFFFF,
                timestamp=stream.timestamp,
                ssrc=stream.ssrc,
                payload=packet.payload,
                marker=packet.marker,
            )
        )
        for index, packet in enumerate(digit_packets(digit, duration=60))
    ]


async def test_digits_are_told_once_and_never_heard() -> None:
    """A press of five packets is one fact, and not a sample of it is audio."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a")
    for _ in range(10):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    for data in _dtmf("#", stream):
        rig.ports.arrive(port, data)
        rig.tick()
    rig.tick(20)
    at = 1000 + 11 * 0.02
    assert [(fact.leg, fact.digit, round(fact.at, 6)) for fact in rig.told() if isinstance(fact, DigitPressed)] == [
        ("a", "#", round(at, 6))
    ]
    assert not heard(tap).any()


async def test_a_tap_that_is_not_read_loses_its_oldest() -> None:
    """Three blocks fit: the newest three are there, the others are counted, and the clock never waited."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    tap = rig.plane.tap("a", seconds=0.04, capacity=3)
    for _ in range(20):
        rig.ports.arrive(port, stream.packet())
        rig.tick()
    times = [round(tap.blocks.receive_nowait().at, 6) for _ in range(3)]
    assert tap.dropped == 7
    newest = rig.clock.time - 3 * 0.02 - 0.02
    assert times == [round(newest - 0.08, 6), round(newest - 0.04, 6), round(newest, 6)]


async def test_taps_end_with_their_block_or_their_leg() -> None:
    """A left tap yields what waited and then the end; so does one whose leg is closed. Others go on."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    with rig.plane.tap("a") as left:
        other = rig.plane.tap("a", seconds=0.02)
        rig.ports.arrive(port, stream.packet())
        rig.tick(5)
    with trio.fail_after(1):
        assert len([block async for block in left.blocks]) == 1
    rig.tick(5)
    rig.plane.close_leg("a")
    with trio.fail_after(1):
        assert len([block async for block in other.blocks]) == 10


async def test_reports_tell_loss_and_the_way_there_and_back() -> None:
    """Within eight seconds an SR with our counts and a block on the phone's stream; its RR gives the round trip."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    for index in range(400):
        if index % 4:
            rig.ports.arrive(port, stream.packet())
        else:
            stream.skip()
        rig.tick()
    compounds = [parse_rtcp(data) for handle, data, _ in rig.ports.sent if handle == port + 1]
    report = compounds[0][0]
    assert isinstance(report, SenderReport)
    assert report.octets == 160 * report.packets
    assert report.reports[0].ssrc == stream.ssrc
    assert 55 <= report.reports[0].fraction_lost <= 70
    block = report.reports[0]
    echo = SenderReport(
        ssrc=stream.ssrc,
        ntp=0,
        rtp_time=0,
        packets=0,
        octets=0,
        reports=(type(block)(ssrc=report.ssrc, last_sr=(report.ntp >> 16) & 0xFFFFFFFF, delay=65536),),
    )
    from rustpbx.media.rtcp import build_rtcp, middle, ntp_time  # noqa: PLC0415 - only this test builds RTCP

    sent_at = report.ntp
    now = ntp_time((rig.clock.wall(rig.clock.time) + 20) / 1000)
    rig.ports.arrive(port + 1, build_rtcp([echo]), (PHONE[0], PHONE[1] + 1))
    rig.tick()
    measured = rig.plane.close_leg("a").round_trip
    assert measured == pytest.approx(((middle(now) - middle(sent_at)) / 65536) - 1, abs=0.001)


async def test_muxed_rtcp_shares_the_port_and_is_no_audio() -> None:
    """Under rtcp-mux reports leave and arrive on the RTP port; an RR that arrives disturbs nothing."""
    from rustpbx.media.rtcp import build_rtcp  # noqa: PLC0415 - see above

    rig = Rig()
    port, stream = rig.open(media=g711(rtcp=PHONE, rtcp_mux=True)), Stream()
    for _ in range(400):
        rig.ports.arrive(port, stream.packet())
        rig.ports.arrive(port, build_rtcp([ReceiverReport(ssrc=stream.ssrc)]))
        rig.tick()
    reports = [data for handle, data, _ in rig.ports.sent if handle == port and is_rtcp(data)]
    assert reports
    assert not [handle for handle, _, _ in rig.ports.sent if handle == port + 1]
    assert {name for name, count in rig.plane.counters.items() if count} <= {"frames_left_out"}


def test_mu_law_is_what_the_stream_helper_says() -> None:
    """The rig's own idea of what the phone hears is the codec's."""
    assert np.array_equal(as_sent(NARROW), PCMU.decode(PCMU.encode(NARROW)))


async def test_taps_that_begin_together_do_not_stay_together() -> None:
    """Forty taps opened in one tick: each has all of its audio, and no tick serves them all."""
    rig, stream = Rig(), Stream()
    port = rig.open()
    taps = [rig.plane.tap("a") for _ in range(40)]
    spoken = tone(2.0)
    served = []
    for at in range(0, spoken.size, 160):
        rig.ports.arrive(port, stream.packet(spoken[at : at + 160]))
        waiting = sum(tap.blocks.waiting for tap in taps)
        rig.tick()
        served.append(sum(tap.blocks.waiting for tap in taps) - waiting)
    assert max(served) <= 16
    for tap in taps:
        count = tap.blocks.waiting
        blocks = [tap.blocks.receive_nowait() for _ in range(count)]
        for block, later in itertools.pairwise(blocks):
            assert later.at == pytest.approx(block.at + block.pcm.size / 16000)
        assert sum(block.pcm.size for block in blocks) >= 1.8 * 16000
        assert {block.pcm.size for block in blocks[1:]} == {1600}
