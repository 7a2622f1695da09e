"""VoiceApi: our client against the service as its server code behaves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.speech.base import Recognizer, Synthesizer, Utterance
from rustpbx.speech.registry import (
    RecognizerOptions,
    SpeechServices,
    SynthesizerOptions,
    make_recognizer,
    make_synthesizer,
)
from rustpbx.testing.services.service import Answer, Conversation
from rustpbx.testing.services.voiceapi import EmulatedVoiceApi
from tests.kit.services import BEGAN, HOST, PORT, golden, hear, loud, quiet, say, serving

ENDPOINT = f"http://{HOST}:{PORT}/"


@pytest.fixture(autouse=True)
def _endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEAPI_ENDPOINT", ENDPOINT)


def recognizer(services: SpeechServices, rate: int = 16000) -> Recognizer:
    """Ours."""
    return make_recognizer(RecognizerOptions(provider="voiceapi", rate=rate), services)


def synthesizer(services: SpeechServices) -> Synthesizer:
    """Ours."""
    return make_synthesizer(SynthesizerOptions(provider="voiceapi"), services)


async def test_words_come_out_while_they_are_spoken_and_when_they_are_over() -> None:
    """Interim texts, then the final one, with times of the call; the last words without silence behind them too."""
    service = EmulatedVoiceApi(script=["one two three", "four"])
    async with serving(service) as services:
        audio = np.concatenate([quiet(0.5), loud(0.3), quiet(1.5), loud(0.1)])
        heard = await hear(recognizer(services), audio)
    assert [(t.index, t.text, t.final) for t in heard] == [
        (0, "one", False),
        (0, "one two", False),
        (0, "one two three", False),
        (0, "one two three", True),
        (1, "four", False),
        (1, "four", True),
    ]
    first, last = heard[3], heard[5]
    times = [first.started_at - BEGAN, first.ended_at - BEGAN, last.started_at - BEGAN, last.ended_at - BEGAN]
    assert times == pytest.approx([0.5, 0.8, 2.3, 2.4], abs=0.15)
    (conversation,) = service.conversations
    assert conversation.asked.target == "/asr?samplerate=16000"
    assert all(isinstance(message, bytes) and message and not len(message) % 2 for message in conversation.heard)


async def test_audio_is_sent_at_the_rate_asked_for() -> None:
    """With 8000 Hz asked for, as many samples leave as that takes."""
    service = EmulatedVoiceApi()
    async with serving(service) as services:
        await hear(recognizer(services, 8000), quiet(1.0))
    (conversation,) = service.conversations
    assert conversation.asked.target == "/asr?samplerate=8000"
    assert sum(map(len, conversation.heard)) == pytest.approx(2 * 8000 * (1.0 + 2.5), abs=20)


async def test_a_text_becomes_the_audio_that_the_service_makes_of_it() -> None:
    """Rate, speaker and speed reach the service, one connection a text, and every sample arrives."""
    service = EmulatedVoiceApi()
    utterance = Utterance(text="Hello world.", rate=8000, speaker="3", speed=1.5)
    async with serving(service) as services:
        chunks = await say(synthesizer(services), utterance)
    (conversation,) = service.conversations
    assert conversation.asked.query == {
        "samplerate": "8000",
        "interrupt": "true",
        "sid": "3",
        "chunk_size": "16384",
        "speed": "1.5",
        "split": "false",
    }
    assert conversation.heard == ["Hello world."]
    assert {chunk.rate for chunk in chunks} == {8000}
    assert sum(chunk.pcm.size for chunk in chunks) == round(12 * 0.06 / 1.5 * 8000)


class Recorded(EmulatedVoiceApi):
    """Plays what the genuine server said, with audio of the same length."""

    def __init__(self, frames: list[dict[str, object]]) -> None:
        super().__init__()
        self.frames = frames

    async def converse(self, conversation: Conversation) -> None:
        """One conversation of the recording; without one, it does not even read."""
        if not self.frames:
            await trio.sleep_forever()
        for frame in self.frames:
            if frame["dir"] == "client":
                await conversation.receive()
            elif frame["opcode"] == "text":
                await conversation.send(str(frame["text"]))
            else:
                await conversation.send(b"\1\0" * (int(str(frame["len"])) // 2))
        while True:
            await conversation.receive()


@pytest.mark.parametrize("name", ["one_text", "split_into_sentences"])
async def test_the_genuine_servers_frames_are_understood(name: str) -> None:
    """Each frame that VoiceApi's server code sent counts, and its end mark ends the utterance."""
    frames = golden("voiceapi_tts")["scenarios"][name]["frames"]
    async with serving(Recorded(frames)) as services:
        chunks = await say(synthesizer(services), Utterance(text="Hello world.", rate=16000))
    binary = [frame["len"] for frame in frames if frame["opcode"] == "binary"]
    assert [2 * chunk.pcm.size for chunk in chunks] == binary


async def test_the_genuine_servers_transcripts_are_understood() -> None:
    """The texts of VoiceApi's server code come out as they are."""
    frames = golden("voiceapi_asr")["scenarios"]["online_model"]["frames"]
    async with serving(Recorded(frames)) as services:
        heard = await hear(recognizer(services), loud(8.0))
    said = [json.loads(frame["text"]) for frame in frames if frame["dir"] == "server"]
    assert [(t.text, t.final, t.index) for t in heard] == [
        (s["text"], s["finished"], s["idx"]) for s in said if s["text"]
    ]


@pytest.mark.parametrize(("status", "passing"), [(401, False), (403, False), (429, True), (500, True), (503, True)])
async def test_a_refusal_names_the_status_and_whether_to_try_again(status: int, passing: bool) -> None:
    """Both directions say what the service answered."""
    async with serving(EmulatedVoiceApi(refuse=Answer(status, b"because"))) as services:
        with pytest.raises(SpeechError, match=f"voiceapi answered {status} .*because") as heard:
            await hear(recognizer(services), loud(1.0))
        with pytest.raises(SpeechError, match=f"voiceapi answered {status} .*because") as said:
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
    assert {(caught.value.code, caught.value.passing) for caught in (heard, said)} == {(status, passing)}


async def test_a_service_that_takes_no_more_audio_is_given_up() -> None:
    """Its buffers fill up; after ten seconds that is an error, not a call that waits for ever."""
    async with serving(Recorded([])) as services:
        with pytest.raises(SpeechError, match="voiceapi takes nothing any more"):
            await hear(recognizer(services), loud(60.0), pace=100)


async def test_a_connection_that_ends_early_is_an_error() -> None:
    """Cut off after some frames, in both directions; nothing waits for what cannot come."""
    async with serving(EmulatedVoiceApi(drop_after=1)) as services:
        with pytest.raises(SpeechError, match="voiceapi dropped the connection"):
            await say(synthesizer(services), Utterance(text="A longer text", rate=16000))
        with pytest.raises(SpeechError, match="voiceapi dropped the connection"):
            await hear(recognizer(services), loud(2.0))


async def test_a_service_that_is_not_there_or_never_answers() -> None:
    """A refused connection and a silent server are errors that may pass."""
    async with serving(EmulatedVoiceApi(silent=True)) as services:
        with pytest.raises(SpeechError, match="voiceapi does not answer") as caught:
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
        assert caught.value.passing
        options = SynthesizerOptions(provider="voiceapi", endpoint=f"http://{HOST}:1")
        with pytest.raises(SpeechError, match=r"voiceapi: 10\.0\.0\.9 is a private address") as caught:
            await say(make_synthesizer(options, services), Utterance(text="Hello", rate=16000))
        assert (caught.value.code, caught.value.passing) == (403, False)


async def test_speakers_are_numbers() -> None:
    """A speaker that is none is refused before anything is sent."""
    service = EmulatedVoiceApi()
    async with serving(service) as services:
        with pytest.raises(SpeechError, match="'anna' is none"):
            await say(synthesizer(services), Utterance(text="Hello", rate=16000, speaker="anna"))
    assert service.requests == []
