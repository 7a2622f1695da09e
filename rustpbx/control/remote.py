"""Steering a call by plain HTTP: a command is a POST, its events are server-sent events (WHATWG HTML 9.2)."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import trio

from rustpbx.control.http import HttpError, Response, Upgrade, json_response
from rustpbx.control.wire import WireError, decode_command, encode_event
from rustpbx.session.commands import Command
from rustpbx.session.events import Event

HEARTBEAT = 15.0
"""Seconds after which a comment shows proxies that the stream is alive."""
WRITE = 10.0
"""Seconds that a reader may leave an event unread."""
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n"
    b"x-content-type-options: nosniff\r\nx-accel-buffering: no\r\nconnection: close\r\n\r\n"
)


class Reader(Protocol):
    """What the events of a call are read from."""

    @property
    def events(self) -> trio.MemoryReceiveChannel[Event | bytes]:
        """The events, until the last."""
        ...

    def number(self) -> int:
        """The number of the event that was received just now."""
        ...

    def lost(self, cause: str, *, dropped: bool = False) -> None:
        """Nobody reads any more."""
        ...


def read_command(body: bytes) -> Command:
    """The command in a request's body. Raises `HttpError` (400) that says what is wrong with it."""
    try:
        return decode_command(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise HttpError(400, "the body is not UTF-8") from None
    except WireError as problem:
        raise HttpError(400, str(problem)) from None


def accepted() -> Response:
    """A command was handed to the call; what comes of it are events."""
    return json_response({"accepted": True}, 202)


def event_stream(reader: Reader) -> Upgrade:
    """The answer that goes on until the call is over."""

    async def run(stream: trio.abc.Stream, _: bytes) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_gone, stream, nursery.cancel_scope)
                with suppress(trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
                    await _write(stream, reader)
                nursery.cancel_scope.cancel()
        finally:
            reader.lost("the stream has ended")
            await trio.aclose_forcefully(stream)

    return Upgrade(run)


async def _write(stream: trio.abc.Stream, reader: Reader) -> None:
    await _send(stream, _HEAD)
    while True:
        text = ": alive\n\n"
        with trio.move_on_after(HEARTBEAT):
            try:
                event = await reader.events.receive()
            except trio.EndOfChannel:
                return
            assert not isinstance(event, bytes)  # noqa: S101 - audio has its own sockets
            text = f"id: {reader.number()}\nevent: {event.name}\ndata: {encode_event(event)}\n\n"
        await _send(stream, text.encode())


async def _send(stream: trio.abc.Stream, data: bytes) -> None:
    with trio.fail_after(WRITE):
        await stream.send_all(data)


async def until_gone(stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
    """A reader that closes is gone, though nothing is written at the moment."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await stream.receive_some(1024):
            pass
    scope.cancel()
