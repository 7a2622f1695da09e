"""Whole calls on `/call`: the far end is in the agent's own socket, as binary messages."""

from __future__ import annotations

import numpy as np
import pytest
import trio

from rustpbx.media.codec.g711 import PCMA, PCMU
from rustpbx.media.events import Pcm
from rustpbx.session.events import Ping
from rustpbx.session.shell.attachment import Attachment
from rustpbx.testing.voice import heard_text, spoken
from tests.kit.agent import Agent
from tests.test_calls import SCRIPTED, answered, quiet_house

LAWS = {"pcmu": PCMU, "pcma": PCMA}


def encoded(codec: str, pcm: Pcm) -> bytes:
    """Samples at the codec's rate as a client sends them."""
    return pcm.astype("<i2").tobytes() if codec == "pcm" else LAWS[codec].encode(pcm).tobytes()


def decoded(codec: str, data: bytes) -> Pcm:
    """What a client was sent."""
    if codec == "pcm":
        return np.frombuffer(data, "<i2").astype(np.int16)
    return LAWS[codec].decode(np.frombuffer(data, np.uint8))


def rate_of(codec: str) -> int:
    """Hz."""
    return 16000 if codec == "pcm" else 8000


async def talk(agent: Agent, codec: str, text: str, milliseconds: int = 20) -> None:
    """Speak into the socket in real time, in messages of any length, and a second of silence behind it."""
    rate = rate_of(codec)
    pcm = np.concatenate([spoken(text, rate=rate), np.zeros(rate, np.int16)])
    step = rate * milliseconds // 1000
    for at in range(0, pcm.size, step):
        await agent.send_audio(encoded(codec, pcm[at : at + step]))
        await trio.sleep(milliseconds / 1000)


@pytest.mark.parametrize("codec", ["pcm", "pcmu", "pcma"])
@pytest.mark.parametrize("milliseconds", [7, 20, 100])
async def test_a_conversation_in_the_socket(codec: str, milliseconds: int) -> None:
    """What the client says is heard by VAD and ASR, what the agent says is in its socket; then the agent hangs up."""
    async with quiet_house() as house, house.agent("/call?id=s1") as agent:
        await agent.send("invite", option={"codec": codec, **SCRIPTED})
        assert (await agent.until("answer"))["sdp"] == ""
        await talk(agent, codec, "good morning", milliseconds)
        await agent.hears("good morning")
        await agent.says("how can I help you")
        await agent.send("hangup")
        await agent.ended()
        names = [name for name in agent.names if name not in ("asrDelta", "metrics")]
        assert names == [
            "trackStart", "answer", "speaking", "silence", "asrFinal", "trackStart", "trackEnd", "trackEnd", "hangup"
        ]  # fmt: skip
        assert agent.events[-1]["reason"] == "system"
        assert heard_text(decoded(codec, bytes(agent.audio)), rate_of(codec)) == "how can I help you"
        assert len(agent.audio) % (640 if codec == "pcm" else 160) == 0


async def test_nothing_is_sent_while_nothing_is_played() -> None:
    """An idle call has a silent socket."""
    async with quiet_house() as house, house.agent("/call?id=s1") as agent:
        await agent.send("invite", option={})
        await agent.until("answer")
        await trio.sleep(5)
        assert not agent.audio
        await agent.send("hangup")
        await agent.ended()


async def test_speech_interrupts_what_is_played_in_the_socket() -> None:
    """Barge-in: the rest of a long sentence is not sent, and the event says how much was."""
    async with quiet_house() as house, house.agent("/call?id=s1") as agent:
        await agent.send("invite", option={"codec": "pcm", **SCRIPTED})
        await agent.starts_saying("one two three four five six seven eight nine ten")
        await trio.sleep(1)
        interruption = await agent.interrupts()
        heard = len(agent.audio) / 32
        await trio.sleep(1)
        assert len(agent.audio) / 32 == heard
        assert abs(interruption["current"] - heard) <= 20
        await agent.send("hangup")
        await agent.ended()


@pytest.mark.parametrize(
    ("audio", "problem"),
    [
        (bytes(641), "641 bytes of pcm are no whole samples"),
        (bytes(320_000), "320000 bytes of pcm in one message: at most five seconds"),
    ],
)
async def test_audio_that_is_none_is_an_error_and_the_call_goes_on(audio: bytes, problem: str) -> None:
    """Half a sample, ten seconds at once: one `error` that says it, and what is right after it is heard."""
    async with quiet_house() as house, house.agent("/call?id=s1") as agent:
        await agent.send("invite", option={"codec": "pcm", **SCRIPTED})
        await agent.until("answer")
        await agent.send_audio(audio)
        error = await agent.until("error")
        assert (error["sender"], error["error"]) == ("command", problem)
        await talk(agent, "pcm", "still here")
        await agent.hears("still here")
        await agent.send("hangup")
        await agent.ended()


async def test_an_unknown_codec_is_told_and_ends_the_call() -> None:
    """The error names what there is; the session is over with `hangup`."""
    async with quiet_house() as house, house.agent("/call?id=s1") as agent:
        await agent.send("invite", option={"codec": "mp3"})
        await agent.ended()
        assert agent.names == ["error", "hangup"]
        assert agent.events[0]["error"].startswith("there is no codec 'mp3' for a stream; there are ")


async def test_audio_before_the_call_is_dropped() -> None:
    """A client that is too early loses its first words, and nothing else."""
    async with quiet_house() as house, house.agent("/call?id=s1") as agent:
        await agent.send_audio(bytes(640))
        await agent.send("invite", option={"codec": "pcm", **SCRIPTED})
        await agent.until("answer")
        await talk(agent, "pcm", "now it counts")
        await agent.hears("now it counts")
        assert "error" not in agent.names
        await agent.send("hangup")
        await agent.ended()


async def test_a_vanished_client_ends_the_call() -> None:
    """No close frame: nothing of the call is left."""
    async with quiet_house() as house:
        async with house.agent("/call?id=s1") as agent:
            await agent.send("invite", option={"codec": "pcm", **SCRIPTED})
            await agent.until("answer")
            await agent.drop()
        await trio.sleep(60)


async def test_a_client_that_does_not_read_loses_audio_and_no_event() -> None:
    """Frames beyond two seconds of them are dropped; what is told after them comes all the same."""
    attachment = Attachment("s1", lambda _: None, lambda: None)
    for _ in range(150):
        attachment.play(bytes(640))
    attachment.tell(Ping(timestamp=1, payload="x"))
    attachment.call_ended()
    queued = [item async for item in attachment.events]
    assert (len(queued), attachment.dropped) == (101, 50)
    assert queued[-1] == Ping(timestamp=1, payload="x")


async def test_keys_are_tones_in_the_socket() -> None:
    """`dtmf` has no RTP event to send here, nor INFO: keys are in the audio."""
    async with quiet_house() as house, house.agent("/call?id=s1") as agent:
        await agent.send("invite", option={"codec": "pcm"})
        await agent.until("answer")
        await agent.send("dtmf", digits="5", duration=200)
        await trio.sleep(1)
        sound = decoded("pcm", bytes(agent.audio)).astype(float)
        spectrum = np.abs(np.fft.rfft(sound[:2400]))
        assert sorted((np.argsort(spectrum)[-2:] * 16000 / 2400).round().tolist()) == [767, 1333]
        await agent.send("hangup")
        await agent.ended()


async def test_subscribed_copies_of_a_phone_call() -> None:
    """With `subscribe` both sides of a SIP call come as binary messages: a byte for the track, 20 ms at 16 kHz."""
    async with quiet_house() as house, answered(house, **SCRIPTED, subscribe=True) as (call, agent):
        await call.say(spoken("hello there"))
        await agent.hears("hello there")
        await agent.says("good day")
        await agent.send("hangup")
        await agent.ended()
        frames = [bytes(agent.audio[at : at + 641]) for at in range(0, len(agent.audio), 641)]
        words = [
            heard_text(np.frombuffer(b"".join(frame[1:] for frame in frames if frame[0] == track), "<i2"), 16000)
            for track in (0, 1)
        ]
        assert words == ["good day", "hello there"]
