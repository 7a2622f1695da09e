"""Whole calls in Opus by SIP: words, levels, losses, keys, and what the phone wishes for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import numpy as np
import pytest

from rustpbx.demo.score import recognise
from rustpbx.media.codec.opus import OpusCoder
from rustpbx.media.codec.resample import resample
from rustpbx.media.events import Codec, Pcm
from rustpbx.speech import local_tts
from rustpbx.testing.agent import Agent
from rustpbx.testing.phone import PhoneCall
from rustpbx.testing.voice import heard_text, spoken
from rustpbx.testing.wer import word_error_rate
from rustpbx.testing.wire import Link
from tests.kit.house import PHONE, SERVER, House, server_config
from tests.test_calls import DIAL, SCRIPTED, over, quiet_house

REAL: dict[str, Any] = {"asr": {}, "tts": {}, "vad": {"type": "webrtc"}}
STORY = "The train to the airport leaves from platform nine at half past seven in the evening."


@asynccontextmanager
async def in_opus(house: House, **option: Any) -> AsyncIterator[tuple[PhoneCall, Agent]]:
    """A phone's call in Opus that the agent has accepted."""
    call = await house.phone.dial(DIAL, codecs=(Codec.OPUS, Codec.PCMU))
    async with house.incoming() as (agent, _):
        await agent.send("accept", option=option or SCRIPTED)
        await agent.until("answer")
        assert (await call.answered()).codec is Codec.OPUS
        yield call, agent


def opus_house() -> Any:
    """One that prefers it."""
    config = server_config()
    assert config.ua is not None
    ua = attrs.evolve(config.ua, codecs=("opus", "G722", "PCMU", "PCMA"))
    return quiet_house(config=attrs.evolve(config, ua=ua))


def level(pcm: Pcm) -> float:
    """In dB, of what is louder than a whisper."""
    frames = pcm[: pcm.size // 320 * 320].reshape(-1, 320).astype(np.float64)
    power = (frames**2).mean(axis=1)
    return float(10 * np.log10(power[power > power.max() / 1000].mean()))


async def test_a_conversation_in_opus() -> None:
    """What the phone says is understood, what the agent says is heard, and keys are."""
    async with opus_house() as house, in_opus(house, **SCRIPTED, dtmf={}) as (call, agent):
        await call.say(np.concatenate([spoken("good morning", rate=16000), np.zeros(16000, np.int16)]), 16000)
        await agent.hears("good morning")
        await agent.says("how can I help you")
        await call.press("7")
        assert (await agent.until("dtmf"))["digit"] == "7"
        await agent.send("hangup")
        await over(agent)
        assert heard_text(call.line.hear_wide(), 16000) == "how can I help you"


@pytest.mark.local_speech
async def test_words_survive_a_lossy_line() -> None:
    """One packet in ten is lost on the way to us: redundancy and concealment leave the words."""
    async with opus_house() as house, in_opus(house, **REAL) as (call, agent):
        house.wire.link(PHONE, SERVER, Link(loss=0.1, jitter=0.01, delay=0.02), both_ways=False)
        voice = local_tts.speak(STORY, 16000)
        await call.say(np.concatenate([voice, np.zeros(16000, np.int16)]), 16000)
        final = await agent.until("asrFinal")
        assert word_error_rate(STORY, final["text"]) <= 0.2
        house.wire.link(PHONE, SERVER, Link(), both_ways=False)
        await agent.send("hangup")
        await over(agent)


@pytest.mark.local_speech
def test_a_sentence_there_and_back() -> None:
    """A voice keeps its level within 1 dB, in 24 kbit/s."""
    voice = local_tts.speak(STORY, 16000)
    frames = np.pad(voice, (0, -voice.size % 320)).reshape(-1, 320)
    ours, theirs = OpusCoder(), OpusCoder()
    packets = [ours.encode(frame) for frame in frames]
    heard = np.concatenate([theirs.decode(packet) for packet in packets])
    assert abs(level(heard) - level(voice)) < 1
    assert sum(map(len, packets)) / len(packets) < 66


@pytest.mark.local_speech
async def test_a_voice_through_a_whole_call() -> None:
    """A sentence that is spoken to the phone in Opus is understood there, as loud as it was made."""
    async with opus_house() as house, in_opus(house, **REAL) as (call, agent):
        await agent.send("tts", text=STORY, playId="story", endOfStream=True)
        await agent.until("trackEnd")
        heard = call.line.hear_wide()
        voice = local_tts.speak(STORY, 16000)
        assert abs(level(heard) - level(voice)) < 1
        assert word_error_rate(STORY, await recognise(resample(heard, 16000, 8000))) <= 0.2
        await call.say(np.concatenate([voice, np.zeros(16000, np.int16)]), 16000)
        final = await agent.until("asrFinal")
        assert word_error_rate(STORY, final["text"]) <= 0.2
        await agent.send("hangup")
        await over(agent)
