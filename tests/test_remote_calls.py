"""Calls steered and read from elsewhere than their agent's socket: by HTTP, and by sockets that only observe."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio

from rustpbx.outbound import open_client
from rustpbx.session.shell.chronicle import MOST_READERS
from rustpbx.settings import AmiConfig
from rustpbx.testing.network import MemoryNetwork
from rustpbx.values import network
from tests.kit.house import House, server_config
from tests.test_calls import SCRIPTED, answered, over, quiet_house, refused_upgrade

ELSEWHERE = "10.0.0.77"


async def ask(house: House, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
    """One request from another machine."""
    host, port = house.server.http
    async with open_client(MemoryNetwork(house.wire, ELSEWHERE)) as client:
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        return await client.request(
            method, f"http://{host}:{port}{path}", content=content, headers=headers, timeout=None
        )


def parsed(text: str) -> list[tuple[int, dict[str, Any]]]:
    """The numbers and events of a stream of server-sent events."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            event = json.loads(lines["data"])
            assert event["event"] == lines["event"]
            found.append((int(lines["id"]), event))
    return found


async def test_a_program_steers_a_call_by_http() -> None:
    """What it says is done, what comes of it is in the agent's socket, and the stream has all of it, numbered."""
    async with quiet_house() as house, answered(house, **SCRIPTED) as (_, agent), trio.open_nursery() as nursery:
        (session_id,) = house.server.registry.calls
        told: list[httpx.Response] = []

        async def read() -> None:
            told.append(await ask(house, "GET", f"/call/{session_id}/events"))

        nursery.start_soon(read)
        tts = {"command": "tts", "text": "from elsewhere", "playId": "e", "endOfStream": True}
        reply = await ask(house, "POST", f"/call/{session_id}/command", tts)
        assert (reply.status_code, reply.json()) == (202, {"accepted": True})
        await agent.until("trackEnd")
        assert (await ask(house, "POST", f"/call/{session_id}/command", {"command": "hangup"})).status_code == 202
        await over(agent)
    (stream,) = told
    assert stream.headers["content-type"] == "text/event-stream"
    numbers, events = zip(*parsed(stream.text), strict=True)
    assert numbers == tuple(range(1, len(numbers) + 1))
    assert [e for e in events if e["event"] != "metrics"] == agent.events
    assert events[-1]["event"] == "hangup"


async def test_a_stream_goes_on_where_it_was_broken_off() -> None:
    """`Last-Event-ID`, as browsers send it, and `after` leave out what was had."""
    async with quiet_house() as house, answered(house, **SCRIPTED) as (_, agent):
        (session_id,) = house.server.registry.calls
        answers: list[httpx.Response] = []

        async def read(path: str, **headers: str) -> None:
            answers.append(await ask(house, "GET", path, **headers))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: read(f"/call/{session_id}/events", **{"last-event-id": "2"}))
            nursery.start_soon(read, f"/call/{session_id}/events?after=2")
            await trio.sleep(40)  # heart beats on the way
            await agent.send("hangup")
            await over(agent)
        assert [parsed(answer.text)[0][0] for answer in answers] == [3, 3]
        assert all(": alive" in answer.text for answer in answers)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b"{", "JSON"),
        ({"command": "dance"}, "dance"),
        ({"command": "tts"}, "text"),
    ],
)
async def test_what_is_no_command_is_answered_with_what_is_wrong(body: object, problem: str) -> None:
    """400, and the call hears nothing of it."""
    async with quiet_house() as house, answered(house, **SCRIPTED) as (_, agent):
        (session_id,) = house.server.registry.calls
        reply = await ask(house, "POST", f"/call/{session_id}/command", body)
        assert reply.status_code == 400
        assert problem in reply.json()["error"]
        assert "error" not in agent.names
        await agent.send("hangup")
        await over(agent)


async def test_another_clients_call_is_not_there() -> None:
    """A token reaches the calls that were opened with it; others do not exist for it."""
    ami = AmiConfig(allows=(network("10.9.9.9/32"),))
    config = server_config(tokens=("token-of-alice", "token-of-bob99"), allow_anonymous=False, ami=ami)
    async with quiet_house(config=config) as house, house.agent("/call/sip?id=mine&token=token-of-alice") as agent:
        statuses = []
        for headers in ({}, {"authorization": "Bearer token-of-bob99"}, {"authorization": "Bearer token-of-alice"}):
            reply = await ask(house, "POST", "/call/mine/command", {"command": "hangup"}, **headers)
            statuses.append(reply.status_code)
        assert statuses == [401, 404, 202]
        await agent.ended()


async def test_nothing_can_be_said_to_a_call_that_is_not_there() -> None:
    """404 for an id that nobody has, in each way."""
    async with quiet_house() as house:
        for method, path in (("POST", "/call/none/command"), ("GET", "/call/none/events")):
            reply = await ask(house, method, path, {"command": "hangup"} if method == "POST" else None)
            assert (reply.status_code, reply.json()["error"]) == (404, "no such call")
        assert (await refused_upgrade(house, "/call/sip?id=none&observe=true"))[0] == 404
        assert (await refused_upgrade(house, "/call/sip?observe=true"))[0] == 400


async def test_an_observer_reads_along_and_steers_nothing() -> None:
    """It gets what was told before it came, and what comes; its commands are errors to itself; it may go."""
    async with quiet_house() as house, answered(house, **SCRIPTED) as (_, agent):
        (session_id,) = house.server.registry.calls
        async with house.agent(f"/call/sip?id={session_id}&observe=true") as observer:
            await observer.until("answer")
            await observer.send("hangup")
            error = await observer.until("error")
            assert error["error"] == "hangup is not possible: this socket only observes"
            await agent.send("tts", text="for both", endOfStream=True)
            await observer.until("trackEnd")
            assert "error" not in agent.names
        async with house.agent(f"/call/sip?id={session_id}&observe=true&after=4") as observer:
            await agent.send("hangup")
            await over(agent)
            await observer.ended()
            assert [e["event"] for e in observer.events][-1] == "hangup"
            assert observer.events == agent.events[-len(observer.events) :]


async def test_the_agent_s_own_socket_is_still_one() -> None:
    """A second one that does not say that it observes is refused as ever."""
    async with quiet_house() as house, answered(house, **SCRIPTED) as (_, agent):
        (session_id,) = house.server.registry.calls
        assert (await refused_upgrade(house, f"/call/sip?id={session_id}"))[0] == 409
        await agent.send("hangup")
        await over(agent)


async def test_there_are_only_so_many_readers() -> None:
    """One more is told to come back later; the call does not notice."""
    async with quiet_house() as house, answered(house, **SCRIPTED) as (_, agent), trio.open_nursery() as nursery:
        (session_id,) = house.server.registry.calls
        for _ in range(MOST_READERS):
            nursery.start_soon(ask, house, "GET", f"/call/{session_id}/events")
        await trio.sleep(1)
        assert (await ask(house, "GET", f"/call/{session_id}/events")).status_code == 503
        await agent.send("hangup")
        await over(agent)
