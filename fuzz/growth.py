"""Whether the cost of an input grows with its size and no faster: what a denial of service by one packet would need.

A piece of an input is repeated until it is large, and four times as large; the processor time of the check may grow
fourfold (with room for noise), not sixteenfold. Only the fuzzer measures: a test must not depend on the clock.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

SMALL = 8 * 1024
LARGE = 4 * SMALL
MOST_GROWTH = 9.0
"""Between 4 for linear and 16 for quadratic time."""

WORTH_A_LOOK = 0.05
"""Seconds: what takes less than this at `LARGE` bytes is no attack."""


class GrowthError(Exception):
    """The time for an input grows faster than its size."""


def check_growth(check: Callable[[bytes], None], data: bytes, clock: Callable[[], float] = time.thread_time) -> None:
    """Repeat a piece of `data` that only `data` decides, so that it can be replayed. Raises `GrowthError` naming it."""
    rng = random.Random(data)
    begin = rng.randrange(len(data) + 1)
    piece = data[begin : begin + rng.choice((1, 2, 3, 5, 8, 16, 40))] or b"\0"

    def seconds(size: int) -> float:
        pumped = data[:begin] + piece * (size // len(piece)) + data[begin:]
        start = clock()
        check(pumped)
        return clock() - start

    if seconds(LARGE) < WORTH_A_LOOK:
        return
    small, large = (min(seconds(size) for _ in range(3)) for size in (SMALL, LARGE))
    if large > max(WORTH_A_LOOK, MOST_GROWTH * small):
        raise GrowthError(f"{SMALL} bytes take {small:.3f} s, {LARGE} take {large:.3f} s: {piece!r} at {begin}")
