"""A `tts` option as the speech services take it, and what comes of it on its way to a playback."""

from __future__ import annotations

from collections.abc import Callable

import trio

from rustpbx.errors import SpeechError
from rustpbx.session.options import SynthesisOption
from rustpbx.speech.base import SpeechChunk, Voice
from rustpbx.speech.registry import SynthesizerOptions

AHEAD = 16
"""Chunks between a service and its playback; a service that is further ahead waits. The source's own spool is the real
buffer.
"""

LONGEST, LONGEST_CHARACTER = 60.0, 1.0
"""Seconds of audio that any text may become, and how many more for each of its characters."""


def synthesizer_options(option: SynthesisOption) -> SynthesizerOptions:
    """Who speaks."""
    return SynthesizerOptions(
        provider=option.provider,
        codec=option.codec or "pcm",
        app_id=option.app_id,
        secret_id=option.secret_id,
        secret_key=option.secret_key,
        endpoint=option.endpoint,
        extra=dict(option.extra or {}),
    )


def voice(option: SynthesisOption, rate: int) -> Voice:
    """How it is said."""
    return Voice(
        rate=rate,
        speaker=option.speaker,
        speed=1.0 if option.speed is None else option.speed,
        volume=5 if option.volume is None else option.volume,
        emotion=option.emotion,
    )


def sender(option: SynthesisOption) -> str:
    """What `error` events call the service."""
    return f"tts.{provider(option)}"


def provider(option: SynthesisOption) -> str:
    """What `metrics` events call it."""
    return option.provider or "local"


class Meter:
    """Audio on its way: `size` counts its bytes, `begins` is called with the first of it.

    `characters` are those of the text. Raises `SpeechError` where no text of that length can be so long.
    """

    def __init__(self, begins: Callable[[], None], characters: int = 0) -> None:
        self.size = 0
        self.characters = characters
        self._begins = begins

    def before(
        self, audio: trio.MemorySendChannel[SpeechChunk], nursery: trio.Nursery
    ) -> trio.MemorySendChannel[SpeechChunk]:
        """Where to send what goes to `audio`; a task of `nursery` hands it on, until this is closed."""
        send, chunks = trio.open_memory_channel[SpeechChunk](0)
        nursery.start_soon(self._forward, chunks, audio)
        return send

    async def _forward(
        self, chunks: trio.MemoryReceiveChannel[SpeechChunk], audio: trio.MemorySendChannel[SpeechChunk]
    ) -> None:
        async for chunk in chunks:
            if self.size == 0 and chunk.pcm.size:
                self._begins()
            self.size += chunk.pcm.nbytes
            most = LONGEST + LONGEST_CHARACTER * self.characters
            if self.size > 2 * chunk.rate * most:
                raise SpeechError(f"more than {most:.0f} s of audio for {self.characters} characters")
            await audio.send(chunk)
