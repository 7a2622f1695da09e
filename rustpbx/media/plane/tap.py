"""`Tap`: what a leg hears, in blocks of about 100 ms at 16 kHz, bounded, the oldest dropped when nobody takes them."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Self

import outcome
import trio

from rustpbx.errors import MediaError
from rustpbx.media.events import AudioBlock
from rustpbx.media.plane.bank import LONGEST_BLOCK

RATE = 16000
TICK = 0.02


class AudioBlocks(trio.abc.ReceiveChannel[AudioBlock]):
    """The blocks of one tap, in order, for one reader.

    A memory channel does the same with more to think about: at ten blocks a second and call, what a block costs on its
    way shows. A block that waits already is handed over without giving way to other tasks: there are few at most.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._blocks: deque[AudioBlock] = deque()
        self._reader: trio.lowlevel.Task | None = None
        self._over = False
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many blocks nobody has taken yet."""
        return len(self._blocks)

    async def receive(self) -> AudioBlock:
        """The next block. Raises `trio.EndOfChannel` once the tap is closed and what waited is taken,
        `trio.BusyResourceError` if another task is waiting, `trio.ClosedResourceError` after `aclose`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise trio.ClosedResourceError
        if self._blocks:
            return self._blocks.popleft()
        if self._over:
            raise trio.EndOfChannel
        if self._reader is not None:
            raise trio.BusyResourceError("another task reads this tap")
        self._reader = trio.lowlevel.current_task()
        block: AudioBlock = await trio.lowlevel.wait_task_rescheduled(self._abort)
        return block

    def receive_nowait(self) -> AudioBlock:
        """A block that waits. Raises as `receive` does, and `trio.WouldBlock` if there is none."""
        if self._closed:
            raise trio.ClosedResourceError
        if not self._blocks:
            raise trio.EndOfChannel if self._over else trio.WouldBlock
        return self._blocks.popleft()

    async def aclose(self) -> None:
        """Want no more blocks."""
        self._closed = True
        self._blocks.clear()
        self._wake(outcome.Error(trio.ClosedResourceError()))
        await trio.lowlevel.checkpoint()

    # -- for the tap

    @property
    def closed(self) -> bool:
        """Whether the reader wants no more."""
        return self._closed

    def put(self, block: AudioBlock) -> bool:
        """Hand a block over; False if the oldest one was dropped for it."""
        if self._reader is not None:
            self._wake(outcome.Value(block))
            return True
        full = len(self._blocks) >= self._capacity
        if full:
            self._blocks.popleft()
        self._blocks.append(block)
        return not full

    def end(self) -> None:
        """No block comes any more."""
        self._over = True
        self._wake(outcome.Error(trio.EndOfChannel()))

    def _wake(self, what: outcome.Value[AudioBlock] | outcome.Error) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            trio.lowlevel.reschedule(reader, what)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED


class Tap:
    """One listener; from `Plane.tap`, closed by leaving its `with` block or with the leg.

    `blocks` yields the audio, silence included, without a gap from the leg's first packet on; the first block may be
    shorter, and so is the last one, which comes when the leg is closed. When `capacity` blocks wait, the oldest is
    dropped and counted in `dropped`: late audio is worse than lost audio, and the tick never waits.
    """

    def __init__(self, *, seconds: float, capacity: int, played: bool = False) -> None:
        self.played = played
        self.frames = round(seconds / TICK)
        if not 1 <= self.frames <= LONGEST_BLOCK or capacity < 1:
            raise MediaError(f"a tap has blocks of 0.02 to {LONGEST_BLOCK * TICK} s and room for at least one")
        self.due = self.frames  # frames of the next block: fewer in the first, if the plane likes
        self.since = 0  # the tick of the latest block
        self.dropped = 0
        self.blocks = AudioBlocks(capacity)
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether nothing is yielded any more: closed on this side, or by the reader."""
        return self._ended or self.blocks.closed

    def close(self) -> None:
        """Yield nothing more: the reader gets what waits, then the end of the channel. Idempotent."""
        self._ended = True
        self.blocks.end()

    # -- for the plane

    def put(self, block: AudioBlock) -> bool:
        """Send a block; False if an older one was dropped for it."""
        if self.closed or self.blocks.put(block):
            return True
        self.dropped += 1
        return False
