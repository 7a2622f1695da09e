"""An agent's WebSocket: commands in, events out, pings; and the end of either side noticed by the other.

`rustpbx.control.http` reads the upgrade request and hands the stream over. What the agent sends before the 101 waits
until the handshake is done.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter

import attrs
import trio
import trio_websocket

from rustpbx.control.http import HttpError, Request
from rustpbx.control.sessions import Attachment
from rustpbx.control.wire import MAX_MESSAGE, WireError, decode_command, encode_event, rfc3339
from rustpbx.journal import Journal
from rustpbx.session.events import Event, Ping
from rustpbx.shell.clock import Clock

_LOG = Journal(__name__)

MISSED_PONGS = 3
"""So many pings without an answer are a dropped socket."""


@attrs.frozen(kw_only=True)
class Patience:
    """How long an agent's socket may take, in seconds: for one write, for the handshake, for the closing one."""

    write: float = 10.0
    open: float = 10.0
    close: float = 5.0


# -- the handshake --------------------------------------------------------------------------------------------------


def handshake_key(request: Request) -> str:
    """The Sec-WebSocket-Key of an upgrade request (RFC 6455 section 4.2.1). Raises `HttpError` if it is none.

    Subprotocols and extensions are not negotiated, and neither is asked for.
    """
    headers = request.headers
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in _tokens(headers.get("connection", "")):
        raise HttpError(400, "this path wants a WebSocket upgrade")
    if headers.get("sec-websocket-version") != "13":
        raise HttpError(426, "WebSocket version 13 is needed", headers=(("sec-websocket-version", "13"),))
    key = headers.get("sec-websocket-key", "")
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if request.http_version != "1.1" or has_body or not _is_key(key):
        raise HttpError(400, "not a valid WebSocket handshake")
    return key


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


class _HandedOver(trio.abc.Stream):
    """A stream after its upgrade request: a plain handshake comes first, then what was read already, then the rest.

    The request was checked by us, so the WebSocket library is given a canonical one with the same key. Nothing
    after it comes before the 101 is out.
    """

    def __init__(self, stream: trio.abc.Stream, key: str, leftover: bytes) -> None:
        self._stream = stream
        self._handshake = (
            "GET / HTTP/1.1\r\nHost: rustpbx\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ).encode()
        self._leftover = leftover
        self._answered = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        size = max_bytes or 4096
        if self._handshake:
            piece, self._handshake = self._handshake[:size], self._handshake[size:]
            return piece
        await self._answered.wait()
        if self._leftover:
            piece, self._leftover = self._leftover[:size], self._leftover[size:]
            return piece
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        finally:
            self._answered.set()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self._answered.set()
        await self._stream.aclose()


# -- the conversation -----------------------------------------------------------------------------------------------


async def serve_agent(
    stream: trio.abc.Stream,
    leftover: bytes,
    key: str,
    attachment: Attachment,
    *,
    ping_interval: int,
    clock: Clock,
    counters: Counter[str],
    patience: Patience = Patience(),
) -> None:
    """Complete the upgrade and serve one agent until its session or its socket ends.

    `key` is from `handshake_key`. The session ends first: close code 1000. The socket ends first, by close frame,
    reset, missed pongs or a write that does not get through: `attachment.lost(cause)`.
    """
    conversation: _Conversation | None = None
    try:
        async with trio.open_nursery() as nursery:
            socket = await _open(nursery, _HandedOver(stream, key, leftover), patience)
            if socket is not None:
                conversation = _Conversation(
                    socket=socket,
                    attachment=attachment,
                    clock=clock,
                    counters=counters,
                    patience=patience,
                    scope=nursery.cancel_scope,
                )
                attachment.upgraded()
                nursery.start_soon(conversation.read)
                if ping_interval:
                    nursery.start_soon(conversation.ping, ping_interval)
                await conversation.write()
            nursery.cancel_scope.cancel()
    finally:
        if conversation is None:
            attachment.release()
        elif not conversation.ended:
            attachment.lost("the server ended the connection")
        await trio.aclose_forcefully(stream)


async def _open(
    nursery: trio.Nursery, stream: trio.abc.Stream, patience: Patience
) -> trio_websocket.WebSocketConnection | None:
    with trio.move_on_after(patience.open):
        try:
            request = await trio_websocket.wrap_server_stream(nursery, stream, max_message_size=MAX_MESSAGE)
            return await request.accept()
        except trio_websocket.ConnectionClosed:
            return None
    return None


@attrs.define(kw_only=True, eq=False)
class _Conversation:
    """The three tasks of an open socket. Whichever sees the end first says why, and cancels the others."""

    ended: bool = attrs.field(init=False, default=False)
    _socket: trio_websocket.WebSocketConnection
    _attachment: Attachment
    _clock: Clock
    _counters: Counter[str]
    _patience: Patience
    _scope: trio.CancelScope
    _unanswered: int = attrs.field(init=False, default=0)
    _sent: int = attrs.field(init=False, default=0)

    def _lose(self, cause: str, *, dropped: bool = True) -> None:
        """The socket is gone, unless the session is and we are closing it ourselves."""
        if self.ended:
            return
        self.ended = True
        self._attachment.lost(cause, dropped=dropped)
        self._scope.cancel()

    async def read(self) -> None:
        """Commands, until the agent is gone."""
        while True:
            try:
                message = await self._socket.get_message()
            except trio_websocket.ConnectionClosed as closed:
                self._lose(_why(closed.reason), dropped=_is_dropped(closed.reason))
                return
            if isinstance(message, str):
                self._understand(message)
            else:
                self._counters["binary_ignored"] += not self._attachment.audio(bytes(message))

    def _understand(self, text: str) -> None:
        try:
            command = decode_command(text)
        except WireError as error:
            self._counters["bad_commands"] += 1
            _LOG.info("bad command: %s", error, call=self._attachment.session_id)
            self._attachment.bad_command(str(error))
        else:
            self._attachment.command(command)

    async def write(self) -> None:
        """Events and audio, until the session has no more; then the closing handshake."""
        async for event in self._attachment.events:
            message = event if isinstance(event, bytes) else self._encode(event)
            if message is None:
                continue
            with trio.move_on_after(self._patience.write) as scope:
                try:
                    await self._socket.send_message(message)
                except trio_websocket.ConnectionClosed as closed:
                    self._lose(_why(closed.reason), dropped=_is_dropped(closed.reason))
                    return
            if scope.cancelled_caught:
                self._lose(f"a write stalled for {self._patience.write:g} s")
                return
        if not self.ended:
            self.ended = True
            with trio.move_on_after(self._patience.close):
                await self._socket.aclose(1000)

    def _encode(self, event: Event) -> str | None:
        try:
            return encode_event(event, self._number(event))
        except (TypeError, ValueError):
            self._counters["events_unencodable"] += 1
            _LOG.exception("event %s cannot be JSON", event.name, call=self._attachment.session_id)
            return None

    def _number(self, event: Event) -> int | None:
        """Pings are not counted: they belong to the socket, not to the call."""
        if self._attachment.first is None or isinstance(event, Ping):
            return None
        self._sent += 1
        return self._attachment.first + self._sent - 1

    async def ping(self, interval: int) -> None:
        """A ping at once and then every `interval` seconds, as control frame and as event."""
        async with trio.open_nursery() as pongs:
            while self._unanswered < MISSED_PONGS:
                now = self._clock.now()
                payload = rfc3339(self._clock.wall(now))
                self._attachment.ping(payload)
                self._unanswered += 1
                pongs.start_soon(self._await_pong, payload)
                await trio.sleep_until(now + interval)
            self._lose(f"no pong to {MISSED_PONGS} pings")
            pongs.cancel_scope.cancel()

    async def _await_pong(self, payload: str) -> None:
        try:
            await self._socket.ping(payload.encode())
        except trio_websocket.ConnectionClosed:
            return  # the reader says why
        self._unanswered -= 1


def _is_dropped(reason: trio_websocket.CloseReason | None) -> bool:
    return reason is None or reason.code == 1006


def _why(reason: trio_websocket.CloseReason | None) -> str:
    if reason is None or reason.code == 1006:
        return "the connection dropped"
    return f"closed by the agent with {reason.code}"
