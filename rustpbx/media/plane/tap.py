"""`Tap`: what a leg hears, in blocks of about 100 ms at 16 kHz, through a bounded channel that drops its oldest."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import trio

from rustpbx.errors import MediaError
from rustpbx.media.events import AudioBlock
from rustpbx.media.plane.bank import LONGEST_BLOCK

RATE = 16000
TICK = 0.02


class Tap:
    """One listener; from `Plane.tap`, closed by leaving its `with` block or with the leg.

    `blocks` yields the audio, silence included, without a gap from the leg's first packet on; the first block may be
    shorter. When `capacity` blocks wait, the oldest is dropped and counted in `dropped`: late audio is worse than lost
    audio, and the tick never waits.
    """

    def __init__(self, *, seconds: float, capacity: int) -> None:
        self.frames = round(seconds / TICK)
        if not 1 <= self.frames <= LONGEST_BLOCK or capacity < 1:
            raise MediaError(f"a tap has blocks of 0.02 to {LONGEST_BLOCK * TICK} s and room for at least one")
        self.due = self.frames  # frames of the next block: fewer in the first, if the plane likes
        self.dropped = 0
        self.closed = False
        self._send, self.blocks = trio.open_memory_channel[AudioBlock](capacity)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Yield nothing more: the reader gets what waits, then the end of the channel. Idempotent."""
        self.closed = True
        self._send.close()

    # -- for the plane

    def put(self, block: AudioBlock) -> bool:
        """Send a block; False if an older one was dropped for it."""
        try:
            self._send.send_nowait(block)
        except trio.WouldBlock:
            self.blocks.receive_nowait()
            self._send.send_nowait(block)
            self.dropped += 1
            return False
        except trio.BrokenResourceError:
            self.closed = True  # the reader closed `blocks` itself
        return True
