"""An in-memory wire: hosts, datagrams with seeded misfortune, and a transcript of everything that was carried.

    async with open_wire(seed=1) as wire:
        server, phone = wire.host("10.0.0.1"), wire.host("10.0.0.2")
        wire.link("10.0.0.1", "10.0.0.2", Link(delay=0.03, jitter=0.01, loss=0.05))

The same seed and the same traffic give the same losses, delays and duplicates.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING

import attrs
import trio

from rustpbx.core import Address

if TYPE_CHECKING:
    from rustpbx.testing.network import MemoryNetwork, TcpListener
    from rustpbx.testing.ports import MemoryPorts

Deliver = Callable[[bytes, Address], bool]
"""Takes one datagram and its source; False says the receive queue was full."""

FIRST_EPHEMERAL = 49152


def os_error(number: int) -> OSError:
    """The OSError that the operating system would raise for this errno."""
    return OSError(number, os.strerror(number))


@attrs.frozen(kw_only=True)
class Link:
    """How datagrams fare between two hosts, in one direction.

    `loss`, `duplication` and `reorder` are probabilities; `delay`, `jitter` (evenly spread on top of the delay) and
    `reorder_by` (what a reordered datagram waits longer than its successors) are seconds. Jitter alone keeps the order.
    """

    loss: float = 0.0
    duplication: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    reorder_by: float = 0.03


class Fate(Enum):
    """What became of a datagram. `SENT` is one that is still on its way."""

    SENT = "sent"
    DELIVERED = "delivered"
    LOST = "lost"
    CUT = "cut"
    UNREACHABLE = "unreachable"
    OVERFLOWED = "overflowed"


@attrs.define
class Carried:
    """One datagram of the transcript; a duplicate has an entry of its own. Times are Trio's."""

    at: float
    source: Address
    destination: Address
    data: bytes = attrs.field(repr=False)
    fate: Fate = Fate.SENT
    arrived_at: float | None = None


class Wire:
    """All hosts of one test. Made by `open_wire`; use its methods from inside that block only.

    `link` and `cut` may change at any time and hold for datagrams sent from then on. `transcript` keeps the last
    `keep` datagrams. `names` is the DNS: name -> IP literals.
    """

    def __init__(self, seed: int = 0, *, keep: int = 100_000) -> None:
        self.names: dict[str, tuple[str, ...]] = {}
        self.transcript: deque[Carried] = deque(maxlen=keep)
        self.listeners: dict[Address, TcpListener] = {}
        self._rng = random.Random(seed)
        self._bound: dict[Address, Deliver] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._default = Link()
        self._cut: set[tuple[str, str]] = set()
        self._hosts: dict[str, MemoryNetwork] = {}
        self._ports: dict[str, MemoryPorts] = {}
        self._in_flight: list[tuple[float, int, Carried]] = []
        self._order = itertools.count()
        self._busy_until: dict[tuple[str, str], float] = {}
        self._more = trio.Event()

    # -- hosts --------------------------------------------------------------------------------------------------

    def host(self, ip: str) -> MemoryNetwork:
        """The network as the host with this IP sees it; the same object each time."""
        from rustpbx.testing.network import MemoryNetwork  # noqa: PLC0415 - the two know each other

        return self._hosts.setdefault(ip, MemoryNetwork(self, ip))

    def ports(self, ip: str) -> MemoryPorts:
        """The media ports of the host with this IP; the same object each time."""
        from rustpbx.testing.ports import MemoryPorts  # noqa: PLC0415 - the two know each other

        return self._ports.setdefault(ip, MemoryPorts(self, ip))

    # -- weather ------------------------------------------------------------------------------------------------

    def link(self, one: str, other: str, link: Link, *, both_ways: bool = True) -> None:
        """Set how datagrams fare from `one` to `other` (IPs), and back."""
        self._links[one, other] = link
        if both_ways:
            self._links[other, one] = link

    def all_links(self, link: Link) -> None:
        """Set how datagrams fare on every link that `link` did not set."""
        self._default = link

    def cut(self, one: str, other: str) -> None:
        """Part two hosts until `mend`: no datagram passes either way, connects fail; open streams are not touched."""
        self._cut |= {(one, other), (other, one)}

    def mend(self, one: str, other: str) -> None:
        """Undo `cut`."""
        self._cut -= {(one, other), (other, one)}

    def is_cut(self, one: str, other: str) -> bool:
        """True between `cut` and `mend`."""
        return (one, other) in self._cut

    # -- datagrams ----------------------------------------------------------------------------------------------

    @property
    def bound(self) -> list[Address]:
        """The UDP addresses in use, sorted: what a test of tidiness compares with its start."""
        return sorted(self._bound)

    def bind(self, ip: str, port: int, deliver: Deliver) -> Address:
        """Take a UDP address (port 0: the next free ephemeral one). Raises OSError (EADDRINUSE)."""
        if port == 0:
            port = next(p for p in itertools.count(FIRST_EPHEMERAL) if (ip, p) not in self._bound)
        if (ip, port) in self._bound:
            raise os_error(errno.EADDRINUSE)
        self._bound[ip, port] = deliver
        return ip, port

    def unbind(self, address: Address) -> None:
        """Give a UDP address back; idempotent."""
        self._bound.pop(address, None)

    def send(self, source: Address, destination: Address, data: bytes) -> None:
        """Carry one datagram, or not, as the link decides. Delivers before returning on a link without delay."""
        route = (source[0], destination[0])
        link = self._links.get(route, self._default)
        copies = 2 if self._chance(link.duplication) else 1
        for _ in range(copies):
            carried = Carried(trio.current_time(), source, destination, data)
            self.transcript.append(carried)
            if route in self._cut:
                carried.fate = Fate.CUT
            elif self._chance(link.loss):
                carried.fate = Fate.LOST
            else:
                self._carry(carried, link, route)

    def _chance(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    def _carry(self, carried: Carried, link: Link, route: tuple[str, str]) -> None:
        arrival = carried.at + link.delay + (self._rng.uniform(0, link.jitter) if link.jitter else 0.0)
        arrival = max(arrival, self._busy_until.get(route, 0.0))
        if self._chance(link.reorder):
            arrival += link.reorder_by  # its successors do not wait for it
        else:
            self._busy_until[route] = arrival
        if arrival <= carried.at:
            self._deliver(carried)
            return
        heapq.heappush(self._in_flight, (arrival, next(self._order), carried))
        self._more.set()

    def _deliver(self, carried: Carried) -> None:
        deliver = self._bound.get(carried.destination)
        carried.arrived_at = trio.current_time()
        if deliver is None:
            carried.fate = Fate.UNREACHABLE
        elif deliver(carried.data, carried.source):
            carried.fate = Fate.DELIVERED
        else:
            carried.fate = Fate.OVERFLOWED

    async def run(self) -> None:
        """Deliver what links hold back, for ever; `open_wire` runs it."""
        while True:
            self._more = trio.Event()
            while self._in_flight and self._in_flight[0][0] <= trio.current_time():
                self._deliver(heapq.heappop(self._in_flight)[2])
            next_arrival = self._in_flight[0][0] if self._in_flight else float("inf")
            with trio.move_on_at(next_arrival):
                await self._more.wait()

    def carried(self, *, fates: Iterable[Fate] = tuple(Fate), to: str | None = None) -> list[Carried]:
        """The transcript, filtered by what became of the datagrams and by destination IP."""
        wanted = frozenset(fates)
        return [c for c in self.transcript if c.fate in wanted and (to is None or c.destination[0] == to)]


@asynccontextmanager
async def open_wire(seed: int = 0, *, keep: int = 100_000) -> AsyncIterator[Wire]:
    """A wire for the length of a block; delayed datagrams of the end are dropped with it."""
    async with trio.open_nursery() as nursery:
        wire = Wire(seed, keep=keep)
        nursery.start_soon(wire.run, name="wire")
        yield wire
        nursery.cancel_scope.cancel()
