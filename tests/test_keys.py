"""Keys that are pressed, both ways, over whole calls in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from rustpbx.sip import events as sip
from rustpbx.testing.agent import OPTION
from rustpbx.testing.house import House
from rustpbx.testing.phone import PhoneCall
from rustpbx.testing.wire import Link
from tests.media.test_plane_tones import heard, pressed, silence


@asynccontextmanager
async def talking(*, dtmf: bool = True) -> AsyncIterator[tuple[House, PhoneCall]]:
    """A phone's call that the agent has accepted, with telephone-event or without; nothing is left of it."""
    async with House().open() as house:
        call = await house.handset.dials(dtmf=dtmf)
        await house.desk.answers()
        await call.answered()
        yield house, call
        if call.ending is None:
            await house.desk.hangs_up()
        await house.settle()


@pytest.mark.rfc("4733", "2.5.1")
async def test_the_agent_presses_keys_and_the_phone_hears_each_once() -> None:
    """Doubled keys too; the words around them arrive whole."""
    async with talking() as (house, _):
        await house.desk.says("please wait")
        await house.desk.send("dtmf", digits="0033#*D", duration=100)
        await house.desk.says("done")
        await house.handset.hears_keys("0033#*D")
        await house.handset.hears("please wait")
        await house.handset.hears("done")


@pytest.mark.rfc("4733", "2.5.1")
async def test_every_key_survives_a_bad_line() -> None:
    """A tenth of all packets lost, some twice, some late: three ends and many packets bring each key through once."""
    weather = Link(loss=0.1, duplication=0.1, reorder=0.1)
    async with talking() as (house, _):
        house.handset.weather(weather)
        await house.desk.send("dtmf", digits="1234567890", duration=120)
        await house.handset.hears_keys("1234567890")
        await house.handset.presses("9988")
        await house.desk.until("dtmf", 4)
        assert [event["digit"] for event in house.desk.events if event["event"] == "dtmf"] == list("9988")


async def test_a_phone_without_telephone_event_gets_info() -> None:
    """One request for each key, in their order, each answered before the next."""
    async with talking(dtmf=False) as (house, call):
        await house.desk.send("dtmf", digits="42", duration=100)
        await house.handset.hears_keys("42")
        assert [fact.digit for fact in call.facts if isinstance(fact, sip.DigitReceived)] == ["4", "2"]


async def test_interrupt_ends_a_row_of_keys() -> None:
    """What was pressed until then is all that the phone ever hears."""
    async with talking() as (house, call):
        await house.desk.send("dtmf", digits="1111", duration=200, gap=100)
        await call.line.until(lambda: len(call.line.digits) == 2)
        await house.desk.send("interrupt")
        await house.desk.says("never mind")
        await house.handset.hears("never mind")
        assert call.line.digits == ["1", "1"]


async def test_a_bad_command_is_an_error_and_the_call_goes_on() -> None:
    """It names what is wrong with it."""
    async with talking() as (house, _):
        await house.desk.send("dtmf", digits="12p")
        error = await house.desk.until("error")
        assert (error["sender"], error["error"]) == ("dtmf", "digits: '12p' are not all of 0-9 * # A-D")
        await house.desk.says("still here")
        await house.handset.hears("still here")


async def test_hanging_up_in_the_middle_of_a_key() -> None:
    """The call ends as ever and leaves nothing."""
    async with talking() as (house, call):
        await house.desk.send("dtmf", digits="123456789", duration=500)
        await call.line.until(lambda: bool(call.line.digits))
        await house.desk.send("hangup")
        assert isinstance((await call.ended()).cause, sip.ByeReceived)


async def test_tones_in_the_audio_are_keys_for_who_asks() -> None:
    """A phone without telephone-event that plays its keys as tones: the call's option makes them `dtmf` events."""
    async with House().open() as house:
        call = await house.handset.dials(dtmf=False)
        await house.desk.answers({**OPTION, "dtmf": {"inband": True}})
        await call.answered()
        await house.handset.plays(np.concatenate([np.concatenate([pressed(key, 60), silence(60)]) for key in "0*55"]))
        await house.desk.until("dtmf", 4)
        assert [event["digit"] for event in house.desk.events if event["event"] == "dtmf"] == list("0*55")
        await house.desk.hangs_up()
        await house.settle()


async def test_our_own_tones_reach_the_phone() -> None:
    """`method` inband, between the words."""
    async with talking() as (house, call):
        await house.desk.send("dtmf", digits="7", duration=100, method="inband")
        await house.desk.says("done")
        await house.handset.hears("done")
        assert call.line.digits == []
        assert "7" in heard([call.hear()])[0]
