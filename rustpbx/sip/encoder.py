"""From `Request` and `Response` to bytes. Nothing that could be read as something else leaves: LocalError instead."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

from rustpbx.errors import LocalError, RemoteError
from rustpbx.sip.headers import CALL_ID, canonical, is_param, is_safe, is_token, parse_name_addr, quote
from rustpbx.sip.message import REASONS, CSeq, Lines, Message, NameAddr, Request, Response, Via
from rustpbx.sip.parser import PartialRequest
from rustpbx.sip.uri import Params, Uri, host_port, parse_host_port, parse_uri

_OURS = frozenset({"Via", "From", "To", "Call-ID", "CSeq", "Content-Length", "Record-Route"})
_OURS_IN_REQUESTS = _OURS | {"Route", "Max-Forwards"}


def encode_message(message: Message) -> bytes:
    """The bytes to send, with canonical names and the right Content-Length.

    Raises LocalError if a field holds what would break out of its place (line ends, brackets, a second Call-ID ...).
    """
    if isinstance(message, Request):
        start = f"{_token(message.method, 'method')} {_uri(message.uri)} SIP/2.0"
    elif isinstance(message, Response) and 100 <= message.status <= 699:
        start = f"SIP/2.0 {message.status} {message.reason}"
    else:
        raise LocalError("neither a request nor a response")
    return _join([start, *header_lines(message)], message.body)


def header_lines(message: Message) -> tuple[str, ...]:
    """All header fields as `Name: value`, in the order in which they are sent. Raises LocalError."""
    return tuple(_fields(message))


def encode_refusal(
    request: PartialRequest, status: int, reason: str | None = None, *, tag: str = "", lines: Lines = ()
) -> bytes:
    """The bytes of a response to a request that could not be read in full (section 8.2.6).

    `tag` goes to a To that can be read and has none. From, To, Call-ID and CSeq are given back as they came.
    """
    text = [f"SIP/2.0 {status} {REASONS.get(status, '') if reason is None else reason}"]
    text += [f"Via: {_via(via)}" for via in request.vias]
    text += [f"{name}: {_tagged(value, tag) if name == 'To' else value}" for name, value in request.lines]
    text += _others(lines, _OURS)
    return _join([*text, "Content-Length: 0"], b"")


def _join(lines: list[str], body: bytes) -> bytes:
    if not is_safe("".join(lines)):
        raise LocalError("a line end or control character in a header field")
    try:
        return "\r\n".join([*lines, "", ""]).encode() + body
    except UnicodeEncodeError:
        raise LocalError("a lone surrogate in a header field") from None


def _fields(message: Message) -> Iterator[str]:
    for via in message.vias:
        yield f"Via: {_via(via)}"
    request = isinstance(message, Request)
    if isinstance(message, Request):
        yield f"Max-Forwards: {_number(message.max_forwards, 256)}"
        yield from (f"Route: {name_addr(route)}" for route in message.routes)
    yield from (f"Record-Route: {name_addr(route)}" for route in message.record_routes)
    yield f"From: {name_addr(message.from_)}"
    yield f"To: {name_addr(message.to)}"
    if not CALL_ID.fullmatch(message.call_id):
        raise LocalError("not a Call-ID")
    yield f"Call-ID: {message.call_id}"
    yield f"CSeq: {_cseq(message.cseq)}"
    yield from (f"Contact: {name_addr(contact)}" for contact in message.contacts)
    yield from _others(message.lines, _OURS_IN_REQUESTS if request else _OURS)
    yield f"Content-Length: {len(message.body)}"


def _others(lines: Lines, ours: Iterable[str]) -> Iterator[str]:
    for written, value in lines:
        name = canonical(written)
        if not is_token(name) or name in ours or (name == "Contact" and value != "*"):
            raise LocalError(f"not a header field to add: {written[:80]!r}")
        yield f"{name}: {value}"


def _via(via: Via) -> str:
    sent_by = host_port(via.host, via.port)
    try:
        parse_host_port(sent_by)
    except RemoteError as error:
        raise LocalError(f"Via: {error}") from None
    return f"SIP/2.0/{_token(via.transport, 'transport')} {sent_by}{_params(via.params)}"


def name_addr(address: NameAddr) -> str:
    """An address as it is written in a header field. Raises LocalError."""
    name = f"{quote(address.display_name)} " if address.display_name else ""
    return f"{name}<{_uri(address.uri)}>{_params(address.params)}"


@functools.lru_cache(maxsize=1024)
def _uri(uri: Uri) -> str:
    text = str(uri)
    try:
        same = parse_uri(text) == uri  # an `@` in the user, say, would move the host
    except RemoteError:
        same = False
    if not same:
        raise LocalError(f"not a URI: {text[:80]!r}")
    return text


def _params(params: Params) -> str:
    for name, value in params.items:
        if not is_param(name, value):
            raise LocalError(f"not a parameter: {name[:80]!r}, {value!r:.80}")
    return str(params)


def _cseq(cseq: CSeq) -> str:
    return f"{_number(cseq.number, 2**31)} {_token(cseq.method, 'method')}"


def _number(value: int, below: int) -> int:
    if not 0 <= value < below:
        raise LocalError(f"{value} is not below {below}")
    return value


def _token(text: str, name: str) -> str:
    if not is_token(text):
        raise LocalError(f"not a {name}: {text[:80]!r}")
    return text


def _tagged(value: str, tag: str) -> str:
    try:
        to = parse_name_addr(value)
    except RemoteError:
        return value
    return value if to.tag or not tag else f"{value};tag={_token(tag, 'tag')}"
