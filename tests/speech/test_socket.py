"""What leaves a service's tasks when they fail together, or while they are cancelled."""

from __future__ import annotations

import pytest
import trio

from rustpbx.errors import SpeechError
from rustpbx.speech.socket import first_error


async def fail(words: str, *, shield: bool = False) -> None:
    """Raise, at the next checkpoint or instead of it."""
    with trio.CancelScope(shield=shield):
        await trio.lowlevel.checkpoint()
    raise SpeechError(words)


async def test_the_first_of_several_errors_is_raised_alone() -> None:
    """However deep the nurseries are in each other."""
    caught = None
    try:
        with first_error():
            async with trio.open_nursery() as outer, trio.open_nursery() as inner:
                inner.start_soon(fail, "inner")
                outer.start_soon(trio.sleep_forever)
    except SpeechError as error:
        caught = str(error)
    assert caught == "inner"


async def test_another_error_is_not_hidden() -> None:
    """A bug beside a failure leaves with it."""
    with pytest.raises(ExceptionGroup) as raised, first_error():
        raise ExceptionGroup("both", [SpeechError("failed"), ValueError("bug")])
    assert [type(error) for error in raised.value.exceptions] == [SpeechError, ValueError]


async def test_an_error_of_what_is_being_cancelled_is_nobodys() -> None:
    """A call that ends while its service fails has ended, and nothing else."""
    with trio.CancelScope() as scope, first_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(lambda: fail("late", shield=True))
            scope.cancel()
    assert scope.cancelled_caught
