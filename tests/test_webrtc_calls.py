"""Whole calls on `/call/webrtc`: a scripted browser, whose offer comes through the agent's socket, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from rustpbx.media.events import Codec
from rustpbx.media.rtcp import Bye, parse_rtcp
from rustpbx.testing.browser import Browser, Habits
from rustpbx.testing.voice import heard_text, spoken
from tests.kit.agent import Agent
from tests.kit.house import House
from tests.test_calls import SCRIPTED, over, quiet_house

EVERY_CODEC = [Codec.OPUS, Codec.G722, Codec.PCMU, Codec.PCMA]


@asynccontextmanager
async def calling(house: House, habits: Habits | None = None, **option: Any) -> AsyncIterator[tuple[Browser, Agent]]:
    """A browser and its agent, up to the answer; media is not there yet."""
    async with house.browser(habits) as browser, house.agent("/call/webrtc?id=s1") as agent:
        await agent.send("invite", option={"offer": browser.offer, **(option or SCRIPTED)})
        browser.accept((await agent.until("answer"))["sdp"])
        yield browser, agent


async def speak(browser: Browser, text: str) -> None:
    """Say it, and then nothing for a second."""
    await browser.say(np.concatenate([spoken(text, rate=16000), np.zeros(16000, np.int16)]))


@pytest.mark.parametrize("codec", EVERY_CODEC, ids=[codec.value for codec in EVERY_CODEC])
async def test_a_conversation(codec: Codec) -> None:
    """What the browser says is heard by VAD and ASR, what the agent says is heard by it; then the agent hangs up."""
    async with quiet_house() as house, calling(house, Habits(codecs=(codec,))) as (browser, agent):
        await browser.connected()
        await speak(browser, "good morning")
        await agent.hears("good morning")
        await agent.says("how can I help you")
        await agent.send("hangup")
        hangup = await over(agent)
        await browser.ended()
        names = [name for name in agent.names if name not in ("asrDelta", "metrics")]
        assert names == [
            "trackStart", "answer", "speaking", "silence", "asrFinal", "trackStart", "trackEnd", "trackEnd", "hangup"
        ]  # fmt: skip
        assert (hangup["reason"], hangup["initiator"]) == ("system", "system")
        assert heard_text(browser.hear(), 16000) == "how can I help you"
        assert browser.unopened == 0
        last = parse_rtcp(browser.rtcp[-1])
        assert any(isinstance(report, Bye) for report in last)
