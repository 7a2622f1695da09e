"""Whole calls whose speech service is on the network, and has its troubles."""

from __future__ import annotations

import io
import json
import wave
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from rustpbx.session.shell.listening import FIRST_PAUSE
from rustpbx.settings import OutboundConfig
from rustpbx.speech import voiceapi
from rustpbx.speech.registry import register_recognizer, register_synthesizer, unregister
from rustpbx.testing.network import MemoryNetwork
from rustpbx.testing.services.service import Answer, Conversation, EmulatedService, Message
from rustpbx.testing.services.voiceapi import EmulatedVoiceApi
from rustpbx.testing.voice import PACE, spoken
from rustpbx.values import network
from tests.kit.house import House, server_config
from tests.kit.services import HOST, PORT
from tests.test_calls import answered, over, quiet_house
from tests.test_playback import words

EARS = {"asr": {"provider": "distant", "endpoint": f"http://{HOST}:{PORT}"}, "tts": {"provider": "scripted"}}


@pytest.fixture(autouse=True)
def _distant() -> Iterator[None]:
    """VoiceApi under a name that nothing else stands in for."""
    register_recognizer("distant", voiceapi.recognizer)
    register_synthesizer("distant", voiceapi.synthesizer)
    yield
    unregister("distant")


@asynccontextmanager
async def house_with(service: EmulatedService) -> AsyncIterator[House]:
    """A server that may reach the service."""
    config = server_config(outbound=OutboundConfig(allow_private=(network("10.0.0.0/8"),)))
    async with quiet_house(config=config) as house, trio.open_nursery() as nursery:
        await nursery.start(service.serve, MemoryNetwork(house.wire, HOST), (HOST, PORT))
        yield house
        nursery.cancel_scope.cancel()


async def test_a_service_that_drops_is_reported_once_and_heard_again() -> None:
    """The connection is cut in the middle of a word: one error, and what is said then arrives, counted on."""
    service = EmulatedVoiceApi(script=["first words and more"], drop_after=3)
    async with house_with(service) as house, answered(house, **EARS) as (call, agent):
        await call.say(spoken("first words"))
        error = await agent.until("error")
        assert (error["sender"], error["error"]) == ("asr.distant", "voiceapi dropped the connection")
        service.drop_after = None
        service.script[0] = "second words"
        await trio.sleep(2 * FIRST_PAUSE)
        await call.say(spoken("second words"))
        final = await agent.until("asrFinal")
        assert (final["index"], final["text"]) == (1, "second words")
        await agent.send("hangup")
        await over(agent)
    assert agent.names.count("error") == 1
    assert len(service.conversations) == 2


async def test_a_service_that_refuses_for_good_is_asked_once() -> None:
    """Wrong credentials: one error with its status, no second try, and the call goes on without ears."""
    service = EmulatedVoiceApi(refuse=Answer(401))
    async with house_with(service) as house, answered(house, **EARS) as (call, agent):
        await call.say(spoken("anybody there"))
        error = await agent.until("error")
        assert (error["error"], error["code"]) == ("voiceapi answered 401 Unauthorized", 401)
        await trio.sleep(120)
        await agent.send("hangup")
        await over(agent)
    assert len(service.requests) == 1


async def test_a_service_that_is_down_for_the_whole_call_is_one_error() -> None:
    """It is tried again, less and less often, and told of once."""
    service = EmulatedVoiceApi(refuse=Answer(503))
    async with house_with(service) as house, answered(house, **EARS) as (_, agent):
        await trio.sleep(100)
        await agent.send("hangup")
        await over(agent)
    assert agent.names.count("error") == 1
    assert 5 <= len(service.requests) <= 10


async def test_what_was_said_once_is_not_asked_for_again(tmp_path: Path) -> None:
    """Two calls say the same: the service is asked once, both phones hear it, and the metrics tell the difference."""
    measured = []
    async with quiet_house(config=server_config(media_cache_path=str(tmp_path))) as house:
        for _ in range(2):
            async with answered(house) as (call, agent):
                await agent.send("tts", text="good morning", playId="p", endOfStream=True)
                await agent.until("trackEnd")
                assert words(call) == "good morning"
                measured.append([(event["key"], event["duration"], event["data"]) for event in agent.metrics])
                await agent.send("hangup")
                await over(agent)
        assert [utterance.text for utterance in house.speech.synthesizer.said] == ["good morning"]
    told = {"playId": "p", "cmdSeq": 0}
    length = 2 * len(spoken("good morning"))
    keys = ["ttfb.tts.scripted", "completed.tts.scripted"]
    assert measured == [
        [(keys[0], 0, told), (keys[1], 0, {**told, "length": length, "cached": False})],
        [(keys[0], 0, told), (keys[1], 0, {**told, "length": length, "cached": True, "speaker": None})],
    ]


async def test_the_time_of_a_service_is_measured() -> None:
    """First audio and last, from the command on, for a text and for a stream of them."""
    async with quiet_house() as house, answered(house) as (_, agent):
        house.speech.synthesizer.delay = 0.4
        await agent.send("tts", text="one", playId="p", endOfStream=True)
        await agent.until("trackEnd")
        await agent.send("tts", text="Two. ", playId="q", streaming=True)
        await trio.sleep(1)
        await agent.send("tts", text="Three.", playId="q", streaming=True, endOfStream=True)
        await agent.until("trackEnd", 2)
        await agent.send("hangup")
        await over(agent)
    assert [(event["key"], event["duration"], event["data"]["cmdSeq"]) for event in agent.metrics] == [
        ("ttfb.tts.scripted", 400, 0),
        ("completed.tts.scripted", 400, 0),
        ("ttfb.tts.scripted", 400, None),
        ("completed.tts.scripted", 1400, None),
    ]


# -- voices ----------------------------------------------------------------------------------------------------------

VOICE = {"asr": {"provider": "scripted"}, "tts": {"provider": "distant", "endpoint": f"http://{HOST}:{PORT}"}}
DONE = json.dumps({"progress": 1.0, "elapsed": "3ms", "duration": "1s", "size": 0})


@attrs.define(eq=False)
class OddVoice(EmulatedService):
    """Answers each text with the next list of messages; None is the end of the connection."""

    answers: deque[list[Message | None]] = attrs.field(factory=deque)

    async def converse(self, conversation: Conversation) -> None:
        """Say what the script has, and wait for the client to go."""
        await conversation.receive()
        for message in self.answers.popleft():
            if message is None:
                await conversation.drop()
                return
            await conversation.send(message)
        await conversation.receive()


def header(*, channels: int = 1, rate: int = 8000) -> bytes:
    """The begin of a WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, 2, rate, 0, "NONE", ""))
    return file.getvalue()


def samples(text: str) -> bytes:
    """What a text sounds like."""
    return spoken(text).astype("<i2").tobytes()


GOOD: list[Message | None] = [samples("all is well"), DONE]
ODD: dict[str, tuple[list[Message | None], str, str]] = {
    "dropped before a word": ([None], "voiceapi dropped the connection", ""),
    "dropped in the middle": ([samples("half"), None], "voiceapi dropped the connection", "half"),
    "stereo": ([header(channels=2), DONE], "voiceapi sends WAV that is not 16-bit mono PCM: format 1, 2 channels", ""),
    "endless header": ([b"RIFF\0\0\0\0WAVEjunk\xff\xff\0\0" + bytes(5000), DONE], "voiceapi sends WAV with a head", ""),
    "ten megabytes": ([bytes(1024 * 1024)] * 10, "more than 64 s of audio for 4 characters", ""),
    "nothing": ([], "no audio for 10 s", ""),
}


@pytest.mark.parametrize("name", ODD)
async def test_a_voice_that_breaks_down_is_one_error(name: str) -> None:
    """What came of it is heard, its sender and reason are told once, and the next text is spoken."""
    messages, problem, heard = ODD[name]
    service = OddVoice(answers=deque([messages, list(GOOD)]))
    async with house_with(service) as house, answered(house, **VOICE) as (call, agent):
        await agent.send("tts", text="this", playId="p")
        await agent.send("tts", text="then", playId="p", endOfStream=True)
        await agent.until("trackEnd")
        await agent.send("hangup")
        await over(agent)
        assert words(call) == f"{heard} all is well".strip()
    (error,) = [event for event in agent.events if event["event"] == "error"]
    assert error["sender"] == "tts.distant"
    assert error["error"].startswith(problem)


@pytest.mark.parametrize(
    "messages",
    [
        ["no json", "[]", '{"other": 1}', samples("all is well"), DONE],
        [header(), samples("all is well"), DONE],
        [samples("all is well")[:4000], header(), samples("all is well")[4000:], DONE],
        [samples("all is well")[:4001], samples("all is well")[4001:], DONE],
    ],
    ids=["words that mean nothing", "a WAV header", "a WAV header in the middle", "half a sample"],
)
async def test_a_voice_that_is_odd_is_understood(messages: list[Message | None]) -> None:
    """All of the audio is heard, and nothing else; nobody is bothered."""
    async with house_with(OddVoice(answers=deque([messages]))) as house, answered(house, **VOICE) as (call, agent):
        await agent.send("tts", text="this", playId="p", endOfStream=True)
        await agent.until("trackEnd")
        await agent.send("hangup")
        await over(agent)
        assert words(call) == "all is well"
    assert "error" not in agent.names


async def test_a_voice_that_is_down_for_the_whole_call_is_an_error_each_time() -> None:
    """Each text is tried, each failure is told with its status, each playback ends; the call goes on."""
    service = EmulatedVoiceApi(refuse=Answer(503))
    async with house_with(service) as house, answered(house, **VOICE) as (call, agent):
        for number in range(3):
            await agent.send("tts", text=f"text {number}", playId=f"p{number}", endOfStream=True)
            await agent.until("trackEnd", number + 1)
        await call.say(spoken("still here"))
        assert (await agent.until("asrFinal"))["text"] == "still here"
        await agent.send("hangup")
        await over(agent)
    refusals = [(event["sender"], event["error"], event["code"]) for event in agent.events if event["event"] == "error"]
    assert refusals == [("tts.distant", "voiceapi answered 503 Service Unavailable", 503)] * 3
    assert len(service.requests) == 3


async def test_a_call_that_ends_while_a_voice_speaks_leaves_it_at_once() -> None:
    """The connection is dropped with the call, and nothing is left of it."""
    service = EmulatedVoiceApi(delay=0.1)
    async with house_with(service) as house, answered(house, **VOICE) as (call, agent):
        await agent.send("tts", text="a long text that takes its time", playId="p")
        await call.line.sound()
        assert service.conversations[0].closed is None
        call.hang_up()
        await over(agent)
        await trio.sleep(service.delay)  # it sees that at its next word
        assert service.conversations[0].closed == 1006
    assert agent.names[-4:] == ["interruption", "trackEnd", "trackEnd", "hangup"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("graceful", [False, True])
@pytest.mark.parametrize("moment", [0.01, 0.3, 1.234])
async def test_no_late_audio_of_a_voice_is_heard(streaming: bool, graceful: bool, moment: float) -> None:
    """What is cut while its audio is on the way stays cut: nothing of it lies before, in or after the next text."""
    old = samples("one old sentence that goes on and on")
    late: list[Message | None] = [old[at : at + 1600] for at in range(0, len(old), 1600)]
    service = OddVoice(answers=deque([[*late, DONE], list(GOOD)]), delay=0.02)
    async with house_with(service) as house, answered(house, **VOICE) as (call, agent):
        await agent.send("tts", text="Old.\n", playId="old", streaming=streaming)
        await call.line.sound()
        await trio.sleep(moment)
        await agent.send("interrupt", graceful=graceful)
        await agent.until("interruption")
        await agent.send("tts", text="New.\n", playId="new", streaming=streaming, endOfStream=True)
        await agent.until("trackEnd", 2)
        await agent.send("hangup")
        await over(agent)
        heard = words(call)
    assert heard.endswith("all is well")
    before = heard.removesuffix("all is well").rstrip(" \N{REPLACEMENT CHARACTER}")
    assert "one old sentence that goes on and on".startswith(before)
    assert len(before) <= round((moment + 0.1) / PACE)
    assert "error" not in agent.names
