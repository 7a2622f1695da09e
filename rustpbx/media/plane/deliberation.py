"""Voice activity by neural networks: what all legs have said since is scored in one go, in a thread.

The tick only collects. A leg's frames add up to chunks of the length that its engine wants; the chunks that a tick
completes are one batch, and the batches wait for the one task that has them scored (`run`), in order. What comes back
is applied to legs that are still watched as they were when the batch was made: a result for a leg that was closed,
ejected or watched anew since goes nowhere.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import attrs
import numpy as np
import trio

from rustpbx.errors import MediaError, OverloadedError
from rustpbx.journal import Journal
from rustpbx.media.events import WatchFailed
from rustpbx.media.plane import stages
from rustpbx.media.plane.bank import KEPT, Bank
from rustpbx.media.plane.leg import Leg, Watch
from rustpbx.media.plane.news import News, Times
from rustpbx.media.plane.stages import FRAME, HISTORY, Samples, Slots
from rustpbx.media.vad.detector import ENGINES, Engine
from rustpbx.shell.offload import Offload

T = TypeVar("T")

log = Journal(__name__)

BACKLOG = 25
"""Batches that wait; the oldest is dropped when there are more. One a tick is usual: speech half a second ago is of no
use to whoever wants to interrupt.
"""

AT_ONCE = 80
"""Frames that are made 16 kHz in one go: what the cache still holds."""

TICK = 0.02


@attrs.frozen(eq=False)
class Member:
    """A leg in a lane, from one `watch` to the next: whatever is computed for it is for this one alone."""

    leg: Leg
    watch: Watch
    stream: Any


@attrs.frozen(eq=False)
class Batch:
    """A chunk (n, samples) of each of n legs, and when they were heard (n,)."""

    lane: Lane
    members: Sequence[Member]
    chunks: Samples
    at: Times


class Lane:
    """The legs that one engine hears at one rate, and what it has not heard yet of each."""

    def __init__(self, name: str, engine: Engine, slots: int) -> None:
        self.name = name
        self.engine = engine
        self.loaded = False
        self.members: dict[int, Member] = {}
        self.joined = np.zeros(slots, np.bool_)
        self._step = engine.rate // 50
        self._samples: Samples = np.zeros((slots, engine.chunk + self._step), np.int16)
        self._fill = np.zeros(slots, np.int64)
        self._since = np.zeros(slots, np.float64)  # when the first of `_samples` was heard
        self._places = np.arange(self._step)

    def join(self, leg: Leg, watch: Watch) -> None:
        """Hear a leg from its next frame on, remembering nothing."""
        self.members[leg.slot] = Member(leg, watch, self.engine.open())
        self.joined[leg.slot] = True
        self._fill[leg.slot] = 0

    def leave(self, slot: int) -> None:
        """Hear a leg no more."""
        self.members.pop(slot, None)
        self.joined[slot] = False

    def add(self, slots: Slots, frames: Samples, heard_at: Times) -> Batch | None:
        """Take a frame (n, rate / 50) of these legs, heard at `heard_at` (n,); the chunks that are complete now."""
        fill = self._fill[slots]
        self._since[slots] = np.where(fill == 0, heard_at, self._since[slots])
        self._samples[slots[:, np.newaxis], fill[:, np.newaxis] + self._places] = frames
        fill += self._step
        due = fill >= self.engine.chunk
        self._fill[slots] = np.where(due, fill - self.engine.chunk, fill)
        if not due.any():
            return None
        ready = slots[due]
        batch = Batch(
            self, [self.members[slot] for slot in ready.tolist()], self._take(ready), self._since[ready].copy()
        )
        self._since[ready] = heard_at[due] + TICK - self._fill[ready] / self.engine.rate
        return batch

    def _take(self, slots: Slots) -> Samples:
        """The first chunk of these legs; what is behind it moves up."""
        chunk = self.engine.chunk
        samples = self._samples[slots]
        self._samples[slots, : self._step] = samples[:, chunk:]
        return samples[:, :chunk]

    def current(self, member: Member) -> bool:
        """Whether the leg is still watched as it was."""
        return self.members.get(member.leg.slot) is member


def judge(batch: Batch) -> list[float | Exception]:
    """Score a batch, and if that raises, each of its chunks alone. Runs in a thread."""
    engine, streams = batch.lane.engine, [member.stream for member in batch.members]
    try:
        return list(engine.score(streams, batch.chunks))
    except Exception:  # noqa: BLE001 - the leg at fault is found below
        return [_judge_alone(engine, stream, chunk) for stream, chunk in zip(streams, batch.chunks, strict=True)]


def _judge_alone(engine: Engine, stream: Any, chunk: Samples) -> float | Exception:
    try:
        return engine.score([stream], chunk[np.newaxis])[0]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this leg's alone
        return error


class Deliberation:
    """The legs among the bank's that a neural engine watches. `eject(leg, error)` is called for one that raised."""

    def __init__(
        self,
        bank: Bank,
        news: News,
        counters: Counter[str],
        offload: Offload,
        eject: Callable[[Leg, Exception], None],
    ) -> None:
        self._bank = bank
        self._news = news
        self._counters = counters
        self._offload = offload
        self._eject = eject
        self._lanes: dict[tuple[str, bool], Lane] = {}
        self._batches: deque[Batch] = deque()
        self._woken = trio.Event()
        self._bench: stages.Workbench | None = None

    # -- for the tick

    @property
    def wanted(self) -> bool:
        """Whether any leg was ever watched so: if not, a tick need not ask further."""
        return bool(self._lanes)

    @property
    def waiting(self) -> int:
        """How many batches wait to be scored."""
        return len(self._batches)

    def watch(self, leg: Leg) -> None:
        """Begin to watch a leg, or end it if it has no `watch` of this kind; with a fresh memory in any case."""
        for lane in self._lanes.values():
            lane.leave(leg.slot)
        watch = leg.watch
        if watch is None or watch.detector is not None:
            return
        wide = leg.coded is not None
        lane = self._lanes.get((watch.engine, wide)) or self._open(watch.engine, wide)
        lane.join(leg, watch)
        if not lane.loaded:
            self._wait(Batch(lane, (), np.empty((0, lane.engine.chunk), np.int16), np.empty(0)))

    def change_rate(self, leg: Leg) -> None:
        """The leg's codec has changed: what it says is heard at another rate from now on, if that is another."""
        watch = leg.watch
        if watch is None or watch.detector is not None:
            return
        lane = self._lanes.get((watch.engine, leg.coded is not None))
        if lane is None or leg.slot not in lane.members:
            self.watch(leg)

    def collect(self, slots: Slots, frames: Samples, heard_at: Times) -> None:
        """Take what these legs said in this tick: their frames (n, 160), heard at `heard_at` (n,)."""
        for (_, wide), lane in self._lanes.items():
            rows = np.flatnonzero(lane.joined[slots])
            if not rows.size:
                continue
            heard = self._frames(lane, wide, slots[rows], frames[rows])
            batch = lane.add(slots[rows], heard, heard_at[rows])
            if batch is not None:
                self._wait(batch)

    def _open(self, name: str, wide: bool) -> Lane:
        lane = self._lanes[name, wide] = Lane(name, ENGINES[name](wide), self._bank.slots)
        return lane

    def _frames(self, lane: Lane, wide: bool, slots: Slots, frames: Samples) -> Samples:
        """The frames at the rate that the lane's engine hears."""
        if wide:
            place = self._bank.tick % KEPT
            return np.stack([self._bank.coders[slot].heard[place] for slot in slots.tolist()])
        if lane.engine.rate // 50 == FRAME:
            return frames
        if self._bench is None:
            self._bench = stages.Workbench(AT_ONCE, FRAME)
        before = self._bank.kept[slots, (self._bank.tick - 1) % KEPT, FRAME - HISTORY :]
        kept = np.hstack([before, frames])
        parts = [stages.upsample(kept[at : at + AT_ONCE], self._bench).copy() for at in range(0, len(kept), AT_ONCE)]
        return np.concatenate(parts)

    def _wait(self, batch: Batch) -> None:
        if len(self._batches) >= BACKLOG:
            self._drop(self._batches.popleft())
        self._batches.append(batch)
        self._woken.set()

    def _drop(self, batch: Batch) -> None:
        self._counters["vad_chunks_dropped"] += len(batch.members)

    # -- beside it

    async def run(self) -> None:
        """Have the batches scored until cancelled, whatever happens to one of them."""
        while True:
            while not self._batches:
                self._woken = trio.Event()
                await self._woken.wait()
            batch = self._batches.popleft()
            try:
                await self._deliberate(batch)
            except OverloadedError:
                self._drop(batch)
            except Exception:  # every later batch hangs on this task: it reports and goes on
                self._drop(batch)
                self._counters["vad_batches_failed"] += 1
                if self._counters["vad_batches_failed"] & (self._counters["vad_batches_failed"] - 1) == 0:
                    log.exception("voice activity failed (%d so far)", self._counters["vad_batches_failed"])

    async def _deliberate(self, batch: Batch) -> None:
        lane = batch.lane
        if not lane.loaded and not await self._load(lane):
            return
        if any(map(lane.current, batch.members)):
            self._apply(batch, await self._finish(partial(judge, batch)))

    async def _load(self, lane: Lane) -> bool:
        """Load a lane's engine; if that cannot be done, its legs are told and not watched any more."""
        if lane not in self._lanes.values():
            return False
        try:
            await self._finish(lane.engine.load)
        except OverloadedError:
            raise
        except Exception as error:  # noqa: BLE001 - a library's own errors have no common base
            problem = str(error) if isinstance(error, MediaError) else f"{type(error).__name__}: {error}"
            log.warning("VAD engine %s cannot be had: %s", lane.name, problem)
            self._lanes = {key: other for key, other in self._lanes.items() if other is not lane}
            for member in list(lane.members.values()):
                self._forget(member.leg)
                member.leg.tell(WatchFailed(member.leg.name, lane.name, problem))
            return False
        lane.loaded = True
        return True

    async def _finish(self, work: Callable[[], T]) -> T:
        """Work in a thread, and wait for it even when cancelled: a process that ends while a library of C++ is at work
        in one of its threads is aborted.
        """
        with trio.CancelScope(shield=True):
            result = await self._offload.thread(work)
        return result  # noqa: RET504 - within the block mypy thinks that the scope may swallow it

    def _forget(self, leg: Leg) -> None:
        leg.watch = None
        self._news.watch(leg)
        leg.listen()

    def _apply(self, batch: Batch, scores: list[float | Exception]) -> None:
        lane = batch.lane
        slots, voiced, at = [], [], []
        for member, score, heard_at in zip(batch.members, scores, batch.at.tolist(), strict=True):
            if not lane.current(member):
                self._counters["vad_results_stale"] += 1
            elif isinstance(score, Exception):
                self._eject(member.leg, score)
            else:
                slots.append(member.leg.slot)
                voiced.append(score > member.watch.threshold)
                at.append(heard_at)
        self._news.take(np.array(slots, np.intp), np.array(voiced, np.bool_), np.array(at))
