"""A program that is not ours, running for the length of a block."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import trio

PATIENCE = 5.0
"""Seconds that a program has to become ready, and to end once it is told to."""


@asynccontextmanager
async def running(command: Sequence[str], *, ready: str, log: Path) -> AsyncIterator[None]:
    """Run `command` until the block ends, in which it has said `ready`; what it says is kept in `log`.

    Raises AssertionError, with its words, if it does not become ready.
    """
    with log.open("wb") as words:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        try:
            said = b""
            with trio.move_on_after(PATIENCE):
                while ready.encode() not in said and (piece := await process.stdout.receive_some()):
                    said += piece
            words.write(said)
            assert ready.encode() in said, f"{command[0]} did not start: {said.decode(errors='replace')}"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep, process.stdout, words)
                yield
                nursery.cancel_scope.cancel()
        finally:
            await _end(process)


async def _keep(stream: trio.abc.ReceiveStream, words: BinaryIO) -> None:
    async for piece in stream:
        words.write(piece)
        words.flush()


async def _end(process: trio.Process) -> None:
    process.terminate()
    with trio.CancelScope(shield=True):
        with trio.move_on_after(PATIENCE):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()
