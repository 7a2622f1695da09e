"""Transfers by REFER over whole calls in virtual time, both ways."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from rustpbx.sip import events as sip
from rustpbx.testing.house import SERVER, House
from rustpbx.testing.phone import PhoneCall, open_phone
from rustpbx.testing.voice import heard_text, spoken
from rustpbx.testing.wire import Link


@asynccontextmanager
async def talking(loss: float = 0.0) -> AsyncIterator[tuple[House, PhoneCall]]:
    """A phone's call that the agent has accepted; nothing is left of it."""
    async with House().open() as house:
        call = await house.handset.dials()
        await house.desk.answers()
        await call.answered()
        house.handset.weather(Link(loss=loss))
        yield house, call
        await house.settle()


async def refer(house: House, **options: Any) -> None:
    """The agent asks the phone to call somebody else."""
    await house.desk.send("refer", caller="sip:bot@h", callee="sip:carol@h", options={"mode": "blind", **options})


def statuses(house: House) -> list[str]:
    """What was told of the transfer, in order."""
    return [event["extra"]["status"] for event in house.desk.events if event["event"] == "other"]


@pytest.mark.rfc("3515", "2.4.5")
@pytest.mark.parametrize("loss", [0.0, 0.2])
async def test_the_agent_sends_the_phone_elsewhere(loss: float) -> None:
    """The REFER is taken, it rings, it is answered: then our BYE, and the reason is `refer`. On a bad line as well."""
    async with talking(loss) as (house, call):
        await refer(house)
        referral = (await call.until(sip.ReferReceived)).referral
        assert (str(referral.target.uri), str(referral.referred_by and referral.referred_by.uri)) == (
            "sip:carol@h",
            "sip:bot@h",
        )
        call.report_referral(180)
        while "180" not in statuses(house):
            await house.desk.until("other", len(statuses(house)) + 1)
        call.report_referral(200)
        hangup = await house.desk.is_hung_up(within=60)
        assert (hangup["reason"], hangup["initiator"]) == ("refer", "system")
        told = [status for status in statuses(house) if status not in ("202", "100")]
        assert told == ["180", "200"]  # the 202 and the first NOTIFY may overtake each other
        await call.ended()


async def test_a_transfer_that_fails_returns_the_caller_to_the_agent() -> None:
    """`reject` with the code and the reason, and the conversation goes on as it was."""
    async with talking() as (house, call):
        await refer(house)
        await call.until(sip.ReferReceived)
        await house.desk.says("one moment")
        call.report_referral(486)
        reject = await house.desk.until("reject")
        assert {key: reject[key] for key in ("code", "reason", "refer", "sipCode", "q850")} == {
            "code": 486,
            "reason": "Busy Here",
            "refer": True,
            "sipCode": 486,
            "q850": 17,
        }
        await house.desk.says("she is busy")
        await house.handset.hears("one moment")
        await house.handset.hears("she is busy")
        await house.desk.hangs_up()


async def test_a_phone_that_never_says_what_became_of_it() -> None:
    """The agent's own limit; then the call is its again."""
    async with talking() as (house, call):
        before = trio.current_time()
        await refer(house, timeout=20)
        await call.until(sip.ReferReceived)
        reject = await house.desk.until("reject", within=30)
        assert (reject["code"], round(trio.current_time() - before)) == (408, 20)
        call.hang_up()
        assert (await house.desk.is_hung_up())["reason"] == "caller"


async def test_a_phone_that_hangs_up_declines_first() -> None:
    """Its last NOTIFY says that nobody was called, so it was not the transfer that ended the call."""
    async with talking() as (house, call):
        await refer(house)
        await call.until(sip.ReferReceived)
        await house.desk.until("other")
        call.hang_up()
        assert (await house.desk.is_hung_up())["reason"] == "caller"
        assert (await house.desk.until("reject"))["code"] == 603


@pytest.mark.rfc("3515", "2.4.4")
@pytest.mark.rfc("5359", "2.4")
async def test_the_phone_asks_for_a_transfer_and_the_agent_says_what_became_of_it() -> None:
    """An `other` event with everything in it; `referred` is what the phone is told."""
    async with talking() as (house, call):
        call.refer('"Carol" <sip:carol@example.com>')
        other = await house.desk.until("other")
        assert (other["sender"], other["extra"]) == (
            "refer",
            {"target": "sip:carol@example.com", "targetName": "Carol", "referredBy": house.phone.uri},
        )
        await house.desk.send("referred", code=180)
        await call.until(sip.ReferProgress, 3)
        await house.desk.send("referred", code=404, reason="no such person")
        assert await call.until(sip.ReferEnded) == sip.ReferEnded(call.leg, 404, "no such person")
        assert [fact.status for fact in call.facts if isinstance(fact, sip.ReferProgress)] == [202, 100, 180]
        await house.desk.says("still here")
        await house.handset.hears("still here")
        await house.desk.hangs_up()


@pytest.mark.parametrize("how", ["hangup", "silence"])
async def test_an_agent_that_does_not_transfer(how: str) -> None:
    """Its hang-up, or its silence, declines: the phone is told so in either case."""
    async with talking() as (house, call):
        call.refer("<sip:carol@example.com>")
        await house.desk.until("other")
        if how == "hangup":
            await house.desk.hangs_up()
        ended = await call.until(sip.ReferEnded)
        assert ended == sip.ReferEnded(call.leg, 603, "Decline")
        if how == "silence":
            await house.desk.hangs_up()


@pytest.mark.rfc("3891", "3")
@pytest.mark.rfc("5359", "2.5")
async def test_somebody_else_takes_the_phones_place() -> None:
    """An attended transfer seen from its end: the conversation goes on with the newcomer, and the phone is let go."""
    async with talking() as (house, call):
        answer = next(t.data.decode() for t in house.phone.trace if t.data.startswith(b"SIP/2.0 200"))
        found = re.search(r"(?s)From: .*?;tag=(\S+).*To: .*?;tag=(\S+).*Call-ID: (\S+)", answer)
        assert found is not None
        ours, theirs, call_id = found[1], found[2], found[3]
        async with open_phone(house.wire.host("10.0.0.9"), "10.0.0.9", 5060, user="carol") as carol:
            headers = (("Replaces", f"{call_id};to-tag={theirs};from-tag={ours}"),)
            taken = await carol.dial(f"sip:agent@{SERVER}:5060", headers=headers)
            await taken.answered()
            assert isinstance((await call.ended()).cause, sip.ByeReceived)
            other = await house.desk.until("other")
            assert (other["sender"], other["extra"]) == ("replaces", {"caller": "sip:carol@10.0.0.9:5060"})
            await house.desk.says("good day carol")
            await taken.line.until(lambda: "good day carol" in heard_text(taken.hear()))
            await taken.say(spoken("hello"))
            await house.desk.hears("hello")
            trace = house.server.registry.trace(other["trackId"])
            assert trace is not None
            assert [b"Replaces" in one.data for one in trace.messages].count(True) == 1
            taken.hang_up()
            assert (await house.desk.is_hung_up())["reason"] == "caller"
            await trio.sleep(33)
