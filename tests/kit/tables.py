"""All state tables of the package, found where they are written, and the text made from them.

`python -m tests.kit.tables --write` writes the golden listings and docs/states.md anew; the tests compare.
"""

from __future__ import annotations

import argparse
import importlib
from enum import Enum
from pathlib import Path
from typing import Any

import rustpbx
from rustpbx.machine import Table

PACKAGE = Path(rustpbx.__file__).parent
ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests/golden/tables"
STATES = ROOT / "docs/states.md"

AnyTable = Table[Any, Any, Any]

_HEADER = """\
# States

Every state machine of the server, drawn from the tables that run it (`rustpbx/**/tables.py`). A clock (⏱) marks
a timer. A trigger that a state has no arrow for is ignored, or refused with an error, as each table says.

This page is generated: `python -m tests.kit.tables --write`.
"""


def find_tables() -> dict[str, AnyTable]:
    """Each `Table` in a module named `tables`, by a name that tells its folder: `sip-invite-client`."""
    found = {}
    for path in sorted(PACKAGE.rglob("tables.py")):
        folders = path.relative_to(PACKAGE).parent.parts
        module = importlib.import_module(".".join(("rustpbx", *folders, "tables")))
        for value in vars(module).values():
            if isinstance(value, Table):
                found["-".join((*folders, value.name))] = value
    return found


def states(table: AnyTable) -> list[Enum]:
    """All states, in the enum's order."""
    enum: type[Enum] = table.states
    return list(enum)


def reachable(table: AnyTable, start: Enum, triggers: frozenset[Enum] | None = None) -> set[Enum]:
    """The states that can be reached from `start`, itself included; by running timers only, if `triggers` says so."""
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        for (at, trigger), step in table.rows.items():
            if at is state and step.to not in seen and (triggers is None or trigger in triggers & running(table, at)):
                seen.add(step.to)
                todo.append(step.to)
    return seen


def running(table: AnyTable, state: Enum) -> frozenset[Enum]:
    """The timers that run in a state."""
    return frozenset(table.timers.get(state, frozenset()))


def timers(table: AnyTable) -> frozenset[Enum]:
    """Every trigger that is a timer in some state."""
    return frozenset(trigger for armed in table.timers.values() for trigger in armed)


def states_page() -> str:
    """The text of docs/states.md."""
    parts = [_HEADER]
    for name, table in find_tables().items():
        patient = ", ".join(state.name for state in states(table) if state in table.patient)
        strays = "Strays are refused" if table.strays == "refuse" else "Strays are ignored"
        waits = f"; may wait for ever: {patient}." if patient else "; no state may wait for ever."
        parts.append(f"## {name}\n\n{table.spec}. {strays}{waits}\n\n```mermaid\n{table.mermaid()}```\n")
    return "\n".join(parts)


def write() -> None:
    """Write all listings and the page anew; listings of tables that are gone go too."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    found = find_tables()
    for path in GOLDEN.glob("*.txt"):
        if path.stem not in found:
            path.unlink()
    for name, table in found.items():
        (GOLDEN / f"{name}.txt").write_text(table.listing(), encoding="utf-8")
    STATES.write_text(states_page(), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", required=True, help="write the listings and the page anew")
    parser.parse_args()
    write()
