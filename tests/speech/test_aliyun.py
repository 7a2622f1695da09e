"""Alibaba Cloud: our client against DashScope as its documentation says it behaves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.shell.nurseries import sole_error
from rustpbx.speech.aliyun import aliyun_volume
from rustpbx.speech.base import Recognizer, SpeechChunk, Synthesizer, Utterance, Voice
from rustpbx.speech.registry import (
    RecognizerOptions,
    SpeechServices,
    SynthesizerOptions,
    make_recognizer,
    make_streaming_synthesizer,
    make_synthesizer,
)
from rustpbx.testing.services.aliyun import KEY, PATH, SPEECH, EmulatedAliyun
from rustpbx.testing.services.service import Answer, Conversation
from tests.kit.services import BEGAN, HOST, PORT, golden, hear, loud, quiet, say, serving

ENDPOINT = f"ws://{HOST}:{PORT}{PATH}"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is in the environment."""
    monkeypatch.setenv("DASHSCOPE_API_KEY", KEY)


@asynccontextmanager
async def aliyun(service: EmulatedAliyun) -> AsyncIterator[SpeechServices]:
    """A server whose agents may name the emulated service."""
    async with serving(service, open_to_agents=True) as services:
        yield services


def recognizer(services: SpeechServices, **options: Any) -> Recognizer:
    """Ours."""
    return make_recognizer(RecognizerOptions(provider="aliyun", endpoint=ENDPOINT, **options), services)


def synthesizer(services: SpeechServices, **extra: str) -> Synthesizer:
    """Ours."""
    return make_synthesizer(SynthesizerOptions(provider="aliyun", endpoint=ENDPOINT, extra=extra), services)


async def speak(services: SpeechServices, *texts: str, pause: float = 0.0) -> list[SpeechChunk]:
    """The audio of a text that comes in pieces."""
    send_text, pieces = trio.open_memory_channel[str](0)
    send, chunks = trio.open_memory_channel[SpeechChunk](10_000)

    async def write() -> None:
        with send_text:
            for text in texts:
                await send_text.send(text)
                await trio.sleep(pause)

    with sole_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            streaming = make_streaming_synthesizer(SynthesizerOptions(provider="aliyun", endpoint=ENDPOINT), services)
            with send:
                await streaming.stream(pieces, Voice(rate=8000), send)
            nursery.cancel_scope.cancel()
    return [chunk async for chunk in chunks]


def samples(chunks: list[SpeechChunk]) -> int:
    """How much was said."""
    return sum(chunk.pcm.size for chunk in chunks)


def orders(conversation: Conversation) -> list[dict[str, Any]]:
    """What the client ordered."""
    return [json.loads(message) for message in conversation.heard if isinstance(message, str)]


def genuine(recording: str, scenario: str) -> list[dict[str, Any]]:
    """The orders of the official SDK."""
    frames = golden(recording)["scenarios"][scenario]["frames"]
    return [json.loads(f["text"]) for f in frames if f["dir"] == "client" and f["opcode"] == "text"]


async def test_sentences_grow_and_end() -> None:
    """Interim and final texts with times of the call, heartbeats left out, the last sentence brought out by the end."""
    service = EmulatedAliyun(script=["one two", "three"])
    async with aliyun(service) as services:
        audio = np.concatenate([quiet(0.5), loud(0.2), quiet(0.9), loud(0.1)])
        heard = await hear(recognizer(services), audio)
    assert [(t.index, t.text, t.final) for t in heard] == [
        (0, "one", False),
        (0, "one two", False),
        (0, "one two", True),
        (1, "three", False),
        (1, "three", True),
    ]
    times = [heard[1].started_at, heard[1].ended_at, heard[4].started_at, heard[4].ended_at]
    assert [at - BEGAN for at in times] == pytest.approx([0.5, 0.7, 1.6, 1.7])


async def test_a_task_is_ordered_as_the_official_client_orders_it() -> None:
    """The same orders with the same fields; no audio before the task has started; the key in the header."""
    service = EmulatedAliyun(start=1.0)
    extra = {"max_sentence_silence": "600", "disfluency_removal_enabled": "false"}
    async with aliyun(service) as services:
        await hear(recognizer(services, language="en", extra=extra), loud(0.3))
    (conversation,) = service.conversations
    ours, theirs = orders(conversation), genuine("aliyun_asr", "ok_with_options")
    task_id = ours[0]["header"]["task_id"]
    assert ours == json.loads(json.dumps(theirs).replace(theirs[0]["header"]["task_id"], task_id))
    assert conversation.asked.headers["authorization"] == f"Bearer {KEY}"
    assert [type(message) for message in conversation.heard] == [str, bytes, bytes, bytes, str]


async def test_a_call_in_which_nothing_is_said_is_no_error() -> None:
    """The service fails a task without speech at its end; that is not worth a word."""
    async with aliyun(EmulatedAliyun()) as services:
        assert await hear(recognizer(services), quiet(1.0)) == []


@pytest.mark.parametrize(("volume", "number"), [(0, 0), (5, 50), (10, 100), (99, 100), (-1, 0)])
def test_volumes(volume: int, number: int) -> None:
    """Normal is normal."""
    assert aliyun_volume(volume) == number


async def test_a_text_is_said_as_it_is_asked() -> None:
    """Voice, speed, volume and parameters reach the service, and every sample comes back."""
    service = EmulatedAliyun()
    utterance = Utterance(text="Hello world.", rate=16000, speaker="longxiaochun", speed=1.5, volume=7)
    async with aliyun(service) as services:
        chunks = await say(synthesizer(services, model="cosyvoice-v1", pitch="2", enable_ssml="true"), utterance)
    assert samples(chunks) == round(SPEECH * 12 / 1.5 * 16000)
    run, go_on, finish = orders(service.conversations[0])
    assert run["payload"]["model"] == "cosyvoice-v1"
    assert run["payload"]["parameters"] == {
        "voice": "longxiaochun",
        "volume": 70,
        "text_type": "PlainText",
        "sample_rate": 16000,
        "rate": 1.5,
        "format": "pcm",
        "pitch": 2,
        "enable_ssml": True,
    }
    assert go_on["payload"]["input"] == {"text": "Hello world."}
    assert finish["payload"] == {"input": {}}
    theirs = genuine("aliyun_tts", "single_text")
    assert [set(order["payload"]) for order in (run, go_on, finish)] == [set(order["payload"]) for order in theirs]


async def test_a_text_is_said_while_it_is_written() -> None:
    """Pieces go out as they come; each sentence's first audio says where in the text it begins."""
    service = EmulatedAliyun()
    async with aliyun(service) as services:
        chunks = await speak(services, "Hello wor", "ld. How", " are you? Bye", pause=1.0)
    assert [chunk.mark for chunk in chunks if chunk.mark is not None] == [0, 13, 26]
    assert samples(chunks) == sum(round(SPEECH * len(text) * 8000) for text in ("Hello world.", "How are you?", "Bye"))


async def test_a_long_pause_in_a_text_begins_another_task() -> None:
    """After 23 s without text a task would fail: it is finished before, and what comes then counts on."""
    service = EmulatedAliyun()
    async with aliyun(service) as services:
        chunks = await speak(services, "One.", "Two.", pause=60.0)
    assert [chunk.mark for chunk in chunks if chunk.mark is not None] == [0, 4]
    assert len(service.conversations) == 2
    assert [orders(conversation)[-1]["header"]["action"] for conversation in service.conversations] == [
        "finish-task"
    ] * 2


# -- troubles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "passing"), [(401, False), (403, False), (429, True), (502, True)])
async def test_a_refusal_names_the_status(status: int, passing: bool) -> None:
    """Both directions say what the service answered."""
    async with aliyun(EmulatedAliyun(refuse=Answer(status, b"because"))) as services:
        with pytest.raises(SpeechError, match=f"aliyun answered {status} .*because") as heard:
            await hear(recognizer(services), loud(1.0))
        with pytest.raises(SpeechError, match=f"aliyun answered {status} .*because") as said:
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
    assert {(caught.value.code, caught.value.passing) for caught in (heard, said)} == {(status, passing)}


async def test_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key is named before anything is sent."""
    service = EmulatedAliyun()
    async with aliyun(service) as services:
        monkeypatch.delenv("DASHSCOPE_API_KEY")
        with pytest.raises(SpeechError, match="no credentials: set DASHSCOPE_API_KEY"):
            recognizer(services)
        with pytest.raises(SpeechError, match="no credentials: set DASHSCOPE_API_KEY"):
            synthesizer(services)
        assert KEY not in repr(make_recognizer(RecognizerOptions(provider="aliyun", secret_key=KEY), services))
    assert service.requests == []


async def test_a_task_that_fails_says_why() -> None:
    """A bad model fails at the start, once and for all."""
    async with aliyun(EmulatedAliyun()) as services:
        with pytest.raises(SpeechError, match=r"aliyun: Model not exist. \(ModelNotFound\)") as caught:
            await hear(recognizer(services, model="nonsense"), loud(1.0))
    assert not caught.value.passing


class Odd(EmulatedAliyun):
    """Starts the task, says `lines`, and closes."""

    lines: tuple[str | bytes, ...] = ()

    async def converse(self, conversation: Conversation) -> None:
        """Say it."""
        await conversation.receive()
        await conversation.send('{"header": {"event": "task-started"}, "payload": {}}')
        await conversation.receive()
        for line in self.lines:
            await conversation.send(line)
        await trio.sleep(1.0)
        await conversation.close(1000)


def result(**sentence: object) -> str:
    """A `result-generated` of transcription."""
    output = {"sentence": sentence}
    return json.dumps({"header": {"event": "result-generated"}, "payload": {"output": output, "usage": None}})


async def test_garbage_is_left_out() -> None:
    """No JSON, wrong types, audio out of place, times that run backwards, a final without `sentence_end`."""
    odd = Odd()
    odd.lines = (
        "not json",
        "[]",
        b"\x00\x01",
        '{"header": 5, "payload": 6}',
        '{"header": {"event": "result-generated"}, "payload": {"output": null}}',
        result(text=5, sentence_end=True),
        result(text="a", begin_time="x", end_time=[], words=[5], sentence_end=False),
        result(text="a b", begin_time=900, end_time=100),
        result(text="c", begin_time=1000, end_time=None, sentence_end=True),
        '{"header": {"event": "task-finished"}, "payload": {}}',
    )
    async with aliyun(odd) as services:
        heard = await hear(recognizer(services), loud(0.2), pace=100)
    assert [(t.index, t.text, t.final) for t in heard] == [(0, "a", False), (0, "a b", True), (1, "c", True)]
    assert all(t.started_at <= t.ended_at for t in heard)


async def test_what_breaks_off_is_an_error() -> None:
    """Cut, closed before its end, failed in the middle with or without a reason: each is told, and may pass or not."""
    async with aliyun(EmulatedAliyun(drop_after=2)) as services:
        with pytest.raises(SpeechError, match="aliyun dropped the connection"):
            await hear(recognizer(services), loud(2.0))
        with pytest.raises(SpeechError, match="aliyun dropped the connection"):
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
    async with aliyun(Odd()) as services:
        with pytest.raises(SpeechError, match="aliyun closed before the end of the task"):
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
    failing = Odd()
    failing.lines = ('{"header": {"event": "task-failed"}}',)
    async with aliyun(failing) as services:
        with pytest.raises(SpeechError, match=r"aliyun: no reason given \(task failed\)") as caught:
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
        assert not caught.value.passing


async def test_a_task_that_never_starts_is_given_up() -> None:
    """The service is silent behind the upgrade."""
    async with aliyun(EmulatedAliyun(start=3600)) as services:
        with pytest.raises(SpeechError, match="aliyun does not start the task") as caught:
            await say(synthesizer(services), Utterance(text="Hello", rate=16000))
        assert caught.value.passing
