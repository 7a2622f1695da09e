"""`Playout`: the ring of 500 ms that a leg is played from, as its source fills it: in frames of samples."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from rustpbx.media.codec.base import RATE, WIDE
from rustpbx.media.codec.resample import resample
from rustpbx.media.plane.bank import PLAYOUT, Bank
from rustpbx.media.plane.stages import FRAME, LAWS, Samples


class Playout(Protocol):
    """`PLAYOUT` frames of `frame` samples each, int16."""

    @property
    def frame(self) -> int:
        """Samples of 20 ms: 160 or 320."""
        ...

    def put(self, start: int, rows: Samples) -> None:
        """Store frames (n, frame) from place `start` on, around the end of the ring; n is at most `PLAYOUT`."""
        ...

    def rows(self) -> Samples:
        """A copy of all that is stored: (PLAYOUT, frame)."""
        ...

    def hush(self) -> None:
        """Store silence everywhere."""
        ...


class LawPlayout:
    """The ring of a leg with G.711: encoded when it is stored."""

    frame = FRAME

    def __init__(self, bank: Bank, slot: int) -> None:
        self._bank = bank
        self._slot = slot

    def put(self, start: int, rows: Samples) -> None:
        """See `Playout`."""
        store(self._bank.playout[self._slot], start, LAWS[self._bank.law_out[self._slot]].encode(rows))

    def rows(self) -> Samples:
        """See `Playout`."""
        return LAWS[self._bank.law_out[self._slot]].decode(self._bank.playout[self._slot])

    def hush(self) -> None:
        """See `Playout`."""
        self._bank.playout[self._slot] = self._bank.silence_code(self._slot)


class WidePlayout:
    """The ring of a leg with a coder: encoded when it is sent, since what was sent before matters."""

    frame = WIDE

    def __init__(self, ring: Samples) -> None:
        self._ring = ring

    def put(self, start: int, rows: Samples) -> None:
        """See `Playout`."""
        store(self._ring, start, rows)

    def rows(self) -> Samples:
        """See `Playout`."""
        return self._ring.copy()

    def hush(self) -> None:
        """See `Playout`."""
        self._ring[:] = 0


def store(ring: np.ndarray, start: int, rows: np.ndarray) -> None:
    """Put rows into a ring from place `start` on, around its end."""
    fitting = min(len(rows), PLAYOUT - start)
    ring[start : start + fitting] = rows[:fitting]
    ring[: len(rows) - fitting] = rows[fitting:]


def fit(rows: Samples, frame: int) -> Samples:
    """Frames (n, m) as frames (n, `frame`): for what is played while a leg gets a codec of another rate."""
    count, before = rows.shape
    if before == frame or not count:
        return rows.reshape(count, frame)
    pcm = resample(rows.reshape(-1), before * RATE // WIDE, frame * RATE // WIDE)
    return np.resize(np.pad(pcm, (0, max(0, count * frame - pcm.size))), (count, frame))
