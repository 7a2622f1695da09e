"""The real `Offload`: threads with a limiter, and pools of worker processes that are supervised.

Each worker process has one task. It starts the process when the first job comes, hands over one job at a time, and
replaces the process when it dies or when a job takes longer than its pool allows. Leaving `open_workers` kills and
reaps every process.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from subprocess import PIPE
from typing import Any, TypeVar, cast

import attrs
import trio

from rustpbx import worker
from rustpbx.errors import OverloadedError, RustpbxError
from rustpbx.journal import Journal

T = TypeVar("T")

log = Journal(__name__)

MAX_THREADS = 8
MAX_WAITING_FOR_THREADS = 256

_READ = 256 * 1024
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class WorkerDiedError(RustpbxError):
    """The worker process ended, or was killed for taking too long, before it had an answer."""


@attrs.frozen
class PoolSpec:
    """One pool: processes, jobs that may wait for one (more are refused), seconds that a job may take.

    After the n-th failure in a row a worker rests `backoff * 2**(n-1)` seconds, at most `max_backoff`.
    """

    size: int = 1
    queue: int = 64
    time_limit: float = 60.0
    backoff: float = 0.1
    max_backoff: float = 10.0


@attrs.define(eq=False)
class _Job:
    name: str
    frame: list[bytes | memoryview]
    finished: trio.Event = attrs.field(factory=trio.Event)
    abandoned: bool = False
    good: bool = False
    result: Any = None

    def finish(self, good: bool, result: object) -> None:
        self.good, self.result = good, result
        self.finished.set()


class _Pool:
    """Jobs wait here when every worker is busy; an idle worker that ran last is the first to get the next job."""

    def __init__(self, name: str, spec: PoolSpec) -> None:
        self.name = name
        self.spec = spec
        self._idle: list[trio.MemorySendChannel[_Job]] = []
        self._backlog: deque[_Job] = deque()

    def submit(self, job: _Job) -> None:
        if self._idle:
            self._idle.pop().send_nowait(job)
            return
        if len(self._backlog) >= self.spec.queue:
            self._backlog = deque(waiting for waiting in self._backlog if not waiting.abandoned)
        if len(self._backlog) >= self.spec.queue:
            raise OverloadedError(f"{len(self._backlog)} jobs are waiting for the {self.name!r} workers already")
        self._backlog.append(job)

    async def next_job(self) -> _Job:
        while self._backlog:
            job = self._backlog.popleft()
            if not job.abandoned:
                return job
        send, receive = trio.open_memory_channel[_Job](1)
        self._idle.append(send)
        return await receive.receive()


class _Process:
    """One running worker process and its two pipes."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._unread = bytearray()

    @classmethod
    async def start(cls, prefixes: Sequence[str]) -> _Process:
        # What can be imported here must be importable there, however this program was started.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - sys.path's "" means just that
        command = [sys.executable, "-m", "rustpbx.worker", *prefixes]
        environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": path}
        return cls(await trio.lowlevel.open_process(command, stdin=PIPE, stdout=PIPE, env=environment))

    async def run(self, job: _Job) -> tuple[bool, object]:
        """One exchange. Raises `trio.BrokenResourceError` or EOFError when the process dies."""
        if self._process.stdin is None:
            raise EOFError
        for chunk in job.frame:
            await self._process.stdin.send_all(chunk)
        count = worker.count_of(await self._read(4))
        lengths = worker.lengths_of(await self._read(8 * count))
        parts = [await self._read(length) for length in lengths]
        return cast("tuple[bool, object]", worker.unpack(parts))

    async def _read(self, size: int) -> bytearray:
        data, self._unread = self._unread[:size], self._unread[size:]
        if self._process.stdout is None:
            raise EOFError
        while len(data) < size:
            chunk = await self._process.stdout.receive_some(min(_READ, size - len(data)))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    async def end(self) -> int:
        """Kill and reap; the exit status."""
        with trio.CancelScope(shield=True):
            self._process.kill()
            status = await self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    await pipe.aclose()
        return status


class Workers:
    """Threads and worker processes (see `rustpbx.shell.offload.Offload`). Made by `open_workers`."""

    def __init__(self, pools: Mapping[str, PoolSpec], prefixes: Sequence[str]) -> None:
        self._pools = {name: _Pool(name, spec) for name, spec in pools.items()}
        self._prefixes = tuple(prefixes)
        self._threads = trio.CapacityLimiter(MAX_THREADS)
        self.running: dict[str, int] = dict.fromkeys(pools, 0)
        self.failures: dict[str, int] = dict.fromkeys(pools, 0)

    async def thread(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread. Raises `OverloadedError` when too many wait; cancelling abandons the result."""
        if self._threads.statistics().tasks_waiting >= MAX_WAITING_FOR_THREADS:
            raise OverloadedError("too much work is waiting for a thread")
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)

    async def worker(self, pool: str, job: Callable[..., T], *args: object) -> T:
        """Run `job(*args)` in a process of `pool`; its exception is raised here.

        Raises `WorkerDiedError` when the process dies or the job runs out of time, `OverloadedError` when the pool's
        queue is full. Cancelling abandons the result.
        """
        if pool not in self._pools:
            raise RustpbxError(f"there is no worker pool {pool!r}")
        name = worker.job_name(job)
        task = _Job(name, worker.pack((name, args)))
        self._pools[pool].submit(task)
        try:
            await task.finished.wait()
        finally:
            task.abandoned = True
        if task.good:
            return cast("T", task.result)
        raise task.result

    async def warm(self, pool: str, job: Callable[..., object], *args: object) -> None:
        """Run `job` in each process of an idle pool at once, so that all are started and have loaded what it loads."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._pools[pool].spec.size):
                nursery.start_soon(partial(self.worker, pool, job, *args))

    def start(self, nursery: trio.Nursery) -> None:
        """One task per process to be, in `nursery`."""
        for pool in self._pools.values():
            for _ in range(pool.spec.size):
                nursery.start_soon(self._supervise, pool)

    async def _supervise(self, pool: _Pool) -> None:
        """Serve a pool with one process after the other, resting longer the more of them fail."""
        failed = 0
        while True:
            good = await self._serve(pool)
            failed = 1 if good else failed + 1
            self.failures[pool.name] += 1
            await trio.sleep(min(pool.spec.backoff * 2 ** min(failed - 1, 30), pool.spec.max_backoff))

    async def _serve(self, pool: _Pool) -> int:
        """Run jobs in one process until it fails; how many went well."""
        job = await pool.next_job()
        try:
            process = await _Process.start(self._prefixes)
        except OSError as error:
            job.finish(False, WorkerDiedError(f"no {pool.name!r} worker could be started: {error}"))
            return 0
        self.running[pool.name] += 1
        done = 0
        try:
            while await self._exchange(pool, process, job):
                done += 1
                job = await pool.next_job()
        finally:
            self.running[pool.name] -= 1
            status = await process.end()
        problem = job.result or f"the {pool.name!r} worker died (status {status}) while running {job.name}"
        log.warning("%s", problem)
        job.finish(False, WorkerDiedError(problem))
        return done

    async def _exchange(self, pool: _Pool, process: _Process, job: _Job) -> bool:
        """Run one job; False if the process is of no use any more, with the reason in `job.result` if it is known."""
        try:
            with trio.fail_after(pool.spec.time_limit):
                good, result = await process.run(job)
        except trio.TooSlowError:
            job.result = f"{job.name} took longer than {pool.spec.time_limit:g} s in the {pool.name!r} worker"
            return False
        except (trio.BrokenResourceError, EOFError):
            return False
        except Exception as error:  # noqa: BLE001 - an answer that cannot be read: the pipe is out of step
            job.result = f"the {pool.name!r} worker's answer to {job.name} could not be read: {error!r}"
            return False
        job.finish(good, result)
        return True


@contextlib.asynccontextmanager
async def open_workers(
    pools: Mapping[str, int | PoolSpec], *, prefixes: Sequence[str] = ("rustpbx.",)
) -> AsyncIterator[Workers]:
    """Worker pools by name, given as a size or a `PoolSpec`. Processes start with their first job and end here.

    `prefixes` are the modules whose functions may be jobs.
    """
    specs = {name: pool if isinstance(pool, PoolSpec) else PoolSpec(size=pool) for name, pool in pools.items()}
    workers = Workers(specs, prefixes)
    async with trio.open_nursery() as nursery:
        workers.start(nursery)
        try:
            yield workers
        finally:
            nursery.cancel_scope.cancel()
