"""RTP packets, sequence numbers and reception statistics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.rtp import Extension, RtpPacket, build_rtp, is_rtcp, parse_rtp, payload_span
from rustpbx.media.seq import LossReport, Reception, extend
from tests.kit.strategies_media import RTP, U16


@given(RTP)
def test_round_trip(packet: RtpPacket) -> None:
    """What is built is read back the same, also from a memoryview."""
    data = build_rtp(packet)
    assert parse_rtp(data) == packet
    assert parse_rtp(memoryview(bytearray(data))) == packet


@given(st.binary(max_size=120))
def test_any_bytes_give_a_packet_or_none(data: bytes) -> None:
    """No exception whatever comes, and what is accepted has its payload inside the datagram."""
    packet = parse_rtp(data)
    span = payload_span(data)
    assert (packet is None) == (span is None)
    if packet is not None and span is not None:
        assert packet.payload == data[span[0] : span[1]]


@given(RTP, st.integers(1, 255))
def test_padding_is_cut_off(packet: RtpPacket, count: int) -> None:
    """The padding that the last byte counts is no payload."""
    data = bytearray(build_rtp(packet) + bytes(count - 1) + bytes([count]))
    data[0] |= 0x20
    assert parse_rtp(data) == packet


def test_known_packet() -> None:
    """A packet written by hand, field by field."""
    data = bytes.fromhex("9180 1234 00000140 deadbeef 0000000a bede 0001 10ff0000") + b"abc"
    assert parse_rtp(data) == RtpPacket(
        payload_type=0,
        sequence=0x1234,
        timestamp=320,
        ssrc=0xDEADBEEF,
        payload=b"abc",
        marker=True,
        csrcs=(10,),
        extension=Extension(profile=0xBEDE, body=bytes.fromhex("10ff0000")),
    )


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "80000001000000a0deadbe",  # one byte short
        "40000001000000a0deadbeef",  # version 1
        "8f000001000000a0deadbeef",  # 15 CSRCs that are not there
        "90000001000000a0deadbeefbede",  # half an extension header
        "90000001000000a0deadbeefbede0001",  # an extension that is not there
        "a0000001000000a0deadbeef",  # padding flag, last byte of the SSRC is no sane count
        "a0000001000000a0deadbeef00",  # padding of 0
        "a0000001000000a0deadbeef02",  # padding longer than what is there
    ],
)
def test_broken_packets_are_refused(broken: str) -> None:
    """Each header rule of A.1 is checked."""
    assert parse_rtp(bytes.fromhex(broken)) is None


def test_rtcp_is_told_from_rtp() -> None:
    """RFC 5761: SR to XR are RTCP, G.711 with or without marker is not."""
    assert [is_rtcp(bytes([0x80, second])) for second in (200, 201, 203, 207, 192, 223)] == [True] * 6
    assert [is_rtcp(bytes([0x80, second])) for second in (0, 8, 101, 0x80, 0x88, 0x80 | 101)] == [False] * 6
    assert not is_rtcp(b"\x80")


@given(st.integers(0, 2**40), st.integers(-0x7FFF, 0x7FFF))
def test_extend_unwraps(near: int, step: int) -> None:
    """The number closest to the last one is meant, over any wrap."""
    assert extend((near + step) & 0xFFFF, near) == near + step
    assert extend((near + step) & 0xFFFFFFFF, near, 32) == near + step


def steady(reception: Reception, numbers: list[int]) -> list[bool]:
    """Feed 20 ms packets on time."""
    return [reception.receive(n & 0xFFFF, n * 160 & 0xFFFFFFFF, n * 0.02) for n in numbers]


def test_probation_needs_two_in_sequence() -> None:
    """A source is valid from its second packet in sequence on (A.1)."""
    reception = Reception()
    assert steady(reception, [7, 9, 10, 11]) == [False, False, True, True]
    assert (reception.valid, reception.expected, reception.received) == (True, 2, 2)


def test_loss_since_the_last_report() -> None:
    """Fraction and total of A.3, over a sequence wrap."""
    reception = Reception()
    numbers = list(range(65_530, 65_530 + 22))
    steady(reception, numbers[:10])
    assert reception.report() == LossReport(fraction=0, lost=0, highest=65_539)
    steady(reception, [n for n in numbers[10:] if n % 4])
    assert reception.report() == LossReport(fraction=64, lost=3, highest=65_551)
    assert reception.report() == LossReport(fraction=0, lost=3, highest=65_551)


def test_duplicates_make_loss_negative_not_the_fraction() -> None:
    """More received than expected: the fraction is 0 (A.3)."""
    reception = Reception()
    steady(reception, [1, 2, 3, 3, 3])
    assert reception.report() == LossReport(fraction=0, lost=-2, highest=3)


def test_a_restart_is_believed_the_second_time() -> None:
    """One far jump is a stray; two in sequence are a new start (A.1)."""
    reception = Reception()
    steady(reception, [100, 101, 102])
    assert steady(reception, [30_000]) == [False]
    assert steady(reception, [103]) == [True]
    assert steady(reception, [30_000, 30_001, 30_002]) == [False, True, True]
    assert reception.report() == LossReport(fraction=0, lost=0, highest=30_002)


def test_jitter_of_the_rfc() -> None:
    """A.8: J += (|D| - J) / 16, in ticks; a timestamp wrap is no jitter."""
    reception = Reception()
    start = 2**32 - 160
    for index, arrival in enumerate([0.0, 0.02, 0.045, 0.06]):
        reception.receive(index, (start + 160 * index) & 0xFFFFFFFF, arrival)
    # The first packet is on probation: D = 40 ticks late, then 40 ticks early.
    assert reception.jitter_seconds * 8000 == pytest.approx(40 / 16 + (40 - 40 / 16) / 16)


@given(st.lists(st.tuples(U16, st.integers(0, 2**32 - 1), st.floats(0, 1e6)), max_size=50))
def test_any_stream_gives_a_report_that_can_be_sent(packets: list[tuple[int, int, float]]) -> None:
    """Fields stay within their wire sizes for any input."""
    reception = Reception()
    for packet in packets:
        reception.receive(*packet)
    report = reception.report()
    assert 0 <= report.fraction <= 255
    assert -(2**23) <= report.lost < 2**23
    assert 0 <= report.highest < 2**32
