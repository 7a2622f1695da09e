"""What detectors say of the legs' frames, brought to those legs for which it changes anything.

Nearly every frame changes nothing (silence while it is quiet, voice while somebody speaks). So each leg's `Activity`
says which frames those are, and only the others reach it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rustpbx.media.plane.leg import Leg
from rustpbx.media.plane.stages import Flags, Slots

NEITHER = 2
"""In `_steady`: both kinds of frames matter."""

Times = npt.NDArray[np.floating]


class News:
    """The watched legs among `slots`, and which of their frames are of interest."""

    def __init__(self, slots: int) -> None:
        self._legs: dict[int, Leg] = {}
        self._steady = np.zeros(slots, np.int8)
        self._look_at = np.zeros(slots, np.float64)

    def watch(self, leg: Leg) -> None:
        """Begin to bring a leg its news, or end it if it has no `watch` any more."""
        self._steady[leg.slot] = NEITHER
        if leg.watch is None:
            self._legs.pop(leg.slot, None)
        else:
            self._legs[leg.slot] = leg

    def take(self, slots: Slots, voiced: Flags, at: Times) -> None:
        """Whether the frames of these legs that were heard at `at` (n,) are voiced (n,)."""
        news = (voiced != self._steady[slots]) | (at >= self._look_at[slots])
        for index in np.flatnonzero(news).tolist():
            self._tell(int(slots[index]), bool(voiced[index]), float(at[index]))

    def _tell(self, slot: int, voiced: bool, at: float) -> None:
        leg = self._legs.get(slot)
        if leg is None or leg.watch is None:
            return
        activity = leg.watch.activity
        for fact in activity.frame(voiced, at):
            leg.tell(fact)
        self._steady[slot] = NEITHER if activity.steady is None else activity.steady
        self._look_at[slot] = activity.look_at
