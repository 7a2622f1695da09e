"""Scripted speech: the same sound for the same text, the script for any sound."""

import numpy as np
import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.speech.base import Recognizer, SpeechChunk, Synthesizer, Transcript, Utterance
from rustpbx.testing.speech import ScriptedRecognizer, ScriptedSynthesizer, spoken, tone


async def say(synthesizer: Synthesizer, utterance: Utterance) -> list[SpeechChunk]:
    """Everything a synthesizer sends for one utterance."""
    send, receive = trio.open_memory_channel[SpeechChunk](100)
    async with send:
        await synthesizer.synthesize(utterance, send)
    return [chunk async for chunk in receive]


async def hear(recognizer: Recognizer, pcm: Pcm) -> list[Transcript]:
    """Everything a recognizer makes of 8 kHz audio that starts at 5.0, fed in blocks of 0.1 s."""
    blocks, audio = trio.open_memory_channel[AudioBlock](1000)
    send, transcripts = trio.open_memory_channel[Transcript](100)
    for start in range(0, len(pcm), 800):
        blocks.send_nowait(AudioBlock(pcm[start : start + 800], 8000, round(5.0 + start / 8000, 3)))
    blocks.close()
    async with send:
        await recognizer.recognize(audio, send)
    return [attrs_rounded(transcript) async for transcript in transcripts]


def attrs_rounded(transcript: Transcript) -> Transcript:
    """The transcript with times to the millisecond."""
    return Transcript(
        transcript.index,
        transcript.text,
        transcript.final,
        round(transcript.started_at, 3),
        round(transcript.ended_at, 3),
    )


async def test_text_has_its_tone() -> None:
    """Chunks join to the text's tone: length per character, speed and rate obeyed, deterministic."""
    chunks = await say(ScriptedSynthesizer(), Utterance(text="hello world", rate=16000, speed=2.0))
    assert [chunk.mark for chunk in chunks] == [0, 4, 8]
    pcm = np.concatenate([chunk.pcm for chunk in chunks])
    assert np.array_equal(pcm, spoken("hello world", rate=16000, speed=2.0))
    assert len(pcm) == round(11 * 0.05 / 2 * 16000)
    assert not np.array_equal(pcm, spoken("hellO world", rate=16000, speed=2.0))


async def test_delay_and_failure() -> None:
    """A scripted failure comes after its share of audio, a delay before any, and texts are noted."""
    synthesizer = ScriptedSynthesizer(delay=2.0, failures={"boom": SpeechError("no voice", 503)}, fail_after=0.1)
    start = trio.current_time()
    await say(synthesizer, Utterance(text="fine", rate=8000))
    assert trio.current_time() - start == pytest.approx(2.0)
    send, receive = trio.open_memory_channel[SpeechChunk](100)
    with pytest.raises(SpeechError, match="no voice"):
        await synthesizer.synthesize(Utterance(text="boom", rate=8000), send)
    assert len(receive.receive_nowait().pcm) == 800
    assert [utterance.text for utterance in synthesizer.said] == ["fine", "boom"]


async def test_script_is_heard() -> None:
    """Each stretch of sound becomes the next text, with a partial, an index and the times of the sound."""
    quiet, sound = np.zeros(8000, np.int16), tone(1.0)
    recognizer = ScriptedRecognizer(["yes please", "good bye"])
    assert await hear(recognizer, np.concatenate([quiet, sound, quiet, sound])) == [
        Transcript(0, "yes", False, 6.0, 6.1),
        Transcript(0, "yes please", True, 6.0, 7.0),
        Transcript(1, "good", False, 8.0, 8.1),
        Transcript(1, "good bye", True, 8.0, 9.0),
    ]
    assert len(recognizer.heard) == 40


async def test_script_ends() -> None:
    """After the script sound is no words, or the scripted failure."""
    assert await hear(ScriptedRecognizer([]), tone(1.0)) == []
    with pytest.raises(SpeechError, match="gone"):
        await hear(ScriptedRecognizer([], failure=SpeechError("gone")), tone(1.0))
