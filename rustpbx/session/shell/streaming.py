"""A playback of one text that is still being written: all its pieces go down one stream of a speech service."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import Pcm
from rustpbx.media.plane.source import Source
from rustpbx.session.backlog import MAX_ENTRIES
from rustpbx.session.effects import (
    Entry,
    EntryFailed,
    EntrySounding,
    EntrySynthesized,
    EntryWritten,
    TrackDry,
    TrackFinishing,
    TrackSounding,
    TrackStopped,
)
from rustpbx.session.options import SynthesisOption
from rustpbx.session.shell.services import Services
from rustpbx.session.shell.synthesis import AHEAD, Meter, provider, sender, synthesizer_options, voice
from rustpbx.session.shell.track import Playing, Report
from rustpbx.speech.base import SpeechChunk
from rustpbx.speech.registry import make_streaming_synthesizer
from rustpbx.speech.socket import first_error
from rustpbx.speech.text import without_emoji

STALL = 10.0
"""Seconds that the first audio of a stream may take, and after the last text all that is still to come."""


class StreamedPlayback(Playing):
    """Pieces of text in the first one's voice. A stream that fails is told once, and the next piece begins another."""

    def __init__(self, leg: str, generation: int, services: Services, report: Report) -> None:
        super().__init__(leg, generation, services, report)
        # The call caps what waits at MAX_ENTRIES pieces, so this channel cannot be full.
        self._feed, self._entries = trio.open_memory_channel[Entry](MAX_ENTRIES)
        self._next_entry: Entry | None = None
        self._finished = False
        self._news = trio.Event()
        self._stream = _Stream(lambda: None)

    def say(self, entry: Entry) -> None:
        """Queue a piece."""
        self._feed.send_nowait(entry)

    def finish(self) -> None:
        """No more pieces."""
        self._finished = True
        self._feed.close()
        self._expect()

    def finish_entry(self) -> TrackFinishing | TrackStopped:
        """One flow of audio has no entries to finish: it is cut."""
        return self.stop()

    def _patience(self) -> float:
        return STALL if self._finished or not self._stream.sounded else float("inf")

    async def _fill(self, source: Source) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, source)
            while (entry := await self._take()) is not None:
                await self._speak(source, entry.option)
            nursery.cancel_scope.cancel()

    async def _watch(self, source: Source) -> None:
        """Tell whenever all audio so far has been heard, and when there is more after that."""
        await self._news.wait()
        while True:
            self._news = trio.Event()
            await source.dry()
            self._report(TrackDry(self.generation))
            await self._news.wait()
            self._report(TrackSounding(self.generation))

    async def _take(self) -> Entry | None:
        """The next piece, which stays the next one until it is handed over; None after the last."""
        if self._next_entry is None:
            try:
                self._next_entry = await self._entries.receive()
            except trio.EndOfChannel:
                return None
        return self._next_entry

    async def _speak(self, source: Source, option: SynthesisOption) -> None:
        """One stream, until the texts end or it fails."""
        stream = self._stream = _Stream(lambda: self._begins(stream, option))
        send_text, texts = trio.open_memory_channel[str](0)
        send_audio, chunks = trio.open_memory_channel[SpeechChunk](AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hand_over, stream, send_text)
            nursery.start_soon(self._synthesize, stream, option, texts, send_audio, source.rate)
            try:
                while True:
                    chunk = await self._next(source, chunks)
                    self._place(stream, chunk, source.written)
                    await self._write(source, chunk.pcm)
            except trio.EndOfChannel:
                problem = stream.problem
            except trio.TooSlowError:
                problem = SpeechError(f"no audio for {STALL:.0f} s")
            nursery.cancel_scope.cancel()
        if stream.last is None and self._next_entry is not None:
            # Not even the first piece was taken: it would fare no better in another stream, and the one after it may.
            stream.last, self._next_entry = self._next_entry.number, None
        if stream.last is not None:
            self._report(EntryWritten(self.generation, stream.last))
        if problem is not None:
            self._report(EntryFailed(self.generation, sender(option), str(problem), problem.code))
            self._news.set()
        elif stream.first is not None and stream.sounded:
            first, size = stream.first, stream.meter.size
            self._report(EntrySynthesized(self.generation, first.number, provider(option), first.said_at, size))

    def _begins(self, stream: _Stream, option: SynthesisOption) -> None:
        if stream.first is not None:
            first = stream.first
            self._report(EntrySounding(self.generation, first.number, provider(option), first.said_at))

    async def _hand_over(self, stream: _Stream, texts: trio.MemorySendChannel[str]) -> None:
        with texts:
            while (entry := await self._take()) is not None:
                stream.handing(entry)
                try:
                    await texts.send(without_emoji(entry.text))
                except trio.BrokenResourceError:
                    return  # the service takes no more: this piece begins the next stream
                self._next_entry, stream.last = None, entry.number

    async def _synthesize(
        self,
        stream: _Stream,
        option: SynthesisOption,
        texts: trio.MemoryReceiveChannel[str],
        audio: trio.MemorySendChannel[SpeechChunk],
        rate: int,
    ) -> None:
        try:
            with audio, texts, first_error():
                async with trio.open_nursery() as nursery:
                    with stream.meter.before(audio, nursery) as metered:
                        try:
                            synthesizer = make_streaming_synthesizer(synthesizer_options(option), self._services.speech)
                            await synthesizer.stream(texts, voice(option, rate), metered)
                        except SpeechError as problem:  # what came before it is still to be heard
                            stream.problem = problem
        except SpeechError as problem:
            stream.problem = problem

    def _place(self, stream: _Stream, chunk: SpeechChunk, written: int) -> None:
        """Note which piece this audio is of."""
        entry, position = stream.at(chunk.mark)
        if not stream.sounded or entry != self._timeline.entry:
            if stream.sounded:
                self._timeline.end()
            self._timeline.begin(entry, written)
            done = stream.last if entry is None else entry - 1
            if done is not None and done >= 0:
                self._report(EntryWritten(self.generation, done))
        if position is not None:
            self._timeline.mark(position, written)
        stream.sounded = True

    async def _write(self, source: Source, pcm: Pcm) -> None:
        await super()._write(source, pcm)
        self._news.set()


class _Stream:
    """One stream: which pieces it was given, and whether audio has come of them."""

    def __init__(self, begins: Callable[[], None]) -> None:
        self.sounded = False
        self.problem: SpeechError | None = None
        self.meter = Meter(begins)
        self.first: Entry | None = None
        self.last: int | None = None
        """The number of the piece handed over last."""
        self._pieces: deque[tuple[int, int]] = deque()
        self._length = 0

    def handing(self, entry: Entry) -> None:
        """One more piece: its audio may come before `send` has returned."""
        self.first = self.first or entry
        self.meter.characters += len(entry.text)
        self._pieces.append((self._length, entry.number))
        self._length += len(entry.text)

    def at(self, mark: int | None) -> tuple[int | None, int | None]:
        """The piece that the index `mark` of the whole text lies in, and the index within it.

        Marks rise, so pieces before it are forgotten. Without one nothing is known.
        """
        if mark is None or not self._pieces:
            return None, None
        while len(self._pieces) > 1 and self._pieces[1][0] <= mark:
            self._pieces.popleft()
        start, number = self._pieces[0]
        return number, max(0, mark - start)
