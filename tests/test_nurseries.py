"""`sole_error`: what comes out of a block with a nursery in it."""

from __future__ import annotations

import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.shell.nurseries import sole_error


async def fails(error: Exception) -> None:
    """A child task."""
    raise error


async def cancelled_by(error: Exception) -> bool:
    """A block that fails in the moment in which it is cancelled; whether the cancellation came through."""
    with trio.CancelScope() as scope, sole_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            scope.cancel()
            raise error
    return scope.cancelled_caught


async def two_failures() -> None:
    """Both children fail."""
    with sole_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, SpeechError("one"))
            nursery.start_soon(fails, SpeechError("two"))


async def test_one_error_stays_what_it_was() -> None:
    """Not a group, from the block or from a child."""
    with pytest.raises(SpeechError, match="no"), sole_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, SpeechError("no"))


async def test_an_error_in_the_moment_of_cancellation_is_left_out() -> None:
    """The call is over: what its recognizer failed with concerns nobody, and is no bug."""
    with trio.CancelScope() as scope, sole_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            scope.cancel()
            raise SpeechError("connection lost")
    assert scope.cancelled_caught


async def test_a_bug_in_the_moment_of_cancellation_is_not() -> None:
    """It must be seen."""
    with pytest.raises(BaseExceptionGroup) as caught:
        await cancelled_by(KeyError("a bug"))
    assert caught.group_contains(KeyError)


async def test_two_errors_stay_a_group() -> None:
    """Neither is more than the other."""
    with pytest.raises(ExceptionGroup) as caught:
        await two_failures()
    assert len(caught.value.exceptions) == 2
