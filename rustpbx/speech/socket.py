"""The way to a speech service: a WebSocket whose every trouble is a `SpeechError`, and the same for HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any

import attrs
import httpx
import trio
import trio_websocket

from rustpbx.errors import PolicyError, SpeechError, one_line
from rustpbx.journal import Journal
from rustpbx.outbound import Reach
from rustpbx.shell.nurseries import sole_error

OPENING = 10.0
"""Seconds that connecting, TLS and upgrade may take together."""
STALLED = 10.0
"""Seconds that a service may leave a message of ours unread."""
CLOSING = 1.0
"""Seconds that the closing handshake may take."""
LARGEST = 16 * 1024 * 1024
"""Bytes of one message that we take."""
READ_SIZE = 32 * 1024
"""Bytes that are read at once: a piece of synthesised audio is one read, not several."""
QUEUED = 16
"""Messages that wait to be read; TCP slows down a service that is further ahead."""

NORMAL = frozenset({1000, 1001, 1005})
"""Close codes of a service that has ended in peace."""
HOPELESS = frozenset({400, 401, 402, 403, 404, 405, 410, 413, 422})
"""HTTP statuses that another try does not change."""

log = Journal(__name__)

Headers = Sequence[tuple[str, str]]


def secret(option: str | None, variable: str, service: str) -> str:
    """A credential: the agent's option, else the environment. Raises `SpeechError` that names the variable."""
    found = option or os.environ.get(variable)
    if not found:
        raise SpeechError(f"{service}: no credentials: set {variable}, or give them with the command")
    return found


def refused(service: str, status: int, words: str = "") -> SpeechError:
    """The error for an HTTP answer that is none."""
    try:
        name = HTTPStatus(status).phrase
    except ValueError:
        name = "unknown status"
    said = f": {one_line(words, 200)}" if words else ""
    return SpeechError(f"{service} answered {status} {name}{said}", status, passing=status not in HOPELESS)


@contextmanager
def service_errors(service: str) -> Iterator[None]:
    """Whatever goes wrong on the way to a service becomes a `SpeechError`."""
    try:
        yield
    except PolicyError as error:
        raise SpeechError(f"{service}: {error}", 403) from error
    except trio.TooSlowError:
        raise SpeechError(f"{service} does not answer", passing=True) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        words = str(error) or type(error).__name__
        raise SpeechError(f"{service}: {one_line(words, 200)}", passing=True) from error
    except (OSError, trio.BrokenResourceError) as error:
        cause = error.__cause__ or error  # a TLS failure is what broke the stream
        raise SpeechError(f"{service} cannot be reached: {one_line(str(cause), 200)}", passing=True) from error


@contextmanager
def first_error() -> Iterator[None]:
    """Two tasks that talk with one service fail together: the first of their `SpeechError`s is raised alone.

    Where they are cancelled at that moment, nobody asks for it any more: only the cancellation goes on.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        found, rest = group.split(SpeechError)
        if found is not None and rest is not None and rest.split(trio.Cancelled)[1] is None:
            raise rest from None
        if rest is not None or found is None:
            raise
        error: BaseException = found
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    else:
        return
    raise error


def said_by(service: str, message: str | bytes) -> dict[str, Any]:
    """The JSON object of a text frame. What is none says nothing: it is logged, and the stream goes on."""
    if isinstance(message, bytes):
        return {}
    try:
        said = json.loads(message)
    except ValueError:
        log.info("%s says something that is no JSON: %r", service, message[:80])
        return {}
    return said if isinstance(said, dict) else {}


async def next_text(texts: trio.MemoryReceiveChannel[str]) -> str | None:
    """The next piece of a text that is being written; None after the last."""
    try:
        return await texts.receive()
    except trio.EndOfChannel:
        return None


@attrs.define(eq=False)
class ServiceSocket:
    """An open WebSocket to `service`. One that `waited` was opened before it was wanted: it may have died since."""

    service: str
    _connection: trio_websocket.WebSocketConnection
    waited: bool = False

    @property
    def open(self) -> bool:
        """Whether neither side has closed it yet, as far as is known here."""
        return self._connection.closed is None

    async def send(self, message: str | bytes) -> None:
        """Send one message. Raises `SpeechError` if the service has closed, or takes nothing for `STALLED` seconds."""
        try:
            with trio.fail_after(STALLED):
                await self._connection.send_message(message)
        except trio_websocket.ConnectionClosed as closed:
            raise self._closed(closed) from None
        except trio.TooSlowError:
            raise SpeechError(f"{self.service} takes nothing any more", passing=True) from None

    async def receive(self) -> str | bytes:
        """The next message. Raises `trio.EndOfChannel` once the service has closed in peace, else `SpeechError`."""
        try:
            return await self._connection.get_message()
        except trio_websocket.ConnectionClosed as closed:
            if closed.reason is not None and closed.reason.code in NORMAL:
                raise trio.EndOfChannel from None
            raise self._closed(closed) from None

    async def leave(self) -> None:
        """Say goodbye; returns when the service has said it, too."""
        await self._connection.aclose()

    def _closed(self, closed: trio_websocket.ConnectionClosed) -> SpeechError:
        reason = closed.reason
        if reason is None or reason.code == 1006:
            return SpeechError(f"{self.service} dropped the connection", passing=True)
        said = f": {one_line(reason.reason, 200)}" if reason.reason else ""
        return SpeechError(f"{self.service} closed the connection with {reason.code}{said}", reason.code, passing=True)


@asynccontextmanager
async def open_socket(reach: Reach, url: str, service: str, headers: Headers = ()) -> AsyncIterator[ServiceSocket]:
    """A WebSocket to `url` for the length of a block; an exception in it, also cancellation, drops the connection.

    Raises `SpeechError` for everything that goes wrong on the way there, with the HTTP status of a refusal.
    """
    with service_errors(service), trio.fail_after(OPENING):
        address = httpx.URL(url)
        stream = await reach.connect(address)
    try:
        with first_error():
            async with trio.open_nursery() as nursery:
                connection = await _upgrade(nursery, stream, address, service, headers)
                yield ServiceSocket(service, connection)
                with trio.move_on_after(CLOSING):
                    await connection.aclose()
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):  # at once: no closing words of TLS
            await trio.aclose_forcefully(stream)


async def _upgrade(
    nursery: trio.Nursery, stream: trio.abc.Stream, address: httpx.URL, service: str, headers: Headers
) -> trio_websocket.WebSocketConnection:
    try:
        with service_errors(service), sole_error(), sole_error(), trio.fail_after(OPENING):  # a nursery in a nursery
            connection: trio_websocket.WebSocketConnection = await nursery.start(_read, stream, address, headers)
    except trio_websocket.ConnectionRejected as rejected:
        raise refused(service, rejected.status_code, _words(rejected)) from None
    return connection  # closed already perhaps, after words that are still to be read


async def _read(
    stream: trio.abc.Stream,
    address: httpx.URL,
    headers: Headers,
    *,
    task_status: trio.TaskStatus[trio_websocket.WebSocketConnection],
) -> None:
    """Hold the library's reader; it raises a refusal where it runs."""
    async with trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery,
            stream,  # type: ignore[arg-type]  # any stream does; its annotation is too narrow
            address.netloc.decode(),
            address.raw_path.decode(),
            extra_headers=[(name.encode(), value.encode()) for name, value in headers],
            message_queue_size=QUEUED,
            max_message_size=LARGEST,
            receive_buffer_size=READ_SIZE,
        )
        task_status.started(connection)


def _words(rejected: trio_websocket.ConnectionRejected) -> str:
    """Why a service refuses: its body, else the header in which Deepgram says it."""
    headers = {name.lower(): value for name, value in rejected.headers or ()}
    return (rejected.body or headers.get(b"dg-error", b""))[:1000].decode(errors="replace").strip()
