"""Virtual time: hours cost nothing, schedules repeat, and a test that never ends fails."""

import time

import pytest
import trio

from rustpbx.testing.run import StuckError, run_virtual


def test_an_hour_passes_at_once() -> None:
    """The clock jumps over sleeps and the result comes back."""

    async def nap(hours: float) -> float:
        start = trio.current_time()
        await trio.sleep(hours * 3600)
        return trio.current_time() - start

    began = time.monotonic()
    assert run_virtual(nap, 2.0, limit=10_000) == 7200
    assert time.monotonic() - began < 60


def test_the_cap() -> None:
    """What waits for ever fails when the virtual time is used up."""
    with pytest.raises(trio.TooSlowError):
        run_virtual(trio.sleep_forever, limit=5)


def test_the_cap_reaches_behind_shields() -> None:
    """A task that waits for ever where no cancellation reaches it is ended and named: nothing hangs in real time."""

    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    with pytest.raises(StuckError, match=r"test_run.py:\d+ in stubborn: await trio.sleep_forever\(\)"):
        run_virtual(stubborn, limit=5)


def test_the_seed_repeats_the_schedule() -> None:
    """Ten tasks that are ready at once run in an order that the seed decides."""

    async def order() -> list[int]:
        ran: list[int] = []

        async def note(number: int) -> None:
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                ran.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(note, number)
        return ran

    assert run_virtual(order, seed=3) == run_virtual(order, seed=3)
    assert len({tuple(run_virtual(order, seed=seed)) for seed in range(5)}) > 1
