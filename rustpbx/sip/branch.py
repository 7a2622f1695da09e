"""The branch of a request of ours, and of its further attempts at other servers.

Each attempt is a transaction with a branch of its own (RFC 3263 4.3), but one request to whoever sent it: attempts are
`z9hG4bK<id>`, `z9hG4bK<id>.1`, `z9hG4bK<id>.2` ...
"""

from __future__ import annotations

COOKIE = "z9hG4bK"
"""What every branch since RFC 3261 begins with (8.1.1.7)."""


def next_attempt(branch: str) -> str:
    """The branch of the attempt after this one."""
    first, _, number = branch.partition(".")
    return f"{first}.{int(number or 0) + 1}"


def first_attempt(branch: str) -> str:
    """The branch that names the request, whichever attempt this is."""
    return branch.partition(".")[0]
