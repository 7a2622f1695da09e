"""Records on their way: each waits in a file of its own until its sink has taken it, however long that is away.

What a server leaves behind in its folder when it stops, or is killed, is sent by the next one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from rustpbx.errors import OverloadedError
from rustpbx.journal import Journal
from rustpbx.records.record import MediaFile, file_name
from rustpbx.records.sinks import Parcel, Sink, SinkError
from rustpbx.shell.clock import Clock
from rustpbx.shell.offload import Offload

log = Journal(__name__)

SUFFIX, PART = ".json", ".part"

FIRST_REST, LONGEST_REST = 1.0, 300.0
"""Seconds before a record is tried again; twice as long after each failure."""

AT_ONCE = 4
"""Records that are sent at one time."""

TIME = 120.0
"""Seconds that one attempt may take, its recordings included."""


@attrs.define(eq=False)
class _Waiting:
    """A record that is on its way. `path` is its file, None where the disk would not take it."""

    parcel: Parcel
    path: Path | None
    due: float
    rest: float = FIRST_REST
    under_way: bool = False


class Spool:
    """Delivers parcels to a sink. `run` is its task; `keep_media` False deletes recordings that have arrived."""

    def __init__(self, sink: Sink, offload: Offload, clock: Clock, folder: str, *, keep_media: bool = True) -> None:
        self._sink = sink
        self._offload = offload
        self._clock = clock
        self._folder = Path(folder)
        self._keep_media = keep_media
        self._waiting: list[_Waiting] = []
        self._news = trio.Event()
        self.delivered = 0
        self.failures = 0

    @property
    def waiting(self) -> int:
        """Records that have not arrived yet."""
        return len(self._waiting)

    async def put(self, parcel: Parcel) -> None:
        """Keep a record until it has arrived; returns when it is on the disk."""
        path: Path | None = self._folder / file_name(parcel.record)
        try:
            path = await self._offload.thread(partial(_write, self._folder, parcel))
        except (OSError, OverloadedError) as error:
            log.error("a call record waits in memory only: %s", error, call=parcel.call)  # noqa: TRY400 - a full disk
            path = None
        self._waiting.append(_Waiting(parcel, path, self._clock.now()))
        self._wake()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver what is there, and what comes, until cancelled."""
        with suppress(OSError):
            for path, parcel in await self._offload.thread(partial(_read_all, self._folder)):
                self._waiting.append(_Waiting(parcel, path, self._clock.now()))
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                news = self._news
                busy = sum(one.under_way for one in self._waiting)
                due = [one for one in self._waiting if not one.under_way and one.due <= self._clock.now()]
                for one in due[: AT_ONCE - busy]:
                    one.under_way = True
                    nursery.start_soon(self._deliver, one)
                rests = [one.due for one in self._waiting if not one.under_way and one.due > self._clock.now()]
                with trio.move_on_after(max(0.0, min(rests, default=float("inf")) - self._clock.now())):
                    await news.wait()

    async def settled(self) -> None:
        """Wait until every record that waits has been tried once, or has arrived."""
        while any(one.rest == FIRST_REST for one in self._waiting):
            await self._news.wait()

    async def _deliver(self, one: _Waiting) -> None:
        problem = f"no answer within {TIME:g} s"
        arrived = False
        with trio.move_on_after(TIME):
            try:
                await self._sink.deliver(one.parcel)
                arrived = True
            except (SinkError, OSError, OverloadedError) as error:
                problem = str(error) or type(error).__name__
        one.under_way = False
        if arrived:
            self.delivered += 1
            self._waiting.remove(one)
            await self._offload.thread(partial(_forget, one.path, () if self._keep_media else one.parcel.files))
        else:
            self.failures += 1
            one.due = self._clock.now() + one.rest
            one.rest = min(2 * one.rest, LONGEST_REST)
            log.warning("a call record is tried again: %s", problem, call=one.parcel.call)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


def _write(folder: Path, parcel: Parcel) -> Path:
    """A whole file, or none: written beside its place and renamed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / file_name(parcel.record)
    content = {"record": parcel.record, "media": [attrs.asdict(file) for file in parcel.media], "dump": parcel.dump}
    part = path.with_suffix(PART)
    with part.open("w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path


def _read_all(folder: Path) -> list[tuple[Path, Parcel]]:
    """What an earlier server could not deliver; a file that is none of ours stays where it is."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            content: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
            found.append((path, _parcel(content)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s is not a call record that waits: %s", path, error)
    return found


def _parcel(content: Mapping[str, object]) -> Parcel:
    record, media, dump = content["record"], content["media"], content["dump"]
    if not isinstance(record, dict) or not isinstance(media, list) or not isinstance(dump, str | None):
        raise TypeError("not in our form")
    file_name(record)  # a record has its time and its call
    return Parcel(record=record, media=tuple(MediaFile(**file) for file in media), dump=dump)


def _forget(path: Path | None, files: tuple[str, ...]) -> None:
    for name in (*files, *((path,) if path else ())):
        with suppress(OSError):
            Path(name).unlink()
