"""An `IceAgent` on sockets: one for each of our addresses, shared by STUN, DTLS and SRTP (RFC 7983), and streams to
TURN servers.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from rustpbx.core import Address, Tick
from rustpbx.journal import Journal
from rustpbx.media.ice.agent import IceAgent
from rustpbx.media.ice.facts import (
    Close,
    Connect,
    Datagram,
    Effect,
    Failed,
    Gather,
    Gathered,
    Input,
    Payload,
    RelayLost,
    Remote,
    Returned,
    Selected,
    Send,
    Silent,
    Write,
)
from rustpbx.media.ice.shell.streams import Streams
from rustpbx.media.sdp.ice import IceDescription
from rustpbx.shell.drive import drive, settle
from rustpbx.shell.network import Datagrams, Network

T = TypeVar("T")

log = Journal(__name__)

Fact = Gathered | Selected | Silent | Returned | Failed

MOST_WAITING = 256
"""Datagrams that wait, and facts; what comes when it is full is dropped and counted."""


def is_dtls(data: bytes) -> bool:
    """Whether a datagram is DTLS by its first byte (RFC 7983 7)."""
    return bool(data) and 20 <= data[0] <= 63


def is_rtp(data: bytes) -> bool:
    """Whether it is RTP or RTCP."""
    return bool(data) and 128 <= data[0] <= 191


class IceTransport:
    """Runs one agent. `facts` and `dtls` are for the owner; `counters` has what was dropped.

    `media` is called with each packet of RTP and RTCP, at once: it must not wait. `tls` is for
    `turns:` servers; without it, the system's authorities are those that count.
    """

    def __init__(
        self,
        network: Network,
        agent: IceAgent,
        media: Callable[[bytes], None],
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.agent = agent
        self.counters: Counter[str] = Counter()
        self._network = network
        self._media = media
        self._sockets: dict[Address, Datagrams] = {}
        self._reading: dict[Address, trio.CancelScope] = {}
        self._lent: dict[Address, trio.Event] = {}
        self._inbox, self._inputs = trio.open_memory_channel[Input | Tick](MOST_WAITING)
        self._streams = Streams(network, self._inbox, self.counters, tls)
        self._facts, self.facts = trio.open_memory_channel[Fact](MOST_WAITING)
        self._dtls, self.dtls = trio.open_memory_channel[Payload](MOST_WAITING)

    async def run(
        self, hosts: Sequence[str], port: int = 0, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Bind this port on each of these addresses, 0 for any, and go on until `close`.

        Raises OSError if one cannot be bound.
        """
        try:
            for host in hosts:
                opened = await self._network.open_datagrams(host, port)
                self._sockets[opened.address] = opened
            async with trio.open_nursery() as nursery:
                for base, sock in self._sockets.items():
                    nursery.start_soon(self._receive, base, sock)
                nursery.start_soon(self._streams.run)
                self.tell(Gather(tuple(self._sockets)))
                task_status.started()
                await drive(self.agent, self._inputs, self._perform)
                nursery.cancel_scope.cancel()
        finally:
            for sock in self._sockets.values():
                sock.close()
            for channel in (self._facts, self._dtls):
                channel.close()

    def tell(self, what: Input | Tick) -> None:
        """Hand the agent one input."""
        self._put(self._inbox, what, "ice_inputs_dropped")

    def describe(self, description: IceDescription) -> IceDescription:
        """Take the peer's description at once, and give ours: a new one, if the peer's says that it restarts."""
        settle(self.agent, Remote(description), self._perform, trio.current_time())
        self.tell(Tick())  # the agent's timers are others now
        return self.agent.local

    def send(self, data: bytes) -> bool:
        """Send DTLS or media on the path, at once; False if there is none, or the system did not take it."""
        found = self.agent.send(data)
        return found is not None and self._send(found)

    def close(self) -> None:
        """End; `run` returns."""
        settle(self.agent, Close(), self._perform, trio.current_time())
        self.tell(Tick())  # `run` sees that the agent is done, with this or with what comes before it

    def lend(self, base: Address) -> Datagrams | None:
        """The socket of this base, for somebody else to receive from until `give_back`; None if it is a relay's."""
        sock = self._sockets.get(base)
        if sock is not None:
            self._lent[base] = trio.Event()
            self._reading[base].cancel()
        return sock

    def give_back(self, base: Address) -> None:
        """Receive there again."""
        self._lent.pop(base).set()

    def take(self, base: Address, data: bytes, source: Address) -> None:
        """A datagram that came to one of the bases. What comes fifty times a second does not trouble the agent."""
        came = Datagram(data, base, source)
        said = came if is_rtp(data) else self.agent.relayed(came)
        if said is not None and is_rtp(said.data) and self.agent.is_proved(said.base, said.source):
            self._media(said.data)
        else:
            self.tell(came)

    async def _receive(self, base: Address, sock: Datagrams) -> None:
        while True:
            with trio.CancelScope() as self._reading[base]:
                while True:
                    self.take(base, *await sock.receive())
            if base in self._lent:
                await self._lent[base].wait()

    def _send(self, send: Send | Write) -> bool:
        if isinstance(send, Write):
            return self._streams.write(send)
        sock = self._sockets.get(send.base)
        if sock is not None and sock.send_now(send.data, send.destination):
            return True
        self.counters["ice_sends_dropped"] += 1
        return False

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send | Write):
            self._send(effect)
        elif isinstance(effect, Connect):
            self._streams.open(effect.server)
        elif isinstance(effect, RelayLost):
            log.warning("no relay at %s: %s", effect.server, effect.reason)
        elif not isinstance(effect, Payload):
            self._put(self._facts, effect, "ice_facts_dropped")
        elif is_dtls(effect.data):
            self._put(self._dtls, effect, "dtls_dropped")
        elif is_rtp(effect.data):
            self._media(effect.data)
        else:
            self.counters["payload_unknown"] += 1

    def _put(self, channel: trio.MemorySendChannel[T], what: T, counter: str) -> None:
        try:
            channel.send_nowait(what)
        except trio.WouldBlock:
            self.counters[counter] += 1
        except trio.BrokenResourceError:
            self.counters["ice_after_the_end"] += 1
