"""The conformance table: made from the tests' marks, complete, and up to date."""

from __future__ import annotations

import types

import pytest

from tests.kit.conformance import (
    BEGIN,
    END,
    PAGE,
    MarkError,
    Proof,
    check,
    find_proofs,
    generated,
    page,
    proofs_of,
    table,
)
from tests.kit.rfcs import LACKING, SECTIONS, TITLES

TORTURE = {"4475": 49, "5118": 10}


def test_the_page_is_up_to_date() -> None:
    """What the marks say is what docs/sip.md says; else `python -m tests.kit.conformance --write`."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, generated(find_proofs())) == text


def test_a_mark_of_an_unknown_section_is_refused() -> None:
    """It names the file, so that the title can be added."""
    with pytest.raises(MarkError, match=r"RFC 3261 section 99 \(tests/test_x.py\)"):
        check([Proof("3261", "9.1", "tests/test_x.py", "test_a"), Proof("3261", "99", "tests/test_x.py", "test_b")])


def test_every_known_rfc_has_a_name_and_every_lack_a_title() -> None:
    """The lists of `tests.kit.rfcs` fit each other."""
    assert set(SECTIONS) <= set(TITLES)
    assert [key for key in LACKING if key[1] not in SECTIONS[key[0]]] == []


@pytest.mark.parametrize("rfc", sorted(TORTURE))
def test_torture_messages_are_all_there(rfc: str) -> None:
    """Every message of RFC 4475 and RFC 5118 has a test that is marked with its section."""
    assert len(SECTIONS[rfc]) == TORTURE[rfc]
    assert {proof.section for proof in find_proofs() if proof.rfc == rfc} == set(SECTIONS[rfc])


def test_marks_are_found_wherever_pytest_takes_them() -> None:
    """On a function, on a parameter, on the module; a section twice is one proof."""

    @pytest.mark.rfc("3262", "3", "4")
    @pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.rfc("3262", "5"))])
    def test_x(n: int) -> None: ...

    module = types.ModuleType("tests.test_x")
    test_x.__module__ = module.__name__
    module.__dict__.update(test_x=test_x, pytestmark=[pytest.mark.rfc("3262", "4")])
    assert sorted((proof.section, proof.path, proof.test) for proof in proofs_of(module)) == [
        (section, "tests/test_x.py", "test_x") for section in ("3", "4", "5")
    ]


def test_the_table_sorts_by_number_and_counts_what_it_does_not_name() -> None:
    """10 after 9; two tests by name, the others as a number."""
    proofs = [Proof("3665", "3.10", "tests/a.py", f"test_{name}") for name in "abc"]
    rows = [
        row for row in table([*proofs, Proof("3665", "3.9", "tests/a.py", "test_d")]).split("\n") if "tests/a.py" in row
    ]
    assert rows == [
        "| 3665 | 3.9 | Unsuccessful Busy | yes | [d](../tests/a.py) |",
        (
            "| 3665 | 3.10 | Unsuccessful No Response from User Agent | yes "
            "| [a](../tests/a.py), [b](../tests/a.py) and 1 more |"
        ),
    ]


def test_the_page_keeps_what_people_wrote() -> None:
    """Only what stands between the marks changes."""
    assert page(f"a\n{BEGIN}\nold\n{END}\nb\n", f"{BEGIN}\nnew\n{END}") == f"a\n{BEGIN}\nnew\n{END}\nb\n"


@pytest.mark.parametrize("rfc", ["3665", "5359"])
def test_every_flow_is_proven_or_known_to_be_lacking(rfc: str) -> None:
    """No call flow of RFC 3665 and no service of RFC 5359 is passed over in silence."""
    proven = {proof.section for proof in find_proofs() if proof.rfc == rfc}
    assert proven | {section for number, section in LACKING if number == rfc} == set(SECTIONS[rfc])
