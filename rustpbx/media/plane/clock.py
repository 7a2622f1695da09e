"""The media clock: one task that steps the plane every 20 ms on an absolute schedule."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import trio

from rustpbx.journal import Journal
from rustpbx.shell.clock import Clock

log = Journal(__name__)

TICK = 0.02

CATCH_UP = 3
"""Missed ticks that are made up at once; what is beyond is skipped."""

BUDGET = 0.01
"""Seconds that a tick may take before it is logged."""

WINDOW = 3000
"""Ticks over which lateness is remembered: a minute."""


class Stepped(Protocol):
    """What the clock steps."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to step, so that the clock may rest until `MediaClock.wake`."""
        ...

    def tick(self, due: float) -> None:
        """Do one tick's work; `due` is the time it stands for."""
        ...

    def skip(self, ticks: int) -> None:
        """Let so many ticks pass without work."""
        ...


class Lateness:
    """How late the ticks of the last minute began, in seconds."""

    def __init__(self) -> None:
        self._late = np.zeros(WINDOW, np.float64)
        self._count = 0

    def add(self, late: float) -> None:
        """Remember one tick."""
        self._late[self._count % WINDOW] = late
        self._count += 1

    def reset(self) -> None:
        """Forget what was."""
        self._count = 0

    def percentile(self, percent: float) -> float:
        """The lateness that so many percent of the ticks kept within; 0 before the first."""
        seen = self._late[: min(self._count, WINDOW)]
        return float(np.percentile(seen, percent)) if seen.size else 0.0

    @property
    def p50(self) -> float:
        """The median."""
        return self.percentile(50)

    @property
    def p99(self) -> float:
        """What all but one in a hundred kept within."""
        return self.percentile(99)

    @property
    def worst(self) -> float:
        """The latest."""
        return self.percentile(100)


class MediaClock:
    """Steps `stepped` until it is cancelled. Nothing that a tick raises stops it."""

    def __init__(self, stepped: Stepped, clock: Clock) -> None:
        self._stepped = stepped
        self._clock = clock
        self._woken = trio.Event()
        self.lateness = Lateness()
        self.ticks = 0
        self.failed = 0
        self.skipped = 0
        self.slow = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tick for ever; started once the schedule stands."""
        due = self._clock.now() + TICK
        task_status.started()
        while True:
            while self._stepped.idle:
                await self._woken.wait()
                due = self._clock.now() + TICK
            await trio.sleep_until(due)
            late = self._clock.now() - due
            self.lateness.add(late)
            ticks = 1 + int(late / TICK + 1e-6)
            if ticks > 1 + CATCH_UP:
                due += TICK * (ticks - 1 - CATCH_UP)
                self._skip(ticks - 1 - CATCH_UP)
                ticks = 1 + CATCH_UP
            for _ in range(ticks):
                self._tick(due)
                due += TICK

    def wake(self) -> None:
        """There is something to step again: a resting clock begins a new schedule."""
        self._woken.set()
        self._woken = trio.Event()

    def _tick(self, due: float) -> None:
        began = self._clock.now()
        self.ticks += 1
        try:
            self._stepped.tick(due)
        except Exception:  # every call hangs on this task: it reports and goes on
            self.failed += 1
            if self.failed & (self.failed - 1) == 0:  # 1st, 2nd, 4th, 8th ...: fifty a second would fill the disk
                log.exception("media tick failed (%d so far)", self.failed)
        took = self._clock.now() - began
        if took > BUDGET:
            self.slow += 1
            if self.slow & (self.slow - 1) == 0:
                log.warning("media tick took %.1f ms (%d slow ones so far)", took * 1000, self.slow)

    def _skip(self, ticks: int) -> None:
        self.skipped += ticks
        log.warning("media clock %.0f ms late, %d ticks skipped", (ticks + CATCH_UP) * TICK * 1000, ticks)
        self._stepped.skip(ticks)
