"""What the calls between the server and phones of others have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rustpbx.media.events import Direction
from rustpbx.media.sdp.parser import parse_sdp
from tests.kit.agent import Agent
from tests.kit.baresip import Baresip
from tests.kit.real import RealHouse
from tests.kit.watched import Passed

SPEECH = {"asr": {"provider": "scripted"}, "tts": {"provider": "scripted"}, "vad": {"type": "webrtc"}}
IMPATIENT = {"type": "webrtc", "silenceTimeout": 300}
"""Tells every 0.3 s that nobody has spoken."""
NOTHING = {"calls": 0, "legs": 0, "dialogs": 0}

QUESTION = "is the shop open"
ANSWER = "until seven today"
TAIL = " and tomorrow"
"""Said behind what has to be heard, where the phone hangs up: its jitter buffer swallows the last 100 ms."""


@asynccontextmanager
async def called(house: RealHouse, phone: Baresip, uri: str = "", **option: Any) -> AsyncIterator[Agent]:
    """A phone's call, to `uri` if not straight to the server, that an agent has accepted."""
    await phone.do("dial", uri or house.uri)
    async with house.incoming() as agent:
        await agent.send("accept", option={**SPEECH, **option})
        await agent.until("answer")
        yield agent


@asynccontextmanager
async def calling(house: RealHouse, phone: Baresip, uri: str = "") -> AsyncIterator[Agent]:
    """An agent's call that rings at the phone, made to `uri` if not straight to it."""
    async with house.agent() as agent:
        await agent.send("invite", option={"callee": uri or phone.uri, **SPEECH})
        await agent.until("ringing")
        await phone.until("CALL_INCOMING")
        yield agent


async def over(agent: Agent, reason: str, initiator: str) -> list[str]:
    """Wait for the end, check who ended the call, and return the names of all events."""
    names = await agent.ended()
    hangup = agent.events[-1]
    assert (names[-1], names.count("hangup")) == ("hangup", 1)
    assert (hangup["reason"], hangup["initiator"]) == (reason, initiator)
    return names


async def held(phone: Baresip, agent: Agent) -> None:
    """Put the call on hold, and let 0.3 s of silence pass that way; the phone sends nothing on hold either."""
    await phone.do("hold")
    await phone.until("CALL_REMOTE_SDP", 2)
    await agent.until("silence", agent.names.count("silence") + 2)


def direction(passed: Passed) -> Direction:
    """The direction of the first stream in a message's SDP."""
    description = parse_sdp(passed.message.body)
    return description.direction_of(description.media[0])
