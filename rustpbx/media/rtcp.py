"""RTCP (RFC 3550 section 6): SR, RR, SDES and BYE in compound packets, and the times they carry."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator

import attrs

from rustpbx.media.rtp import Buffer

NTP_OFFSET = 2_208_988_800
"""Seconds from 1900, where NTP begins, to 1970."""

INTERVAL = 5.0
"""Seconds between reports (6.2); two parties never need more."""

SR, RR, SDES, BYE = 200, 201, 202, 203
CNAME = 1


@attrs.frozen(kw_only=True)
class ReportBlock:
    """Reception of `ssrc` (6.4.1): `fraction_lost` in 1/256, `lost` signed 24 bits, `jitter` in ticks;
    `last_sr` the middle of the last SR's NTP time and `delay` since then, both in 1/65536 s (0 if there was none).
    """

    ssrc: int
    fraction_lost: int = 0
    lost: int = 0
    highest: int = 0
    jitter: int = 0
    last_sr: int = 0
    delay: int = 0


@attrs.frozen(kw_only=True)
class SenderReport:
    """`ntp` is 64 bits (`ntp_time`), `rtp_time` the same instant on the stream's clock; counts are since the start."""

    ssrc: int
    ntp: int
    rtp_time: int
    packets: int
    octets: int
    reports: tuple[ReportBlock, ...] = ()


@attrs.frozen(kw_only=True)
class ReceiverReport:
    """What a party that has sent nothing since the last reports says."""

    ssrc: int
    reports: tuple[ReportBlock, ...] = ()


@attrs.frozen(kw_only=True)
class SourceDescription:
    """The CNAME of one source (6.5.1)."""

    ssrc: int
    cname: str


@attrs.frozen(kw_only=True)
class Bye:
    """These sources have left (6.6)."""

    ssrcs: tuple[int, ...]
    reason: str = ""


RtcpPacket = SenderReport | ReceiverReport | SourceDescription | Bye

_BLOCK = struct.Struct("!IIIIII")
_SENDER = struct.Struct("!IQIII")


def ntp_time(epoch: float) -> int:
    """64-bit NTP time of an epoch time in seconds."""
    seconds = int(epoch // 1)
    fraction = int((epoch - seconds) * 2**32)
    return ((seconds + NTP_OFFSET) & 0xFFFFFFFF) << 32 | fraction


def middle(ntp: int) -> int:
    """The middle 32 bits of an NTP time, in 1/65536 s."""
    return (ntp >> 16) & 0xFFFFFFFF


def round_trip(block: ReportBlock, ntp: int) -> float | None:
    """Seconds there and back, from a block about our stream received at `ntp` (6.4.1); None if it cannot say."""
    if block.last_sr == 0:
        return None
    ticks = (middle(ntp) - block.last_sr - block.delay) & 0xFFFFFFFF
    return ticks / 65536 if ticks < 60 * 65536 else None


def report_interval(rng: random.Random, *, first: bool = False) -> float:
    """Seconds to the next report: 5 s (half of it for the first), times 0.5 to 1.5 so that calls do not beat in step.

    Section 6.3.1 for two parties; timer reconsideration and its divisor concern groups.
    """
    return (INTERVAL / 2 if first else INTERVAL) * rng.uniform(0.5, 1.5)


# -- build ----------------------------------------------------------------------------------------------------------


def build_rtcp(packets: Iterable[RtcpPacket]) -> bytes:
    """A compound packet. The caller puts an SR or RR first and a CNAME after it (6.1).

    At most 31 reports or sources in each; a CNAME or reason is cut at 255 bytes.
    """
    return b"".join(_build(packet) for packet in packets)


def _build(packet: RtcpPacket) -> bytes:
    match packet:
        case SenderReport():
            head = _SENDER.pack(packet.ssrc, packet.ntp, packet.rtp_time, packet.packets, packet.octets)
            return _framed(SR, len(packet.reports), head + _blocks(packet.reports))
        case ReceiverReport():
            return _framed(RR, len(packet.reports), packet.ssrc.to_bytes(4, "big") + _blocks(packet.reports))
        case SourceDescription():
            item = bytes([CNAME]) + _counted(packet.cname)
            return _framed(SDES, 1, packet.ssrc.to_bytes(4, "big") + item + b"\0")
        case Bye():
            body = struct.pack(f"!{len(packet.ssrcs)}I", *packet.ssrcs)
            return _framed(BYE, len(packet.ssrcs), body + (_counted(packet.reason) if packet.reason else b""))


def _framed(kind: int, count: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def _counted(text: str) -> bytes:
    data = text.encode()[:255].decode(errors="ignore").encode()  # whole characters only
    return bytes([len(data)]) + data


def _blocks(reports: tuple[ReportBlock, ...]) -> bytes:
    return b"".join(
        _BLOCK.pack(r.ssrc, r.fraction_lost << 24 | r.lost & 0xFFFFFF, r.highest, r.jitter, r.last_sr, r.delay)
        for r in reports
    )


# -- parse ----------------------------------------------------------------------------------------------------------


def parse_rtcp(data: Buffer) -> tuple[RtcpPacket, ...]:
    """Every packet of a compound that can be read, in order; () for bytes that are no RTCP.

    Unknown kinds (APP, feedback, XR) are skipped. Reading stops where a length leaves the datagram.
    """
    return tuple(_packets(bytes(data)))


def _packets(data: bytes) -> Iterator[RtcpPacket]:
    while len(data) >= 4 and data[0] >> 6 == 2:
        first, kind, words = struct.unpack_from("!BBH", data)
        size = 4 + 4 * words
        if size > len(data):
            return
        body, data = data[4:size], data[size:]
        if first & 0x20:
            if not body or not 0 < body[-1] <= len(body):
                return
            body = body[: -body[-1]]
        yield from _parse(kind, first & 0x1F, body)


def _parse(kind: int, count: int, body: bytes) -> Iterator[RtcpPacket]:
    if kind == SR and len(body) >= _SENDER.size + count * _BLOCK.size:
        ssrc, ntp, rtp_time, packets, octets = _SENDER.unpack_from(body)
        reports = _read_blocks(body, _SENDER.size, count)
        yield SenderReport(ssrc=ssrc, ntp=ntp, rtp_time=rtp_time, packets=packets, octets=octets, reports=reports)
    elif kind == RR and len(body) >= 4 + count * _BLOCK.size:
        yield ReceiverReport(ssrc=int.from_bytes(body[:4], "big"), reports=_read_blocks(body, 4, count))
    elif kind == SDES:
        yield from _read_chunks(body, count)
    elif kind == BYE and len(body) >= 4 * count:
        rest = body[4 * count :]
        reason = rest[1 : 1 + rest[0]].decode(errors="replace") if rest else ""
        yield Bye(ssrcs=struct.unpack_from(f"!{count}I", body), reason=reason)


def _read_blocks(body: bytes, at: int, count: int) -> tuple[ReportBlock, ...]:
    return tuple(_read_block(body, at + index * _BLOCK.size) for index in range(count))


def _read_block(body: bytes, at: int) -> ReportBlock:
    ssrc, loss, highest, jitter, last_sr, delay = _BLOCK.unpack_from(body, at)
    lost = loss & 0xFFFFFF
    return ReportBlock(
        ssrc=ssrc,
        fraction_lost=loss >> 24,
        lost=lost - (1 << 24) if lost & 0x800000 else lost,
        highest=highest,
        jitter=jitter,
        last_sr=last_sr,
        delay=delay,
    )


def _read_chunks(body: bytes, count: int) -> Iterator[SourceDescription]:
    """Section 6.5: items end with a zero byte, chunks at a 32-bit boundary; only the CNAME matters to us."""
    at = 0
    for _ in range(count):
        if at + 4 > len(body):
            return
        ssrc = int.from_bytes(body[at : at + 4], "big")
        at += 4
        while at + 2 <= len(body) and body[at] != 0:
            kind, size = body[at], body[at + 1]
            if at + 2 + size > len(body):
                return
            if kind == CNAME:
                yield SourceDescription(ssrc=ssrc, cname=body[at + 2 : at + 2 + size].decode(errors="replace"))
            at += 2 + size
        at = (at + 4) & ~3
