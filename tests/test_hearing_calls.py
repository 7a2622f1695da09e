"""Whole calls and their recognizer: what it hears through hold and mute, last words, parts that are not there."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

from rustpbx.errors import MediaError
from rustpbx.media.events import Direction
from rustpbx.testing.phone import PhoneCall
from rustpbx.testing.voice import spoken
from tests.kit.house import House
from tests.test_calls import SCRIPTED, answered, over, quiet_house

WHOLE = {**SCRIPTED, "eou": {}}


def seconds_heard(house: House) -> float:
    """How much audio the recognizer was given."""
    return sum(len(block.pcm) / block.rate for ear in house.speech.recognizers for block in ear.heard)


async def begins_to_say(call: PhoneCall, text: str) -> None:
    """Speak, as far as the call lasts."""
    with suppress(MediaError):
        await call.say(spoken(text))


@pytest.mark.parametrize("how", ["hold", "mute"])
async def test_silence_goes_to_the_recognizer_all_the_time(how: str) -> None:
    """On hold or muted: its stream goes on, with silence, and words after it count."""
    async with quiet_house() as house, answered(house, **SCRIPTED) as (call, agent):
        await call.say(spoken("before"))
        await agent.hears("before")
        given, since = seconds_heard(house), trio.current_time()
        if how == "hold":
            await call.re_invite(direction=Direction.SENDONLY)
        else:
            await agent.send("mute")
        await trio.sleep(30)
        assert abs(seconds_heard(house) - given - (trio.current_time() - since)) < 0.3
        if how == "hold":
            await call.re_invite(direction=Direction.SENDRECV)
        else:
            await agent.send("unmute")
        await trio.sleep(0.1)
        await call.say(spoken("after"))
        await agent.hears("after")
        assert agent.heard == "before after"
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize("who", ["phone", "agent"])
async def test_last_words_come_before_the_end(who: str) -> None:
    """Hung up in the middle of a sentence: what was said of it is the last transcript, before the events of the end."""
    async with quiet_house() as house, answered(house, **WHOLE) as (call, agent):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(begins_to_say, call, "I would like to order a pizza")
            await trio.sleep(1.0)
            if who == "phone":
                call.hang_up()
            else:
                await agent.send("hangup")
            await agent.ended()
            nursery.cancel_scope.cancel()
        names = [name for name in agent.names if name != "asrDelta"]
        assert names[-3:] == ["asrFinal", "trackEnd", "hangup"]
        assert "I would like to order a pizza".startswith(agent.heard.rstrip("�"))
        assert len(agent.heard) >= 15


@pytest.mark.parametrize(
    ("option", "sender", "problem"),
    [
        ({"asr": {"provider": "nobody"}}, "asr.nobody", "nobody"),
        ({"tts": {"provider": "nobody"}}, "tts.nobody", "nobody"),
        ({"vad": {"type": "nobody"}}, "vad", "nobody"),
    ],
)
async def test_one_part_that_is_not_there_is_one_error(option: dict[str, Any], sender: str, problem: str) -> None:
    """It names what was asked for; the other parts work, and the call goes on to its end."""
    async with quiet_house() as house, answered(house, **{**SCRIPTED, **option}) as (call, agent):
        if "tts" in option:
            await agent.send("tts", text="hello", playId="x", endOfStream=True)
            await agent.until("trackEnd")
        else:
            await agent.says("hello")
        await call.say(spoken("are you there"))
        if "asr" not in option:
            await agent.hears("are you there")
        await agent.until("silence")
        await agent.send("hangup")
        await over(agent)
        errors = [(event["sender"], event["error"]) for event in agent.events if event["event"] == "error"]
        assert [name for name, _ in errors] == [sender]
        assert problem in errors[0][1]


async def test_an_exchange_is_measured_and_its_end_is_told() -> None:
    """A whole one: `eou` once, and `turn` with steps that follow each other, up to the packet that the phone gets."""
    async with quiet_house() as house, answered(house, **WHOLE) as (call, agent):
        await call.say(spoken("what is the time"))
        silent = trio.current_time()
        assert (await agent.until("eou"))["completed"] is True
        await agent.says("it is noon")
        turn = await agent.measures("turn")
        steps = [turn["data"][name] for name in ("asrFinal", "command", "firstAudio", "firstPacket")]
        assert steps == sorted(steps)
        assert turn["duration"] == steps[-1]
        assert turn["data"]["playId"] == "says-1"
        first = next(at for at, pcm in ((h.at, h.pcm) for h in call.line.heard) if abs(pcm).max() > 500)
        assert abs(silent + turn["duration"] / 1000 - first) < 0.1
        await agent.send("hangup")
        await over(agent)
        assert agent.names.count("eou") == 1
