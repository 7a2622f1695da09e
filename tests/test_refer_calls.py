"""Transfers by a second call of ours, as whole calls in virtual time: music, ringing, a bridge, and every way back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest
import trio

from rustpbx.media.events import Direction
from rustpbx.session import commands
from rustpbx.session.conversation import Conversation
from rustpbx.session.options import CallType
from rustpbx.session.params import SessionExistsError, SessionParams
from rustpbx.session.tables import Transfer
from rustpbx.settings import DialConfig, DialRule, OutboundConfig
from rustpbx.sip import events as sip
from rustpbx.testing.handset import Handset
from rustpbx.testing.house import AGENT, SERVER, House, Plan, server_config
from rustpbx.testing.matching import request, response
from rustpbx.testing.script import ScriptError
from rustpbx.testing.voice import heard_text, spoken
from rustpbx.testing.wire import Link
from rustpbx.values import network
from tests.kit.files import File, serve_files, wav
from tests.kit.sweeps import when_stepped
from tests.test_calls import quiet_house
from tests.test_stream_calls import talk
from tests.test_webrtc_calls import calling

CAROL = "10.0.0.7"
TARGET = f"sip:carol@{CAROL}:5060"
T = "server-side-track"
MUSIC = f"http://{AGENT}:9001/music.wav"
ASR = {"asr": {"provider": "scripted"}}


@asynccontextmanager
async def talking(**changes: Any) -> AsyncIterator[tuple[House, Handset]]:
    """A phone's call that the agent has accepted, Carol's phone, and a file server; nothing is left of any of it."""
    config = server_config(outbound=OutboundConfig(allow_private=(network("10.0.0.0/8"),)), **changes)
    async with House(Plan(config=config)).open() as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_files, house.agents, (AGENT, 9001), {"/music.wav": File(wav(spoken("la la")))})
            carol = await house.new_phone("carol", CAROL)
            await house.handset.dials()
            await house.desk.answers()
            await house.handset.call.answered()
            yield house, carol
            nursery.cancel_scope.cancel()
        await house.settle()


async def refer(house: House, callee: str = TARGET, **options: Any) -> None:
    """The agent transfers its caller."""
    await house.desk.send("refer", caller="sip:bot@rustpbx.test", callee=callee, options=options)


async def bridge(house: House, carol: Handset, **options: Any) -> None:
    """Carol answers the transfer."""
    await refer(house, **options)
    await carol.answers()
    await house.desk.until("answer", 2)


async def both_talk(house: House, carol: Handset) -> None:
    """The caller and Carol hear each other."""
    await house.handset.says("hello carol")
    await carol.hears("hello carol")
    await carol.says("hello caller")
    await house.handset.hears("hello caller")


def told(house: House, *unwanted: str) -> list[tuple[object, ...]]:
    """The events behind the call's own `answer`, but what is heard: with track, and `refer` or `playId`."""
    names = house.desk.names
    heard = {"speaking", "silence", "asrDelta", "asrFinal", *unwanted}
    events = house.desk.events[names.index("answer") + 1 :]
    return [
        (e["event"], "S" if e["trackId"] != T else "T", e.get("refer", e.get("playId")))
        for e in events
        if e["event"] not in heard
    ]


ENDS = [("trackEnd", "S", None), ("hangup", "S", False)]
RINGS = [("ringing", "T", True)]
ANSWERED = [("trackStart", "T", None), ("answer", "T", True)]


# -- the way it should go -------------------------------------------------------------------------------------------


async def test_the_caller_talks_to_a_person() -> None:
    """Both hear each other, the agent hears the caller; when the person hangs up, so does the call."""
    async with talking() as (house, carol):
        await bridge(house, carol)
        await both_talk(house, carol)
        await house.desk.hears("hello carol")
        carol.hangs_up()
        hangup = await house.desk.until("hangup", 2)
        assert (hangup["reason"], hangup["initiator"]) == ("refer", "system")
        assert told(house) == [*RINGS, *ANSWERED, ("trackEnd", "T", None), ("hangup", "T", True), *ENDS]
        first = await house.desk.until("hangup")
        assert (first["reason"], first["initiator"], first["to"]["source"]) == ("callee", "callee", TARGET)
        assert isinstance((await house.handset.is_hung_up()).cause, sip.ByeReceived)


async def test_music_is_heard_again_and_again_until_the_answer() -> None:
    """It begins with the transfer, in place of what was being said, and ends with the answer."""
    async with talking() as (house, carol):
        play = await house.desk.starts_saying("one two three four five six seven eight")
        await trio.sleep(0.5)
        await refer(house, moh=MUSIC)
        await carol.rings()
        await house.handset.hears("la la")
        await house.handset.hears("la la")
        await carol.answers()
        await both_talk(house, carol)
        assert "la" not in carol.heard
        await house.desk.hangs_up()
        assert told(house) == [
            ("trackStart", "T", play),
            ("interruption", "T", play),
            ("trackEnd", "T", play),
            ("trackStart", "T", MUSIC),
            *RINGS,
            ("trackEnd", "T", MUSIC),
            *ANSWERED,
            ("trackEnd", "T", None),
            *ENDS,
        ]


async def test_early_media_of_the_target_is_heard_in_place_of_the_music() -> None:
    """A 183 with SDP: the caller hears what the target's side says; both talk once it is answered."""
    async with talking() as (house, carol):
        await refer(house, moh=MUSIC)
        call = await carol.rings()
        await house.handset.hears("la la")
        call.ringing(183, early_media=True)
        await carol.says("please hold")
        await house.handset.hears("please hold")
        assert told(house)[-1] == ("ringing", "T", True)
        await carol.answers()
        await house.desk.until("answer", 2)
        await both_talk(house, carol)
        await house.desk.hangs_up()
        assert told(house) == [
            ("trackStart", "T", MUSIC),
            *RINGS,
            ("trackEnd", "T", MUSIC),
            *RINGS,
            *ANSWERED,
            ("trackEnd", "T", None),
            *ENDS,
        ]
        assert [e["earlyMedia"] for e in house.desk.events if e["event"] == "ringing"] == [False, True]


async def test_without_auto_hangup_the_caller_is_the_agents_again() -> None:
    """The person hangs up, the agent speaks on, and may transfer once more."""
    async with talking() as (house, carol):
        for number in (1, 2):
            await refer(house, autoHangup=False)
            await carol.answers()
            await house.desk.until("answer", 1 + number)
            carol.hangs_up()
            await house.desk.until("hangup", number)
            await house.desk.says(f"welcome back {number}")
            await house.handset.hears(f"welcome back {number}")
        house.handset.hangs_up()
        hangup = await house.desk.until("hangup", 3)
        assert (hangup["reason"], hangup["refer"]) == ("caller", False)


async def test_a_caller_on_a_websocket_is_transferred_to_a_phone() -> None:
    """What it says in its socket is heard on the phone, and the other way round."""
    async with House().open() as house:
        async with house.agent("/call?id=s1") as agent:
            await agent.send("invite", option={"codec": "pcm"})
            await agent.until("answer")
            await agent.send("refer", caller="sip:bot@rustpbx.test", callee=house.phone.uri)
            await house.handset.answers()
            await agent.until("answer", 2)
            await talk(agent, "pcm", "hello phone")
            await house.handset.hears("hello phone")
            await house.handset.says("hello socket")
            await trio.sleep(0.5)
            assert "hello socket" in heard_text(np.frombuffer(bytes(agent.audio), "<i2"), 16000)
            house.handset.hangs_up()
            await agent.ended()
            assert (agent.events[-1]["reason"], agent.events[-1]["refer"]) == ("refer", False)
        await house.settle()


async def test_a_caller_in_a_browser_is_transferred_to_a_phone() -> None:
    """What it says is heard on the phone, and the other way round; when the phone hangs up, so do we in the browser."""
    async with quiet_house() as house, calling(house) as (browser, agent):
        await browser.connected()
        await agent.send("refer", caller="sip:bot@rustpbx.test", callee=house.phone.uri)
        await house.handset.answers()
        await agent.until("answer", 2)
        await browser.say(spoken("hello phone", rate=16000))
        await house.handset.hears("hello phone")
        await house.handset.says("hello browser")
        await trio.sleep(0.5)
        assert "hello browser" in heard_text(browser.hear(), 16000)
        house.handset.hangs_up()
        await agent.ended()
        assert [(e["refer"], e["reason"]) for e in agent.events if e["event"] == "hangup"] == [
            (True, "callee"),
            (False, "refer"),
        ]
        await browser.ended()


# -- the ways back --------------------------------------------------------------------------------------------------


async def the_agent_goes_on(house: House) -> None:
    """The caller is the agent's: it is told nothing, and hears what the agent says."""
    await house.desk.says("nobody there")
    await house.handset.hears("nobody there")
    await house.desk.hangs_up()


@pytest.mark.parametrize("status", [486, 603, 404])
async def test_a_target_that_refuses(status: int) -> None:
    """`reject` with its code, no `hangup`, no `error`; the music stops, and the agent speaks on."""
    async with talking() as (house, carol):
        await refer(house, moh=MUSIC)
        await carol.rejects(status)
        reject = await house.desk.until("reject")
        assert (reject["code"], reject["sipCode"], reject["refer"], reject["trackId"]) == (status, status, True, T)
        await house.desk.until("trackEnd")
        assert told(house) == [
            ("trackStart", "T", MUSIC),
            *RINGS,
            ("reject", "T", True),
            ("trackEnd", "T", MUSIC),
        ]
        await the_agent_goes_on(house)


@pytest.mark.parametrize("rings", [True, False])
async def test_a_target_that_does_not_answer(rings: bool) -> None:
    """After `timeout` seconds it is given up: 408, CANCEL as soon as that may be, and the agent speaks on."""
    async with talking() as (house, carol):
        if not rings:
            house.wire.cut(SERVER, CAROL)
        began = trio.current_time()
        await refer(house, timeout=5)
        if rings:
            await carol.rings()
        reject = await house.desk.until("reject")
        assert (reject["code"], reject["reason"], round(trio.current_time() - began)) == (408, "Request Timeout", 5)
        if rings:
            assert isinstance((await carol.is_hung_up()).cause, sip.CallCancelled)
        await the_agent_goes_on(house)


@pytest.mark.parametrize(
    ("callee", "code"), [("sip:carol@nobody.test", 503), ("sip:carol@10.0.0.99", 408)], ids=["no host", "no phone"]
)
async def test_a_target_that_is_not_there(callee: str, code: int) -> None:
    """A name without an address, an address without a phone."""
    async with talking() as (house, _):
        await refer(house, callee, timeout=60)
        assert (await house.desk.until("reject"))["code"] == code
        await the_agent_goes_on(house)


async def test_a_target_whose_answer_fits_nothing() -> None:
    """A 200 without SDP is hung up again: 488."""
    async with talking() as (house, carol):
        await refer(house)
        (await carol.rings()).answer(body=b"")
        assert (await house.desk.until("reject"))["code"] == 488
        assert isinstance((await carol.is_hung_up()).cause, sip.ByeReceived)
        await the_agent_goes_on(house)


async def test_the_dial_policy_holds_for_targets() -> None:
    """A denied address is a `reject` with 403, and nobody is called."""
    dial = DialConfig(deny=(DialRule(name="no-carol", patterns=("*carol*",)),))
    async with talking(dial=dial) as (house, carol):
        await refer(house)
        reject = await house.desk.until("reject")
        assert (reject["code"], reject["reason"], reject["refer"]) == (403, "dial policy: no-carol", True)
        assert not carol.phone.calls
        await the_agent_goes_on(house)


async def test_a_transfer_counts_as_a_call_while_it_lasts() -> None:
    """With two calls a token the second transfer at a time is refused; one that is over counts no more."""
    async with talking(dial=DialConfig(max_calls_per_token=1)) as (house, carol):
        for number in (1, 2):
            await refer(house, autoHangup=False)
            await carol.answers()
            await house.desk.until("answer", 1 + number)
            assert house.server.registry.dial_plan.usage == {"": 1}
            carol.hangs_up()
            await house.desk.until("hangup", number)
            assert house.server.registry.dial_plan.usage == {"": 0}
        await the_agent_goes_on(house)


# -- both ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["caller", "agent", "socket", "kill"])
@pytest.mark.parametrize("stage", ["ringing", "bridged"])
async def test_the_call_ends_and_the_target_is_let_go(stage: str, who: str) -> None:
    """Whoever ends the call, its target gets a CANCEL or a BYE, and the caller's `hangup` is the last event."""
    async with talking() as (house, carol):
        await refer(house, moh=MUSIC)
        await carol.rings()
        if stage == "bridged":
            await carol.answers()
            await house.desk.until("answer", 2)
        match who:
            case "caller":
                house.handset.hangs_up()
            case "agent":
                await house.desk.send("hangup")
            case "socket":
                await house.desk.socket.aclose()
            case "kill":
                house.server.registry.kill(next(iter(house.server.registry.calls)))
        expected = sip.ByeReceived if stage == "bridged" else sip.CallCancelled
        assert isinstance((await carol.is_hung_up()).cause, expected)
        await house.handset.call.ended()
        await house.desk.ended()
        if who != "socket":
            end = ("trackEnd", "T", None if stage == "bridged" else MUSIC)
            assert told(house, "interruption")[-3:] == [end, *ENDS]


@pytest.mark.parametrize("state", [s for s in Transfer if s is not Transfer.NEW], ids=lambda state: state.name)
@pytest.mark.parametrize("ends", [False, True])
async def test_the_agents_socket_is_lost_in_each_state(state: Transfer, ends: bool) -> None:
    """At the very moment of each step: nobody is left on a line, and nothing of it is left here."""
    async with talking() as (house, carol):

        def act() -> None:
            for call in list(house.server.registry.calls.values()):
                if call.attachment is not None:
                    call.attachment.lost("dropped by the test")

        with when_stepped("session.transfer", state, act) as moments:
            await refer(house, autoHangup=ends)
            with trio.move_on_after(20):
                await carol.rings()
                await trio.sleep(0.5)
                if carol.call.ending is None:
                    carol.call.answer()
                await trio.sleep(1)
                if carol.call.ending is None:
                    carol.hangs_up()
            await house.handset.call.ended()
        assert len(moments) == 1
        assert all(call.ending is not None for call in carol.phone.calls.values())


async def test_a_bug_while_two_people_talk_ends_both_legs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both phones get a BYE, the agent `hangup`."""

    def broken(*_: object) -> Any:
        raise ZeroDivisionError("a bug")

    async with talking() as (house, carol):
        await bridge(house, carol)
        monkeypatch.setitem(Conversation._HANDLERS, commands.History, broken)
        await house.desk.send("history", speaker="a", text="b")
        await house.desk.ended()
        assert isinstance((await carol.is_hung_up()).cause, sip.ByeReceived)
        assert isinstance((await house.handset.is_hung_up()).cause, sip.ByeReceived)
        assert house.desk.events[-1]["event"] == "hangup"


class BreakAt(trio.abc.Instrument):
    """Cancels all calls of a server before the scheduler step `number`, and counts on."""

    def __init__(self, number: int, house: House) -> None:
        self.steps = 0
        self._number = number
        self._house = house

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - Trio calls it by name
        """One step more."""
        self.steps += 1
        if self.steps == self._number:
            for call in self._house.server.registry.calls.values():
                call._scope.cancel()


async def broken_transfer(number: int) -> int:
    """A transfer whose call is cancelled at step `number`: all phones know of the end; how many steps there were."""
    async with House(Plan(signalling_only=True)).open() as house:
        carol = await house.new_phone("carol", CAROL)
        await house.handset.dials()
        await house.desk.answers()
        await house.handset.call.answered()
        breaks = BreakAt(number, house)
        trio.lowlevel.add_instrument(breaks)
        with suppress(ScriptError):
            await refer(house, autoHangup=False)
            call = await carol.rings(within=2)
            await trio.sleep(0.2)
            if call.ending is None:
                call.answer()
            await trio.sleep(0.2)
            await house.desk.send("hangup")
        trio.lowlevel.remove_instrument(breaks)
        await house.handset.call.ended()
        for taken in carol.phone.calls.values():
            await taken.ended()
        await house.settle()
        return breaks.steps


@pytest.mark.parametrize("first", range(4))
async def test_the_call_breaks_at_a_step_of_a_transfer(first: int) -> None:
    """Wherever it stands: the caller and the target are hung up, and nothing is left."""
    number = 1 + first
    while await broken_transfer(number) >= number:
        number += 4
    assert number > 80


@pytest.mark.parametrize("method", ["INVITE", "180", "200", "ACK", "BYE"])
@pytest.mark.parametrize("hangs_up", ["carol", "agent"])
async def test_a_message_to_or_from_the_target_is_lost(method: str, hangs_up: str) -> None:
    """Lost twice, it is sent again: the target is reached, and let go."""
    matches = response(int(method), "INVITE") if method.isdigit() else request(method)
    async with talking() as (house, carol):
        rule = house.wire.lose(matches, count=2)
        await bridge(house, carol)
        await both_talk(house, carol)
        if hangs_up == "carol":
            carol.hangs_up()
        else:
            await house.desk.send("hangup")
        await house.desk.ended()
        await house.handset.call.ended()
        await carol.call.ended()
        assert rule.hits == (1 if method == "180" else 2)


@pytest.mark.parametrize("seed", range(3))
async def test_a_bad_line_to_the_target(seed: int) -> None:
    """With a fifth of everything lost the words may suffer, the end of both calls does not."""
    async with talking() as (house, carol):
        carol.weather(Link(loss=0.2, jitter=0.02 * seed))
        await bridge(house, carol)
        await trio.sleep(2)
        house.handset.hangs_up()
        await carol.is_hung_up(within=60)
        await house.desk.ended()


# -- what the agent may do meanwhile --------------------------------------------------------------------------------


async def test_what_the_agent_cannot_do_during_a_transfer() -> None:
    """A text, a file and a second transfer are one `error` each, `interrupt` is nothing; the two talk on."""
    async with talking() as (house, carol):
        await bridge(house, carol)
        await house.desk.send("tts", text="may I?", endOfStream=True)
        await house.desk.send("play", url=MUSIC)
        await refer(house)
        await house.desk.send("interrupt")
        await house.desk.until("error", 3)
        taken = "is not possible during a transfer: the server-side track is taken"
        assert [(e["sender"], e["error"]) for e in house.desk.events if e["event"] == "error"] == [
            ("tts", f"tts {taken}"),
            ("play", f"play {taken}"),
            ("refer", "a transfer is under way already"),
        ]
        await both_talk(house, carol)
        await house.desk.hangs_up()


async def test_keys_reach_the_other_side() -> None:
    """The caller's are told to the agent as well, the target's are not."""
    async with talking() as (house, carol):
        await bridge(house, carol)
        await house.handset.presses("12")
        await carol.hears_keys("12")
        await carol.presses("9#")
        await house.handset.hears_keys("9#")
        assert [e["digit"] for e in house.desk.events if e["event"] == "dtmf"] == ["1", "2"]
        await house.desk.hangs_up()


async def test_keys_reach_a_target_without_telephone_event() -> None:
    """It gets them by SIP INFO."""
    async with talking() as (house, carol):
        await refer(house)
        (await carol.rings()).answer(dtmf=False)
        await house.desk.until("answer", 2)
        await house.handset.presses("7")
        await carol.hears_keys("7")
        await house.desk.hangs_up()


@pytest.mark.parametrize("holder", ["carol", "caller"])
async def test_either_side_holds_and_comes_back(holder: str) -> None:
    """Nobody is heard meanwhile, neither call ends, and then both are heard again."""
    async with talking() as (house, carol):
        await bridge(house, carol)
        held, other = (carol, house.handset) if holder == "carol" else (house.handset, carol)
        await held.call.re_invite(direction=Direction.INACTIVE)
        await other.says("are you there")
        await held.call.re_invite(direction=Direction.SENDRECV)
        await both_talk(house, carol)
        assert "are you there" not in held.heard
        await house.desk.hangs_up()


@pytest.mark.parametrize("track", ["session", T])
async def test_muted_tracks_are_not_heard_on_the_other_side(track: str) -> None:
    """The session track for the target, the server-side track for the caller, until `unmute`."""
    async with talking() as (house, carol):
        await bridge(house, carol)
        session = house.desk.events[0]["trackId"]
        await house.desk.send("mute", trackId=session if track == "session" else T)
        await trio.sleep(0.5)
        speaker, other = (house.handset, carol) if track == "session" else (carol, house.handset)
        await speaker.says("nobody hears this")
        await house.desk.send("unmute")
        await trio.sleep(0.5)
        await both_talk(house, carol)
        assert "nobody" not in other.heard
        await house.desk.hangs_up()


async def test_what_the_target_says_is_transcribed_if_asked() -> None:
    """Its words carry the server-side track, the caller's the session track."""
    async with talking() as (house, carol):
        await bridge(house, carol, **ASR)
        await both_talk(house, carol)
        await house.desk.hears("hello caller")
        finals = [(e["trackId"] == T, e["text"]) for e in house.desk.events if e["event"] == "asrFinal"]
        assert sorted(finals) == [(False, "hello carol"), (True, "hello caller")]
        await house.desk.hangs_up()


async def test_what_the_caller_says_to_the_target_is_not_told_if_the_agent_wants_so() -> None:
    """Before and after it is, and the target hears it all."""
    async with talking() as (house, carol):
        await house.handset.says("before")
        await house.desk.hears("before")
        await bridge(house, carol, pauseParentAsr=True, autoHangup=False)
        await both_talk(house, carol)
        carol.hangs_up()
        await house.desk.until("hangup")
        await house.handset.says("after")
        await house.desk.hears("after")
        assert "hello" not in house.desk.heard
        await house.desk.hangs_up()


async def test_the_sip_messages_of_a_transfer_are_kept() -> None:
    """By the name of its leg, which no other session may have meanwhile."""
    async with talking() as (house, carol):
        await bridge(house, carol)
        registry = house.server.registry
        leg = f"{house.desk.events[0]['trackId']}~refer1"
        trace = registry.trace(leg)
        assert trace is not None
        assert trace.messages[0].data.startswith(b"INVITE sip:carol@")
        with pytest.raises(SessionExistsError):
            registry.reserve(SessionParams(session_id=leg, call_type=CallType.SIP))
        await house.desk.hangs_up()


async def test_the_targets_noise_is_taken_out_if_asked() -> None:
    """Its words come through the noise suppression, or as they are where there is none."""
    async with talking() as (house, carol):
        await bridge(house, carol, denoise=True)
        leg = next(iter(house.server.registry.calls.values())).refer_legs
        assert len(leg) == 1
        await house.handset.says("hello carol")
        await carol.hears("hello carol")
        await house.desk.hangs_up()


async def test_the_sip_option_is_the_second_invites() -> None:
    """Its header fields and its name go with it."""
    async with talking() as (house, carol):
        await refer(house, sip={"headers": {"X-Ticket": "42"}, "displayName": "The Bot"})
        call = await carol.rings()
        assert call.incoming is not None
        assert "X-Ticket: 42" in call.incoming.headers
        assert call.incoming.caller.display_name == "The Bot"
        await house.desk.hangs_up()


async def test_a_target_that_is_ourselves() -> None:
    """Our own INVITE comes back to us and is refused as a loop; the agent speaks on."""
    async with talking() as (house, _):
        await refer(house, house.uri)
        reject = await house.desk.until("reject")
        assert (reject["code"], reject["reason"]) == (482, "Loop Detected")
        await the_agent_goes_on(house)


async def test_a_person_who_transfers_on_is_declined() -> None:
    """A REFER from the refer leg has no agent to decide it: 603 in its NOTIFY, and the two talk on."""
    async with talking() as (house, carol):
        await bridge(house, carol)
        carol.call.refer("<sip:dave@example.com>")
        assert (await carol.call.until(sip.ReferEnded)).status == 603
        await both_talk(house, carol)
        await house.desk.hangs_up()


async def test_music_that_is_not_there_is_an_error_and_the_transfer_goes_on() -> None:
    """A 404 is told once."""
    async with talking() as (house, carol):
        await refer(house, moh=f"http://{AGENT}:9001/none.wav")
        await house.desk.until("error")
        await carol.answers()
        await house.desk.until("answer", 2)
        assert [e["sender"] for e in house.desk.events if e["event"] == "error"] == [
            f"filetrack: http://{AGENT}:9001/none.wav"
        ]
        await both_talk(house, carol)
        await house.desk.hangs_up()
