"""`Clock`: monotonic seconds for every deadline, and epoch milliseconds for what goes over the wire."""

from __future__ import annotations

import time
from typing import Protocol

import trio


class Clock(Protocol):
    """The two times of the server. Both run on Trio's clock, so a `MockClock` moves them together."""

    def now(self) -> float:
        """Seconds, monotonic; only differences mean something."""
        ...

    def wall(self, now: float) -> int:
        """The epoch milliseconds that a monotonic `now` stands for."""
        ...


class TrioClock:
    """Trio's clock, tied to the wall clock once: epoch seconds at the moment of construction.

    Tests pass a fixed `epoch`, so that timestamps repeat. Construct it inside `trio.run`.
    """

    def __init__(self, epoch: float | None = None) -> None:
        self._offset = (time.time() if epoch is None else epoch) - trio.current_time()

    def now(self) -> float:
        """Trio's current time."""
        return trio.current_time()

    def wall(self, now: float) -> int:
        """Epoch milliseconds of `now`."""
        return round((now + self._offset) * 1000)
