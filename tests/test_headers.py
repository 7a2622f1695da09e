"""Header fields, names and causes over whole calls in virtual time: what each side says and what the other is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rustpbx.sip import events as sip
from rustpbx.sip.cause import Reasons
from rustpbx.sip.message import Lines
from rustpbx.testing.house import House
from rustpbx.testing.phone import PhoneCall


@asynccontextmanager
async def open_house() -> AsyncIterator[House]:
    """A house of whose calls nothing is left."""
    async with House().open() as house:
        yield house
        await house.settle()


def headers_of(data: bytes) -> dict[str, str]:
    """The header fields of a message, the last of each name."""
    lines = data.split(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


def received(house: House, start: bytes) -> dict[str, str]:
    """The header fields of the first message of that kind that the phone received."""
    return next(headers_of(t.data) for t in house.phone.trace if t.direction == "in" and t.data.startswith(start))


IDENTITY: Lines = (
    ("P-Asserted-Identity", '"Zoë Müller" <sip:+4930123@carrier.example;user=phone>'),
    ("Privacy", "id"),
    ("X-Account", "4711"),
    ("Subject", "not for agents"),
)


@pytest.mark.rfc("3325", "9.1")
async def test_what_an_incoming_call_says_of_itself() -> None:
    """Names and identity in the webhook and in `incoming`, with the header fields of the list; no others."""
    async with open_house() as house:
        await house.handset.dials(headers=IDENTITY)
        notice = await house.desk.is_called()
        incoming = await house.desk.until("incoming")
        assert {key: incoming[key] for key in ("assertedIdentity", "assertedName", "privacy", "headers")} == {
            "assertedIdentity": "sip:+4930123@carrier.example",
            "assertedName": "Zoë Müller",
            "privacy": "id",
            "headers": {"X-Account": "4711"},
        }
        assert "callerName" not in incoming
        asserted = "sip:+4930123@carrier.example"
        assert (notice["assertedIdentity"], notice["privacy"]) == (asserted, "id")
        assert "Subject: not for agents" in notice["headers"]
        await house.desk.send("reject", reason="")


async def test_our_200_carries_the_agents_fields() -> None:
    """Those of `accept`; the BYE those of `hangup`, with the cause of a normal end."""
    async with open_house() as house:
        call = await house.handset.dials()
        await house.desk.is_called()
        await house.desk.send("accept", option={}, headers={"X-Room": "7"})
        await call.answered()
        assert (await call.until(sip.CallAnswered)).passed == (("X-Room", "7"),)
        await house.desk.send("hangup", headers={"X-Why": "done"})
        ending = (await call.ended()).cause
        assert ending == sip.ByeReceived(
            call.leg, Reasons(q850=16, q850_text="Normal call clearing"), (("X-Why", "done"),)
        )


@pytest.mark.parametrize("name", ["Via", "v", "CONTENT-LENGTH", "Contact", "Bad Name", "X-A\r\nVia"])
async def test_what_an_agent_may_not_set(name: str) -> None:
    """An `error` names it, none of the fields is sent, and the call is answered all the same."""
    async with open_house() as house:
        call = await house.handset.dials()
        await house.desk.is_called()
        await house.desk.send("accept", option={}, headers={name: "x", "X-Good": "y"})
        await call.answered()
        assert (await house.desk.until("error"))["error"].startswith("headers: ")
        assert (await call.until(sip.CallAnswered)).passed == ()
        await house.desk.hangs_up()


async def test_our_refusal_carries_fields_and_causes() -> None:
    """The agent's words for SIP, and the cause that the status stands for."""
    async with open_house() as house:
        call = await house.handset.dials()
        await house.desk.is_called()
        await house.desk.send("reject", code=486, reason="in a meeting", headers={"X-Until": "noon"})
        ending = (await call.ended()).cause
        assert ending == sip.CallRefused(
            call.leg,
            486,
            "Busy Here",
            Reasons(sip=486, sip_text="in a meeting", q850=17, q850_text="User busy"),
            (("X-Until", "noon"),),
        )


async def hang_up_with(house: House, call: PhoneCall, headers: Lines) -> dict[str, Any]:
    """The phone says BYE, or CANCEL, with these header fields; the agent's `hangup`."""
    call.hang_up(headers)
    return await house.desk.until("hangup")


@pytest.mark.rfc("3326", "2")
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ((), {}),
        (
            (("Reason", 'Q.850;cause=16;text="Terminated"'), ("X-Cost", "0.07"), ("X-Cost", "EUR")),
            {"q850": 16, "sipReason": "Terminated", "headers": {"X-Cost": "0.07, EUR"}},
        ),
        (
            (("Reason", 'SIP;cause=503;text="overload", Q.850;cause=34'),),
            {"sipCode": 503, "sipReason": "overload", "q850": 34},
        ),
        ((("Reason", "SIP;cause=486"),), {"sipCode": 486, "q850": 17}),
        ((("Reason", "garbage ;;"), ("Subject", "no")), {}),
    ],
)
async def test_what_a_bye_says(headers: Lines, told: dict[str, object]) -> None:
    """Its causes and fields are in `hangup`, beside who hung up."""
    async with open_house() as house:
        call = await house.handset.dials()
        await house.desk.answers()
        await call.answered()
        hangup = await hang_up_with(house, call, headers)
        assert (hangup["reason"], hangup["initiator"]) == ("caller", "caller")
        assert {key: hangup[key] for key in ("sipCode", "sipReason", "q850", "headers") if key in hangup} == told


@pytest.mark.rfc("3326", "3.1")
async def test_what_a_cancel_says() -> None:
    """A forking proxy tells that another one answered."""
    async with open_house() as house:
        call = await house.handset.dials()
        await house.desk.is_called()
        hangup = await hang_up_with(house, call, (("Reason", 'SIP;cause=200;text="Call completed elsewhere"'),))
        assert {key: hangup.get(key) for key in ("reason", "sipCode", "sipReason", "q850")} == {
            "reason": "canceled",
            "sipCode": 200,
            "sipReason": "Call completed elsewhere",
            "q850": None,
        }


@pytest.mark.rfc("6432", "2")
@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (486, None, {"sipCode": 486, "sipReason": "Busy Here", "q850": 17}),
        (603, 'no"', {"sipCode": 603, "sipReason": "Decline", "q850": 21}),
        (480, None, {"sipCode": 480, "sipReason": "Temporarily Unavailable", "q850": 19}),
    ],
)
async def test_why_our_call_was_refused(status: int, reason: str | None, told: dict[str, object]) -> None:
    """Status, phrase and cause in `reject` and `hangup`: the cause that was told, else the status's own."""
    async with open_house() as house:
        await house.desk.dials(house.phone.uri)
        call = await house.handset.rings()
        headers = (("Reason", "Q.850;cause=19"), ("X-Queue", "5")) if status == 480 else ()
        call.reject(status, reason, headers)
        for name in ("reject", "hangup"):
            event = await house.desk.until(name)
            assert {key: event[key] for key in told} == told
            assert event.get("headers") == ({"X-Queue": "5"} if headers else None)


async def test_what_our_invite_says_and_what_the_200_says() -> None:
    """A display name in From, fields of the agent's, and the callee's in `answer`."""
    async with open_house() as house:
        sip_option = {
            "displayName": 'Zoë "the voice", Ltd.',
            "headers": {"X-Account": "4711", "P-Asserted-Identity": "<sip:+4930123@carrier.example>"},
        }
        await house.desk.dials(house.phone.uri, {"sip": sip_option})
        call = await house.handset.rings()
        assert call.incoming is not None
        assert call.incoming.caller.display_name == 'Zoë "the voice", Ltd.'
        assert call.incoming.passed == (("X-Account", "4711"),)
        assert [str(one.uri) for one in call.incoming.identity.asserted] == ["sip:+4930123@carrier.example"]
        call.answer(headers=(("X-Agent", "Smith"),))
        assert (await house.desk.until("answer"))["headers"] == {"X-Agent": "Smith"}
        await house.desk.hangs_up()


async def test_nobody_answers_and_the_cancel_says_so() -> None:
    """Our ring limit: 19, no answer from the user."""
    async with open_house() as house:
        await house.desk.dials(house.phone.uri)
        call = await house.handset.rings()
        ending = (await call.ended()).cause
        assert ending == sip.CallCancelled(call.leg, Reasons(q850=19, q850_text="No answer from user"))
        await house.desk.is_hung_up()
