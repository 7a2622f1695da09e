"""SIP over WebSocket (RFC 7118): the subprotocol `sip`, one message in each frame."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import trio
import trio_websocket

from rustpbx.core import Address, address_text
from rustpbx.errors import RemoteError
from rustpbx.shell.origins import may_come
from rustpbx.sip.framing import PING
from rustpbx.sip.parser import DEFAULT_LIMITS

SUBPROTOCOL = "sip"
NO_WEBSOCKET = "no SIP over WebSocket there"
_REFUSAL = b"this is SIP over WebSocket (RFC 7118): ask for the subprotocol sip\n"

_FOREIGN = b"this page may not speak SIP with us: add its origin to ws_origins\n"


class WebPipe:
    """Messages over a WebSocket."""

    broken: RemoteError | None = None
    partial = False
    expects_pong = False

    def __init__(self, socket: Any, stream: trio.abc.Stream) -> None:
        self._socket = socket
        self._stream = stream

    async def receive(self) -> list[bytes]:
        """See `Pipe`."""
        message = await self._socket.get_message()
        data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else bytes(message)
        if not data.strip(b"\r\n"):  # RFC 7118 6: the keep-alive of RFC 5626, each in a message of its own
            self.expects_pong = self.expects_pong and data == PING
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


async def accept_web(stream: trio.abc.Stream, nursery: trio.Nursery, origins: Container[str] = ()) -> WebPipe | None:
    """The server's side of the handshake; None if the peer wants something else, which has been refused (400, 426).

    So has a browser whose page is neither of this host nor of `origins` (403, RFC 7118 10.1).
    """
    request = await trio_websocket.wrap_server_stream(nursery, stream, max_message_size=DEFAULT_LIMITS.message)
    headers = {name.lower(): value.decode("latin-1") for name, value in request.headers}
    host = request._event.host  # noqa: SLF001 - the library keeps it out of the headers
    if not may_come(headers.get(b"origin"), host, origins):
        await request.reject(403, body=_FOREIGN)
        return None
    if SUBPROTOCOL not in request.proposed_subprotocols:
        await request.reject(400, body=_REFUSAL)
        return None
    return WebPipe(await request.accept(subprotocol=SUBPROTOCOL), stream)


async def connect_web(stream: trio.abc.Stream, nursery: trio.Nursery, host: str, address: Address) -> WebPipe:
    """The client's side. Raises trio.BrokenResourceError if the server does not speak SIP there.

    If it refuses, the library's reader raises in the nursery.
    """
    watched = _Watched(stream)
    socket = None
    async with trio.open_nursery() as race:
        race.start_soon(watched.until_closed, race.cancel_scope)
        socket = await trio_websocket.wrap_client_stream(
            nursery,
            watched,  # type: ignore[arg-type]  # any stream does
            host or address_text(address),
            "/",
            subprotocols=[SUBPROTOCOL],
            max_message_size=DEFAULT_LIMITS.message,
        )
        race.cancel_scope.cancel()
    if socket is None or socket.subprotocol != SUBPROTOCOL:
        raise trio.BrokenResourceError(NO_WEBSOCKET)
    return WebPipe(socket, stream)


class _Watched(trio.abc.Stream):
    """A stream that tells when its peer has closed it: the library would wait for its answer for ever."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._closed = trio.Event()

    async def until_closed(self, scope: trio.CancelScope) -> None:
        """Cancel when nothing more comes."""
        await self._closed.wait()
        scope.cancel()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = b""
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        finally:
            if not data:
                self._closed.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()
