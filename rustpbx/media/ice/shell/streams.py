"""Streams to TURN servers, by TCP or TLS: each is opened when the agent wants it, and has tasks of its own."""

from __future__ import annotations

import ssl
from collections import Counter

import trio

from rustpbx.core import Tick
from rustpbx.media.ice.facts import Connected, Disconnected, Input, Received, Write
from rustpbx.media.ice.turn.server import Transport, TurnServer
from rustpbx.shell.network import Network

MOST_WAITING = 256
"""Messages that wait to be written on one stream; what comes when it is full is dropped and counted, as UDP does it."""

CONNECT_TIMEOUT = 5.0
"""Seconds for TCP and TLS together: the agent waits no longer for its relay."""

PIECE = 16_384


class Streams:
    """All streams of one agent, which hears of them through `inbox`; `tls` is used for `turns:`.

    Where the agent is slow, the server has to wait: what is left out of a stream, all that follows is lost with.
    """

    def __init__(
        self,
        network: Network,
        inbox: trio.MemorySendChannel[Input | Tick],
        counters: Counter[str],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._network = network
        self._inbox = inbox
        self._counters = counters
        self._tls = tls
        self._open: dict[TurnServer, trio.MemorySendChannel[bytes]] = {}
        self._wanted, self._wishes = trio.open_memory_channel[TurnServer](MOST_WAITING)  # each server is wanted once

    def open(self, server: TurnServer) -> None:
        """Have one opened; the agent is told."""
        self._wanted.send_nowait(server)

    def write(self, write: Write) -> bool:
        """Have something written on one that is open; False, and counted, if that cannot be."""
        outbox = self._open.get(write.server)
        try:
            if outbox is not None:
                outbox.send_nowait(write.data)
                return True
        except (trio.WouldBlock, trio.BrokenResourceError):
            pass
        self._counters["turn_writes_dropped"] += 1
        return False

    async def run(self) -> None:
        """Serve for ever; cancelled, it closes all streams."""
        async with trio.open_nursery() as nursery:
            async for server in self._wishes:
                nursery.start_soon(self._serve, server)

    async def _serve(self, server: TurnServer) -> None:
        try:
            with trio.fail_after(CONNECT_TIMEOUT):
                stream = await self._connect(server)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            await self._inbox.send(Disconnected(server, f"it cannot be reached: {_why(error)}"))
            return
        async with stream:
            reason = await self._exchange(server, stream)
        await self._inbox.send(Disconnected(server, reason))

    async def _connect(self, server: TurnServer) -> trio.abc.Stream:
        stream = await self._network.connect(*server.address)
        if server.transport is not Transport.TLS:
            return stream
        context = self._tls or ssl.create_default_context()
        secured = trio.SSLStream(stream, context, server_hostname=server.name or server.address[0])
        try:
            await secured.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secured

    async def _exchange(self, server: TurnServer, stream: trio.abc.Stream) -> str:
        """Read and write until it ends; why it did."""
        outbox, waiting = trio.open_memory_channel[bytes](MOST_WAITING)
        self._open[server] = outbox
        reason = "the server has closed the stream"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_all, stream, waiting, nursery.cancel_scope)
                await self._inbox.send(Connected(server))
                try:
                    while data := await stream.receive_some(PIECE):
                        await self._inbox.send(Received(bytes(data), server))
                except trio.BrokenResourceError as error:
                    reason = f"the stream is broken: {_why(error)}"
                nursery.cancel_scope.cancel()
        finally:
            del self._open[server]
        return reason

    async def _write_all(
        self, stream: trio.abc.Stream, waiting: trio.MemoryReceiveChannel[bytes], scope: trio.CancelScope
    ) -> None:
        try:
            async for data in waiting:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            scope.cancel()


def _why(error: BaseException) -> str:
    if isinstance(error, trio.TooSlowError):
        return f"nothing within {CONNECT_TIMEOUT:.0f} s"
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    return str(cause) or type(cause).__name__
