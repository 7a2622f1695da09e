"""RTP's short numbers made long."""

from __future__ import annotations


def extend(value: int, near: int, bits: int = 16) -> int:
    """The integer closest to `near` whose low `bits` are `value`: unwraps sequence numbers (16) and times (32)."""
    size = 1 << bits
    return near + ((value - near + size // 2) % size) - size // 2
