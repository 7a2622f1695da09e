"""A receiver of incoming calls, as an agent's owner would run one: over any `Network`."""

from __future__ import annotations

import json
from typing import Any

import h11
import trio

from rustpbx.core import Address
from rustpbx.shell.network import Network

PENDING = 100
"""Announcements that may wait to be taken from `calls`; one more is a bug of the test."""


class Webhook:
    """`calls` gets the JSON of each announcement. `status` is what it answers, after `delay` seconds.

    With `silent` it never answers.
    """

    def __init__(self) -> None:
        self.status = 200
        self.delay = 0.0
        self.silent = False
        self._send, self.calls = trio.open_memory_channel[dict[str, Any]](PENDING)

    async def serve(
        self, network: Network, address: Address, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Take requests for ever; started when it listens. Raises OSError if the address is taken."""
        listener = await network.listen(*address)
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(self._answer, [listener], handler_nursery=nursery)

    async def _answer(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            body = await _body(connection, stream)
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            return  # given up before it was told
        self._send.send_nowait(json.loads(body))
        if self.silent:
            await stream.receive_some()  # until the server gives up and closes
            return
        await trio.sleep(self.delay)
        head = h11.Response(status_code=self.status, headers=[("content-length", "0"), ("connection", "close")])
        try:
            await stream.send_all((connection.send(head) or b"") + (connection.send(h11.EndOfMessage()) or b""))
            await stream.aclose()
        except trio.BrokenResourceError:
            return  # too late: the server has gone on


async def _body(connection: h11.Connection, stream: trio.abc.Stream) -> bytes:
    """The body of the request that comes. Raises what says that none came, or not all of it."""
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return body
        elif isinstance(event, h11.ConnectionClosed):
            raise trio.BrokenResourceError
