"""What holds for every state table of the package; new tables are found by themselves."""

from __future__ import annotations

import pytest

from tests.kit.tables import GOLDEN, STATES, AnyTable, find_tables, reachable, running, states, states_page, timers

TABLES = find_tables()
REGENERATE = "python -m tests.kit.tables --write"

each = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


def test_tables_are_found() -> None:
    """The search sees the machines of each layer."""
    assert {name.partition("-")[0] for name in TABLES} >= {"sip", "media", "session"}


@each
def test_every_state_is_reachable(table: AnyTable) -> None:
    """No state exists that nothing leads to."""
    assert reachable(table, table.start) == set(states(table))


@each
def test_ends_absorb(table: AnyTable) -> None:
    """There is an end; nothing leaves one, and nothing runs in one."""
    assert table.ends
    assert [pair for pair in table.rows if pair[0] in table.ends] == []
    assert [end for end in table.ends if running(table, end)] == []


@each
def test_an_end_is_reachable_from_everywhere(table: AnyTable) -> None:
    """No state is a trap."""
    assert [state for state in states(table) if not reachable(table, state) & table.ends] == []


@each
def test_every_wait_has_a_way_out_by_timers_alone(table: AnyTable) -> None:
    """With a peer that is silent for ever, each state comes to an end or to a state that says it may wait."""
    rest = table.ends | table.patient
    stuck = [state for state in states(table) if not reachable(table, state, timers(table)) & rest]
    assert stuck == []


@each
def test_timers_and_rows_agree(table: AnyTable) -> None:
    """A timer that runs in a state has a row there, and a row for a timer has it running."""
    armed = {(state, trigger) for state in states(table) for trigger in running(table, state)}
    assert armed == {pair for pair in table.rows if pair[1] in timers(table)}


@each
def test_rows_are_well_formed(table: AnyTable) -> None:
    """Patience is given to real states, and no row is out of the table's own enums."""
    assert table.patient <= set(states(table))
    assert table.start in states(table)
    assert {type(state) for state, _ in table.rows} | {type(step.to) for step in table.rows.values()} == {table.states}
    assert len({type(trigger) for _, trigger in table.rows}) == 1
    assert len({type(action) for step in table.rows.values() for action in step.do}) <= 1


def test_every_trigger_and_action_is_used() -> None:
    """No enum (some tables share one) has a member that no row names."""
    named = {trigger for table in TABLES.values() for _, trigger in table.rows}
    named |= {action for table in TABLES.values() for step in table.rows.values() for action in step.do}
    assert {member for enum in {type(name) for name in named} for member in enum} - named == set()


@pytest.mark.parametrize("name", TABLES)
def test_the_listing_is_the_reviewed_one(name: str) -> None:
    """A changed row shows as a changed line of a text file."""
    assert (GOLDEN / f"{name}.txt").read_text(encoding="utf-8") == TABLES[name].listing(), REGENERATE


def test_no_listing_is_left_over() -> None:
    """Listings of tables that are gone are gone too."""
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(TABLES), REGENERATE


def test_the_drawings_are_fresh() -> None:
    """docs/states.md shows the tables as they are."""
    assert STATES.read_text(encoding="utf-8") == states_page(), REGENERATE
