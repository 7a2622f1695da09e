"""Virtual time: a clock that jumps when every task waits, a scheduler that repeats, and caps on both times."""

from __future__ import annotations

import linecache
import os
import random
import sysconfig
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import trio
from trio._core import _run as _trio_run  # Trio has no public way to repeat a schedule; pytest-trio does the same
from trio.testing import MockClock

T = TypeVar("T")


MERCY = 10.0
"""Seconds that a run over its limit may still take behind shields: for goodbyes, which have limits themselves."""


class StuckError(trio.TooSlowError):
    """A run has used up its time; the message names what every task of the program was waiting for."""


def run_virtual(
    async_fn: Callable[..., Awaitable[T]],
    *args: object,
    seed: int = 0,
    limit: float = 3600.0,
    real_limit: float = float("inf"),
    explain: Callable[[], Iterable[str]] = tuple,
) -> T:
    """Run `async_fn(*args)` to its end under an autojump `MockClock` and return what it returns.

    The same `seed` gives the same order of tasks, and the same numbers of `random`, `os.urandom` and so `uuid.uuid4`.
    Raises `StuckError` when `limit` virtual seconds have passed, or `real_limit` real ones: a call that never ends
    shows as a failure, not as a hang. Only in-memory networks and inline offloads may take part; a real socket or
    thread would be outrun by the clock. `explain` may add lines to the error.
    """
    caps = _Caps(limit, real_limit, explain)
    with seeded(seed):
        return trio.run(caps.run, async_fn, args, seed, clock=MockClock(autojump_threshold=0), instruments=[caps])


def run_real(async_fn: Callable[..., Awaitable[T]], *args: object, seed: int = 0, limit: float = 3600.0) -> T:
    """Run `async_fn(*args)` at the pace of the real clock: for programs with real sockets.

    Trio's clock is a `MockClock` that goes as fast: `trio.lowlevel.current_clock().jump(seconds)` spares a program with
    long timers the waiting. Raises `StuckError` as `run_virtual`.
    """
    caps = _Caps(limit, limit, tuple)
    return trio.run(caps.run, async_fn, args, seed, clock=MockClock(rate=1.0), instruments=[caps])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """For the length of a block, the module's functions of `random` and `os.urandom` give what `seed` says.

    WebSocket masks and the ids of many programs come from these; nothing is secret where there is no network.
    """
    before, urandom = random.getstate(), os.urandom
    random.seed(seed)
    os.urandom = random.Random(f"urandom {seed}").randbytes
    try:
        yield
    finally:
        os.urandom = urandom
        random.setstate(before)


def seed_scheduler(seed: int) -> None:
    """Make Trio's choice among runnable tasks repeatable from here on."""
    _trio_run._r.seed(seed)  # noqa: SLF001 - see the import
    _trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001 - declared Final


class _Caps(trio.abc.Instrument):
    """Ends a run whose time is used up: virtual time by a task that sleeps, real time looked at in each step."""

    def __init__(self, limit: float, real_limit: float, explain: Callable[[], Iterable[str]]) -> None:
        self._limit = limit
        self._explain = explain
        self._real_limit = real_limit
        self._end = time.monotonic() + real_limit
        self._scope = trio.CancelScope()
        self._verdict: str | None = None

    async def run(self, async_fn: Callable[..., Awaitable[T]], args: tuple[object, ...], seed: int) -> T:
        seed_scheduler(seed)
        trio.lowlevel.spawn_system_task(self._watch)
        with self._scope:
            return await async_fn(*args)
        raise StuckError(self._verdict)

    async def _watch(self) -> None:
        await trio.sleep(self._limit)
        self._bite(f"{self._limit:g} s of virtual time")
        await trio.sleep(MERCY)
        _unshield()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - Trio calls it by name
        if self._verdict is None and time.monotonic() > self._end:
            self._bite(f"{self._real_limit:g} s of real time")

    def _bite(self, what: str) -> None:
        if self._verdict is None:
            waits = [*waiting(), *self._explain()] or ["nobody waits in a file of yours"]
            self._verdict = "\n  ".join((f"stuck: {what} have passed, and this is where it waits:", *waits))
            self._scope.cancel()


def waiting() -> list[str]:
    """Where each task waits, in the innermost line that is neither ours nor Python's nor of an installed package."""
    root = trio.lowlevel.current_root_task()
    places = [] if root is None else [_place(task) for task in _tasks_below(root)]
    return [place for place in places if place is not None]


def _unshield() -> None:
    """Let the cancellation of the run reach every task: what waits behind a shield for ever would hang in real time."""
    root = trio.lowlevel.current_root_task()
    for task in [] if root is None else _tasks_below(root):
        status: Any = task._cancel_status  # noqa: SLF001 - there is no public way to a task's scopes
        while status is not None:
            status._scope.shield = False  # noqa: SLF001 - same
            status = status.parent


def _tasks_below(task: trio.lowlevel.Task) -> list[trio.lowlevel.Task]:
    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    children.sort(key=lambda child: child._counter)  # noqa: SLF001 - the order of birth: sets have none
    return [task, *(below for child in children for below in _tasks_below(child))]


def _place(task: trio.lowlevel.Task) -> str | None:
    place = None
    for frame, line in task.iter_await_frames():
        if _is_the_users(frame):
            code = frame.f_code
            source = linecache.getline(code.co_filename, line).strip()
            place = f"{Path(code.co_filename).name}:{line} in {code.co_name}: {source}"
    return place


_NOT_THE_USERS = (
    str(Path(__file__).parents[1]),
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"),
    sysconfig.get_path("platlib"),
)


def _is_the_users(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return not name.startswith((*_NOT_THE_USERS, "<"))
