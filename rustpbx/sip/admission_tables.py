"""How a source of requests stands, as data: by what it has failed to prove."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class SourceState(Enum):
    """NORMAL is every source that nothing is known against; a QUIET one gets no answers; FORGOTTEN makes room."""

    NORMAL = auto()
    FAILING = auto()
    QUIET = auto()
    FORGOTTEN = auto()


class SourceTrigger(Enum):
    """What a source does, or time does to it."""

    FAILED = auto()
    TOO_MANY = auto()
    PROVEN = auto()
    FORGIVEN = auto()
    QUIET_OVER = auto()
    CROWDED_OUT = auto()


class SourceAction(Enum):
    """What is kept of it."""

    COUNT = auto()
    FORGET = auto()


def _source_table() -> Table[SourceState, SourceTrigger, SourceAction]:
    s, t, a = SourceState, SourceTrigger, SourceAction
    return Table(
        name="source",
        spec="who may ask us anything",
        start=s.NORMAL,
        ends=frozenset({s.FORGOTTEN}),
        rows={
            (s.NORMAL, t.FAILED): Step(s.FAILING, (a.COUNT,)),
            (s.FAILING, t.FAILED): Step(s.FAILING, (a.COUNT,)),
            (s.FAILING, t.TOO_MANY): Step(s.QUIET),
            (s.FAILING, t.PROVEN): Step(s.NORMAL, (a.FORGET,)),
            (s.FAILING, t.FORGIVEN): Step(s.NORMAL, (a.FORGET,)),
            (s.QUIET, t.QUIET_OVER): Step(s.NORMAL, (a.FORGET,)),
            **{(state, t.CROWDED_OUT): Step(s.FORGOTTEN) for state in (s.NORMAL, s.FAILING, s.QUIET)},
        },
        timers={s.FAILING: frozenset({t.FORGIVEN}), s.QUIET: frozenset({t.QUIET_OVER})},
        patient=frozenset({s.NORMAL}),
    )


SOURCE = _source_table()
