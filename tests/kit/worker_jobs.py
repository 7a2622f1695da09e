"""Jobs for the worker tests: worker processes import this module, so it stays small."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rustpbx.errors import MediaError


class BareError(Exception):
    """An exception that pickle cannot rebuild: its arguments are not those of its constructor."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def pid() -> int:
    """Which process this is."""
    return os.getpid()


def double(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Large data both ways."""
    print("a job may print")  # noqa: T201 - that is what is tested
    return samples * 2


def refuse() -> None:
    """Fail as jobs do."""
    raise MediaError("no good")


def refuse_oddly() -> None:
    """Fail with what cannot be sent."""
    raise BareError(1, 2)


def unsendable() -> Callable[[], None]:
    """Return what cannot be sent."""
    return lambda: None


def crash() -> None:
    """Die as a segmentation fault would."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Never return."""
    threading.Event().wait()


def environment() -> tuple[int, str | None]:
    """Niceness and thread setting."""
    return os.nice(0), os.environ.get("OMP_NUM_THREADS")


def wait_for(path: str) -> str:
    """Block on a FIFO until the test writes to it; its text."""
    with open(path, encoding="utf-8") as fifo:  # noqa: PTH123 - a FIFO
        return fifo.read()
