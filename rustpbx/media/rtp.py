"""RTP packets (RFC 3550 section 5): parse and build. The batch stages of the plane follow the same header rules."""

from __future__ import annotations

import struct

import attrs

Buffer = bytes | bytearray | memoryview
"""Received bytes; a row of a receive array may be given as a memoryview."""

VERSION = 2
"""In the two highest bits of RTP and RTCP."""

FIRST_RTCP, LAST_RTCP = 192, 223
"""What the second byte of RTCP is, and of RTP never (RFC 5761 section 4)."""

HEADER = struct.Struct("!BBHII")
"""First byte (version, padding, extension, CSRC count), second byte (marker, payload type), sequence, time, SSRC."""


@attrs.frozen(kw_only=True)
class Extension:
    """A header extension (5.3.1): the profile's 16 bits and its body, whole 32-bit words."""

    profile: int
    body: bytes


@attrs.frozen(kw_only=True)
class RtpPacket:
    """One packet. `timestamp` is in ticks of the payload's clock; `payload` comes without padding."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False
    csrcs: tuple[int, ...] = ()
    extension: Extension | None = None


def is_rtcp(data: Buffer) -> bool:
    """Tell RTCP from RTP on a muxed port by the second byte (RFC 5761 section 4)."""
    return len(data) > 1 and FIRST_RTCP <= data[1] <= LAST_RTCP


def payload_span(data: Buffer) -> tuple[int, int] | None:
    """Where the payload begins and ends; None if the packet is not valid RTP (appendix A.1's header checks).

    The rule in one place: version 2; CSRCs and extension inside the packet; a padding count, if flagged, of at least
    1 that fits. A packet whose first byte is 0x80 has span (12, len).
    """
    size = len(data)
    if size < 12 or data[0] >> 6 != VERSION:
        return None
    first = data[0]
    start = 12 + 4 * (first & 0x0F)
    if first & 0x10:
        if start + 4 > size:
            return None
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    end = size
    if first & 0x20:
        if data[-1] == 0:
            return None
        end -= data[-1]
    return (start, end) if start <= end else None


def parse_rtp(data: Buffer) -> RtpPacket | None:
    """Read one packet; None if it is not valid RTP (the caller counts it)."""
    span = payload_span(data)
    if span is None:
        return None
    first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
    count = first & 0x0F
    extension = None
    if first & 0x10:
        at = 12 + 4 * count
        profile = int.from_bytes(data[at : at + 2], "big")
        extension = Extension(profile=profile, body=bytes(data[at + 4 : span[0]]))
    return RtpPacket(
        payload_type=second & 0x7F,
        sequence=sequence,
        timestamp=timestamp,
        ssrc=ssrc,
        payload=bytes(data[span[0] : span[1]]),
        marker=bool(second & 0x80),
        csrcs=struct.unpack_from(f"!{count}I", data, 12),
        extension=extension,
    )


def build_rtp(packet: RtpPacket) -> bytes:
    """Write one packet, without padding. At most 15 CSRCs; an extension body of whole 32-bit words."""
    first = 0x80 | len(packet.csrcs) | (0x10 if packet.extension else 0)
    second = packet.payload_type | (0x80 if packet.marker else 0)
    parts = [
        HEADER.pack(first, second, packet.sequence, packet.timestamp, packet.ssrc),
        struct.pack(f"!{len(packet.csrcs)}I", *packet.csrcs),
    ]
    if packet.extension is not None:
        parts.append(struct.pack("!HH", packet.extension.profile, len(packet.extension.body) // 4))
        parts.append(packet.extension.body)
    parts.append(packet.payload)
    return b"".join(parts)
