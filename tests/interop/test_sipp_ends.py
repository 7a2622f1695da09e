"""How calls with sipp end, or do not begin: CANCEL and what races it, ACKs that never come, 3xx, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from rustpbx.sip.message import Request
from tests.interop.calls import SPEECH, over, sipp_answers, sipp_calls
from tests.kit.real import LOOPBACK, skip
from tests.kit.sipp import CALLEE, CALLER, INVITED, audio, expect, respond

pytestmark = [pytest.mark.interop("sipp"), pytest.mark.real_time]


@pytest.mark.rfc("3261", "9.2")
async def test_a_caller_gives_up(tmp_path: Path) -> None:
    """200 to its CANCEL, 487 to its INVITE."""
    steps = [
        CALLER.invite(body=audio()),
        expect(180),
        CALLER.cancel(),
        expect(200, CSeq="1 CANCEL"),
        *CALLER.takes_no(487),
    ]
    async with sipp_calls(tmp_path, *steps) as (_, agent):
        await agent.send("ringing")
        await over(agent, "canceled", "caller")


@pytest.mark.rfc("3261", "9.2")
async def test_a_caller_gives_up_too_late(tmp_path: Path) -> None:
    """Its CANCEL has crossed our 200: it changes nothing, and the call is up until the BYE."""
    steps = [
        CALLER.invite(body=audio()),
        expect(200, CSeq="1 INVITE"),
        CALLER.cancel(),
        expect(200, CSeq="1 CANCEL"),
        CALLER.request("ACK"),
        *CALLER.hangs_up(),
    ]
    async with sipp_calls(tmp_path, *steps) as (_, agent):
        await agent.send("accept", option=SPEECH)
        assert "answer" in await over(agent, "caller", "caller")


@pytest.mark.rfc("3261", "15.1.2")
async def test_a_caller_hangs_up_instead_of_acknowledging(tmp_path: Path) -> None:
    """A BYE may come before the ACK, and the call is over."""
    steps = [CALLER.invite(body=audio()), expect(200, CSeq="1 INVITE"), *CALLER.hangs_up(), CALLER.request("ACK")]
    async with sipp_calls(tmp_path, *steps) as (_, agent):
        await agent.send("accept", option=SPEECH)
        await over(agent, "caller", "caller")


@pytest.mark.rfc("3261", "13.3.1.4")
async def test_a_caller_never_acknowledges(tmp_path: Path) -> None:
    """Our 200 is sent again for 64*T1; then our BYE ends the call."""
    steps = [CALLER.invite(body=audio()), expect(200), *CALLER.is_hung_up()]
    async with sipp_calls(tmp_path, *steps) as (house, agent):
        await agent.send("accept", option=SPEECH)
        answered = await house.sip.until("out 200 INVITE")
        await skip(33)
        await over(agent, "failed", "system")
        assert 32 <= house.sip.find("out BYE").at - answered.at < 64


@pytest.mark.rfc("3261", "9.1")
@pytest.mark.parametrize("status", ["200 OK", "481 Call/Transaction Does Not Exist"])
async def test_we_give_up_too_late(tmp_path: Path, status: str) -> None:
    """A callee answers while our CANCEL is on its way: acknowledged and hung up, whatever it says to the CANCEL."""
    steps = [
        expect("INVITE", INVITED),
        CALLEE.answers("180 Ringing"),
        expect("CANCEL"),
        respond(status),
        CALLEE.answers("200 OK", body=audio()),
        expect("ACK"),
        *CALLEE.is_hung_up(),
    ]
    async with sipp_answers(tmp_path, *steps) as (house, agent):
        await agent.until("ringing")
        await agent.send("hangup")
        assert "answer" not in await over(agent, "system", "system")
        await house.sip.until("in 200 BYE")


@pytest.mark.rfc("3261", "9.1")
async def test_we_give_up_and_nothing_is_said_to_the_invite(tmp_path: Path) -> None:
    """The callee takes the CANCEL and forgets the INVITE: after 64*T1 nothing is left of the call."""
    steps = [expect("INVITE", INVITED), CALLEE.answers("180 Ringing"), expect("CANCEL"), respond("200 OK")]
    async with sipp_answers(tmp_path, *steps) as (house, agent):
        await agent.until("ringing")
        await agent.send("hangup")
        await over(agent, "system", "system")
        await house.sip.until("in 200 CANCEL")
        await skip(33)


@pytest.mark.rfc("3261", "8.1.3.4")
async def test_a_callee_is_elsewhere(tmp_path: Path) -> None:
    """302 is followed, with the same Call-ID and the next CSeq."""
    steps = [
        expect("INVITE", INVITED),
        CALLEE.answers("302 Moved Temporarily", contact="Contact: <sip:other@[local_ip]:[local_port]>"),
        expect("ACK"),
        expect("INVITE", INVITED, CSeq="2 INVITE"),
        CALLEE.answers("200 OK", body=audio()),
        expect("ACK"),
        *CALLEE.is_hung_up(),
    ]
    async with sipp_answers(tmp_path, *steps) as (house, agent):
        await agent.until("answer")
        await agent.send("hangup")
        await over(agent, "system", "system")
    second = house.sip.find("out INVITE", 2).message
    assert isinstance(second, Request)
    assert (second.uri.user, second.uri.host) == ("other", LOOPBACK)


@pytest.mark.parametrize(
    ("status", "more", "told"),
    [
        ("302 Moved Temporarily", (), (302, "Moved Temporarily", None)),
        ("486 Busy Here", (), (486, "Busy Here", 17)),
        ("480 Temporarily Unavailable", ("Reason: Q.850;cause=19",), (480, "Temporarily Unavailable", 19)),
        ("603 Decline", (), (603, "Decline", 21)),
    ],
)
async def test_a_callee_refuses(tmp_path: Path, status: str, more: tuple[str, ...], told: tuple[int, str, int]) -> None:
    """The agent is told the status, the phrase and the cause; a 3xx too, where we do not follow it."""
    steps = [expect("INVITE", INVITED), CALLEE.answers(status, *more), expect("ACK")]
    async with sipp_answers(tmp_path, *steps, redirect="report") as (_, agent):
        reject = await agent.until("reject")
        assert (reject["sipCode"], reject["sipReason"], reject.get("q850")) == told
        await agent.ended()


@pytest.mark.rfc("3262", "4")
async def test_a_callee_that_is_too_old(tmp_path: Path) -> None:
    """`prack = "required"` is said in the INVITE; who cannot do it says 420, and the agent is told."""
    steps = [
        expect("INVITE", INVITED, Require="100rel"),
        CALLEE.answers("420 Bad Extension", "Unsupported: 100rel"),
        expect("ACK"),
    ]
    async with sipp_answers(tmp_path, *steps, prack="required") as (_, agent):
        assert (await agent.until("reject"))["code"] == 420
        await agent.ended()
