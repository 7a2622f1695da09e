"""Noise suppression: what all legs that want it have said in a tick is cleaned in one go, in a thread.

The tick never waits for it. A frame is given away in its tick, and what has become of it is heard `LAG` ticks later; if
it is not there by then, the leg hears itself as it was. Both lie `DELAY` frames back, so that nothing is heard twice. A
network that falls behind gets less to do: every second leg that it kept waiting is left as it is for `REST` ticks.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs
import numpy as np
import trio

from rustpbx.errors import MediaError, OverloadedError
from rustpbx.journal import Journal
from rustpbx.media.denoise.engine import DENOISERS, Denoiser
from rustpbx.media.denoise.rnnoise import Cleaned
from rustpbx.media.events import DenoiseFailed, Pcm
from rustpbx.media.plane.bank import KEPT, Bank
from rustpbx.media.plane.leg import Leg
from rustpbx.media.plane.stages import FRAME, Samples, Slots
from rustpbx.shell.offload import Offload

log = Journal(__name__)

LAG = 2
"""Ticks that a thread has for a frame: 40 ms."""

DELAY = LAG + 1
"""Frames that a leg is heard later for it: the network's own delay is one more."""

REST = 50
"""Ticks for which a leg whose frame was late is not cleaned."""

ENGINE = "rnnoise"


@attrs.define(eq=False)
class Member:
    """A leg that is cleaned. `since` is the first tick of the running stream, `tick` the latest one."""

    leg: Leg
    rate: int = 0
    stream: Any = None
    since: int = 0
    tick: int = -1
    rests_until: int = 0
    raw: deque[Cleaned] = attrs.field(factory=lambda: deque(maxlen=DELAY + 1))
    done: dict[int, Cleaned] = attrs.field(factory=dict)
    heard: Cleaned | None = None  # what the leg heard in the latest tick

    def begin(self, stream: Any, rate: int, tick: int) -> None:
        """Another stream: the leg is heard for the first time, after a pause, or at another rate."""
        self.stream, self.rate, self.since = stream, rate, tick
        self.raw.clear()
        self.done.clear()


@attrs.frozen(eq=False)
class Batch:
    """A frame of each of n legs, at its own rate; the streams are those that the frames belong to."""

    tick: int
    members: Sequence[Member]
    streams: Sequence[Any]
    frames: Sequence[Pcm]


class Denoising:
    """The legs among the bank's that are cleaned."""

    def __init__(self, bank: Bank, counters: Counter[str], offload: Offload) -> None:
        self._bank = bank
        self._counters = counters
        self._offload = offload
        self._engine: Denoiser | None = None
        self._loaded = False
        self._members: dict[int, Member] = {}
        self._joined = np.zeros(bank.slots, np.bool_)
        self._batches: deque[Batch] = deque()
        self._woken = trio.Event()
        self._relieved = 0  # the tick from which on it shows whether less is still too much

    # -- for the tick

    @property
    def wanted(self) -> bool:
        """Whether anybody asked."""
        return bool(self._members)

    def join(self, leg: Leg) -> None:
        """Clean what this leg says from now on; the second time it changes nothing."""
        if leg.slot in self._members:
            return
        if self._engine is None:
            self._engine = DENOISERS[ENGINE]()
        self._members[leg.slot] = Member(leg)
        self._joined[leg.slot] = True
        self._bank.lag[leg.slot] = DELAY
        self._woken.set()

    def leave(self, slot: int) -> None:
        """Leave what it says as it is; nothing of it is kept."""
        if self._members.pop(slot, None) is not None:
            self._joined[slot] = False
            self._bank.lag[slot] = 0

    def before(self, slots: Slots, kept: Samples) -> Samples:
        """What these legs said before this tick, to conceal a gap with: `kept` (n, 160), but as it came."""
        for row in np.flatnonzero(self._joined[slots]).tolist():
            raw = self._members[int(slots[row])].raw
            kept[row] = raw[-1].narrow if raw else 0
        return kept

    def clean(self, slots: Slots, frames: Samples) -> None:
        """Put what is due now in place of these frames (n, 160), and of the wide ones that there are."""
        members = [(row, self._members[int(slots[row])]) for row in np.flatnonzero(self._joined[slots]).tolist()]
        fresh = [member for row, member in members if self._take(member, frames[row])]
        batch = [member for member in fresh if self._bank.tick >= member.rests_until]
        if batch:
            sounds = [_at_rate(member.raw[-1]) for member in batch]
            self._wait(Batch(self._bank.tick, batch, [member.stream for member in batch], sounds))
        self._replace(fresh)
        for row, member in members:
            assert member.heard is not None  # noqa: S101 - it was replaced above, or earlier in this tick
            frames[row] = member.heard.narrow
            if member.heard.wide is not None:
                self._bank.coders[member.leg.slot].heard[self._bank.tick % KEPT] = member.heard.wide

    def _take(self, member: Member, narrow: Pcm) -> bool:
        """Keep a frame as it came; False if this tick's is there already, and the step is run again."""
        assert self._engine is not None  # noqa: S101 - made for the first member
        tick, coded = self._bank.tick, member.leg.coded
        if member.tick == tick:
            return False
        rate = 8000 if coded is None else 16000
        if member.tick != tick - 1 or member.rate != rate:
            member.begin(self._engine.open(rate), rate, tick)
        member.tick = tick
        member.raw.append(Cleaned(narrow.copy(), None if coded is None else coded.heard[tick % KEPT].copy()))
        return True

    def _replace(self, members: Sequence[Member]) -> None:
        """What each of these hears in this tick."""
        due, late = self._bank.tick - LAG, []
        for member in members:
            done = member.done.pop(due, None)
            if done is None:
                done = member.raw[0] if len(member.raw) > DELAY else _silence(member.rate)
                if due >= max(member.since, member.rests_until):
                    late.append(member)
            member.heard = done
        if late and self._loaded:
            self._counters["denoise_frames_late"] += len(late)
            if self._bank.tick >= self._relieved:
                self._relieved = self._bank.tick + DELAY
                for member in late[::2]:
                    member.rests_until = self._bank.tick + REST

    def _wait(self, batch: Batch) -> None:
        self._batches.append(batch)
        while self._stale(self._batches[0]):
            self._batches.popleft()
        self._woken.set()

    def _stale(self, batch: Batch) -> bool:
        """Whether what becomes of it would be too late for the next tick."""
        return batch.tick + LAG <= self._bank.tick

    # -- beside it

    async def run(self) -> None:
        """Have the batches cleaned until cancelled, whatever happens to one of them."""
        while True:
            await self._woken.wait()
            self._woken = trio.Event()
            try:
                await self._work()
            except OverloadedError:
                self._counters["denoise_batches_refused"] += 1
                self._batches.clear()  # the next tick's frames are another try
            except Exception:  # every later batch hangs on this task: it reports and goes on
                self._batches.clear()
                self._counters["denoise_batches_failed"] += 1
                if self._counters["denoise_batches_failed"] & (self._counters["denoise_batches_failed"] - 1) == 0:
                    log.exception("noise suppression failed (%d so far)", self._counters["denoise_batches_failed"])

    async def _work(self) -> None:
        engine = self._engine
        assert engine is not None  # noqa: S101 - there are members, or were
        if not self._loaded and not await self._load(engine):
            return
        while self._batches:
            batch = self._batches.popleft()
            if not self._stale(batch) and any(map(self._current, batch.members)):
                self._apply(batch, await self._offload.thread(partial(work, engine, batch)))

    async def _load(self, engine: Denoiser) -> bool:
        """Load the engine; if that cannot be done, its legs are told and left as they are."""
        try:
            await self._offload.thread(engine.load)
        except OverloadedError:
            raise
        except Exception as error:  # noqa: BLE001 - a library's own errors have no common base
            log.warning("noise suppression cannot be had: %s", _problem(error))
            self._batches.clear()
            for member in list(self._members.values()):
                self._fail(member, error)
            return False
        self._loaded = True
        for member in self._members.values():
            member.since = max(member.since, self._bank.tick + 1)  # nothing before was late: there was nobody to do it
        return True

    def _current(self, member: Member) -> bool:
        return self._members.get(member.leg.slot) is member

    def _fail(self, member: Member, error: Exception) -> None:
        self.leave(member.leg.slot)
        member.leg.tell(DenoiseFailed(member.leg.name, _problem(error)))

    def _apply(self, batch: Batch, results: Sequence[Cleaned | Exception]) -> None:
        for member, stream, result in zip(batch.members, batch.streams, results, strict=True):
            if not self._current(member) or member.stream is not stream:
                continue
            if isinstance(result, Exception):
                self._fail(member, result)
            elif not self._stale(batch):
                member.done[batch.tick] = result


def work(engine: Denoiser, batch: Batch) -> Sequence[Cleaned | Exception]:
    """Clean a batch, and if that raises, each of its frames alone. Runs in a thread."""
    try:
        return engine.clean(batch.streams, batch.frames)
    except Exception:  # noqa: BLE001 - the leg at fault is found below
        return [_alone(engine, stream, frame) for stream, frame in zip(batch.streams, batch.frames, strict=True)]


def _alone(engine: Denoiser, stream: Any, frame: Pcm) -> Cleaned | Exception:
    try:
        return engine.clean([stream], [frame])[0]
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this leg's alone
        return error


def _at_rate(raw: Cleaned) -> Pcm:
    return raw.narrow if raw.wide is None else raw.wide


def _silence(rate: int) -> Cleaned:
    wide = np.zeros(2 * FRAME, np.int16) if rate == 2 * 8000 else None
    return Cleaned(np.zeros(FRAME, np.int16), wide)


def _problem(error: Exception) -> str:
    return str(error) if isinstance(error, MediaError) else f"{type(error).__name__}: {error}"
