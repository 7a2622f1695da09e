"""Why a call ended, in the words of SIP and of the telephone network: the Reason header field and Q.850 causes.

RFC 3326 has the header field, RFC 6432 lets responses carry it, RFC 3398 says which status is which cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.headers import TOKEN, canonical, parse_params, quote, split_list, unquote
from rustpbx.sip.message import Lines

MOST_VALUES = 20
"""Reason values of one message that are looked at."""
LONGEST_TEXT = 200
"""Characters of a reason's text that are kept."""

WORDS: Mapping[int, str] = MappingProxyType(
    {
        1: "Unallocated number",
        16: "Normal call clearing",
        17: "User busy",
        18: "No user responding",
        19: "No answer from user",
        21: "Call rejected",
        22: "Number changed",
        25: "Exchange routing error",
        26: "Non-selected user clearing",
        28: "Invalid number format",
        31: "Normal, unspecified",
        38: "Network out of order",
        41: "Temporary failure",
        63: "Service or option not available",
        65: "Bearer capability not implemented",
        79: "Service or option not implemented",
        102: "Recovery on timer expiry",
        127: "Interworking, unspecified",
    }
)
"""What the causes that we send are called (ITU-T Q.850 table 1)."""

RECOVERY = 102
"""Somebody did not answer in time."""
NOT_SELECTED = 26
"""Another one answered (`non-selected user clearing`)."""

OF_STATUS: Mapping[int, int] = MappingProxyType(
    {
        400: 41,
        401: 21,
        402: 21,
        403: 21,
        404: 1,
        405: 63,
        406: 79,
        407: 21,
        408: 102,
        410: 22,
        413: 127,
        414: 127,
        415: 79,
        416: 127,
        420: 127,
        421: 127,
        423: 127,
        480: 18,
        481: 41,
        482: 25,
        483: 25,
        484: 28,
        485: 1,
        486: 17,
        488: 65,
        500: 41,
        501: 79,
        502: 38,
        503: 41,
        504: 102,
        505: 127,
        513: 127,
        600: 17,
        603: 21,
        604: 1,
        606: 65,
    }
)
"""The cause that a final response stands for (RFC 3398 section 8.2.6.1, where 488 and 606 go by their Warning)."""

STATUS_OF: Mapping[int, int] = MappingProxyType(
    {
        1: 404,
        2: 404,
        3: 404,
        17: 486,
        18: 408,
        19: 480,
        20: 480,
        21: 403,
        22: 410,
        23: 410,
        26: 404,
        27: 502,
        28: 484,
        29: 501,
        31: 480,
        34: 503,
        38: 503,
        41: 503,
        42: 503,
        47: 503,
        55: 403,
        57: 403,
        58: 503,
        65: 488,
        70: 488,
        79: 501,
        87: 403,
        88: 503,
        102: 504,
        111: 500,
        127: 500,
    }
)
"""The final response that a cause stands for (RFC 3398 section 7.2.4.1); 16, the normal end, is none."""


@attrs.frozen(kw_only=True)
class Reasons:
    """What the Reason header fields of a message say: a SIP status with its text, and a Q.850 cause with its."""

    sip: int | None = None
    sip_text: str = ""
    q850: int | None = None
    q850_text: str = ""

    @property
    def cause(self) -> int | None:
        """The Q.850 cause: the one that was told, else the one that the SIP status stands for."""
        return OF_STATUS.get(self.sip or 0) if self.q850 is None else self.q850


NO_REASONS = Reasons()


def parse_reasons(fields: Iterable[str]) -> Reasons:
    """Read Reason header fields (RFC 3326 2). The first value of each protocol counts, and what can be read."""
    found: dict[str, tuple[int, str]] = {}
    for value in _values(fields):
        protocol = TOKEN.match(value)
        if protocol is None:
            continue
        try:
            params = parse_params(value, protocol.end())
        except RemoteError:
            continue
        name, cause = protocol[0].upper(), params.get("cause") or ""
        low, high = _RANGES.get(name, (1, 0))
        if cause.isascii() and cause.isdigit() and len(cause) <= 3 and low <= int(cause) <= high:
            text = unquote(params.get("text") or "")[:LONGEST_TEXT]
            found.setdefault(name, (int(cause), "".join(c if c.isprintable() else " " for c in text)))
    sip, q850 = found.get("SIP"), found.get("Q.850")
    return Reasons(
        sip=sip[0] if sip else None,
        sip_text=sip[1] if sip else "",
        q850=q850[0] if q850 else None,
        q850_text=q850[1] if q850 else "",
    )


_RANGES = {"SIP": (100, 699), "Q.850": (0, 127)}


def _values(fields: Iterable[str]) -> list[str]:
    values: list[str] = []
    for field in fields:
        try:
            values += [value.strip(" \t") for value in split_list(field, MOST_VALUES)]
        except RemoteError:
            continue
        if len(values) >= MOST_VALUES:
            break
    return values[:MOST_VALUES]


def sip_reason(status: int, text: str) -> tuple[str, str]:
    """A Reason header field (RFC 3326): a status, and why, in words."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return "Reason", f"SIP;cause={status};text={quote(printable)}"


def with_cause(lines: Lines, cause: int | None) -> Lines:
    """The header fields with a Q.850 cause before them, unless they bring a Reason of their own."""
    if cause is None or any(canonical(name) == "Reason" for name, _ in lines):
        return lines
    return (q850_reason(cause), *lines)


def q850_reason(cause: int) -> tuple[str, str]:
    """A Reason header field with a Q.850 cause (RFC 6432)."""
    words = WORDS.get(cause)
    return "Reason", f"Q.850;cause={cause}" + (f";text={quote(words)}" if words else "")
