"""An in-memory wire: hosts, datagrams with seeded misfortune, and a transcript of everything that was carried.

    async with open_wire(seed=1) as wire:
        server, phone = wire.host("10.0.0.1"), wire.host("10.0.0.2")
        wire.link("10.0.0.1", "10.0.0.2", Link(delay=0.03, jitter=0.01, loss=0.05))

The same seed and the same traffic give the same losses, delays and duplicates, link by link: what happens between two
hosts does not depend on what others send. The luck of a datagram does not depend on the link's figures either, nor on
`lose`, `hold`, `repeat` or `cut`: to lose one message changes nothing for those after it.
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
from rustpbx.testing.misfortune import Fortune, Luck, Misfortune, Rule
from rustpbx.testing.nat import Behaviour, Borders, Nat
from rustpbx.testing.zone import Zone

if TYPE_CHECKING:
    from rustpbx.testing.network import MemoryNetwork, TcpListener
    from rustpbx.testing.ports import MemoryPorts

Deliver = Callable[[bytes, Address], bool]
"""Takes one datagram and its source; False says the receive queue was full."""

Matcher = Callable[["Carried"], bool]
"""Chooses datagrams; `rustpbx.testing.matching` has those for SIP and RTP."""

FIRST_EPHEMERAL = 49152


def os_error(number: int) -> OSError:
    """The OSError that the operating system would raise for this errno."""
    return OSError(number, os.strerror(number))


@attrs.frozen(kw_only=True)
class Link:
    """How datagrams fare between two hosts, in one direction.

    `loss`, `duplication` and `reorder` are probabilities; `delay`, `jitter` (evenly spread on top of the delay) and
    `reorder_by` (what a reordered datagram waits longer than its successors) are seconds. Jitter alone keeps the order.
    Streams know only delay and jitter: of the rest, TCP lets its users see nothing.
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
    """A datagram on its way: where it really goes behind a NAT, over which link, and with what luck."""

    carried: Carried
    reached: Address
    link: Link
    route: tuple[str, str]
    luck: Luck


@attrs.define(eq=False)
class _Watch:
    """Somebody who waits for a datagram."""

    matches: Matcher
    missing: int
    found: Carried | None = None
    news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    def see(self, carried: Carried) -> None:
        """Look at one that has arrived."""
        if self.found is None and self.matches(carried):
            self.missing -= 1
            if self.missing <= 0:
                self.found = carried
                self.news.unpark_all()


class Pipe(Protocol):
    """One direction of a stream, as the wire knows it."""

    @property
    def route(self) -> tuple[str, str]:
        """The IPs of the writer and of the reader."""
        ...

    def wake(self) -> None:
        """Hosts are joined again: look whether there is something to read."""
        ...

    def reset(self) -> None:
        """Break."""
        ...


class Wire:
    """All hosts of one test. Made by `open_wire`; use its methods from inside that block only.

    `link` and `cut` may change at any time and hold for datagrams sent from then on. `transcript` keeps the last
    `keep` datagrams. `names` is the DNS: name -> IP literals; `zone` has its NAPTR and SRV records.
    """

    def __init__(self, seed: int = 0, *, keep: int = 100_000) -> None:
        self.names: dict[str, tuple[str, ...]] = {}
        self.zone = Zone()
        self.transcript: deque[Carried] = deque(maxlen=keep)
        self.listeners: dict[Address, TcpListener] = {}
        self._seed = seed
        self._fortunes: dict[tuple[str, str], Fortune] = {}
        self._rules: list[Rule] = []
        self._borders = Borders()
        self._pipes: weakref.WeakValueDictionary[int, Pipe] = weakref.WeakValueDictionary()  # in order of their birth
        self._bound: dict[Address, Deliver] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._default = Link()
        self._cut: set[tuple[str, str]] = set()
        self._hosts: dict[str, MemoryNetwork] = {}
        self._ports: dict[str, MemoryPorts] = {}
        self._in_flight: list[tuple[float, int, _Flight]] = []
        self._order = itertools.count()
        self._births = itertools.count()
        self._busy_until: dict[tuple[str, str], float] = {}
        self._watches: list[_Watch] = []
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
        for pipe in self._pipes_between(one, other):
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

    def reset(self, one: str, other: str) -> None:
        """Break every stream between two hosts at once, as a firewall does that answers for both with RST."""
        for pipe in self._pipes_between(one, other):
            pipe.reset()

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing passes from `one` to `other`."""
        return (one, other) in self._cut

    def lose(self, matches: Matcher, *, skip: int = 0, count: int | None = 1) -> Rule:
        """Lose the next datagram that `matches` (`rustpbx.testing.matching`), or the next `count`, or all (None)."""
        return self._rule(Rule(Misfortune.LOSE, matches, skip, count))

    def hold(self, matches: Matcher, seconds: float, *, skip: int = 0, count: int | None = 1) -> Rule:
        """Deliver the next datagram that `matches` so much later; those behind it overtake it."""
        return self._rule(Rule(Misfortune.HOLD, matches, skip, count, seconds))

    def repeat(self, matches: Matcher, seconds: float, *, skip: int = 0, count: int | None = 1) -> Rule:
        """Deliver the next datagram that `matches` as usual, and a copy of it so much later."""
        return self._rule(Rule(Misfortune.REPEAT, matches, skip, count, seconds))

    def _rule(self, rule: Rule) -> Rule:
        self._rules.append(rule)
        return rule

    def nat(self, ip: str, behind: Iterable[str], behaviour: Behaviour) -> Nat:
        """Put hosts behind a translator with the public address `ip` (`rustpbx.testing.nat`).

        Others reach them only through it. Links and cuts still name the hosts themselves; the transcript has the
        addresses that travel outside. Raises ValueError for an address that has another NAT already.
        """
        nat = Nat(ip, behind, behaviour)
        self._borders.add(nat)
        return nat

    # -- streams ------------------------------------------------------------------------------------------------

    def watch(self, pipe: Pipe) -> random.Random:
        """Know a stream's direction for as long as it exists: it is woken, and reset, with its hosts. Returns its luck.

        Each stream has luck of its own, so that datagrams keep theirs.
        """
        birth = next(self._births)
        self._pipes[birth] = pipe
        return random.Random(f"{self._seed} stream {birth}")

    def stream_delay(self, route: tuple[str, str], luck: random.Random) -> float:
        """How many seconds bytes of a stream take on this route now."""
        link = self._links.get(route, self._default)
        return link.delay + link.jitter * luck.random()

    def round_trip(self, one: str, other: str) -> float:
        """How many seconds a question and its answer take between two hosts, without jitter."""
        return sum(self._links.get(route, self._default).delay for route in ((one, other), (other, one)))

    def _pipes_between(self, one: str, other: str) -> list[Pipe]:
        return [pipe for pipe in list(self._pipes.values()) if set(pipe.route) == {one, other}]

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
        seen_from, reached = self._borders.cross(source, destination, now)
        route = (source[0], (reached or destination)[0])
        link = self._links.get(route, self._default)
        for luck in self._fortune(route).copies(link.duplication):
            carried = Carried(now, seen_from, destination, data)
            self.transcript.append(carried)
            rule = next((rule for rule in self._rules if rule.takes(carried)), None)
            if route in self._cut:
                carried.fate = Fate.CUT
            elif reached is None:
                carried.fate = Fate.FILTERED
            else:
                self._launch(_Flight(carried, reached, link, route, luck), rule)

    def _launch(self, flight: _Flight, rule: Rule | None) -> None:
        misfortune = rule.misfortune if rule is not None else None
        seconds = rule.seconds if rule is not None else 0.0
        if misfortune is Misfortune.LOSE or flight.luck.loss < flight.link.loss:
            flight.carried.fate = Fate.LOST
        else:
            self._carry(flight, seconds if misfortune is Misfortune.HOLD else None)
        if misfortune is Misfortune.REPEAT:
            copy = attrs.evolve(flight.carried, fate=Fate.SENT, arrived_at=None)
            self.transcript.append(copy)
            self._carry(attrs.evolve(flight, carried=copy), seconds)

    def _fortune(self, route: tuple[str, str]) -> Fortune:
        fortune = self._fortunes.get(route)
        if fortune is None:
            fortune = self._fortunes[route] = Fortune(f"{self._seed} {route[0]} {route[1]}")
        return fortune

    def _carry(self, flight: _Flight, held: float | None) -> None:
        link, route, carried, luck = flight.link, flight.route, flight.carried, flight.luck
        arrival = max(carried.at + link.delay + link.jitter * luck.jitter, self._busy_until.get(route, 0.0))
        if held is not None:
            arrival += held  # its successors do not wait for it
        elif luck.reorder < link.reorder:
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
            for watch in self._watches:
                watch.see(carried)
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

    # -- looking on ---------------------------------------------------------------------------------------------

    def carried(
        self, matches: Matcher | None = None, *, fates: Iterable[Fate] = tuple(Fate), to: str | None = None
    ) -> list[Carried]:
        """The transcript, filtered by what `matches`, by what became of the datagrams and by destination IP."""
        wanted = frozenset(fates)
        found = (c for c in self.transcript if c.fate in wanted and (to is None or c.destination[0] == to))
        return [carried for carried in found if matches is None or matches(carried)]

    async def until(self, matches: Matcher, count: int = 1) -> Carried:
        """Wait until so many datagrams that `matches` have arrived, counted from the start; the last of them."""
        watch = _Watch(matches, count)
        for carried in self.carried(fates=[Fate.DELIVERED]):
            watch.see(carried)
        self._watches.append(watch)
        try:
            while watch.found is None:
                await watch.news.park()
        finally:
            self._watches.remove(watch)
        return watch.found


@asynccontextmanager
async def open_wire(seed: int = 0, *, keep: int = 100_000) -> AsyncIterator[Wire]:
    """A wire for the length of a block; delayed datagrams of the end are dropped with it."""
    async with trio.open_nursery() as nursery:
        wire = Wire(seed, keep=keep)
        nursery.start_soon(wire.run, name="wire")
        yield wire
        nursery.cancel_scope.cancel()
