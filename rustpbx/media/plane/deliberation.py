"""Voice activity by neural networks: what all legs have said since is scored in one go, in a thread.

The tick only collects. A leg's frames add up to chunks of the length that its engine wants; the chunks that a tick
completes are one batch, and the batches of a lane wait for its task, which has them scored in order: an engine that is
too slow keeps none but its own legs waiting. What comes back is applied to legs that are still watched as they were
when the batch was made: a result for a leg that was closed, ejected or watched anew since goes nowhere.
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
"""Batches of a lane that wait; the oldest is dropped when there are more. There is one a tick at most: speech half a
second ago is of no use to whoever wants to interrupt.
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

    members: Sequence[Member]
    chunks: Samples
    at: Times


class Lane:
    """The legs that one engine hears at one rate, and what it has not heard yet of each. It is closed when the last one
    leaves: whoever comes later opens another.
    """

    def __init__(self, name: str, engine: Engine, slots: int) -> None:
        self.name = name
        self.engine = engine
        self.batches: deque[Batch] = deque()
        self.woken = trio.Event()
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
        if not self.members:
            self.woken.set()

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
        members = [self.members[slot] for slot in ready.tolist()]
        batch = Batch(members, self._take(ready), self._since[ready].copy())
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


def judge(engine: Engine, batch: Batch) -> list[float | Exception]:
    """Score a batch, and if that raises, each of its chunks alone. Runs in a thread."""
    streams = [member.stream for member in batch.members]
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
        self._opened = trio.Event()
        self._bench: stages.Workbench | None = None

    # -- for the tick

    @property
    def wanted(self) -> bool:
        """Whether any leg is watched so: if not, a tick need not ask further."""
        return bool(self._lanes)

    @property
    def waiting(self) -> int:
        """How many batches wait to be scored."""
        return sum(len(lane.batches) for lane in self._lanes.values())

    def watch(self, leg: Leg) -> None:
        """Begin to watch a leg, or end it if it has no `watch` of this kind; with a fresh memory in any case."""
        for key, lane in list(self._lanes.items()):
            lane.leave(leg.slot)
            if not lane.members:
                del self._lanes[key]
        watch = leg.watch
        if watch is not None and watch.detector is None:
            wide = leg.coded is not None
            lane = self._lanes.get((watch.engine, wide)) or self._open(watch.engine, wide)
            lane.join(leg, watch)

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
                self._wait(lane, batch)

    def _open(self, name: str, wide: bool) -> Lane:
        lane = self._lanes[name, wide] = Lane(name, ENGINES[name](wide), self._bank.slots)
        self._opened.set()
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

    def _wait(self, lane: Lane, batch: Batch) -> None:
        if len(lane.batches) >= BACKLOG:
            self._drop(lane.batches.popleft())
        lane.batches.append(batch)
        lane.woken.set()

    def _drop(self, batch: Batch) -> None:
        self._counters["vad_chunks_dropped"] += len(batch.members)

    # -- beside it

    async def run(self) -> None:
        """Have what waits scored until cancelled: a task for each lane."""
        served: set[Lane] = set()
        async with trio.open_nursery() as nursery:
            while True:
                lanes = set(self._lanes.values())
                for lane in lanes - served:
                    nursery.start_soon(self._serve, lane)
                served = lanes
                self._opened = trio.Event()
                await self._opened.wait()

    async def _serve(self, lane: Lane) -> None:
        """Load a lane's engine, then have its batches scored, whatever happens to one of them."""
        while not await self._load(lane):
            await lane.woken.wait()
        while lane.members:
            if lane.batches:
                await self._deliberate(lane, lane.batches.popleft())
            else:
                lane.woken = trio.Event()
                await lane.woken.wait()

    async def _deliberate(self, lane: Lane, batch: Batch) -> None:
        try:
            if any(map(lane.current, batch.members)):
                self._apply(lane, batch, await self._finish(partial(judge, lane.engine, batch)))
        except OverloadedError:
            self._drop(batch)
        except Exception:  # every later batch hangs on this task: it reports and goes on
            self._drop(batch)
            self._counters["vad_batches_failed"] += 1
            if self._counters["vad_batches_failed"] & (self._counters["vad_batches_failed"] - 1) == 0:
                log.exception("voice activity failed (%d so far)", self._counters["vad_batches_failed"])

    async def _load(self, lane: Lane) -> bool:
        """Load a lane's engine; False if there was no thread for it, so that the next batch has to try again."""
        try:
            await self._finish(lane.engine.load)
        except OverloadedError:
            lane.woken = trio.Event()
            return False
        except Exception as error:  # noqa: BLE001 - a library's own errors have no common base
            problem = str(error) if isinstance(error, MediaError) else f"{type(error).__name__}: {error}"
            self._close(lane, problem)
        return True

    def _close(self, lane: Lane, problem: str) -> None:
        """The engine cannot be had: its legs are told, and not watched any more. Who asks again is tried again."""
        log.warning("VAD engine %s cannot be had: %s", lane.name, problem)
        for member in list(lane.members.values()):
            self._forget(member.leg)
            member.leg.tell(WatchFailed(member.leg.name, lane.name, problem))

    async def _finish(self, work: Callable[[], T]) -> T:
        """Work in a thread, and wait for it even when cancelled: a process that ends while a library of C++ is at work
        in one of its threads is aborted.
        """
        with trio.CancelScope(shield=True):
            result = await self._offload.thread(work)
        return result  # noqa: RET504 - within the block mypy thinks that the scope may swallow it

    def _forget(self, leg: Leg) -> None:
        leg.watch = None
        self.watch(leg)
        self._news.watch(leg)
        leg.listen()

    def _apply(self, lane: Lane, batch: Batch, scores: list[float | Exception]) -> None:
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
