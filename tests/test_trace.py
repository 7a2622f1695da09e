"""The SIP trace of a call: kept within bounds, found by the call's id, told without secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from urllib.parse import quote

import attrs
import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.masking import MASK
from rustpbx.outbound import open_client
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.ladder import Rung, draw
from rustpbx.sip.trace import (
    FIRST,
    KEPT,
    MOST_BYTES,
    MOST_ENDED,
    MOST_MESSAGES,
    MOST_OF_ONE,
    Trace,
    Traced,
    Traces,
    log,
    trace_text,
)
from tests.control.harness import control
from tests.kit.house import AGENT, SERVER, House, open_house, server_config
from tests.kit.logbook import kept_log
from tests.test_calls import DIAL, answered, over

PEER = Hop(Transport.UDP, ("10.0.0.2", 5060))


def message(call_id: str = "c", number: int = 0, size: int = 0, way: str = "in") -> Traced:
    """A datagram of a call, told apart by its number."""
    head = f"OPTIONS sip:a SIP/2.0\r\nVia: x\r\nCall-ID: {call_id}\r\nCSeq: {number} OPTIONS\r\n\r\n".encode()
    return Traced("in" if way == "in" else "out", PEER, head.ljust(size, b"x"), float(number))


def numbers(found: tuple[tuple[Traced, ...], int] | None) -> list[int]:
    """The messages that were kept."""
    assert found is not None
    return [round(one.now) for one in found[0]]


# -- bounds ---------------------------------------------------------------------------------------------------------


def test_a_call_begins_with_the_message_that_came_just_before() -> None:
    """The INVITE passes before anybody knows its call; a stranger's message belongs to none."""
    traces = Traces()
    assert traces.note(message("stranger", 1)) == ""
    assert traces.note(message("mine", 2)) == ""
    traces.begins("leg", "mine")
    assert traces.note(message("mine", 3, way="out")) == "leg"
    assert traces.note(message("stranger", 4)) == ""
    assert numbers(traces.of("leg", 5)) == [2, 3]
    assert traces.of("stranger", 5) is None


@pytest.mark.rfc("3261", "7.3.3")
def test_the_short_form_of_the_header_is_understood() -> None:
    """`i:` is Call-ID (RFC 3261 7.3.3), in any case and with spaces."""
    traces = Traces()
    traces.begins("leg", "abc@host")
    for line in (b"i:abc@host", b"I : abc@host ", b"CALL-ID:\tabc@host"):
        assert traces.note(Traced("in", PEER, b"BYE sip:a SIP/2.0\r\nTo: x\r\n" + line + b"\r\n\r\n", 0.0)) == "leg"
    assert traces.note(Traced("in", PEER, b"\r\n\r\n", 0.0)) == ""


def test_the_begin_and_the_end_of_a_long_call_are_kept() -> None:
    """The set-up stays; of what follows the oldest go, and are counted."""
    traces = Traces()
    traces.begins("leg", "c")
    for number in range(500):
        traces.note(message("c", number))
    found = traces.of("leg", 500)
    assert found is not None
    assert numbers(found) == [*range(FIRST), *range(500 - (MOST_MESSAGES - FIRST), 500)]
    assert found[1] == 500 - MOST_MESSAGES


def test_a_huge_message_is_cut() -> None:
    """Its end is left out, and said to be."""
    traces = Traces()
    traces.begins("leg", "c")
    traces.note(message("c", 1, size=60_000))
    found = traces.of("leg", 1)
    assert found is not None
    ((kept,), dropped) = found
    assert (len(kept.data), kept.cut, dropped) == (MOST_OF_ONE, 60_000 - MOST_OF_ONE, 0)
    assert kept.text.endswith(f"... {60_000 - MOST_OF_ONE} more bytes\n")


@given(st.lists(st.integers(0, 20_000), max_size=300))
def test_a_call_costs_no_more_than_promised(sizes: list[int]) -> None:
    """Whatever comes: so many messages, so many bytes; nothing is lost that is not counted; the newest is there."""
    traces = Traces()
    traces.begins("leg", "c")
    for number, size in enumerate(sizes):
        traces.note(message("c", number, size))
    found = traces.of("leg", 0)
    assert found is not None
    kept, dropped = found
    assert len(kept) <= MOST_MESSAGES
    assert sum(len(one.data) for one in kept) <= MOST_BYTES
    assert len(kept) + dropped == len(sizes)
    assert numbers(found) == sorted(numbers(found))
    assert not sizes or numbers(found)[-1] == len(sizes) - 1


def test_ended_calls_are_kept_for_a_while() -> None:
    """What still comes belongs to the trace; the time is up after `KEPT` seconds."""
    traces = Traces()
    traces.begins("leg", "c")
    traces.note(message("c", 1))
    traces.ends("leg", 100.0)
    traces.note(message("c", 2))
    assert numbers(traces.of("leg", 100.0 + KEPT)) == [1, 2]
    assert traces.of("leg", 100.1 + KEPT) is None
    assert traces.note(message("c", 3)) == ""


def test_only_so_many_ended_calls_are_kept() -> None:
    """The oldest go first, and a running call is none of them."""
    traces = Traces()
    traces.begins("running", "running")
    for number in range(MOST_ENDED + 50):
        traces.begins(f"leg {number}", f"c{number}")
        traces.ends(f"leg {number}", 1.0)
    assert len(traces) == MOST_ENDED + 1
    assert traces.of("leg 49", 1.0) is None
    assert traces.of("leg 50", 1.0) is not None
    assert traces.of("running", 1.0) is not None


def test_a_name_that_is_used_again_means_the_newer_call() -> None:
    """Also after that one's end."""
    traces = Traces()
    for number in (1, 2):
        traces.begins("same", f"c{number}")
        traces.note(message(f"c{number}", number))
        traces.ends("same", float(number))
    assert numbers(traces.of("same", 3.0)) == [2]


# -- texts ----------------------------------------------------------------------------------------------------------


def test_a_trace_in_full() -> None:
    """A ladder with the time of day, then each message; credentials and control characters are not sent on."""
    head = b"INVITE sip:bob:pw@b SIP/2.0\r\nCSeq: 1 INVITE\r\nAuthorization: Digest a=b,\r\n c=d\r\nVia: \x1b[2J\r\n"
    invite = head + b"\r\nv=0\r\n"
    trying = b"SIP/2.0 100 Trying\r\nCSeq: 1 INVITE\r\n\r\n"
    messages = (Traced("in", PEER, invite, 1.0), Traced("out", PEER, trying, 1.5))
    text = trace_text(Trace("c1", ("10.0.0.1", 5060), messages, 3), "09:30:{:06.3f}".format)
    assert text == (
        "call c1: 2 messages, 3 more in between were dropped\n"
        "\n"
        "                           10.0.0.2:5060                       rustpbx 10.0.0.1:5060\n"
        "09:30:01.000                      |------------ INVITE (1) sdp ---------->|\n"
        "09:30:01.500                      |<------- 100 Trying (1 INVITE) --------|\n"
        "\n"
        "--- 09:30:01.000 in from 10.0.0.2:5060 (UDP)\n"
        "INVITE sip:bob:***@b SIP/2.0\nCSeq: 1 INVITE\nAuthorization: ***\nVia: \\x1b[2J\n\nv=0\n"
        "\n"
        "--- 09:30:01.500 out to 10.0.0.2:5060 (UDP)\n"
        "SIP/2.0 100 Trying\nCSeq: 1 INVITE\n\n"
    )


def test_an_empty_trace() -> None:
    """A session that has placed no call has no ladder."""
    assert trace_text(Trace("c1", None, ()), str) == "call c1: 0 messages\n"


def test_a_message_to_oneself_is_drawn() -> None:
    """A server that calls itself has one lane."""
    assert (
        draw([Rung(0.0, "a", "a", b"BYE sip:a SIP/2.0\r\nCSeq: 2 BYE\r\n\r\n")]).splitlines()[1].endswith("| BYE (2)")
    )


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_whatever_passed_can_be_drawn(data: bytes, other: bytes) -> None:
    """Any bytes make one line of printable text."""
    drawn = draw([Rung(0.0, "a", "b", data), Rung(1.0, "b", "a", other, lost="lost")])
    assert len(drawn.split("\n")) == 4
    assert drawn.replace("\n", "").isprintable()


# -- over HTTP ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def admin() -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    """A house, and an HTTP client that is an administrator."""
    config = server_config(allow_from=(ip_network(f"{AGENT}/32"),))
    async with open_house(config) as house, open_client(house.agents) as client:
        client.base_url = httpx.URL(f"http://{SERVER}:8080")
        yield house, client


def first_lines(reply: httpx.Response) -> list[tuple[str, str]]:
    """Direction and first line of each message of a JSON trace."""
    return [(one["direction"], one["message"].partition("\n")[0]) for one in reply.json()["messages"]]


async def test_the_trace_of_an_incoming_call_while_it_runs_and_afterwards() -> None:
    """All of its messages from the INVITE on, in order, with their times; gone after a while."""
    async with admin() as (house, client):
        async with answered(house) as (call, agent):
            path = f"/call/{quote(house.server.registry.summaries()[0].session_id)}/sip"
            running = await client.get(path, params={"format": "json"})
            assert [line.split()[0] for _, line in first_lines(running)] == ["INVITE", "SIP/2.0", "SIP/2.0", "ACK"]
            call.hang_up()
            await over(agent)
        reply = await client.get(path, headers={"Accept": "application/json"})
        assert first_lines(reply) == [
            ("in", "INVITE sip:800@10.0.0.1:5060 SIP/2.0"),
            ("out", "SIP/2.0 100 Trying"),
            ("out", "SIP/2.0 200 OK"),
            ("in", "ACK sip:800@10.0.0.1:5060 SIP/2.0"),
            ("in", "BYE sip:800@10.0.0.1:5060 SIP/2.0"),
            ("out", "SIP/2.0 200 OK"),
        ]
        body = reply.json()
        assert (body["local"], body["dropped"]) == ("10.0.0.1:5060", 0)
        assert {(one["peer"], one["transport"]) for one in body["messages"]} == {("10.0.0.2:5060", "UDP")}
        assert body["messages"][0]["time"].startswith("2025-10-09T08:53:20.000")
        text = await client.get(path)
        assert text.headers["content-type"] == "text/plain; charset=utf-8"
        assert "|<----------- 200 OK (2 BYE) ----------" in text.text
        await trio.sleep(KEPT + 1)
        gone = await client.get(path)
        assert (gone.status_code, gone.json()["error"]) == (404, "no such call")


async def test_the_trace_of_an_agents_call() -> None:
    """Found by the session id that the agent chose; before its INVITE it is empty, not unknown."""
    async with admin() as (house, client), house.agent("/call/sip?id=my-call") as agent:
        assert first_lines(await client.get("/call/my-call/sip?format=json")) == []
        await agent.send("invite", option={"callee": house.phone.uri})
        call = await house.phone.ring()
        call.reject(486)
        await over(agent)
        lines = first_lines(await client.get("/call/my-call/sip?format=json"))
        assert [(way, line.split()[0 if way == "out" else 1]) for way, line in lines] == [
            ("out", "INVITE"),
            ("in", "100"),
            ("in", "486"),
            ("out", "ACK"),
        ]


@pytest.mark.parametrize(
    ("path", "status"),
    [("nobody/sip", 404), ("a/sip?format=xml", 400), (f"{'x' * 257}/sip", 400), ("nobody/sip?format=json", 404)],
)
async def test_what_is_no_trace(path: str, status: int) -> None:
    """An unknown id is 404, a strange request 400, and both say so in JSON."""
    async with admin() as (_, client):
        reply = await client.get(f"/call/{path}")
        assert reply.status_code == status
        assert reply.json()["error"]


async def test_strangers_see_no_trace() -> None:
    """As with listing and ending calls, an open door is not enough."""
    async with open_house() as house, open_client(house.agents) as client:
        reply = await client.get(f"http://{SERVER}:8080/call/x/sip")
        assert reply.status_code == 403


async def test_a_trace_in_the_listing_of_another_server() -> None:
    """The body as such, character by character."""
    async with control() as server:
        server.registry.traces["c1"] = Trace(
            "c1", None, (Traced("out", attrs.evolve(PEER, transport=Transport.TCP), b"BYE x SIP/2.0\r\n\r\n", 0.25),), 7
        )
        reply = await server.fetch("/call/c1/sip?format=json")
        (told,) = json.loads(reply.body)["messages"]
        assert told.pop("time").endswith("+00:00")
        assert told == {
            "direction": "out",
            "peer": "10.0.0.2:5060",
            "transport": "TCP",
            "message": "BYE x SIP/2.0\n\n",
        }


async def test_credentials_are_in_no_trace_and_no_log() -> None:
    """Neither in JSON nor in text nor in the lines of `rustpbx.sip.trace`, which name the call once it is known."""
    secret = "0123456789abcdef"
    with kept_log(logging.DEBUG, log.logger.name) as book:
        async with admin() as (house, client):
            call = await house.phone.dial(DIAL, headers=(("Proxy-Authorization", f'Digest response="{secret}"'),))
            async with house.incoming() as (agent, notice):
                await agent.send("reject")
                await over(agent)
            await call.ended()
            path = f"/call/{quote(str(notice['dialogId']))}/sip"
            replies = [(await client.get(f"{path}?format={kind}")).text for kind in ("text", "json")]
    written = "\n".join([*replies, *(made.getMessage() for made in book.records)])
    assert f"Proxy-Authorization: {MASK}" in written
    assert secret not in written
    server_side = [made for made in book.records if "10.0.0.2:5060" in made.getMessage().partition("\n")[0]]
    assert [vars(made)["call"] for made in server_side] == ["", *[notice["dialogId"]] * 3]


async def test_messages_are_not_put_into_words_unless_asked_for() -> None:
    """At `info`, nothing is logged by `rustpbx.sip.trace`."""
    with kept_log(logging.INFO, log.logger.name) as book:
        async with open_house() as house, answered(house) as (call, agent):
            call.hang_up()
            await over(agent)
    assert book.records == []
