"""Whole conversations in real speech: the embedded models speak and listen on both sides, in virtual time."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import trio

from rustpbx.demo.score import recognise
from rustpbx.media.events import Pcm
from rustpbx.settings import OutboundConfig
from rustpbx.speech import local_tts
from rustpbx.speech.registry import register_recognizer, unregister
from rustpbx.speech.voiceapi import recognizer
from rustpbx.testing.network import MemoryNetwork
from rustpbx.testing.services.service import Answer
from rustpbx.testing.services.voiceapi import EmulatedVoiceApi
from rustpbx.testing.wer import word_error_rate
from rustpbx.values import network
from tests.kit.house import server_config
from tests.kit.services import HOST, PORT
from tests.test_calls import answered, over, quiet_house

pytestmark = pytest.mark.local_speech

REAL: dict[str, Any] = {"asr": {}, "tts": {}, "vad": {"type": "webrtc"}}
RATE = 8000
STORY = "The train to the airport leaves from platform nine at half past seven in the evening."
QUESTION = "Excuse me, I would like to speak to a person."
ANSWER = "Of course, please hold the line."
FRAMES = 0.04
"""Two frames: what may still be heard of what was cut."""


@functools.cache
def voice(text: str) -> Pcm:
    """A caller's voice at 8 kHz."""
    return np.concatenate([local_tts.speak(sentence, RATE) for sentence in local_tts.split(text)])


def alike(said: str, understood: str) -> bool:
    """Whether four of five words came through."""
    return word_error_rate(said, understood) <= 0.2


async def test_a_caller_breaks_in_in_the_middle_of_a_sentence() -> None:
    """The sentence is cut within two frames, told as far as it was heard; what was said meanwhile is understood."""
    async with quiet_house() as house, answered(house, **REAL) as (call, agent), trio.open_nursery() as nursery:
        await agent.send("tts", text=STORY, playId="story")
        await agent.until("trackStart", 2)
        began = trio.current_time()
        await trio.sleep(2)
        nursery.start_soon(call.say, voice(QUESTION))
        speaking = await agent.until("speaking")
        assert 0 <= speaking["timestamp"] - speaking["startTime"] <= 400
        await agent.send("interrupt")
        cut, cut_at = await agent.until("interruption"), trio.current_time()
        assert (cut["playId"], cut["subtitle"], cut["position"]) == ("story", STORY, 0)
        assert cut["current"] == pytest.approx(1000 * (cut_at - began), abs=60)
        assert cut["totalDuration"] == round(1000 * len(voice(STORY)) / RATE)
        final = await agent.until("asrFinal")
        assert call.line.loud_at <= cut_at + FRAMES
        assert alike(QUESTION, final["text"])
        heard_before = len(call.hear())
        await agent.send("tts", text=ANSWER, playId="answer", endOfStream=True)
        await agent.until("trackEnd", 2)
        assert alike(ANSWER, await recognise(call.hear()[heard_before:]))
        await agent.send("hangup")
        await over(agent)


async def test_two_commands_of_one_playback_are_heard_one_after_the_other() -> None:
    """One trackStart, one trackEnd, all words in the order of the commands."""
    async with quiet_house() as house, answered(house, **REAL) as (call, agent):
        await agent.send("tts", text=QUESTION, playId="p")
        await agent.send("tts", text=ANSWER, playId="p", endOfStream=True)
        await agent.until("trackEnd")
        played = [event["event"] for event in agent.events if event.get("playId") == "p"]
        assert played == ["trackStart", "trackEnd"]
        assert alike(f"{QUESTION} {ANSWER}", await recognise(call.hear()))
        await agent.send("hangup")
        await over(agent)


async def test_a_text_that_comes_word_by_word_is_heard_as_sentences() -> None:
    """As a language model writes: no word is lost, doubled or waits for the end of the whole text."""
    async with quiet_house() as house, answered(house, **REAL) as (call, agent):
        words = f"{ANSWER} {QUESTION}".split()
        for number, word in enumerate(words):
            await agent.send("tts", text=f" {word}", playId="p", streaming=True)
            await trio.sleep(0.15)
            if number == len(ANSWER.split()) + 1:
                assert call.line.loud_at > 0  # the first sentence is on its way, the second not yet written
        await agent.send("tts", text="", playId="p", streaming=True, endOfStream=True)
        await agent.until("trackEnd")
        assert alike(f"{ANSWER} {QUESTION}", await recognise(call.hear()))
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_caller_hangs_up_while_a_long_text_is_synthesised(
    streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is never asked for; the playback is told as cut, and nothing is left of the call."""
    asked = []

    def counted(*args: Any) -> Pcm:
        asked.append(args)
        return speak(*args)

    speak = functools.cache(local_tts.speak)
    monkeypatch.setattr(local_tts, "speak", counted)
    async with quiet_house() as house, answered(house, **REAL) as (call, agent):
        await agent.send("tts", text=f"{STORY} {ANSWER} " * 40, playId="p", streaming=streaming)
        await agent.until("trackStart", 2)
        await trio.sleep(1)
        call.hang_up()
        await over(agent)
    assert 1 < len(asked) < 40
    assert agent.names[-4:] == ["interruption", "trackEnd", "trackEnd", "hangup"]
    (cut,) = [event for event in agent.events if event["event"] == "interruption"]
    assert cut["current"] == pytest.approx(1000, abs=60)


async def test_without_ears_for_the_whole_call_the_voice_goes_on() -> None:
    """A recognizer that is down is one error; the caller hears every word, and is noticed when speaking."""
    register_recognizer("down", recognizer)
    config = server_config(outbound=OutboundConfig(allow_private=(network("10.0.0.0/8"),)))
    service = EmulatedVoiceApi(refuse=Answer(503))
    option = {**REAL, "asr": {"provider": "down", "endpoint": f"http://{HOST}:{PORT}"}}
    try:
        async with quiet_house(config=config) as house, trio.open_nursery() as nursery:
            await nursery.start(service.serve, MemoryNetwork(house.wire, HOST), (HOST, PORT))
            async with answered(house, **option) as (call, agent):
                await agent.send("tts", text=STORY, playId="p", endOfStream=True)
                await agent.until("trackEnd")
                await call.say(voice(QUESTION))
                await agent.until("speaking")
                assert alike(STORY, await recognise(call.hear()))
                await agent.send("hangup")
                await over(agent)
            nursery.cancel_scope.cancel()
    finally:
        unregister("down")
    errors = [(event["sender"], event["code"]) for event in agent.events if event["event"] == "error"]
    assert errors == [("asr.down", 503)]
