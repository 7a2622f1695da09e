"""Two DTLS associations joined by a list instead of a network, with seeded misfortune. No Trio, no clock."""

from __future__ import annotations

import functools
import heapq
import itertools
import random

import attrs

from rustpbx.core import Address, Tick
from rustpbx.media.dtls import Association, Certificate, Datagram, Effect, Input, Path, Secured, Send, Trust

ALICE: Address = ("192.0.2.1", 4000)
BOB: Address = ("192.0.2.2", 5000)
MALLORY: Address = ("203.0.113.66", 6666)
DELAY = 0.03


@functools.cache
def certificate(name: str) -> Certificate:
    """Somebody's certificate: made once, since it takes long."""
    return Certificate(1_800_000_000.0 + len(name))


@attrs.define
class Misfortune:
    """What becomes of datagrams, by probability; `reorder` is seconds that one may take longer."""

    loss: float = 0.0
    duplication: float = 0.0
    reorder: float = 0.0


@attrs.define(order=True)
class Flying:
    """A datagram under way."""

    at: float
    number: int
    data: bytes = attrs.field(repr=False, order=False)
    source: Address = attrs.field(order=False)
    destination: Address = attrs.field(order=False)


class Couple:
    """Alice begins, Bob waits for her hello. `facts` has what each has come to, `carried` all datagrams sent."""

    def __init__(self, seed: int = 0, misfortune: Misfortune | None = None, timeout: float = 15.0) -> None:
        self.now = 100.0
        self.rng = random.Random(seed)
        self.misfortune = misfortune or Misfortune()
        self.alice = Association(certificate("alice"), active=True, entropy=self.rng.randbytes, timeout=timeout)
        self.bob = Association(certificate("bob"), active=False, entropy=self.rng.randbytes, timeout=timeout)
        self.at = {ALICE: self.alice, BOB: self.bob}
        self.facts: dict[Address, list[Effect]] = {ALICE: [], BOB: []}
        self.carried: list[Flying] = []
        self.flying: list[Flying] = []
        self.lose: set[int] = set()
        """Datagrams, counted from 0, that are lost."""
        self._number = itertools.count()

    def start(self, *, trust: bool = True) -> Couple:
        """Tell each where the other is, and which certificate it will show."""
        for own, other, name in ((ALICE, BOB, "bob"), (BOB, ALICE, "alice")):
            if trust:
                self.give(own, Trust((certificate(name).fingerprint,)))
            self.give(own, Path(other))
        return self

    def give(self, whom: Address, what: Input | Tick) -> list[Effect]:
        """Hand one input to one of them; what it sends is under way."""
        effects = self.at[whom].handle(what, self.now)
        for effect in effects:
            if isinstance(effect, Send):
                self.throw(effect.data, whom, effect.destination)
            else:
                self.facts[whom].append(effect)
        return effects

    def throw(self, data: bytes, source: Address, destination: Address) -> None:
        """Put a datagram on its way, if fortune allows."""
        fate = self.misfortune
        for _ in range(1 + (self.rng.random() < fate.duplication)):
            number = next(self._number)
            at = self.now + DELAY + self.rng.random() * fate.reorder
            flying = Flying(at, number, data, source, destination)
            self.carried.append(flying)
            if number not in self.lose and self.rng.random() >= fate.loss:
                heapq.heappush(self.flying, flying)

    def run(self, until: float = 60.0) -> Couple:
        """Let time pass, up to so many seconds from the begin, until nothing is under way and no timer runs."""
        end = 100.0 + until
        while True:
            arrival = self.flying[0].at if self.flying else float("inf")
            at, whom = min((core.deadline().at, whom) for whom, core in self.at.items())
            if min(at, arrival) > end:
                return self
            self.now = max(self.now, min(at, arrival))
            if arrival <= at:
                self._arrive(heapq.heappop(self.flying))
            else:
                self.give(whom, Tick())

    def _arrive(self, flying: Flying) -> None:
        if flying.destination in self.at:
            self.give(flying.destination, Datagram(flying.data, flying.source))

    def keys(self) -> tuple[Secured, Secured]:
        """What both agreed on: Alice's and Bob's."""
        (alice,), (bob,) = self.facts[ALICE], self.facts[BOB]
        assert isinstance(alice, Secured)
        assert isinstance(bob, Secured)
        return alice, bob
