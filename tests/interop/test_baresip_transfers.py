"""Transfers and our keys with baresip: it asks for one, it is asked for one, and it notices each key of ours once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rustpbx.testing.voice import spoken
from tests.interop.calls import NOTHING, QUESTION, called, over
from tests.kit.agent import Agent
from tests.kit.baresip import Baresip, open_baresip
from tests.kit.real import RealHouse, open_real_house

pytestmark = [pytest.mark.interop("baresip"), pytest.mark.real_time]


@asynccontextmanager
async def talking(tmp_path: Path) -> AsyncIterator[tuple[RealHouse, Baresip, Agent]]:
    """A phone that has called, and that an agent talks with; all calls of the server must be over at the end."""
    async with open_real_house(tmp_path) as house, open_baresip(tmp_path, says=spoken(QUESTION)) as phone:
        async with called(house, phone) as agent:
            yield house, phone, agent
        assert await house.owned() == NOTHING


def fragments(house: RealHouse, direction: str) -> list[str]:
    """What the NOTIFYs of a transfer said."""
    bodies = [passed.message.body for passed in house.sip.messages if passed.summary == f"{direction} NOTIFY"]
    return [body.decode().splitlines()[0].removeprefix("SIP/2.0 ") for body in bodies]


@pytest.mark.rfc("3515", "2.4.4")
async def test_a_phone_asks_for_a_transfer(tmp_path: Path) -> None:
    """The agent is told whom to; told that it worked, the phone hangs up."""
    async with talking(tmp_path) as (house, phone, agent):
        await phone.do("transfer", "sip:carol@example.com")
        other = await agent.until("other")
        assert (other["sender"], other["extra"]["target"]) == ("refer", "sip:carol@example.com")
        await agent.send("referred", code=200)
        await over(agent, "caller", "caller")
        assert fragments(house, "out") == ["100 Trying", "200 OK"]


async def test_a_phones_transfer_fails(tmp_path: Path) -> None:
    """Told why, it stays, and the call goes on."""
    async with talking(tmp_path) as (house, phone, agent):
        await phone.do("transfer", "sip:carol@example.com")
        await agent.until("other")
        await agent.send("referred", code=486, reason="Busy Here")
        await phone.until("TRANSFER_FAILED")
        assert fragments(house, "out") == ["100 Trying", "486 Busy Here"]
        await phone.do("hangup")
        await over(agent, "caller", "caller")


@pytest.mark.rfc("3515", "2.4.5")
async def test_the_agent_sends_a_phone_elsewhere(tmp_path: Path) -> None:
    """It calls whom we name, is answered, and says so; our BYE ends its call with us."""
    async with (
        open_baresip(tmp_path, user="carol", account="regint=0;answermode=auto") as carol,
        talking(tmp_path) as (house, phone, agent),
    ):
        await agent.send("refer", caller=house.uri, callee=carol.uri, options={"mode": "blind"})
        await over(agent, "refer", "system")
        assert fragments(house, "in")[-1] == "200 OK"
        await carol.until("CALL_ESTABLISHED")
        await phone.do("hangup")
        await carol.closed()


async def test_whom_the_agent_names_refuses(tmp_path: Path) -> None:
    """The phone says why, and the agent has it back."""
    async with open_baresip(tmp_path, user="carol") as carol, talking(tmp_path) as (house, _, agent):
        await agent.send("refer", caller=house.uri, callee=carol.uri, options={"mode": "blind"})
        await carol.until("CALL_INCOMING")
        await carol.do("hangup")
        assert (await agent.until("reject"))["code"] == 486
        await agent.send("hangup")
        await over(agent, "system", "system")


@pytest.mark.rfc("4733", "2.5.1")
@pytest.mark.parametrize("method", ["rfc4733", "info"])
async def test_a_phone_notices_our_keys(tmp_path: Path, method: str) -> None:
    """Each once and in their order."""
    keys = "1590*#D"
    async with talking(tmp_path) as (_, phone, agent):
        await agent.send("dtmf", digits=keys, method=method)
        await phone.until("CALL_DTMF_START", len(keys))
        await agent.send("hangup")
        await over(agent, "system", "system")
        await phone.closed()
        started = [event["param"] for event in phone.events if event["type"] == "CALL_DTMF_START"]
        assert started == list(keys)
