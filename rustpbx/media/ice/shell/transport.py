"""An `IceAgent` on datagram sockets: one for each of our addresses, shared by STUN, DTLS and SRTP (RFC 7983)."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TypeVar

import trio

from rustpbx.core import Address
from rustpbx.media.ice.agent import IceAgent
from rustpbx.media.ice.facts import (
    Close,
    Datagram,
    Effect,
    Failed,
    Gather,
    Gathered,
    Input,
    Payload,
    Returned,
    Selected,
    Send,
    Silent,
)
from rustpbx.shell.drive import drive
from rustpbx.shell.network import Datagrams, Network

T = TypeVar("T")

Fact = Gathered | Selected | Silent | Returned | Failed

MOST_WAITING = 256
"""Datagrams in either direction that wait, and facts; what comes when it is full is dropped and counted."""


def is_dtls(data: bytes) -> bool:
    """Whether a datagram is DTLS by its first byte (RFC 7983 7)."""
    return bool(data) and 20 <= data[0] <= 63


def is_rtp(data: bytes) -> bool:
    """Whether it is RTP or RTCP."""
    return bool(data) and 128 <= data[0] <= 191


class IceTransport:
    """Runs one agent. `facts`, `dtls` and `rtp` are for the owner; `counters` has what none of them took."""

    def __init__(self, network: Network, agent: IceAgent) -> None:
        self.agent = agent
        self.counters: Counter[str] = Counter()
        self._network = network
        self._sockets: dict[Address, Datagrams] = {}
        self._inbox, self._inputs = trio.open_memory_channel[Input](MOST_WAITING)
        self._outbox, self._sends = trio.open_memory_channel[Send](MOST_WAITING)
        self._facts, self.facts = trio.open_memory_channel[Fact](MOST_WAITING)
        self._dtls, self.dtls = trio.open_memory_channel[Payload](MOST_WAITING)
        self._rtp, self.rtp = trio.open_memory_channel[Payload](MOST_WAITING)

    async def run(self, hosts: list[str], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Bind a port on each of these addresses, and go on until `close`. Raises OSError if one cannot be bound."""
        try:
            for host in hosts:
                opened = await self._network.open_datagrams(host, 0)
                self._sockets[opened.address] = opened
            async with trio.open_nursery() as nursery:
                for base, sock in self._sockets.items():
                    nursery.start_soon(self._receive, base, sock)
                nursery.start_soon(self._send_all)
                self.tell(Gather(tuple(self._sockets)))
                task_status.started()
                await drive(self.agent, self._inputs, self._perform)
                nursery.cancel_scope.cancel()
        finally:
            for sock in self._sockets.values():
                sock.close()
            for channel in (self._facts, self._dtls, self._rtp):
                channel.close()

    def tell(self, what: Input) -> None:
        """Hand the agent one input."""
        self._put(self._inbox, what, "ice_inputs_dropped")

    def send(self, data: bytes) -> None:
        """Send DTLS or media on the path, if there is one."""
        found = self.agent.send(data)
        if found is not None:
            self._put(self._outbox, found, "ice_sends_dropped")

    def close(self) -> None:
        """End; `run` returns."""
        self.tell(Close())

    async def _receive(self, base: Address, sock: Datagrams) -> None:
        while True:
            data, source = await sock.receive()
            self.tell(Datagram(data, base, source))

    async def _send_all(self) -> None:
        async for send in self._sends:
            with suppress(OSError):
                await self._sockets[send.base].send(send.data, send.destination)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self._put(self._outbox, effect, "ice_sends_dropped")
        elif not isinstance(effect, Payload):
            self._put(self._facts, effect, "ice_facts_dropped")
        elif is_dtls(effect.data):
            self._put(self._dtls, effect, "dtls_dropped")
        elif is_rtp(effect.data):
            self._put(self._rtp, effect, "rtp_dropped")
        else:
            self.counters["payload_unknown"] += 1

    def _put(self, channel: trio.MemorySendChannel[T], what: T, counter: str) -> None:
        try:
            channel.send_nowait(what)
        except trio.WouldBlock:
            self.counters[counter] += 1
        except trio.BrokenResourceError:
            self.counters["ice_after_the_end"] += 1
