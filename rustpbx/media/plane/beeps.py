"""The beep of an answering machine: one steady tone, longer than speech ever holds one, and not for ever.

Each frame of the legs that asked for it has its spectrum taken; it is a tone if nearly all of it lies about one
frequency. Tones of one frequency in a row add up; when they end, or something else begins, they were a beep if they
lasted long enough. Dial tones, fax machines and music on hold last longer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rustpbx.media.events import BeepHeard
from rustpbx.media.plane.leg import Leg
from rustpbx.media.plane.stages import FRAME, Floats, Samples, Slots

RATE = 8000
TICK = 0.02
SIZE = 512
"""Places of the transform: 15.6 Hz each."""
LOBE = 9
"""Places on each side of the strongest one that a tone of 20 ms reaches: the window's main lobe."""
LOWEST, HIGHEST = 350, 2300
"""Hz: beeps are between them."""
PURE = 0.9
"""Share of a frame's power about its strongest frequency, at least."""
STEADY = 40.0
"""Hz that the frequency may differ by from one frame to the next."""
QUIETEST = 200.0**2
"""Mean power, in squared int16 units: -44 dBFS."""
SHORTEST, LONGEST = 8, 100
"""Frames of a beep: 160 ms to 2 s."""

Times = npt.NDArray[np.floating]
_WINDOW = np.hanning(FRAME).astype(np.float32)
_FIRST, _LAST = LOWEST * SIZE // RATE, HIGHEST * SIZE // RATE


def find_tones(frames: Samples) -> Floats:
    """The frequency (n,) in Hz of frames (n, 160) that are one tone each; 0 for the others."""
    samples = frames.astype(np.float32)
    loud = np.einsum("ij,ij->i", samples, samples) >= QUIETEST * FRAME
    power = np.abs(np.fft.rfft(samples * _WINDOW, SIZE)) ** 2
    total = np.concatenate([np.zeros((len(frames), 1)), np.cumsum(power, axis=1)], axis=1)
    peak = power.argmax(axis=1)
    rows = np.arange(len(frames))
    about = total[rows, np.minimum(peak + LOBE + 1, SIZE // 2 + 1)] - total[rows, np.maximum(peak - LOBE, 0)]
    tone = loud & (peak >= _FIRST) & (peak <= _LAST) & (about >= PURE * total[:, -1])
    return np.where(tone, peak * (RATE / SIZE), 0.0).astype(np.float32)


class Beeps:
    """The legs among `slots` in whose audio a beep is looked for."""

    def __init__(self, slots: int) -> None:
        self._legs: dict[int, Leg] = {}
        self._watched = np.zeros(slots, np.bool_)
        self._hertz: Floats = np.zeros(slots, np.float32)  # of the tone that goes on; 0 is none
        self._frames = np.zeros(slots, np.int64)  # of it so far
        self._since = np.zeros(slots, np.float64)

    @property
    def wanted(self) -> bool:
        """Whether anybody asked."""
        return bool(self._legs)

    def watch(self, leg: Leg) -> None:
        """Look for beeps on a leg, or no more, as it says."""
        slot = leg.slot
        self._watched[slot] = leg.seeks_beeps
        self._hertz[slot] = self._frames[slot] = 0
        if leg.seeks_beeps:
            self._legs[slot] = leg
        else:
            self._legs.pop(slot, None)

    def hear(self, slots: Slots, frames: Samples, heard_at: Times) -> None:
        """Take the frames (n, 160) of these legs, heard at `heard_at` (n,)."""
        watched = self._watched[slots]
        if not watched.any():
            return
        slots, heard_at = slots[watched], heard_at[watched]
        hertz = find_tones(frames[watched])
        before = self._hertz[slots]
        same = (hertz > 0) & (before > 0) & (np.abs(hertz - before) <= STEADY)
        lasted = self._frames[slots]
        over = ~same & (lasted >= SHORTEST) & (lasted <= LONGEST)
        for row in np.flatnonzero(over).tolist():
            leg = self._legs[int(slots[row])]
            leg.tell(BeepHeard(leg.name, float(self._since[slots[row]]), float(heard_at[row])))
        self._since[slots] = np.where(same, self._since[slots], heard_at)
        self._frames[slots] = np.where(same, lasted + 1, hertz > 0)
        self._hertz[slots] = hertz
