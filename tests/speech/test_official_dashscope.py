"""Alibaba Cloud's own SDK against our emulated DashScope."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import dashscope
import pytest
import trio
from dashscope.audio.asr import Recognition, RecognitionCallback, RecognitionResult
from dashscope.audio.tts_v2 import AudioFormat, SpeechSynthesizer

from rustpbx.shell.network import RealNetwork
from rustpbx.testing.services.aliyun import KEY, PATH, SPEECH, EmulatedAliyun
from tests.kit.real import LOOPBACK, free_port
from tests.kit.services import loud, quiet

pytestmark = pytest.mark.real_time

ResultT = TypeVar("ResultT")
RATE = 16000


@asynccontextmanager
async def sdk_against(service: EmulatedAliyun, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The official client, told that DashScope is our emulator on loopback."""
    port = free_port(socket.SOCK_STREAM)
    monkeypatch.setattr(dashscope, "base_websocket_api_url", f"ws://{LOOPBACK}:{port}{PATH}")
    monkeypatch.setattr(dashscope, "api_key", KEY)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.serve, RealNetwork(), (LOOPBACK, port))
        yield
        nursery.cancel_scope.cancel()


async def blocking(work: Callable[[], ResultT]) -> ResultT:
    """The SDK waits in a thread of its own."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


class Heard(RecognitionCallback):
    """What the SDK passes up."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, bool]] = []
        self.problems: list[object] = []

    def on_event(self, result: RecognitionResult) -> None:
        """A sentence, or a part of one."""
        sentence: Any = result.get_sentence()
        self.texts.append((sentence["text"], RecognitionResult.is_sentence_end(sentence)))

    def on_error(self, result: RecognitionResult) -> None:
        """The task has failed."""
        self.problems.append(result)


async def test_the_official_client_transcribes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audio in, interim and final results out, heartbeats left out, and a normal end."""
    heard = Heard()

    def transcribe() -> None:
        recognition = Recognition(model="paraformer-realtime-v2", format="pcm", sample_rate=RATE, callback=heard)
        recognition.start()
        for pcm in (loud(0.1), loud(0.1), quiet(0.1)):
            recognition.send_audio_frame(pcm.astype("<i2").tobytes())
        recognition.stop()  # type: ignore[no-untyped-call]  # the SDK's

    async with sdk_against(EmulatedAliyun(script=["one two"]), monkeypatch):
        await blocking(transcribe)
    assert heard.texts == [("one", False), ("one two", False), ("one two", True)]
    assert heard.problems == []


async def test_the_official_client_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text becomes as many samples as it has."""

    def speak() -> bytes:
        form = AudioFormat.PCM_16000HZ_MONO_16BIT
        audio: bytes = SpeechSynthesizer(model="cosyvoice-v2", voice="longyumi_v2", format=form).call("Hello.")
        return audio

    async with sdk_against(EmulatedAliyun(), monkeypatch):
        audio = await blocking(speak)
    assert len(audio) == 2 * round(SPEECH * 6 * RATE)
