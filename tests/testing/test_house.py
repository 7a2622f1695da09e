"""The house and the people in it: what they say is what is heard, and what they own is told."""

from __future__ import annotations

import json

import attrs
import numpy as np
import pytest
import trio
import trio_websocket
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.events import Pcm
from rustpbx.media.rtp import RtpPacket
from rustpbx.settings import UaConfig
from rustpbx.testing.handset import LineEar
from rustpbx.testing.house import SERVER, House, Plan, open_house, server_config
from rustpbx.testing.line import FRAME, Heard
from rustpbx.testing.phone import CallRefusedError
from rustpbx.testing.script import LOST, LeftoverError, ScriptError, find, quoted
from rustpbx.testing.speech import dies, refuses, stalls, tone
from rustpbx.testing.voice import spoken
from rustpbx.testing.wire import Link

ROUGH = Link(loss=0.1, duplication=0.1, reorder=0.2, delay=0.05, jitter=0.03)


# -- words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "words", "start", "end"),
    [
        ("good morning sir", "morning", 0, 12),
        ("good morning sir", "good  morning ", 0, 12),
        ("good morning sir", "good", 4, None),
        ("yes yes", "yes", 3, 7),
        (f"good m{LOST}rning", "good morning", 0, 12),
        (f"g{LOST}{LOST}d", "good", 0, None),
        (f"caf{LOST}{LOST} au lait", "caf\u00e9 au", 0, 8),
        ("a.b", "axb", 0, None),
        ("", "x", 0, None),
    ],
)
def test_finding_words(heard: str, words: str, start: int, end: int | None) -> None:
    """Spaces count as one, lost letters stand for any as long as they are few, and nothing else is a pattern."""
    assert find(heard, words, start) == end


def test_quoted() -> None:
    """Nothing heard is told as such."""
    assert (quoted("hello"), quoted("")) == ('"hello"', "nothing")


class FakeLine:
    """The part of an `AudioLine` that an ear reads."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    def arrive(self, frames: list[Pcm], number: int) -> None:
        """Frame `number` arrives."""
        packet = RtpPacket(payload_type=0, sequence=number, timestamp=number * FRAME, ssrc=1, payload=b"")
        self.heard.append(Heard(0.0, number * FRAME, packet, frames[number]))


@given(st.data())
def test_an_ear_puts_packets_in_their_order(data: st.DataObject) -> None:
    """Whatever order and duplicates packets of one text come in (by less than 100 ms), the words are the same."""
    frames = list(np.pad(spoken("one two three"), (0, 80)).reshape(-1, FRAME))
    delays = data.draw(st.lists(st.integers(0, 4), min_size=len(frames), max_size=len(frames)))
    order = sorted(range(len(frames)), key=lambda number: number + delays[number])
    line = FakeLine()
    ear = LineEar(line)  # type: ignore[arg-type]  # all that it reads of a line
    for number in order:
        line.arrive(frames, number)
        if data.draw(st.booleans()):
            line.arrive(frames, number)
        assert "one two three".startswith(ear.text.rstrip(LOST)) or len(ear.text) < 13
    ear.finish()
    assert ear.text == "one two three"


def test_an_ear_goes_on_after_a_gap() -> None:
    """A packet that never comes is silence once later ones are 100 ms ahead; one that comes too late is not heard."""
    frames = list(spoken("one two three")[: 32 * FRAME].reshape(-1, FRAME))
    line = FakeLine()
    ear = LineEar(line)  # type: ignore[arg-type]  # all that it reads of a line
    for number in (0, 1, 2, 3, 7, 8):
        line.arrive(frames, number)
    assert ear.text == "on"
    for number in (*range(9, 32), 5):
        line.arrive(frames, number)
    assert ear.text == f"on{LOST} two three"


# -- calls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_words_pass_both_ways_on_a_rough_line(seed: int) -> None:
    """Loss, duplicates, reordering and jitter: the same conversation, though a letter may be lost."""
    async with House(Plan(seed=seed, link=ROUGH)).open() as house:
        phone, agent = house.handset, house.desk
        await phone.dials()
        await agent.answers(within=100)
        await phone.says("hello agent")
        await agent.hears("hello agent")
        await agent.says("good morning")
        await phone.hears("good morning")
        await phone.presses("42")
        assert [(await agent.until("dtmf", count))["digit"] for count in (1, 2)] == ["4", "2"]
        phone.hangs_up()
        assert (await agent.is_hung_up(within=100))["initiator"] == "caller"
        await house.settle()


async def test_an_interrupted_sentence_was_heard_as_far_as_it_was_played() -> None:
    """What the phone heard has the length that the `interruption` event tells."""
    async with House().open() as house:
        phone, agent = house.handset, house.desk
        await phone.dials()
        await agent.answers()
        await agent.starts_saying("abcdefghijklmnopqrstuvwxyz")
        await phone.hears("hij")
        cut = await agent.interrupts()
        await trio.sleep(1)
        assert phone.heard == "abcdefghijklmnopqrstuvwxyz"[: -(-cut["current"] // 50)]
        await agent.hangs_up()
        await phone.is_hung_up()


async def test_hearing_goes_forward() -> None:
    """Words that were waited for once are not found again: the same words must come again."""
    async with House().open() as house:
        phone, agent = house.handset, house.desk
        await phone.dials()
        await agent.answers()
        await agent.says("yes")
        assert await phone.hears("yes") == "yes"
        with pytest.raises(ScriptError, match='did not hear "yes" within 1 s; the phone heard "yes"'):
            await phone.hears("yes", within=1)
        await agent.says("yes")
        assert await phone.hears("yes") == "yes yes"
        await phone.says("no")
        await phone.says("no")
        await agent.hears("no")
        await agent.hears("no")
        await phone.plays(tone(0.5))
        await agent.until("speaking")
        phone.hangs_up()


async def test_the_agent_calls_and_the_phone_rejects() -> None:
    """Out: ringing, then the refusal of the phone's choice; and the phone that is asked again answers."""
    async with House().open() as house:
        phone, first, second = house.handset, house.desk, house.new_agent()
        await first.dials()
        await phone.rings()
        await first.until("ringing")
        await phone.rejects(480)
        assert (await first.until("reject"))["code"] == 480
        await second.dials()
        await phone.answers()
        await phone.says("hello again")
        await second.hears("hello again")
        await second.hangs_up()
        await phone.is_hung_up()
        await house.settle()


async def test_two_phones_two_agents() -> None:
    """A second phone is another address with its own words; the house's belongings count it in."""
    async with House().open() as house:
        bob, other = await house.new_phone("bob", "10.0.0.4"), house.new_agent()
        await bob.dials()
        await house.desk.answers()
        await house.handset.dials()
        await other.answers()
        await house.desk.says("for bob")
        await other.says("for the phone")
        assert (bob.heard, house.handset.heard) == ("for bob", "for the phone")
        assert repr(bob) == '<bob: talking, heard "for bob">'
        assert len(house.calls()) == 2
        bob.hangs_up()
        house.handset.hangs_up()
        await house.settle()


async def test_an_agent_under_test_takes_the_calls() -> None:
    """It gets a socket per call, and a test that wants to answer them itself is told so at once."""
    served: list[str] = []

    async def agent(socket: trio_websocket.WebSocketConnection) -> None:
        served.append(json.loads(await socket.get_message())["event"])
        await socket.send_message('{"command": "reject", "reason": "not now", "code": 480}')

    async with House(Plan(agent=agent)).open() as house:
        for _ in range(2):
            await house.handset.dials()
            with pytest.raises(ScriptError, match="refused: 480"):
                await house.handset.says("hello")
        assert served == ["incoming", "incoming"]
        with pytest.raises(ScriptError, match="the calls go to the agent under test"):
            await house.desk.answers()


async def test_a_dropped_agent() -> None:
    """A program that crashes: the phone is hung up."""
    async with House().open() as house:
        await house.handset.dials()
        await house.desk.answers()
        await house.desk.drop()
        await house.handset.is_hung_up()
        await house.settle()


async def test_a_slow_webhook_and_a_late_one() -> None:
    """An answer that takes longer than the server waits is a refusal."""
    async with House().open() as house:
        house.webhook.delay = 3
        await house.handset.dials()
        await house.desk.answers()
        house.handset.hangs_up()
        await house.desk.is_hung_up()
        house.webhook.delay = 300
        call = await house.handset.dials()
        with pytest.raises(CallRefusedError) as refused:
            await call.answered()
        assert refused.value.status == 503


async def test_ears_and_voices_fail() -> None:
    """Each failure reaches the agent as one `error`, and its words tell."""
    async with House().open() as house:
        phone, agent, speech = house.handset, house.desk, house.speech
        speech.listening = refuses("no such key", 401)
        speech.synthesizer.failures["bad"] = dies(0.1, "voice lost")
        await phone.dials()
        await agent.answers()
        error = await agent.until("error")
        assert (error["sender"], error["error"], error["code"]) == ("asr.scripted", "no such key", 401)
        await agent.says("bad")
        assert (await agent.until("error", 2))["error"] == "voice lost"
        assert phone.heard == "ba"
        await phone.says("hello")
        with pytest.raises(ScriptError, match=r"it heard nothing; error of asr.scripted: no such key; error of tts"):
            await agent.hears("hello", within=2)
        speech.synthesizer.trouble = stalls()
        await agent.starts_saying("silence")
        assert agent.tells().endswith("error (tts.scripted: voice lost), trackEnd, speaking, silence, trackStart")
        phone.hangs_up()
        await house.settle()
        assert [recognizer.trouble for recognizer in speech.recognizers] == [speech.listening]


# -- what is left -------------------------------------------------------------------------------------------------


async def test_leftovers_are_told() -> None:
    """A call that is up is named with its state; when it is over, nothing is."""
    async with open_house() as house:
        await house.handset.dials()
        await house.desk.answers()
        (told,) = house.calls()
        leg = house.server.plane.leg(next(iter(house.server.registry.calls)))
        assert leg is not None
        assert told.endswith(
            f": TALKING, leg on port {leg.port}, being transcribed, agent attached; hang up, or end the phone's call"
        )
        assert house.leftovers() == {"calls": 1, "legs": 1, "dialogs": 1, "transactions": 1}
        with pytest.raises(LeftoverError, match=r"the test is over, and this is left:\n  call .*TALKING"):
            await house.settle()
        house.handset.hangs_up()
        await house.settle()
        assert house.leftovers() == {"calls": 0, "legs": 0, "dialogs": 0, "transactions": 0}


async def test_a_house_opens_again() -> None:
    """Each opening is a new one: people without a past, and the same words again."""
    house = House(Plan(seed=3))
    told = []
    for _ in range(2):
        async with house.open():
            assert (house.handset.heard, house.desk.names) == ("", [])
            await house.handset.dials()
            await house.desk.answers()
            await house.desk.says("hello")
            told.append(house.handset.heard)
            house.handset.hangs_up()
            await house.settle()
    assert told == ["hello", "hello"]


async def test_the_plan_is_obeyed() -> None:
    """Configuration and weather come from the plan; before the house is open its parts say so."""
    ua = attrs.evolve(server_config().ua or UaConfig(), udp_port=5070)
    house = House(Plan(config=server_config(ua=ua), link=Link(delay=0.5)))
    with pytest.raises(ScriptError, match="the house is not open yet: its server is there once the test runs"):
        house.server  # noqa: B018 - asked for its error
    with pytest.raises(ScriptError, match="not open yet"):
        await house.new_phone("bob", "10.0.0.4")
    assert house.uri == f"sip:800@{SERVER}:5070"
    async with house.open():
        began = trio.current_time()
        call = await house.handset.dials()
        await house.desk.answers()
        await call.answered()
        assert trio.current_time() - began == pytest.approx(1.0)
        house.handset.hangs_up()
