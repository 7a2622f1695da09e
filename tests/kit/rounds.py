"""Loops of tests that must come to an end by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

MOST = 20_000
"""More rounds than anything here needs."""


def while_it_lasts(condition: Callable[[], object]) -> Iterator[None]:
    """Go round while the condition holds. Raises AssertionError where that never ends: a livelock is found so."""
    for _ in range(MOST):
        if not condition():
            return
        yield
    raise AssertionError("a livelock: this does not come to an end by itself")
