"""Whole calls whose audio goes to the agent's own service and comes from it, in virtual time."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import trio

from rustpbx.media.events import Pcm
from rustpbx.testing.services.service import Answer, Conversation, EmulatedService
from rustpbx.testing.speech import tone
from rustpbx.testing.voice import heard_text, spoken
from tests.kit.services import HOST, PORT
from tests.test_calls import answered, over
from tests.test_speech_calls import house_with

URL = f"ws://{HOST}:{PORT}/pass?key=1"
SENDER = f"media_pass: {URL}"


@attrs.define(eq=False)
class Companion(EmulatedService):
    """The agent's service. `says` is what it says at once, at `rate`; `echoes` sends back what it hears."""

    says: Pcm | None = None
    echoes: bool = False
    leaves: bool = False
    deaf: bool = False

    async def converse(self, conversation: Conversation) -> None:
        """Say, then listen."""
        if self.says is not None:
            data = self.says.astype("<i2").tobytes()
            for at in range(0, len(data), 5001):  # samples in halves, too
                await conversation.send(data[at : at + 5001])
        if self.leaves:
            await conversation.close()
        if self.deaf:
            await trio.sleep_forever()
        while True:
            message = await conversation.receive()
            if self.echoes:
                await conversation.send(message)


def passing(**option: Any) -> dict[str, Any]:
    """The option."""
    return {"mediaPass": {"url": URL, **option}}


def heard_by(service: EmulatedService) -> Pcm:
    """All that it was sent."""
    (conversation,) = service.conversations
    return np.frombuffer(b"".join(m for m in conversation.heard if isinstance(m, bytes)), "<i2").astype(np.int16)


@pytest.mark.parametrize(("rate", "size"), [(8000, 320), (16000, 2560), (24000, 1922)])
async def test_the_service_hears_the_caller_in_packets_of_one_size(rate: int, size: int) -> None:
    """At the rate asked for, which its URL says; words arrive whole, and the track begins and ends once."""
    service = Companion()
    async with house_with(service) as house:
        async with answered(house, **passing(outputSampleRate=rate, packetSize=size)) as (call, agent):
            await call.say(spoken("good morning"))
            await trio.sleep(1)
            await agent.send("hangup")
            await over(agent)
        tracks = [e["event"] for e in agent.events if e.get("trackId") == "server-side-track"]
    (conversation,) = service.conversations
    assert conversation.asked.target == f"/pass?key=1&sample_rate={rate}&packet_size={size}"
    assert {len(message) for message in conversation.heard} == {size}
    assert heard_text(heard_by(service), rate) == "good morning"
    assert tracks == ["trackStart", "trackEnd"]
    assert conversation.closed == 1000


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
async def test_the_caller_hears_the_service(rate: int) -> None:
    """Sent much faster than life, in pieces that part samples: heard in real time and whole."""
    service = Companion(says=spoken("how can I help you", rate=rate))
    async with house_with(service) as house, answered(house, **passing(inputSampleRate=rate)) as (call, agent):
        await trio.sleep(8)
        assert heard_text(call.hear()) == "how can I help you"
        await agent.send("hangup")
        await over(agent)


async def test_both_hear_each_other_and_the_agent_hears_too() -> None:
    """The service echoes; words are recognised beside it."""
    service = Companion(echoes=True)
    option = passing() | {"asr": {"provider": "scripted"}}
    async with house_with(service) as house, answered(house, **option) as (call, agent):
        await call.say(spoken("is anybody there"))
        assert (await agent.until("asrFinal"))["text"] == "is anybody there"
        await trio.sleep(2)
        assert heard_text(call.hear()) == "is anybody there"
        await agent.send("hangup")
        await over(agent)


async def test_interrupt_forgets_what_the_service_has_said_so_far() -> None:
    """It talks for a minute in a second: cut within two frames, and what it says afterwards is heard."""
    service = Companion(says=tone(60.0, rate=16000), echoes=True)
    async with house_with(service) as house, answered(house, **passing()) as (call, agent):
        await trio.sleep(2)
        assert call.line.loud_at >= trio.current_time() - 0.05
        await agent.send("interrupt")
        cut = trio.current_time()
        await trio.sleep(0.2)
        await agent.send("interrupt")  # what was still on its way by TCP
        await trio.sleep(3)
        await agent.send("hangup")
        await over(agent)
        assert cut - 0.1 <= call.line.loud_at
        assert "interruption" not in agent.names


async def test_playback_is_refused_while_the_service_has_the_track() -> None:
    """`tts` and `play` are errors that say why; once the service has left, they are heard."""
    service = Companion(says=tone(0.5, rate=16000), leaves=True)
    async with house_with(service) as house, answered(house, **passing()) as (call, agent):
        await agent.send("tts", text="too early", option={"provider": "scripted"})
        error = await agent.until("error")
        assert (error["sender"], "media pass" in error["error"]) == ("tts", True)
        await agent.until("trackEnd")
        await agent.send("tts", text="now it is", option={"provider": "scripted"}, endOfStream=True)
        await agent.until("trackEnd", 2)
        assert heard_text(call.hear()) == "now it is"
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize(
    ("service", "code", "words"),
    [
        (Companion(refuse=Answer(404)), 404, "404"),
        (Companion(says=tone(0.1, rate=16000), drop_after=0), None, "dropped"),
        (Companion(silent=True), None, "does not answer"),
    ],
    ids=["refused", "dropped", "silent"],
)
async def test_a_service_that_fails_is_an_error_and_the_call_goes_on(
    service: Companion, code: int | None, words: str
) -> None:
    """One `error` before the `trackEnd`; nobody tries again, and the agent may speak."""
    async with house_with(service) as house, answered(house, **passing()) as (_, agent):
        error = await agent.until("error")
        assert (error["sender"], error.get("code")) == (SENDER, code)
        assert words in error["error"]
        await agent.until("trackEnd")
        await agent.send("tts", text="still here", option={"provider": "scripted"}, endOfStream=True)
        await agent.until("trackEnd", 2)
        await trio.sleep(30)
        assert len(service.requests) == 1
        assert agent.names.count("error") == 1
        await agent.send("hangup")
        await over(agent)


async def test_a_service_that_does_not_read_is_given_up() -> None:
    """What waits for it is bounded, and after a while that is an error."""
    service = Companion(deaf=True)
    async with house_with(service) as house, answered(house, **passing(outputSampleRate=48000)) as (_, agent):
        error = await agent.until("error", within=600)
        assert error["error"] == "the media pass takes nothing any more"
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"url": "http://10.0.0.9/"}, "ws://"),
        ({"packetSize": 641}, "packetSize"),
        ({"packetSize": 0}, "packetSize"),
        ({"inputSampleRate": 7}, "inputSampleRate"),
        ({"outputSampleRate": 400000}, "outputSampleRate"),
        ({"ptime": 100000}, "ptime"),
        ({"url": "ws://169.254.169.254/latest"}, "169.254.169.254"),
    ],
)
async def test_an_option_that_cannot_be_is_an_error(option: dict[str, Any], problem: str) -> None:
    """It names the key; the rest of the call is unharmed."""
    async with house_with(Companion()) as house, answered(house, **passing(**option)) as (_, agent):
        error = await agent.until("error")
        assert error["sender"].startswith("media_pass: ")
        assert problem in error["error"]
        await agent.send("hangup")
        await over(agent)


async def test_a_period_is_filled_with_silence() -> None:
    """With `ptime` the caller's line never runs dry between what the service says."""
    service = Companion(says=tone(0.1, rate=16000))
    async with house_with(service) as house, answered(house, **passing(ptime=100)) as (call, agent):
        await trio.sleep(5)
        sent = len(call.line.heard)
        await trio.sleep(2)
        assert len(call.line.heard) - sent >= 98
        await agent.send("hangup")
        await over(agent)


async def test_the_call_ends_while_the_service_talks() -> None:
    """The phone hangs up: the service is told at once, and nothing of the call is left."""
    service = Companion(says=tone(60.0, rate=16000))
    async with house_with(service) as house, answered(house, **passing()) as (call, agent):
        await trio.sleep(1)
        call.hang_up()
        await agent.ended()
        tracks = [e["event"] for e in agent.events if e.get("trackId") == "server-side-track"]
        assert tracks == ["trackStart", "trackEnd"]
        await trio.sleep(1)
        assert service.conversations[0].closed in {1000, 1006}
