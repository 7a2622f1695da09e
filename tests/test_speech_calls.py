"""Whole calls whose speech service is on the network, and has its troubles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from rustpbx.session.shell.listening import FIRST_PAUSE
from rustpbx.settings import OutboundConfig
from rustpbx.speech import voiceapi
from rustpbx.speech.registry import register_recognizer, unregister
from rustpbx.testing.network import MemoryNetwork
from rustpbx.testing.services.service import Answer
from rustpbx.testing.services.voiceapi import EmulatedVoiceApi
from rustpbx.testing.voice import spoken
from rustpbx.values import network
from tests.kit.house import House, server_config
from tests.kit.services import HOST, PORT
from tests.test_calls import answered, over, quiet_house

EARS = {"asr": {"provider": "distant", "endpoint": f"http://{HOST}:{PORT}"}, "tts": {"provider": "scripted"}}


@pytest.fixture(autouse=True)
def _distant() -> Iterator[None]:
    """VoiceApi under a name that nothing else stands in for."""
    register_recognizer("distant", voiceapi.recognizer)
    yield
    unregister("distant")


@asynccontextmanager
async def house_with(service: EmulatedVoiceApi) -> AsyncIterator[House]:
    """A server that may reach the service."""
    config = server_config(outbound=OutboundConfig(allow_private=(network("10.0.0.0/8"),)))
    async with quiet_house(config=config) as house, trio.open_nursery() as nursery:
        await nursery.start(service.serve, MemoryNetwork(house.wire, HOST), (HOST, PORT))
        yield house
        nursery.cancel_scope.cancel()


async def test_a_service_that_drops_is_reported_once_and_heard_again() -> None:
    """The connection is cut in the middle of a word: one error, and what is said then arrives, counted on."""
    service = EmulatedVoiceApi(script=["second words"], drop_after=3)
    async with house_with(service) as house, answered(house, **EARS) as (call, agent):
        await call.say(spoken("first words"))
        error = await agent.until("error")
        assert (error["sender"], error["error"]) == ("asr.distant", "voiceapi dropped the connection")
        service.drop_after = None
        await trio.sleep(2 * FIRST_PAUSE)
        await call.say(spoken("second words"))
        final = await agent.until("asrFinal")
        assert (final["index"], final["text"]) == (1, "second words")
        await agent.send("hangup")
        await over(agent)
    assert agent.names.count("error") == 1
    assert len(service.conversations) == 2


async def test_a_service_that_refuses_for_good_is_asked_once() -> None:
    """Wrong credentials: one error with its status, no second try, and the call goes on without ears."""
    service = EmulatedVoiceApi(refuse=Answer(401))
    async with house_with(service) as house, answered(house, **EARS) as (call, agent):
        await call.say(spoken("anybody there"))
        error = await agent.until("error")
        assert (error["error"], error["code"]) == ("voiceapi answered 401 Unauthorized", 401)
        await trio.sleep(120)
        await agent.send("hangup")
        await over(agent)
    assert len(service.requests) == 1


async def test_a_service_that_is_down_for_the_whole_call_is_one_error() -> None:
    """It is tried again, less and less often, and told of once."""
    service = EmulatedVoiceApi(refuse=Answer(503))
    async with house_with(service) as house, answered(house, **EARS) as (_, agent):
        await trio.sleep(100)
        await agent.send("hangup")
        await over(agent)
    assert agent.names.count("error") == 1
    assert 5 <= len(service.requests) <= 10
