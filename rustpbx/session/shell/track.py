"""A playback as a task: one generation of a call's server-side track.

The task opens a source on the plane and fills it; leaving it, by end or by cancellation, stops the source. The methods
are what the call's effects become: they are synchronous, and what they return is true at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import trio

from rustpbx.errors import RustpbxError
from rustpbx.media.events import Pcm
from rustpbx.media.plane.source import Source
from rustpbx.session.effects import (
    Entry,
    FileTrack,
    Input,
    TrackBegun,
    TrackFailed,
    TrackFinishing,
    TrackPlayedOut,
    TrackStopped,
)
from rustpbx.session.shell.services import Services
from rustpbx.session.timeline import Timeline
from rustpbx.speech.base import SpeechChunk

PART_OF_A_FRAME = 20
"""Milliseconds that may be left unsent, waiting for the rest of their frame, when all has been heard."""

Report = Callable[[Input], None]


class Track(Protocol):
    """What the call's shell does with a playback."""

    async def run(self) -> None:
        """Play; return when played out or stopped."""
        ...

    def say(self, entry: Entry) -> None:
        """Add an utterance."""
        ...

    def finish(self) -> None:
        """Nothing more will be added."""
        ...

    def pause(self) -> None:
        """Send nothing for a while, and lose nothing."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...

    def stop(self) -> TrackStopped:
        """Send nothing more from now on."""
        ...

    def finish_entry(self) -> TrackFinishing | TrackStopped:
        """Let the entry being spoken end."""
        ...


class Playing:
    """What all kinds share: the source, the timeline, the patience with who fills it, being paused and being cut."""

    def __init__(self, leg: str, generation: int, services: Services, report: Report) -> None:
        self.generation = generation
        self._leg = leg
        self._services = services
        self._report = report
        self._scope = trio.CancelScope()
        self._timeline = Timeline()
        self._source: Source | None = None
        self._paused = False
        self._waiting = trio.CancelScope()

    def pause(self) -> None:
        """Hold what plays; a playback whose source is not there yet begins held."""
        self._paused = True
        if self._source is not None:
            self._source.pause()
        self._expect()

    def resume(self) -> None:
        """Go on."""
        self._paused = False
        if self._source is not None:
            self._source.resume()
        self._expect()

    def stop(self) -> TrackStopped:
        """Cut it, and tell what was heard of it."""
        self._scope.cancel()
        if self._source is None:
            return TrackStopped(self.generation, None)
        spoken = self._timeline.at(self._source.played)
        self._source.stop()
        return TrackStopped(self.generation, spoken)

    async def run(self) -> None:
        """Hold a source until all is played or it is cut."""
        with self._scope:
            await trio.lowlevel.checkpoint()  # stopped before it began: the leg may be gone
            async with self._services.plane.source(self._leg, self.generation) as source:
                self._source = source
                if self._paused:
                    source.pause()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tell_begin, source)
                    await self._fill(source)
                    source.finish()
                    await source.ended()
                    nursery.cancel_scope.cancel()
            self._report(TrackPlayedOut(self.generation))

    async def _tell_begin(self, source: Source) -> None:
        await source.begun()
        if source.played:
            self._report(TrackBegun(self.generation))

    async def _fill(self, source: Source) -> None:
        raise NotImplementedError

    async def _write(self, source: Source, pcm: Pcm) -> None:
        await source.write(pcm)
        self._timeline.grow(source.written)

    # -- waiting for audio

    def _patience(self) -> float:
        """Seconds that the next audio may take once all before it has been heard."""
        raise NotImplementedError

    def _expect(self) -> None:
        """When what is waited for is late: anew, since it changes with pause and `finish`."""
        if self._paused or self._source is None:
            self._waiting.deadline = float("inf")
        else:
            unheard = (self._source.written - self._source.played) / 1000
            self._waiting.deadline = trio.current_time() + unheard + self._patience()

    async def _next(self, source: Source, chunks: trio.MemoryReceiveChannel[SpeechChunk]) -> SpeechChunk:
        """The next chunk. Raises EndOfChannel after the last one, TooSlowError when patience ends."""
        while True:
            with trio.CancelScope() as self._waiting:
                self._expect()
                return await chunks.receive()
            if source.written - source.played < PART_OF_A_FRAME:
                raise trio.TooSlowError  # else the phone was on hold meanwhile


class FilePlayback(Playing):
    """One file, once or in a loop."""

    def __init__(self, leg: str, generation: int, content: FileTrack, services: Services, report: Report) -> None:
        super().__init__(leg, generation, services, report)
        self._content = content

    def say(self, entry: Entry) -> None:
        """A file has no utterances."""

    def finish(self) -> None:
        """A file ends by itself."""

    def finish_entry(self) -> TrackFinishing | TrackStopped:
        """A file has no entries: it is cut."""
        return self.stop()

    def _patience(self) -> float:
        return float("inf")  # the fetcher has its own limits

    async def _fill(self, source: Source) -> None:
        try:
            pcm = await self._services.fetcher.fetch(self._content.url, source.rate)
        except RustpbxError as problem:
            self._scope.cancel()
            self._report(TrackFailed(self.generation, str(problem)))
            return
        second = source.rate
        if self._content.loop and 0 < len(pcm) < second:  # a click a round would be a round for every click
            pcm = np.tile(pcm, second // len(pcm))
        while True:
            self._timeline.begin(None, source.written, len(pcm) * 1000 // source.rate)
            for at in range(0, len(pcm), second):
                await self._write(source, pcm[at : at + second])
            self._timeline.end()
            if not self._content.loop or not len(pcm):
                return
