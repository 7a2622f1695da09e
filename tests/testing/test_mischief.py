"""What misbehaving phones do to the server: the right answer, the right events, and nothing left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from rustpbx.sip import events as sip
from rustpbx.testing import matching
from rustpbx.testing.agent import Agent
from rustpbx.testing.mischief import SDP, Mischief
from rustpbx.testing.phone import PhoneCall
from rustpbx.testing.voice import spoken
from tests.kit.house import PHONE, House, open_house
from tests.test_calls import DIAL, SCRIPTED, over

STRANGER = "10.0.0.66"
NO_ACK = 64 * 0.5


@asynccontextmanager
async def trouble() -> AsyncIterator[tuple[House, Mischief]]:
    """A house whose phone may misbehave; at the end it owns nothing."""
    async with open_house() as house:
        yield house, house.mischief
        house.wire.mend_all()
        await house.settle()


@asynccontextmanager
async def talking(house: House) -> AsyncIterator[tuple[PhoneCall, Agent]]:
    """A call that is up."""
    call = await house.phone.dial(DIAL)
    async with house.incoming() as (agent, _):
        await agent.send("accept", option=SCRIPTED)
        await agent.until("answer")
        await call.answered()
        yield call, agent


def statuses(answers: list[bytes]) -> list[int]:
    """The final ones."""
    found = [int(answer[8:11]) for answer in answers]
    return [status for status in found if status >= 200]


async def test_a_phone_that_never_acks_is_hung_up_on() -> None:
    """The 200 is repeated for 64*T1, then the call ends by BYE, and the agent is told once."""
    async with trouble() as (house, mischief):
        mischief.never_acks()
        begin = trio.current_time()
        async with talking(house) as (call, agent):
            hangup = await over(agent)
            await call.ended()
        assert trio.current_time() - begin == pytest.approx(NO_ACK, abs=2)
        assert hangup["initiator"] == "system"
        oks = [c for c in house.wire.carried(to=PHONE) if matching.response(200, "INVITE")(c)]
        assert len(oks) == 11  # at 0, 0.5, 1.5, 3.5 and then every 4 s (RFC 3261 section 13.3.1.4)


async def test_a_phone_that_never_answers_our_bye() -> None:
    """The agent's hang-up is over for it at once; BYE is repeated and given up."""
    async with trouble() as (house, mischief):
        async with talking(house) as (_, agent):
            mischief.never_answers("BYE")
            await agent.send("hangup")
            await over(agent)
        await trio.sleep(40)
        byes = [c for c in house.wire.carried(to=PHONE) if matching.request("BYE")(c)]
        assert len(byes) == 11  # Timer E: 0.5, 1, 2, 4, 4, ... until 64*T1


async def test_everything_twice_is_like_everything_once() -> None:
    """Each datagram arrives two times: one call, one set of events, words heard once."""
    async with trouble() as (house, mischief):
        mischief.repeats_everything()
        async with talking(house) as (call, agent):
            await trio.sleep(0.3)
            await call.say(spoken("hello there"))
            assert (await agent.until("asrFinal"))["text"] == "hello there"
            call.hang_up()
            await over(agent)
        assert agent.names.count("answer") == 1
        assert agent.names.count("asrFinal") == 1


async def test_a_phone_that_dies_while_it_rings_us() -> None:
    """Its call is answered, the answer is never acknowledged, and after 64*T1 the call is given up."""
    async with trouble() as (house, mischief):
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            mischief.dies()
            await agent.send("accept", option=SCRIPTED)
            await agent.until("answer")
            assert (await over(agent))["initiator"] == "system"
        call.hang_up()
        await call.ended()


async def test_a_phone_that_dies_while_talking_is_given_up_by_the_agent() -> None:
    """The call stands until the agent ends it; then it is over for the agent at once, and for us after 64*T1."""
    async with trouble() as (house, mischief), talking(house) as (_, agent):
        mischief.dies()
        await trio.sleep(60)
        assert agent.closed is None
        await agent.send("hangup")
        await over(agent)


async def test_bye_before_ack() -> None:
    """The phone hangs up though its ACK never arrived: BYE is answered, the call is over once."""
    async with trouble() as (house, mischief):
        mischief.never_acks()
        async with talking(house) as (call, agent):
            call.hang_up()
            hangup = await over(agent)
            await call.ended()
        assert (hangup["reason"], hangup["initiator"]) == ("caller", "caller")


async def test_cancel_overtaken_by_the_answer() -> None:
    """The phone cancels after we answered and before it knows: it hangs up, and the agent sees one end."""
    async with trouble() as (house, mischief):
        mischief.hears_late(200)
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option=SCRIPTED)
            await agent.until("answer")
            call.hang_up()
            hangup = await over(agent)
            await call.ended()
        assert hangup["initiator"] == "caller"


async def test_accept_overtaken_by_cancel() -> None:
    """The phone cancels first: 487, and the agent's accept comes to nothing but `hangup`."""
    async with trouble() as (house, _):
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _notice):
            call.hang_up()
            await agent.send("accept", option=SCRIPTED)
            hangup = await over(agent)
            await call.ended()
        assert (hangup["reason"], hangup["initiator"]) == ("canceled", "caller")
        assert "answer" not in agent.names


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"From": None}, [400]),
        ({"To": None}, [400]),
        ({"Call-ID": None}, [400]),
        ({"CSeq": None}, [400]),
        ({"CSeq": "1 BYE"}, [400]),
        ({"CSeq": "99999999999 INVITE"}, [400]),
        ({"Content-Length": "9999"}, [400]),
        ({"Require": "levitation"}, [420]),
    ],
    ids=str,
)
async def test_an_odd_invite_gets_its_answer_and_harms_no_call(
    header: dict[str, str | None], expected: list[int]
) -> None:
    """Header fields missing or wrong: the RFC's status, no webhook, and the call beside it goes on talking."""
    async with trouble() as (house, mischief), talking(house) as (call, agent):
        answers = await mischief.invites(header=header)
        assert statuses(answers) == expected
        with pytest.raises(trio.WouldBlock):
            house.webhook.calls.receive_nowait()
        await trio.sleep(0.3)
        await call.say(spoken("still here"))
        assert (await agent.until("asrFinal"))["text"] == "still here"
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize(
    ("sdp", "expected"),
    [
        (SDP.replace("m=audio 4000", "m=video 4000"), [488]),
        (SDP.replace("RTP/AVP 0", "RTP/AVP 97") + "a=rtpmap:97 AMR/8000\r\n", [488]),
        ("this is no SDP", [400]),
        ("v=0\r\n" + "a=x\r\n" * 20000, [513]),
    ],
    ids=["no audio", "unknown codec", "garbage", "huge"],
)
async def test_odd_sdp_is_refused(sdp: str, expected: list[int]) -> None:
    """What cannot be a call is refused at once, without asking anybody."""
    async with trouble() as (house, mischief):
        (status,) = statuses(await mischief.invites(sdp)) or [0]
        assert status in expected
        with pytest.raises(trio.WouldBlock):
            house.webhook.calls.receive_nowait()


@pytest.mark.parametrize(
    ("options", "counted"),
    [
        ({"host": STRANGER}, "rtp_stranger"),
        ({}, "rtp_stranger"),
        ({"payload_type": 96}, "rtp_stranger"),
        ({"size": 7}, "rtp_stranger"),
    ],
    ids=["another host", "another port", "another codec", "cut off"],
)
async def test_stray_rtp_is_not_heard_and_moves_nothing(options: dict[str, object], counted: str) -> None:
    """Sound from elsewhere in the middle of a call: not transcribed, counted, and our audio goes where it went."""
    async with trouble() as (house, mischief), talking(house) as (call, agent):
        await trio.sleep(1)
        stray = mischief.sends_rtp(call, spoken("let me in please"), **options)  # type: ignore[arg-type]
        await trio.sleep(1)
        await call.say(spoken("only me"))
        assert (await agent.until("asrFinal"))["text"] == "only me"
        assert house.server.plane.counters[counted] > 0
        assert not [c for c in house.wire.transcript if c.destination == stray]
        await agent.send("hangup")
        await over(agent)


@pytest.mark.parametrize("lost", ["nothing", "the begin", "two ends", "all ends"])
async def test_each_key_is_one_event(lost: str) -> None:
    """Key presses whose first packet or whose end packets are lost: one `dtmf` each, in order."""
    async with trouble() as (house, mischief), talking(house) as (call, agent):
        await trio.sleep(0.3)
        if lost == "the begin":
            mischief.loses_key_packets(call, first=True)
        elif lost != "nothing":
            mischief.loses_key_packets(call, ends=True, count=2 if lost == "two ends" else None)
        for digit in "112#":
            await call.press(digit)
        await agent.until("dtmf", 4)
        await trio.sleep(1)
        await agent.send("hangup")
        await over(agent)
        assert [event["digit"] for event in agent.events if event["event"] == "dtmf"] == list("112#")


async def test_dialling_a_phone_that_answers_and_then_says_nothing_of_the_ack() -> None:
    """We dial, our ACK gets lost again and again: the phone repeats its 200, we repeat the ACK, the call stands."""
    async with trouble() as (house, _), house.agent() as agent:
        house.wire.lose(matching.request("ACK", to=PHONE), count=3)
        await agent.send("invite", option={"callee": house.phone.uri, "caller": "sip:bot@10.0.0.1", **SCRIPTED})
        call = await house.phone.ring()
        call.answer()
        await agent.until("answer")
        await call.until(sip.CallConfirmed)
        await agent.send("hangup")
        await over(agent)
