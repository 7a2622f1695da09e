"""From a datagram's bytes to a `Request` or `Response`: RFC 3261 sections 7, 18.3 and 25, in one canonical reading.

What two readers could read differently is refused, not guessed: a second From, To, Call-ID, CSeq, Content-Length,
Content-Type or Max-Forwards, a parameter that occurs twice, a line end that is not CRLF. Any bytes give a message or
a `RemoteError`; `MalformedRequest.partial` has what it takes to answer.
"""

from __future__ import annotations

import re

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.headers import (
    CALL_ID,
    canonical,
    is_safe,
    is_token,
    known_name,
    parse_cseq,
    parse_name_addr,
    parse_number,
    parse_route,
    parse_via,
    salvage_via,
    split_list,
)
from rustpbx.sip.message import Lines, NameAddr, Request, Response, Via
from rustpbx.sip.uri import parse_aor, parse_uri

__all__ = [
    "Limits",
    "MalformedRequest",
    "PartialRequest",
    "explain",
    "parse_aor",
    "parse_message",
    "parse_name_addr",
    "parse_uri",
    "parse_via",
    "read_head",
]


@attrs.frozen
class Limits:
    """What one message may hold: bytes in all and per (unfolded) line, header fields, values of one list."""

    message: int = 65535
    line: int = 8192
    headers: int = 200
    vias: int = 70
    addresses: int = 70


DEFAULT_LIMITS = Limits()


@attrs.frozen
class PartialRequest:
    """What could be read of a malformed request; `rustpbx.sip.encoder.encode_refusal` answers it.

    `vias` is never empty. `lines` has From, To, Call-ID and CSeq as they came, those that are there.
    """

    method: str
    vias: tuple[Via, ...]
    lines: Lines


@attrs.define(eq=False)
class MalformedRequest(RemoteError):  # noqa: N818 - it names what arrived; the base class says it is an error
    """A request that breaks the rules. `partial` is None where no answer is possible or allowed (ACK)."""

    partial: PartialRequest | None = None


_FOLD = re.compile(r"\r\n[ \t]+")
_REQUEST_LINE = re.compile(r"([^ ]+) ([^ ]+) (SIP/[0-9]+\.[0-9]+)", re.IGNORECASE)
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6][0-9][0-9])(?: (.*))?", re.IGNORECASE)
_LIKE_REQUEST = re.compile(r"([^ /]+) .*SIP/[0-9]", re.IGNORECASE)

_TYPED = frozenset(
    {"Via", "From", "To", "Call-ID", "CSeq", "Contact", "Record-Route", "Route", "Max-Forwards", "Content-Length"}
)
_SINGLE = frozenset({"From", "To", "Call-ID", "CSeq", "Content-Length", "Content-Type", "Max-Forwards"})
_ECHOED = ("From", "To", "Call-ID", "CSeq")


def parse_message(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Request | Response:
    """Read one datagram (or one message cut from a stream by `rustpbx.sip.framing`).

    The body ends where Content-Length says (the rest is ignored), without it where the datagram ends (18.3).
    Raises MalformedRequest for what looks like a request, RemoteError for the rest; `reply` is 400, 414 (Request-URI
    too long), 505 (not SIP/2.0) or 513 (over the limits).
    """
    try:
        return _parse(data, limits)
    except RemoteError as error:
        raise explain(error, data, limits) from None


def read_head(head: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[str, list[tuple[str, str]]]:
    """The start line and the header fields (canonical name, value) of the bytes before the empty line.

    Text is UTF-8; a head that is not is taken for Latin-1. Raises RemoteError (400, 513).
    """
    text = _decode(head)
    if not is_safe(text.replace("\r\n", "")):
        raise RemoteError("a control character in the header")
    if "\r\n " in text or "\r\n\t" in text:
        text = _FOLD.sub(" ", text)  # 7.3.1
    start, *lines = text.split("\r\n")
    if len(lines) > limits.headers:
        raise RemoteError(f"more than {limits.headers} header fields", 513)
    if len(start) > limits.line:
        raise RemoteError("the start line is too long", 414)
    return start, [_field(line, limits.line) for line in lines]


def _field(line: str, longest: int) -> tuple[str, str]:
    if len(line) > longest:
        raise RemoteError(f"a header field of more than {longest} characters", 513)
    name, colon, value = line.partition(":")
    name = name.rstrip(" \t")
    known = known_name(name)
    if not colon or (known is None and not is_token(name)):
        raise RemoteError(f"not a header field: {line[:80]!r}")
    return known or name, value.strip(" \t")


@attrs.define
class _Fields:
    """The header fields of one message, sorted into those with a type and the rest."""

    typed: dict[str, list[str]]
    lines: list[tuple[str, str]]
    limits: Limits

    def one(self, name: str) -> str:
        values = self.typed.get(name)
        if values is None:
            raise RemoteError(f"no {name}")
        return values[0]

    def many(self, name: str, most: int) -> list[str]:
        fields = self.typed.get(name)
        if fields is None:
            return []
        values = [value for field in fields for value in split_list(field, most)]
        if len(values) > most:
            raise RemoteError(f"more than {most} {name} values", 513)
        return values

    def vias(self) -> tuple[Via, ...]:
        values = self.many("Via", self.limits.vias)
        if not values:
            raise RemoteError("no Via")
        return tuple([parse_via(value) for value in values])

    def routes(self, name: str) -> tuple[NameAddr, ...]:
        return tuple([parse_route(value) for value in self.many(name, self.limits.addresses)])

    def contacts(self) -> tuple[NameAddr, ...]:
        if self.typed.get("Contact") == ["*"]:  # REGISTER only (10.2.2): no address, kept as a line
            self.lines.append(("Contact", "*"))
            return ()
        return tuple([parse_name_addr(value) for value in self.many("Contact", self.limits.addresses)])

    def call_id(self) -> str:
        value = self.one("Call-ID")
        if not CALL_ID.fullmatch(value):
            raise RemoteError("not a Call-ID")
        return value

    def body(self, rest: bytes) -> bytes:
        if "Content-Length" not in self.typed:
            return rest
        length = parse_number(self.one("Content-Length"), "Content-Length", 2**32)
        if length > len(rest):
            raise RemoteError("the body is shorter than Content-Length")
        return rest[:length]


def _parse(data: bytes, limits: Limits) -> Request | Response:
    if len(data) > limits.message:
        raise RemoteError(f"more than {limits.message} bytes", 513)
    head, rest = _split(data)
    start, fields = read_head(head, limits)
    if start[:4].upper() == "SIP/":
        return _response(start, _sort(fields, limits), rest)
    return _request(start, fields, limits, rest)


def _split(data: bytes) -> tuple[bytes, bytes]:
    begin = 0
    while data.startswith(b"\r\n", begin):  # 7.5
        begin += 2
    end = data.find(b"\r\n\r\n", begin)
    if end < 0:
        raise RemoteError("no empty line after the header")
    return data[begin:end], data[end + 4 :]


def _decode(head: bytes) -> str:
    try:
        return head.decode()
    except UnicodeDecodeError:
        return head.decode("latin-1")


def _sort(fields: list[tuple[str, str]], limits: Limits) -> _Fields:
    typed: dict[str, list[str]] = {}
    lines: list[tuple[str, str]] = []
    single: set[str] = set()
    for field in fields:
        name, value = field
        if name in _SINGLE:
            if name in single:
                raise RemoteError(f"more than one {name}")
            single.add(name)
        if name in _TYPED:
            typed.setdefault(name, []).append(value)
        else:
            lines.append(field)
    return _Fields(typed, lines, limits)


def _request(start: str, raw: list[tuple[str, str]], limits: Limits, rest: bytes) -> Request:
    line = _REQUEST_LINE.fullmatch(start)
    if line is None or not is_token(line[1]):
        raise RemoteError(f"not a request line: {start[:80]!r}")
    if line[3].upper() != "SIP/2.0":
        raise RemoteError(f"SIP version {line[3][4:20]}", 505)
    fields = _sort(raw, limits)
    method, uri, cseq = line[1], parse_uri(line[2]), parse_cseq(fields.one("CSeq"))
    if uri.headers:
        raise RemoteError("a Request-URI with headers")  # 19.1.1, table 1
    if cseq.method != method:
        raise RemoteError(f"the method is {method[:40]}, CSeq says {cseq.method[:40]}")  # 8.1.1.5
    hops = fields.typed.get("Max-Forwards")
    return Request(
        method=method,
        uri=uri,
        max_forwards=70 if hops is None else parse_number(hops[0], "Max-Forwards", 256),
        vias=fields.vias(),
        from_=parse_name_addr(fields.one("From")),
        to=parse_name_addr(fields.one("To")),
        call_id=fields.call_id(),
        cseq=cseq,
        routes=fields.routes("Route"),
        record_routes=fields.routes("Record-Route"),
        contacts=fields.contacts(),
        lines=tuple(fields.lines),
        body=fields.body(rest),
    )


def _response(start: str, fields: _Fields, rest: bytes) -> Response:
    line = _STATUS_LINE.fullmatch(start)
    if line is None:
        raise RemoteError(f"not a status line: {start[:80]!r}")
    for name in ("Route", "Max-Forwards"):  # mean nothing in a response: carried, not read
        fields.lines.extend((name, value) for value in fields.typed.get(name, ()))
    return Response(
        status=int(line[1]),
        reason=(line[2] or "").strip(" \t"),
        vias=fields.vias(),
        from_=parse_name_addr(fields.one("From")),
        to=parse_name_addr(fields.one("To")),
        call_id=fields.call_id(),
        cseq=parse_cseq(fields.one("CSeq")),
        record_routes=fields.routes("Record-Route"),
        contacts=fields.contacts(),
        lines=tuple(fields.lines),
        body=fields.body(rest),
    )


def explain(error: RemoteError, data: bytes, limits: Limits = DEFAULT_LIMITS) -> RemoteError:
    """The same problem, as a MalformedRequest with what can be answered if `data` was a request (8.2.6, 18.2.2)."""
    head = data[: limits.message].lstrip(b"\r\n").partition(b"\r\n\r\n")[0]
    lines = _FOLD.sub(" ", _decode(head)).split("\r\n", limits.headers + 1)
    like = _LIKE_REQUEST.match(lines[0][: limits.line])
    if like is None or not is_token(like[1]):
        return error
    partial = None if like[1] == "ACK" else _salvage(like[1], lines[1 : limits.headers + 1], limits)
    return MalformedRequest(error.message, error.reply, partial)


def _salvage(method: str, lines: list[str], limits: Limits) -> PartialRequest | None:
    vias: list[Via] = []
    echoed: dict[str, str] = {}
    for line in lines:
        if len(line) > limits.line or not is_safe(line):
            continue
        name, _, value = line.partition(":")
        name, value = canonical(name.rstrip(" \t")), value.strip(" \t")
        if name == "Via" and len(vias) < limits.vias:
            vias.extend(_salvage_vias(value, limits.vias - len(vias)))
        elif name in _ECHOED and value:
            echoed.setdefault(name, value)
    if not vias:
        return None
    return PartialRequest(method, tuple(vias), tuple((name, echoed[name]) for name in _ECHOED if name in echoed))


def _salvage_vias(value: str, most: int) -> list[Via]:
    try:
        return [parse_via(text) for text in split_list(value, most)]
    except RemoteError:
        first = salvage_via(value)
        return [first] if first is not None else []
