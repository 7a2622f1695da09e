"""A playback as a task: one generation of a call's server-side track.

The task opens a source on the plane and fills it; leaving it, by end or by cancellation, stops the source. The methods
are what the call's effects become: they are synchronous, and what they return is true at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import trio

from rustpbx.errors import RustpbxError, SpeechError
from rustpbx.media.codec.resample import Resampler
from rustpbx.media.events import Pcm
from rustpbx.media.plane.source import Source
from rustpbx.session.effects import (
    Entry,
    EntryFailed,
    EntryWritten,
    FileTrack,
    Input,
    SpeakTrack,
    TrackFailed,
    TrackFinishing,
    TrackPlayedOut,
    TrackStopped,
)
from rustpbx.session.options import SynthesisOption
from rustpbx.session.playback import MAX_ENTRIES
from rustpbx.session.shell.services import Services
from rustpbx.session.timeline import Timeline
from rustpbx.speech.base import SpeechChunk, Utterance
from rustpbx.speech.registry import SynthesizerOptions, make_synthesizer

STALL = 10.0
"""Seconds without audio after which an entry is given up."""
AGENT_RATE = 16000
"""Hz of the PCM that an agent sends as base64."""

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

    def stop(self) -> TrackStopped:
        """Send nothing more from now on."""
        ...

    def finish_entry(self) -> TrackFinishing | TrackStopped:
        """Let the entry being spoken end."""
        ...


class _Playing:
    """What both kinds share: the source, the timeline, and being cut."""

    def __init__(self, leg: str, generation: int, services: Services, report: Report) -> None:
        self.generation = generation
        self._leg = leg
        self._services = services
        self._report = report
        self._scope = trio.CancelScope()
        self._timeline = Timeline()
        self._source: Source | None = None

    def stop(self) -> TrackStopped:
        self._scope.cancel()
        if self._source is None:
            return TrackStopped(self.generation, None)
        spoken = self._timeline.at(self._source.played)
        self._source.stop()
        return TrackStopped(self.generation, spoken)

    async def run(self) -> None:
        with self._scope:
            await trio.lowlevel.checkpoint()  # stopped before it began: the leg may be gone
            async with self._services.plane.source(self._leg, self.generation) as source:
                self._source = source
                await self._fill(source)
                source.finish()
                await source.ended()
            self._report(TrackPlayedOut(self.generation))

    async def _fill(self, source: Source) -> None:
        raise NotImplementedError

    async def _write(self, source: Source, pcm: Pcm) -> None:
        await source.write(pcm)
        self._timeline.grow(source.written)


class FilePlayback(_Playing):
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
            self._timeline.begin(0, source.written)
            for at in range(0, len(pcm), second):
                await self._write(source, pcm[at : at + second])
            self._timeline.end()
            if not self._content.loop or not len(pcm):
                return


class SpokenPlayback(_Playing):
    """Utterances in the order they were given, synthesised at most `concurrency` at once."""

    def __init__(self, leg: str, generation: int, content: SpeakTrack, services: Services, report: Report) -> None:
        super().__init__(leg, generation, services, report)
        self._concurrency = content.concurrency
        # The call caps a playback at MAX_ENTRIES utterances, so this channel cannot be full.
        self._feed, self._entries = trio.open_memory_channel[Entry](MAX_ENTRIES)
        self._filling = trio.CancelScope()
        self._last: int | None = None

    def say(self, entry: Entry) -> None:
        """Queue an utterance."""
        self._feed.send_nowait(entry)

    def finish(self) -> None:
        """No more utterances."""
        self._feed.close()

    def finish_entry(self) -> TrackFinishing | TrackStopped:
        """Drop the entries after the one being heard; without one, stop."""
        spoken = None if self._source is None else self._timeline.at(self._source.played)
        if self._source is None or spoken is None:
            return self.stop()
        self._last = spoken.entry
        end = self._timeline.end_of(spoken.entry)
        if end is not None:
            self._filling.cancel()
            self._source.cut(end)
        return TrackFinishing(self.generation, spoken)

    async def _fill(self, source: Source) -> None:
        with self._filling:
            async with trio.open_nursery() as nursery:
                ordered_send, ordered = trio.open_memory_channel[_Synthesis](0)
                nursery.start_soon(self._synthesize_all, ordered_send, source.rate)
                with ordered:
                    async for synthesis in ordered:
                        await self._write_entry(source, synthesis)
                        if synthesis.entry.number == self._last:
                            break
                    # Before `ordered` closes: whoever still sends into it must not take that for an error.
                    nursery.cancel_scope.cancel()

    async def _synthesize_all(self, ordered: trio.MemorySendChannel[_Synthesis], rate: int) -> None:
        limit = trio.CapacityLimiter(self._concurrency)
        with ordered:
            async with trio.open_nursery() as nursery:
                async for entry in self._entries:
                    synthesis = _Synthesis(entry, self._services, rate)
                    await limit.acquire_on_behalf_of(synthesis)
                    nursery.start_soon(synthesis.run, limit)
                    await ordered.send(synthesis)

    async def _write_entry(self, source: Source, synthesis: _Synthesis) -> None:
        self._timeline.begin(synthesis.entry.number, source.written)
        try:
            while True:
                with trio.fail_after(STALL):
                    chunk = await synthesis.chunks.receive()
                await self._write(source, chunk.pcm)
        except trio.EndOfChannel:
            problem = synthesis.problem
        except trio.TooSlowError:
            problem = SpeechError(f"no audio for {STALL:.0f} s")
            synthesis.scope.cancel()
        self._timeline.end()
        self._report(EntryWritten(self.generation, synthesis.entry.number))
        if problem is not None:
            sender = f"tts.{synthesis.provider}"
            self._report(EntryFailed(self.generation, sender, str(problem), problem.code))


class _Synthesis:
    """One entry on its way from text to audio; `problem` is set when its channel ends early."""

    def __init__(self, entry: Entry, services: Services, rate: int) -> None:
        self.entry = entry
        self.problem: SpeechError | None = None
        self.provider = entry.option.provider or "local"
        self.scope = trio.CancelScope()
        # A few chunks ahead of the writer; the source's own spool is the real buffer.
        self._send, self.chunks = trio.open_memory_channel[SpeechChunk](4)
        self._services = services
        self._rate = rate

    async def run(self, limit: trio.CapacityLimiter) -> None:
        try:
            # The channel closes without a checkpoint, which could swallow the exception that closes it.
            with self.scope, self._send:
                if self.entry.pcm is not None:
                    await self._convert(self.entry.pcm)
                else:
                    await self._synthesize()
        finally:
            limit.release_on_behalf_of(self)

    async def _synthesize(self) -> None:
        option = self.entry.option
        try:
            synthesizer = make_synthesizer(_synthesizer_options(option), self._services.speech)
            await synthesizer.synthesize(_utterance(self.entry.text, option, self._rate), self._send)
        except SpeechError as problem:
            self.problem = problem

    async def _convert(self, raw: bytes) -> None:
        """An agent's own PCM, in tenths of a second so that none holds up the loop."""
        samples = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2").astype(np.int16)
        resampler = Resampler(AGENT_RATE, self._rate)
        step = AGENT_RATE // 10
        for at in range(0, len(samples), step):
            await self._send.send(SpeechChunk(resampler.feed(samples[at : at + step]), self._rate))
        await self._send.send(SpeechChunk(resampler.flush(), self._rate))


def _synthesizer_options(option: SynthesisOption) -> SynthesizerOptions:
    return SynthesizerOptions(
        provider=option.provider,
        codec=option.codec or "pcm",
        app_id=option.app_id,
        secret_id=option.secret_id,
        secret_key=option.secret_key,
        endpoint=option.endpoint,
        extra=dict(option.extra or {}),
    )


def _utterance(text: str, option: SynthesisOption, rate: int) -> Utterance:
    return Utterance(
        text=text,
        rate=rate,
        speaker=option.speaker,
        speed=1.0 if option.speed is None else option.speed,
        volume=5 if option.volume is None else option.volume,
        emotion=option.emotion,
    )
