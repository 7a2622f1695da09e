"""`Offload`: work that must not sit on the loop's thread.

Two kinds, chosen by what the work does to the GIL: `thread` for calls that release it throughout (file I/O,
onnxruntime), `worker` for everything else (decoding, speech models, encoders), which runs in processes started
as `python -m rustpbx.worker`. In virtual time both run inline, because a real thread lets a mock clock run away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import trio

T = TypeVar("T")


class Offload(Protocol):
    """Threads and worker processes behind one interface; every queue behind it is bounded."""

    async def thread(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread. Cancelling abandons the thread's result."""
        ...

    async def worker(self, pool: str, job: Callable[..., T], *args: object) -> T:
        """Run `job(*args)` in a worker process of `pool` (`"decode"`, `"asr"`, `"tts"`).

        `job` is a module-level function; arguments and result are picklable. An exception of the job is raised
        here as it was; a worker that dies raises `rustpbx.errors.RustpbxError` and is replaced; a full queue
        raises `OverloadedError`. Cancelling abandons the result.
        """
        ...


class InlineOffload:
    """Everything at once, on the caller's thread: for virtual time."""

    async def thread(self, work: Callable[[], T]) -> T:
        """Run `work` now."""
        await trio.lowlevel.checkpoint()
        return work()

    async def worker(self, pool: str, job: Callable[..., T], *args: object) -> T:  # noqa: ARG002 - one interface
        """Run `job` now."""
        await trio.lowlevel.checkpoint()
        return job(*args)
