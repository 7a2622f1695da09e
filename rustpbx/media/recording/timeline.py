"""Two channels on one line of time: each block of audio lies where it was heard or sent, and nothing drifts.

A block comes with the time of its first sample. What lies between two blocks is silence. Where the jitter buffer has
stretched a stream, two blocks overlap by what it made up: the later one is right. Gaps and overlaps of less than a
frame's half are the clock's rounding, and are no gaps.
"""

from __future__ import annotations

import numpy as np

from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.media.recording.wav import CHANNELS

LEFT, RIGHT = 0, 1
"""The remote party, and what we say to it."""

PATIENCE = 0.5
"""Seconds that a channel may lie behind the other before its silence is believed: a block of 200 ms, a full jitter
buffer, and what cleaning takes."""

OVERLAP = 0.2
"""Seconds by which a block may begin before the end of the one before it: so far the jitter buffer may have grown."""

LEAP = 3600.0
"""Seconds of silence made at once at most: a block that claims to be later than that is not placed."""


class Timeline:
    """Stereo audio at `rate` Hz from the moment `start` on; `place` what comes, `take` what is settled."""

    def __init__(self, rate: int, start: float) -> None:
        self.rate = rate
        self._start = start
        self._taken = 0  # samples that are written already
        self._ends = [0, 0]  # where each channel has come to, in samples
        self._window = np.zeros((rate, CHANNELS), np.int16)  # from `_taken` on
        self.lost = 0
        """Samples that came too late, or with a time that cannot be."""

    @property
    def end(self) -> int:
        """Samples from the start to the latest audio of either channel."""
        return max(self._ends)

    def place(self, channel: int, block: AudioBlock) -> None:
        """Put a block of one channel to its time."""
        pcm = block.pcm
        at = round((block.at - self._start) * self.rate)
        if abs(at - self._ends[channel]) < self.rate // 100:
            at = self._ends[channel]
        skip = max(0, self._taken - at)
        if skip >= pcm.size or at - self.end > LEAP * self.rate:
            self.lost += pcm.size
            return
        self.lost += skip if at >= 0 else 0  # what was said before the start is not part of it
        begin, end = at + skip - self._taken, at + pcm.size - self._taken
        self._reserve(end)
        self._window[begin:end, channel] = pcm[skip:]
        self._ends[channel] = max(self._ends[channel], at + pcm.size)

    def take(self, *, all_of_it: bool = False) -> Pcm:
        """The samples (n, 2) that no block will change any more; `all_of_it` at the end."""
        behind = max(min(self._ends) - round(OVERLAP * self.rate), self.end - round(PATIENCE * self.rate))
        settled = self.end if all_of_it else behind
        count = max(0, settled - self._taken)
        taken = self._window[:count].copy()
        rest = self._window[count : self.end - self._taken].copy()
        self._window[: len(rest)] = rest
        self._window[len(rest) :] = 0
        self._taken += count
        return taken

    def _reserve(self, size: int) -> None:
        if size > len(self._window):
            grown = np.zeros((max(size, 2 * len(self._window)), CHANNELS), np.int16)
            grown[: len(self._window)] = self._window
            self._window = grown
