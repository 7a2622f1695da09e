"""Voice activity of the legs whose detector judges each frame: the detectors one by one, what they say all at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rustpbx.media.plane.leg import Leg
from rustpbx.media.plane.news import News, Times
from rustpbx.media.plane.stages import FRAME, Samples, Slots

HUSH = 16
"""A frame without a sample beyond this (-66 dBFS: G.711's idle noise) is silence, and no detector is asked: on most
telephone lines that is what is sent while nobody speaks.
"""


class Attention:
    """The watched legs among `slots`. `eject(leg, error)` is called for a leg whose detector raised."""

    def __init__(self, slots: int, news: News, eject: Callable[[Leg, Exception], None]) -> None:
        self._news = news
        self._eject = eject
        self._legs: dict[int, Leg] = {}
        self._judges: dict[int, Callable[[bytes | memoryview, int], bool]] = {}
        self._watched = np.zeros(slots, np.bool_)
        self._frames: Samples = np.zeros((slots, FRAME), np.int16)
        self._views = [memoryview(row).cast("B") for row in self._frames]

    def watch(self, leg: Leg) -> None:
        """Begin to watch a leg, or end it if it has no `watch` of this kind any more."""
        detector = leg.watch.detector if leg.watch is not None else None
        self._watched[leg.slot] = detector is not None
        if detector is None:
            self._legs.pop(leg.slot, None)
            self._judges.pop(leg.slot, None)
        else:
            self._legs[leg.slot] = leg
            self._judges[leg.slot] = detector.voiced

    def attend(self, slots: Slots, frames: Samples, heard_at: Times) -> None:
        """Take the frames (n, 160) of these legs, heard at `heard_at` (n,)."""
        watched = self._watched[slots]
        if not watched.all():
            slots, frames, heard_at = slots[watched], frames[watched], heard_at[watched]
        if not slots.size:
            return
        voiced = np.zeros(slots.size, np.bool_)
        loud = np.flatnonzero(frames.max(axis=1) - frames.min(axis=1).astype(np.int32) > 2 * HUSH)
        if loud.size:
            voiced[loud] = self._judged(slots[loud], frames[loud])
        self._news.take(slots, voiced, heard_at)

    def _judged(self, slots: Slots, frames: Samples) -> list[bool]:
        self._frames[: slots.size] = frames
        judged = zip([self._judges[slot] for slot in slots.tolist()], self._views, strict=False)
        try:
            return [judge(view, FRAME) for judge, view in judged]
        except Exception:  # noqa: BLE001 - the leg at fault is found below
            legs = [self._legs[slot] for slot in slots.tolist()]
            return [self._alone(leg, view) for leg, view in zip(legs, self._views, strict=False)]

    def _alone(self, leg: Leg, frame: memoryview) -> bool:
        try:
            return self._judges[leg.slot](frame, FRAME)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this leg's alone
            self._eject(leg, error)
            return False
