"""The inside of a worker process: `python -m rustpbx.worker`, started and ended by `rustpbx.shell.workers`.

Jobs come in over stdin and answers go out over what was stdout, both as frames: a count of parts, their lengths, the
parts. The first part is a pickle, the others are the large buffers (numpy arrays) it refers to, which are never copied
into it. A job is named `module:qualname` and must live in a module with one of the prefixes given as arguments.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from rustpbx.errors import RustpbxError

NICENESS = 5
"""Added to the nice value: the media clock in the server goes first."""

MAX_PARTS = 1024
MAX_FRAME = 512 * 1024 * 1024

_COUNT = struct.Struct(">I")
_ORPHAN_CHECK = 1.0


def pack(value: object) -> list[bytes | memoryview]:
    """`value` as the chunks of one frame, to be written in order."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts: list[bytes | memoryview] = [head, *(buffer.raw() for buffer in buffers)]
    lengths = struct.pack(f">{len(parts)}Q", *(len(part) for part in parts))
    return [_COUNT.pack(len(parts)) + lengths, *parts]


def count_of(header: bytes | bytearray) -> int:
    """The number of parts, from the first four bytes of a frame. Raises `RustpbxError` if they make no sense."""
    count: int = _COUNT.unpack(header)[0]
    if not 1 <= count <= MAX_PARTS:
        raise RustpbxError(f"worker pipe: a frame of {count} parts")
    return count


def lengths_of(header: bytes | bytearray) -> tuple[int, ...]:
    """The parts' lengths in bytes. Raises `RustpbxError` if they make no sense."""
    lengths = struct.unpack(f">{len(header) // 8}Q", header)
    if sum(lengths) > MAX_FRAME:
        raise RustpbxError(f"worker pipe: a frame of {sum(lengths)} bytes")
    return lengths


def unpack(parts: Sequence[bytearray]) -> Any:
    """The value of a frame's parts."""
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 - both ends of the pipe are this program


def job_name(job: Callable[..., object]) -> str:
    """How a job is called on the pipe. Raises TypeError for what a worker could not find (a lambda, a method)."""
    name = f"{job.__module__}:{job.__qualname__}"
    if "<" in name or "." in job.__qualname__:
        raise TypeError(f"{name} is not a module-level function")
    return name


def find_job(name: str, prefixes: Sequence[str]) -> Callable[..., object]:
    """The function of that name. Raises `RustpbxError` if it is not one of ours or does not exist."""
    module, _, qualname = name.partition(":")
    if not module.startswith(tuple(prefixes)):
        raise RustpbxError(f"worker: {name} is not in {', '.join(prefixes)}")
    job: Callable[..., object] | None = getattr(importlib.import_module(module), qualname, None)
    if not callable(job):
        raise RustpbxError(f"worker: there is no {name}")
    return job


def run_job(request: tuple[str, tuple[object, ...]], prefixes: Sequence[str]) -> tuple[bool, object]:
    """Run one request: (True, result), or (False, exception) with the traceback as a note."""
    name, args = request
    try:
        return True, find_job(name, prefixes)(*args)
    except Exception as error:  # noqa: BLE001 - it is raised where the job was asked for
        error.add_note(f"in a worker process:\n{traceback.format_exc()}")
        return False, _portable(error)


def _portable(error: Exception) -> Exception:
    """The exception itself if it survives the pipe, else one of ours that tells the same."""
    with contextlib.suppress(Exception):  # anything may go wrong in a foreign __reduce__
        if type(pickle.loads(pickle.dumps(error))) is type(error):  # noqa: S301 - made in the line itself
            return error
    return RustpbxError(f"{type(error).__name__}: {error}")


def _read(pipe: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    done = 0
    while done < size:
        got = pipe.readinto(view[done:])  # type: ignore[attr-defined] # BinaryIO lacks it, each real pipe has it
        if not got:
            raise EOFError
        done += got
    return data


def serve(requests: BinaryIO, answers: BinaryIO, prefixes: Sequence[str]) -> None:
    """Run requests one after the other until the pipe ends."""
    while True:
        try:
            lengths = lengths_of(_read(requests, 8 * count_of(_read(requests, _COUNT.size))))
            request = unpack([_read(requests, length) for length in lengths])
        except EOFError:
            return
        answer = run_job(request, prefixes)
        try:
            frame = pack(answer)
        except Exception as error:  # noqa: BLE001 - whatever pickle says about a result
            frame = pack((False, RustpbxError(f"{request[0]}: the result cannot be sent: {error}")))
        answers.writelines(frame)
        answers.flush()


def _end_when_orphaned(parent: int) -> None:
    """A worker that hangs in a job would not see its pipe end when the server is killed."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_CHECK)
    os._exit(1)


def main() -> None:
    """Take over stdin and stdout, then serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server; it ends its workers
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    threading.Thread(target=_end_when_orphaned, args=(os.getppid(),), daemon=True).start()
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb")
    # What a job prints must not get between the frames, and what it reads must not eat them.
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    with contextlib.suppress(BrokenPipeError):
        serve(requests, answers, sys.argv[1:] or ["rustpbx."])


if __name__ == "__main__":
    main()
