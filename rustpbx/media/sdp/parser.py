"""Bytes to `SessionDescription` (RFC 8866 section 9): strict about structure and size, tolerant about the rest.

Lines may end with CRLF, LF or CR, the last with nothing. Unknown lines, and attributes whose value is not what their
name promises, are kept as text. s= and t= may be missing, since phones forget them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import attrs

from rustpbx.media.events import Direction
from rustpbx.media.sdp.crypto import parse_crypto
from rustpbx.media.sdp.fingerprint import parse_fingerprint, parse_setup
from rustpbx.media.sdp.model import (
    Attribute,
    Connection,
    Fmtp,
    Line,
    MediaDescription,
    Origin,
    RtcpPort,
    RtpMap,
    SdpError,
    SessionDescription,
    Ssrc,
)

_LINE_END = re.compile(r"\r\n|\n|\r")
_DIRECTIONS = {direction.value: direction for direction in Direction}


@attrs.frozen
class Limits:
    """What one description may hold; beyond is `SdpError`."""

    size: int = 65_536
    lines: int = 1_000
    media: int = 64
    formats: int = 128


def parse_sdp(data: bytes, limits: Limits = Limits()) -> SessionDescription:
    """Read one description. Raises `SdpError`, and nothing else whatever the bytes are."""
    if len(data) > limits.size:
        raise SdpError(f"SDP of {len(data)} bytes is too large", reply=413)
    if b"\0" in data:
        raise SdpError("SDP with a NUL byte")
    # Some phones write s= in Latin-1: what is not UTF-8 comes through unchanged.
    lines = [_line(text) for text in _LINE_END.split(data.decode(errors="surrogateescape")) if text.strip()]
    if len(lines) > limits.lines:
        raise SdpError(f"SDP of {len(lines)} lines is too large", reply=413)
    if not lines or lines[0] != Line("v", "0"):
        raise SdpError("SDP does not begin with v=0")
    starts = [at for at, line in enumerate(lines) if line.letter == "m"]
    if len(starts) > limits.media:
        raise SdpError(f"SDP with {len(starts)} media descriptions is too large", reply=413)
    media = tuple(_media(lines[start:end], limits) for start, end in pairwise([*starts, len(lines)]))
    return _session(lines[1 : starts[0] if starts else None], media)


def _line(text: str) -> Line:
    if len(text) < 2 or text[1] != "=" or not text[0].isascii() or not text[0].isalpha():
        raise SdpError(f"SDP line {text[:40]!r} is not of the form x=...")
    return Line(text[0], text[2:])


def _session(lines: list[Line], media: tuple[MediaDescription, ...]) -> SessionDescription:
    origin: Origin | None = None
    names: list[str] = []
    times: list[str] = []
    rest: list[Line] = []
    for line in lines:
        if line.letter == "o" and origin is None:
            origin = _origin(line.value)
        elif line.letter == "s" and not names:
            names.append(line.value)
        elif line.letter == "t":
            times.append(line.value)
        elif line.letter in "vos":
            raise SdpError(f"SDP line {line.letter}= comes twice")
        else:
            rest.append(line)
    if origin is None:
        raise SdpError("SDP without o=")
    return SessionDescription(
        origin=origin, name=names[0] if names else "-", times=tuple(times) or ("0 0",), media=media, **_section(rest)
    )


def _media(lines: list[Line], limits: Limits) -> MediaDescription:
    """A media description from its m= line and those up to the next."""
    words = lines[0].value.split()
    if len(words) < 4:
        raise SdpError(f"SDP line m={lines[0].value[:60]!r} is too short")
    kind, ports, protocol, *formats = words
    if len(formats) > limits.formats:
        raise SdpError(f"m= line with {len(formats)} formats is too long", reply=413)
    port, _, count = ports.partition("/")
    return MediaDescription(
        kind=kind,
        port=_number(port, 65_535),
        ports=_number(count, 65_535) if count else 1,
        protocol=protocol,
        formats=tuple(formats),
        **_section(lines[1:], in_media=True),
    )


def _section(lines: list[Line], *, in_media: bool = False) -> dict[str, Any]:
    """Everything below the first lines, as the fields of a `Section` or a `MediaDescription`."""
    fields: dict[str, Any] = {"extra": []}
    for line in lines:
        if line.letter == "c" and "connection" not in fields:
            fields["connection"] = _connection(line.value.split())
        elif line.letter == "a":
            _add(fields, line.value, in_media=in_media)
        else:
            fields["extra"].append(line)
    return {name: tuple(found) if isinstance(found, list) else found for name, found in fields.items()}


# -- attributes -----------------------------------------------------------------------------------------------------


def _add(fields: dict[str, Any], text: str, *, in_media: bool) -> None:
    name, colon, value = text.partition(":")
    attribute = Attribute(name, value if colon else None)
    if name in _DIRECTIONS and not colon and "direction" not in fields:
        fields["direction"] = _DIRECTIONS[name]
    elif name == "rtcp-mux" and not colon and "rtcp_mux" not in fields:
        fields["rtcp_mux"] = True
    elif name == "setup" and name not in fields and (setup := parse_setup(value)):
        fields[name] = setup
    elif name == "fingerprint" and (fingerprint := parse_fingerprint(value)):
        fields.setdefault("fingerprints", []).append(fingerprint)
    elif name in ("ptime", "maxptime") and name not in fields and (found := _small(value)):
        fields[name] = found
    elif in_media and name == "rtcp" and name not in fields and (port := _rtcp(value)):
        fields[name] = port
    elif in_media and name in _LISTS and (typed := _LISTS[name][1](value)):
        fields.setdefault(_LISTS[name][0], []).append(typed)
    else:
        fields.setdefault("attributes", []).append(attribute)


def _small(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,3}", text) else None


def _rtpmap(value: str) -> RtpMap | None:
    found = re.fullmatch(r"([0-9]{1,3}) +([!-.0-~]{1,64})/([1-9][0-9]{0,8})(?:/([1-9][0-9]{0,2}))?\s*", value)
    if found is None or int(found[1]) > 127:
        return None
    return RtpMap(int(found[1]), found[2], int(found[3]), int(found[4] or 1))


def _fmtp(value: str) -> Fmtp | None:
    found = re.fullmatch(r"([!-~]+) +([^ ].*)", value)
    return Fmtp(found[1], found[2]) if found else None


def _ssrc(value: str) -> Ssrc | None:
    found = re.fullmatch(r"([0-9]{1,10}) +([!-9;-~]+)(?::(.*))?", value)
    if found is None or int(found[1]) > 0xFFFFFFFF:
        return None
    return Ssrc(int(found[1]), found[2], found[3])


def _rtcp(value: str) -> RtcpPort | None:
    found = re.fullmatch(r"([0-9]{1,5})(?: +([!-~]+) +([!-~]+) +([!-~]+))?\s*", value)
    if found is None or not 0 < int(found[1]) <= 65_535:
        return None
    return RtcpPort(int(found[1]), Connection(found[4], found[3].upper(), found[2].upper()) if found[4] else None)


_LISTS: dict[str, tuple[str, Callable[[str], object | None]]] = {
    "rtpmap": ("rtpmaps", _rtpmap),
    "fmtp": ("fmtps", _fmtp),
    "ssrc": ("ssrcs", _ssrc),
    "crypto": ("cryptos", parse_crypto),
}
"""Attributes that come several times: the field they fill, and how one is read (None: keep it as text)."""


# -- parts ----------------------------------------------------------------------------------------------------------


def _number(text: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > most:
        raise SdpError(f"{text[:20]!r} in SDP is not a number up to {most}")
    return int(text)


def _connection(words: list[str]) -> Connection:
    if len(words) != 3:
        raise SdpError(f"SDP address {' '.join(words)[:60]!r} is not of the form IN IP4 host")
    network, address_type, host = words
    return Connection(host, address_type.upper(), network.upper())


def _origin(value: str) -> Origin:
    words = value.split()
    if len(words) < 6:
        raise SdpError(f"SDP line o={value[:60]!r} is too short")
    # A user name with spaces is against the grammar, yet seen; the last five words are what they must be.
    *username, session_id, version, network, address_type, host = words
    return Origin(session_id, version, _connection([network, address_type, host]), " ".join(username))
