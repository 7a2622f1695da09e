"""The embedded models themselves, in worker processes: what is said is what is heard."""

from __future__ import annotations

import numpy as np
import pytest
import trio

from rustpbx.media.decode import decode
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.shell.workers import Workers, open_workers
from rustpbx.speech import local_tts
from rustpbx.speech.base import SpeechChunk, Transcript, Utterance
from rustpbx.speech.local import LocalRecognizer, LocalSynthesizer, warm_up
from rustpbx.speech.local_segments import RATE
from tests.kit.sounds import encode
from tests.kit.speech import words
from tests.speech.test_segments import noise, silence

pytestmark = [pytest.mark.real_time, pytest.mark.local_speech]

SENTENCES = ["Hello, thank you for calling.", "I would like to book a table for two people tomorrow evening, please."]


async def say(workers: Workers, text: str, rate: int) -> list[Pcm]:
    """The chunks of a text."""
    send, receive = trio.open_memory_channel[SpeechChunk](10)
    with send:
        await LocalSynthesizer(workers).synthesize(Utterance(text=text, rate=rate), send)
    return [chunk.pcm async for chunk in receive]


async def hear(workers: Workers, pcm: Pcm) -> list[Transcript]:
    """What is heard in samples at 16 kHz, as fast as it goes."""
    heard: list[Transcript] = []
    blocks_in, blocks = trio.open_memory_channel[AudioBlock](0)
    texts, texts_out = trio.open_memory_channel[Transcript](0)

    async def phone() -> None:
        with blocks_in:
            for at in range(0, len(pcm), 1600):
                await blocks_in.send(AudioBlock(pcm[at : at + 1600], RATE, at / RATE))

    async def service() -> None:
        with texts:
            await LocalRecognizer(workers).recognize(blocks, texts)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(phone)
        nursery.start_soon(service)
        async for transcript in texts_out:
            heard.append(transcript)  # noqa: PERF401 - the loop is the test's consumer
    return heard


def at_16k(pcm: Pcm) -> Pcm:
    """8 kHz audio as the tap gives it."""
    return decode(encode("wav", "pcm_s16le", 8000, pcm), RATE)


async def test_what_is_said_is_heard() -> None:
    """Two sentences over the telephone band come back word for word, the end flushed; noise gives nothing."""
    async with open_workers({"asr": 1, "tts": 1}) as workers:
        await warm_up(workers)
        chunks = await say(workers, " ".join(SENTENCES), 8000)
        one, two = map(at_16k, chunks)
        heard = await hear(workers, np.concatenate((silence(1), one, silence(1), two)))
        noises = await hear(workers, np.concatenate((noise(3, 1000), silence(1))))
    assert noises == []
    finals = [transcript for transcript in heard if transcript.final]
    assert [(final.index, words(final.text)) for final in finals] == list(enumerate(map(words, SENTENCES)))
    assert [(heard[0].index, heard[0].final)] == [(0, False)]
    assert finals[0].started_at < finals[0].ended_at < finals[1].started_at < finals[1].ended_at
    assert finals[0].started_at == pytest.approx(1.3, abs=0.2)


def test_the_voice() -> None:
    """The same text sounds the same, slower is longer, volume is amplitude, any rate has the same length."""
    normal = local_tts.speak("Good morning.", 8000)
    assert np.array_equal(normal, local_tts.speak("Good morning.", 8000))
    assert len(local_tts.speak("Good morning.", 8000, 0.5)) > 1.6 * len(normal)
    assert len(local_tts.speak("Good morning.", 16000)) == pytest.approx(2 * len(normal), rel=0.01)
    assert len(local_tts.speak("Good morning.", 24000)) == pytest.approx(3 * len(normal), rel=0.01)
    assert not local_tts.speak("Good morning.", 8000, 1.0, 0).any()
    half = local_tts.speak("Good morning.", 8000, 1.0, 3)
    assert np.abs(half).max() == pytest.approx(0.6 * np.abs(normal).max(), rel=0.02)
    assert local_tts.speak("\u4f60\u597d", 8000).tolist() == []
    assert local_tts.split("Dr. Who pays $9.99. Bye!\nNow") == ["Dr. Who pays $9.99.", "Bye!", "Now"]
