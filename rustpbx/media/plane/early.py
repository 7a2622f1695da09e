"""What phones send before we know where they are: a callee talks at once after its 200, which may come second.

The newest packets are kept, half a second of them, and judged by the ordinary rules once SDP is there. Older ones are
not: early media that nobody agreed to hear would only delay what is said now.
"""

from __future__ import annotations

from collections import deque

from rustpbx.core import Address
from rustpbx.media.rtp import Buffer

MOST = 25
"""Packets kept of one leg; the oldest makes room."""

FRESH = 0.5
"""Seconds for which they are worth hearing."""

LARGEST = 600
"""Bytes of a packet worth keeping: 60 ms of G.711, and what may stand around it."""


class Early:
    """The packets of one leg that has no peer yet."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, bytes, Address]] = deque(maxlen=MOST)

    def keep(self, data: Buffer, source: Address, now: float) -> bool:
        """Keep one; False if it is too large to be audio."""
        if len(data) > LARGEST:
            return False
        self._kept.append((now, bytes(data), source))
        return True

    def fresh(self, now: float) -> list[tuple[float, bytes, Address]]:
        """Those worth hearing, in order, each with its time of arrival; none is kept any longer."""
        kept = [packet for packet in self._kept if now - packet[0] <= FRESH]
        self._kept.clear()
        return kept
