"""Transfers by a second call of ours, as whole calls in virtual time: music, ringing, a bridge, and every way back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from rustpbx.sip import events as sip
from rustpbx.testing.handset import Handset
from rustpbx.testing.house import House, Plan

CAROL = "10.0.0.7"
TARGET = f"sip:carol@{CAROL}:5060"


@asynccontextmanager
async def talking(plan: Plan | None = None) -> AsyncIterator[tuple[House, Handset]]:
    """A phone's call that the agent has accepted, and Carol's phone; nothing is left of any of it."""
    async with House(plan).open() as house:
        carol = await house.new_phone("carol", CAROL)
        await house.handset.dials()
        await house.desk.answers()
        await house.handset.call.answered()
        yield house, carol
        await house.settle()


async def refer(house: House, callee: str = TARGET, **options: Any) -> None:
    """The agent transfers its caller."""
    await house.desk.send("refer", caller="sip:bot@rustpbx.test", callee=callee, options=options)


def told(house: House, *names: str) -> list[tuple[object, ...]]:
    """The events of those names, with track and `refer`."""
    return [(e["event"], e["trackId"], e.get("refer")) for e in house.desk.events if e["event"] in names]


async def bridged(house: House, carol: Handset, **options: Any) -> None:
    """Carol has answered the transfer."""
    await refer(house, **options)
    await carol.answers()
    await house.desk.until("answer", 2)


T = "server-side-track"


async def test_the_caller_talks_to_a_person() -> None:
    """Both hear each other, the agent hears the caller; when the person hangs up, so does the call."""
    async with talking() as (house, carol):
        await bridged(house, carol)
        await house.handset.says("hello carol")
        await carol.hears("hello carol")
        await carol.says("hello caller")
        await house.handset.hears("hello caller")
        await house.desk.hears("hello carol")
        carol.hangs_up()
        hangup = await house.desk.until("hangup", 2)
        session = hangup["trackId"]
        assert (hangup["reason"], hangup["initiator"], hangup["refer"]) == ("refer", "system", False)
        assert told(house, "ringing", "answer", "hangup", "trackStart", "trackEnd") == [
            ("trackStart", session, None),
            ("answer", session, False),
            ("ringing", T, True),
            ("trackStart", T, None),
            ("answer", T, True),
            ("trackEnd", T, None),
            ("hangup", T, True),
            ("trackEnd", session, None),
            ("hangup", session, False),
        ]
        first = await house.desk.until("hangup")
        assert (first["reason"], first["initiator"], first["to"]["source"]) == ("callee", "callee", TARGET)
        assert isinstance((await house.handset.is_hung_up()).cause, sip.ByeReceived)
