"""Which words a moment of a playback belongs to: the written audio, cut into the entries it came from."""

from __future__ import annotations

from collections import deque

import attrs

from rustpbx.session.effects import Spoken

KEPT = 100
MARKS = 1000
"""Entries and marks remembered: a source holds 10 s at most, so what lies behind these was heard long ago."""


@attrs.define
class _Stretch:
    """One entry's place, in ms of audio written; `end` is None while more of it may come."""

    entry: int | None
    start: int
    end: int | None = None
    length: int | None = None


class Timeline:
    """The latest entries of one playback by position, in ms of audio written to its source."""

    def __init__(self) -> None:
        self._stretches: deque[_Stretch] = deque(maxlen=KEPT)
        self._marks: deque[tuple[int, int]] = deque(maxlen=MARKS)
        self._written = 0

    @property
    def entry(self) -> int | None:
        """The entry begun last; None for audio whose words are unknown, and before the first."""
        return self._stretches[-1].entry if self._stretches else None

    def begin(self, entry: int | None, written: int, length: int | None = None) -> None:
        """`entry` starts where `written` ms have been written so far; `length` is all of it, if that is known."""
        self._stretches.append(_Stretch(entry, written, length=length))
        self._written = written

    def mark(self, index: int, written: int) -> None:
        """The words of the entry begun last from `index` on begin at `written`."""
        self._marks.append((written, index))

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
                so_far = (self._written if stretch.end is None else stretch.end) - stretch.start
                total = so_far if stretch.length is None else stretch.length
                return Spoken(stretch.entry, min(played - stretch.start, total), total, self._position(stretch, played))
        return None

    def _position(self, stretch: _Stretch, played: int) -> int | None:
        reached = (index for at, index in reversed(self._marks) if stretch.start <= at < played)
        return next(reached, None)

    def end_of(self, entry: int | None) -> int | None:
        """Where `entry` ends; None while more of it may come."""
        return next(stretch.end for stretch in reversed(self._stretches) if stretch.entry == entry)
