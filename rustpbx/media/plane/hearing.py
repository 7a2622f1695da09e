"""From the jitter rings to the ears: playout, G.711, concealment, 16 kHz, then taps and voice activity.

The jitter buffer is a ring per leg and a few counters. A frame that is not there is lost if a newer one is (the cursor
moves on), and late if none is (the cursor waits, and the delay has grown by 20 ms: that is how the buffer follows
the jitter, up to 200 ms). What was never needed for four seconds is taken out again, where it is quiet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from rustpbx.media.plane import stages
from rustpbx.media.plane.attention import Attention
from rustpbx.media.plane.bank import KEPT, Bank
from rustpbx.media.plane.beeps import Beeps
from rustpbx.media.plane.coded import narrow
from rustpbx.media.plane.deliberation import Deliberation
from rustpbx.media.plane.denoising import Denoising
from rustpbx.media.plane.leg import Leg
from rustpbx.media.plane.listening import Listening
from rustpbx.media.plane.news import News
from rustpbx.media.plane.stages import Bytes, Flags, Samples, Slots
from rustpbx.media.plane.tap import Tap
from rustpbx.media.plane.tones import Tones
from rustpbx.shell.offload import Offload

TICK = 0.02

DEEPEST = 10
"""Frames of delay that the buffer grows to: 200 ms."""

SHALLOWEST = 1
"""Frames always left in reserve: 20 ms."""

GONE = 10
"""After so many missing frames in a row the stream has stopped; the next packet starts the buffer again."""

WINDOW = 200
"""Ticks over which the reserve is watched before it is called surplus: 4 s."""

UNSEEN = 1000

QUIET = 150.0**2
"""Mean power below which a frame can be left out unheard (-47 dBFS)."""


class Hearing:
    """The listening side of the tick. `guard(step, slots)` runs a step, and again row by row if it raises."""

    def __init__(
        self,
        bank: Bank,
        counters: Counter[str],
        guard: Callable[[Callable[[Slots], None], Slots], None],
        eject: Callable[[Leg, Exception], None],
        offload: Offload,
    ) -> None:
        self._bank = bank
        self._counters = counters
        self._guard = guard
        self._news = News(bank.slots)
        self._attention = Attention(bank.slots, self._news, eject)
        self.deliberation = Deliberation(bank, self._news, counters, offload, eject)
        self.denoising = Denoising(bank, counters, offload)
        self._tones = Tones(bank.slots)
        self._beeps = Beeps(bank.slots)
        self._listening = Listening(bank, counters, eject)
        self._muted = np.zeros(bank.slots, np.bool_)
        self._any_muted = False
        self._now = 0.0

    def listen(self, leg: Leg) -> None:
        """The leg's detector has changed."""
        self._news.watch(leg)
        self._attention.watch(leg)
        self.deliberation.watch(leg)
        leg.listen()

    def seek_tones(self, leg: Leg) -> None:
        """The leg wants digits to be looked for in its audio, or does not any more."""
        self._tones.watch(leg)
        leg.listen()

    def seek_beeps(self, leg: Leg) -> None:
        """The leg wants a beep to be looked for in its audio, or does not any more."""
        self._beeps.watch(leg)
        leg.listen()

    def tap(self, leg: Leg, tap: Tap) -> None:
        """Serve a new tap."""
        self._listening.add(leg, tap)

    def flush(self, leg: Leg) -> None:
        """Its taps get what they have not had."""
        self._listening.flush(leg, self._now)

    def mute(self, slot: int, muted: bool) -> None:
        """Nobody hears this leg, or everybody who listens does again."""
        if self._muted[slot] != muted:
            self._muted[slot] = muted
            self._any_muted = bool(self._muted.any())

    def heard_at(self, slot: int) -> float:
        """When the frame of this tick was spoken: it arrived `delay` frames ago and began 20 ms before that.

        To clean it took `lag` frames more.
        """
        return self._now - (int(self._bank.delay[slot] + self._bank.lag[slot]) + 1) * TICK

    def hear(self, now: float) -> None:
        """Play one frame of every leg that has been heard from. `now` is when this tick was due."""
        self._now = now
        slots = np.flatnonzero(self._bank.heard)
        if slots.size:
            self._guard(self._hear, slots)
        if self._bank.tick % WINDOW == 0:
            self._review()
        self._listening.emit(now)

    def _hear(self, slots: Slots) -> None:
        bank = self._bank
        payload, found = stages.take(bank.ring, bank.present, bank.head, slots)
        flowing = bank.flowing[slots]
        waiting = flowing & (bank.hold[slots] > 0)
        due = flowing & ~waiting
        found &= due
        wanted = bank.wanted[slots]
        if wanted.all():
            self._listen(slots, payload, found)
        elif wanted.any():
            self._listen(slots[wanted], payload[wanted], found[wanted])
        dry = due & ~found & (bank.lead[slots] <= 0) & (bank.delay[slots] < DEEPEST)
        bank.hold[slots] -= waiting
        bank.delay[slots] += dry
        bank.misses[slots] = np.where(found, 0, bank.misses[slots] + 1)
        bank.flowing[slots] = flowing & ~(due & (bank.misses[slots] >= GONE) & (bank.lead[slots] <= 0))
        self._advance(slots[due & ~dry])
        due_slots = slots[due]
        bank.spare[due_slots] = np.minimum(bank.spare[due_slots], bank.lead[due_slots])
        self._shrink(due_slots)

    def _listen(self, slots: Slots, payload: Bytes, found: Flags) -> None:
        """Samples of one frame for legs that somebody listens to; nothing is kept before all of it is done."""
        bank = self._bank
        pcm = stages.decode(payload, bank.law_in[slots])
        if not found.all():
            missing = slots[~found]
            before = bank.kept[missing, (self._bank.tick - 1) % KEPT]
            if self.denoising.wanted:
                before = self.denoising.before(missing, before)
            pcm[~found] = stages.conceal(before, bank.misses[missing])
        if bank.coders:
            self._decode(slots, found, pcm)
        if self._any_muted:
            self._hush(slots, pcm)
        if bank.surplus[slots].any():
            bank.power[slots] = stages.levels(pcm)
        heard_at = self._now - (bank.delay[slots] + 1) * TICK
        if self._tones.wanted:
            self._tones.hear(slots, pcm, heard_at)
        if self._beeps.wanted:
            self._beeps.hear(slots, pcm, heard_at)
        if self.denoising.wanted:
            self.denoising.clean(slots, pcm)
            heard_at -= bank.lag[slots] * TICK
        bank.kept[slots, self._bank.tick % KEPT] = pcm
        self._attention.attend(slots, pcm, heard_at)
        if self.deliberation.wanted:
            self.deliberation.collect(slots, pcm, heard_at)

    def _decode(self, slots: Slots, found: Flags, pcm: Samples) -> None:
        """The legs with a coder, one by one, and their rows of `pcm`, all at once."""
        bank = self._bank
        rows = np.flatnonzero(bank.coded[slots])
        coders = [bank.coders[slot] for slot in slots[rows].tolist()]
        for coded, here in zip(coders, found[rows].tolist(), strict=True):
            coded.hear(bank.tick, found=here)
        if coders:
            pcm[rows] = narrow(coders)

    def _hush(self, slots: Slots, pcm: Samples) -> None:
        """Silence in the rows of legs that nobody shall hear."""
        muted = self._muted[slots]
        pcm[muted] = 0
        for slot in slots[muted & self._bank.coded[slots]].tolist():
            self._bank.coders[slot].hush(self._bank.tick)

    def _advance(self, slots: Slots) -> None:
        bank = self._bank
        stages.advance(bank.present, bank.head, slots)
        bank.cursor[slots] += bank.step[slots].astype(np.uint32)
        bank.lead[slots] -= 1

    def _shrink(self, slots: Slots) -> None:
        """Leave out the next frame of legs that hold too many: at once beyond 200 ms, else where it is quiet."""
        bank = self._bank
        lead = bank.lead[slots]
        quiet = (bank.surplus[slots] > 0) & (bank.power[slots] < QUIET) & (lead > SHALLOWEST)
        shrinking = slots[quiet | (lead > DEEPEST)]
        if shrinking.size:
            self._advance(shrinking)
            bank.surplus[shrinking] = np.maximum(0, bank.surplus[shrinking] - 1)
            bank.delay[shrinking] = np.maximum(0, bank.delay[shrinking] - 1)
            self._counters["frames_left_out"] += shrinking.size

    def _review(self) -> None:
        """What stayed in reserve during a whole window is surplus."""
        bank = self._bank
        bank.surplus[:] = np.where(bank.spare < UNSEEN, np.clip(bank.spare - SHALLOWEST, 0, DEEPEST), 0)
        bank.spare[:] = UNSEEN
