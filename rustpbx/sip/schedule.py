"""Who wants to be woken when: one lazy heap, so that the next deadline of thousands of machines is cheap."""

from __future__ import annotations

import heapq
import itertools
from typing import Protocol

import attrs

from rustpbx.core import NEVER, Deadline


class Sleeper(Protocol):
    """Something with a deadline."""

    def deadline(self) -> Deadline:
        """When it wants to be woken."""
        ...

    def wake(self, now: float) -> None:
        """The deadline has passed."""
        ...


@attrs.define
class _Booking:
    sleeper: Sleeper
    at: float


class Schedule:
    """Sleepers by key. `book` after everything that may have moved a sleeper's deadline, `cancel` at its end."""

    def __init__(self) -> None:
        self._bookings: dict[object, _Booking] = {}
        self._heap: list[tuple[float, int, object]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._bookings)

    def book(self, key: object, sleeper: Sleeper) -> None:
        """Note when `sleeper` wants to be woken; an entry that is too early corrects itself when it comes up."""
        at = sleeper.deadline().at
        booking = self._bookings.get(key)
        if booking is not None and booking.at <= at:
            return
        if at == NEVER.at:
            return
        self._bookings[key] = _Booking(sleeper, at)
        heapq.heappush(self._heap, (at, next(self._order), key))
        if len(self._heap) > 2 * len(self._bookings) + 64:
            self._heap = [entry for entry in self._heap if self._live(entry)]
            heapq.heapify(self._heap)

    def cancel(self, key: object) -> None:
        """Forget a sleeper."""
        self._bookings.pop(key, None)

    def deadline(self) -> Deadline:
        """The earliest deadline of all."""
        while self._heap:
            at, _, key = self._heap[0]
            booking = self._bookings.get(key)
            if booking is None or booking.at != at:
                heapq.heappop(self._heap)
                continue
            wanted = booking.sleeper.deadline()
            if wanted.at <= at:
                return wanted
            heapq.heappop(self._heap)
            del self._bookings[key]
            self.book(key, booking.sleeper)
        return NEVER

    def wake(self, now: float) -> None:
        """Wake everybody whose deadline has passed, earliest first."""
        while self.deadline().at <= now:
            _, _, key = heapq.heappop(self._heap)
            sleeper = self._bookings.pop(key).sleeper
            sleeper.wake(now)
            self.book(key, sleeper)

    def _live(self, entry: tuple[float, int, object]) -> bool:
        booking = self._bookings.get(entry[2])
        return booking is not None and booking.at == entry[0]
