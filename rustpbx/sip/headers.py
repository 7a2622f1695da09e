"""Header fields: names, lists, quoted strings and the typed values (RFC 3261 sections 7.3, 20 and 25).

Every regular expression here is possessive or free of overlapping choices, so that no text costs more than linear
time. Only space and tab count as white space: line ends and other controls never get this far.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rustpbx.errors import RemoteError
from rustpbx.sip.message import CSeq, NameAddr, Via
from rustpbx.sip.uri import MAX_PARAMS, NO_PARAMS, Params, make_params, parse_host_port, parse_uri

COMPACT = {
    "a": "Accept-Contact",
    "b": "Referred-By",
    "c": "Content-Type",
    "d": "Request-Disposition",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "j": "Reject-Contact",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "n": "Identity-Info",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
    "y": "Identity",
}
"""Compact forms (section 7.3.3 and the IANA registry)."""

_FULL_TEXT = """
    Accept Accept-Contact Accept-Encoding Accept-Language Accept-Resource-Priority Alert-Info Allow Allow-Events
    Answer-Mode Authentication-Info Authorization Call-ID Call-Info Contact Content-Disposition Content-Encoding
    Content-ID Content-Language Content-Length Content-Type CSeq Date Diversion Error-Info Event Expires Feature-Caps
    Flow-Timer From Geolocation History-Info Identity Identity-Info Info-Package In-Reply-To Join Max-Forwards
    MIME-Version Min-Expires Min-SE Organization P-Access-Network-Info P-Asserted-Identity P-Associated-URI
    P-Called-Party-ID P-Charging-Vector P-Early-Media P-Preferred-Identity Path Priority Privacy Proxy-Authenticate
    Proxy-Authorization Proxy-Require RAck Reason Record-Route Recv-Info Refer-Sub Refer-To Referred-By Reject-Contact
    Remote-Party-ID Replaces Reply-To Request-Disposition Require Resource-Priority Retry-After Route RSeq
    Security-Client Security-Server Security-Verify Server Service-Route Session-Expires Session-ID SIP-ETag
    SIP-If-Match Subject Subscription-State Supported Target-Dialog Timestamp To Unsupported User-Agent User-to-User Via
    Warning WWW-Authenticate
"""
_FULL = _FULL_TEXT.split()
_CANONICAL = {name.lower(): name for name in _FULL} | COMPACT
_AS_WRITTEN = {name: name for name in _FULL} | COMPACT | _CANONICAL  # what nearly every peer sends, without lower()

_UNSAFE = re.compile(r"[\r\n]|(?<!\\)[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_TOKEN = r"[A-Za-z0-9\-.!%*_+`'~]++"  # noqa: S105 - the grammar's word, not a secret
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_PLAIN = r"[!#-+\--:=?-~]++"  # a parameter's value: printable, none of space " , ; < >
_VALUE = rf"{_QUOTED}|{_PLAIN}"
_PARAM = rf"[ \t]*+;[ \t]*+({_TOKEN})(?:[ \t]*+=[ \t]*+({_VALUE}))?+"

TOKEN = re.compile(_TOKEN)
_PARAMS = re.compile(rf"(?:{_PARAM}){{0,{MAX_PARAMS + 1}}}+", re.DOTALL)
CALL_ID = re.compile(r"[!-~]++")

_PARAM_VALUE = re.compile(_VALUE, re.DOTALL)
_ONE_PARAM = re.compile(_PARAM, re.DOTALL)
_LIST_PIECE = re.compile(rf"(?:[^\",<]++|{_QUOTED}|<[^<>]*+>)*+", re.DOTALL)
_BRACKETED = re.compile(rf"(?:({_QUOTED})[ \t]*+|([^<>\",;\\]*+))<([^<>]*+)>", re.DOTALL)
_BARE = re.compile(r"[^ \t;<>\",?]++")
_SENT_BY = r"[^ \t;,]++(?:[ \t]*+:[ \t]*+[0-9]++)?"
_VIA = re.compile(
    rf"SIP[ \t]*+/[ \t]*+([0-9.]++)[ \t]*+/[ \t]*+({_TOKEN})[ \t]++({_SENT_BY})",
    re.IGNORECASE,
)
_CSEQ = re.compile(rf"0*([0-9]{{1,10}})[ \t]++({_TOKEN})")
_NUMBER = re.compile(r"0*([0-9]{1,10})")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_TO_ESCAPE = re.compile(r'["\\\x00-\x08\x0b\x0c\x0e-\x1f\x7f]')


def is_safe(text: str) -> bool:
    """Whether a header field may hold this: no line ends, control characters only as quoted pairs (section 25.1)."""
    return text.isprintable() or _UNSAFE.search(text) is None


def known_name(name: str) -> str | None:
    """The usual spelling of a header's name, compact forms expanded; None if it is not known."""
    return _AS_WRITTEN.get(name) or _CANONICAL.get(name.lower())


def canonical(name: str) -> str:
    """The usual spelling of a header's name, compact forms expanded; unknown names stay as written."""
    return known_name(name) or name


def is_token(text: str) -> bool:
    """Whether this is a `token` (section 25.1): methods, header names, transports."""
    return TOKEN.fullmatch(text) is not None


def is_param(name: str, value: str | None) -> bool:
    """Whether this is one parameter of a header field (`generic-param`) and nothing more."""
    return is_token(name) and (value is None or _PARAM_VALUE.fullmatch(value) is not None)


def quote(text: str) -> str:
    """As a quoted string. Line ends are not escaped: there is no way to, and the encoder refuses them."""
    return '"' + _TO_ESCAPE.sub(lambda found: "\\" + found[0], text) + '"'


def unquote(text: str) -> str:
    """The text of a quoted string; other text comes back as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    return _ESCAPED.sub(r"\1", text[1:-1]) if "\\" in text else text[1:-1]


def split_list(value: str, most: int = 1000) -> list[str]:
    """The values of a comma list; commas in quoted strings and angle brackets do not count.

    Raises RemoteError: 400 for an empty value, or a quote or bracket that is never closed; 513 for too many values.
    """
    if "," not in value:
        return [value]
    values: list[str] = []
    position = 0
    while True:
        found = _LIST_PIECE.match(value, position)
        piece = found[0].strip(" \t") if found else ""
        if not piece:
            raise RemoteError("an empty value in a list")
        if len(values) == most:
            raise RemoteError(f"more than {most} values in a list", 513)
        values.append(piece)
        position += len(found[0]) if found else 0
        if position == len(value):
            return values
        if value[position] != ",":
            raise RemoteError("an unbalanced quote or bracket")
        position += 1


def list_tokens(values: Iterable[str]) -> tuple[str, ...]:
    """All tokens of header fields such as Allow, Require and Supported, in order; what is no token is left out."""
    return tuple(_tokens(values))


def _tokens(values: Iterable[str]) -> Iterator[str]:
    for value in values:
        for word in value.split(","):
            token = word.strip(" \t")
            if is_token(token):
                yield token


def parse_params(text: str, position: int = 0) -> Params:
    """The `;name=value` parameters from `position` to the end of a header value. RemoteError (400) if they are none."""
    if position == len(text):
        return NO_PARAMS
    found = _PARAMS.match(text, position)
    end = found.end() if found is not None else position
    if end < len(text) and text[end:].strip(" \t"):
        raise RemoteError(f"not a parameter: {text[end : end + 80]!r}")
    return make_params([(name, value or None) for name, value in _ONE_PARAM.findall(text, position, end)])


def parse_name_addr(text: str) -> NameAddr:
    """Read `"Alice" <sip:alice@example.com>;tag=x` or `sip:alice@example.com;tag=x` (section 20.10).

    Without brackets every parameter belongs to the header, and the URI may have no `?` part.
    Raises RemoteError (400).
    """
    if not is_safe(text):
        raise RemoteError("a control character in an address")
    text = text.strip(" \t")
    found = _BRACKETED.match(text)
    if found is not None:
        quoted, words, uri = found.groups()
        name = unquote(quoted) if quoted is not None else words.strip(" \t")
        return NameAddr(parse_uri(uri), name, parse_params(text, found.end()))
    bare = _BARE.match(text)
    if bare is None:
        raise RemoteError(f"not an address: {text[:80]!r}")
    return NameAddr(parse_uri(bare[0]), "", parse_params(text, bare.end()))


def parse_route(text: str) -> NameAddr:
    """Read one Route or Record-Route value, which must have angle brackets (section 20.34). RemoteError (400)."""
    if "<" not in text:
        raise RemoteError(f"a route without angle brackets: {text[:80]!r}")
    return parse_name_addr(text)


def parse_via(text: str) -> Via:
    """Read one Via value (section 20.42). RemoteError (400) if it is none, or of another version than 2.0."""
    found = _VIA.match(text)
    if found is None or found[1] != "2.0":
        raise RemoteError(f"not a Via: {text[:80]!r}")
    host, port = parse_host_port(found[3])
    return Via(found[2].upper(), host, port, parse_params(text, found.end()))


def salvage_via(text: str) -> Via | None:
    """The first Via of a field that need not be valid: as many parameters as can be read, any version."""
    found = _VIA.match(text)
    if found is None:
        return None
    params = _PARAMS.match(text, found.end())
    try:
        host, port = parse_host_port(found[3])
        return Via(found[2].upper(), host, port, parse_params(params[0] if params else ""))
    except RemoteError:
        return None


def parse_cseq(text: str) -> CSeq:
    """Read a CSeq value (section 20.16). RemoteError (400), also for numbers of 2**31 and above."""
    found = _CSEQ.fullmatch(text)
    if found is None or int(found[1]) >= 2**31:
        raise RemoteError(f"not a CSeq: {text[:80]!r}")
    return CSeq(int(found[1]), found[2])


def parse_number(text: str, name: str, below: int) -> int:
    """Read a header value that is a plain number in 0..below-1. RemoteError (400) names the header."""
    found = _NUMBER.fullmatch(text)
    if found is None or int(found[1]) >= below:
        raise RemoteError(f"not a {name}: {text[:80]!r}")
    return int(found[1])
