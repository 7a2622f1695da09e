"""The media clock, in virtual time."""

from __future__ import annotations

import trio
import trio.testing

from rustpbx.media.plane.clock import TICK, MediaClock
from rustpbx.shell.clock import TrioClock


class Steps:
    """Notes what the clock asks for; `stalls` are the ticks (by number) that hold the thread up, and how long."""

    def __init__(self) -> None:
        self.done: list[float | str] = []
        self.stalls: dict[int, float] = {}
        self.failing = False
        self.idle = False

    def tick(self, due: float) -> None:
        """Note it."""
        self.done.append(round(due, 6))
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(self.stalls.get(len(self.done), 0.0))
        if self.failing:
            raise ValueError("a bug")

    def skip(self, ticks: int) -> None:
        """Note it."""
        self.done.append(f"skip {ticks}")


async def _run(steps: Steps, seconds: float) -> MediaClock:
    clock = MediaClock(steps, TrioClock(epoch=0))
    with trio.move_on_after(seconds):
        await clock.run()
    return clock


def _due(start: float, *ticks: int) -> list[float | str]:
    return [round(start + tick * TICK, 6) for tick in ticks]


async def test_the_schedule_is_absolute() -> None:
    """A second has fifty ticks, each at its place, none late."""
    steps = Steps()
    start = trio.current_time()
    clock = await _run(steps, 1.001)
    assert steps.done == _due(start, *range(1, 51))
    assert (clock.lateness.worst, clock.skipped) == (0.0, 0)


async def test_three_missed_ticks_are_made_up_at_once() -> None:
    """A stall of 70 ms: the tick that is due and the three missed ones run together, none is left out."""
    steps = Steps()
    start = trio.current_time()
    steps.stalls = {1: 0.07 + TICK}
    clock = await _run(steps, 0.15)
    assert steps.done[:5] == _due(start, 1, 2, 3, 4, 5)
    assert clock.skipped == 0
    assert round(clock.lateness.worst, 3) == 0.07


async def test_more_are_skipped() -> None:
    """A stall of 210 ms: seven ticks are skipped, then the due one and three run, at their own places."""
    steps = Steps()
    start = trio.current_time()
    steps.stalls = {1: 0.21 + TICK}
    clock = await _run(steps, 0.3)
    assert steps.done[:6] == [*_due(start, 1), "skip 7", *_due(start, 9, 10, 11, 12)]
    assert clock.skipped == 7


async def test_a_raising_tick_stops_nothing() -> None:
    """Whatever a tick raises is counted and the next one comes in time; only cancelling ends the task."""
    steps = Steps()
    steps.failing = True
    clock = await _run(steps, 1.001)
    assert (clock.ticks, clock.failed) == (50, 50)


async def test_a_clock_with_nothing_to_do_rests_and_begins_anew() -> None:
    """No tick while idle, however long; once woken the schedule starts there, and nothing counts as late."""
    steps = Steps()
    steps.idle = True
    clock = MediaClock(steps, TrioClock(epoch=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await trio.sleep(3600)
        assert steps.done == []
        steps.idle = False
        woken = trio.current_time()
        clock.wake()
        await trio.sleep(0.041)
        nursery.cancel_scope.cancel()
    assert steps.done == _due(woken, 1, 2)
    assert clock.lateness.worst == 0.0
