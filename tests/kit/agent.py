"""An agent on the wire: a WebSocket client that keeps every event, and a webhook receiver. Over any `Network`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import h11
import trio
import trio_websocket

from rustpbx.core import Address
from rustpbx.shell.network import Network


class Agent:
    """One socket. `events` are all JSON events so far, pings left out; `closed` is the close code once it is."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self._socket = socket
        self._news = trio.Condition()
        self.events: list[dict[str, Any]] = []
        self.closed: int | None = None

    async def read(self) -> None:
        """Collect until the server closes."""
        while True:
            try:
                message = await self._socket.get_message()
            except trio_websocket.ConnectionClosed as closed:
                self.closed = closed.reason.code if closed.reason else 1006
                break
            event = json.loads(message)
            if event["event"] != "ping":
                self.events.append(event)
                await self._wake()
        await self._wake()

    async def _wake(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def send(self, command: str, **fields: object) -> None:
        """Send one command."""
        await self._socket.send_message(json.dumps({"command": command, **fields}))

    async def send_text(self, text: str) -> None:
        """Send whatever it is."""
        await self._socket.send_message(text)

    async def until(self, name: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th event of that name, as soon as it is there. Raises AssertionError if the socket ends first."""
        await self._wait(lambda: self._having(name, count) is not None or self.closed is not None)
        found = self._having(name, count)
        assert found is not None, f"closed with {self.closed} before {name}: {self.names}"
        return found

    async def ended(self) -> list[str]:
        """Wait for the close, and return the names of all events."""
        await self._wait(lambda: self.closed is not None)
        return self.names

    async def drop(self) -> None:
        """Vanish without a close frame, as a crashed program does."""
        await trio.aclose_forcefully(self._socket._stream)

    @property
    def names(self) -> list[str]:
        """The events' names, in order."""
        return [event["event"] for event in self.events]

    def _having(self, name: str, count: int) -> dict[str, Any] | None:
        found = [event for event in self.events if event["event"] == name]
        return found[count - 1] if len(found) >= count else None

    async def _wait(self, condition: Callable[[], bool]) -> None:
        async with self._news:
            while not condition():
                await self._news.wait()


@asynccontextmanager
async def connect_agent(network: Network, server: Address, path: str = "/call/sip") -> AsyncIterator[Agent]:
    """Connect to the server's WebSocket."""
    stream = await network.connect(*server)
    async with trio.open_nursery() as nursery:
        socket = await trio_websocket.wrap_client_stream(
            nursery, cast(trio.SocketStream, stream), f"{server[0]}:{server[1]}", path
        )
        agent = Agent(socket)
        nursery.start_soon(agent.read)
        try:
            yield agent
        finally:
            # Closed before the cancellation: a checkpoint after it would swallow the test's own exception.
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()


class Webhook:
    """A receiver of incoming calls: `calls` gets each announcement, `status` is what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.silent = False
        self._send, self.calls = trio.open_memory_channel[dict[str, Any]](100)

    async def serve(self, network: Network, address: Address) -> None:
        """Take requests for ever."""
        listener = await network.listen(*address)
        async with trio.open_nursery() as nursery:
            await trio.serve_listeners(self._answer, [listener], handler_nursery=nursery)

    async def _answer(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
        self._send.send_nowait(json.loads(body))
        if self.silent:
            await stream.receive_some()  # until the server gives up and closes
            return
        head = h11.Response(status_code=self.status, headers=[("content-length", "0"), ("connection", "close")])
        await stream.send_all((connection.send(head) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        await stream.aclose()
