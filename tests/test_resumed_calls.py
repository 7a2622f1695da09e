"""Calls that survive their agent's socket: parked while it is gone, and its events kept for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from rustpbx.testing.voice import heard_text, spoken
from tests.kit.agent import Agent
from tests.kit.house import House, server_config
from tests.test_calls import SCRIPTED, answered, over, quiet_house, refused_upgrade

GRACE = 10.0


@asynccontextmanager
async def patient_house(**keys: Any) -> AsyncIterator[House]:
    """A server whose calls wait for their agents."""
    async with quiet_house(config=server_config(resume_grace=GRACE, **keys)) as house:
        yield house


async def drop(agent: Agent) -> None:
    """The agent's machine loses its network, and the server notices."""
    await agent.drop()
    await trio.sleep(0.5)


def numbers(agent: Agent) -> list[int]:
    """Of the events that it got, metrics among them."""
    return sorted(event["seq"] for event in [*agent.events, *agent.metrics])


async def test_an_agent_comes_back_and_gets_what_it_missed() -> None:
    """What played plays on, what was said meanwhile is heard of, in numbers without a gap; then the call goes on."""
    async with patient_house() as house, answered(house, **SCRIPTED) as (call, agent):
        (session_id,) = house.server.registry.calls
        await agent.send("tts", text="one two three four five", playId="a", endOfStream=True)
        await agent.until("trackStart", 2)
        await drop(agent)
        await call.say(spoken("is anybody there"))
        await trio.sleep(3)
        assert heard_text(call.hear()) == "one two three four five"
        async with house.agent(f"/call/sip?id={session_id}") as again:
            await again.until("asrFinal")
            assert again.heard == "is anybody there"
            assert again.names.count("incoming") == 0
            await again.send("tts", text="here I am", playId="b", endOfStream=True)
            await again.until("trackEnd", 2)
            await again.send("hangup")
            await over(again)
        first, second = numbers(agent), numbers(again)
        assert first == list(range(1, len(first) + 1))
        assert second == list(range(len(first) + 1, len(first) + len(second) + 1))


async def test_an_agent_says_which_events_it_had() -> None:
    """`after`: what was sent into a dead connection is sent again."""
    async with patient_house() as house, answered(house, **SCRIPTED) as (_, agent):
        (session_id,) = house.server.registry.calls
        await drop(agent)
        async with house.agent(f"/call/sip?id={session_id}&after=1") as again:
            await again.until("answer")
            assert numbers(again)[0] == 2
            await again.send("hangup")
            await over(again)


async def test_an_agent_that_does_not_come_back_ends_the_call() -> None:
    """After its grace, with BYE to the phone, as it would have without."""
    async with patient_house() as house, answered(house, **SCRIPTED) as (call, agent):
        lost = trio.current_time()
        await drop(agent)
        ending = await call.ended()
        assert ending.at - lost == pytest.approx(GRACE, abs=1)
        assert not house.server.registry.calls


async def test_a_socket_that_is_closed_ends_the_call_at_once() -> None:
    """Who says goodbye is not waited for."""
    async with patient_house() as house, answered(house, **SCRIPTED) as (call, agent):
        left = trio.current_time()
        await agent.socket.aclose()
        assert (await call.ended()).at - left < 1


async def test_a_phone_that_hangs_up_meanwhile_ends_it() -> None:
    """A parked call is still a call; whoever comes for it later finds none."""
    async with patient_house() as house, answered(house, **SCRIPTED) as (call, agent):
        (session_id,) = house.server.registry.calls
        await drop(agent)
        call.hang_up()
        await trio.sleep(1)
        assert not house.server.registry.calls
        assert session_id


async def test_nobody_else_gets_the_call() -> None:
    """Another token is refused, and so is a second agent while the first is there."""
    tokens = ("token-of-alice", "token-of-bob99")
    async with patient_house(tokens=tokens) as house, answered(house, **SCRIPTED) as (_, agent):
        (session_id,) = house.server.registry.calls
        path = f"/call/sip?id={session_id}"
        assert (await refused_upgrade(house, path))[0] == 409
        await drop(agent)
        assert (await refused_upgrade(house, f"{path}&token=token-of-bob99"))[0] == 409
        async with house.agent(path) as again:
            await again.send("hangup")
            await over(again)


async def test_a_call_in_the_socket_itself_cannot_wait() -> None:
    """On `/call` the far end is in the agent's socket: with it the call is over."""
    async with patient_house() as house, house.agent("/call?id=s1") as agent:
        await agent.send("invite", option={})
        await agent.until("answer")
        await drop(agent)
        assert not house.server.registry.calls


async def test_without_grace_events_have_no_numbers() -> None:
    """The wire is what it was."""
    async with quiet_house() as house, answered(house, **SCRIPTED) as (call, agent):
        await drop(agent)
        await call.ended()
        assert not any("seq" in event for event in agent.events)
