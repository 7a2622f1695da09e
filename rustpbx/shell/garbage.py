"""When Python looks for cyclic garbage among all objects: between calls, not during them.

A full collection stops everything for about a millisecond for each call that is up, and Python would begin one whenever
a quarter of the calls has changed: a hole in the audio of all the others. What a call leaves behind in cycles is small,
so it may wait.
"""

from __future__ import annotations

import gc
from typing import Protocol

import trio

YOUNG, MIDDLE, NEVER = 700, 10, 1_000_000_000
"""Python's own thresholds for what is new, and none for what is old."""

LOOK = 1.0
"""Seconds between two looks at whether it is time."""
MOST_ENDED = 1000
"""Ended calls whose remains are kept at most: some megabytes."""


class Calls(Protocol):
    """How many calls there are."""

    @property
    def up(self) -> int:
        """Calls that are running."""
        ...

    @property
    def ended(self) -> int:
        """Calls that have ended since the start."""
        ...


def prepare() -> None:
    """Never look again at what is there now, and at old objects only when `collect_between_calls` says so."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, NEVER)


async def collect_between_calls(calls: Calls) -> None:
    """Collect when the last call has ended, or after `MOST_ENDED` of them; until cancelled."""
    tidy = calls.ended
    while True:
        await trio.sleep(LOOK)
        remains = calls.ended - tidy
        if remains >= MOST_ENDED or (remains and not calls.up):
            tidy = calls.ended
            gc.collect()
