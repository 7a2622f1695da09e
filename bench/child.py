"""A measured process: started on a core of its own, asked a line at a time, gone with its `with` block."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Child:
    """Runs `command`, which answers each line with a line of JSON, pinned to `core` unless that is None.

    `environ` is added to its environment.
    """

    def __init__(self, command: list[str], core: int | None, environ: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ONE_THREAD, **(environ or {})},
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _pipe(self._process.stdin).close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()

    def hello(self) -> dict[str, Any]:
        """The line of JSON that it prints by itself. Raises RuntimeError if the process has died."""
        reply = _pipe(self._process.stdout).readline()
        if not reply:
            raise RuntimeError(f"{' '.join(self._command)} has died")
        answer: dict[str, Any] = json.loads(reply)
        return answer

    def say(self, line: str) -> None:
        """Send a line that nothing answers. Raises RuntimeError if the process has died."""
        pipe = _pipe(self._process.stdin)
        try:
            pipe.write(line + "\n")
            pipe.flush()
        except BrokenPipeError:
            raise RuntimeError(f"{' '.join(self._command)} has died") from None

    def tell(self, line: str) -> dict[str, Any]:
        """Send a line, wait for the answer. Raises RuntimeError if the process has died."""
        self.say(line)
        return self.hello()

    def ask(self, **question: object) -> dict[str, Any]:
        """`tell` for processes that are asked in JSON."""
        return self.tell(json.dumps(question))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def cpu(self) -> float:
        """Seconds that all its threads have run, as the kernel's scheduler counts them."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> int:
        """Bytes of memory that it really holds (RSS)."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * PAGE


def others_seconds(ours: set[int]) -> float:
    """Seconds that the processes of this machine but `ours` have run, and that its host has taken from it.

    Process by process: what the kernel does for packets in interrupts belongs to nobody.
    """
    stolen = int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")
    return stolen + sum(_ran(entry) for entry in Path("/proc").glob("[0-9]*") if int(entry.name) not in ours)


def _ran(process: Path) -> float:
    try:
        return sum(int(task.read_text().split()[0]) for task in process.glob("task/*/schedstat")) / 1e9
    except (OSError, IndexError):
        return 0.0  # it has just ended


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("the pipe is not there")
    return pipe
