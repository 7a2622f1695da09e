"""A little web in memory: a `Network` with names and servers, for tests of what goes out over HTTP."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

import trio
from trio.testing import memory_stream_pair

from rustpbx.core import Address
from rustpbx.shell.network import Datagrams
from rustpbx.shell.records import Answer, Kind

Handler = Callable[[trio.abc.Stream], Awaitable[None]]


def page(body: bytes = b"", *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """An HTTP response; `length` lies about the body's."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Web:
    """Names with their addresses, one list per look-up (the last is repeated), and one server per address and port.

    Servers run in `nursery`. `asked` are the request heads that came in, `connected` where connections went.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._servers: dict[Address, Handler] = {}
        self.names: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self.connected: list[Address] = []
        self.looked_up: list[str] = []

    def serve(self, address: str, port: int, *responses: bytes, tls: ssl.SSLContext | None = None) -> None:
        """Answer requests to an address with these responses, one after the other, on whichever connection."""
        left = list(responses)

        async def handle(stream: trio.abc.Stream) -> None:
            if tls is not None:
                stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
            try:
                while left:
                    head = await _head(stream)
                    if not head:
                        break
                    self.asked.append(head)
                    await stream.send_all(left.pop(0))
                await stream.aclose()
            except trio.BrokenResourceError:
                return

        self._servers[address, port] = handle

    def handle(self, address: str, port: int, handler: Handler) -> None:
        """Leave what happens on a connection to `handler`."""
        self._servers[address, port] = handler

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """Connect to a server that is there."""
        await trio.lowlevel.checkpoint()
        self.connected.append((host, port))
        if (host, port) not in self._servers:
            raise ConnectionRefusedError(f"{host}:{port} refuses")
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._servers[host, port], theirs)
        return ours

    async def resolve(self, host: str) -> list[str]:
        """The next answer for a name; a literal is itself."""
        await trio.lowlevel.checkpoint()
        self.looked_up.append(host)
        answers = self.names.get(host)
        if answers is None:
            return [host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def listen(self, host: str, port: int) -> trio.abc.Listener[trio.abc.Stream]:
        """Nobody listens here."""
        raise OSError(f"{host}:{port}")

    async def open_datagrams(self, host: str, port: int) -> Datagrams:
        """There is no UDP here."""
        raise OSError(f"{host}:{port}")

    async def lookup(self, name: str, kind: Kind) -> Answer:  # noqa: ARG002 - one interface
        """No zone is served here."""
        await trio.lowlevel.checkpoint()
        return Answer((), 60.0)

    def source_for(self, host: str) -> str:
        """Our own address, whoever asks."""
        return host


async def _head(stream: trio.abc.Stream) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some()
        if not more:
            return ""
        data += more
    return bytes(data).decode()
