"""Header fields that are passed through: which of the peer's the agent is shown, and which the agent may set.

Names are compared in their one canonical spelling, compact forms expanded, so that no other spelling slips through.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import attrs

from rustpbx.sip.headers import canonical
from rustpbx.sip.message import Lines, Message

MOST_FIELDS = 50
MOST_TEXT = 8000
"""Header fields, and characters of them, that are passed on from one message."""

_OURS_TEXT = """
    Accept Accept-Encoding Allow Allow-Events Authentication-Info Authorization Call-ID Contact CSeq Event Expires
    Flow-Timer From Max-Forwards MIME-Version Min-Expires Min-SE P-Associated-URI Path Proxy-Authenticate
    Proxy-Authorization Proxy-Require RAck Record-Route Refer-Sub Refer-To Replaces Require Retry-After Route RSeq
    Security-Client Security-Server Security-Verify Service-Route Session-Expires SIP-ETag SIP-If-Match
    Subscription-State Supported Target-Dialog Timestamp To Unsupported Via WWW-Authenticate
"""
_OURS = frozenset(_OURS_TEXT.lower().split())
"""What the stack writes and reads itself: another one would break the dialog, or its rules."""


def is_ours(name: str) -> bool:
    """Whether nobody but the stack may set this header field (`v` and `VIA` are `Via`), or is shown it."""
    known = canonical(name).lower()
    return known in _OURS or known.startswith("content-")


@attrs.frozen
class PassList:
    """Patterns of header names, such as `X-*`; case does not matter, and nothing matches what `is_ours`."""

    patterns: tuple[str, ...] = ("X-*",)

    def passes(self, name: str) -> bool:
        """Whether a header field of this name is shown."""
        known = canonical(name).lower()
        return not is_ours(name) and any(fnmatchcase(known, pattern.lower()) for pattern in self.patterns)

    def of(self, message: Message) -> Lines:
        """The header fields of a message that are shown, in order; no more than a message's worth of them."""
        return tuple(_bounded((name, value) for name, value in message.lines if self.passes(name)))


def _bounded(lines: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    room = MOST_TEXT
    for count, (name, value) in enumerate(lines):
        room -= len(name) + len(value)
        if room < 0 or count == MOST_FIELDS:
            return
        yield name, value
