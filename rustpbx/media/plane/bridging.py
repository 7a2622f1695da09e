"""Bridges: what one leg hears is what another one sends, frame by frame through the arrays.

Heard audio is as its taps have it: without jitter, lost frames concealed, cleaned of noise and muted as asked. So a
bridge joins any two codecs, and a leg that is on hold. What is heard in a tick is sent in the next one. A source that
plays on a leg goes before what is bridged to it.
"""

from __future__ import annotations

import numpy as np

from rustpbx.media.events import Pcm
from rustpbx.media.plane import stages
from rustpbx.media.plane.bank import KEPT, Bank
from rustpbx.media.plane.leg import Leg
from rustpbx.media.plane.stages import FRAME, HISTORY, Bytes, Flags, Slots

ROWS = 32
"""Frames that are made 16 kHz in one go."""


class Bridging:
    """Who sends what whom hears. `bank.bridged` is the same for the tick, a muted leg left out."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._heard_by: dict[int, Leg] = {}  # by the slot that sends
        self._bench = stages.Workbench(ROWS, FRAME)
        self._wide: dict[int, Pcm] = {}  # by the slot that sends, in this tick

    @property
    def wanted(self) -> bool:
        """Whether there is any bridge."""
        return bool(self._heard_by)

    def join(self, leg: Leg, other: Leg) -> None:
        """Send on `leg` what is heard on `other`, in place of what was bridged to it before."""
        self._part(leg.slot)
        self._heard_by[leg.slot] = other
        other.overhearers += 1
        other.listen()
        self.mute(leg)

    def mute(self, leg: Leg) -> None:
        """What is sent on this leg is silence, or is not any more."""
        other = self._heard_by.get(leg.slot)
        self._bank.bridged[leg.slot] = -1 if other is None or leg.muted else other.slot

    def remove(self, leg: Leg) -> None:
        """The leg is gone: it neither sends what others hear nor the other way round."""
        self._part(leg.slot)
        for slot in [slot for slot, other in self._heard_by.items() if other is leg]:
            self._part(slot)

    def _part(self, slot: int) -> None:
        other = self._heard_by.pop(slot, None)
        self._wide.pop(slot, None)
        self._bank.bridged[slot] = -1
        if other is not None:
            other.overhearers -= 1
            other.listen()

    # -- for the tick

    def encode(self, slots: Slots, silent: Flags, encoded: Bytes) -> None:
        """Put what is bridged to those of `slots` (n,) that are `silent` (n,) into their rows of `encoded` (n, 160)."""
        bank = self._bank
        sources = bank.bridged[slots]
        rows = np.flatnonzero(silent & (sources >= 0))
        if not rows.size:
            return
        pcm = bank.kept[sources[rows], (bank.tick - 1) % KEPT]
        laws = bank.law_out[slots[rows]]
        for law in np.unique(laws).tolist():
            chosen = laws == law
            encoded[rows[chosen]] = stages.LAWS[law].encode(pcm[chosen])

    def widen(self, slots: Slots) -> None:
        """Have the frames of 16 kHz that `wide` is asked for in this tick, those of all these slots at once."""
        bank = self._bank
        self._wide.clear()
        sources = bank.bridged[slots]
        rows = (sources >= 0) & ~bank.coded[sources]
        targets, sources = slots[rows], sources[rows]
        for at in range(0, targets.size, ROWS):
            some = sources[at : at + ROWS]
            frames = bank.kept[some, (bank.tick - 2) % KEPT], bank.kept[some, (bank.tick - 1) % KEPT]
            wide = stages.upsample(np.concatenate(frames, axis=1)[:, -(HISTORY + FRAME) :], self._bench).copy()
            self._wide.update(zip(targets[at : at + ROWS].tolist(), wide, strict=True))

    def wide(self, slot: int) -> Pcm | None:
        """The frame (320,) of 16 kHz that is bridged to this slot; None without a bridge."""
        source = int(self._bank.bridged[slot])
        if source in self._bank.coders:
            frame: Pcm = self._bank.coders[source].heard[(self._bank.tick - 1) % KEPT]
            return frame
        return self._wide.get(slot)
