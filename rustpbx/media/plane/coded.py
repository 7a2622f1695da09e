"""A leg whose codec is no table of the arrays' (Opus, G.722, a stream of samples): its packets, coder and frames.

The jitter buffer of such a leg is that of all others (`Bank.present`, `cursor`, `lead` ...); only what a place of its
ring holds is here: payloads in place of 160 bytes, which are decoded when it is their turn. Its audio is wide: 16 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from rustpbx.errors import MediaError
from rustpbx.media.codec.base import RATE, WIDE, Coder, Foreseeing
from rustpbx.media.codec.resample import EMPTY, downsampling_matrix
from rustpbx.media.events import Pcm
from rustpbx.media.plane.bank import DEPTH, KEPT, PLAYOUT, Bank
from rustpbx.media.plane.playout import fit
from rustpbx.media.plane.stages import Samples

FADED = 5
"""After so many missing frames in a row there is silence."""

AHEAD = 7 * WIDE
"""Decoded samples that may wait: a packet of 120 ms, and what was left of the one before."""

SILENCE: Pcm = np.zeros(WIDE, np.int16)

_NARROWING, PAST = downsampling_matrix(WIDE)


@attrs.frozen
class _Payload:
    offset: int  # from the begin of the frame, in RTP time
    data: bytes


def narrow(coders: Sequence[Coded]) -> Samples:
    """What each has heard last as a frame of 8 kHz, (n, 160), in one matrix product."""
    samples = np.stack([coded._recent for coded in coders]).astype(np.float32)  # noqa: SLF001 - its own module
    frames: Samples = np.clip(np.rint(samples @ _NARROWING), -32768, 32767).astype(np.int16)
    return frames


class Coded:
    """Beside slot `slot` of the bank. `heard`, `said` and `playout` are rings of wide frames, indexed as the bank's."""

    def __init__(self, coder: Coder, bank: Bank, slot: int) -> None:
        self.coder = coder
        self.ahead = coder if isinstance(coder, Foreseeing) else None
        self.step = coder.clock_rate // 50
        self.heard: Samples = np.zeros((KEPT, WIDE), np.int16)
        self.playout: Samples = np.zeros((PLAYOUT, WIDE), np.int16)
        self.said: Samples = np.zeros((KEPT, WIDE), np.int16)
        self.malformed = 0
        self._bank = bank
        self._slot = slot
        self._ring: list[list[_Payload]] = [[] for _ in range(DEPTH)]
        self._decoded: Pcm = EMPTY
        self._recent: Pcm = np.zeros(PAST + WIDE, np.int16)  # the frame heard last, and what the filter wants before it
        self._measured: tuple[bytes, int] = b"", 0  # the payload that was looked at last, and its RTP time

    # -- the jitter buffer

    def duration(self, payload: bytes) -> int:
        """How long a payload is in RTP time; 0 if it is malformed. It is asked again and again for the same one."""
        if self._measured[0] is not payload:
            self._measured = payload, self.coder.duration(payload) * self.coder.clock_rate // RATE
        return self._measured[1]

    def fits(self, delta: int, payload: bytes) -> bool:
        """Whether the ring has room for a payload `delta` after the cursor."""
        return self._places(delta, payload) <= DEPTH

    def late(self, delta: int, payload: bytes) -> bool:
        """Whether the payload's begin has been played already."""
        return delta < 0 or not self._places(delta, payload)

    def take(self, delta: int, payload: bytes) -> bool:
        """Keep a payload, if it is one that there is a place for: whether it was."""
        wanted = bool(self.duration(payload)) and self.fits(delta, payload) and not self.late(delta, payload)
        if wanted:
            self.place(delta, payload)
        return wanted

    def place(self, delta: int, payload: bytes) -> None:
        """Keep a payload for when its time comes: `delta` after the cursor, in RTP time."""
        bank, slot = self._bank, self._slot
        first, offset = divmod(delta, self.step)
        last = self._places(delta, payload)
        for frame in range(first, last):
            index = (int(bank.head[slot]) + frame) % DEPTH
            if not bank.present[slot, index]:
                self._ring[index] = []
                bank.present[slot, index] = True
            if frame == first and all(kept.offset != offset for kept in self._ring[index]):
                self._ring[index].append(_Payload(offset, payload))
                self._ring[index].sort(key=lambda kept: kept.offset)
        bank.lead[slot] = max(int(bank.lead[slot]), last)

    def _places(self, delta: int, payload: bytes) -> int:
        """The frame behind the last one that a payload reaches into."""
        return -(-(delta + self.duration(payload)) // self.step)

    def forget(self) -> None:
        """What was decoded ahead belongs to a stream that is over."""
        self._decoded = EMPTY

    def deafen(self) -> None:
        """Whoever begins to listen does not hear what was before."""
        self.heard[:] = 0
        self.forget()

    # -- hearing

    def hear(self, tick: int, *, found: bool) -> None:
        """The wide frame of this tick, kept for taps and for `narrow`."""
        head = int(self._bank.head[self._slot])
        if found:
            for kept in self._ring[head]:
                self._decode(kept.data)
        short = WIDE - self._decoded.size
        if short > 0:
            self._append(self._concealed(head)[:short])
        frame, self._decoded = self._decoded[:WIDE], self._decoded[WIDE:]
        self.heard[tick % KEPT] = frame
        self._recent[:PAST] = self._recent[-PAST:]
        self._recent[PAST:] = frame

    def hush(self, tick: int) -> None:
        """Nobody shall hear the frame of this tick."""
        self.heard[tick % KEPT] = 0

    # -- speaking

    def encode(self, place: int) -> bytes:
        """What the frame at `place` of the playout ring is on the wire."""
        return self._say(self.playout[place])

    def encode_narrow(self, pcm: Pcm) -> bytes:
        """The same for a frame (160,) at 8 kHz."""
        return self._say(fit(pcm[np.newaxis], WIDE)[0])

    def encode_wide(self, pcm: Pcm) -> bytes:
        """The same for a frame (320,) that is in no ring."""
        return self._say(pcm)

    def encode_silence(self) -> bytes:
        """What is sent while nothing is played."""
        return self._say(SILENCE)

    def _say(self, pcm: Pcm) -> bytes:
        self.said[self._bank.tick % KEPT] = pcm
        return self.coder.encode(pcm)

    # -- inside

    def _decode(self, payload: bytes) -> None:
        try:
            self._append(self.coder.decode(payload))
        except MediaError:
            self.malformed += 1

    def _append(self, pcm: Pcm) -> None:
        self._decoded = np.concatenate([self._decoded, pcm])[-AHEAD:]

    def _concealed(self, head: int) -> Pcm:
        """A frame for one that is not there; silence before the stream begins, and when it has stopped."""
        bank, slot = self._bank, self._slot
        if int(bank.misses[slot]) >= FADED:
            return SILENCE
        behind = (head + 1) % DEPTH
        following = self._ring[behind][0].data if bank.present[slot, behind] and self._ring[behind] else None
        return self.coder.conceal(following)
