"""The two protocols every speech service implements, and the values that cross them.

Both are one async method over channels that the caller owns: cancelling the call's track cancels the service, and
nothing is left. Errors are `SpeechError`; anything else is a bug.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import attrs
import trio

from rustpbx.media.events import AudioBlock, Pcm


@attrs.frozen
class Transcript:
    """What was heard. Texts of one `index` replace each other until `final`; times are monotonic seconds."""

    index: int
    text: str
    final: bool
    started_at: float
    ended_at: float


@attrs.frozen
class SpeechChunk:
    """Some synthesised audio, mono, at the rate asked for. `mark` is the index into the text it begins at."""

    pcm: Pcm = attrs.field(eq=False)
    rate: int
    mark: int | None = None


@attrs.frozen(kw_only=True)
class Voice:
    """How something is said: at `rate` Hz, `speed` 1.0 is normal, `volume` 0..10 with 5 normal."""

    rate: int
    speaker: str | None = None
    speed: float = 1.0
    volume: int = 5
    emotion: str | None = None


@attrs.frozen(kw_only=True)
class Utterance(Voice):
    """One thing to say, and how."""

    text: str


@runtime_checkable
class Recognizer(Protocol):
    """Speech to text for one call."""

    async def recognize(
        self, audio: trio.abc.ReceiveChannel[AudioBlock], transcripts: trio.MemorySendChannel[Transcript]
    ) -> None:
        """Read audio until its channel closes, send transcripts, flush the last words, return."""
        ...


@runtime_checkable
class Synthesizer(Protocol):
    """Text to speech for one call."""

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Say one utterance: send its chunks in order and return when the last one is sent."""
        ...


@runtime_checkable
class StreamingSynthesizer(Protocol):
    """Text to speech for one call, from a text that is still being written.

    A service may have this beside `synthesize`. For one that has not, `rustpbx.speech.streaming` does it.
    """

    async def stream(
        self, texts: trio.MemoryReceiveChannel[str], voice: Voice, audio: trio.MemorySendChannel[SpeechChunk]
    ) -> None:
        """Say the pieces of one text as they come: return when their channel has closed and the last chunk is sent.

        A piece may begin and end anywhere. Words are not kept back until the next piece: it may be long in coming.
        A chunk's `mark` is an index into all pieces joined.
        """
        ...
