"""What the calls between the server and phones of others have in common."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from difflib import SequenceMatcher
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from rustpbx.config import parse_config
from rustpbx.media.events import Direction, Pcm
from rustpbx.media.sdp.parser import parse_sdp
from rustpbx.settings import Config
from rustpbx.sip.hop import Transport
from rustpbx.testing.speech import tone
from rustpbx.testing.voice import heard_text, spoken
from tests.kit.agent import Agent
from tests.kit.baresip import Baresip
from tests.kit.real import LOOPBACK, RealHouse, open_real_house
from tests.kit.sipp import expect, playing, respond
from tests.kit.watched import Passed

SPEECH = {"asr": {"provider": "scripted"}, "tts": {"provider": "scripted"}, "vad": {"type": "webrtc"}}
IMPATIENT = {"type": "webrtc", "silenceTimeout": 300}
"""Tells every 0.3 s that nobody has spoken."""
NOTHING = {"calls": 0, "legs": 0, "dialogs": 0}

QUESTION = "is the shop open"
ANSWER = "until seven today"
TAIL = " and tomorrow"
"""Said behind what has to be heard, where the phone hangs up: its jitter buffer swallows the last 100 ms."""

VOICE = base64.b64encode(tone(0.6, rate=16000).tobytes()).decode()
"""What an agent can say with `base64`: a sound that is heard as speech when sipp sends it back."""

DOCUMENT = Path(__file__).parents[2] / "docs" / "sip.md"


def documented(title: str) -> Config:
    """The configuration under this title of the documents."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(f"## {title}\n")[2]
    return parse_config(text.partition("```toml\n")[2].partition("```")[0])


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


@asynccontextmanager
async def sipp_calls(
    folder: Path, *steps: str, options: tuple[str, ...] = (), tcp: bool = False, **ua: Any
) -> AsyncIterator[tuple[RealHouse, Agent]]:
    """A server that sipp calls with these steps, and the agent that is told of the call.

    At the end sipp must have come to the end of its steps, and nothing must be left of the call.
    """
    async with open_real_house(folder, tcp_port=0 if tcp else None, **ua) as house:
        assert house.server.stack is not None
        host, port = house.server.stack.listening[Transport.TCP] if tcp else house.address
        async with playing(folder, steps, f"{host}:{port}", *options, tcp=tcp), house.incoming() as agent:
            yield house, agent
        assert await house.owned() == NOTHING


@asynccontextmanager
async def sipp_answers(
    folder: Path, *steps: str, options: tuple[str, ...] = (), tcp: bool = False, **ua: Any
) -> AsyncIterator[tuple[RealHouse, Agent]]:
    """A server, and an agent that calls sipp with its steps; as `sipp_calls`."""
    async with open_real_house(folder, **ua) as house:
        async with playing(folder, steps, *options, tcp=tcp) as port, house.agent() as agent:
            callee = f"sip:sipp@{LOOPBACK}:{port}{';transport=tcp' if tcp else ''}"
            await agent.send("invite", option={"callee": callee, **SPEECH})
            yield house, agent
        assert await house.owned() == NOTHING


SIGNAL = (expect("INFO"), respond("200 OK"))
"""Steps of sipp in which it waits for `signal`."""


async def signal(house: RealHouse, agent: Agent) -> None:
    """Let sipp go on: it gets a key in an INFO, as its SDP has no telephone-event."""
    count = house.sip.flow.count("in 200 INFO") + 1
    await agent.send("dtmf", digits="1")
    await house.sip.until("in 200 INFO", count)


async def echoed(agent: Agent) -> None:
    """Say something, and hear it come back from a sipp that echoes."""
    signs = ("speaking", "silence", "trackEnd")
    counts = [agent.names.count(sign) + 1 for sign in signs]
    await agent.send("tts", text=VOICE, base64=True, endOfStream=True)
    for sign, count in zip(signs, counts, strict=True):
        await agent.until(sign, count)


def resembles(heard: Pcm, said: str) -> bool:
    """Whether a recording is of these words, and as long: on a busy machine a phone swallows or garbles letters."""
    return alike(heard_text(heard), said) and loud(heard) > 0.75 * loud(spoken(said))


def alike(heard: str, said: str) -> bool:
    """Whether most letters are the same."""
    return SequenceMatcher(None, heard, said).ratio() > 0.5


def loud(sound: Pcm) -> int:
    """How many pieces of 20 ms (at 8 kHz) are not silent."""
    pieces = np.abs(sound[: len(sound) // 160 * 160].astype(np.int32)).reshape(-1, 160)
    return int(np.count_nonzero(pieces.max(axis=1) > 500))


def audio_port(house: RealHouse, summary: str, count: int = 1) -> int:
    """Where the `count`-th message of that kind wants audio to be sent."""
    return parse_sdp(house.sip.find(summary, count).message.body).media[0].port


def destinations(house: RealHouse) -> list[int]:
    """The ports that our audio went to, one after the other."""
    return [port for port, _ in groupby(packet.peer[1] for packet in house.rtp.sent)]


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
