"""HTTP/1.1 on one connection: limits, time limits, keep-alive, and answers that say what was wrong."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.control.http import (
    HttpError,
    Limits,
    ReadBody,
    Request,
    Response,
    Upgrade,
    json_response,
    serve_connection,
)
from rustpbx.testing.network import MemoryStream, stream_pair
from tests.control.harness import Reply, read_reply

LIMITS = Limits(head_bytes=1000, body_bytes=100, head_seconds=10, idle_seconds=60, body_seconds=5, write_seconds=10)


async def echo(request: Request, read_body: ReadBody) -> Response | Upgrade:
    """Answers with what it got; `/bug` and `/odd` fail."""
    if request.path == "/bug":
        raise RuntimeError("secret detail")
    if request.path == "/odd":
        raise HttpError(409, "odd", {"id": "x"}, (("x-odd", "1"),))
    if request.path == "/skip":
        return json_response("skipped")
    body = await read_body()
    return json_response([request.method, request.path, request.query, body.decode()])


@asynccontextmanager
async def client(
    answer: Callable[[Request, ReadBody], Awaitable[Response | Upgrade]] = echo,
) -> AsyncIterator[MemoryStream]:
    """The client's end of a connection that is being served."""
    ours, theirs = stream_pair(("10.0.0.2", 5000), ("10.0.0.1", 80))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, theirs, answer, LIMITS)
        yield ours
        nursery.cancel_scope.cancel()


async def ask(raw: bytes) -> Reply:
    """One response to these bytes."""
    async with client() as stream:
        await stream.send_all(raw)
        return await read_reply(stream)


async def is_closed(stream: trio.abc.Stream) -> bool:
    """Whether the server has closed the connection, once it has nothing more to do."""
    return await stream.receive_some() == b""


async def test_a_request_is_answered_and_the_connection_kept() -> None:
    """Two requests one after the other, then two at once: four answers in order."""
    async with client() as stream:
        await stream.send_all(b"GET /a?x=%31 HTTP/1.1\r\nHost: h\r\n\r\n")
        reply = await read_reply(stream)
        assert (reply.status, reply.json) == (200, ["GET", "/a", "x=%31", ""])
        assert reply.headers == {
            "content-type": "application/json",
            "content-length": str(len(reply.body)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
        await stream.send_all(b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
        assert (await read_reply(stream)).json == ["POST", "/b", "", "hi"]
        await stream.send_all(
            b"GET /c HTTP/1.1\r\nHost: h\r\n\r\nGET /d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        )
        both = b""
        while chunk := await stream.receive_some():
            both += chunk
    assert both.index(b'"/c"') < both.index(b'"/d"')


async def test_a_request_byte_by_byte_is_the_same_request() -> None:
    """Framing does not depend on packets."""
    async with client() as stream:
        for byte in b"POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n":
            await stream.send_all(bytes([byte]))
        assert (await read_reply(stream)).json == ["POST", "/b", "", "hi"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 2000, 431),
        (b"GET /" + b"x" * 2000, 431),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"9\r\nxxxxxxxxx\r\n" * 12, 413),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_bad_requests_get_the_status_that_names_the_fault(raw: bytes, status: int) -> None:
    """And the connection is closed after it."""
    async with client() as stream:
        await stream.send_all(raw)
        reply = await read_reply(stream)
        assert (reply.status, reply.headers["connection"]) == (status, "close")
        assert isinstance(reply.json, dict)
        assert set(reply.json) == {"error"}
        await stream.send_eof()
        assert await is_closed(stream)


async def test_an_http_error_becomes_its_answer() -> None:
    """Status, JSON body, headers; the connection goes on."""
    reply = await ask(b"GET /odd HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (reply.status, reply.json, reply.headers["x-odd"]) == (409, {"error": "odd", "id": "x"}, "1")
    assert "connection" not in reply.headers


async def test_a_bug_is_a_500_without_a_word_about_it(caplog: pytest.LogCaptureFixture) -> None:
    """The traceback is ours, not the peer's."""
    with caplog.at_level(logging.ERROR):
        reply = await ask(b"GET /bug HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (reply.status, reply.json, reply.headers["connection"]) == (500, {"error": "internal error"}, "close")
    assert "secret detail" in caplog.text


async def test_a_body_that_nobody_read_ends_the_connection() -> None:
    """Its bytes must not be taken for the next request."""
    async with client() as stream:
        await stream.send_all(b"POST /skip HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nGET /a HTTP/1.1\r\n")
        reply = await read_reply(stream)
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        await stream.send_eof()
        assert await is_closed(stream)


async def test_expect_100_continue_is_honoured() -> None:
    """The body is asked for when it is wanted."""
    async with client() as stream:
        await stream.send_all(b"POST /b HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await stream.receive_some() == b"HTTP/1.1 100 \r\n\r\n"
        await stream.send_all(b"hi")
        assert (await read_reply(stream)).json == ["POST", "/b", "", "hi"]


async def test_head_is_answered_without_a_body() -> None:
    """The length is told, the bytes are not sent."""
    async with client() as stream:
        await stream.send_all(b"HEAD /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        data = b""
        while chunk := await stream.receive_some():
            data += chunk
    assert data.endswith(b"\r\n\r\n")
    assert b"content-length: 19" in data


async def test_a_broken_request_after_a_head_is_answered_in_full() -> None:
    """What the request before it was has no say in its answer."""
    async with client() as stream:
        await stream.send_all(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n\x00\r\n\r\n")
        data = b""
        while chunk := await stream.receive_some():
            data += chunk
    head, answer = data.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"bad request" in answer.split(b"\r\n\r\n")[1]


async def test_a_slow_head_is_given_up() -> None:
    """One byte a second never becomes a request: 408 ten seconds after the first byte."""
    async with client() as stream, trio.open_nursery() as nursery:
        began = trio.current_time()

        async def drip() -> None:
            with suppress(trio.BrokenResourceError):
                for byte in b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 20:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(1)

        nursery.start_soon(drip)
        reply = await read_reply(stream)
        assert (reply.status, trio.current_time() - began) == (408, 10)
        nursery.cancel_scope.cancel()


async def test_a_slow_body_is_given_up() -> None:
    """408 after the body's own limit."""
    async with client() as stream:
        began = trio.current_time()
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx")
        reply = await read_reply(stream)
        assert (reply.status, trio.current_time() - began) == (408, 5)


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    """Before the first request and between two."""
    async with client() as stream:
        assert await is_closed(stream)
        assert trio.current_time() >= LIMITS.idle_seconds
    async with client() as stream:
        began = trio.current_time()
        await stream.send_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        await read_reply(stream)
        assert await is_closed(stream)
        assert trio.current_time() - began == LIMITS.idle_seconds


async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    """A response larger than the pipe waits its ten seconds, no longer."""

    async def big(request: Request, read_body: ReadBody) -> Response | Upgrade:
        return Response(status=200, body=b"x" * 1_000_000)

    ours, theirs = stream_pair(("10.0.0.2", 5000), ("10.0.0.1", 80))
    await ours.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    began = trio.current_time()
    await serve_connection(theirs, big, LIMITS)
    assert trio.current_time() - began == LIMITS.write_seconds


@pytest.mark.parametrize("raw", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx"])
async def test_a_peer_may_leave_at_any_point(raw: bytes) -> None:
    """By closing or by reset: the connection's task ends quietly."""
    for leave in ("close", "reset"):
        ours, theirs = stream_pair(("10.0.0.2", 5000), ("10.0.0.1", 80))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_connection, theirs, echo, LIMITS)
            if raw:
                await ours.send_all(raw)
            await trio.testing.wait_all_tasks_blocked()
            if leave == "close":
                await ours.aclose()
            else:
                ours.reset()


async def test_an_upgrade_gets_the_stream_and_the_bytes_after_the_request() -> None:
    """Nothing is lost between HTTP and what follows it."""
    seen: list[bytes] = []

    async def take(stream: trio.abc.Stream, leftover: bytes) -> None:
        seen.append(leftover)
        seen.append(bytes(await stream.receive_some()))

    async def upgrade(request: Request, read_body: ReadBody) -> Response | Upgrade:
        return Upgrade(take)

    async with client(upgrade) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly")
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(b"late")
        assert await is_closed(stream)
    assert seen == [b"early", b"late"]


@given(st.binary(max_size=300) | st.binary(max_size=50).map(lambda tail: b"GET / HTTP/1.1\r\nHost: h\r\n" + tail))
async def test_any_bytes_are_answered_or_ignored(raw: bytes) -> None:
    """Never an exception, never a 500, never a hang."""
    ours, theirs = stream_pair(("10.0.0.2", 5000), ("10.0.0.1", 80))
    if raw:
        await ours.send_all(raw)
    await ours.send_eof()
    await serve_connection(theirs, echo, LIMITS)
    data = b""
    while chunk := await ours.receive_some():
        data += chunk
    assert not data.startswith(b"HTTP/1.1 5") or data.startswith(b"HTTP/1.1 501")


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_a_body_with_two_ends_hides_no_request(head: bytes) -> None:
    """What a proxy may have read as one request is refused as one, and the connection ends (RFC 9112 6.1)."""
    async with client() as stream:
        await stream.send_all(head + b"0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n")
        reply = await read_reply(stream)
        assert (reply.status, reply.json) == (400, {"error": "bad request: the length of the body is ambiguous"})
        assert reply.headers["connection"] == "close"
