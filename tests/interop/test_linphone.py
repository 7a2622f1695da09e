"""Linphone as caller and as callee: an offer of many codecs, media from another address than announced, 603."""

from __future__ import annotations

from pathlib import Path

import pytest

from rustpbx.media.events import Direction
from rustpbx.testing.voice import spoken
from tests.interop.calls import ANSWER, NOTHING, QUESTION, SPEECH, TAIL, direction, over, resembles
from tests.kit.linphone import open_linphone
from tests.kit.real import open_real_house

pytestmark = [pytest.mark.interop("linphonec"), pytest.mark.real_time]


async def test_linphone_calls_holds_resumes_and_hangs_up(tmp_path: Path) -> None:
    """Words and keys arrive; what is said after the hold is heard as what was said before it."""
    async with open_real_house(tmp_path) as house, open_linphone(tmp_path, spoken(QUESTION)) as phone:
        await phone.type(f"call {house.uri}")
        async with house.incoming() as agent:
            await agent.send("ringing")
            await phone.until("ringing")
            await agent.send("accept", option=SPEECH)
            await agent.until("answer")
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.until("trackEnd")
            await phone.type("4711")
            await agent.until("dtmf", 4)
            await phone.type("pause")
            await house.sip.until("in ACK", 2)
            await phone.type("resume")
            await house.sip.until("in ACK", 3)
            await agent.send("tts", text=ANSWER + TAIL, endOfStream=True)
            await agent.until("trackEnd", 2)
            await phone.type("terminate")
            await over(agent, "caller", "caller")
        await phone.until("ended")
        assert [event["digit"] for event in agent.events if event["event"] == "dtmf"] == list("4711")
        assert resembles(phone.heard(), 2 * (ANSWER + TAIL))
        assert [direction(house.sip.find("out 200 INVITE", count)) for count in (1, 2, 3)] == [
            *(Direction.SENDRECV, Direction.RECVONLY, Direction.SENDRECV)
        ]
        assert await house.owned() == NOTHING


async def test_linphone_is_called(tmp_path: Path) -> None:
    """It hears us to the last letter before our BYE, and we hear it."""
    async with open_real_house(tmp_path) as house, open_linphone(tmp_path, spoken(QUESTION)) as phone:
        async with house.agent() as agent:
            await agent.send("invite", option={"callee": phone.uri, **SPEECH})
            await agent.until("ringing")
            await phone.type("answer")
            await agent.until("answer")
            assert (await agent.until("asrFinal"))["text"] == QUESTION
            await agent.send("tts", text=ANSWER, endOfStream=True, autoHangup=True)
            await over(agent, "system", "system")
        await phone.until("ended")
        assert resembles(phone.heard(), ANSWER)
        assert await house.owned() == NOTHING


async def test_linphone_declines(tmp_path: Path) -> None:
    """603 Decline reaches the agent."""
    async with open_real_house(tmp_path) as house, open_linphone(tmp_path) as phone, house.agent() as agent:
        await agent.send("invite", option={"callee": phone.uri})
        await agent.until("ringing")
        await phone.type("terminate")
        reject = await agent.until("reject")
        assert (reject["code"], reject["reason"]) == (603, "Decline")
        assert await over(agent, "callee", "callee") == ["trackStart", "ringing", "reject", "trackEnd", "hangup"]
        assert await house.owned() == NOTHING
