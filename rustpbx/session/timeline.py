"""Which words a moment of a playback belongs to: the written audio, cut into the entries it came from."""

from __future__ import annotations

from collections import deque

import attrs

from rustpbx.session.effects import Spoken

KEPT = 100
"""Entries remembered: a source holds 10 s at most, so what lies behind these was heard long ago."""


@attrs.define
class _Stretch:
    """One entry's place, in ms of audio written; `end` is None while more of it may come."""

    entry: int
    start: int
    end: int | None = None


class Timeline:
    """The latest entries of one playback by position, in ms of audio written to its source."""

    def __init__(self) -> None:
        self._stretches: deque[_Stretch] = deque(maxlen=KEPT)
        self._written = 0

    def begin(self, entry: int, written: int) -> None:
        """`entry` starts where `written` ms have been written so far."""
        self._stretches.append(_Stretch(entry, written))
        self._written = written

    def grow(self, written: int) -> None:
        """The entry begun last now reaches to `written`."""
        self._written = written

    def end(self) -> None:
        """The entry begun last is complete."""
        self._stretches[-1].end = self._written

    def at(self, played: int) -> Spoken | None:
        """What was being heard after `played` ms; None before the first sample."""
        for stretch in reversed(self._stretches):
            if stretch.start < played:
                total = (self._written if stretch.end is None else stretch.end) - stretch.start
                return Spoken(stretch.entry, min(played - stretch.start, total), total)
        return None

    def end_of(self, entry: int) -> int | None:
        """Where `entry` ends; None while more of it may come."""
        return next(stretch.end for stretch in reversed(self._stretches) if stretch.entry == entry)
