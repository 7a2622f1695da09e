"""RTP packets and their numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.rtp import Extension, RtpPacket, build_rtp, is_rtcp, parse_rtp
from rustpbx.media.seq import extend
from tests.kit.predicates import rtp
from tests.kit.strategies_media import RTP


@given(RTP)
def test_round_trip(packet: RtpPacket) -> None:
    """What is built is read back the same, also from a memoryview."""
    data = build_rtp(packet)
    assert parse_rtp(data) == packet
    assert parse_rtp(memoryview(bytearray(data))) == packet


@given(st.binary(max_size=120))
def test_any_bytes_give_a_packet_or_none(data: bytes) -> None:
    """No exception whatever comes, and what is accepted has its payload inside the datagram."""
    rtp(data)


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
