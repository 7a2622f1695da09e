"""Full collections happen between calls."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import attrs
import pytest
import trio

from rustpbx.shell.garbage import LOOK, MOST_ENDED, NEVER, collect_between_calls, prepare


@attrs.define
class Counts:
    """A server's calls."""

    up: int = 0
    ended: int = 0


class Remains:
    """What a call leaves behind: an object that refers to itself."""

    def __init__(self) -> None:
        self.self = self


def remains() -> weakref.ref[Remains]:
    """Something that only a full collection frees."""
    left = Remains()
    gc.collect(1)
    gc.collect(1)  # it is old now
    return weakref.ref(left)


@pytest.fixture
def _own_thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("_own_thresholds")
def test_python_never_begins_a_full_collection_by_itself() -> None:
    """Once the process is prepared; the young generations are collected as ever."""
    prepare()
    assert gc.get_threshold() == (700, 10, NEVER)
    assert gc.get_freeze_count() > 0


@pytest.mark.usefixtures("_own_thresholds")
async def test_what_calls_leave_is_collected_when_none_is_up() -> None:
    """Not while another one talks, unless very many have ended."""
    calls = Counts(up=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect_between_calls, calls)
        left = remains()
        calls.up, calls.ended = 1, 1
        await trio.sleep(10 * LOOK)
        assert left() is not None
        calls.up, calls.ended = 0, 2
        await trio.sleep(2 * LOOK)
        assert left() is None
        left = remains()
        calls.up, calls.ended = 5, 2 + MOST_ENDED
        await trio.sleep(2 * LOOK)
        assert left() is None
        nursery.cancel_scope.cancel()
