"""The middle of whole calls in virtual time: holds as they pass on the wire, and phones that vanish without a BYE."""

from __future__ import annotations

import attrs
import pytest
import trio

from rustpbx.media.events import Direction
from rustpbx.media.sdp import parse_sdp
from rustpbx.sip import events as sip
from rustpbx.sip.message import Request, Response
from rustpbx.sip.parser import parse_message
from rustpbx.testing.house import PHONE, SERVER
from rustpbx.testing.voice import heard_text, spoken
from tests.kit.agent import Agent
from tests.kit.house import House, server_config
from tests.kit.peers_sip import title
from tests.test_calls import DIAL, SCRIPTED, answered, over, quiet_house

TIMEOUT = 5.0


def passed(house: House, since: int = 0) -> list[Request | Response]:
    """The SIP messages on the wire, in order."""
    transcript = list(house.wire.transcript)[since:]
    ends = {(SERVER, 5060), house.phone.address}
    return [parse_message(c.data) for c in transcript if {c.source, c.destination} == ends]


def directions(messages: list[Request | Response]) -> list[tuple[str, Direction]]:
    """What each description among them says."""
    bodies = [(title(message), parse_sdp(message.body)) for message in messages if message.body]
    return [(name, sdp.direction_of(sdp.media[0])) for name, sdp in bodies]


@pytest.mark.rfc("5359", "2.1")
@pytest.mark.rfc("3264", "8.4")
@pytest.mark.parametrize(
    ("says", "answer"), [(Direction.SENDONLY, Direction.RECVONLY), (Direction.INACTIVE, Direction.INACTIVE)]
)
async def test_a_phone_holds_and_comes_back(says: Direction, answer: Direction) -> None:
    """Each re-INVITE has one 200 and one ACK; our audio stops with the hold and starts with its end."""
    async with quiet_house() as house, answered(house, vad={"type": "webrtc"}) as (call, agent):
        before = len(house.wire.transcript)
        await call.re_invite(direction=says)
        await trio.sleep(0.5)
        silent = len(call.hear())
        await trio.sleep(2)
        assert len(call.hear()) == silent
        await call.re_invite(direction=Direction.SENDRECV)
        await trio.sleep(2)
        assert len(call.hear()) >= silent + 1.8 * 8000
        messages = passed(house, before)
        assert [title(message) for message in messages] == ["INVITE", "100 INVITE", "200 INVITE", "ACK"] * 2
        assert directions(messages) == [
            ("INVITE", says),
            ("200 INVITE", answer),
            ("INVITE", Direction.SENDRECV),
            ("200 INVITE", Direction.SENDRECV),
        ]
        await agent.send("hangup")
        await over(agent)


async def until_over(agent: Agent) -> tuple[float, str, str]:
    """How long it takes until the call ends, and how the agent is told."""
    began = trio.current_time()
    hangup = await over(agent)
    return trio.current_time() - began, hangup["reason"], hangup["initiator"]


async def test_a_phone_that_falls_silent_is_hung_up() -> None:
    """No RTP and no RTCP: BYE, and `inactivityTimeout` for the agent."""
    async with quiet_house(config=attrs.evolve(server_config(), media_timeout=TIMEOUT)) as house:
        call = await house.phone.dial(DIAL, sends_silence=False)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={})
            await call.answered()
            took, reason, initiator = await until_over(agent)
        assert TIMEOUT <= took <= TIMEOUT + 1.0
        assert (reason, initiator) == ("inactivityTimeout", "system")
        assert isinstance((await call.ended()).cause, sip.ByeReceived)


async def test_a_phone_whose_byes_are_lost_does_not_stay_up() -> None:
    """It hangs up and nothing of it arrives any more: the call ends without it, 64*T1 later all is gone."""
    config = attrs.evolve(server_config(), media_timeout=TIMEOUT)
    async with quiet_house(config=config) as house, answered(house, vad={"type": "webrtc"}) as (call, agent):
        house.wire.cut(PHONE, SERVER)
        call.hang_up()
        took, reason, _ = await until_over(agent)
        assert took <= TIMEOUT + 1.0
        assert reason == "inactivityTimeout"


async def test_a_hold_may_be_silent() -> None:
    """A phone on hold sends nothing for a minute; after it, silence counts again."""
    async with quiet_house(config=attrs.evolve(server_config(), media_timeout=TIMEOUT)) as house:
        call = await house.phone.dial(DIAL, sends_silence=False)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={})
            await call.answered()
            await call.re_invite(direction=Direction.SENDONLY)
            await trio.sleep(60)
            assert call.ending is None
            await call.re_invite(direction=Direction.SENDRECV)
            took, reason, _ = await until_over(agent)
        assert TIMEOUT <= took <= TIMEOUT + 1.0
        assert reason == "inactivityTimeout"


@pytest.mark.rfc("3264", "4")
async def test_the_agents_call_without_an_offer() -> None:
    """`sip.delayedOffer`: the INVITE has no SDP, the phone's 200 offers, the ACK answers, and both sides are heard."""
    async with quiet_house() as house, house.agent() as agent:
        option = {**SCRIPTED, "callee": house.phone.uri, "sip": {"delayedOffer": True}}
        await agent.send("invite", option=option)
        call = await house.phone.ring()
        assert (call.incoming is not None, call.incoming and call.incoming.offer) == (True, b"")
        call.answer()
        answer = await agent.until("answer")
        assert answer["sdp"].startswith("v=0")
        await call.say(spoken("can you hear me"))
        await agent.hears("can you hear me")
        await agent.says("yes I can")
        assert "yes I can" in heard_text(call.hear())
        await agent.send("hangup")
        await agent.ended()
        bodies = {title(m): bool(m.body) for m in passed(house)}
        assert (bodies["INVITE"], bodies["200 INVITE"], bodies["ACK"]) == (False, True, True)


async def test_the_agents_call_without_an_offer_meets_one_that_does_not_fit() -> None:
    """An offer of nothing that we speak: acknowledged, hung up, and told as `reject`."""
    async with quiet_house() as house, house.agent() as agent:
        await agent.send("invite", option={"callee": house.phone.uri, "sip": {"delayedOffer": True}})
        call = await house.phone.ring()
        call.answer(body=b"v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nt=0 0\r\nm=video 9 RTP/AVP 31\r\n")
        await agent.ended()
        assert agent.names == ["trackStart", "reject", "trackEnd", "hangup"]
        await call.ended()


async def test_a_phones_call_without_an_offer() -> None:
    """The agent's 200 offers, the ACK answers, and both sides are heard."""
    async with quiet_house() as house:
        call = await house.phone.dial(DIAL, delayed_offer=True)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option=SCRIPTED)
            await call.answered()
            await call.say(spoken("good evening"))
            await agent.hears("good evening")
            await agent.says("what can I do")
            assert "what can I do" in heard_text(call.hear())
            await agent.send("hangup")
            await agent.ended()


@pytest.mark.parametrize("limited", [True, False])
async def test_inactivity_timeout_is_one_calls_own(limited: bool) -> None:
    """The option ends this call when its phone falls silent; without it a silent phone is nobody's matter."""
    async with quiet_house() as house:
        call = await house.phone.dial(DIAL, sends_silence=False)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={"inactivityTimeout": 3} if limited else {})
            await call.answered()
            if limited:
                took, reason, initiator = await until_over(agent)
                assert 3 <= took <= 4
                assert (reason, initiator) == ("inactivityTimeout", "system")
            else:
                await trio.sleep(60)
                await agent.send("hangup")
                assert (await over(agent))["reason"] == "system"


async def test_inactivity_in_the_agents_own_socket() -> None:
    """On `/call` it is the client's audio that must come."""
    async with quiet_house() as house, house.agent("/call") as agent:
        await agent.send("invite", option={"inactivityTimeout": 3})
        await agent.until("answer")
        for _ in range(10):
            await trio.sleep(1)
            await agent.send_audio(bytes(640))
        before = trio.current_time()
        assert (await agent.until("hangup"))["reason"] == "inactivityTimeout"
        assert 3 <= trio.current_time() - before <= 4
