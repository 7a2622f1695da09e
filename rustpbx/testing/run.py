"""Virtual time: a clock that jumps when every task waits, a scheduler that repeats, and a cap on both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from trio._core import _run as _trio_run  # Trio has no public way to repeat a schedule; pytest-trio does the same
from trio.testing import MockClock

T = TypeVar("T")


def run_virtual(async_fn: Callable[..., Awaitable[T]], *args: object, seed: int = 0, limit: float = 3600.0) -> T:
    """Run `async_fn(*args)` to its end under an autojump `MockClock` and return what it returns.

    The same `seed` gives the same order of tasks. Raises `trio.TooSlowError` when `limit` virtual seconds have
    passed: a call that never ends shows as a failure, not as a hang. Only in-memory networks and inline offloads
    may take part; a real socket or thread would be outrun by the clock.
    """
    return trio.run(_capped, async_fn, args, seed, limit, clock=MockClock(autojump_threshold=0))


async def _capped(async_fn: Callable[..., Awaitable[T]], args: tuple[object, ...], seed: int, limit: float) -> T:
    seed_scheduler(seed)
    with trio.fail_after(limit):
        return await async_fn(*args)


def seed_scheduler(seed: int) -> None:
    """Make Trio's choice among runnable tasks repeatable from here on."""
    _trio_run._r.seed(seed)  # noqa: SLF001 - see the import
    _trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001 - declared Final
