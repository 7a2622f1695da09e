"""Deepgram: our client against the service as its documentation says it behaves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock
from rustpbx.shell.nurseries import sole_error
from rustpbx.speech.base import Recognizer, SpeechChunk, Synthesizer, Transcript, Utterance, Voice
from rustpbx.speech.registry import (
    RecognizerOptions,
    SpeechServices,
    SynthesizerOptions,
    make_recognizer,
    make_streaming_synthesizer,
    make_synthesizer,
)
from rustpbx.testing.services.deepgram import KEY, SPEECH, EmulatedDeepgram
from rustpbx.testing.services.service import Answer, Conversation
from tests.kit.services import BEGAN, HOST, PORT, golden, hear, loud, quiet, say, serving

ENDPOINT = f"http://{HOST}:{PORT}"


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is where Deepgram would be, and the key is in the environment."""
    monkeypatch.setattr("rustpbx.speech.deepgram.ENDPOINT", ENDPOINT)
    monkeypatch.setenv("DEEPGRAM_API_KEY", KEY)


def recognizer(services: SpeechServices, **options: object) -> Recognizer:
    """Ours."""
    return make_recognizer(RecognizerOptions(provider="deepgram", **options), services)  # type: ignore[arg-type] # checked by use


def synthesizer(services: SpeechServices) -> Synthesizer:
    """Ours."""
    return make_synthesizer(SynthesizerOptions(provider="deepgram"), services)


def texts(heard: list[Transcript]) -> list[tuple[int, str, bool]]:
    """Without times."""
    return [(t.index, t.text, t.final) for t in heard]


async def test_stretches_that_are_settled_join_to_one_utterance() -> None:
    """Interim and settled stretches are told as one growing text, and once as final, with the times of the call."""
    service = EmulatedDeepgram(script=["one two three four", "five"])
    async with serving(service) as services:
        audio = np.concatenate([quiet(0.5), loud(0.4), quiet(1.0), loud(0.1)])
        heard = await hear(recognizer(services), audio)
    assert texts(heard) == [
        (0, "one", False),
        (0, "one two", False),
        (0, "one two three", False),
        (0, "one two three four", False),
        (0, "one two three four", False),
        (0, "one two three four", True),
        (1, "five", False),
        (1, "five", False),
        (1, "five", True),
    ]
    times = [heard[5].started_at, heard[5].ended_at, heard[8].started_at, heard[8].ended_at]
    assert [at - BEGAN for at in times] == pytest.approx([0.5, 0.9, 1.9, 2.0])


async def test_what_is_asked_is_what_the_official_client_asks() -> None:
    """The query of the upgrade, sorted as the SDK does, and its authorization; at the end CloseStream, as text."""
    service = EmulatedDeepgram()
    async with serving(service) as services:
        await hear(recognizer(services, language="multi"), quiet(0.3))
    (conversation,) = service.conversations
    (genuine,) = [golden("deepgram_asr")["scenarios"]["ok"]["handshake"]]
    assert conversation.asked.target == genuine["target"]
    assert conversation.asked.headers["authorization"] == f"Token {KEY}"
    assert [len(message) for message in conversation.heard[:-1]] == [3200] * 3
    last = conversation.heard[-1]
    assert isinstance(last, str)
    assert json.loads(last) == {"type": "CloseStream"}


async def test_options_become_parameters() -> None:
    """Model, language and whatever `extra` holds reach the service."""
    service = EmulatedDeepgram()
    async with serving(service) as services:
        options = {
            "model": "nova-2",
            "language": "de",
            "extra": {"endpointing": "500", "keywords": "a b"},
            "rate": 8000,
        }
        await hear(recognizer(services, **options), quiet(0.2))
    query = service.conversations[0].asked.query
    assert {name: query[name] for name in ("model", "language", "endpointing", "keywords", "sample_rate")} == {
        "model": "nova-2",
        "language": "de",
        "endpointing": "500",
        "keywords": "a b",
        "sample_rate": "8000",
    }


async def test_silence_on_the_line_does_not_end_the_stream() -> None:
    """Half a minute without a block: KeepAlive holds the stream, and what is said then is heard."""
    service = EmulatedDeepgram(script=["hello"])
    send_audio, blocks = trio.open_memory_channel[AudioBlock](0)
    send, transcripts = trio.open_memory_channel[Transcript](100)
    async with serving(service) as services, trio.open_nursery() as nursery:
        nursery.start_soon(recognizer(services).recognize, blocks, send)
        await send_audio.send(AudioBlock(quiet(0.1), 16000, BEGAN))
        await trio.sleep(31)
        await send_audio.send(AudioBlock(loud(0.1), 16000, BEGAN + 31))
        send_audio.close()
        heard = await transcripts.receive()
        nursery.cancel_scope.cancel()
    assert heard.text == "hello"
    assert heard.started_at == pytest.approx(BEGAN + 31)
    assert [m for m in service.conversations[0].heard if isinstance(m, str) and "KeepAlive" in m] == [
        json.dumps({"type": "KeepAlive"})
    ] * 6


async def test_a_call_that_says_nothing_opens_no_stream() -> None:
    """Without a block of audio there is nothing to ask."""
    service = EmulatedDeepgram()
    async with serving(service) as services:
        assert await hear(recognizer(services), quiet(0)) == []
    assert service.requests == []


async def test_a_text_is_asked_for_as_the_official_client_does() -> None:
    """Target and body of the request, and every sample of the answer, as pieces of any size."""
    service = EmulatedDeepgram()
    async with serving(service) as services:
        chunks = await say(synthesizer(services), Utterance(text="Hello world.", rate=16000))
    genuine = golden("deepgram_tts")["scenarios"]["speak_rest"]["request"]
    (asked,) = service.requests
    assert (asked.method, sorted(asked.target.split("?")[1].split("&"))) == (
        "POST",
        sorted(genuine["target"].split("?")[1].split("&")),
    )
    assert json.loads(asked.body) == json.loads(genuine["body"])
    assert sum(chunk.pcm.size for chunk in chunks) == round(SPEECH * 12 * 16000)


@pytest.mark.parametrize(("speed", "asked"), [(1.0, None), (1.25, "1.25"), (9.0, "1.5"), (0.1, "0.7")])
async def test_speed_is_asked_for_within_the_range_of_the_service(speed: float, asked: str | None) -> None:
    """A normal speed is not mentioned: voices that have none refuse the word."""
    service = EmulatedDeepgram()
    async with serving(service) as services:
        await say(synthesizer(services), Utterance(text="Hello", rate=16000, speed=speed))
    assert service.requests[0].query.get("speed") == asked


async def speak(services: SpeechServices, *pieces: str, pause: float = 0.0) -> list[SpeechChunk]:
    """The audio of a text that comes in pieces."""
    send_text, texts_ = trio.open_memory_channel[str](0)
    send, chunks = trio.open_memory_channel[SpeechChunk](10_000)

    async def write() -> None:
        with send_text:
            for piece in pieces:
                await send_text.send(piece)
                await trio.sleep(pause)

    with sole_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            streaming = make_streaming_synthesizer(SynthesizerOptions(provider="deepgram"), services)
            with send:
                await streaming.stream(texts_, Voice(rate=8000, speaker="aura-asteria-en"), send)
            nursery.cancel_scope.cancel()
    return [chunk async for chunk in chunks]


async def test_a_text_is_said_while_it_is_written() -> None:
    """Sentences are flushed as they are whole, and each one's first audio says where in the text it begins."""
    service = EmulatedDeepgram()
    async with serving(service) as services:
        chunks = await speak(services, "Hello wor", "ld. How are ", "you", "? Bye", pause=1.0)
    assert [chunk.mark for chunk in chunks if chunk.mark is not None] == [0, 13, 26]
    said = "Hello world.", "How are you?", "Bye"
    assert sum(chunk.pcm.size for chunk in chunks) == sum(round(SPEECH * len(text) * 8000) for text in said)
    (conversation,) = service.conversations
    assert [json.loads(message) for message in conversation.heard] == [
        {"type": "Speak", "text": "Hello world. "},
        {"type": "Flush"},
        {"type": "Speak", "text": "How are you? "},
        {"type": "Flush"},
        {"type": "Speak", "text": "Bye"},
        {"type": "Flush"},
        {"type": "Close"},
    ]


async def test_flushes_keep_to_the_limit_of_the_service() -> None:
    """Forty short sentences at once: no flush is ignored, and every word is heard."""
    service = EmulatedDeepgram()
    async with serving(service) as services:
        chunks = await speak(services, *["A b. "] * 40)
    (conversation,) = service.conversations
    assert sum("Flush" in str(message) for message in conversation.heard) <= 20
    assert not [message for message in conversation.said if "Warning" in str(message)]
    spoken = sum(len(json.loads(m)["text"]) for m in conversation.heard if "Speak" in str(m))
    assert sum(chunk.pcm.size for chunk in chunks) == pytest.approx(SPEECH * spoken * 8000, rel=0.1)


@pytest.mark.parametrize(
    ("refusal", "words", "passing"),
    [
        (Answer(400, b'{"err_msg": "bad"}'), "deepgram answered 400 Bad Request", False),
        (Answer(402), "deepgram answered 402 Payment Required", False),
        (Answer(429), "deepgram answered 429 Too Many Requests", True),
        (Answer(503), "deepgram answered 503 Service Unavailable", True),
    ],
)
async def test_refusals_name_the_status(refusal: Answer, words: str, passing: bool) -> None:
    """Transcription, streaming and plain speech say what Deepgram answered, and whether another try may help."""
    async with serving(EmulatedDeepgram(refuse=refusal)) as services:
        with pytest.raises(SpeechError, match=words) as heard:
            await hear(recognizer(services), loud(0.5))
        with pytest.raises(SpeechError, match=words) as said:
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
    assert {caught.value.passing for caught in (heard, said)} == {passing}


async def test_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key is told with Deepgram's own words; a missing one before anything is sent, with the variable."""
    service = EmulatedDeepgram(key="another")
    async with serving(service) as services:
        with pytest.raises(SpeechError, match=r"401 Unauthorized: .*Invalid credentials"):
            await hear(recognizer(services), loud(0.5))
        with pytest.raises(SpeechError, match="401 Unauthorized: Invalid credentials") as caught:
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
        assert KEY not in str(caught.value)
        asked = len(service.requests)
        monkeypatch.delenv("DEEPGRAM_API_KEY")
        with pytest.raises(SpeechError, match="no credentials: set DEEPGRAM_API_KEY"):
            recognizer(services)
        with pytest.raises(SpeechError, match="no credentials: set DEEPGRAM_API_KEY"):
            synthesizer(services)
    assert len(service.requests) == asked


class Odd(EmulatedDeepgram):
    """Says something else than Deepgram, and then closes with `code`."""

    lines: tuple[str | bytes, ...] = ()
    code = 1000
    after = 1  # so many messages of the client's

    async def converse(self, conversation: Conversation) -> None:
        """Say it."""
        for _ in range(self.after):
            await conversation.receive()
        for line in self.lines:
            await conversation.send(line)
        if self.code == 1006:
            await conversation.drop()
        else:
            await conversation.close(self.code, "NET-0000" if self.code != 1000 else "")


def results(transcript: object, start: object, duration: object, **more: object) -> str:
    """A `Results` message."""
    channel = {"alternatives": [{"transcript": transcript}]}
    return json.dumps({"type": "Results", "start": start, "duration": duration, "channel": channel, **more})


GARBAGE = (
    "not json",
    "[1, 2]",
    b"\x00\x01",
    '{"type": "Results"}',
    '{"type": "Results", "channel": {"alternatives": []}}',
    results(5, "x", None, is_final=1),
    '{"type": "Unheard"}',
    results("b", 9, 1, is_final=True),
    results("a", 2, 1, is_final=True, speech_final=True),
)


async def test_garbage_is_left_out_and_times_never_run_backwards() -> None:
    """Whatever is no transcript is ignored; the rest counts, with an end that is not before its begin."""
    service = Odd()
    service.after = 2
    service.lines = (*GARBAGE, '{"type": "Metadata"}')
    async with serving(service) as services:
        heard = await hear(recognizer(services), loud(0.1))
    assert texts(heard) == [(0, "b", False), (0, "b a", False), (0, "b a", True)]
    assert all(t.started_at <= t.ended_at for t in heard)


@pytest.mark.parametrize(
    ("code", "words"),
    [(1011, "deepgram closed the connection with 1011: NET-0000"), (1006, "deepgram dropped the connection")],
)
async def test_a_stream_that_ends_early_is_an_error(code: int, words: str) -> None:
    """In the middle of the audio the service closes, or its connection breaks."""
    service = Odd()
    service.code = code
    async with serving(service) as services:
        with pytest.raises(SpeechError, match=words) as caught:
            await hear(recognizer(services), loud(2.0))
        assert caught.value.passing
        with pytest.raises(SpeechError, match=words):
            await speak(services, "Hello. ")


async def test_an_error_message_ends_the_stream_with_its_words() -> None:
    """What Deepgram says in an Error message reaches the call."""
    service = Odd()
    service.lines = ('{"type": "Error", "variant": "SchemaError", "description": "no such field"}',)
    async with serving(service) as services:
        with pytest.raises(SpeechError, match="deepgram: no such field"):
            await hear(recognizer(services), loud(1.0))
