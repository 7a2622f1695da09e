"""Transfers by a second call of ours, to sipp: answered, busy, early media, no answer, and who hangs up first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.interop.calls import NOTHING, SPEECH
from tests.kit.agent import Agent
from tests.kit.real import LOOPBACK, open_real_house
from tests.kit.sipp import CALLEE, INVITED, audio, expect, playing, respond

pytestmark = [pytest.mark.interop("sipp"), pytest.mark.real_time]


@asynccontextmanager
async def transferred(tmp_path: Path, *steps: str, **options: object) -> AsyncIterator[Agent]:
    """An agent's call in its own socket that is transferred to sipp with these steps; nothing is left at the end."""
    async with open_real_house(tmp_path) as house:
        async with playing(tmp_path, steps) as port, house.agent("/call") as agent:
            await agent.send("invite", option=SPEECH)
            await agent.until("answer")
            callee = f"sip:sipp@{LOOPBACK}:{port}"
            await agent.send("refer", caller="sip:bot@rustpbx.test", callee=callee, options=options)
            yield agent
        assert await house.owned() == NOTHING


ANSWERS = (expect("INVITE", INVITED), CALLEE.answers("180 Ringing"), CALLEE.answers("200 OK", body=audio()))


async def test_a_target_answers_and_hangs_up(tmp_path: Path) -> None:
    """Its BYE ends the call for the reason `refer`."""
    steps = (*ANSWERS, expect("ACK"), *CALLEE.hangs_up())
    async with transferred(tmp_path, *steps) as agent:
        await agent.ended()
        names = [(e["event"], e.get("refer")) for e in agent.events if e["event"] in ("ringing", "answer", "hangup")]
        assert names == [("answer", False), ("ringing", True), ("answer", True), ("hangup", True), ("hangup", False)]
        assert agent.events[-1]["reason"] == "refer"


async def test_the_agent_hangs_up_first(tmp_path: Path) -> None:
    """The target gets our BYE."""
    async with transferred(tmp_path, *ANSWERS, expect("ACK"), *CALLEE.is_hung_up()) as agent:
        await agent.until("answer", 2)
        await agent.send("hangup")
        await agent.ended()
        assert agent.events[-1]["reason"] == "system"


@pytest.mark.parametrize("status", ["486 Busy Here", "603 Decline"])
async def test_a_target_refuses(tmp_path: Path, status: str) -> None:
    """`reject` with its words; the call goes on."""
    async with transferred(tmp_path, expect("INVITE", INVITED), CALLEE.answers(status), expect("ACK")) as agent:
        reject = await agent.until("reject")
        assert f"{reject['code']} {reject['reason']}" == status
        await agent.send("tts", text="nobody", endOfStream=True)
        await agent.until("trackEnd")
        await agent.send("hangup")
        await agent.ended()


async def test_a_target_does_not_answer(tmp_path: Path) -> None:
    """After the timeout it gets our CANCEL, and its 487 our ACK."""
    steps = (
        expect("INVITE", INVITED),
        CALLEE.answers("183 Session Progress", body=audio()),
        expect("CANCEL"),
        respond("200 OK"),
        CALLEE.answers("487 Request Terminated"),
        expect("ACK"),
    )
    async with transferred(tmp_path, *steps, timeout=1) as agent:
        assert (await agent.until("ringing"))["earlyMedia"]
        assert (await agent.until("reject"))["code"] == 408
        await agent.send("hangup")
        await agent.ended()
