"""Whole calls that are watched for speech by a neural detector, or by one that cannot be had."""

from __future__ import annotations

import numpy as np
import pytest

from rustpbx.errors import MediaError
from rustpbx.media.events import Pcm
from rustpbx.media.vad.detector import ENGINES
from rustpbx.media.vad.silero import Silero
from rustpbx.testing.voice import spoken
from tests.kit.utterance import PAUSE, utterance
from tests.test_calls import answered, over, quiet_house

SILENCE_PADDING = 0.5
"""Seconds: longer than the breaths in the sentence."""


def watched_by(engine: str, **option: object) -> dict[str, object]:
    """A call's option: nothing but this detector."""
    return {"vad": {"type": engine, "silencePadding": round(1000 * SILENCE_PADDING), **option}}


@pytest.mark.local_speech
@pytest.mark.parametrize("engine", ["silero", pytest.param("ten", marks=pytest.mark.vad("ten"))])
async def test_a_sentence_is_one_speaking_and_one_silence(engine: str) -> None:
    """Real speech through a whole call: it begins and ends when the sentence does, and silence goes on after it."""
    sound = utterance(8000)
    async with quiet_house() as house, answered(house, **watched_by(engine, silenceTimeout=1000)) as (call, agent):
        await call.say(np.zeros(4000, np.int16))
        began = len(agent.events)
        await call.say(sound)
        await call.say(np.zeros(16000, np.int16))
        heard = [event for event in agent.events[began:] if event["event"] in ("speaking", "silence")]
        names = [event["event"] for event in heard]
        first = names.index("speaking")
        assert names.count("speaking") == 1
        assert names[first + 1 :] == ["silence"] * (len(names) - first - 1)
        speaking, silence, later = heard[first], heard[first + 1], heard[first + 2]
        assert abs(silence["startTime"] - speaking["startTime"] - 1000 * (sound.size / 8000 - 2 * PAUSE)) < 250
        assert silence["duration"] >= 1000 * SILENCE_PADDING
        assert later["duration"] == 1000
        await agent.send("hangup")
        await over(agent)


@pytest.mark.local_speech
async def test_noise_is_no_speech_to_silero() -> None:
    """Noise that webrtc takes for speech from its first second on: silero says nothing."""
    noise: Pcm = np.random.default_rng(2).normal(scale=1500, size=24000).astype(np.int16)
    counts = []
    for engine in ("webrtc", "silero"):
        async with quiet_house() as house, answered(house, **watched_by(engine)) as (call, agent):
            await call.say(noise)
            await agent.send("hangup")
            await over(agent)
            counts.append(agent.names.count("speaking"))
    assert counts == [1, 0]


async def test_an_engine_that_is_not_installed_is_an_error_and_webrtc_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """One `error` behind the answer, from `vad`, saying what is missing; speech is reported all the same."""

    class Missing(Silero):
        def load(self) -> None:
            raise MediaError("it is not installed")

    monkeypatch.setitem(ENGINES, "ten", lambda _: Missing(8000))
    async with quiet_house() as house, answered(house, **watched_by("ten")) as (call, agent):
        error = await agent.until("error")
        await call.say(spoken("one two three four five"))
        await agent.until("silence")
        await agent.send("hangup")
        await over(agent)
    problem = "vad type ten is not available: it is not installed; webrtc is used instead"
    assert (error["sender"], error["error"]) == ("vad", problem)
    assert agent.names.index("answer") < agent.names.index("error")
    assert [agent.names.count(name) for name in ("error", "speaking", "silence")] == [1, 1, 1]
