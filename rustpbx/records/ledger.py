"""`Ledger`: a page for each session, on which its commands and events are noted, and what becomes of it at the end."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from rustpbx.control.wire import encode_command, encode_event, encode_json
from rustpbx.errors import OverloadedError
from rustpbx.journal import Journal
from rustpbx.media.recording.names import safe_name
from rustpbx.media.recording.shell.recorder import Recording
from rustpbx.records.record import MediaFile, Told, call_record
from rustpbx.records.sinks import Parcel
from rustpbx.records.spool import Spool
from rustpbx.session.commands import Command
from rustpbx.session.events import Event
from rustpbx.session.params import Ended
from rustpbx.shell.clock import Clock
from rustpbx.shell.offload import Offload

log = Journal(__name__)

PERIOD = 0.5
"""Seconds between two writes of event files."""

UNWRITTEN = 1024 * 1024
"""Characters of a session's events that may wait for the disk; more are dropped, and counted in the log."""

PATIENCE = 1000.0
"""Seconds that a record waits for its recording to be encoded: longer than a worker may take."""


class Page:
    """One session's. All methods are synchronous; `close` is the last one called."""

    def __init__(self, session_id: str, ledger: Ledger) -> None:
        self.session_id = session_id
        self.path: Path | None = None
        self.lines: list[str] = []
        self.told = Told()
        self._ledger = ledger
        self._waiting = 0
        self._dropped = 0

    def dump(self) -> None:
        """Write an event file from now on, if there is a folder for it."""
        self.path = self._ledger.event_file(self.session_id)

    def note_command(self, command: Command) -> None:
        """The agent gave a command."""
        if self.path is not None:
            self._write("command", encode_command(command))

    def note_event(self, event: Event) -> None:
        """The session told an event."""
        self.told.note(event)
        if self.path is not None:
            with suppress(TypeError, ValueError):  # what cannot be JSON is logged by the socket
                self._write("event", encode_event(event))

    def close(self, ended: Ended, recording: Recording | None) -> None:
        """The session is over: its record is made, and its last lines are written."""
        if self._dropped:
            log.warning(
                "%d lines of its event file are lost: the disk was too slow", self._dropped, call=self.session_id
            )
        self._ledger.close(self, ended, recording)

    def take(self) -> str:
        """The lines that are not written yet."""
        text, self.lines, self._waiting = "".join(self.lines), [], 0
        return text

    def _write(self, kind: str, content: str) -> None:
        line = encode_json({"type": kind, "timestamp": self._ledger.wall(), "content": content}) + "\n"
        if self._waiting + len(line) > UNWRITTEN:
            self._dropped += 1
            return
        self._waiting += len(line)
        self.lines.append(line)
        self._ledger.mark(self)


class Ledger:
    """All pages of a server. `folder` is that of event files, "" for none; without a `spool` there are no records."""

    def __init__(self, offload: Offload, clock: Clock, folder: str, spool: Spool | None) -> None:
        self.spool = spool
        self._offload = offload
        self._clock = clock
        self._folder = folder
        self._marked: dict[Page, None] = {}
        self._news = trio.Event()
        self._writing = trio.Lock()
        self._closing = 0
        self._quiet = trio.Event()
        self._quiet.set()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is noted until cancelled."""
        async with trio.open_nursery() as self._nursery:
            if self.spool is not None:
                await self._nursery.start(self.spool.run)
            task_status.started()
            while True:
                await self._news.wait()
                self._news = trio.Event()
                await self._flush()
                await trio.sleep(PERIOD)

    async def finished(self) -> None:
        """Wait until the records of all sessions that are over are on the disk, and have been tried once."""
        await self._quiet.wait()
        if self.spool is not None:
            await self.spool.settled()

    def open(self, session_id: str) -> Page:
        """A page for a new session."""
        return Page(session_id, self)

    # -- for pages

    def wall(self) -> int:
        """Epoch milliseconds."""
        return self._clock.wall(self._clock.now())

    def event_file(self, session_id: str) -> Path | None:
        """Where its events go."""
        return Path(self._folder) / f"{safe_name(session_id)}.events.jsonl" if self._folder else None

    def mark(self, page: Page) -> None:
        """There is something to write."""
        self._marked[page] = None
        self._news.set()

    def close(self, page: Page, ended: Ended, recording: Recording | None) -> None:
        """Finish a page; the server's shutdown waits for it."""
        if self._nursery is None:
            return
        self._closing += 1
        self._quiet = trio.Event() if self._quiet.is_set() else self._quiet
        self._nursery.start_soon(self._finish, page, ended, recording)

    async def _finish(self, page: Page, ended: Ended, recording: Recording | None) -> None:
        try:
            with trio.move_on_after(PATIENCE):
                if recording is not None:
                    await recording.done.wait()
            await self._flush()
            if self.spool is not None and page.told.end is not None:
                media, dump = _media_of(ended.session_id, recording), await self._dump_of(page)
                record = call_record(ended, page.told, media, dump)
                await self.spool.put(Parcel(record=record, media=media, dump=dump))
        except Exception:
            log.exception("its call record could not be made", call=ended.session_id)
        finally:
            self._closing -= 1
            if not self._closing:
                self._quiet.set()

    async def _dump_of(self, page: Page) -> str | None:
        there = page.path is not None and await self._offload.thread(page.path.exists)
        return str(page.path) if there else None

    async def _flush(self) -> None:
        """Append what waits to the event files, all of them in one go."""
        async with self._writing:  # lines stay in order
            pages, self._marked = list(self._marked), {}
            texts = [(page.path, page.take()) for page in pages if page.path is not None]
            if not texts:
                return
            try:
                problems = await self._offload.thread(partial(_append_all, texts))
            except OverloadedError as error:
                problems = [str(error)]
        for problem in problems:
            log.warning("an event file misses lines: %s", problem)


def _media_of(session_id: str, recording: Recording | None) -> tuple[MediaFile, ...]:
    result = None if recording is None else recording.result
    if result is None or not result.size:
        return ()
    extra = {"problem": result.problem} if result.problem else None
    return (MediaFile(track=session_id, path=result.path, size=result.size, extra=extra),)


def _append_all(texts: list[tuple[Path, str]]) -> list[str]:
    problems = []
    for path, text in texts:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            problems.append(f"{path}: {error}")
    return problems
