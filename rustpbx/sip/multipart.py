"""Bodies in several parts (RFC 2046 5.1, RFC 5621): the session description among them, if the rest may be ignored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import TypeVar

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.headers import unquote
from rustpbx.sip.message import Message
from rustpbx.sip.parser import read_head

MOST_PARTS = 32
DEEPEST = 3
LONGEST_BOUNDARY = 70
"""RFC 2046 5.1.1."""
SESSION = "application/sdp"

_BOUNDARY = re.compile(r';[ \t]*boundary[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^ \t;"]+)', re.IGNORECASE)
_HANDLING = re.compile(r";[ \t]*handling[ \t]*=[ \t]*\"?([A-Za-z]+)", re.IGNORECASE)

M = TypeVar("M", bound=Message)


@attrs.frozen
class Part:
    """One part. `required`: who does not understand it may not understand the rest alone (RFC 3261 20.11)."""

    kind: str
    content_type: str
    required: bool
    body: bytes


def with_session(message: M) -> M:
    """The message with its session description as its body, where it is a part; else the message as it is.

    It stays as it is, too, if there is a part that must be understood and is not, or if it cannot be read: its
    Content-Type then says what it is, and a request is refused with 415.
    """
    kind = message.content_type or ""
    if not kind.startswith("multipart/"):
        return message
    found = _session(message.header("Content-Type") or "", message.body, DEEPEST)
    if found is None:
        return message
    lines = tuple((name, SESSION if name == "Content-Type" else value) for name, value in message.lines)
    return attrs.evolve(message, lines=lines, body=found)


def _session(content_type: str, body: bytes, depth: int) -> bytes | None:
    try:
        parts = tuple(split_parts(content_type, body))
    except RemoteError:
        return None
    alternatives = content_type.lower().startswith("multipart/alternative")
    found: bytes | None = None
    for part in parts:
        session = part.body if part.kind == SESSION else None
        if part.kind.startswith("multipart/") and depth > 1:
            session = _session(part.content_type, part.body, depth - 1)
        if session is None and part.required and not alternatives:
            return None
        if found is None or (alternatives and session is not None):  # of alternatives the last is the best
            found = session
    return found


def split_parts(content_type: str, body: bytes) -> Iterator[Part]:
    """The parts of a multipart body. Raises RemoteError (400) where there is no boundary, or a part has a bad head."""
    named = _BOUNDARY.search(content_type)
    if named is None:
        raise RemoteError("a multipart body without a boundary")
    boundary = unquote(named[1]).encode()
    if len(boundary) > LONGEST_BOUNDARY:
        raise RemoteError(f"a boundary of more than {LONGEST_BOUNDARY} bytes")
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    marks = list(islice(delimiter.finditer(body), MOST_PARTS + 2))
    if not marks or len(marks) > MOST_PARTS + 1:
        raise RemoteError("no part, or too many")
    for mark, following in pairwise(marks):
        if mark[1]:
            return
        yield _part(body[mark.end() + len(b"\r\n") : following.start()])


def _part(data: bytes) -> Part:
    head, _, body = data.partition(b"\r\n\r\n") if not data.startswith(b"\r\n") else (b"", b"", data[2:])
    _, fields = read_head(b"\r\n" + head) if head else ("", [])
    values = {name.lower(): value for name, value in reversed(fields)}
    content_type = values.get("content-type", "text/plain")
    handling = _HANDLING.search(values.get("content-disposition", ""))
    required = handling is None or handling[1].lower() != "optional"
    return Part(content_type.partition(";")[0].strip().lower(), content_type, required, body)
