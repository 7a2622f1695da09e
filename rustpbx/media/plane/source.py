"""`Source`: the audio that one leg plays, written in any sizes, sent in 20 ms frames.

500 ms of it wait in the bank's playout ring, from which the tick sends; up to 10 s more wait in a spool here, filled by
`write`, which waits while the spool is full. The tick knows nothing of pause and mute: a paused source shows it an
empty ring, a muted one a ring of silence.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import trio

from rustpbx.errors import IllegalStepError, MediaError
from rustpbx.media.events import Pcm
from rustpbx.media.plane.bank import PLAYOUT, Bank
from rustpbx.media.plane.playout import Playout, fit, store
from rustpbx.media.plane.stages import Samples

SPOOL = 500
"""Frames that wait outside the ring: 10 s, 320 KB a leg at most. When it is full, `write` waits."""


class Source:
    """What one playback sends, from `Plane.source`. Once stopped (replaced, left, leg closed) it drops all it is given.

    `rate` is the sample rate to write, in Hz: 8000, or 16000 where the leg's codec has more to say with it. It stays
    when the codec changes. `generation` is the caller's number for the utterance.
    """

    def __init__(self, bank: Bank, slot: int, playout: Playout, generation: int, *, muted: bool = False) -> None:
        self.generation = generation
        self.rate = playout.frame * 50
        self._frame = playout.frame
        self._playout = playout
        self._bank = bank
        self._slot = slot
        self._spool: deque[Pcm] = deque()
        self._spooled = 0
        self._written = 0
        self._final_played = 0
        self._finished = False
        self._stopped = False
        self._held: int | None = None  # frames in the ring that the tick does not see: paused
        self._unheard: Samples | None = np.zeros((PLAYOUT, self._frame), np.int16) if muted else None
        self._dry: trio.Event | None = None
        self._begun = trio.Event()
        self._ended = trio.Event()
        self._room = trio.Event()

    @property
    def stopped(self) -> bool:
        """Whether nothing of it will be sent any more."""
        return self._stopped

    @property
    def paused(self) -> bool:
        """Whether it is held where it is."""
        return self._held is not None

    @property
    def written(self) -> int:
        """Milliseconds of audio taken so far."""
        return self._written * 1000 // self.rate

    @property
    def played(self) -> int:
        """Milliseconds really sent."""
        if self._stopped:
            return self._final_played
        return min(int(self._bank.played[self._slot]) * 20, self.written)

    async def write(self, pcm: Pcm) -> None:
        """Append int16 mono samples (n,); waits while the spool is full.

        Raises `MediaError` for another type or shape, `IllegalStepError` after `finish`.
        """
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise MediaError(f"a source takes int16 (n,), not {pcm.dtype} {pcm.shape}")
        if self._finished and not self._stopped:
            raise IllegalStepError("a source takes no audio after finish()")
        await trio.lowlevel.checkpoint()
        at = 0
        while at < pcm.size and not self._stopped:
            room = SPOOL * self._frame - self._spooled
            if room <= 0:
                self._room = trio.Event()
                await self._room.wait()
                continue
            piece = pcm[at : at + room].copy()  # the caller may reuse its array
            at += piece.size
            self._spool.append(piece)
            self._spooled += piece.size
            self._written += piece.size
            self.refill()

    def finish(self) -> None:
        """No more will be written: what is there is played to its end, the last frame filled up with silence."""
        if self._stopped or self._finished:
            return
        self._finished = True
        short = -self._spooled % self._frame
        if short:
            self._spool.append(np.zeros(short, np.int16))
            self._spooled += short
        self.refill()

    def cut(self, at: int) -> None:
        """Drop what lies after the first `at` milliseconds written, whatever of it has not been sent; then `finish`."""
        if self._stopped or self._finished:
            return
        bank, slot = self._bank, self._slot
        surplus = max(0, self._written - at * self.rate // 1000)
        if surplus > self._spooled:
            frames = min((surplus - self._spooled) // self._frame, int(bank.playout_count[slot]) + (self._held or 0))
            if self._held is None:
                bank.playout_count[slot] -= frames
            else:
                self._held -= frames
            self._written -= frames * self._frame
            surplus = self._spooled
        kept = self._spooled - surplus
        piece = self._cut(kept) if kept else None
        self._written -= surplus
        self._spool.clear()
        self._spooled = kept
        if piece is not None:
            self._spool.append(piece)
        self._room.set()
        self.finish()

    def pause(self) -> None:
        """Send nothing from the next tick on, and lose nothing; what is written meanwhile waits behind. Idempotent."""
        if self._stopped or self.paused:
            return
        bank, slot = self._bank, self._slot
        self._held = int(bank.playout_count[slot])
        bank.playout_count[slot] = 0
        bank.spooled[slot] = bank.closing[slot] = False

    def resume(self) -> None:
        """Go on where `pause` held."""
        if self._stopped or self._held is None:
            return
        self._bank.playout_count[self._slot], self._held = self._held, None
        self.refill()

    def mute(self, muted: bool) -> None:
        """Send silence in place of what is played, while its time goes on; or send it again."""
        if self._stopped or muted == (self._unheard is not None):
            return
        if self._unheard is None:
            self._unheard = self._playout.rows()
            self._playout.hush()
        else:
            self._playout.put(0, self._unheard)
            self._unheard = None

    def move(self, playout: Playout) -> None:
        """The leg has another ring from now on, which holds already what the one before did."""
        self._playout = playout
        if self._unheard is not None:
            self._unheard = fit(self._unheard, playout.frame)

    async def begun(self) -> None:
        """Wait until the first packet of it is sent, or the source is stopped."""
        if not self.played and not self._stopped:
            self._bank.beginning[self._slot] = True
        else:
            self._begun.set()
        await self._begun.wait()

    async def ended(self) -> None:
        """Wait until the last frame is sent, or the source is stopped."""
        await self._ended.wait()

    async def dry(self) -> None:
        """Wait until all that was written has been sent (a part of a frame is filled up), or the source is stopped.

        A paused source does not run dry.
        """
        if self._dry is None:
            self._dry = trio.Event()
        dry = self._dry
        self.refill()
        await dry.wait()

    # -- for the plane

    def refill(self) -> None:
        """Move whole frames from the spool into the ring as far as both allow, and tell whoever waits for the end."""
        if self._stopped:
            return
        bank, slot = self._bank, self._slot
        if bank.beginning[slot] and bank.played[slot]:
            bank.beginning[slot] = False
            self._begun.set()
        if self.paused:
            return
        silent = not bank.playout_count[slot] and not bank.unsent[slot]
        if silent and self._dry is not None and 0 < self._spooled < self._frame:
            self._fill_up()
        frames = min(PLAYOUT - int(bank.playout_count[slot]), self._spooled // self._frame)
        if frames > 0:
            self._push(frames)
            self._room.set()
        bank.spooled[slot] = self._spooled >= self._frame
        # The tick looks here again once the ring is empty.
        bank.closing[slot] = self._spooled < self._frame and (self._finished or self._dry is not None)
        if bank.closing[slot] and not bank.playout_count[slot] and not bank.unsent[slot]:
            self._drained()

    def _push(self, frames: int) -> None:
        bank, slot = self._bank, self._slot
        new = fit(self._cut(frames * self._frame).reshape(frames, self._frame), self._playout.frame)
        start = int(bank.playout_head[slot] + bank.playout_count[slot]) % PLAYOUT
        if self._unheard is None:
            self._playout.put(start, new)
        else:
            store(self._unheard, start, new)
            self._playout.hush()
        bank.playout_count[slot] += frames

    def _fill_up(self) -> None:
        """The part of a frame that is left becomes one, with silence."""
        short = self._frame - self._spooled % self._frame
        self._spool.append(np.zeros(short, np.int16))
        self._spooled += short
        self._written += short

    def _drained(self) -> None:
        """Everything has been sent."""
        self._bank.closing[self._slot] = False
        if self._dry is not None:
            self._dry.set()
            self._dry = None
        if self._finished:
            self._ended.set()

    def stop(self) -> None:
        """Send nothing more of it, not even what is half in a packet; idempotent."""
        if self._stopped:
            return
        self._final_played = self.played
        self._stopped, self._held = True, None
        bank, slot = self._bank, self._slot
        bank.playout_count[slot] = 0
        bank.spooled[slot] = bank.closing[slot] = bank.beginning[slot] = False
        self._begun.set()
        if bank.unsent[slot]:
            bank.payload[slot, : int(bank.phase[slot])] = bank.silence_code(slot)
            bank.unsent[slot] = 0
        self._spool.clear()
        self._spooled = 0
        self._room.set()
        self._ended.set()
        if self._dry is not None:
            self._dry.set()

    def _cut(self, samples: int) -> Pcm:
        """Take exactly `samples` from the spool."""
        pieces: list[Pcm] = []
        missing = samples
        while missing:
            piece = self._spool.popleft()
            if piece.size > missing:
                self._spool.appendleft(piece[missing:])
                piece = piece[:missing]
            pieces.append(piece)
            missing -= piece.size
        self._spooled -= samples
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
