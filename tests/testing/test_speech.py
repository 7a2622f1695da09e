"""Scripted speech: the words of a sound, a script for any sound, and every way to fail."""

import numpy as np
import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.shell.offload import InlineOffload
from rustpbx.speech.base import Recognizer, SpeechChunk, Synthesizer, Transcript, Utterance
from rustpbx.speech.registry import (
    RecognizerOptions,
    SpeechServices,
    SynthesizerOptions,
    make_recognizer,
    make_synthesizer,
    register_recognizer,
    unregister,
)
from rustpbx.testing.speech import (
    ScriptedRecognizer,
    ScriptedSpeech,
    ScriptedSynthesizer,
    Trouble,
    dies,
    refuses,
    stalls,
    tone,
)
from rustpbx.testing.voice import heard_text, spoken

QUIET = np.zeros(8000, np.int16)


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


async def test_text_has_its_sound() -> None:
    """Chunks join to the text's sound: length per letter, speed and rate obeyed; marks are places in the text."""
    chunks = await say(ScriptedSynthesizer(), Utterance(text="hello world", rate=16000, speed=2.0))
    assert [chunk.mark for chunk in chunks] == [0, 4, 8]
    pcm = np.concatenate([chunk.pcm for chunk in chunks])
    assert np.array_equal(pcm, spoken("hello world", rate=16000, speed=2.0))
    assert len(pcm) == round(11 * 0.05 / 2 * 16000)
    assert heard_text(pcm, 16000) == "hello world"


async def test_delay_and_failures() -> None:
    """A delay comes before any sound; `failures` say which texts fail and how, `trouble` the others; all are noted."""
    failures: dict[str, Trouble | SpeechError] = {
        "boom": dies(0.1, "no voice", 503),
        "bad": SpeechError("no such voice"),
    }
    synthesizer = ScriptedSynthesizer(delay=2.0, failures=failures)
    start = trio.current_time()
    await say(synthesizer, Utterance(text="fine", rate=8000))
    assert trio.current_time() - start == pytest.approx(2.0)
    send, receive = trio.open_memory_channel[SpeechChunk](100)
    with pytest.raises(SpeechError, match="no voice"):
        await synthesizer.synthesize(Utterance(text="boom", rate=8000), send)
    assert len(receive.receive_nowait().pcm) == 800
    with pytest.raises(SpeechError, match="no such voice"):
        await say(synthesizer, Utterance(text="bad", rate=8000))
    synthesizer.trouble = stalls(0.05)
    with trio.move_on_after(3600) as patience:
        await synthesizer.synthesize(Utterance(text="fine", rate=8000), send)
    assert patience.cancelled_caught
    assert len(receive.receive_nowait().pcm) == 400
    assert [utterance.text for utterance in synthesizer.said] == ["fine", "boom", "bad", "fine"]


async def test_words_are_heard() -> None:
    """What was said comes back as one final text per stretch, with a partial for each block that had new letters."""
    audio = np.concatenate([QUIET, spoken("yes"), QUIET, spoken("good"), spoken("bye"), QUIET])
    assert await hear(ScriptedRecognizer(), audio) == [
        Transcript(0, "ye", False, 6.0, 6.1),
        Transcript(0, "yes", False, 6.0, 6.2),
        Transcript(0, "yes", True, 6.0, 6.2),
        Transcript(1, "g", False, 7.1, 7.2),
        Transcript(1, "goo", False, 7.1, 7.3),
        Transcript(1, "good b", False, 7.1, 7.4),
        Transcript(1, "good bye", False, 7.1, 7.5),
        Transcript(1, "good bye", True, 7.1, 7.5),
    ]


async def test_sound_without_words_is_no_text() -> None:
    """Music is heard as nothing."""
    assert await hear(ScriptedRecognizer(), np.concatenate([tone(1.0), QUIET])) == []


async def test_a_script_is_heard_instead() -> None:
    """Each stretch of sound becomes the next text, with a partial, an index and the times of the sound."""
    recognizer = ScriptedRecognizer(["yes please", "good bye"])
    assert await hear(recognizer, np.concatenate([QUIET, tone(1.0), QUIET, tone(1.0)])) == [
        Transcript(0, "yes", False, 6.0, 6.1),
        Transcript(0, "yes please", True, 6.0, 7.0),
        Transcript(1, "good", False, 8.0, 8.1),
        Transcript(1, "good bye", True, 8.0, 9.0),
    ]
    assert len(recognizer.heard) == 40


async def test_after_the_script_words_are_heard() -> None:
    """A script that is over leaves what is really said."""
    heard = await hear(ScriptedRecognizer(["one"]), np.concatenate([tone(0.5), QUIET, spoken("two"), QUIET]))
    assert [transcript.text for transcript in heard if transcript.final] == ["one", "two"]


@pytest.mark.parametrize(
    ("trouble", "error", "blocks"), [(refuses("no key", 401), "no key", 0), (dies(0.3, "gone"), "gone", 13)]
)
async def test_a_recognizer_fails(trouble: Trouble, error: str, blocks: int) -> None:
    """At once, or after that many seconds of sound: silence does not count."""
    recognizer = ScriptedRecognizer(trouble=trouble)
    with pytest.raises(SpeechError, match=error):
        await hear(recognizer, np.concatenate([QUIET, spoken("hello there")]))
    assert len(recognizer.heard) == blocks


async def test_a_recognizer_stalls() -> None:
    """It never returns and tells nothing."""
    with trio.move_on_after(3600) as patience:
        await hear(ScriptedRecognizer(trouble=stalls()), spoken("hello"))
    assert patience.cancelled_caught


async def test_scripted_speech_stands_in_for_every_provider() -> None:
    """Each call has a recognizer of its own, all share the synthesizer; afterwards the old services are back."""

    def ours(_: RecognizerOptions, __: SpeechServices) -> Recognizer:
        return mine

    mine, speech, services = ScriptedRecognizer(), ScriptedSpeech(), SpeechServices(offload=InlineOffload())
    register_recognizer("mine", ours)
    with speech.serving():
        made = [
            make_recognizer(RecognizerOptions(provider=name), services)
            for name in (None, "mine", "deepgram", "scripted")
        ]
        assert made == speech.recognizers
        assert make_synthesizer(SynthesizerOptions(provider="tencent"), services) is speech.synthesizer
    assert make_recognizer(RecognizerOptions(provider="mine"), services) is mine
    unregister("mine")
    with pytest.raises(SpeechError, match="reaches no speech service"):
        make_recognizer(RecognizerOptions(provider="deepgram"), services)
