"""The provider `local`: speech recognition and synthesis on this machine, without an account or a network.

English only, for demos, tests and small installations: the recognizer needs about a tenth of a core's time per second
of speech, in a worker process that all calls share. The models come inside the packages of the `local` extra.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import trio

from rustpbx.errors import RustpbxError, SpeechError
from rustpbx.media.events import AudioBlock
from rustpbx.shell.offload import Offload
from rustpbx.shell.workers import Workers
from rustpbx.speech import local_asr, local_tts
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance
from rustpbx.speech.local_files import check_installed
from rustpbx.speech.local_segments import Segment, Segmenter

ASR_POOL = "asr"
TTS_POOL = "tts"

READY = "embedded speech is ready"
"""What the server logs after `warm_up`; the demo waits for it."""

PARTIAL_EVERY = 1.0
"""Seconds of new audio between two looks at an utterance that is going on."""

PAUSE = 0.24
"""A pause this long may be the end: one look now saves the wait for the final then."""

WAITING_FINALS = 8
"""Ended utterances that wait for the model. Then the audio is not read any more, and its tap drops the oldest."""

MIN_RATE, MAX_RATE = 8000, 48000


@attrs.define(eq=False)
class Gate:
    """What the recognizers of a server know of each other: how many of the `asr` workers they keep busy.

    Looks at unfinished utterances are worth their cost only when a worker is idle; finals always go.
    """

    workers: int = 1
    busy: int = 0

    @property
    def idle(self) -> bool:
        """True while a worker has nothing to do."""
        return self.busy < self.workers


async def warm_up(workers: Workers) -> None:
    """Load the models in every worker of the pools `asr` and `tts`, so that no call waits for it."""
    check_installed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.warm, ASR_POOL, local_asr.load)
        nursery.start_soon(workers.warm, TTS_POOL, local_tts.speak, "Hello.", MIN_RATE)


class LocalRecognizer:
    """English speech to text for one call. Raises `SpeechError` if the `local` extra is not installed.

    Texts of an unfinished utterance come about once a second, and at pauses, as long as a worker is idle.
    """

    def __init__(self, offload: Offload, *, language: str | None = None, gate: Gate | None = None) -> None:
        check_installed()
        if language and language.split("-")[0].lower() not in ("en", "eng", "english"):
            raise SpeechError(f"local speech recognition knows English only, not {language!r}")
        self._offload = offload
        self._gate = gate or Gate()

    async def recognize(
        self, audio: trio.abc.ReceiveChannel[AudioBlock], transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        """Read blocks at 16 kHz until the channel closes; see `rustpbx.speech.base.Recognizer`."""
        await _Listening(self._offload, self._gate, transcripts).run(audio)


@attrs.frozen
class _Look:
    segment: Segment
    final: bool


class _Listening:
    """One `recognize`: a task that cuts the audio and one that has the pieces decoded, in order."""

    def __init__(self, offload: Offload, gate: Gate, transcripts: trio.MemorySendChannel[Transcript]) -> None:
        self._offload = offload
        self._gate = gate
        self._transcripts = transcripts
        self._send, self._receive = trio.open_memory_channel[_Look](WAITING_FINALS)
        self._decoding = False
        self._looked = (-1, 0.0)
        self._known: tuple[int, int, str] = (-1, 0, "")
        self._index = 0
        self._failure: SpeechError | None = None

    async def run(self, audio: trio.abc.ReceiveChannel[AudioBlock]) -> None:
        """Hear and decode until the audio ends; the first `SpeechError` of either ends both."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guard, nursery.cancel_scope, self._decode)
            nursery.start_soon(self._guard, nursery.cancel_scope, partial(self._hear, audio))
        if self._failure is not None:
            raise self._failure

    async def _guard(self, scope: trio.CancelScope, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except SpeechError as error:
            self._failure = error
            scope.cancel()

    async def _hear(self, audio: trio.abc.ReceiveChannel[AudioBlock]) -> None:
        """Cut the audio into utterances until it ends, then the rest of it."""
        segmenter = Segmenter()
        with self._send:
            async for block in audio:
                for segment in segmenter.feed(block):
                    await self._send.send(_Look(segment, final=True))
                self._look(segmenter)
            rest = segmenter.flush()
            if rest is not None:
                await self._send.send(_Look(rest, final=True))

    def _look(self, segmenter: Segmenter) -> None:
        """Ask for the text of the unfinished utterance, if it is time and nothing else is to be done."""
        if self._decoding or not self._gate.idle or self._receive.statistics().current_buffer_used:
            return
        progress = segmenter.progress
        if progress is None:
            return
        number, heard = progress
        new = heard - (self._looked[1] if self._looked[0] == number else 0)
        if new and (new >= PARTIAL_EVERY or segmenter.pause >= PAUSE):
            segment = segmenter.peek()
            if segment is not None:
                self._looked = (number, heard)
                self._send.send_nowait(_Look(segment, final=False))

    async def _decode(self) -> None:
        """Decode what `_hear` sends and report the texts."""
        async for look in self._receive:
            self._decoding = True
            segment = look.segment
            text = await self._text(segment)
            if text:
                await self._transcripts.send(
                    Transcript(self._index, text, look.final, segment.started_at, segment.ended_at)
                )
                self._index += look.final
            self._decoding = False

    async def _text(self, segment: Segment) -> str:
        """The model's text; a segment that was looked at in its last pause is not decoded again."""
        number, heard, text = self._known
        if (number, heard) == (segment.number, segment.heard):
            return text
        self._gate.busy += 1
        try:
            text = await self._offload.worker(ASR_POOL, local_asr.transcribe, segment.pcm)
        except SpeechError:
            raise
        except RustpbxError as error:
            raise SpeechError(f"local speech recognition: {error}") from error
        finally:
            self._gate.busy -= 1
        self._known = (segment.number, segment.heard, text)
        return text


class LocalSynthesizer:
    """English text to speech for one call. Raises `SpeechError` if the `local` extra is not installed."""

    def __init__(self, offload: Offload) -> None:
        check_installed()
        self._offload = offload

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Say it sentence by sentence, one chunk each; see `rustpbx.speech.base.Synthesizer`.

        Raises `SpeechError` for another speaker than "heart" and for a text of which nothing can be said.
        """
        if utterance.speaker not in (None, "", local_tts.VOICE):
            raise SpeechError(f"local speech synthesis has one voice, {local_tts.VOICE!r}, not {utterance.speaker!r}")
        if not MIN_RATE <= utterance.rate <= MAX_RATE:
            raise SpeechError(f"local speech synthesis: {utterance.rate} Hz is not between {MIN_RATE} and {MAX_RATE}")
        try:
            said = await self._say(utterance, audio)
        except RustpbxError as error:
            raise (
                error if isinstance(error, SpeechError) else SpeechError(f"local speech synthesis: {error}")
            ) from error
        if not said and any(letter.isalnum() for letter in utterance.text):
            raise SpeechError(f"local speech synthesis speaks English only and cannot say {utterance.text[:60]!r}")

    async def _say(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> bool:
        said = False
        at = 0
        for sentence in await self._offload.worker(TTS_POOL, local_tts.split, utterance.text):
            at = max(utterance.text.find(sentence, at), at)
            pcm = await self._offload.worker(
                TTS_POOL, local_tts.speak, sentence, utterance.rate, utterance.speed, utterance.volume
            )
            if len(pcm):
                said = True
                await audio.send(SpeechChunk(pcm, utterance.rate, at))
            at += len(sentence)
        return said
