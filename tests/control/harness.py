"""The HTTP server on an in-memory network, in virtual time that begins at 2025-10-30T08:15:00Z, and its clients."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network

import attrs
import h11
import trio
import trio_websocket

from rustpbx.control.access import Access
from rustpbx.control.server import HttpConfig, serve_http
from rustpbx.shell.clock import TrioClock
from rustpbx.testing.network import MemoryStream
from rustpbx.testing.wire import Wire, open_wire
from tests.kit.fake_registry import FakeAttachment, FakeRegistry

EPOCH = 1761812100.0
SERVER = "10.0.0.1"
CLIENT = "10.0.0.2"
PORT = 8080
HOST = f"{SERVER}:{PORT}"


@attrs.frozen
class Reply:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> object:
        """The body's value."""
        return json.loads(self.body)


class Control:
    """A running server."""

    def __init__(self, wire: Wire, registry: FakeRegistry, counters: Counter[str]) -> None:
        self.wire = wire
        self.registry = registry
        self.counters = counters

    async def connect(self) -> MemoryStream:
        """A raw stream to the server."""
        stream = await self.wire.host(CLIENT).connect(SERVER, PORT)
        assert isinstance(stream, MemoryStream)
        return stream

    def server_side(self) -> MemoryStream:
        """The server's end of the newest connection."""
        return self.wire.listeners[SERVER, PORT].accepted[-1]

    async def send(self, raw: bytes) -> Reply:
        """Send these bytes on a new connection and read one response."""
        stream = await self.connect()
        await stream.send_all(raw)
        reply = await read_reply(stream)
        await stream.aclose()
        return reply

    async def fetch(self, target: str, method: str = "GET", **headers: str) -> Reply:
        """One request; header names are given with underscores."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        return await self.send(f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n".encode())

    async def refused_upgrade(self, target: str, **headers: str) -> Reply:
        """The answer to a WebSocket handshake that is expected to fail."""
        return await self.fetch(target, **{**UPGRADE, **headers})

    @asynccontextmanager
    async def agent(self, target: str) -> AsyncIterator[tuple[trio_websocket.WebSocketConnection, FakeAttachment]]:
        """An agent's socket, by a real WebSocket client, and the attachment behind it."""
        async with trio.open_nursery() as nursery:
            stream = await self.connect()
            socket = await wrap_client(nursery, stream, target)
            yield socket, await self.registry.attached()
            nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(stream)


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def wrap_client(
    nursery: trio.Nursery, stream: trio.abc.Stream, target: str
) -> trio_websocket.WebSocketConnection:
    """A real client's handshake over any stream."""
    return await trio_websocket.wrap_client_stream(
        nursery,
        stream,  # type: ignore[arg-type] # annotated for sockets, documented and working for any stream
        HOST,
        target,
    )


async def read_reply(stream: trio.abc.Stream) -> Reply:
    """Read one response."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    status, headers, body = 0, {}, b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Reply(status, headers, body)


TRUSTING = Access(allow_from=(ip_network("10.0.0.0/8"),))


@asynccontextmanager
async def control(config: HttpConfig | None = None, access: Access = TRUSTING) -> AsyncIterator[Control]:
    """A server for the length of a block."""
    config = config or HttpConfig()
    config = attrs.evolve(config, host=SERVER, port=PORT)
    registry, counters = FakeRegistry(), Counter[str]()
    async with open_wire() as wire, trio.open_nursery() as nursery:
        serve = partial(
            serve_http, config, wire.host(SERVER), registry, access, TrioClock(epoch=EPOCH), counters=counters
        )
        address = await nursery.start(serve)
        assert address == (SERVER, PORT)
        yield Control(wire, registry, counters)
        nursery.cancel_scope.cancel()
