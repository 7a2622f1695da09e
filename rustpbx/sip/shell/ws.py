"""SIP over WebSocket (RFC 7118): the subprotocol `sip`, one message in each frame."""

from __future__ import annotations

from typing import Any

import trio
import trio_websocket

from rustpbx.core import Address, address_text
from rustpbx.errors import RemoteError
from rustpbx.sip.framing import PING
from rustpbx.sip.parser import DEFAULT_LIMITS

SUBPROTOCOL = "sip"
_REFUSAL = b"this is SIP over WebSocket (RFC 7118): ask for the subprotocol sip\n"


class WebPipe:
    """Messages over a WebSocket."""

    broken: RemoteError | None = None
    partial = False

    def __init__(self, socket: Any, stream: trio.abc.Stream) -> None:
        self._socket = socket
        self._stream = stream

    def expect_pong(self, *, expected: bool) -> None:
        """See `Pipe`. Here a pong is a message of its own."""

    async def receive(self) -> list[bytes]:
        """See `Pipe`."""
        message = await self._socket.get_message()
        data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else bytes(message)
        if not data.strip(b"\r\n"):  # RFC 7118 6: the keep-alive of RFC 5626, each in a message of its own
            return [PING] if data == PING else []
        return [data]

    async def send(self, data: bytes) -> None:
        """See `Pipe`. Text where it is text: not every browser's stack takes binary messages."""
        try:
            message: str | bytes = data.decode()
        except UnicodeDecodeError:
            message = data
        await self._socket.send_message(message)

    async def aclose(self) -> None:
        """See `Pipe`."""
        try:
            await self._socket.aclose()
        finally:
            await trio.aclose_forcefully(self._stream)


async def accept_web(stream: trio.abc.Stream, nursery: trio.Nursery) -> WebPipe | None:
    """The server's side of the handshake; None if the peer wants something else, which has been refused (400, 426)."""
    request = await trio_websocket.wrap_server_stream(nursery, stream, max_message_size=DEFAULT_LIMITS.message)
    if SUBPROTOCOL not in request.proposed_subprotocols:
        await request.reject(400, body=_REFUSAL)
        return None
    return WebPipe(await request.accept(subprotocol=SUBPROTOCOL), stream)


async def connect_web(stream: trio.abc.Stream, nursery: trio.Nursery, host: str, address: Address) -> WebPipe:
    """The client's side. Raises trio.BrokenResourceError if the server does not speak SIP there."""
    try:
        socket = await trio_websocket.wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # any stream does
            host or address_text(address),
            "/",
            subprotocols=[SUBPROTOCOL],
            max_message_size=DEFAULT_LIMITS.message,
        )
    except (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed) as error:
        raise trio.BrokenResourceError(f"no WebSocket there: {error}") from error
    if socket.subprotocol != SUBPROTOCOL:
        raise trio.BrokenResourceError("the WebSocket there does not speak SIP")
    return WebPipe(socket, stream)
