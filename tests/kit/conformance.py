"""The conformance table of docs/sip.md, made from the tests' own marks.

A test that proves a point of an RFC says so: `@pytest.mark.rfc("3262", "4")`, with as many sections as it proves, on
the function, as the module's `pytestmark`, or on one of its parameters. `tests.kit.rfcs` knows the titles.
`python -m tests.kit.conformance --write` writes the table anew; a test compares.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from tests.kit.rfcs import LACKING, SECTIONS, TITLES

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs/sip.md"
BEGIN = "<!-- conformance: begin; made by `python -m tests.kit.conformance --write` -->"
END = "<!-- conformance: end -->"

MOST_SHOWN = 2
"""Tests named in one row; the others are counted."""


@attrs.frozen
class Proof:
    """One test that proves a point of a section."""

    rfc: str
    section: str
    path: str
    test: str


class MarkError(AssertionError):
    """A mark that names no RFC or section that `tests.kit.rfcs` knows."""


def find_proofs() -> list[Proof]:
    """Every mark in the tests, in the order of the files."""
    return [proof for module in _marked_modules() for proof in proofs_of(module)]


def _marked_modules() -> Iterator[ModuleType]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "mark.rfc(" in path.read_text(encoding="utf-8"):
            yield importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def proofs_of(module: ModuleType) -> list[Proof]:
    """The marks in one module."""
    path = module.__name__.replace(".", "/") + ".py"
    of_module = list(_sections(_listed(getattr(module, "pytestmark", ()))))
    found = []
    for name, value in vars(module).items():
        if name.startswith("test_") and getattr(value, "__module__", None) == module.__name__:
            sections = [*of_module, *_sections(_marks_of(value))]
            found += [Proof(rfc, section, path, name) for rfc, section in dict.fromkeys(sections)]
    return found


def _marks_of(function: Any) -> Iterator[Any]:
    """The marks of a test, and those of its parameters."""
    for mark in getattr(function, "pytestmark", ()):
        yield mark
        if mark.name == "parametrize":
            for values in mark.args[1]:
                yield from getattr(values, "marks", ())


def _listed(marks: Any) -> Iterable[Any]:
    marks = marks if isinstance(marks, list | tuple) else (marks,)
    return (getattr(mark, "mark", mark) for mark in marks)


def _sections(marks: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for mark in marks:
        if mark.name == "rfc":
            rfc, *sections = mark.args
            yield from ((rfc, section) for section in sections)


def check(proofs: Iterable[Proof]) -> None:
    """Raise MarkError for a section that nobody knows."""
    unknown = {
        f"RFC {p.rfc} section {p.section} ({p.path})" for p in proofs if p.section not in SECTIONS.get(p.rfc, ())
    }
    if unknown:
        raise MarkError(f"tests/kit/rfcs.py has no title for {', '.join(sorted(unknown))}")


def table(proofs: Iterable[Proof]) -> str:
    """The table as Markdown: a row for each section that is proven, or known to be lacking."""
    rows: dict[tuple[str, str], list[Proof]] = {key: [] for key in LACKING}
    for proof in proofs:
        rows.setdefault((proof.rfc, proof.section), []).append(proof)
    lines = ["| RFC | section | what | supported | proven by |", "|---|---|---|---|---|"]
    for rfc, section in sorted(rows, key=_order):
        supported = LACKING.get((rfc, section), "yes")
        what = SECTIONS[rfc][section].replace("<", "&lt;")
        lines.append(f"| {rfc} | {section or '-'} | {what} | {supported} | {_named(rows[rfc, section])} |")
    return "\n".join(lines)


def _order(key: tuple[str, str]) -> tuple[int, list[tuple[int, str]]]:
    rfc, section = key
    return int(rfc), [(int(part), "") if part.isdigit() else (10_000, part) for part in section.split(".")]


def _named(proofs: list[Proof]) -> str:
    shown = [f"[{proof.test.removeprefix('test_')}](../{proof.path})" for proof in proofs[:MOST_SHOWN]]
    more = len(proofs) - MOST_SHOWN
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def generated(proofs: Iterable[Proof]) -> str:
    """What stands between the two marks of the page."""
    proofs = list(proofs)
    check(proofs)
    rfcs = sorted({proof.rfc for proof in proofs} | {rfc for rfc, _ in LACKING}, key=int)
    about = "; ".join(f"RFC {rfc}: {TITLES[rfc]}" for rfc in rfcs)
    return f"{BEGIN}\n\n{table(proofs)}\n\n{about}.\n\n{END}"


def page(text: str, between: str) -> str:
    """The page's text with another table."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{between}{after}"


def write() -> None:
    """Write the page's table anew."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), generated(find_proofs())), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", required=True, help="write the table of docs/sip.md anew")
    parser.parse_args()
    write()
