"""What happens to datagrams on a wire: chosen ones by a `Rule`, all others by luck that a seed decides."""

from __future__ import annotations

import random
from enum import Enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from rustpbx.testing.wire import Carried, Matcher


class Misfortune(Enum):
    """What a `Rule` does to a datagram."""

    LOSE = "lose"
    HOLD = "hold"
    REPEAT = "repeat"


@attrs.define(eq=False)
class Rule:
    """Misfortune for chosen datagrams; made by `Wire.lose`, `hold` and `repeat`. `hits` is how many it has met.

    Of those that match, the first `skip` fare as usual, then `count` (None: all) meet the misfortune.
    """

    misfortune: Misfortune
    matches: Matcher
    skip: int
    count: int | None
    seconds: float = 0.0
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


@attrs.frozen
class Luck:
    """What chance holds for one copy of a datagram: numbers from 0 to 1, the lower the unluckier."""

    loss: float
    reorder: float
    jitter: float


class Fortune:
    """The luck of one direction between two hosts: each datagram takes the same share of it, whatever the link is."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def copies(self, duplication: float) -> list[Luck]:
        """One datagram: the luck of each of its copies."""
        twice = self._random() < duplication
        lucks = [Luck(self._random(), self._random(), self._random()) for _ in range(2)]
        return lucks if twice else lucks[:1]
