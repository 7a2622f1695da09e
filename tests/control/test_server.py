"""The server as a whole: access before anything else, listings, logs, and connections that do not touch each other."""

from __future__ import annotations

import json
import logging
import socket as socket_module
import struct
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import attrs
import pytest
import trio
import trio_websocket
from trio.testing import wait_all_tasks_blocked

from rustpbx.control.access import Access
from rustpbx.control.server import HttpConfig, serve_http
from rustpbx.session.commands import Pause
from rustpbx.session.options import CallOption, CallType
from rustpbx.session.params import CallSummary, Health
from rustpbx.shell.clock import TrioClock
from rustpbx.shell.network import RealNetwork
from tests.control.harness import HOST, control, read_reply, wrap_client
from tests.kit.fake_registry import FakeRegistry, Said

GOLDEN = Path(__file__).parent.parent / "golden" / "control"
CALL = CallSummary(
    session_id="s.0d6b",
    call_type=CallType.SIP,
    started_at=1761812100000,
    ringing_at=1761812101000,
    option=CallOption(caller="sip:bot@198.51.100.7", callee="sip:700@198.51.100.9"),
)


async def test_health_is_the_golden_one() -> None:
    """As documented, key by key."""
    async with control() as server:
        server.registry.report = Health(
            started_at=1761807600000, version="x.y.z", total=12, failed=1, runnings=2, dialogs=2
        )
        reply = await server.fetch("/health")
        assert reply.json == json.loads((GOLDEN / "health.json").read_text())
        server.registry.report = attrs.evolve(server.registry.report, status="draining")
        reply = await server.fetch("/health")
        assert (reply.status, '"status":"draining"' in reply.body.decode()) == (503, True)


@pytest.mark.parametrize("path", ["/call/lists", "/ami/v1/lists"])
async def test_calls_are_listed_under_both_names(path: str) -> None:
    """One handler, the union of the keys."""
    async with control() as server:
        server.registry.calls = [CALL]
        reply = await server.fetch(path)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert reply.json == {
            "total": 1,
            "calls": [
                {
                    "id": "s.0d6b",
                    "call_type": "sip",
                    "callType": "sip",
                    "created_at": "2025-10-30T08:15:00+00:00",
                    "startTime": "2025-10-30T08:15:00+00:00",
                    "ringTime": "2025-10-30T08:15:01+00:00",
                    "answerTime": None,
                    "duration": None,
                    "option": {"callee": "sip:700@198.51.100.9", "caller": "sip:bot@198.51.100.7"},
                }
            ],
        }


@pytest.mark.parametrize("prefix", ["/call/kill/", "/ami/v1/kill/"])
async def test_kill_answers_true_whether_or_not_there_is_such_a_call(prefix: str) -> None:
    """As documented; the id is decoded, its plus kept. A body is read and ignored."""
    async with control() as server:
        reply = await server.fetch(f"{prefix}a%40b+c", "POST")
        assert (reply.status, reply.body) == (200, b"true")
        raw = f"POST {prefix}x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\n{{}}"
        assert (await server.send(raw.encode())).body == b"true"
        assert server.registry.killed == ["a@b+c", "x"]
        assert (await server.fetch(f"{prefix}{'x' * 257}", "POST")).status == 400
        assert len(server.registry.killed) == 2


async def test_ice_servers_are_the_configured_or_the_default_ones() -> None:
    """No null in the default entry, as pion would reject it."""
    async with control() as server:
        assert (await server.fetch("/iceservers")).json == [{"urls": ["stun:stun.l.google.com:19302"]}]
    turn = {"urls": ["turn:t.example.com"], "username": "u", "credential": "c"}
    async with control(HttpConfig(ice_servers=(turn,))) as server:
        assert (await server.fetch("/iceservers")).json == [turn]


async def test_unknown_paths_and_methods() -> None:
    """404, and 405 with Allow."""
    async with control() as server:
        reply = await server.fetch("/nothing")
        assert (reply.status, reply.json) == (404, {"error": "no such path"})
        reply = await server.fetch("/health", "POST")
        assert (reply.status, reply.json, reply.headers["allow"]) == (405, {"error": "method not allowed"}, "GET")


# -- access ---------------------------------------------------------------------------------------------------------

TOKEN = "correct-horse-battery"


@pytest.mark.parametrize("target", ["/health", "/call/lists", "/call/sip", "/nothing", "/iceservers"])
async def test_a_stranger_gets_nothing(target: str) -> None:
    """401 on every path, before the route is looked at and before anything is reserved."""
    async with control(access=Access(tokens=(TOKEN,))) as server:
        reply = await server.refused_upgrade(target)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert isinstance(reply.json, dict)
        assert set(reply.json) == {"error", "message"}
        assert reply.json["error"] == "Access denied"
        assert server.registry.attachments == {}


async def test_a_denied_body_is_not_read() -> None:
    """The answer comes although the body never does."""
    async with control(access=Access(tokens=(TOKEN,))) as server:
        raw = f"POST /call/kill/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\n"
        began = trio.current_time()
        assert (await server.send(raw.encode())).status == 401
        assert trio.current_time() == began
        assert server.registry.killed == []


@pytest.mark.parametrize("way", ["query", "header"])
async def test_a_token_opens_by_query_or_header_and_is_in_no_log(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """The access log has the path without its query."""
    async with control(access=Access(tokens=(TOKEN,))) as server:
        with caplog.at_level(logging.DEBUG, logger="rustpbx"):
            if way == "query":
                reply = await server.fetch(f"/call/lists?token={TOKEN}")
            else:
                reply = await server.fetch("/call/lists", Authorization=f"Bearer {TOKEN}")
        assert reply.status == 200
        assert TOKEN not in caplog.text
        assert "10.0.0.2 GET /call/lists 200" in caplog.text


async def test_anonymous_callers_may_connect_but_not_list() -> None:
    """Listing and ending calls want more than an open door."""
    async with control(access=Access(allow_anonymous=True)) as server:
        assert (await server.fetch("/health")).status == 200
        assert (await server.fetch("/call/lists")).status == 403
        assert (await server.fetch("/call/kill/x", "POST")).status == 403
        assert server.registry.killed == []


async def test_a_foreign_origin_is_refused_and_no_cors_is_offered() -> None:
    """A web page elsewhere cannot use the agent's address."""
    async with control() as server:
        reply = await server.refused_upgrade("/call/sip", Origin="https://evil.example")
        assert reply.status == 403
        assert not [name for name in reply.headers if name.startswith("access-control")]


async def test_only_the_trusted_network_gets_in() -> None:
    """The peer's own address counts."""
    async with control(access=Access(allow_from=(ip_network("10.9.0.0/16"),))) as server:
        assert (await server.fetch("/health")).status == 403


async def test_the_access_log_honours_its_skip_paths(caplog: pytest.LogCaptureFixture) -> None:
    """Exact paths, and prefixes with a star."""
    async with control(HttpConfig(access_skip_paths=("/health", "/ami/*"))) as server:
        with caplog.at_level(logging.INFO, logger="rustpbx.access"):
            for path in ("/health", "/ami/v1/lists", "/iceservers", "/healthy"):
                await server.fetch(path)
        lines = [record.getMessage().rsplit(" ", 2)[0] for record in caplog.records if record.name == "rustpbx.access"]
        assert lines == ["10.0.0.2 GET /iceservers 200", "10.0.0.2 GET /healthy 404"]
        assert server.counters["requests"] == 4


# -- connections ----------------------------------------------------------------------------------------------------


async def test_connections_have_a_cap() -> None:
    """One too many is told so at once; a place that becomes free is given again."""
    async with control(HttpConfig(max_connections=2)) as server:
        first, _second = await server.connect(), await server.connect()
        await wait_all_tasks_blocked()
        third = await server.connect()
        assert (await read_reply(third)).status == 503
        assert server.counters["connections_refused"] == 1
        await first.aclose()
        await wait_all_tasks_blocked()
        assert (await server.fetch("/health")).status == 200


async def test_a_bug_in_one_request_ends_no_other_connection(caplog: pytest.LogCaptureFixture) -> None:
    """500 for the one; a connection that was open before is still served."""
    async with control() as server:
        other = await server.connect()
        server.registry.calls = [object()]  # type: ignore[list-item]
        with caplog.at_level(logging.ERROR):
            reply = await server.fetch("/call/lists")
        assert (reply.status, reply.json) == (500, {"error": "internal error"})
        await other.send_all(f"GET /health HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert (await read_reply(other)).status == 200


async def test_a_peer_that_leaves_in_its_body_is_no_fault_of_ours() -> None:
    """Counted by the number that proxies give it, not as an internal error."""
    async with control() as server:
        stream = await server.connect()
        await stream.send_all(f"POST /call/kill/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\nabc".encode())
        await stream.aclose()
        await wait_all_tasks_blocked()
        assert dict(server.counters) == {"requests": 1, "answered_499": 1}


async def test_slow_connections_do_not_hold_up_others() -> None:
    """A hundred peers that never finish their request, and one that does."""
    async with control() as server:
        for _ in range(100):
            stream = await server.connect()
            await stream.send_all(b"GET / HTTP/1.1\r\n")
            await wait_all_tasks_blocked()  # so that the listener's backlog takes the next one
        began = trio.current_time()
        assert (await server.fetch("/health")).status == 200
        assert trio.current_time() == began


@pytest.mark.real_time
async def test_the_same_over_real_sockets() -> None:
    """Loopback needs no token; a call, its end with 1000, and a connection that is reset."""
    registry = FakeRegistry()
    async with trio.open_nursery() as nursery:
        serve = partial(serve_http, HttpConfig(port=0), RealNetwork(), registry, Access(), TrioClock())
        host, port = await nursery.start(serve)
        async with await trio.open_tcp_stream(host, port) as stream:
            socket = await wrap_client(nursery, stream, "/call/sip?id=a")
            attachment = await registry.attached()
            assert attachment.params.remote == "127.0.0.1"
            await socket.send_message('{"command":"pause"}')
            assert await attachment.heard() == Said("command", Pause())
            assert json.loads(await socket.get_message())["event"] == "ping"
            attachment.end()
            with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                await socket.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1000
        stream = await trio.open_tcp_stream(host, port)
        await wrap_client(nursery, stream, "/call/sip?id=b")
        attachment = await registry.attached()
        stream.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()
        assert await attachment.heard() == Said("lost", "the connection dropped")
        nursery.cancel_scope.cancel()


@pytest.mark.real_time
async def test_a_taken_address_is_named() -> None:
    """Whoever starts a server reads which of its ports is in use."""
    network = RealNetwork()
    datagrams = await network.open_datagrams("127.0.0.1", 0)
    listener = await network.listen("127.0.0.1", 0)
    assert isinstance(listener, trio.SocketListener)
    port = listener.socket.getsockname()[1]
    with pytest.raises(OSError, match=f"in use: UDP 127.0.0.1:{datagrams.address[1]}$"):
        await network.open_datagrams("127.0.0.1", datagrams.address[1])
    with pytest.raises(OSError, match=f"in use: TCP 127.0.0.1:{port}$"):
        await network.listen("127.0.0.1", port)
    datagrams.close()
    await listener.aclose()


async def test_a_token_in_the_path_lets_in_and_is_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The rules of a bearer token: admin routes and sockets too, a wrong one is a 401; what is logged is the rest."""
    caplog.set_level(logging.DEBUG, "rustpbx")
    async with control(access=Access(tokens=("correct/horse-battery",))) as server:
        assert (await server.fetch("/t/correct%2Fhorse-battery/call/lists")).json == {"total": 0, "calls": []}
        assert (await server.fetch("/t/wrong-horse/call/lists")).status == 401
        assert (await server.fetch("/t//call/lists")).status == 401
        assert (await server.fetch("/t/%FF/call/lists")).status == 400
        assert (await server.fetch("/t/correct%2Fhorse-battery/nothing")).status == 404
        async with server.agent("/t/correct%2Fhorse-battery/call/sip?id=a") as (_, attachment):
            assert (attachment.params.session_id, attachment.params.token) == ("a", "token 1")
        await wait_all_tasks_blocked()
    assert "horse" not in caplog.text
    assert "GET /call/lists 401" in caplog.text


async def test_a_path_goes_before_a_header_before_a_query() -> None:
    """One token counts; behind one in the path a header may be meant for somebody else."""
    async with control(access=Access(tokens=("the-good-token",))) as server:
        good, bad = {"authorization": "Bearer the-good-token"}, {"authorization": "Bearer bad"}
        assert (await server.fetch("/t/bad/health?token=bad", **good)).status == 401
        assert (await server.fetch("/t/the-good-token/health", **bad)).status == 200
        assert (await server.fetch("/health?token=bad", **good)).status == 200
        assert (await server.fetch("/t/the-good-token/health?token=bad")).status == 200
