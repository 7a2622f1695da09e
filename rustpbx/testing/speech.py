"""Scripted speech services: no models, no network, the same every time."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterable

import attrs
import numpy as np
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance

CHUNK = 0.1  # seconds


def tone(seconds: float, *, rate: int = 8000, hertz: float = 440.0, amplitude: int = 8000) -> Pcm:
    """A sine, int16, shape (seconds * rate,)."""
    times = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * math.pi * hertz * times)).astype(np.int16)


def spoken(text: str, *, rate: int, seconds_per_character: float = 0.05, volume: int = 5, speed: float = 1.0) -> Pcm:
    """What `ScriptedSynthesizer` says for `text`: a tone whose pitch belongs to the text."""
    hertz = 300 + zlib.crc32(text.encode()) % 1000
    seconds = len(text) * seconds_per_character / speed
    return tone(seconds, rate=rate, hertz=hertz, amplitude=1600 * volume)


@attrs.define(kw_only=True)
class ScriptedSynthesizer:
    """Says each text as a tone of `seconds_per_character`, in chunks of 0.1 s, and notes it in `said`.

    `delay` seconds pass before the first chunk. Texts in `failures` raise that `SpeechError` after `fail_after`
    seconds of audio.
    """

    seconds_per_character: float = 0.05
    delay: float = 0.0
    failures: dict[str, SpeechError] = attrs.field(factory=dict)
    fail_after: float = 0.0
    said: list[Utterance] = attrs.field(factory=list)

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Send the tone of the text; see `rustpbx.speech.base.Synthesizer`."""
        self.said.append(utterance)
        await trio.sleep(self.delay)
        pcm = self.pcm(utterance)
        failure = self.failures.get(utterance.text)
        if failure is not None:
            pcm = pcm[: round(self.fail_after * utterance.rate)]
        size = round(CHUNK * utterance.rate)
        for start in range(0, len(pcm), size):
            mark = round(len(utterance.text) * start / max(1, len(pcm)))
            await audio.send(SpeechChunk(pcm[start : start + size], utterance.rate, mark))
        if failure is not None:
            raise failure

    def pcm(self, utterance: Utterance) -> Pcm:
        """All the audio of an utterance."""
        return spoken(
            utterance.text,
            rate=utterance.rate,
            seconds_per_character=self.seconds_per_character,
            volume=utterance.volume,
            speed=utterance.speed,
        )


def _queue(texts: Iterable[str]) -> deque[str]:
    return deque(texts)


@attrs.define
class ScriptedRecognizer:
    """Hears `script`: the n-th stretch of sound is its n-th text, whatever was said; then nothing more.

    Sound is a block whose loudest sample exceeds `loud`. A partial (the first word) comes with the first loud block,
    the final text after `silence` seconds without one, or when the audio ends. Times are those of the blocks.
    `failure` is raised at the first loud block after the script is over.
    """

    script: deque[str] = attrs.field(converter=_queue)
    silence: float = attrs.field(default=0.3, kw_only=True)
    loud: int = attrs.field(default=1000, kw_only=True)
    failure: SpeechError | None = attrs.field(default=None, kw_only=True)
    heard: list[AudioBlock] = attrs.field(factory=list, init=False)

    async def recognize(
        self, audio: trio.MemoryReceiveChannel[AudioBlock], transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        """Turn sound into the script; see `rustpbx.speech.base.Recognizer`."""
        index, open_since, loud_until = 0, math.nan, math.nan
        async for block in audio:
            self.heard.append(block)
            ends = block.at + len(block.pcm) / block.rate
            if self._is_loud(block):
                loud_until = ends
                if math.isnan(open_since):
                    open_since = block.at
                    await self._begin(index, block.at, ends, transcripts)
            elif ends - loud_until >= self.silence:
                await self._finish(index, open_since, loud_until, transcripts)
                index, open_since, loud_until = index + 1, math.nan, math.nan
        if not math.isnan(open_since):
            await self._finish(index, open_since, loud_until, transcripts)

    def _is_loud(self, block: AudioBlock) -> bool:
        return bool(len(block.pcm)) and int(np.abs(block.pcm.astype(np.int32)).max()) > self.loud

    async def _begin(
        self, index: int, start: float, end: float, transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        if self.script:
            await transcripts.send(Transcript(index, self.script[0].split()[0], False, start, end))
        elif self.failure is not None:
            raise self.failure

    async def _finish(
        self, index: int, start: float, end: float, transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        if self.script:
            await transcripts.send(Transcript(index, self.script.popleft(), True, start, end))
