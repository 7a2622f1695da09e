"""Tencent Cloud: signatures as the official SDKs make them, and our clients against the services as documented."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock
from rustpbx.speech.base import Recognizer, SpeechChunk, Synthesizer, Transcript, Utterance, Voice
from rustpbx.speech.registry import (
    RecognizerOptions,
    SpeechServices,
    SynthesizerOptions,
    make_recognizer,
    make_streaming_synthesizer,
    make_synthesizer,
)
from rustpbx.speech.tencent import tencent_speed, tencent_volume
from rustpbx.speech.tencent_basic import pieces
from rustpbx.speech.tencent_signing import Credentials, signed_target, tc3_authorization
from rustpbx.testing.services.service import Answer, Conversation
from rustpbx.testing.services.tencent import APP_ID, SECRET_ID, SECRET_KEY, SPEECH, EmulatedTencent
from tests.kit.services import BEGAN, HOST, NOW, PORT, golden, hear, loud, quiet, say, serving

ENDPOINT = f"http://{HOST}:{PORT}"
SIGNATURES = golden("tencent_signatures")
ACCOUNT = Credentials(**SIGNATURES["credentials"])


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> None:
    """The account is in the environment."""
    monkeypatch.setenv("TENCENT_APPID", APP_ID)
    monkeypatch.setenv("TENCENT_SECRET_ID", SECRET_ID)
    monkeypatch.setenv("TENCENT_SECRET_KEY", SECRET_KEY)


def service(**options: Any) -> EmulatedTencent:
    """Tencent, with the clock of these tests."""
    return EmulatedTencent(now=NOW, **options)


@asynccontextmanager
async def tencent(service: EmulatedTencent) -> AsyncIterator[SpeechServices]:
    """A server whose agents may name the emulated service."""
    async with serving(service, open_to_agents=True) as services:
        yield services


def recognizer(services: SpeechServices, **options: Any) -> Recognizer:
    """Ours."""
    return make_recognizer(RecognizerOptions(provider="tencent", endpoint=ENDPOINT, **options), services)


def synthesizer(services: SpeechServices, provider: str = "tencent", **extra: str) -> Synthesizer:
    """Ours."""
    return make_synthesizer(SynthesizerOptions(provider=provider, endpoint=ENDPOINT, extra=extra), services)


async def speak(services: SpeechServices, *texts: str, rate: int = 8000) -> list[SpeechChunk]:
    """The audio of a text that comes in pieces."""
    send_text, pieces_ = trio.open_memory_channel[str](len(texts))
    send, chunks = trio.open_memory_channel[SpeechChunk](10_000)
    with send_text:
        for text in texts:
            send_text.send_nowait(text)
    streaming = make_streaming_synthesizer(SynthesizerOptions(provider="tencent", endpoint=ENDPOINT), services)
    with send:
        await streaming.stream(pieces_, Voice(rate=rate), send)
    return [chunk async for chunk in chunks]


def samples(chunks: list[SpeechChunk]) -> int:
    """How much was said."""
    return sum(chunk.pcm.size for chunk in chunks)


# -- signatures ------------------------------------------------------------------------------------------------------

WEBSOCKETS = [vector for vector in SIGNATURES["vectors"] if "signature_urlencoded" in vector]


@pytest.mark.parametrize("vector", WEBSOCKETS, ids=lambda vector: vector["name"])
def test_websocket_urls_are_signed_as_the_official_sdk_signs_them(vector: dict[str, Any]) -> None:
    """The signature is the SDK's, and the URL holds the same parameters."""
    to_sign = vector["string_to_sign"].partition("?")[0]
    name = "Signature" if to_sign.startswith("GET") else "signature"
    query = signed_target(to_sign, vector["params"], ACCOUNT.secret_key, name=name)
    assert query.endswith(f"&{name}={vector['signature_urlencoded']}")
    assert dict(parse_qsl(query)) == dict(parse_qsl(urlsplit(vector["url"]).query))


POSTS = [vector for vector in SIGNATURES["vectors"] if vector["name"].startswith("text_to_voice_tc3_post")]


@pytest.mark.parametrize("vector", POSTS, ids=lambda vector: vector["name"])
def test_requests_are_signed_as_the_official_sdk_signs_them(vector: dict[str, Any]) -> None:
    """The whole Authorization header, byte for byte."""
    authorization = tc3_authorization(
        ACCOUNT,
        host=vector["host"],
        body=vector["payload"].encode(),
        timestamp=int(vector["timestamp"]),
        content_type=vector["content_type"],
    )
    assert authorization == vector["authorization"]


def test_secrets_are_not_shown() -> None:
    """An account may be logged."""
    assert ACCOUNT.secret_key not in repr(ACCOUNT)
    assert ACCOUNT.secret_id not in repr(ACCOUNT)


# -- speech to text --------------------------------------------------------------------------------------------------


async def test_utterances_begin_change_and_settle() -> None:
    """Two utterances with the service's times on the call's clock; at the end the last one is settled by `end`."""
    emulated = service(script=["one two", "three"])
    async with tencent(emulated) as services:
        audio = np.concatenate([quiet(0.4), loud(0.08), quiet(0.8), loud(0.04)])
        heard = await hear(recognizer(services), audio)
    assert [(t.index, t.text, t.final) for t in heard] == [
        (0, "one", False),
        (0, "one two", False),
        (0, "one two", True),
        (1, "three", False),
        (1, "three", True),
    ]
    times = [heard[2].started_at, heard[2].ended_at, heard[4].started_at, heard[4].ended_at]
    assert [at - BEGAN for at in times] == pytest.approx([0.4, 0.48, 1.28, 1.32])
    (conversation,) = emulated.conversations
    assert {len(message) for message in conversation.heard[:-1]} == {1280}
    genuine = [frame for frame in golden("tencent_asr")["scenarios"]["ok"]["frames"] if frame["dir"] == "client"]
    assert conversation.heard[-1] == genuine[-1]["text"]


async def test_the_model_fixes_the_rate() -> None:
    """An 8 kHz model gets 8 kHz audio, and 8 kHz without a model gets such a model; `extra` reaches the service."""
    emulated = service()
    async with tencent(emulated) as services:
        await hear(recognizer(services, model="8k_en"), quiet(0.4))
        await hear(
            recognizer(services, rate=8000, extra={"hotword_list": "腾讯云|10,ASR|5", "needvad": "0"}), quiet(0.4)
        )
    first, second = emulated.conversations
    assert [len(message) for message in first.heard[:-1]] == [640] * 10
    asked = second.asked.query
    assert [asked[name] for name in ("engine_model_type", "hotword_list", "needvad")] == [
        "8k_zh",
        "腾讯云|10,ASR|5",
        "0",
    ]


async def test_a_line_that_falls_silent_is_an_error_that_may_pass() -> None:
    """No audio for six seconds: the service says 4008, and another connection may do better."""
    send_audio, blocks = trio.open_memory_channel[AudioBlock](1)
    send, _transcripts = trio.open_memory_channel[Transcript](100)
    async with tencent(service()) as services:
        send_audio.send_nowait(AudioBlock(quiet(0.1), 16000, BEGAN))
        with pytest.raises(SpeechError, match="tencent: waiting for audio timed out") as caught:
            await recognizer(services).recognize(blocks, send)
    assert (caught.value.code, caught.value.passing) == (4008, True)


# -- text to speech --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("speed", "number"), [(0.6, "-2"), (0.8, "-1"), (1.0, "0"), (1.1, "0.5"), (1.5, "2"), (2.5, "6"), (-5, "-2")]
)
def test_speeds(speed: float, number: str) -> None:
    """Our multiplier is the documented number, in between as well, and never beyond."""
    assert tencent_speed(speed) == number


@pytest.mark.parametrize(("volume", "number"), [(0, "-10"), (5, "0"), (7, "4"), (10, "10"), (99, "10")])
def test_volumes(volume: int, number: str) -> None:
    """Normal is normal."""
    assert tencent_volume(volume) == number


async def test_a_text_is_said_whole_with_its_places() -> None:
    """Every sample arrives, cut where a character begins, and the request says how it is to be said."""
    emulated = service()
    utterance = Utterance(text="你好, world", rate=16000, speaker="101002", speed=1.2, volume=7, emotion="happy")
    async with tencent(emulated) as services:
        chunks = await say(synthesizer(services, SegmentRate="1"), utterance)
    assert samples(chunks) == round(SPEECH * 9 * 16000)
    assert [chunk.mark for chunk in chunks if chunk.mark is not None] == [0, 1, 2, 4, 5, 6, 7, 8]
    asked = emulated.conversations[0].asked.query
    wanted = {"VoiceType": "101002", "Speed": "1", "Volume": "4", "EmotionCategory": "happy", "SegmentRate": "1"}
    assert {name: asked[name] for name in wanted} == wanted
    assert emulated.conversations[0].heard == []


async def test_a_long_text_does_not_go_into_a_url() -> None:
    """It is sent as one that is being written."""
    emulated = service()
    async with tencent(emulated) as services:
        chunks = await say(synthesizer(services), Utterance(text="word " * 200, rate=8000))
    assert emulated.conversations[0].asked.path == "/stream_wsv2"
    assert samples(chunks) == round(SPEECH * 1000 * 8000)


async def test_a_text_is_said_while_it_is_written() -> None:
    """Pieces go out once the service is ready, under its session, and the audio has their places."""
    emulated = service()
    async with tencent(emulated) as services:
        chunks = await speak(services, "Hello! ", "How are", " you? Bye")
    assert samples(chunks) == round(SPEECH * 23 * 8000)
    marks = [chunk.mark for chunk in chunks if chunk.mark is not None]
    assert marks == [at for at, c in enumerate("Hello! How are you? Bye") if c.strip()]
    (conversation,) = emulated.conversations
    orders = [json.loads(message) for message in conversation.heard]
    assert [(order["action"], order["data"]) for order in orders] == [
        ("ACTION_SYNTHESIS", "Hello! "),
        ("ACTION_SYNTHESIS", "How are"),
        ("ACTION_SYNTHESIS", " you? Bye"),
        ("ACTION_COMPLETE", ""),
    ]
    assert {order["session_id"] for order in orders} == {conversation.asked.query["SessionId"]}
    assert len({order["message_id"] for order in orders}) == 4
    genuine = golden("tencent_tts")["scenarios"]["stream_wsv2"]["frames"]
    shape = next(json.loads(frame["text"]) for frame in genuine if frame["dir"] == "client")
    assert list(orders[0]) == list(shape)


async def test_text_to_voice_is_asked_in_pieces() -> None:
    """Each piece fits, is signed as it is sent, and its audio says where it begins."""
    emulated = service()
    text = "One. " + "x" * 200
    async with tencent(emulated) as services:
        chunks = await say(synthesizer(services, "tencent_basic"), Utterance(text=text, rate=8000, speed=1.5))
    assert [chunk.mark for chunk in chunks] == [0, 5, 155]
    assert samples(chunks) == round(SPEECH * (4 + 200) * 8000)
    fields = json.loads(emulated.requests[0].body)
    assert {name: fields[name] for name in ("Text", "Volume", "Speed", "VoiceType", "SampleRate", "Codec")} == {
        "Text": "One.",
        "Volume": 0,
        "Speed": 2.0,
        "VoiceType": 501004,
        "SampleRate": 8000,
        "Codec": "pcm",
    }


def test_pieces_keep_their_places() -> None:
    """All characters once, in order, each piece where it was."""
    text = "你好。" * 60 + "Hello there, " * 30
    assert all(text[piece.start :].startswith(piece.text) for piece in pieces(text))
    assert sum(len(piece.text.replace(" ", "")) for piece in pieces(text)) == len(text.replace(" ", ""))
    assert max(len(piece.text) for piece in pieces(text)) <= 150


# -- troubles --------------------------------------------------------------------------------------------------------


async def test_wrong_signatures_are_told_in_each_way() -> None:
    """The upgrade succeeds and a code follows; HTTP answers 200 with an error. None of them is tried again."""
    async with tencent(service(secret_key="another")) as services:
        with pytest.raises(SpeechError, match="tencent: authentication failed") as heard:
            await hear(recognizer(services), loud(1.0))
        with pytest.raises(SpeechError, match="tencent: authentication failed") as said:
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
        with pytest.raises(SpeechError, match=r"could not be validated. \(AuthFailure.SignatureFailure\)") as basic:
            await say(synthesizer(services, "tencent_basic"), Utterance(text="Hello", rate=16000))
    assert [caught.value.code for caught in (heard, said, basic)] == [4002, 10003, None]
    assert not any(caught.value.passing for caught in (heard, said, basic))


@pytest.mark.parametrize("variable", ["TENCENT_APPID", "TENCENT_SECRET_ID", "TENCENT_SECRET_KEY"])
async def test_missing_credentials_are_named(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent."""
    monkeypatch.delenv(variable)
    async with tencent(service()) as services:
        with pytest.raises(SpeechError, match=f"no credentials: set {variable}"):
            recognizer(services)
        with pytest.raises(SpeechError, match=f"no credentials: set {variable}"):
            synthesizer(services)


async def test_voices_are_numbers() -> None:
    """A speaker that is none is refused before anything is sent."""
    emulated = service()
    async with tencent(emulated) as services:
        for provider in ("tencent", "tencent_basic"):
            with pytest.raises(SpeechError, match="'anna' is none"):
                await say(synthesizer(services, provider), Utterance(text="Hello", rate=16000, speaker="anna"))
    assert emulated.requests == []


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_overload_may_pass(status: int) -> None:
    """Statuses of HTTP count as everywhere."""
    async with tencent(service(refuse=Answer(status))) as services:
        with pytest.raises(SpeechError, match=f"answered {status}") as heard:
            await hear(recognizer(services), loud(1.0))
        with pytest.raises(SpeechError, match=f"answered {status}") as said:
            await say(synthesizer(services, "tencent_basic"), Utterance(text="Hello", rate=16000))
    assert {caught.value.passing for caught in (heard, said)} == {True}


class Odd(EmulatedTencent):
    """Says something else than Tencent."""

    lines: tuple[str | bytes, ...] = ()

    async def converse(self, conversation: Conversation) -> None:
        """Say it, and go."""
        for line in self.lines:
            await conversation.send(line)
        await conversation.close(1000)


async def test_what_breaks_off_is_an_error() -> None:
    """A connection that is cut, or closed before its end, in all directions."""
    async with tencent(service(drop_after=2)) as services:
        with pytest.raises(SpeechError, match="tencent dropped the connection"):
            await hear(recognizer(services), loud(2.0))
        with pytest.raises(SpeechError, match="tencent dropped the connection"):
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
        with pytest.raises(SpeechError, match="tencent dropped the connection"):
            await speak(services, "Hello")
    async with tencent(Odd(now=NOW)) as services:
        with pytest.raises(SpeechError, match="tencent closed before the end of the audio"):
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))


async def test_garbage_is_left_out_and_a_notice_ends_nothing() -> None:
    """No JSON, wrong types, odd subtitles and code 10009 are passed over; subtitles may come with the end."""
    odd = Odd(now=NOW)
    odd.lines = (
        "not json",
        "[]",
        '{"code": 10009, "message": "no text for ten minutes"}',
        '{"code": 0, "result": {"subtitles": [5, {"BeginIndex": "x"}, {"BeginTime": null, "BeginIndex": -1}]}}',
        b"\x01\x00" * 8,
        '{"code": 0, "final": 1, "result": {"subtitles": [{"BeginTime": 0, "BeginIndex": 0}]}}',
    )
    async with tencent(odd) as services:
        chunks = await say(synthesizer(services), Utterance(text="Hello", rate=16000))
    assert samples(chunks) == 8


@pytest.mark.parametrize("body", [b"", b"{}", b'{"Response": {"Audio": "%%%"}}', b'{"Response": 5}', b"\xff"])
async def test_an_answer_without_audio_is_an_error(body: bytes) -> None:
    """Whatever TextToVoice answers, it is audio or an error."""
    async with tencent(service(refuse=Answer(200, body))) as services:
        with pytest.raises(SpeechError, match="tencent_basic answers something that is no audio"):
            await say(synthesizer(services, "tencent_basic"), Utterance(text="Hello", rate=16000))
