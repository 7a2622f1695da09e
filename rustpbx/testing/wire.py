"""An in-memory wire: hosts, datagrams with seeded misfortune, and a transcript of everything that was carried.

    async with open_wire(seed=1) as wire:
        server, phone = wire.host("10.0.0.1"), wire.host("10.0.0.2")
        wire.link("10.0.0.1", "10.0.0.2", Link(delay=0.03, jitter=0.01, loss=0.05))

The same seed and the same traffic give the same losses, delays and duplicates, link by link: what happens between two
hosts does not depend on what others send.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import random
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from rustpbx.core import Address
from rustpbx.testing.nat import Behaviour, Nat

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
    FILTERED = "filtered"
    UNREACHABLE = "unreachable"
    OVERFLOWED = "overflowed"


@attrs.define(eq=False)
class Rule:
    """Misfortune for chosen datagrams; made by `Wire.lose` and `Wire.hold`. `hits` is how many it has met.

    Of those that match, the first `skip` fare as usual, then `count` (None: all) are lost, or held for `seconds`.
    """

    matches: Callable[[Carried], bool]
    skip: int = 0
    count: int | None = 1
    seconds: float | None = None
    hits: int = 0
    _seen: int = 0

    @property
    def over(self) -> bool:
        """Whether it has met all that it was for."""
        return self.count is not None and self.hits >= self.count

    def takes(self, carried: Carried) -> bool:
        """Whether this datagram is one of its own; counts it."""
        if self.over or not self.matches(carried):
            return False
        self._seen += 1
        if self._seen <= self.skip:
            return False
        self.hits += 1
        return True


@attrs.define
class Carried:
    """One datagram of the transcript; a duplicate has an entry of its own. Times are Trio's."""

    at: float
    source: Address
    destination: Address
    data: bytes = attrs.field(repr=False)
    fate: Fate = Fate.SENT
    arrived_at: float | None = None


@attrs.frozen
class _Flight:
    """A datagram on its way: where it really goes behind a NAT, and over which link."""

    carried: Carried
    reached: Address
    link: Link
    route: tuple[str, str]


class Wakeable(Protocol):
    """Something that waits for hosts to be joined again."""

    def wake(self) -> None:
        """Look again."""
        ...


def _chance(rng: random.Random, probability: float) -> bool:
    return probability > 0 and rng.random() < probability


class Wire:
    """All hosts of one test. Made by `open_wire`; use its methods from inside that block only.

    `link` and `cut` may change at any time and hold for datagrams sent from then on. `transcript` keeps the last
    `keep` datagrams. `names` is the DNS: name -> IP literals.
    """

    def __init__(self, seed: int = 0, *, keep: int = 100_000) -> None:
        self.names: dict[str, tuple[str, ...]] = {}
        self.transcript: deque[Carried] = deque(maxlen=keep)
        self.listeners: dict[Address, TcpListener] = {}
        self._seed = seed
        self._rngs: dict[tuple[str, str], random.Random] = {}
        self._rules: list[Rule] = []
        self._nats: list[Nat] = []
        self._pipes: weakref.WeakSet[Wakeable] = weakref.WeakSet()
        self._bound: dict[Address, Deliver] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._default = Link()
        self._cut: set[tuple[str, str]] = set()
        self._hosts: dict[str, MemoryNetwork] = {}
        self._ports: dict[str, MemoryPorts] = {}
        self._in_flight: list[tuple[float, int, _Flight]] = []
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

    def cut(self, one: str, other: str, *, both_ways: bool = True) -> None:
        """Let nothing pass from `one` to `other`, and back, until `mend`.

        Datagrams are gone and connects time out. Streams stall without a word: what is on its way arrives after `mend`.
        """
        self._cut.add((one, other))
        if both_ways:
            self._cut.add((other, one))

    def mend(self, one: str, other: str) -> None:
        """Undo `cut`, in both directions."""
        self._cut -= {(one, other), (other, one)}
        for pipe in list(self._pipes):
            pipe.wake()

    def partition(self, *groups: Iterable[str]) -> None:
        """Cut every host of a group off from those of the other groups."""
        for group, others in itertools.permutations([list(group) for group in groups], 2):
            for one, other in itertools.product(group, others):
                self.cut(one, other, both_ways=False)

    def mend_all(self) -> None:
        """Undo every `cut` and `partition`."""
        for one, other in list(self._cut):
            self.mend(one, other)

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing passes from `one` to `other`."""
        return (one, other) in self._cut

    def lose(self, matches: Callable[[Carried], bool], *, skip: int = 0, count: int | None = 1) -> Rule:
        """Lose the next datagram that `matches` (`rustpbx.testing.matching`), or the next `count`, or all (None)."""
        return self._rule(Rule(matches, skip, count))

    def hold(self, matches: Callable[[Carried], bool], seconds: float, *, skip: int = 0, count: int | None = 1) -> Rule:
        """Deliver the next datagram that `matches` so much later; those behind it overtake it."""
        return self._rule(Rule(matches, skip, count, seconds))

    def _rule(self, rule: Rule) -> Rule:
        self._rules.append(rule)
        return rule

    def nat(self, ip: str, behind: Iterable[str], behaviour: Behaviour) -> Nat:
        """Put hosts behind a translator with the public address `ip` (`rustpbx.testing.nat`).

        Others reach them only through it. Links and cuts still name the hosts themselves.
        """
        nat = Nat(ip, behind, behaviour)
        self._nats.append(nat)
        return nat

    def watch(self, pipe: Wakeable) -> None:
        """Wake a stream's direction whenever hosts are joined again."""
        self._pipes.add(pipe)

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
        now = trio.current_time()
        seen_from, reached = self._translate(source, destination, now)
        route = (source[0], (reached or destination)[0])
        link = self._links.get(route, self._default)
        rng = self._rng(route)
        copies = 2 if _chance(rng, link.duplication) else 1
        for _ in range(copies):
            carried = Carried(now, seen_from, destination, data)
            self.transcript.append(carried)
            rule = next((rule for rule in self._rules if rule.takes(carried)), None)
            if route in self._cut:
                carried.fate = Fate.CUT
            elif reached is None:
                carried.fate = Fate.FILTERED
            elif (rule is not None and rule.seconds is None) or _chance(rng, link.loss):
                carried.fate = Fate.LOST
            else:
                self._carry(_Flight(carried, reached, link, route), rule.seconds if rule is not None else None)

    def _rng(self, route: tuple[str, str]) -> random.Random:
        rng = self._rngs.get(route)
        if rng is None:
            rng = self._rngs[route] = random.Random(f"{self._seed} {route[0]} {route[1]}")
        return rng

    def _translate(self, source: Address, destination: Address, now: float) -> tuple[Address, Address | None]:
        """The source as others see it, and where the datagram really goes; None if a NAT does not let it in."""
        ours = next((nat for nat in self._nats if source[0] in nat.behind), None)
        if ours is not None and destination[0] in ours.behind:
            return source, destination
        if ours is not None:
            source = ours.outbound(source, destination, now)
        if any(destination[0] in nat.behind for nat in self._nats):
            return source, None  # a private address is not routed
        theirs = next((nat for nat in self._nats if destination[0] == nat.ip), None)
        if theirs is None:
            return source, destination
        if theirs is ours and not ours.behaviour.hairpinning:
            return source, None
        return source, theirs.inbound(destination[1], source, now)

    def _carry(self, flight: _Flight, held: float | None) -> None:
        link, route, carried = flight.link, flight.route, flight.carried
        rng = self._rng(route)
        arrival = carried.at + link.delay + (rng.uniform(0, link.jitter) if link.jitter else 0.0)
        arrival = max(arrival, self._busy_until.get(route, 0.0))
        if held is not None:
            arrival += held  # its successors do not wait for it
        elif _chance(rng, link.reorder):
            arrival += link.reorder_by
        else:
            self._busy_until[route] = arrival
        if arrival <= carried.at:
            self._deliver(flight)
            return
        heapq.heappush(self._in_flight, (arrival, next(self._order), flight))
        self._more.set()

    def _deliver(self, flight: _Flight) -> None:
        carried = flight.carried
        deliver = self._bound.get(flight.reached)
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
