"""Deepgram's own SDK against our emulated Deepgram: what satisfies it must satisfy us, and the other way round."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
import trio
from deepgram import DeepgramClient
from deepgram.core.api_error import ApiError
from deepgram.environment import DeepgramClientEnvironment

from rustpbx.shell.network import RealNetwork
from rustpbx.testing.services.deepgram import KEY, SPEECH, EmulatedDeepgram
from tests.kit.real import LOOPBACK, free_port
from tests.kit.services import loud, quiet

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning"),  # the SDK's own imports
]

ResultT = TypeVar("ResultT")
RATE = 16000


@asynccontextmanager
async def sdk_against(service: EmulatedDeepgram, key: str = KEY) -> AsyncIterator[DeepgramClient]:
    """The official client, told that Deepgram is our emulator on loopback."""
    port = free_port(socket.SOCK_STREAM)
    http, websocket = f"http://{LOOPBACK}:{port}", f"ws://{LOOPBACK}:{port}"
    places = {"base": http, "production": websocket, "agent": websocket, "agent_rest": http}
    environment = DeepgramClientEnvironment(**places)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.serve, RealNetwork(), (LOOPBACK, port))
        yield DeepgramClient(api_key=key, environment=environment)
        nursery.cancel_scope.cancel()


async def blocking(work: Callable[[], ResultT]) -> ResultT:
    """The SDK waits in a thread of its own."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


async def test_the_official_client_transcribes() -> None:
    """Audio in, interim and final results out, and a normal end after CloseStream."""
    service = EmulatedDeepgram(script=["one two"])

    def transcribe(client: DeepgramClient) -> list[tuple[str, bool]]:
        asked = {"model": "nova-3", "encoding": "linear16", "sample_rate": str(RATE), "interim_results": "true"}
        with client.listen.v1.connect(**asked) as stream:
            for pcm in (loud(0.1), loud(0.1), quiet(0.1)):
                stream.send_media(pcm.astype("<i2").tobytes())
            stream.send_close_stream()
            messages = list(stream)
        results = [message for message in messages if message.type == "Results"]
        return [(result.channel.alternatives[0].transcript, result.is_final) for result in results]

    async with sdk_against(service) as client:
        heard = await blocking(lambda: transcribe(client))
    assert heard == [("one", True), ("two", False), ("two", True)]


async def test_the_official_client_speaks_over_http() -> None:
    """A request for raw audio is answered with as many samples as the text has."""

    def generate(client: DeepgramClient) -> bytes:
        audio = client.speak.v1.audio.generate(
            text="Hello.", model="aura-2-thalia-en", encoding="linear16", container="none", sample_rate=RATE
        )
        return b"".join(audio)

    async with sdk_against(EmulatedDeepgram()) as client:
        audio = await blocking(lambda: generate(client))
    assert len(audio) == 2 * round(SPEECH * 6 * RATE)


async def test_the_official_client_is_refused_with_a_wrong_key() -> None:
    """It reports what the emulator answers as what Deepgram answers."""
    async with sdk_against(EmulatedDeepgram(), key="wrong") as client:
        with pytest.raises(ApiError) as caught:
            await blocking(lambda: b"".join(client.speak.v1.audio.generate(text="Hello.")))
    assert (caught.value.status_code, caught.value.body["err_code"]) == (401, "INVALID_AUTH")
