"""The way to a language model: what is passed on, what stays here, and that nothing waits for the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import h11
import pytest
import trio

from rustpbx.outbound import open_client
from rustpbx.settings import Config
from rustpbx.testing.house import AGENT, House, open_house, server_config
from tests.control.harness import read_reply

MODEL = "10.0.9.9"
TOKEN = "correct-horse-battery"


@attrs.define(eq=False)
class Model:
    """A language model that sends one chunk, and the other once it is let go on."""

    go_on: trio.Event = attrs.field(factory=trio.Event)
    asked: list[tuple[bytes, dict[str, str], bytes]] = attrs.field(factory=list)
    left: trio.Event = attrs.field(factory=trio.Event)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answer one request with two events."""
        http, body = h11.Connection(h11.SERVER), b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Request):
                target, headers = event.target, {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
        self.asked.append((target, headers, body))
        head = h11.Response(status_code=200, headers=[("content-type", "text/event-stream"), ("set-cookie", "a=b")])
        await stream.send_all((http.send(head) or b"") + (http.send(h11.Data(data=b"data: one\n\n")) or b""))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, stream, nursery.cancel_scope)
            await self.go_on.wait()
            nursery.cancel_scope.cancel()
        if not self.left.is_set():
            await stream.send_all(
                (http.send(h11.Data(data=b"data: two\n\n")) or b"") + (http.send(h11.EndOfMessage()) or b"")
            )

    async def _watch(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        if not await stream.receive_some(1):
            self.left.set()
            scope.cancel()


def llm_config(**changes: object) -> Config:
    """A server with a token and this model behind it."""
    return server_config(tokens=(TOKEN,), llmproxy=f"http://{MODEL}/v1", **changes)


@asynccontextmanager
async def model_house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[House, Model]]:
    """A server, and its model."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-key-of-the-server")
    model = Model()
    async with open_house(llm_config()) as house, trio.open_nursery() as nursery:
        listener = await house.wire.host(MODEL).listen(MODEL, 80)
        nursery.start_soon(partial(trio.serve_listeners, model.serve, [listener]))
        yield house, model
        nursery.cancel_scope.cancel()


async def ask(house: House, target: str, **headers: str) -> trio.abc.Stream:
    """Send a request to the server; its answer is to be read."""
    stream = await house.wire.host(AGENT).connect(*house.server.http)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    await stream.send_all(f"POST {target} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: 2\r\n\r\n{{}}".encode())
    return stream


async def until(stream: trio.abc.Stream, words: bytes) -> bytes:
    """What is read up to these words."""
    seen = b""
    while words not in seen:
        data = await stream.receive_some()
        assert data, seen
        seen += data
    return seen


async def test_the_first_chunk_is_there_before_the_model_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Server-sent events arrive one by one; cookies and lengths of the other connection do not."""
    async with model_house(monkeypatch) as (house, model):
        stream = await ask(house, f"/t/{TOKEN}/llm/v1/chat/completions?a=1&token=x")
        head = await until(stream, b"data: one\n\n")
        assert not model.go_on.is_set()
        assert b"text/event-stream" in head
        assert b"x-accel-buffering: no" in head
        assert b"set-cookie" not in head
        model.go_on.set()
        rest = await until(stream, b"0\r\n\r\n")
        assert b"data: two\n\n" in rest
    ((target, headers, body),) = model.asked
    assert (target, body) == (b"/v1/chat/completions?a=1", b"{}")
    assert headers["authorization"] == "Bearer sk-the-key-of-the-server"


@pytest.mark.parametrize(
    ("prefix", "authorization", "seen"),
    [
        ("", f"Bearer {TOKEN}", "Bearer sk-the-key-of-the-server"),
        (f"/t/{TOKEN}", "Bearer sk-of-the-client", "Bearer sk-of-the-client"),
        (f"/t/{TOKEN}", f"Bearer {TOKEN}", "Bearer sk-the-key-of-the-server"),
    ],
)
async def test_our_token_never_reaches_the_model(
    monkeypatch: pytest.MonkeyPatch, prefix: str, authorization: str, seen: str
) -> None:
    """What vouches here stays here; a key of the client's own goes before ours."""
    async with model_house(monkeypatch) as (house, model):
        model.go_on.set()
        await until(await ask(house, f"{prefix}/llm/v1/x", Authorization=authorization), b"0\r\n\r\n")
    assert model.asked[0][1]["authorization"] == seen
    assert TOKEN not in str(model.asked)


async def test_a_stranger_pays_nothing_with_our_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules of a call; and no path leads out of the model's."""
    async with model_house(monkeypatch) as (house, model):
        assert (await read_reply(await ask(house, "/llm/v1/x", Authorization="Bearer sk-other"))).status == 401
        assert (await read_reply(await ask(house, f"/t/{TOKEN}/llm/v1/%2e%2e/admin"))).status == 400
        assert model.asked == []


async def test_a_client_that_leaves_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody pays for words that nobody reads."""
    async with model_house(monkeypatch) as (house, model):
        stream = await ask(house, f"/t/{TOKEN}/llm/v1/x")
        await until(stream, b"data: one\n\n")
        await stream.aclose()
        await model.left.wait()


async def test_a_model_that_cannot_be_reached_is_a_500_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As documented, in words."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-key-of-the-server")
    async with open_house(llm_config()) as house:
        reply = await read_reply(await ask(house, f"/t/{TOKEN}/llm/v1/x"))
        assert reply.status == 500
        assert reply.body.startswith(b"Failed to proxy request: ")
        assert b"sk-" not in reply.body


async def test_an_administrator_stops_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """`/ami/v1/shutdown` sets what the program that runs the server waits for; others may not."""
    async with open_house(llm_config()) as house, open_client(house.wire.host(AGENT)) as client:
        host, port = house.server.http
        url = f"http://{host}:{port}/ami/v1/shutdown"
        assert (await client.post(url)).status_code == 401
        assert not house.server.stop.is_set()
        reply = await client.post(url, headers={"authorization": f"Bearer {TOKEN}"})
        assert (reply.status_code, reply.json()) == (200, {"status": "shutdown initiated"})
        assert house.server.stop.is_set()
