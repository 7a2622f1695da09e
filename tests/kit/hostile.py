"""A hostile wire without Trio: datagrams that a test delivers, loses, doubles or holds back, and time that it moves.

`Wire` joins stations (a transaction layer or an endpoint behind an address); `Hostile` is the part that all Hypothesis
machines over it share: what may happen to a datagram, and how time passes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol, TypeVar

import attrs
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from rustpbx.core import Address
from tests.kit.peers_sip import Packet
from tests.kit.rounds import while_it_lasts

T = TypeVar("T")

LIFETIME = 5.0
"""Seconds that a datagram may stay in flight: T4 (RFC 3261 17.1.2.2)."""

MOST_LOSSES = 2
"""How often a fair wire may lose the very same datagram."""

FAIR_DELAY = 1.0
"""Seconds that a fair wire may hold a datagram back."""


class Station(Protocol):
    """Something with an address that datagrams reach and that wants to be woken."""

    @property
    def address(self) -> Address:
        """Where it is reached."""
        ...

    def receive(self, packet: Packet, now: float) -> list[Packet]:
        """Take a datagram; what it sends at once."""
        ...

    def tick(self, now: float) -> list[Packet]:
        """Time has passed; what it sends."""
        ...

    def deadline(self) -> float:
        """When it wants to be woken."""
        ...


class Fate(Enum):
    """What becomes of a datagram; TWICE delivers it and leaves a copy in flight, LATER moves it behind the others."""

    DELIVER = auto()
    DROP = auto()
    TWICE = auto()
    LATER = auto()


class Kind(Enum):
    """HOSTILE may do anything; FAIR loses no datagram for ever and is quick; RELIABLE is a stream."""

    HOSTILE = auto()
    FAIR = auto()
    RELIABLE = auto()


class Wire:
    """Stations, the datagrams between them, and the time."""

    def __init__(self, stations: Sequence[Station], kind: Kind = Kind.HOSTILE) -> None:
        self.now = 0.0
        self.stations = {station.address: station for station in stations}
        self.kind = kind
        self.flying: list[Packet] = []
        self._losses: Counter[bytes] = Counter()

    def put(self, packets: list[Packet]) -> None:
        """Datagrams set out."""
        self.flying += [attrs.evolve(packet, at=self.now) for packet in packets]
        for station in self.stations.values():
            if station.deadline() <= self.now:  # what lasts no time (timers over a stream) is over at once
                self.put(station.tick(self.now))

    def deliver(self, packet: Packet) -> None:
        """A datagram arrives; nobody there: it is lost."""
        station = self.stations.get(packet.destination)
        if station is not None:
            self.put(station.receive(packet, self.now))

    def lose(self, packet: Packet) -> None:
        """A datagram is lost, unless the wire is fair and has lost it too often."""
        if self.kind is Kind.FAIR and self._losses[packet.data] >= MOST_LOSSES:
            self.deliver(packet)
        else:
            self._losses[packet.data] += 1

    def meet(self, packet: Packet, fate: Fate) -> None:
        """One datagram in flight meets its fate; on a stream the first has to arrive."""
        if self.kind is Kind.RELIABLE:
            packet, fate = self.flying[0], Fate.DELIVER
        self.flying.remove(packet)
        if fate in {Fate.TWICE, Fate.LATER}:
            self.flying.append(packet)
        if fate is Fate.DROP:
            self.lose(packet)
        elif fate is not Fate.LATER:
            self.deliver(packet)

    def settle(self) -> None:
        """Deliver in order until nothing is in flight."""
        for _ in while_it_lasts(lambda: self.flying):
            self.deliver(self.flying.pop(0))

    def deadline(self) -> float:
        """The earliest deadline of all stations."""
        return min(station.deadline() for station in self.stations.values())

    def wait_until(self, when: float) -> None:
        """Time passes, with one tick at its end. What is in flight for too long is lost; a fair wire delivers it."""
        if self.kind is Kind.FAIR:
            when = min([when, *(packet.at + FAIR_DELAY for packet in self.flying)])
        self.now = max(self.now, when)
        if self.kind is Kind.FAIR:
            for packet in [packet for packet in self.flying if self.now >= packet.at + FAIR_DELAY]:
                self.meet(packet, Fate.DELIVER)
        elif self.kind is Kind.HOSTILE:
            self.flying = [packet for packet in self.flying if self.now < packet.at + LIFETIME]
        for station in self.stations.values():
            self.put(station.tick(self.now))

    def run_down(self, *, cut: bool) -> None:
        """Let everything run out, over a good wire or one that is cut."""
        self._let_fly(cut=cut)
        for _ in while_it_lasts(lambda: self.deadline() < math.inf):
            self.wait_until(self.deadline())
            self._let_fly(cut=cut)

    def _let_fly(self, *, cut: bool) -> None:
        if cut:
            self.flying.clear()
        else:
            self.settle()


class Hostile(RuleBasedStateMachine):
    """The rules of the wire. A machine sets `wire` in its initialize rule."""

    wire: Wire

    @property
    def started(self) -> bool:
        """False until the initialize rule has run; invariants are looked at before."""
        return hasattr(self, "wire")

    @staticmethod
    def pick(data: st.DataObject, options: Sequence[T]) -> T:
        """One of them, noted in a line: Hypothesis would print whole messages and books."""
        chosen = options[data.draw(st.integers(0, len(options) - 1), "pick")]
        note(f"  {chosen}")
        return chosen

    @precondition(lambda self: self.wire.flying)
    @rule(data=st.data(), fate=st.sampled_from([Fate.DELIVER, Fate.DELIVER, *Fate]))
    def carry(self, data: st.DataObject, fate: Fate) -> None:
        """One datagram's fate; any of those in flight may be the next, so they also swap."""
        self.wire.meet(self.pick(data, self.wire.flying), fate)

    @precondition(lambda self: self.wire.flying)
    @rule()
    def settle(self) -> None:
        """For a moment the wire is good: deep states are reached."""
        self.wire.settle()

    @precondition(lambda self: self.wire.deadline() < math.inf)
    @rule(late=st.sampled_from([0.0, 0.0, 0.0, 0.3, 2.0, 40.0]))
    def wait(self, late: float) -> None:
        """Time passes to the next deadline, or beyond: whoever sleeps may oversleep."""
        self.wire.wait_until(self.wire.deadline() + (0.0 if self.wire.kind is Kind.FAIR else late))

    @rule(seconds=st.sampled_from([0.1, 0.4, 1.5]))
    def pause(self, seconds: float) -> None:
        """Time passes to no deadline in particular, but not beyond one."""
        self.wire.wait_until(min(self.wire.now + seconds, self.wire.deadline()))
