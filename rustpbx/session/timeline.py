"""Which words a moment of a playback belongs to: the written audio, cut into the entries it came from."""

from __future__ import annotations

from rustpbx.session.effects import Spoken


class Timeline:
    """The entries of one playback by position, in ms of audio written to its source."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._starts: list[int] = []
        self._ends: list[int | None] = []
        self._written = 0

    def begin(self, entry: int, written: int) -> None:
        """`entry` starts where `written` ms have been written so far."""
        self._numbers.append(entry)
        self._starts.append(written)
        self._ends.append(None)
        self._written = written

    def grow(self, written: int) -> None:
        """The entry begun last now reaches to `written`."""
        self._written = written

    def end(self) -> None:
        """The entry begun last is complete."""
        self._ends[-1] = self._written

    def at(self, played: int) -> Spoken | None:
        """What was being heard after `played` ms; None before the first sample."""
        heard = [index for index, start in enumerate(self._starts) if start < played]
        if not heard:
            return None
        index = heard[-1]
        end = self._ends[index]
        total = (self._written if end is None else end) - self._starts[index]
        return Spoken(self._numbers[index], min(played - self._starts[index], total), total)

    def end_of(self, entry: int) -> int | None:
        """Where `entry` ends; None while more of it may come."""
        return self._ends[self._numbers.index(entry)]
