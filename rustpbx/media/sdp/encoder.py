"""`SessionDescription` to bytes, in the order of the grammar (RFC 8866 section 9)."""

from __future__ import annotations

from collections.abc import Iterator

from rustpbx.errors import LocalError
from rustpbx.media.sdp.model import Line, MediaDescription, Section, SessionDescription


def encode_sdp(description: SessionDescription) -> bytes:
    """Write a description with CRLF line ends. Raises `LocalError` if a value would break out of its line."""
    lines = [f"{line.letter}={line.value}" for line in _session(description)]
    if any(mark in line for line in lines for mark in "\r\n\0"):
        raise LocalError("a value in SDP may not contain a line end or NUL")
    return "".join(f"{line}\r\n" for line in lines).encode(errors="surrogateescape")


def _session(description: SessionDescription) -> Iterator[Line]:
    origin = description.origin
    yield Line("v", "0")
    yield Line("o", f"{origin.username} {origin.session_id} {origin.version} {origin.connection}")
    yield Line("s", description.name)
    yield from (line for line in description.extra if line.letter in "iuep")
    if description.connection is not None:
        yield Line("c", str(description.connection))
    yield from (line for line in description.extra if line.letter in "cb")
    yield from (Line("t", time) for time in description.times)
    yield from (line for line in description.extra if line.letter not in "iuepcb")
    yield from _attributes(description)
    for media in description.media:
        yield from _media(media)


def _media(media: MediaDescription) -> Iterator[Line]:
    ports = f"/{media.ports}" if media.ports != 1 else ""
    yield Line("m", f"{media.kind} {media.port}{ports} {media.protocol} {' '.join(media.formats)}")
    yield from (line for line in media.extra if line.letter == "i")
    if media.connection is not None:
        yield Line("c", str(media.connection))
    yield from (line for line in media.extra if line.letter != "i")
    for rtpmap in media.rtpmaps:
        yield Line("a", f"rtpmap:{rtpmap.payload_type} {rtpmap}")
    for fmtp in media.fmtps:
        yield Line("a", f"fmtp:{fmtp.format} {fmtp.parameters}")
    if media.rtcp is not None:
        where = f" {media.rtcp.connection}" if media.rtcp.connection else ""
        yield Line("a", f"rtcp:{media.rtcp.port}{where}")
    for ssrc in media.ssrcs:
        value = f":{ssrc.value}" if ssrc.value is not None else ""
        yield Line("a", f"ssrc:{ssrc.ssrc} {ssrc.name}{value}")
    for crypto in media.cryptos:
        yield Line("a", f"crypto:{crypto}")
    yield from _attributes(media)


def _attributes(section: Section) -> Iterator[Line]:
    if section.rtcp_mux:
        yield Line("a", "rtcp-mux")
    if section.ptime is not None:
        yield Line("a", f"ptime:{section.ptime}")
    if section.maxptime is not None:
        yield Line("a", f"maxptime:{section.maxptime}")
    if section.direction is not None:
        yield Line("a", section.direction.value)
    for fingerprint in section.fingerprints:
        yield Line("a", f"fingerprint:{fingerprint}")
    if section.setup is not None:
        yield Line("a", f"setup:{section.setup.value}")
    for attribute in section.attributes:
        value = f":{attribute.value}" if attribute.value is not None else ""
        yield Line("a", f"{attribute.name}{value}")
