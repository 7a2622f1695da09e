"""Incremental text for services that take only whole texts: sentence by sentence, in one flow of audio."""

from __future__ import annotations

import attrs
import trio

from rustpbx.errors import SpeechError
from rustpbx.speech.base import SpeechChunk, Synthesizer, Utterance, Voice
from rustpbx.speech.text import Sentence, Sentences

PAUSE = 1.0
"""Seconds without new text after which the words so far are said, whole sentence or not."""
SETTLED = 0.1
"""The same, where they look like a whole sentence."""


class SentenceBySentence:
    """A `StreamingSynthesizer` made of a `Synthesizer`."""

    def __init__(self, synthesizer: Synthesizer) -> None:
        self._synthesizer = synthesizer

    async def stream(
        self, texts: trio.MemoryReceiveChannel[str], voice: Voice, audio: trio.MemorySendChannel[SpeechChunk]
    ) -> None:
        """Say each sentence as soon as it is whole, and read no more text before that is done."""
        sentences = Sentences()
        more = True
        while more:
            text = None
            with trio.move_on_after(_patience(sentences)):
                try:
                    text = await texts.receive()
                except trio.EndOfChannel:
                    more = False
            for sentence in sentences.flush() if text is None else sentences.feed(text):
                await self._say(sentence, voice, audio)

    async def _say(self, sentence: Sentence, voice: Voice, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        utterance = Utterance(text=sentence.text, **attrs.asdict(voice))
        send, receive = trio.open_memory_channel[SpeechChunk](0)
        problem = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_forward, receive, audio, sentence.start)
            with send:
                try:
                    await self._synthesizer.synthesize(utterance, send)
                except SpeechError as error:
                    problem = error
        if problem is not None:
            raise problem


def _patience(sentences: Sentences) -> float:
    if not sentences.pending:
        return float("inf")
    return SETTLED if sentences.settled else PAUSE


async def _forward(
    chunks: trio.MemoryReceiveChannel[SpeechChunk], audio: trio.MemorySendChannel[SpeechChunk], start: int
) -> None:
    """Hand on the chunks of a sentence that begins at `start` of the whole text."""
    async for chunk in chunks:
        await audio.send(attrs.evolve(chunk, mark=start + (chunk.mark or 0)))
