"""Session timers with sipp, in both roles and both ways, at the least interval there may be; nobody waits for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.calls import SIGNAL, SPEECH, over, signal, sipp_answers, sipp_calls
from tests.kit.real import skip
from tests.kit.sipp import CALLEE, CALLER, INVITED, audio, expect, respond

pytestmark = [pytest.mark.interop("sipp"), pytest.mark.real_time]

TIMER = "Supported: timer"
UPDATES = "Allow: INVITE, ACK, BYE, CANCEL, INFO, UPDATE"
NO_UPDATES = "Allow: INVITE, ACK, BYE, CANCEL, INFO"


@pytest.mark.rfc("4028", "6")
@pytest.mark.rfc("4028", "9")
async def test_a_caller_asks_for_too_little_and_refreshes(tmp_path: Path) -> None:
    """422 says what we want; with that the call stands, and each refresh, by UPDATE or re-INVITE, prolongs it."""
    expires = "Session-Expires: 120;refresher=uac"
    agreed = "120;refresher=uac"
    steps = [
        CALLER.invite(TIMER, "Session-Expires: 90", body=audio()),
        *CALLER.takes_no(422, Min_SE="120"),
        CALLER.invite(TIMER, expires, "Min-SE: 120", body=audio(), cseq=2),
        expect(200, Session_Expires=agreed, Require="timer"),
        CALLER.request("ACK", cseq=2),
        *SIGNAL,
        CALLER.request("UPDATE", TIMER, expires, cseq=3),
        expect(200, CSeq="UPDATE", Session_Expires=agreed),
        *SIGNAL,
        CALLER.request("INVITE", TIMER, expires, body=audio(), cseq=4),
        expect(200, CSeq="INVITE", Session_Expires=agreed),
        CALLER.request("ACK", cseq=4),
        *CALLER.is_hung_up(),
    ]
    async with sipp_calls(tmp_path, *steps, min_se=120) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await house.sip.until("in ACK", 2)
        await skip(60)  # without a refresh we would hang up after 88 s
        await signal(house, agent)
        await house.sip.until("out 200 UPDATE")
        await skip(60)
        await signal(house, agent)
        await house.sip.until("in ACK", 3)
        await skip(60)
        await agent.send("hangup")
        await over(agent, "system", "system")


@pytest.mark.rfc("4028", "10")
async def test_a_caller_does_not_refresh(tmp_path: Path) -> None:
    """It has said that it would: our BYE goes out a third of the interval before the session expires."""
    steps = [
        CALLER.invite(TIMER, "Session-Expires: 90;refresher=uac", body=audio()),
        expect(200, Session_Expires="90;refresher=uac"),
        CALLER.request("ACK"),
        *CALLER.is_hung_up(),
    ]
    async with sipp_calls(tmp_path, *steps) as (house, agent):
        await agent.send("accept", option=SPEECH)
        answered = await house.sip.until("in ACK")
        await skip(61)
        await over(agent, "failed", "system")
        assert 60 <= house.sip.find("out BYE").at - answered.at < 90


@pytest.mark.rfc("4028", "10")
async def test_a_caller_leaves_it_to_us(tmp_path: Path) -> None:
    """We refresh after half of the interval, again and again, by UPDATE."""
    agreed = "90;refresher=uac"
    steps = [
        CALLER.invite(TIMER, UPDATES, "Session-Expires: 90;refresher=uas", body=audio()),
        expect(200, Session_Expires="90;refresher=uas"),
        CALLER.request("ACK"),
        *(expect("UPDATE", Session_Expires=agreed), respond("200 OK", "Require: timer", f"Session-Expires: {agreed}")),
        *(expect("UPDATE", Session_Expires=agreed), respond("200 OK", "Require: timer", f"Session-Expires: {agreed}")),
        *CALLER.is_hung_up(),
    ]
    async with sipp_calls(tmp_path, *steps) as (house, agent):
        await agent.send("accept", option=SPEECH)
        await house.sip.until("in ACK")
        for count in (1, 2):
            await skip(45)
            await house.sip.until("in 200 UPDATE", count)
        await agent.send("hangup")
        await over(agent, "system", "system")


@pytest.mark.rfc("4028", "7.4")
@pytest.mark.parametrize("knows", [True, False])
async def test_a_callee_without_update_is_refreshed(tmp_path: Path, *, knows: bool) -> None:
    """By a re-INVITE with what is agreed already; also where it does not know session timers."""
    says = ("Require: timer", "Session-Expires: 90;refresher=uac") if knows else ()
    steps = [
        expect("INVITE", INVITED, Session_Expires="90"),
        CALLEE.answers("200 OK", NO_UPDATES, *says, body=audio()),
        expect("ACK"),
        *(expect("INVITE", Session_Expires="90;refresher=uac"), respond("200 OK", *says, body=audio()), expect("ACK")),
        *(expect("INVITE", Session_Expires="90;refresher=uac"), respond("200 OK", *says, body=audio()), expect("ACK")),
        *CALLEE.is_hung_up(),
    ]
    async with sipp_answers(tmp_path, *steps, session_expires=90) as (house, agent):
        for count in (1, 2, 3):
            await house.sip.until("out ACK", count)
            if count < 3:
                await skip(45)
        await agent.send("hangup")
        await over(agent, "system", "system")
    assert house.sip.find("out INVITE", 2).message.body == house.sip.find("out INVITE", 1).message.body


@pytest.mark.rfc("4028", "7.3")
async def test_a_callee_wants_more(tmp_path: Path) -> None:
    """Its 422 is met with the interval that it wants, and the refresh comes after half of that."""
    agreed = "120;refresher=uac"
    steps = [
        expect("INVITE", INVITED, Session_Expires="90"),
        CALLEE.answers("422 Session Interval Too Small", "Min-SE: 120"),
        expect("ACK"),
        expect("INVITE", INVITED, Session_Expires="120", Min_SE="120"),
        CALLEE.answers("200 OK", UPDATES, "Require: timer", f"Session-Expires: {agreed}", body=audio()),
        expect("ACK"),
        *(expect("UPDATE", Session_Expires=agreed), respond("200 OK", "Require: timer", f"Session-Expires: {agreed}")),
        *CALLEE.is_hung_up(),
    ]
    async with sipp_answers(tmp_path, *steps, session_expires=90) as (house, agent):
        await house.sip.until("out ACK", 2)
        await skip(60)
        await house.sip.until("in 200 UPDATE")
        await agent.send("hangup")
        await over(agent, "system", "system")


@pytest.mark.rfc("4028", "7.2")
async def test_a_callee_refreshes_once_and_never_again(tmp_path: Path) -> None:
    """Its UPDATE prolongs the call; then our BYE goes out before the session expires."""
    agreed = "Session-Expires: 90;refresher=uas"
    steps = [
        expect("INVITE", INVITED, Session_Expires="90"),
        CALLEE.answers("200 OK", "Require: timer", agreed, body=audio()),
        expect("ACK"),
        *SIGNAL,
        CALLEE.request("UPDATE", TIMER, "Session-Expires: 90;refresher=uac"),
        expect(200, CSeq="UPDATE", Session_Expires="90;refresher=uac"),
        *CALLEE.is_hung_up(),
    ]
    async with sipp_answers(tmp_path, *steps, session_expires=90) as (house, agent):
        await house.sip.until("out ACK")
        await skip(45)
        await signal(house, agent)
        refreshed = await house.sip.until("out 200 UPDATE")
        await skip(61)
        await over(agent, "failed", "system")
        assert 60 <= house.sip.find("out BYE").at - refreshed.at < 90


@pytest.mark.rfc("4028", "10")
async def test_a_callee_that_has_lost_the_call(tmp_path: Path) -> None:
    """481 to a refresh ends it."""
    steps = [
        expect("INVITE", INVITED),
        CALLEE.answers("200 OK", UPDATES, "Require: timer", "Session-Expires: 90;refresher=uac", body=audio()),
        *(expect("ACK"), expect("UPDATE"), respond("481 Call/Transaction Does Not Exist")),
        *CALLEE.is_hung_up(),
    ]
    async with sipp_answers(tmp_path, *steps, session_expires=90) as (house, agent):
        await house.sip.until("out ACK")
        await skip(45)
        await over(agent, "failed", "system")
