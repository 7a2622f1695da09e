"""Tencent Cloud's own API SDK against our emulated TextToVoice."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import trio
from tencentcloud.common.credential import Credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.tts.v20190823.models import TextToVoiceRequest
from tencentcloud.tts.v20190823.tts_client import TtsClient

from rustpbx.shell.network import RealNetwork
from rustpbx.testing.services.tencent import SECRET_ID, SECRET_KEY, SPEECH, EmulatedTencent
from tests.kit.real import LOOPBACK, free_port

pytestmark = pytest.mark.real_time

ResultT = TypeVar("ResultT")
RATE = 16000


@asynccontextmanager
async def sdk_against(service: EmulatedTencent, key: str = SECRET_KEY) -> AsyncIterator[Any]:
    """The official client, told that the API is our emulator on loopback."""
    port = free_port(socket.SOCK_STREAM)
    http = HttpProfile(protocol="http", endpoint=f"{LOOPBACK}:{port}")
    async with trio.open_nursery() as nursery:
        await nursery.start(service.serve, RealNetwork(), (LOOPBACK, port))
        yield TtsClient(Credential(SECRET_ID, key), "ap-guangzhou", ClientProfile(httpProfile=http))
        nursery.cancel_scope.cancel()


async def blocking(work: Callable[[], ResultT]) -> ResultT:
    """The SDK waits in a thread of its own."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


def ask(client: Any) -> Any:
    """One text."""
    request: Any = TextToVoiceRequest()
    request.Text, request.SessionId, request.Codec = "Hello, 你好.", "s-1", "pcm"
    request.SampleRate, request.VoiceType = RATE, 101001
    return client.TextToVoice(request)


async def test_the_official_client_is_understood() -> None:
    """Its signature is right for the emulator, and the emulator's answer for it."""
    async with sdk_against(EmulatedTencent(now=int(time.time()))) as client:
        answer = await blocking(lambda: ask(client))
    assert len(base64.b64decode(answer.Audio)) == 2 * round(SPEECH * 10 * RATE)


async def test_the_official_client_is_refused_with_a_wrong_key() -> None:
    """It reports what the emulator answers as what Tencent answers."""
    async with sdk_against(EmulatedTencent(now=int(time.time())), key="wrong") as client:
        with pytest.raises(TencentCloudSDKException, match="could not be validated") as caught:
            await blocking(lambda: ask(client))
    assert caught.value.get_code() == "AuthFailure.SignatureFailure"
