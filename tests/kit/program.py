"""A program that is not ours, running for the length of a block."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import trio

PATIENCE = 30.0
"""Seconds that a program has to say what is waited for, and to end once it is told to."""


class Program:
    """A running program. `said` is what it has written so far, on its output and for errors."""

    def __init__(self, process: trio.Process, log: BinaryIO) -> None:
        self.said = ""
        self._process = process
        self._log = log
        self._news = trio.lowlevel.ParkingLot()

    async def read(self) -> None:
        """Keep what it says until it is gone."""
        assert self._process.stdout is not None
        async for piece in self._process.stdout:
            self._log.write(piece)
            self._log.flush()
            self.said += piece.decode(errors="replace")
            self._news.unpark_all()

    async def write(self, data: bytes) -> None:
        """Write to its standard input, which must be a pipe."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(data)

    async def ended(self) -> None:
        """Wait until it is gone by itself."""
        with trio.fail_after(PATIENCE):
            await self._process.wait()

    async def until(self, words: str, count: int = 1) -> None:
        """Wait until it has said that so many times. Raises AssertionError, with all it said, if it does not."""
        with trio.move_on_after(PATIENCE):
            while self.said.count(words) < count:
                await self._news.park()
        assert self.said.count(words) >= count, f"not a word of {words!r}, but: {self.said}"


@asynccontextmanager
async def running(
    command: Sequence[str],
    *,
    ready: str,
    log: Path,
    stdin: int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Program]:
    """Run `command` until the block ends, in which it has said `ready`; what it says is kept in `log` too.

    Raises AssertionError, with its words, if it does not become ready.
    """
    with log.open("wb") as words:
        process = await trio.lowlevel.open_process(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        program = Program(process, words)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(program.read)
                await program.until(ready)
                yield program
                nursery.cancel_scope.cancel()
        finally:
            await _end(process)


async def _end(process: trio.Process) -> None:
    process.terminate()
    with trio.CancelScope(shield=True):
        with trio.move_on_after(PATIENCE):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        for pipe in (process.stdout, process.stdin):
            if pipe is not None:
                await pipe.aclose()
