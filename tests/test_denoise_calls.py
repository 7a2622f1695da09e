"""Whole calls whose noise is taken out, or cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from rustpbx.errors import MediaError
from rustpbx.media.denoise.engine import DENOISERS
from rustpbx.media.denoise.rnnoise import Rnnoise
from rustpbx.media.events import Pcm
from rustpbx.testing.voice import spoken
from tests.test_calls import answered, over, quiet_house

VAD = {"type": "webrtc"}


@pytest.mark.package("pyrnnoise")
async def test_noise_is_no_speech_once_it_is_taken_out() -> None:
    """Noise that webrtc takes for speech from its first second on: with `denoise` it hears none. Nothing is left."""
    noise: Pcm = np.random.default_rng(2).normal(scale=1500, size=24000).astype(np.int16)
    counts = []
    for denoise in (False, True):
        async with quiet_house() as house, answered(house, vad=VAD, denoise=denoise) as (call, agent):
            await call.say(noise)
            await agent.send("hangup")
            await over(agent)
            counts.append((agent.names.count("speaking"), agent.names.count("error")))
    assert counts == [(1, 0), (0, 0)]


async def test_a_missing_library_is_an_error_and_the_call_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """One `error` behind the answer, from `denoise`, saying what is missing; speech is reported all the same."""

    class Missing(Rnnoise):
        def load(self) -> None:
            raise MediaError("it is not installed")

    monkeypatch.setitem(DENOISERS, "rnnoise", Missing)
    async with quiet_house() as house, answered(house, vad=VAD, denoise=True) as (call, agent):
        error = await agent.until("error")
        await call.say(spoken("one two three four five"))
        await agent.until("silence")
        await agent.send("hangup")
        await over(agent)
    assert (error["sender"], error["error"]) == ("denoise", "denoise is not available: it is not installed")
    assert agent.names.index("answer") < agent.names.index("error")
    assert [agent.names.count(name) for name in ("error", "speaking", "silence")] == [1, 1, 1]
