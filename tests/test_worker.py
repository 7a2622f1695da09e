"""Worker processes: real ones, on the real clock."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rustpbx import worker
from rustpbx.errors import MediaError, OverloadedError, RustpbxError
from rustpbx.shell.workers import PoolSpec, WorkerDiedError, Workers, open_workers
from tests.kit import worker_jobs as jobs

pytestmark = pytest.mark.real_time


@asynccontextmanager
async def one_worker(spec: PoolSpec | int = 1) -> AsyncIterator[Workers]:
    """A pool of test jobs named "test"."""
    async with open_workers({"test": spec}, prefixes=("tests.",)) as workers:
        yield workers


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def alive(pid: int) -> bool:
    """Whether a process exists, as a zombie too."""
    return Path(f"/proc/{pid}").exists()


async def test_a_job_runs_elsewhere_and_its_data_comes_back() -> None:
    """Arguments and results cross, what a job prints does not disturb them, and one process serves all jobs."""
    samples = np.arange(500_000, dtype=np.int16)
    async with one_worker() as workers:
        first = await workers.worker("test", jobs.pid)
        doubled = await workers.worker("test", jobs.double, samples)
        again = await workers.worker("test", jobs.pid)
    assert np.array_equal(doubled, samples * 2)
    assert doubled.flags.writeable
    assert first == again != os.getpid()


async def test_workers_step_back() -> None:
    """A worker is nicer than the server and keeps to one thread."""
    async with one_worker() as workers:
        assert await workers.worker("test", jobs.environment) == (os.nice(0) + worker.NICENESS, "1")


async def test_an_exception_passes_through() -> None:
    """The job's exception is raised as it was, with the worker's traceback; one that cannot be sent is told."""
    async with one_worker() as workers:
        with pytest.raises(MediaError, match=r"^no good\n") as caught:
            await workers.worker("test", jobs.refuse)
        assert "in refuse" in caught.value.__notes__[0]
        with pytest.raises(RustpbxError, match=r"^BareError: 1 and 2$"):
            await workers.worker("test", jobs.refuse_oddly)
        with pytest.raises(RustpbxError, match="unsendable: the result cannot be sent"):
            await workers.worker("test", jobs.unsendable)
        assert workers.failures == {"test": 0}


async def test_a_crash_costs_one_job() -> None:
    """A worker that dies fails its job and is replaced for the next."""
    async with one_worker() as workers:
        before = await workers.worker("test", jobs.pid)
        with pytest.raises(WorkerDiedError, match=r"the 'test' worker died \(status -9\) while running .*:crash"):
            await workers.worker("test", jobs.crash)
        after = await workers.worker("test", jobs.pid)
        assert after != before
        assert not alive(before)
        assert workers.failures == {"test": 1}


async def test_a_hanging_job_is_killed() -> None:
    """A job over its pool's time limit fails, its process is gone, the next job runs."""
    async with one_worker(PoolSpec(time_limit=2.0)) as workers:
        before = await workers.worker("test", jobs.pid)
        with pytest.raises(WorkerDiedError, match=r":hang took longer than 2 s in the 'test' worker"):
            await workers.worker("test", jobs.hang)
        assert not alive(before)
        assert await workers.worker("test", jobs.pid) != before


async def test_cancelling_abandons_the_result(tmp_path: Path) -> None:
    """A cancelled caller leaves at once; the worker finishes, and the next caller gets its own answer."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with one_worker() as workers:
        before = await workers.worker("test", jobs.pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.worker, "test", jobs.wait_for, str(gate))
            opened = await trio.to_thread.run_sync(gate.open, "w")  # returns when the job has opened the other end
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.to_thread.run_sync, opened.close))  # only now the job returns
            assert await workers.worker("test", jobs.pid) == before


async def test_a_full_queue_refuses(tmp_path: Path) -> None:
    """When as many jobs wait as may, the next is refused at once; abandoned ones do not count."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    answers: list[object] = []

    async def ask(workers: Workers, job: Callable[..., object], *args: str) -> None:
        answers.append(await workers.worker("test", job, *args))

    async with one_worker(PoolSpec(queue=1)) as workers, trio.open_nursery() as nursery:
        nursery.start_soon(ask, workers, jobs.wait_for, str(gate))
        with await trio.to_thread.run_sync(gate.open, "w") as opened:
            with trio.CancelScope() as leaving:
                async with trio.open_nursery() as inner:
                    inner.start_soon(ask, workers, jobs.pid)
                    await wait_all_tasks_blocked(0.01)
                    with pytest.raises(OverloadedError, match="1 jobs are waiting for the 'test' workers already"):
                        await workers.worker("test", jobs.pid)
                    leaving.cancel()
            nursery.start_soon(ask, workers, jobs.environment)
            await wait_all_tasks_blocked(0.01)
            opened.write("free")
    assert answers == ["free", (os.nice(0) + worker.NICENESS, "1")]


async def test_nothing_is_left() -> None:
    """Leaving ends idle and busy processes alike: no zombie, no descriptor, no task."""
    await trio.to_thread.run_sync(os.getpid)  # the thread machinery's own descriptors exist from now on
    before = open_files()
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with open_workers({"busy": 1, "idle": 2, "never": 3}, prefixes=("tests.",)) as workers:
        pids = [await workers.worker("busy", jobs.pid), await workers.worker("idle", jobs.pid)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workers.worker, "busy", jobs.hang)
            await wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        assert workers.running == {"busy": 1, "idle": 1, "never": 0}
    assert [alive(pid) for pid in pids] == [False, False]
    assert open_files() == before
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert workers.running == {"busy": 0, "idle": 0, "never": 0}


async def test_warming_reaches_every_worker() -> None:
    """`warm` starts each process of a pool."""
    async with one_worker(2) as workers:
        await workers.warm("test", jobs.pid)
        assert workers.running == {"test": 2}


async def test_threads_run_beside_the_loop() -> None:
    """`thread` returns what the work returns and raises what it raises."""
    async with one_worker() as workers:
        assert await workers.thread(lambda: 6 * 7) == 42
        with pytest.raises(MediaError, match="no good"):
            await workers.thread(jobs.refuse)


async def test_only_our_own_functions_are_jobs() -> None:
    """A function outside the allowed modules, a lambda, an unknown pool: refused, each by name."""
    async with open_workers({"test": 1}) as workers:
        with pytest.raises(RustpbxError, match=r"worker: tests.kit.worker_jobs:pid is not in rustpbx\."):
            await workers.worker("test", jobs.pid)
        with pytest.raises(TypeError, match="is not a module-level function"):
            await workers.worker("test", lambda: None)
        with pytest.raises(RustpbxError, match="there is no worker pool 'tset'"):
            await workers.worker("tset", jobs.pid)


@pytest.mark.parametrize("header", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_a_frame_that_makes_no_sense_is_refused(header: bytes) -> None:
    """A pipe that is out of step is noticed before memory is reserved for it."""
    with pytest.raises(RustpbxError, match="worker pipe: a frame of"):
        worker.count_of(header)
    with pytest.raises(RustpbxError, match="worker pipe: a frame of"):
        worker.lengths_of(b"\xff" * 8)
