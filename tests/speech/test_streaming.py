"""Incremental text for a service that takes whole texts only."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.shell.offload import InlineOffload
from rustpbx.speech.base import SpeechChunk, StreamingSynthesizer, Utterance, Voice
from rustpbx.speech.registry import (
    SpeechServices,
    SynthesizerOptions,
    make_streaming_synthesizer,
    register_synthesizer,
    unregister,
)
from rustpbx.speech.streaming import PAUSE, SETTLED, SentenceBySentence

VOICE = Voice(rate=8000, speaker="a", speed=1.5, volume=7, emotion="sad")


class Speaker:
    """Says each text as two chunks of its length, and notes when."""

    def __init__(self, problem: SpeechError | None = None) -> None:
        self.said: list[tuple[float, Utterance]] = []
        self.problem = problem

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Speak."""
        self.said.append((trio.current_time(), utterance))
        pcm = np.zeros(len(utterance.text), np.int16)
        await audio.send(SpeechChunk(pcm, utterance.rate))
        if self.problem is not None:
            raise self.problem
        await audio.send(SpeechChunk(pcm, utterance.rate, 2))


class Streamer(Speaker):
    """Takes incremental text by itself."""

    async def stream(
        self, texts: trio.MemoryReceiveChannel[str], voice: Voice, audio: trio.MemorySendChannel[SpeechChunk]
    ) -> None:
        """Speak."""
        async for _ in texts:
            await audio.send(SpeechChunk(np.zeros(1, np.int16), voice.rate))


async def stream(speaker: Speaker, *pieces: tuple[float, str], end: float = 0.0) -> list[SpeechChunk]:
    """What comes of pieces that each come so many seconds after the one before, the end likewise."""
    send_text, texts = trio.open_memory_channel[str](0)
    send_audio, audio = trio.open_memory_channel[SpeechChunk](100)

    async def write() -> None:
        with send_text:
            for after, piece in pieces:
                await trio.sleep(after)
                await send_text.send(piece)
            await trio.sleep(end)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        problem = None
        with send_audio, texts:
            try:
                await SentenceBySentence(speaker).stream(texts, VOICE, send_audio)
            except SpeechError as error:
                problem = error
        nursery.cancel_scope.cancel()
    if problem is not None:
        raise problem
    return [chunk async for chunk in audio]


async def test_each_sentence_is_said_as_soon_as_it_is_whole() -> None:
    """Pieces of any size make sentences in the voice asked for; marks count through the whole text."""
    speaker = Speaker()
    began = trio.current_time()
    chunks = await stream(speaker, (0, "Hel"), (0.2, "lo. How"), (0.2, " are you?"))
    assert [(round(at - began, 3), said.text) for at, said in speaker.said] == [(0.2, "Hello."), (0.4, "How are you?")]
    assert speaker.said[0][1] == Utterance(text="Hello.", rate=8000, speaker="a", speed=1.5, volume=7, emotion="sad")
    assert [chunk.mark for chunk in chunks] == [0, 2, 7, 9]


async def test_words_are_not_kept_back_for_a_next_piece_that_is_long_in_coming() -> None:
    """An agent that never says "end" has its last words heard: soon if they look whole, after a pause if not."""
    speaker = Speaker()
    began = trio.current_time()
    await stream(speaker, (0, "All done."), (5, "and then"), (5, "more"), end=60)
    assert [(round(at - began, 3), said.text) for at, said in speaker.said] == [
        (SETTLED, "All done."),
        (5 + PAUSE, "and then"),
        (10 + PAUSE, "more"),
    ]


async def test_a_failing_sentence_fails_the_stream_with_its_own_error() -> None:
    """What was said before it has been sent."""
    with pytest.raises(SpeechError, match="no such voice"):
        await stream(Speaker(SpeechError("no such voice")), (0, "Hello there. More."), end=60)


async def test_a_text_without_words_says_nothing() -> None:
    """No service is asked to say space."""
    speaker = Speaker()
    assert await stream(speaker, (0, " "), (0.1, "\n"), end=5) == []
    assert speaker.said == []


def _always(speaker: Speaker, *_: object) -> Speaker:
    return speaker


def test_a_service_that_streams_by_itself_is_asked_itself() -> None:
    """The registry wraps only those that cannot."""
    services = SpeechServices(offload=InlineOffload())
    for speaker, made in ((Speaker(), SentenceBySentence), (Streamer(), Streamer)):
        register_synthesizer("mine", partial(_always, speaker))
        found = make_streaming_synthesizer(SynthesizerOptions(provider="mine"), services)
        assert isinstance(found, made)
        assert isinstance(found, StreamingSynthesizer)
    unregister("mine")
