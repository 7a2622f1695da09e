"""State machines as tables: states, triggers and actions are data, and one function steps them all.

A `Table` is the declaration (importable, comparable, drawable); a `Machine` is one running copy of it:
a state and the timers that belong to that state. Nothing else assigns a state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Generic, Literal, TypeVar

import attrs

from rustpbx.core import NEVER, Deadline
from rustpbx.errors import IllegalStepError

S = TypeVar("S", bound=Enum)
T = TypeVar("T", bound=Enum)
A = TypeVar("A", bound=Enum)

log = logging.getLogger(__name__)


@attrs.frozen
class Step(Generic[S, A]):
    """One row's right side: the next state, and the actions to take on the way, in order."""

    to: S
    do: tuple[A, ...] = ()


def _frozen(mapping: Mapping[S, frozenset[T]]) -> Mapping[S, frozenset[T]]:
    return MappingProxyType(dict(mapping))


@attrs.frozen(eq=False)
class Table(Generic[S, T, A]):
    """A machine as data.

    `strays` says what a pair without a row means: wire-driven tables ignore it (the peer may send
    anything), command-driven ones refuse it (`IllegalStepError`). `timers` lists the triggers that are timers,
    per state in which they run; a timer listed for two neighbouring states keeps running between them.
    `patient` are the states that may wait for ever (say why beside the table).
    """

    name: str
    spec: str
    start: S
    ends: frozenset[S]
    rows: Mapping[tuple[S, T], Step[S, A]]
    strays: Literal["ignore", "refuse"] = "ignore"
    timers: Mapping[S, frozenset[T]] = attrs.field(factory=dict, converter=_frozen)
    patient: frozenset[S] = frozenset()

    @property
    def states(self) -> type[S]:
        """The enum of all states."""
        return type(self.start)

    def step(self, state: S, trigger: T) -> Step[S, A] | None:
        """Look up one step. None is a stray of an "ignore" table; a "refuse" table raises `IllegalStepError`."""
        found = self.rows.get((state, trigger))
        if found is None and self.strays == "refuse":
            raise IllegalStepError(f"{self.name}: {trigger.name} is not possible while {state.name}")
        return found

    def listing(self) -> str:
        """The table as sorted text, one row a line: what golden files compare."""
        lines = [f"{self.name} ({self.spec}), strays: {self.strays}", f"start {self.start.name}"]
        for (state, trigger), step in sorted(self.rows.items(), key=lambda row: _order(row[0])):
            do = " ".join(action.name for action in step.do) or "-"
            lines.append(f"{state.name} --{trigger.name}--> {step.to.name}: {do}")
        lines.extend(
            f"timers in {state.name}: {' '.join(sorted(t.name for t in self.timers[state]))}"
            for state in self.states
            if self.timers.get(state)
        )
        lines.append(f"ends: {' '.join(sorted(s.name for s in self.ends))}")
        return "\n".join(lines) + "\n"

    def mermaid(self) -> str:
        """The table as a Mermaid state diagram; timers are drawn with a clock."""
        timers = {t for armed in self.timers.values() for t in armed}
        lines = ["stateDiagram-v2", f"    [*] --> {self.start.name}"]
        for (state, trigger), step in sorted(self.rows.items(), key=lambda row: _order(row[0])):
            mark = "⏱ " if trigger in timers else ""
            lines.append(f"    {state.name} --> {step.to.name}: {mark}{trigger.name}")
        lines.extend(f"    {end.name} --> [*]" for end in sorted(self.ends, key=lambda s: s.name))
        return "\n".join(lines) + "\n"


def _order(pair: tuple[Enum, Enum]) -> tuple[int, int]:
    state, trigger = pair
    return list(type(state)).index(state), list(type(trigger)).index(trigger)


class Machine(Generic[S, T, A]):
    """A table in motion. `duration(trigger)` tells how many seconds a timer runs when it is armed."""

    def __init__(self, table: Table[S, T, A], duration: Callable[[T], float] | None = None, label: str = "") -> None:
        self.table = table
        self.state: S = table.start
        self._label = label or table.name
        self._duration = duration
        self._armed: dict[T, float] = {}

    def __repr__(self) -> str:
        return f"<{self._label} {self.state.name}>"

    @property
    def done(self) -> bool:
        """True in an end state."""
        return self.state in self.table.ends

    @property
    def armed(self) -> Mapping[T, float]:
        """The running timers and when each fires; tests compare it with the table."""
        return MappingProxyType(self._armed)

    def step(self, trigger: T, now: float) -> tuple[A, ...]:
        """Take one step and return its actions; () for a stray that the table ignores."""
        found = self.table.step(self.state, trigger)
        if found is None:
            return ()
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: %s --%s--> %s", self._label, self.state.name, trigger.name, found.to.name)
        self.state = found.to
        self.settle(now)
        return found.do

    def settle(self, now: float) -> None:
        """Stop timers that the state does not list, arm the listed ones that do not run."""
        listed = self.table.timers.get(self.state, frozenset())
        if not listed and not self._armed:
            return
        for trigger in [t for t in self._armed if t not in listed]:
            del self._armed[trigger]
        for trigger in sorted(listed - self._armed.keys(), key=lambda t: t.name):
            if self._duration is None:
                raise IllegalStepError(f"{self._label} has timers but no durations")
            self._armed[trigger] = now + self._duration(trigger)

    def restart(self, trigger: T, now: float) -> None:
        """Run a listed timer from the start again (something was heard)."""
        self._armed.pop(trigger, None)
        self.settle(now)

    def fired(self, now: float) -> Iterator[T]:
        """Yield each timer that has run out, earliest first; it no longer runs, so a self-loop re-arms it."""
        while self._armed:
            trigger = min(self._armed, key=lambda t: (self._armed[t], t.name))
            if self._armed[trigger] > now:
                return
            del self._armed[trigger]
            yield trigger

    def deadline(self) -> Deadline:
        """The earliest running timer."""
        if not self._armed:
            return NEVER
        trigger = min(self._armed, key=lambda t: (self._armed[t], t.name))
        return Deadline(self._armed[trigger], f"{self._label} {trigger.name}")
