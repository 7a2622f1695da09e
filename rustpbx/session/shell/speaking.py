"""A playback of utterances: each is a request of its own, and all are heard in the order they were given."""

from __future__ import annotations

import attrs
import numpy as np
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.codec.resample import Resampler
from rustpbx.media.plane.source import Source
from rustpbx.session.backlog import MAX_ENTRIES
from rustpbx.session.effects import (
    Entry,
    EntryFailed,
    EntrySounding,
    EntrySynthesized,
    EntryWritten,
    SpeakTrack,
    TrackFinishing,
    TrackStopped,
)
from rustpbx.session.shell.services import Services
from rustpbx.session.shell.synthesis import AHEAD, Meter, provider, sender, synthesizer_options, voice
from rustpbx.session.shell.track import Playing, Report
from rustpbx.speech.base import SpeechChunk, Utterance
from rustpbx.speech.cache import cache_key
from rustpbx.speech.registry import make_synthesizer
from rustpbx.speech.socket import first_error
from rustpbx.speech.text import without_emoji

FIRST = 10.0
"""Seconds that the first audio of an utterance may take once it is its turn."""
STALL = 3.0
"""Seconds that the rest may take once all that came of it has been heard."""
MOST_AT_ONCE = 8
"""Requests of one playback at the same time, whatever the agent asks for."""
AGENT_RATE = 16000
"""Hz of the PCM that an agent sends as base64."""


class SpokenPlayback(Playing):
    """Utterances in the order they were given, synthesised at most `concurrency` at once."""

    def __init__(self, leg: str, generation: int, content: SpeakTrack, services: Services, report: Report) -> None:
        super().__init__(leg, generation, services, report)
        self._concurrency = min(content.concurrency, MOST_AT_ONCE)
        # The call caps what waits at MAX_ENTRIES utterances, so this channel cannot be full.
        self._feed, self._entries = trio.open_memory_channel[Entry](MAX_ENTRIES)
        self._filling = trio.CancelScope()
        self._begun = False
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

    def _patience(self) -> float:
        return STALL if self._begun else FIRST

    async def _fill(self, source: Source) -> None:
        with self._filling:
            async with trio.open_nursery() as nursery:
                ordered_send, ordered = trio.open_memory_channel[_Synthesis](self._concurrency)
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
                    synthesis = _Synthesis(entry, self.generation, self._services, rate, self._report)
                    await limit.acquire_on_behalf_of(synthesis)
                    nursery.start_soon(synthesis.run, limit)
                    await ordered.send(synthesis)

    async def _write_entry(self, source: Source, synthesis: _Synthesis) -> None:
        self._begun = False
        self._timeline.begin(synthesis.entry.number, source.written)
        try:
            while True:
                chunk = await self._next(source, synthesis.chunks)
                self._begun = True
                if chunk.mark is not None:
                    self._timeline.mark(chunk.mark, source.written)
                await self._write(source, chunk.pcm)
        except trio.EndOfChannel:
            problem = synthesis.problem
        except trio.TooSlowError:
            problem = SpeechError(f"no audio for {self._patience():.0f} s")
            synthesis.scope.cancel()
        self._timeline.end()
        self._report(EntryWritten(self.generation, synthesis.entry.number))
        if problem is not None:
            name = sender(synthesis.entry.option)
            self._report(EntryFailed(self.generation, name, str(problem), problem.code))


class _Synthesis:
    """One entry on its way from text to audio; `problem` is set when its channel ends early."""

    def __init__(self, entry: Entry, generation: int, services: Services, rate: int, report: Report) -> None:
        self.entry = entry
        self.problem: SpeechError | None = None
        self.scope = trio.CancelScope()
        self._send, self.chunks = trio.open_memory_channel[SpeechChunk](AHEAD)
        self._services = services
        self._rate = rate
        self._report = report
        self._who = (generation, entry.number, provider(entry.option), entry.said_at)

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
        option, text = self.entry.option, without_emoji(self.entry.text)
        if not text.strip():
            return
        utterance = Utterance(text=text, **attrs.asdict(voice(option, self._rate)))
        meter = Meter(lambda: self._report(EntrySounding(*self._who)), len(text))
        cached = False
        try:
            with first_error():
                async with trio.open_nursery() as nursery:
                    with meter.before(self._send, nursery) as audio:
                        try:
                            cached = await self._say(utterance, audio)
                        except SpeechError as problem:  # what came before it is still to be heard
                            self.problem = problem
        except SpeechError as problem:
            self.problem = problem
        if self.problem is None:
            self._report(EntrySynthesized(*self._who, meter.size, cached, option.speaker))

    async def _say(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> bool:
        """Have it said, unless the server has kept it: whether that was so."""
        options, cache = synthesizer_options(self.entry.option), self._services.speech_cache

        async def ask(audio: trio.MemorySendChannel[SpeechChunk]) -> None:
            await make_synthesizer(options, self._services.speech).synthesize(utterance, audio)

        if cache is None:
            await ask(audio)
            return False
        return await cache.say(cache_key(options, utterance, self.entry.cache_key), self._rate, ask, audio)

    async def _convert(self, raw: bytes) -> None:
        """An agent's own PCM, in tenths of a second so that none holds up the loop."""
        samples = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2").astype(np.int16)
        resampler = Resampler(AGENT_RATE, self._rate)
        step = AGENT_RATE // 10
        for at in range(0, len(samples), step):
            await self._send.send(SpeechChunk(resampler.feed(samples[at : at + step]), self._rate))
        await self._send.send(SpeechChunk(resampler.flush(), self._rate))
