"""Scripted speech services: no models, no network, the same every time.

The synthesizer speaks texts as sound that carries them (`rustpbx.testing.voice`), and the recognizer hears the words of
such sound, so that a test's words take the whole way through the audio. Both fail on request: `refuses`, `stalls`,
`dies`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import attrs
import numpy as np
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance
from rustpbx.speech.registry import known_providers, stand_in
from rustpbx.testing.script import joined
from rustpbx.testing.voice import PACE, Ear, spoken

CHUNK = 0.1  # seconds
KEPT = 6000  # blocks of audio that a recognizer keeps: ten minutes
SCRIPTED = "scripted"


def tone(seconds: float, *, rate: int = 8000, hertz: float = 440.0, amplitude: int = 8000) -> Pcm:
    """A sine, int16, shape (seconds * rate,): sound without words."""
    times = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * math.pi * hertz * times)).astype(np.int16)


@attrs.frozen
class Trouble:
    """How a service fails once it has had `after` seconds of sound: with `error`, or, without one, by hanging."""

    after: float = 0.0
    error: SpeechError | None = None


def refuses(reason: str = "refused", code: int | None = None) -> Trouble:
    """Fails at once, as a service does that does not like the key."""
    return Trouble(0.0, SpeechError(reason, code))


def stalls(after: float = 0.0) -> Trouble:
    """Hangs after that many seconds of sound: no answer and no error."""
    return Trouble(after)


def dies(after: float, reason: str = "connection lost", code: int | None = None) -> Trouble:
    """Fails after that many seconds of sound."""
    return Trouble(after, SpeechError(reason, code))


async def _suffer(trouble: Trouble) -> None:
    if trouble.error is None:
        await trio.sleep_forever()
    else:
        raise trouble.error


def _as_trouble(failure: Trouble | SpeechError) -> Trouble:
    return failure if isinstance(failure, Trouble) else Trouble(0.0, failure)


@attrs.define(kw_only=True)
class ScriptedSynthesizer:
    """Says each text at `pace` seconds per byte, in chunks of 0.1 s, and notes it in `said`.

    `delay` seconds pass before the first chunk. `failures` are the texts that fail, and how; a `SpeechError` alone is
    raised before any sound. `trouble` is how every text fails that has no failure of its own.
    """

    pace: float = PACE
    delay: float = 0.0
    failures: dict[str, Trouble | SpeechError] = attrs.field(factory=dict)
    trouble: Trouble | None = None
    said: list[Utterance] = attrs.field(factory=list)

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Send the sound of the text; see `rustpbx.speech.base.Synthesizer`."""
        self.said.append(utterance)
        await trio.sleep(self.delay)
        failure = self.failures.get(utterance.text, self.trouble)
        trouble = None if failure is None else _as_trouble(failure)
        pcm = self.pcm(utterance)
        until = len(pcm) if trouble is None else round(trouble.after * utterance.rate)
        size = round(CHUNK * utterance.rate)
        for start in range(0, len(pcm[:until]), size):
            mark = round(len(utterance.text) * start / len(pcm))
            await audio.send(SpeechChunk(pcm[:until][start : start + size], utterance.rate, mark))
        if trouble is not None:
            await _suffer(trouble)

    def pcm(self, utterance: Utterance) -> Pcm:
        """All the sound of an utterance."""
        return spoken(
            utterance.text, rate=utterance.rate, pace=self.pace, volume=utterance.volume, speed=utterance.speed
        )


def _queue(texts: Iterable[str]) -> deque[str]:
    return deque(texts)


@attrs.define
class _Stretch:
    """Sound between two silences: when it began, when it was last loud, and what was told of it."""

    started_at: float
    loud_until: float
    told: str = ""


@attrs.define
class ScriptedRecognizer:
    """Hears the words of `spoken` sound. With a `script`, the n-th stretch of any sound is its n-th text instead.

    Sound is a block whose loudest sample exceeds `loud`. A partial comes whenever there are new words, the final text
    after `silence` seconds without sound, or when the audio ends. Times are those of the blocks. `heard` keeps the
    audio, `told` the final texts. `trouble` counts the seconds of sound.
    """

    script: deque[str] = attrs.field(factory=deque, converter=_queue)
    silence: float = attrs.field(default=0.3, kw_only=True)
    loud: int = attrs.field(default=1000, kw_only=True)
    trouble: Trouble | None = attrs.field(default=None, kw_only=True)
    heard: deque[AudioBlock] = attrs.field(factory=lambda: deque(maxlen=KEPT), init=False)
    told: list[str] = attrs.field(factory=list, init=False)
    _ear: Ear | None = attrs.field(default=None, init=False)
    _index: int = attrs.field(default=0, init=False)
    _stretch: _Stretch | None = attrs.field(default=None, init=False)
    _phrases: int = attrs.field(default=0, init=False)  # that belong to stretches which are over
    _sound: float = attrs.field(default=0.0, init=False)

    async def recognize(
        self, audio: trio.abc.ReceiveChannel[AudioBlock], transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        """Turn sound into words; see `rustpbx.speech.base.Recognizer`."""
        await self._fail_if_due()
        async for block in audio:
            self.heard.append(block)
            if self._ear is None:
                self._ear = Ear(block.rate)
            self._ear.feed(block.pcm)
            seconds = len(block.pcm) / block.rate
            ends = block.at + seconds
            if self._is_loud(block):
                self._sound += seconds
                await self._fail_if_due()
                await self._go_on(self._ear, block.at, ends, transcripts)
            elif self._stretch is not None and ends - self._stretch.loud_until >= self.silence:
                await self._finish(self._ear, self._stretch, transcripts)
        if self._ear is not None and self._stretch is not None:
            self._ear.finish()
            await self._finish(self._ear, self._stretch, transcripts)

    async def _fail_if_due(self) -> None:
        if self.trouble is not None and self._sound >= self.trouble.after:
            await _suffer(self.trouble)

    def _is_loud(self, block: AudioBlock) -> bool:
        return bool(len(block.pcm)) and int(np.abs(block.pcm.astype(np.int32)).max()) > self.loud

    async def _go_on(
        self, ear: Ear, starts: float, ends: float, transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        if self._stretch is None:
            self._stretch = _Stretch(starts, ends)
        self._stretch.loud_until = ends
        text = self._text(ear, final=False)
        if text and text != self._stretch.told:
            self._stretch.told = text
            await transcripts.send(Transcript(self._index, text, False, self._stretch.started_at, ends))

    async def _finish(self, ear: Ear, stretch: _Stretch, transcripts: trio.MemorySendChannel[Transcript]) -> None:
        self._stretch = None
        text = self._text(ear, final=True)
        self._phrases = len(ear.phrases)
        if text:
            if self.script:
                self.script.popleft()
            self.told.append(text)
            await transcripts.send(Transcript(self._index, text, True, stretch.started_at, stretch.loud_until))
            self._index += 1

    def _text(self, ear: Ear, *, final: bool) -> str:
        if self.script:
            return self.script[0] if final else self.script[0].split()[0]
        return joined(phrase.text for phrase in ear.phrases[self._phrases :])


@attrs.define(kw_only=True)
class ScriptedSpeech:
    """The speech services of one server: a recognizer of its own for each call, one synthesizer for all.

    `transcripts` is the script of each recognizer, empty to hear what is really said; `listening` is the trouble of
    those made from now on. `recognizers` are those made so far.
    """

    synthesizer: ScriptedSynthesizer = attrs.field(factory=ScriptedSynthesizer)
    transcripts: tuple[str, ...] = ()
    listening: Trouble | None = None
    recognizers: list[ScriptedRecognizer] = attrs.field(factory=list, init=False)

    def recognizer(self) -> ScriptedRecognizer:
        """The recognizer of one more call."""
        self.recognizers.append(ScriptedRecognizer(self.transcripts, trouble=self.listening))
        return self.recognizers[-1]

    @contextmanager
    def serving(self, *providers: str) -> Iterator[None]:
        """For the length of a block, be these providers; without names, every one that is known, and `scripted`."""
        with stand_in(
            providers or {SCRIPTED: None, **dict.fromkeys(known_providers())},
            lambda _, __: self.recognizer(),
            lambda _, __: self.synthesizer,
        ):
            yield
