"""The even RTP ports of a range: taken at random, rested for a while before they are used again.

A resting port keeps late packets of a finished call out of the next one.
"""

from __future__ import annotations

import random
from collections import deque

from rustpbx.errors import OverloadedError


class PortPool:
    """Even ports `first`..`last` whose odd neighbour (RTCP) is in the range too. Times are seconds, monotonic."""

    def __init__(self, first: int, last: int, quarantine: float, rng: random.Random) -> None:
        self._free = list(range(first + first % 2, last, 2))
        self._quarantine = quarantine
        self._resting: deque[tuple[float, int]] = deque()
        self._rng = rng

    @property
    def free(self) -> int:
        """How many ports could be taken now, those not counted whose rest has just ended."""
        return len(self._free)

    def take(self, now: float) -> int:
        """A free port. Raises `OverloadedError` if every port is in use or resting."""
        while self._resting and self._resting[0][0] <= now:
            self._free.append(self._resting.popleft()[1])
        if not self._free:
            raise OverloadedError("every RTP port is in use or resting")
        chosen = self._rng.randrange(len(self._free))
        self._free[chosen], self._free[-1] = self._free[-1], self._free[chosen]
        return self._free.pop()

    def rest(self, port: int, now: float) -> None:
        """Give a port back; it can be taken again after the quarantine."""
        self._resting.append((now + self._quarantine, port))
