"""The schedule: the earliest deadline of many, cheap, and without leftovers."""

from __future__ import annotations

import random

import attrs

from rustpbx.core import NEVER, Deadline
from rustpbx.sip.schedule import Schedule


@attrs.define(eq=False)
class Alarm:
    """Wakes once, notes when."""

    at: float
    log: list[tuple[float, float]]

    def deadline(self) -> Deadline:
        """The set time, or never."""
        return Deadline(self.at) if self.at >= 0 else NEVER

    def wake(self, now: float) -> None:
        """Go off."""
        self.log.append((self.at, now))
        self.at = -1


def test_wakes_everybody_in_order_and_is_empty_afterwards() -> None:
    """A thousand alarms ring in the order of their times."""
    rng, schedule = random.Random(5), Schedule()
    log: list[tuple[float, float]] = []
    times = [rng.randint(0, 500) for _ in range(1000)]
    for number, at in enumerate(times):
        schedule.book(number, Alarm(at, log))
    assert schedule.deadline().at == min(times)
    schedule.wake(500)
    assert [at for at, _ in log] == sorted(times)
    assert (len(schedule), schedule.deadline()) == (0, NEVER)


def test_a_later_deadline_corrects_itself_and_an_earlier_one_counts_at_once() -> None:
    """`book` after a change is enough, in both directions."""
    schedule = Schedule()
    log: list[tuple[float, float]] = []
    alarm = Alarm(10, log)
    schedule.book("a", alarm)
    alarm.at = 20
    schedule.book("a", alarm)
    assert schedule.deadline().at == 20
    alarm.at = 5
    schedule.book("a", alarm)
    assert schedule.deadline().at == 5
    schedule.wake(7)
    assert (log, len(schedule)) == ([(5, 7)], 0)


def test_a_cancelled_sleeper_leaves_nothing() -> None:
    """Thousands of short lives do not pile up in the heap."""
    schedule = Schedule()
    for number in range(10_000):
        schedule.book(number, Alarm(1e6, []))
        schedule.cancel(number)
    assert (len(schedule), schedule.deadline()) == (0, NEVER)
    assert len(schedule._heap) < 100
