"""What every speech service has to keep, for whoever writes one: call these from a test of your own.

They raise `NonconformityError` with what was broken. Run them under virtual time (the pytest plugin does), against the
service or an emulation of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import trio

from rustpbx.errors import RustpbxError, SpeechError
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.shell.nurseries import sole_error
from rustpbx.speech.base import (
    Recognizer,
    SpeechChunk,
    StreamingSynthesizer,
    Synthesizer,
    Transcript,
    Utterance,
    Voice,
)

RATE = 16000
BEGIN = 1000.0
"""When the audio of these checks was spoken, on the call's clock."""
SLACK = 0.5
"""Seconds that an estimated time may lie beside the audio."""
TEXT = "Hello there. How are you?"
STEPS = 12
"""Moments at which a service is cancelled."""


class NonconformityError(RustpbxError):
    """A service does not keep what its interface promises."""


def _demand(kept: bool, words: str) -> None:
    if not kept:
        raise NonconformityError(words)


async def check_recognizer(make: Callable[[], Recognizer], audio: Pcm, texts: Sequence[str]) -> list[Transcript]:
    """Let a recognizer hear `audio` (16 kHz) once in blocks of 100 ms, once of 20 ms, and be cancelled at many moments.

    Its final texts must be `texts` each time, the last one too if no silence follows; indices count the utterances,
    times lie within the audio and in order; cancelled, it ends at once. Returns what it heard the first time.
    """
    first = await _hear(make(), audio, 1600)
    for heard in (first, await _hear(make(), audio, 320)):
        finals = [transcript.text for transcript in heard if transcript.final]
        _demand(finals == list(texts), f"heard {finals} instead of {list(texts)}")
        _check_order(heard, len(audio) / RATE)
    for step in range(STEPS):
        with trio.move_on_after(len(audio) / RATE * step / STEPS):
            await _hear(make(), audio, 1600)
    return first


def _check_order(heard: Sequence[Transcript], seconds: float) -> None:
    finals = [transcript for transcript in heard if transcript.final]
    _demand([t.index for t in finals] == list(range(len(finals))), "final texts are not numbered from 0")
    for one, other in itertools.pairwise(heard):
        _demand(one.index <= other.index, "an index runs backwards")
        _demand(not one.final or other.index > one.index, "an utterance goes on after its final text")
    for transcript in heard:
        within = BEGIN - SLACK <= transcript.started_at <= transcript.ended_at <= BEGIN + seconds + SLACK
        _demand(within, f"{transcript} is not within the audio ({BEGIN} to {BEGIN + seconds})")
    _demand(all(a.ended_at <= b.started_at + SLACK for a, b in itertools.pairwise(finals)), "utterances overlap")


async def _hear(recognizer: Recognizer, audio: Pcm, size: int) -> list[Transcript]:
    send_audio, blocks = trio.open_memory_channel[AudioBlock](0)
    send, transcripts = trio.open_memory_channel[Transcript](10_000)

    async def speak() -> None:
        with send_audio:
            for at in range(0, len(audio), size):
                await send_audio.send(AudioBlock(audio[at : at + size], RATE, BEGIN + at / RATE))
                await trio.sleep(size / RATE)

    with sole_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            with send:
                await recognizer.recognize(blocks, send)
            nursery.cancel_scope.cancel()
    return [transcript async for transcript in transcripts]


async def check_synthesizer(make: Callable[[], Synthesizer], rate: int = RATE) -> list[SpeechChunk]:
    """Let a synthesizer say a text, a text in pieces if it can, nothing, and be cancelled at many moments.

    All audio has the rate asked for and is not empty; marks lie in the text and rise; a text in pieces is as long as in
    one, within a fifth. Returns the chunks of the whole text.
    """
    voice = Voice(rate=rate)
    whole = await _say(make(), Utterance(text=TEXT, rate=rate))
    _check_chunks(whole, rate)
    synthesizer = make()
    if isinstance(synthesizer, StreamingSynthesizer):
        pieces = await _stream(synthesizer, voice, [TEXT[:4], TEXT[4:15], TEXT[15:]])
        _check_chunks(pieces, rate)
        one, other = (sum(chunk.pcm.size for chunk in chunks) for chunks in (whole, pieces))
        _demand(abs(one - other) <= 0.2 * one, f"{one} samples in one, {other} in pieces")
        _demand(not await _stream(make_streaming(make), voice, []), "audio came of no text")
    began = trio.current_time()
    await _say(make(), Utterance(text=TEXT, rate=rate))
    length = trio.current_time() - began
    for step in range(STEPS):
        with trio.move_on_after(length * step / STEPS):
            await _say(make(), Utterance(text=TEXT, rate=rate))
    return whole


def make_streaming(make: Callable[[], Synthesizer]) -> StreamingSynthesizer:
    """One more of those that take text in pieces. Raises `NonconformityError` if it is none after all."""
    synthesizer = make()
    if not isinstance(synthesizer, StreamingSynthesizer):
        raise NonconformityError("not every synthesizer of this service takes text in pieces")
    return synthesizer


def _check_chunks(chunks: Sequence[SpeechChunk], rate: int) -> None:
    _demand(bool(chunks), "no audio came")
    _demand({chunk.rate for chunk in chunks} == {rate}, "audio has another rate than was asked for")
    _demand(all(chunk.pcm.size and chunk.pcm.ndim == 1 for chunk in chunks), "a chunk is empty, or no row of samples")
    _demand(all(str(chunk.pcm.dtype) == "int16" for chunk in chunks), "samples are not int16")
    marks = [chunk.mark for chunk in chunks if chunk.mark is not None]
    _demand(marks == sorted(marks), "marks run backwards")
    _demand(all(0 <= mark < len(TEXT) for mark in marks), "a mark is outside of the text")


async def _say(synthesizer: Synthesizer, utterance: Utterance) -> list[SpeechChunk]:
    send, chunks = trio.open_memory_channel[SpeechChunk](100_000)
    with send:
        await synthesizer.synthesize(utterance, send)
    return [chunk async for chunk in chunks]


async def _stream(synthesizer: StreamingSynthesizer, voice: Voice, texts: Sequence[str]) -> list[SpeechChunk]:
    send_text, pieces = trio.open_memory_channel[str](len(texts))
    send, chunks = trio.open_memory_channel[SpeechChunk](100_000)
    with send_text:
        for text in texts:
            send_text.send_nowait(text)
    with send:
        await synthesizer.stream(pieces, voice, send)
    return [chunk async for chunk in chunks]


async def check_refusal(make: Callable[[], Synthesizer | Recognizer]) -> SpeechError:
    """Use a service that must fail (bad credentials, nobody there): it may raise `SpeechError` and nothing else.

    Returns the error.
    """
    service = make()
    try:
        if isinstance(service, Synthesizer):
            await _say(service, Utterance(text=TEXT, rate=RATE))
        else:
            await _hear(service, np.zeros(RATE, np.int16), 1600)
    except SpeechError as error:
        return error
    raise NonconformityError("it did not fail")
