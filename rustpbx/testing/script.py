"""What a test's script says and hears: how words are looked for, and the error of a script that was not met."""

from __future__ import annotations

import re

from rustpbx.testing.voice import LOST, joined

PATIENCE = 30.0
"""Virtual seconds that a script waits for words or a call before it fails."""

TOLERANCE = 3
"""One of so many letters may be lost on the way, and words are still heard."""


class ScriptError(AssertionError):
    """The script of a test was not met, or asks for the impossible; the message says what happened instead."""


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
