"""`Recorder`: the recordings of all calls. One task collects what the plane's taps hold, and threads write it.

A recording ends by itself when its leg is closed. The tick never waits for it: a tap holds ten seconds of audio, and
then drops its oldest; what was dropped is silence in the file, everything after it at its place, and the recording is
marked incomplete.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import attrs
import av
import numpy as np
import trio

from rustpbx.errors import MediaError, OverloadedError, RustpbxError
from rustpbx.journal import Journal
from rustpbx.media.events import Pcm
from rustpbx.media.plane.plane import Plane
from rustpbx.media.plane.tap import RATE, Tap
from rustpbx.media.recording.names import Format
from rustpbx.media.recording.shell.encoding import encode_file
from rustpbx.media.recording.shell.file import RecordingFile
from rustpbx.media.recording.timeline import LEFT, RIGHT, Timeline
from rustpbx.shell.clock import Clock
from rustpbx.shell.offload import Offload

log = Journal(__name__)

POOL = "encode"
"""The pool of worker processes that encode."""

STEP = 0.1
"""Seconds between two collections; each looks at those recordings whose period is over."""

HELD = 10.0
"""Seconds of audio that may wait for a disk."""

SHORTEST_BLOCK, LONGEST_BLOCK = 0.02, 0.2
"""Seconds of a tap's block. The jitter buffer's delay may change in a block, and its audio has one time."""


@attrs.frozen(kw_only=True)
class RecordingWish:
    """What shall be recorded: both sides of `leg` into `stem` (`names.stem`) below the folder.

    `rate` in Hz, `period` in seconds between two writes.
    """

    leg: str
    stem: str
    kind: Format
    rate: int = RATE
    period: float = 0.2


@attrs.frozen(kw_only=True)
class Recorded:
    """A recording that is done: its file and that file's bytes, the seconds it lasts, what went wrong or ""."""

    path: str
    size: int
    seconds: float
    problem: str = ""


class Recording:
    """One recording, as its call sees it: `done` is set when its file is as it stays, `result` then says what it is."""

    def __init__(self, wish: RecordingWish, file: RecordingFile, taps: tuple[Tap, Tap], start: float) -> None:
        self.wish = wish
        self.file = file
        self.done = trio.Event()
        self.result: Recorded | None = None
        self.problem = ""
        self.due = start
        self._taps = taps
        self._timeline = Timeline(RATE, start)
        self._resampler: av.AudioResampler | None = None
        if wish.rate != RATE:
            self._resampler = av.AudioResampler("s16", "stereo", wish.rate)

    @property
    def seconds(self) -> float:
        """How long what has come lasts."""
        return self._timeline.end / RATE

    def collect(self) -> tuple[bytes, bool]:
        """What can be written now, as s16le stereo at the wish's rate, and whether that is the last of it."""
        over = [self._drain(channel, tap) for channel, tap in ((LEFT, self._taps[0]), (RIGHT, self._taps[1]))]
        pcm = self._timeline.take(all_of_it=all(over))
        return self._resampled(pcm, last=all(over)).astype("<i2", copy=False).tobytes(), all(over)

    def stop(self) -> None:
        """Listen no more."""
        for tap in self._taps:
            tap.close()

    def missing(self) -> str:
        """What is not in the recording though it was said, or ""."""
        seconds = sum(tap.dropped * tap.frames for tap in self._taps) * 0.02 + self._timeline.lost / RATE
        return f"{seconds:.2f} s of audio are silence: the disk was too slow" if seconds else ""

    def _drain(self, channel: int, tap: Tap) -> bool:
        while True:
            try:
                self._timeline.place(channel, tap.blocks.receive_nowait())
            except trio.WouldBlock:
                return False
            except trio.EndOfChannel:
                return True

    def _resampled(self, pcm: Pcm, *, last: bool) -> Pcm:
        if self._resampler is None:
            return pcm
        frames: list[av.AudioFrame] = []
        if pcm.size:
            frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="stereo")
            frame.sample_rate = RATE
            frames += self._resampler.resample(frame)
        if last and self._timeline.end:
            frames += self._resampler.resample(None)
        return np.concatenate([np.zeros(0, np.int16), *(frame.to_ndarray()[0] for frame in frames)])


_Batch = list[tuple[Recording, bytes]]


class Recorder:
    """All recordings of a server, in `folder`. `run` is the task that writes them; the rest is synchronous."""

    def __init__(self, plane: Plane, offload: Offload, clock: Clock, folder: str) -> None:
        self.folder = folder
        self._plane = plane
        self._offload = offload
        self._clock = clock
        self._open: dict[Recording, Callable[[str], None]] = {}
        self._unfinished = 0
        self._wanted = trio.Event()
        self._idle = trio.Event()
        self._idle.set()

    @property
    def unfinished(self) -> int:
        """Recordings that are running, or being encoded."""
        return self._unfinished

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is recorded until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await self._wanted.wait()
                await self._step(nursery)
                if not self._open:
                    self._wanted = trio.Event()
                await trio.sleep(STEP)

    async def finished(self) -> None:
        """Wait until no recording is running or being encoded."""
        await self._idle.wait()

    def record(self, wish: RecordingWish, fail: Callable[[str], None]) -> Recording:
        """Record a leg from now on. `fail` is told if that goes wrong later: the recording ends there, the call not.

        Raises `MediaError` if there is no such leg, or no recording at that rate.
        """
        if not 8000 <= wish.rate <= 48000:
            raise MediaError(f"a recording has 8000 to 48000 samples a second, not {wish.rate}")
        block = min(max(wish.period, SHORTEST_BLOCK), LONGEST_BLOCK)
        capacity = round(HELD / block)
        heard = self._plane.tap(wish.leg, seconds=block, capacity=capacity)
        played = self._plane.tap(wish.leg, seconds=block, capacity=capacity, played=True)
        file = RecordingFile(self.folder, wish.stem, wish.kind, wish.rate)
        recording = Recording(wish, file, (heard, played), self._clock.now())
        self._open[recording] = fail
        self._unfinished += 1
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._wanted.set()
        return recording

    async def _step(self, nursery: trio.Nursery) -> None:
        """Write what is due; those that are over go on to be encoded."""
        now = self._clock.now()
        batch: _Batch = []
        over: list[Recording] = []
        for recording in list(self._open):
            if recording.due > now:
                continue
            recording.due = now + recording.wish.period
            data, last = recording.collect()
            batch.append((recording, data))
            if last:
                over.append(recording)
            await trio.lowlevel.checkpoint()  # a hundred of them are not one piece of work
        if batch:
            await self._write(batch)
        for recording in over:
            if self._open.pop(recording, None) is not None:
                nursery.start_soon(self._finish, recording)

    async def _write(self, batch: _Batch) -> None:
        while True:
            try:
                problems = await self._offload.thread(partial(_write_all, batch))
            except OverloadedError:
                await trio.sleep(STEP)  # the taps hold what comes meanwhile
            else:
                break
        for recording, problem in problems:
            recording.problem = problem
            recording.stop()
            log.error("a recording ends early: %s", problem, call=recording.wish.leg)
            self._open[recording](f"the recording ends here: {problem}")

    async def _finish(self, recording: Recording) -> None:
        """Close the file, have it encoded, and tell what it is."""
        try:
            recording.result = await self._completed(recording)
        except Exception:
            log.exception("a recording could not be finished", call=recording.wish.leg)
        finally:
            recording.done.set()
            self._unfinished -= 1
            if not self._unfinished:
                self._idle.set()

    async def _completed(self, recording: Recording) -> Recorded:
        file, wish = recording.file, recording.wish
        problem = recording.problem or recording.missing()
        path, size = file.path, await self._offload.thread(partial(_close, file))
        if wish.kind != "wav" and size:
            try:
                job = (str(file.path), str(file.target), wish.kind, wish.rate)
                size = await self._offload.worker(POOL, encode_file, *job)
                path = file.target
            except (RustpbxError, OSError) as error:
                log.warning("%s stays a WAV file: %s", file.path, error, call=wish.leg)
                problem = "; ".join(filter(None, (problem, f"it could not be encoded: {error}")))
        return Recorded(path=str(path), size=size, seconds=round(recording.seconds, 3), problem=problem)


def _write_all(batch: _Batch) -> list[tuple[Recording, str]]:
    """Write each recording's data in a thread; those that could not be written, and why."""
    problems = []
    for recording, data in batch:
        if not recording.problem:
            try:
                recording.file.write(data)
            except (OSError, MediaError) as error:
                problems.append((recording, str(error)))
    return problems


def _close(file: RecordingFile) -> int:
    """The bytes of the file, which is complete now; 0 if there is none."""
    with suppress(OSError):
        file.close()
    try:
        return file.path.stat().st_size if file.made else 0
    except OSError:
        return 0
