"""State machines as tables: states, triggers and actions are data, and one function steps them all.

A `Table` is the declaration (importable, comparable, drawable); a `Machine` is one running copy of it:
a state and the timers that belong to that state. Nothing else assigns a state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar

import attrs

from rustpbx.core import NEVER, Deadline
from rustpbx.errors import IllegalStepError
from rustpbx.journal import Journal

S = TypeVar("S", bound=Enum)
T = TypeVar("T", bound=Enum)
A = TypeVar("A", bound=Enum)


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
    `patient` are the states that may wait for ever (say why beside the table). `level` is where its steps are logged.
    """

    name: str
    spec: str
    start: S
    ends: frozenset[S]
    rows: Mapping[tuple[S, T], Step[S, A]]
    strays: Literal["ignore", "refuse"] = "ignore"
    timers: Mapping[S, frozenset[T]] = attrs.field(factory=dict, converter=_frozen)
    patient: frozenset[S] = frozenset()
    level: int = logging.DEBUG
    journal: Journal = attrs.field(init=False)

    @journal.default
    def _journal(self) -> Journal:
        """Named by the package and the table: `rustpbx.sip.invite-client`."""
        return Journal(f"{type(self.start).__module__.rpartition('.')[0]}.{self.name}")

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


def timer_name(trigger: Enum) -> str:
    """A timer in words: `timer B`, `accept timeout`."""
    name = trigger.name
    return f"timer {name.removeprefix('TIMER_')}" if name.startswith("TIMER_") else name.lower().replace("_", " ")


class Machine(Generic[S, T, A]):
    """A table in motion. `duration(trigger)` tells how many seconds a timer runs when it is armed.

    For the log: `call` is the id of the call that it serves and may be set later, `label` says which of the call's
    machines it is ("" for the call itself), and `words` puts the cause of a step into words.
    """

    def __init__(
        self,
        table: Table[S, T, A],
        duration: Callable[[T], float] | None = None,
        label: str | None = None,
        *,
        call: str = "",
        words: Callable[[Any], str] = str,
    ) -> None:
        self.table = table
        self.state: S = table.start
        self.call = call
        self._label = table.name if label is None else label
        self._words = words
        self._duration = duration
        self._armed: dict[T, float] = {}

    def __repr__(self) -> str:
        return f"<{self._label or self.call} {self.state.name}>"

    @property
    def done(self) -> bool:
        """True in an end state."""
        return self.state in self.table.ends

    @property
    def armed(self) -> Mapping[T, float]:
        """The running timers and when each fires; tests compare it with the table."""
        return MappingProxyType(self._armed)

    def step(self, trigger: T, now: float, cause: object = None) -> tuple[A, ...]:
        """Take one step and return its actions; () for a stray that the table ignores. `cause` is for the log."""
        found = self.table.step(self.state, trigger)
        if found is None:
            return ()
        if self.table.journal.wants(self.table.level):
            self._tell(trigger, found.to, cause)
        self.state = found.to
        self.settle(now)
        return found.do

    def _tell(self, trigger: T, to: S, cause: object) -> None:
        """Log a step, in one line."""
        why = "" if cause is None else self._words(cause)
        if not why and trigger in self.table.timers.get(self.state, ()):
            why = timer_name(trigger)
        journal = self.table.journal
        fields = {
            "machine": journal.logger.name.removeprefix("rustpbx."),
            "from_state": self.state.name,
            "trigger": trigger.name,
            "to_state": to.name,
            "cause": why,
        }
        which = f"{self._label} " if self._label else ""
        line = f"{which}{self.state.name} --{trigger.name}--> {to.name}{why and f' ({why})'}"
        journal.tell(self.table.level, "%s", (line,), call=self.call, fields=fields, depth=4)

    def settle(self, now: float) -> None:
        """Stop timers that the state does not list, arm the listed ones that do not run."""
        listed = self.table.timers.get(self.state, frozenset())
        if not listed and not self._armed:
            return
        for trigger in [t for t in self._armed if t not in listed]:
            del self._armed[trigger]
        for trigger in sorted(listed - self._armed.keys(), key=lambda t: t.name):
            if self._duration is None:
                raise IllegalStepError(f"{self._label or self.call} has timers but no durations")
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
        return Deadline(self._armed[trigger], f"{self._label or self.call} {trigger.name}")
