"""SIP over a byte stream: TCP, and TLS once its handshake is done (RFC 3261 18.3)."""

from __future__ import annotations

import trio

from rustpbx.core import Address
from rustpbx.errors import RemoteError
from rustpbx.sip.framing import Framer

READ_SIZE = 16 * 1024


class StreamPipe:
    """Messages over a stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._framer = Framer()

    @property
    def broken(self) -> RemoteError | None:
        """See `Pipe`."""
        return self._framer.broken

    @property
    def partial(self) -> bool:
        """See `Pipe`."""
        return self._framer.partial

    @property
    def expects_pong(self) -> bool:
        """See `Pipe`."""
        return self._framer.expects_pong

    @expects_pong.setter
    def expects_pong(self, expected: bool) -> None:
        self._framer.expects_pong = expected

    async def receive(self) -> list[bytes]:
        """See `Pipe`."""
        data = await self._stream.receive_some(READ_SIZE)
        if not data:
            raise trio.EndOfChannel
        return self._framer.feed(bytes(data))

    async def send(self, data: bytes) -> None:
        """See `Pipe`."""
        await self._stream.send_all(data)

    async def aclose(self) -> None:
        """See `Pipe`."""
        await self._stream.aclose()


def peer_of(stream: trio.abc.Stream) -> Address:
    """Who is at the other end of an accepted stream. Raises OSError if it has gone already."""
    name = stream.socket.getpeername()  # type: ignore[attr-defined]  # sockets and their doubles have one
    host = str(name[0])
    return (host.removeprefix("::ffff:") if "." in host else host), name[1]
