"""A session description as values (RFC 8866): typed where negotiation decides by it, text where it is only carried.

What the model does not type stays in `attributes` (a= lines) and `extra` (other lines), in order, so that
`parse_sdp(encode_sdp(description)) == description`.
"""

from __future__ import annotations

import attrs

from rustpbx.errors import RemoteError
from rustpbx.media.events import Direction
from rustpbx.media.sdp.crypto import Crypto
from rustpbx.media.sdp.fingerprint import Fingerprint, Setup


class SdpError(RemoteError):
    """A body that is no session description."""


@attrs.frozen
class Line:
    """A line that is carried, not understood: its letter and its text."""

    letter: str
    value: str


@attrs.frozen
class Attribute:
    """`a=name` or `a=name:value`."""

    name: str
    value: str | None = None


@attrs.frozen
class Connection:
    """c= (5.7), and the address inside o= and a=rtcp. `host` is as written: perhaps a name, or multicast with a TTL."""

    host: str
    address_type: str = "IP4"
    network: str = "IN"

    @classmethod
    def to(cls, host: str) -> Connection:
        """The connection of an IP literal of ours."""
        return cls(host, "IP6" if ":" in host else "IP4")

    def __str__(self) -> str:
        return f"{self.network} {self.address_type} {self.host}"


@attrs.frozen
class Origin:
    """o= (5.2). The two numbers are kept as text: some phones write more than 64 bits, or no numbers at all."""

    session_id: str
    version: str
    connection: Connection
    username: str = "-"


@attrs.frozen
class RtpMap:
    """a=rtpmap (6.6): what a payload type stands for. `clock_rate` in Hz."""

    payload_type: int
    encoding: str
    clock_rate: int
    channels: int = 1

    def __str__(self) -> str:
        channels = f"/{self.channels}" if self.channels != 1 else ""
        return f"{self.encoding}/{self.clock_rate}{channels}"


@attrs.frozen
class Fmtp:
    """a=fmtp (6.15): parameters of a format, as text."""

    format: str
    parameters: str


@attrs.frozen
class RtcpPort:
    """a=rtcp (RFC 3605): where RTCP goes, if not to the next port; `connection` None is that of the media."""

    port: int
    connection: Connection | None = None


@attrs.frozen
class Ssrc:
    """a=ssrc (RFC 5576): something about one source, such as its cname."""

    ssrc: int
    name: str
    value: str | None = None


def _session_order(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    return _in_order("iuepcbtrzk", lines)


def _media_order(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    return _in_order("icbk", lines)


def _in_order(order: str, lines: tuple[Line, ...]) -> tuple[Line, ...]:
    """Lines in the order of the grammar (section 9), unknown letters last; lines of one letter keep their order."""
    return tuple(sorted(lines, key=lambda line: order.find(line.letter) % (len(order) + 1)))


@attrs.frozen(kw_only=True)
class Section:
    """What may stand at session and at media level. The first of several equal attributes counts."""

    connection: Connection | None = None
    direction: Direction | None = None
    ptime: int | None = None
    maxptime: int | None = None
    rtcp_mux: bool = False
    fingerprints: tuple[Fingerprint, ...] = ()
    setup: Setup | None = None
    attributes: tuple[Attribute, ...] = ()

    def attribute(self, name: str) -> Attribute | None:
        """The first untyped attribute of that name."""
        return next((a for a in self.attributes if a.name == name), None)


@attrs.frozen(kw_only=True)
class MediaDescription(Section):
    """m= and what follows it (5.14). `formats` are payload types as text, in order of preference."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    ports: int = 1
    rtpmaps: tuple[RtpMap, ...] = ()
    fmtps: tuple[Fmtp, ...] = ()
    rtcp: RtcpPort | None = None
    ssrcs: tuple[Ssrc, ...] = ()
    cryptos: tuple[Crypto, ...] = ()
    extra: tuple[Line, ...] = attrs.field(default=(), converter=_media_order)

    def offered(self) -> tuple[RtpMap, ...]:
        """Every format whose meaning is known, in order: by its a=rtpmap, else by the static types of RFC 3551."""
        known = STATIC | {rtpmap.payload_type: rtpmap for rtpmap in reversed(self.rtpmaps)}
        numbers = (PAYLOAD_TYPES[name] for name in self.formats if name in PAYLOAD_TYPES)
        return tuple(known[number] for number in numbers if number in known)


@attrs.frozen(kw_only=True)
class SessionDescription(Section):
    """A whole description. `times` are the t= lines."""

    origin: Origin
    name: str = "-"
    times: tuple[str, ...] = ("0 0",)
    media: tuple[MediaDescription, ...] = ()
    extra: tuple[Line, ...] = attrs.field(default=(), converter=_session_order)

    def connection_of(self, media: MediaDescription) -> Connection | None:
        """The connection that holds for one of its media: its own, else the session's (5.7)."""
        return media.connection or self.connection

    def fingerprints_of(self, media: MediaDescription) -> tuple[Fingerprint, ...]:
        """The certificates that hold for one of its media: its own, else the session's (RFC 8122 5)."""
        return media.fingerprints or self.fingerprints

    def setup_of(self, media: MediaDescription) -> Setup | None:
        """Who begins DTLS for one of its media (RFC 5763 5)."""
        return media.setup or self.setup

    def direction_of(self, media: MediaDescription) -> Direction:
        """The direction that holds for one of its media; sendrecv where nobody says (6.7)."""
        return media.direction or self.direction or Direction.SENDRECV


PAYLOAD_TYPES = {str(number): number for number in range(128)}
"""Payload types by their text in an m= line."""

STATIC = {
    rtpmap.payload_type: rtpmap
    for rtpmap in (
        RtpMap(0, "PCMU", 8000),
        RtpMap(3, "GSM", 8000),
        RtpMap(4, "G723", 8000),
        RtpMap(5, "DVI4", 8000),
        RtpMap(6, "DVI4", 16000),
        RtpMap(7, "LPC", 8000),
        RtpMap(8, "PCMA", 8000),
        RtpMap(9, "G722", 8000),
        RtpMap(10, "L16", 44100, 2),
        RtpMap(11, "L16", 44100),
        RtpMap(12, "QCELP", 8000),
        RtpMap(13, "CN", 8000),
        RtpMap(14, "MPA", 90000),
        RtpMap(15, "G728", 8000),
        RtpMap(16, "DVI4", 11025),
        RtpMap(17, "DVI4", 22050),
        RtpMap(18, "G729", 8000),
    )
}
"""Static audio payload types (RFC 3551 table 4)."""
