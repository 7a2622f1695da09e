"""Tables and machines: one place that looks up a state, timers that belong to states."""

from __future__ import annotations

import logging
import math
from enum import Enum, auto

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.core import NEVER, Deadline
from rustpbx.errors import IllegalStepError
from rustpbx.machine import Machine, Step, Table


class Door(Enum):
    """States."""

    OPEN = auto()
    CLOSING = auto()
    SHUT = auto()
    GONE = auto()


class Cause(Enum):
    """Triggers."""

    PUSH = auto()
    PULL = auto()
    BURN = auto()
    SLAM = auto()
    CREAK = auto()


class Noise(Enum):
    """Actions."""

    BANG = auto()
    SQUEAK = auto()


DOOR = Table[Door, Cause, Noise](
    name="door",
    spec="carpentry 1.2",
    start=Door.OPEN,
    ends=frozenset({Door.GONE}),
    rows={
        (Door.OPEN, Cause.PUSH): Step(Door.CLOSING),
        (Door.CLOSING, Cause.CREAK): Step(Door.CLOSING, (Noise.SQUEAK,)),
        (Door.CLOSING, Cause.SLAM): Step(Door.SHUT, (Noise.BANG, Noise.SQUEAK)),
        (Door.CLOSING, Cause.PULL): Step(Door.OPEN),
        (Door.SHUT, Cause.PULL): Step(Door.OPEN),
        (Door.SHUT, Cause.SLAM): Step(Door.GONE, (Noise.BANG,)),
    },
    timers={
        Door.CLOSING: frozenset({Cause.CREAK, Cause.SLAM}),
        Door.SHUT: frozenset({Cause.SLAM}),
    },
    patient=frozenset({Door.OPEN}),
)
SECONDS = {Cause.CREAK: 1.0, Cause.SLAM: 5.0}


def door() -> Machine[Door, Cause, Noise]:
    """A door in motion."""
    return Machine(DOOR, SECONDS.__getitem__, "front door")


def test_a_step_is_a_lookup() -> None:
    """Rows give the next state and the actions in order; a stray changes nothing."""
    machine = door()
    assert machine.step(Cause.PULL, 0.0) == ()
    assert machine.state is Door.OPEN
    assert machine.step(Cause.PUSH, 0.0) == ()
    assert machine.step(Cause.SLAM, 0.0) == (Noise.BANG, Noise.SQUEAK)
    assert not machine.done
    assert machine.step(Cause.SLAM, 0.0) == (Noise.BANG,)
    assert machine.done
    assert repr(machine) == "<front door GONE>"


def test_a_refusing_table_raises() -> None:
    """Where strays are refused, the error names table, trigger and state, and nothing moves."""
    machine = Machine(attrs.evolve(DOOR, strays="refuse"), SECONDS.__getitem__)
    with pytest.raises(IllegalStepError, match="door: BURN is not possible while OPEN"):
        machine.step(Cause.BURN, 0.0)
    assert machine.state is Door.OPEN


def test_timers_belong_to_states() -> None:
    """Entering arms, leaving stops, and a timer of two neighbouring states keeps running."""
    machine = door()
    assert (dict(machine.armed), machine.deadline()) == ({}, NEVER)
    machine.step(Cause.PUSH, 10.0)
    assert dict(machine.armed) == {Cause.CREAK: 11.0, Cause.SLAM: 15.0}
    assert machine.deadline() == Deadline(11.0, "front door CREAK")
    machine.step(Cause.SLAM, 12.0)
    assert dict(machine.armed) == {Cause.SLAM: 15.0}
    machine.step(Cause.PULL, 13.0)
    assert dict(machine.armed) == {}


def test_a_fired_timer_runs_again_only_by_a_step() -> None:
    """Firing takes the timer off; a self-loop arms it again from then on, its neighbour is untouched."""
    machine = door()
    machine.step(Cause.PUSH, 0.0)
    assert list(machine.fired(0.9)) == []
    assert list(machine.fired(1.2)) == [Cause.CREAK]
    assert dict(machine.armed) == {Cause.SLAM: 5.0}
    assert machine.step(Cause.CREAK, 1.2) == (Noise.SQUEAK,)
    assert dict(machine.armed) == {Cause.CREAK: 2.2, Cause.SLAM: 5.0}


def test_late_timers_fire_earliest_first() -> None:
    """After a long wait each due timer comes once, in the order of its time, steps in between included."""
    machine = door()
    machine.step(Cause.PUSH, 0.0)
    heard = []
    for trigger in machine.fired(100.0):
        heard.append(trigger)
        machine.step(trigger, 100.0)
        if len(heard) == 2:
            break
    assert heard == [Cause.CREAK, Cause.SLAM]
    assert machine.state is Door.SHUT


def test_restart_runs_from_now() -> None:
    """A restarted timer forgets what it had; one that the state does not list stays off."""
    machine = door()
    machine.step(Cause.PUSH, 0.0)
    machine.restart(Cause.SLAM, 4.0)
    assert dict(machine.armed) == {Cause.CREAK: 1.0, Cause.SLAM: 9.0}
    machine.step(Cause.PULL, 5.0)
    machine.restart(Cause.SLAM, 6.0)
    assert dict(machine.armed) == {}


def test_timers_need_durations() -> None:
    """A table with timers cannot run without knowing how long they take."""
    with pytest.raises(IllegalStepError, match="durations"):
        Machine(DOOR).step(Cause.PUSH, 0.0)


def test_each_step_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log reads as the table does; a timer is its own cause, and who asks finds the parts in the record."""
    with caplog.at_level(logging.DEBUG, "tests.door"):
        machine = door()
        machine.call = "c1"
        machine.step(Cause.PUSH, 0.0, "a visitor")
        machine.step(Cause.SLAM, 5.0)
        machine.step(Cause.PUSH, 6.0)
    assert caplog.messages == [
        "call c1: front door OPEN --PUSH--> CLOSING (a visitor)",
        "call c1: front door CLOSING --SLAM--> SHUT (slam)",
    ]
    parts = ("call", "machine", "from_state", "trigger", "to_state", "cause")
    found = [getattr(caplog.records[0], part) for part in parts]
    assert found == ["c1", "tests.door", "OPEN", "PUSH", "CLOSING", "a visitor"]
    assert repr(door()) == "<front door OPEN>"


def test_listing_and_drawing() -> None:
    """The listing is sorted by the enums' order, the drawing marks timers."""
    assert DOOR.listing() == (
        "door (carpentry 1.2), strays: ignore\nstart OPEN\n"
        "OPEN --PUSH--> CLOSING: -\n"
        "CLOSING --PULL--> OPEN: -\n"
        "CLOSING --SLAM--> SHUT: BANG SQUEAK\n"
        "CLOSING --CREAK--> CLOSING: SQUEAK\n"
        "SHUT --PULL--> OPEN: -\n"
        "SHUT --SLAM--> GONE: BANG\n"
        "timers in CLOSING: CREAK SLAM\ntimers in SHUT: SLAM\nends: GONE\n"
    )
    assert "    CLOSING --> SHUT: ⏱ SLAM\n" in DOOR.mermaid()
    assert DOOR.mermaid().startswith("stateDiagram-v2\n    [*] --> OPEN\n")
    assert DOOR.mermaid().endswith("    GONE --> [*]\n")


@given(st.lists(st.sampled_from(Cause) | st.floats(0, 10), max_size=30))
def test_armed_timers_are_the_tables(script: list[Cause | float]) -> None:
    """Whatever happens, exactly the state's timers run, none of them overdue, and an end stays an end."""
    machine, now = door(), 0.0
    for item in script:
        ended = machine.done
        if isinstance(item, float):
            now += item
            for trigger in machine.fired(now):
                machine.step(trigger, now)
        else:
            machine.step(item, now)
        assert set(machine.armed) == DOOR.timers.get(machine.state, frozenset())
        assert all(at > now for at in machine.armed.values())
        assert machine.done or not ended
        assert (machine.deadline().at < math.inf) == bool(machine.armed)
