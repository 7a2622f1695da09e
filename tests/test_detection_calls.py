"""Whole calls that ask who has answered: a person, a machine, or nobody knows."""

from __future__ import annotations

import numpy as np
import pytest

from rustpbx.media.events import Pcm
from rustpbx.speech import local_tts
from rustpbx.testing.voice import spoken
from tests.kit.sounds import tone
from tests.test_calls import answered, over, quiet_house

QUIET: Pcm = np.zeros(8000, np.int16)
BEEP = tone(8000, 0.5, 1000.0, 0.3)


@pytest.mark.parametrize(
    ("sound", "outcome"),
    [
        (np.concatenate([QUIET, spoken("hello"), QUIET, QUIET]), "human"),
        (
            np.concatenate([QUIET, spoken("this is the number one two three four five six"), BEEP]),
            "machine",
        ),
        (np.concatenate([QUIET, BEEP, QUIET]), "machine"),
        (np.tile(QUIET, 5), "unsure"),
    ],
    ids=["hello", "greeting", "beep", "nothing"],
)
async def test_who_answered_is_told_once(sound: Pcm, outcome: str) -> None:
    """One `answerMachineDetection` behind the answer; speech that nobody asked for is not told."""
    amd = {"timeout": 4000, "greeting": 1500}
    async with quiet_house() as house, answered(house, amd=amd) as (call, agent):
        await call.say(sound)
        event = await agent.until("answerMachineDetection")
        await agent.send("hangup")
        await over(agent)
    assert event["outcome"] == outcome
    assert event["text"] == ""
    assert event["trackId"] == agent.events[0]["trackId"]
    assert event["startTime"] <= event["endTime"] <= event["timestamp"]
    assert agent.names.count("answerMachineDetection") == 1
    assert not {"speaking", "silence", "error"} & set(agent.names)


async def test_words_give_a_machine_away() -> None:
    """With a recognizer the call need not wait for a long greeting or a beep: what is said is enough, and is told."""
    option = {"amd": {"timeout": 20000, "greeting": 15000}, "asr": {"provider": "scripted"}}
    async with quiet_house() as house, answered(house, **option) as (call, agent):
        await call.say(np.concatenate([QUIET, spoken("leave a message"), QUIET, QUIET]))
        event = await agent.until("answerMachineDetection")
        await agent.send("hangup")
        await over(agent)
    assert (event["outcome"], event["text"]) == ("machine", "leave a message")
    assert "asrFinal" in agent.names


@pytest.mark.local_speech
@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("Hi, you have reached the mailbox of Anna. Please leave a message after the tone.", "machine"),
        ("Hello, this is Anna speaking.", "human"),
    ],
    ids=["mailbox", "person"],
)
async def test_a_real_voice_is_told_from_a_mailbox(said: str, outcome: str) -> None:
    """Synthesised speech, heard and recognised as a call hears it."""
    voice = np.concatenate([local_tts.speak(sentence, 8000) for sentence in local_tts.split(said)])
    async with quiet_house() as house, answered(house, amd={}, asr={}) as (call, agent):
        await call.say(np.concatenate([QUIET, voice, QUIET, QUIET, QUIET]))
        event = await agent.until("answerMachineDetection")
        await agent.send("hangup")
        await over(agent)
    assert event["outcome"] == outcome
