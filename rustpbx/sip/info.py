"""DTMF digits in INFO bodies (RFC 2976 carries them; the two formats are de facto ones)."""

from __future__ import annotations

import re

from rustpbx.errors import RemoteError

DTMF_RELAY = "application/dtmf-relay"
DTMF = "application/dtmf"

_SIGNAL = re.compile(rb"(?im)^[ \t]*signal[ \t]*=[ \t]*([0-9]{1,2}|[*#a-d])[ \t]*\r?$")
_DIGIT = re.compile(rb"[ \t\r\n]*([0-9]{1,2}|[*#A-Da-d])[ \t\r\n]*")
_EVENTS = "0123456789*#ABCD"


def parse_digit(content_type: str, body: bytes) -> str:
    """The digit of an `application/dtmf-relay` or `application/dtmf` body: one of 0-9*#A-D.

    Event numbers 10..15 (RFC 4733 3.2) are understood as well. Raises RemoteError: 415 for another type, 400 if
    there is no digit in it.
    """
    if content_type not in {DTMF_RELAY, DTMF}:
        raise RemoteError(f"no digits in {content_type}", 415)
    found = _SIGNAL.search(body) if content_type == DTMF_RELAY else _DIGIT.fullmatch(body)
    if found is None:
        raise RemoteError("no digit in the INFO body")
    written = found[1].decode().upper()
    if len(written) == 1:
        return written
    if not 10 <= int(written) < len(_EVENTS):
        raise RemoteError(f"no digit {written}")
    return _EVENTS[int(written)]


def encode_digit(digit: str, duration: int) -> bytes:
    """An `application/dtmf-relay` body; `duration` in milliseconds."""
    return f"Signal={digit}\r\nDuration={duration}\r\n".encode()
