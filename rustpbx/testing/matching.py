"""Which datagrams are meant: `wire.lose(response(200, "INVITE"))`, `await wire.until(request("BYE"))`.

A matcher is any function from `Carried` to bool; these are the ones that SIP and RTP tests want. They look at the
bytes as they are, so they also match what a broken phone sends.
"""

from __future__ import annotations

import re

from rustpbx.testing.wire import Carried, Matcher

_CSEQ = re.compile(rb"^CSeq\s*:\s*\d+\s+(\S+)", re.IGNORECASE | re.MULTILINE)


def request(method: str, *, to: str | None = None) -> Matcher:
    """SIP requests of this method, to the host `to` if given, retransmissions included."""
    begin = f"{method} ".encode()
    return lambda carried: carried.data.startswith(begin) and _goes_to(carried, to)


def response(status: int | None = None, method: str | None = None, *, to: str | None = None) -> Matcher:
    """SIP responses: of this status, to a request of this method, to the host `to`; None stands for any."""
    begin = b"SIP/2.0 " if status is None else f"SIP/2.0 {status} ".encode()

    def matches(carried: Carried) -> bool:
        if not carried.data.startswith(begin) or not _goes_to(carried, to):
            return False
        found = _CSEQ.search(carried.data)
        return method is None or (found is not None and found[1].decode("latin-1") == method)

    return matches


def sip(*, to: str | None = None) -> Matcher:
    """Every SIP message."""
    return lambda carried: is_sip(carried.data) and _goes_to(carried, to)


def rtp(*, to: str | None = None) -> Matcher:
    """RTP and RTCP packets."""
    return lambda carried: is_rtp(carried.data) and _goes_to(carried, to)


def is_sip(data: bytes) -> bool:
    """Whether a datagram looks like a SIP message."""
    return data.startswith(b"SIP/2.0 ") or b" SIP/2.0\r\n" in data[:2000]


def is_rtp(data: bytes) -> bool:
    """Whether a datagram looks like RTP or RTCP (RFC 7983: first byte 128 to 191)."""
    return len(data) >= 8 and 128 <= data[0] <= 191


def _goes_to(carried: Carried, to: str | None) -> bool:
    return to is None or carried.destination[0] == to
