"""What a test's script says and hears: how words are looked for, and the errors of a script that was not met."""

from __future__ import annotations

import re
from collections.abc import Iterable

LOST = "\N{REPLACEMENT CHARACTER}"
"""Stands in what was heard for each letter that was sent and lost."""

PATIENCE = 30.0
"""Virtual seconds that a script waits for words or a call before it fails."""

TOLERANCE = 3
"""One of so many letters may be lost on the way, and words are still heard."""


class ScriptError(AssertionError):
    """The script of a test was not met, or asks for the impossible; the message says what happened instead."""


class LeftoverError(AssertionError):
    """A test ended and left something behind; the message names each thing."""

    def __init__(self, left: Iterable[str]) -> None:
        self.left = tuple(left)
        super().__init__("\n".join(("the test is over, and this is left:", *(f"  {line}" for line in self.left))))


def joined(texts: Iterable[str]) -> str:
    """Phrases as one text, with single spaces between words."""
    return " ".join(" ".join(texts).split())


def find(heard: str, words: str, start: int = 0) -> int | None:
    """Where `words` end in `heard`, searched from `start` on; None if they are not there.

    Spaces count as one, and a letter lost on the way (`LOST`) stands for any, as long as they are few.
    """
    wanted = joined([words])
    pattern = "".join(f"(?:{re.escape(letter)}|{LOST}{{1,{len(letter.encode())}}})" for letter in wanted)
    for match in re.compile(pattern).finditer(heard, start):
        if match.group().count(LOST) * TOLERANCE <= len(wanted):
            return match.end()
    return None


def quoted(texts: str) -> str:
    """Words for a message: what was heard, or that nothing was."""
    return f'"{texts}"' if texts else "nothing"
