"""Whole calls whose speech service is on the network, and has its troubles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

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
from tests.test_playback import words

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


async def test_what_was_said_once_is_not_asked_for_again(tmp_path: Path) -> None:
    """Two calls say the same: the service is asked once, both phones hear it, and the metrics tell the difference."""
    measured = []
    async with quiet_house(config=server_config(media_cache_path=str(tmp_path))) as house:
        for _ in range(2):
            async with answered(house) as (call, agent):
                await agent.send("tts", text="good morning", playId="p", endOfStream=True)
                await agent.until("trackEnd")
                assert words(call) == "good morning"
                measured.append([(event["key"], event["duration"], event["data"]) for event in agent.metrics])
                await agent.send("hangup")
                await over(agent)
        assert [utterance.text for utterance in house.speech.synthesizer.said] == ["good morning"]
    told = {"playId": "p", "cmdSeq": 0}
    length = 2 * len(spoken("good morning"))
    keys = ["ttfb.tts.scripted", "completed.tts.scripted"]
    assert measured == [
        [(keys[0], 0, told), (keys[1], 0, {**told, "length": length, "cached": False})],
        [(keys[0], 0, told), (keys[1], 0, {**told, "length": length, "cached": True, "speaker": None})],
    ]


async def test_the_time_of_a_service_is_measured() -> None:
    """First audio and last, from the command on, for a text and for a stream of them."""
    async with quiet_house() as house, answered(house) as (_, agent):
        house.speech.synthesizer.delay = 0.4
        await agent.send("tts", text="one", playId="p", endOfStream=True)
        await agent.until("trackEnd")
        await agent.send("tts", text="Two. ", playId="q", streaming=True)
        await trio.sleep(1)
        await agent.send("tts", text="Three.", playId="q", streaming=True, endOfStream=True)
        await agent.until("trackEnd", 2)
        await agent.send("hangup")
        await over(agent)
    assert [(event["key"], event["duration"], event["data"]["cmdSeq"]) for event in agent.metrics] == [
        ("ttfb.tts.scripted", 400, 0),
        ("completed.tts.scripted", 400, 0),
        ("ttfb.tts.scripted", 400, None),
        ("completed.tts.scripted", 1400, None),
    ]
