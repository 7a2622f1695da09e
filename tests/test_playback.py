"""Playback in whole calls, in virtual time: what the phone really hears of it, and when."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import numpy as np
import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.events import Pcm
from rustpbx.settings import OutboundConfig
from rustpbx.speech.base import SpeechChunk, Utterance, Voice
from rustpbx.testing.phone import PhoneCall
from rustpbx.testing.speech import ScriptedSynthesizer, dies, stalls, tone
from rustpbx.testing.voice import PACE, heard_text, spoken
from rustpbx.values import network
from tests.kit.agent import Agent
from tests.kit.files import File, serve_files, wav
from tests.kit.house import AGENT, House, server_config
from tests.test_calls import DIAL, SCRIPTED, answered, over, quiet_house

URL = f"http://{AGENT}:9001"


@asynccontextmanager
async def talking(synthesizer: ScriptedSynthesizer | None = None) -> AsyncIterator[tuple[PhoneCall, Agent]]:
    """An answered call in a house of its own; it is hung up at the end."""
    async with quiet_house(synthesizer=synthesizer or ScriptedSynthesizer()) as house, answered(house) as (call, agent):
        yield call, agent
        await agent.send("hangup")
        await over(agent)


@asynccontextmanager
async def file_house(**files: Pcm | File) -> AsyncIterator[House]:
    """A house beside a web server with these files: `a` is at `URL/a.wav`."""
    config = server_config(outbound=OutboundConfig(allow_private=(network("10.0.0.0/8"),)))
    served = {
        f"/{name}.wav": content if isinstance(content, File) else File(wav(content)) for name, content in files.items()
    }
    async with quiet_house(config=config) as house, trio.open_nursery() as nursery:
        nursery.start_soon(serve_files, house.agents, (AGENT, 9001), served)
        yield house
        nursery.cancel_scope.cancel()


async def send_all(agent: Agent, *texts: str, **fields: object) -> None:
    """`tts` commands of one playback."""
    for text in texts:
        await agent.send("tts", text=text, **fields)


def words(call: PhoneCall) -> str:
    """All that the phone has heard."""
    return heard_text(call.hear())


def loud_seconds(call: PhoneCall, after: float = float("-inf")) -> float:
    """How much sound arrived after that time."""
    return 0.02 * sum(heard.loud for heard in call.line.heard if heard.at > after)


# -- streaming ------------------------------------------------------------------------------------------------------


async def test_a_text_in_pieces_is_one_flow_of_speech() -> None:
    """Sentences are spoken as they become whole, without a gap, in one track that ends with `endOfStream`."""
    synthesizer = ScriptedSynthesizer()
    async with talking(synthesizer) as (call, agent):
        await send_all(agent, "Good mor", "ning. How", " are", " you to", "day? I", streaming=True, playId="p")
        await agent.send("tts", text=" am fine", streaming=True, playId="p", endOfStream=True)
        ended = await agent.until("trackEnd")
        assert words(call) == "Good morning. How are you today? I am fine"
        assert [said.text for said in synthesizer.said] == ["Good morning.", "How are you today?", "I am fine"]
        assert ended["duration"] == pytest.approx(1000 * PACE * 40, abs=150)
        assert agent.names.count("trackStart") == 2  # the phone's own, and this one


async def test_a_stream_without_an_end_is_over_after_ten_quiet_seconds() -> None:
    """As agents that never say `endOfStream` need it: the last words, `trackEnd`, then the wait for input."""
    async with talking() as (call, agent):
        await send_all(agent, "One moment. I", " look it up", streaming=True, playId="p", waitInputTimeout=3000)
        await agent.until("trackEnd")
        assert words(call) == "One moment. I look it up"
        assert trio.current_time() - call.line.loud_at == pytest.approx(10, abs=0.2)
        silence = await agent.until("silence")
        assert (silence["trackId"], silence["duration"]) == ("server-side-track", 3000)


async def test_a_stream_goes_on_after_a_long_pause_of_its_writer() -> None:
    """Nine quiet seconds are none too many: the same track speaks on."""
    async with talking() as (call, agent):
        for _ in range(3):
            await send_all(agent, "Still here.", streaming=True)
            await call.line.hush(9)
        assert agent.names.count("trackStart") == 2  # the phone's own, and this one
        assert "trackEnd" not in agent.names
        await agent.until("trackEnd")
        assert words(call).replace(" ", "") == 3 * "Stillhere."


async def test_a_paused_stream_does_not_end() -> None:
    """A minute of pause, then it goes on, and only after that come the ten seconds."""
    async with talking() as (call, agent):
        await send_all(agent, "Please wait. There is more.", streaming=True)
        await call.line.sound()
        await agent.send("pause")
        await trio.sleep(60)
        assert "trackEnd" not in agent.names
        await agent.send("resume")
        await agent.until("trackEnd")
        assert words(call).endswith("There is more.")
        assert trio.current_time() - call.line.loud_at == pytest.approx(10, abs=0.2)


@attrs.define
class Streamer(ScriptedSynthesizer):
    """A service that takes incremental text by itself: each piece is spoken as it comes, marks if `marked`."""

    marked: bool = True

    async def stream(
        self, texts: trio.MemoryReceiveChannel[str], voice: Voice, audio: trio.MemorySendChannel[SpeechChunk]
    ) -> None:
        """Speak."""
        at = 0
        async for text in texts:
            pcm = spoken(text, rate=voice.rate, pace=self.pace)
            for start in range(0, len(pcm), 800):
                mark = at + len(text) * start // len(pcm) if self.marked else None
                await audio.send(SpeechChunk(pcm[start : start + 800], voice.rate, mark))
            at += len(text)


@pytest.mark.parametrize("marked", [True, False])
async def test_an_interrupted_stream_tells_the_piece_and_the_place_in_it(marked: bool) -> None:
    """As the service's marks say; without marks, how long it has spoken and nothing of the words."""
    async with talking(Streamer(marked=marked)) as (call, agent):
        await send_all(agent, "x" * 10, "y" * 40, "z" * 60, streaming=True, playId="p")
        await call.line.sound()
        await trio.sleep(1.4)
        await agent.send("interrupt", graceful=True)
        cut = await agent.until("interruption")
        await agent.until("trackEnd")
        if marked:
            assert (cut["subtitle"], cut["current"]) == ("y" * 40, pytest.approx(900, abs=60))
            assert cut["position"] == pytest.approx(18, abs=2)
            assert cut["totalDuration"] == 2000
        else:
            assert "subtitle" not in cut
            assert "position" not in cut
            assert cut["current"] == pytest.approx(1400, abs=60)
        stopped = trio.current_time()
        await trio.sleep(1)
        assert call.line.loud_at <= stopped + 0.04


async def test_a_stream_that_breaks_is_one_error_and_the_next_piece_another_stream() -> None:
    """What was said stays said, the piece that broke is lost, and the track goes on to its end."""
    synthesizer = ScriptedSynthesizer(failures={"Second.": dies(0.2, "connection lost", 502)})
    async with talking(synthesizer) as (call, agent):
        await send_all(agent, "First.", " Second.", streaming=True, playId="p")
        error = await agent.until("error")
        assert (error["sender"], error["error"], error["code"]) == ("tts.scripted", "connection lost", 502)
        await agent.send("tts", text="Third.", streaming=True, playId="p", endOfStream=True)
        await agent.until("trackEnd")
        assert words(call).split() == ["First.", "Seco", "Third."]
        assert agent.names.count("error") == 1


@pytest.mark.parametrize("end", [True, False])
async def test_a_stream_that_never_speaks_is_an_error_and_ends(end: bool) -> None:
    """After ten seconds: `error`, and `trackEnd` at once, or after ten more where more text might have come."""
    async with talking(ScriptedSynthesizer(trouble=stalls())) as (call, agent):
        began = trio.current_time()
        await send_all(agent, "Hello?", streaming=True, endOfStream=end)
        error = await agent.until("error")
        assert error["error"] == "no audio for 10 s"
        assert trio.current_time() - began == pytest.approx(10, abs=0.2)
        await agent.until("trackEnd")
        assert trio.current_time() - began == pytest.approx(10 if end else 20, abs=0.2)
        assert loud_seconds(call) == 0


# -- utterances -----------------------------------------------------------------------------------------------------


@attrs.define
class Slow(ScriptedSynthesizer):
    """Each text waits as many seconds as it says first: "3 words" takes three. `asked` is when each was asked for."""

    asked: list[tuple[float, str]] = attrs.field(factory=list)

    async def synthesize(self, utterance: Utterance, audio: trio.MemorySendChannel[SpeechChunk]) -> None:
        """Wait, then speak."""
        self.asked.append((trio.current_time(), utterance.text))
        await trio.sleep(float(utterance.text.split()[0]))
        await super().synthesize(utterance, audio)


@pytest.mark.parametrize(("at_once", "begun"), [(1, 1), (2, 2), (3, 4), (100, 4)])
async def test_texts_are_synthesised_side_by_side_and_heard_in_order(at_once: int, begun: int) -> None:
    """As many requests at once as the option says, whichever is ready first; of three one is, so a fourth follows."""
    synthesizer = Slow()
    async with talking(synthesizer) as (call, agent):
        texts = ("4 slow words", "1 quick", "0 now", "2 last")
        await send_all(agent, *texts, playId="p", option={"maxConcurrentTasks": at_once})
        await agent.send("tts", text="", playId="p", endOfStream=True)
        began = trio.current_time()
        await trio.sleep(0.5)
        assert len(synthesizer.asked) == begun
        await agent.until("trackEnd")
        assert words(call) == " ".join(texts)
        assert call.line.loud_at - began >= 4


async def test_a_failing_text_among_others_is_skipped_with_one_error() -> None:
    """The ones around it are heard, in order."""
    synthesizer = ScriptedSynthesizer(failures={"bad": SpeechError("no such word", 400)})
    async with talking(synthesizer) as (call, agent):
        await send_all(agent, "one", "bad", "three", playId="p", option={"maxConcurrentTasks": 3})
        await agent.send("tts", text="", playId="p", endOfStream=True)
        await agent.until("trackEnd")
        assert words(call) == "one three"
        assert [event["error"] for event in agent.events if event["event"] == "error"] == ["no such word"]


async def test_a_text_that_stalls_is_skipped_three_seconds_after_its_end() -> None:
    """Counted from the end of what came of it, not from when it came."""
    synthesizer = ScriptedSynthesizer(failures={"x" * 60: stalls(2.01)})
    async with talking(synthesizer) as (call, agent):
        await send_all(agent, "x" * 60, "next", playId="p")
        first = await call.line.hush(2.9)
        assert await call.line.sound(first) - first == pytest.approx(3, abs=0.1)
        assert (await agent.until("error"))["error"] == "no audio for 3 s"
        await call.line.hush()
        assert words(call).endswith("next")


async def test_a_pause_does_not_make_a_service_late() -> None:
    """A text that is held, or still comes while it is held, is not given up."""
    synthesizer = ScriptedSynthesizer(failures={"x" * 60: stalls(1.0)})
    async with talking(synthesizer) as (call, agent):
        await send_all(agent, "x" * 60, "next", playId="p")
        await call.line.sound()
        await agent.send("pause")
        await trio.sleep(30)
        assert "error" not in agent.names
        await agent.send("resume")
        resumed = trio.current_time()
        await agent.until("error")
        assert trio.current_time() - resumed == pytest.approx(4, abs=0.2)


async def test_an_agents_own_audio_takes_its_place_among_the_texts() -> None:
    """base64 of 16 kHz PCM, between two texts; what is no base64 is skipped with an error."""
    async with talking() as (call, agent):
        pcm = base64.b64encode(spoken("sound", rate=16000).tobytes()).decode()
        await agent.send("tts", text="before", playId="p")
        await agent.send("tts", text=pcm, base64=True, playId="p")
        await agent.send("tts", text="#", base64=True, playId="p")
        await agent.send("tts", text="after", playId="p", endOfStream=True)
        await agent.until("trackEnd")
        assert words(call) == "before sound after"
        (error,) = (event for event in agent.events if event["event"] == "error")
        assert error["sender"] == "tts"


async def test_emoji_are_not_spoken_but_told() -> None:
    """The service gets spaces, the subtitle is the agent's text; a text of nothing else is over at once."""
    synthesizer = ScriptedSynthesizer()
    async with talking(synthesizer) as (call, agent):
        await send_all(agent, "😀", "fine 😀 thanks", playId="p")
        await call.line.sound()
        await agent.send("interrupt")
        assert (await agent.until("interruption"))["subtitle"] == "fine 😀 thanks"
        assert [said.text for said in synthesizer.said] == ["fine   thanks"]


# -- interruption ---------------------------------------------------------------------------------------------------


async def test_a_graceful_interrupt_ends_with_the_text_being_spoken() -> None:
    """Its rest is heard, the next one is not; a burst of interrupts is told once."""
    async with talking() as (call, agent):
        await send_all(agent, "this one ends", "and this never begins", playId="p", waitInputTimeout=1000)
        await call.line.sound()
        for _ in range(20):
            await agent.send("interrupt", graceful=True)
        await agent.until("trackEnd")
        await agent.until("silence")
        assert words(call) == "this one ends"
        assert agent.names.count("interruption") == 1


@pytest.mark.parametrize("command", ["tts", "play"])
async def test_what_comes_during_a_graceful_stop_cuts_it_at_once(command: str) -> None:
    """Never two voices: the old one stops within two frames, the new one is heard whole."""
    async with file_house(a=spoken("new")) as house, answered(house) as (call, agent):
        await agent.send("tts", text="a long old sentence that goes on and on", playId="old")
        await call.line.sound()
        await trio.sleep(0.5)
        await agent.send("interrupt", graceful=True)
        await agent.until("interruption")
        fields = {"text": "new", "endOfStream": True} if command == "tts" else {"url": f"{URL}/a.wav"}
        await agent.send(command, playId="new", **fields)
        await agent.until("trackEnd", 2)
        heard = words(call)
        assert heard.endswith(" new")
        assert "a long old sentence that".startswith(heard.removesuffix(" new").rstrip("\N{REPLACEMENT CHARACTER}"))
        assert [(event["event"], event.get("playId")) for event in agent.events[-5:]] == [
            ("trackStart", "old"),
            ("interruption", "old"),
            ("trackEnd", "old"),
            ("trackStart", "new"),
            ("trackEnd", "new"),
        ]
        await agent.send("hangup")
        await over(agent)


# -- pause and mute -------------------------------------------------------------------------------------------------


async def test_a_pause_is_silence_in_the_middle_of_the_words() -> None:
    """Within two frames it is quiet, and after `resume` no word is missing; the position waited too."""
    text = "nothing of this may be lost"
    async with talking() as (call, agent):
        await agent.send("tts", text=text, playId="p")
        await call.line.sound()
        await trio.sleep(0.5)
        await agent.send("pause")
        paused = trio.current_time()
        await trio.sleep(5)
        assert call.line.loud_at <= paused + 0.04
        await agent.send("resume")
        await call.line.sound(trio.current_time())
        resumed = trio.current_time()
        await trio.sleep(0.3)
        await agent.send("interrupt")
        cut = await agent.until("interruption")
        assert cut["current"] == pytest.approx(800, abs=60)
        assert resumed - paused == pytest.approx(5, abs=0.05)
        assert loud_seconds(call) == pytest.approx(0.8, abs=0.06)
        await agent.send("tts", text=text, playId="q")
        await call.line.sound(trio.current_time())
        began = len(call.hear())
        for _ in range(5):
            await agent.send("pause")
            await trio.sleep(1)
            await agent.send("resume")
            await trio.sleep(0.1)
        await agent.send("tts", text="", playId="q", endOfStream=True)
        await agent.until("trackEnd", 2)
        sound = call.hear()[began - 160 :]
        kept = sound.reshape(-1, 160)[np.abs(sound.reshape(-1, 160)).max(axis=1) > 100].reshape(-1)
        assert heard_text(kept) == text


@pytest.mark.parametrize("ending", ["interrupt", "hangup", "tts", "play", "phone"])
async def test_a_paused_playback_ends_like_any_other(ending: str) -> None:
    """Told as interrupted where it was held, and nothing of it is heard afterwards."""
    async with file_house(a=spoken("next")) as house, answered(house) as (call, agent):
        await agent.send("tts", text="this is held half way through", playId="old")
        await call.line.sound()
        await trio.sleep(0.5)
        await agent.send("pause")
        await trio.sleep(2)
        asked = trio.current_time()
        if ending == "phone":
            call.hang_up()
        else:
            await agent.send(ending, text="next", url=f"{URL}/a.wav", playId="new", endOfStream=True)
        cut = await agent.until("interruption")
        assert (cut["playId"], cut["current"]) == ("old", pytest.approx(500, abs=60))
        await agent.until("trackEnd")
        if ending in ("tts", "play"):
            await agent.until("trackEnd", 2)
            assert words(call).endswith("next")
        else:
            await trio.sleep(2)
            assert loud_seconds(call, asked) == 0
        if agent.closed is None and ending not in ("hangup", "phone"):
            await agent.send("hangup")
        await over(agent)


async def test_a_muted_playback_goes_on_unheard() -> None:
    """Its time passes, and the words after `unmute` are those of that moment."""
    async with talking() as (call, agent):
        await agent.send("mute", trackId="server-side-track")
        await agent.send("tts", text="unheard words, and then heard ones", playId="p", endOfStream=True)
        await trio.sleep(15 * PACE)
        await agent.send("unmute", trackId="server-side-track")
        ended = await agent.until("trackEnd")
        assert ended["duration"] == pytest.approx(34 * PACE * 1000, abs=100)
        assert words(call).endswith("then heard ones")
        assert "unheard" not in words(call)


async def test_a_muted_phone_is_not_listened_to() -> None:
    """Neither VAD nor ASR nor keys; after `unmute` all of them."""
    async with talking() as (call, agent):
        await agent.send("mute")
        await call.say(spoken("secret"))
        await call.press("1")
        await agent.send("unmute")
        await call.say(spoken("public"))
        await call.press("2")
        assert (await agent.until("asrFinal"))["text"] == "public"
        assert (await agent.until("dtmf"))["digit"] == "2"
        await agent.until("silence")
        assert agent.names.count("speaking") == 1


# -- files ----------------------------------------------------------------------------------------------------------


async def test_an_interrupted_file_tells_its_place_and_its_length() -> None:
    """Of all of it, though only ten seconds are held ready."""
    async with file_house(a=spoken("x" * 600)) as house, answered(house) as (call, agent):
        await agent.send("play", url=f"{URL}/a.wav", playId="p")
        await call.line.sound()
        await trio.sleep(1)
        await agent.send("interrupt", graceful=True)
        cut = await agent.until("interruption")
        assert (cut["playId"], cut["totalDuration"]) == ("p", 30_000)
        assert cut["current"] == pytest.approx(1000, abs=60)
        assert "subtitle" not in cut
        await agent.until("trackEnd")
        await agent.send("hangup")
        await over(agent)


async def test_a_file_begins_with_its_track_and_fails_with_an_error() -> None:
    """`trackStart` at once; a file that is not there or no audio is `error` and `trackEnd`, and the call goes on."""
    async with file_house(page=File(b"<html>", "text/html")) as house, answered(house) as (_, agent):
        for count, path in enumerate(("missing.wav", "page.wav"), 1):
            await agent.send("play", url=f"{URL}/{path}")
            await agent.until("trackEnd", count)
            start, error, end = agent.events[-3:]
            assert (start["event"], start["playId"]) == ("trackStart", f"{URL}/{path}")
            assert (error["event"], error["sender"]) == ("error", f"filetrack: {URL}/{path}")
            assert "code" not in error
            assert (end["event"], end["playId"]) == ("trackEnd", f"{URL}/{path}")
        await agent.send("hangup")
        await over(agent)


async def test_a_file_ends_the_call_or_waits_for_input_as_a_text_does() -> None:
    """`waitInputTimeout` behind the first, `autoHangup` behind the second."""
    async with file_house(a=spoken("bye")) as house, answered(house) as (call, agent):
        await agent.send("play", url=f"{URL}/a.wav", waitInputTimeout=1500)
        assert (await agent.until("silence"))["duration"] == 1500
        await agent.send("play", url=f"{URL}/a.wav", autoHangup=True)
        assert (await over(agent))["reason"] == "system"
        assert words(call) == "bye bye"


# -- early media ----------------------------------------------------------------------------------------------------


async def test_a_ringtone_loops_until_the_call_is_accepted_and_then_the_agent_listens() -> None:
    """183 with SDP, the tone again and again; `accept` ends it within two frames and attaches VAD and ASR."""
    async with file_house(ring=tone(0.7)) as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("ringing", ringtone=f"{URL}/ring.wav")
            assert (await call.progressed()).status == 183
            await call.line.sound()
            await call.say(spoken("too early"))
            await trio.sleep(4)
            assert loud_seconds(call) > 4
            await agent.send("accept", option=SCRIPTED)
            await agent.until("answer")
            accepted = trio.current_time()
            await call.answered()
            await call.say(spoken("hello"))
            assert (await agent.until("asrFinal"))["text"] == "hello"
            await agent.until("silence")
            assert call.line.loud_at <= accepted + 0.04
            assert agent.names.count("speaking") == 1
            assert agent.names[:5] == ["incoming", "trackStart", "trackStart", "trackEnd", "answer"]
            await agent.send("tts", text="hello yourself", endOfStream=True)
            await agent.until("trackEnd", 2)
            assert words(call).endswith("hello yourself")
            await agent.send("hangup")
            await over(agent)


async def test_ringing_again_changes_the_ringtone() -> None:
    """The provisional response is sent again and no other SDP with it; the new tone takes the old one's place."""
    async with file_house(one=spoken("one "), two=spoken("two ")) as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            for name in ("one", "two"):
                await agent.send("ringing", ringtone=f"{URL}/{name}.wav")
                await call.progressed(1 if name == "one" else 2)
                await call.line.sound(trio.current_time() + 0.1)
                await trio.sleep(1)
            first, second = await call.progressed(1), await call.progressed(2)
            assert (first.status, second.status) == (183, 183)
            assert second.body in {b"", first.body}  # agreed reliably, it need not be said again
            heard = words(call).split()
            assert set(heard[: heard.index("two")]) <= {"one", "o", "on"}
            assert set(heard[heard.index("two") :]) <= {"two", "t", "tw"}
            await agent.send("reject", reason="enough")
            await over(agent)


async def test_words_as_early_media_without_a_ringtone() -> None:
    """`earlyMedia` alone opens the line: texts are heard while it rings, and go on through the answer."""
    async with quiet_house() as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("ringing", earlyMedia=True)
            await call.progressed()
            await agent.send(
                "tts", text="you are first in the queue", endOfStream=True, option={"provider": "scripted"}
            )
            await call.line.sound()
            await agent.send("accept", option=SCRIPTED)
            await call.answered()
            await agent.until("trackEnd")
            assert words(call) == "you are first in the queue"
            await agent.send("hangup")
            await over(agent)


@pytest.mark.parametrize("late", [True, False])
async def test_transcription_of_early_media_is_the_agents_choice(late: bool) -> None:
    """`startWhenAnswer` keeps what is said before the answer out of the transcript."""
    async with quiet_house() as house, house.agent() as agent:
        asr = {"provider": "scripted", "startWhenAnswer": late}
        await agent.send("invite", option={"callee": house.phone.uri, "asr": asr})
        call = await house.phone.ring()
        call.ringing(183, early_media=True)
        await agent.until("ringing")
        await call.say(spoken("early"))
        await trio.sleep(1)
        call.answer()
        await agent.until("answer")
        await call.say(spoken("late"))
        await agent.until("asrFinal", 1 if late else 2)
        finals = [event["text"] for event in agent.events if event["event"] == "asrFinal"]
        assert finals == (["late"] if late else ["early", "late"])
        await agent.send("hangup")
        await over(agent)
