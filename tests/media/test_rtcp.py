"""RTCP compound packets and their times."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.rtcp import (
    Bye,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    build_rtcp,
    middle,
    ntp_time,
    parse_rtcp,
    report_interval,
    round_trip,
)
from rustpbx.media.rtp import is_rtcp
from tests.kit.predicates import rtcp
from tests.kit.strategies_media import RTCP

SR = SenderReport(
    ssrc=1, ntp=0x0123456789ABCDEF, rtp_time=160, packets=2, octets=320, reports=(ReportBlock(ssrc=9, lost=-1),)
)
CNAME = SourceDescription(ssrc=1, cname="rustpbx-1")


@given(st.lists(RTCP, min_size=1, max_size=4))
def test_round_trip(packets: list[RtcpPacket]) -> None:
    """A compound is read back packet by packet, and is RTCP to the demultiplexer."""
    data = build_rtcp(packets)
    assert parse_rtcp(data) == tuple(packets)
    assert len(data) % 4 == 0
    assert is_rtcp(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_packets_or_nothing(data: bytes) -> None:
    """No exception whatever comes, and what is read can be built again."""
    rtcp(data)


@given(st.lists(RTCP, min_size=1, max_size=3), st.data())
def test_a_truncated_compound_gives_its_whole_packets(packets: list[RtcpPacket], data: st.DataObject) -> None:
    """What was read is always the beginning of what was sent."""
    whole = build_rtcp(packets)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    assert parse_rtcp(cut) == tuple(packets)[: len(parse_rtcp(cut))]


@given(st.lists(RTCP, min_size=1, max_size=2), st.data())
def test_flipped_bytes_raise_nothing(packets: list[RtcpPacket], data: st.DataObject) -> None:
    """Damage anywhere is survived."""
    damaged = bytearray(build_rtcp(packets))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    rtcp(bytes(damaged))


def test_known_receiver_report() -> None:
    """A block written by hand: 24-bit signed loss beside the fraction."""
    data = bytes.fromhex("81c90007 0000002a 0000002b 40fffffe 00010003 00000010 11112222 00008000")
    block = ReportBlock(
        ssrc=43, fraction_lost=64, lost=-2, highest=0x10003, jitter=16, last_sr=0x11112222, delay=0x8000
    )
    assert parse_rtcp(data) == (ReceiverReport(ssrc=42, reports=(block,)),)
    assert build_rtcp([ReceiverReport(ssrc=42, reports=(block,))]) == data


def test_a_long_text_is_cut_between_characters() -> None:
    """At most 255 bytes, none of them half a character."""
    said = build_rtcp([Bye(ssrcs=(1,), reason="a" + "é" * 200)])
    assert parse_rtcp(said) == (Bye(ssrcs=(1,), reason="a" + "é" * 127),)


def test_unknown_packets_are_skipped() -> None:
    """APP, transport feedback and XR between known ones harm nothing."""
    app = bytes.fromhex("80cc0002 00000001 61626364")
    feedback = bytes.fromhex("81cd0002 00000001 00000002")
    data = build_rtcp([SR]) + app + feedback + build_rtcp([CNAME, Bye(ssrcs=(1,))])
    assert parse_rtcp(data) == (SR, CNAME, Bye(ssrcs=(1,)))


def test_padding_of_the_last_packet() -> None:
    """Padding is cut off before the body is read; a padding count that cannot be ends the reading."""
    padded = bytes.fromhex("a1cb0003 00000007 00000000 00000008")
    assert parse_rtcp(padded) == (Bye(ssrcs=(7,)),)
    assert parse_rtcp(bytes.fromhex("a1cb0001 000000ff")) == ()


def test_sdes_with_more_items_and_chunks() -> None:
    """Items besides the CNAME are passed over, chunks are aligned to 32 bits."""
    chunk = bytes.fromhex("00000005") + b"\x02\x03Bob" + b"\x01\x02me" + b"\0\0\0"
    other = bytes.fromhex("00000006") + b"\x01\x02us" + b"\0\0\0\0"
    body = chunk + other
    data = bytes([0x82, 202, 0, len(body) // 4]) + body
    assert parse_rtcp(data) == (SourceDescription(ssrc=5, cname="me"), SourceDescription(ssrc=6, cname="us"))


def test_ntp_time() -> None:
    """Epoch seconds on the NTP scale, binary fraction below."""
    assert ntp_time(0.0) == 2_208_988_800 << 32
    assert ntp_time(1.5) == (2_208_988_801 << 32) | 0x80000000
    assert middle(ntp_time(1.5)) == ((2_208_988_801 & 0xFFFF) << 16) | 0x8000


def test_round_trip_time() -> None:
    """Arrival less delay less sending time, in seconds; None where the peer has seen no report of ours."""
    sent, now = ntp_time(1000.0), ntp_time(1000.75)
    block = ReportBlock(ssrc=1, last_sr=middle(sent), delay=0x8000)
    assert round_trip(block, now) == pytest.approx(0.25, abs=1e-4)
    assert round_trip(ReportBlock(ssrc=1), now) is None
    assert round_trip(ReportBlock(ssrc=1, last_sr=middle(now), delay=0x8000), now) is None


@given(st.integers(0, 2**32))
def test_report_interval(seed: int) -> None:
    """Five seconds, give or take a half; the first in half the time."""
    rng = random.Random(seed)
    assert 2.5 <= report_interval(rng) <= 7.5
    assert 1.25 <= report_interval(rng, first=True) <= 3.75
