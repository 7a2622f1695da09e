"""A connection as messages: what TCP, TLS and WebSocket have in common for those who use them."""

from __future__ import annotations

from typing import Protocol

import trio
import trio_websocket

from rustpbx.errors import RemoteError

GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel, trio_websocket.ConnectionClosed)
"""What a connection that is over raises, one way or another."""


class Pipe(Protocol):
    """Messages in both directions. One task may receive and another one send.

    `expects_pong` is set by who has sent a ping, and taken back when its answer comes: a lone line end.
    """

    expects_pong: bool

    @property
    def broken(self) -> RemoteError | None:
        """Why no further message can be told from the bytes that come; None as long as they can."""
        ...

    @property
    def partial(self) -> bool:
        """Whether a message has begun and not ended."""
        ...

    async def receive(self) -> list[bytes]:
        """Wait for bytes; the messages, and `framing.PING`s, that they complete. Raises one of `GONE` at the end."""
        ...

    async def send(self, data: bytes) -> None:
        """Send one message, or a keep-alive. Raises one of `GONE`."""
        ...

    async def aclose(self) -> None:
        """Say goodbye where that is usual, and close."""
        ...
