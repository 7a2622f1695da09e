"""The documents: what they point to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

each = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@each
def test_links_lead_somewhere(document: Path) -> None:
    """Each relative link names a file of the project."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (document.parent / link).exists()] == []


@each
def test_make_targets_exist(document: Path) -> None:
    """Each `make ...` that a document tells to run is a target."""
    named = set(re.findall(r"(?:`|^ *\$? ?)make ([a-z]+)", document.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= TARGETS


@each
def test_commands_exist(document: Path) -> None:
    """Each `python -m rustpbx <command>` that a document names is one."""
    named = set(re.findall(r"python -m rustpbx ([a-z][a-z-]*)", document.read_text(encoding="utf-8")))
    assert named <= {"serve", "check-config", "dial-check", "demo"}


@each
def test_modules_exist(document: Path) -> None:
    """Each source file or folder that a document names (`rustpbx/sip/tables.py`) is there."""
    named = re.findall(r"`((?:rustpbx|tests|docs|bench)/[\w./]+)`", document.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
