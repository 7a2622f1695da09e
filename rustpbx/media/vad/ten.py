"""The TEN detector: the C library of the package `ten-vad`, through ctypes. Not part of this program: an extra.

Its licence is Apache 2.0 with conditions that make it no open-source one: it must not be deployed to compete with its
maker's offerings, and only within one's own applications for their users (see the package's LICENSE). It runs here on
x86-64 Linux, and needs libc++ (Debian's `libc++1`).

It hears 16 kHz in hops of 10 ms; two of them are a chunk. It knows no batches: the streams go one after the other, but
the library runs without Python's lock, so that a thread can do it beside the media clock.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rustpbx.errors import MediaError

PACKAGE = "ten_vad"
LIBRARY = "lib/Linux/x64/libten_vad.so"
PLATFORM = "Linux x86_64"
HOP = 160
THRESHOLD = 0.5
"""Of the library's own verdict, which is not used: ours is made from the score."""


class TenStream:
    """One stream in the library, made with its first chunk."""

    def __init__(self) -> None:
        self._handle: ctypes.c_void_p | None = None
        self._score = ctypes.c_float()
        self._verdict = ctypes.c_int32()

    def score(self, samples: npt.NDArray[np.int16]) -> float:
        """How likely a hop (160,) is speech, 0 to 1. Raises `MediaError` if the library refuses."""
        library = _library()
        if self._handle is None:
            self._handle = _create(library)
            weakref.finalize(self, _destroy, library, self._handle)
        score, verdict = ctypes.byref(self._score), ctypes.byref(self._verdict)
        if library.ten_vad_process(self._handle, samples.ctypes.data, HOP, score, verdict) != 0:
            raise MediaError("ten-vad refused a frame")
        return self._score.value


class Ten:
    """The library; see `rustpbx.media.vad.detector.Engine`."""

    rate = 16000
    chunk = 2 * HOP

    def load(self) -> None:
        """Open the library. Raises `MediaError` saying what is missing."""
        _library()

    def open(self) -> TenStream:
        """A new stream."""
        return TenStream()

    def score(self, streams: Sequence[TenStream], chunks: npt.NDArray[np.int16]) -> list[float]:
        """How likely each chunk (n, 320) is speech, 0 to 1: the higher score of its hops."""
        hops = np.ascontiguousarray(chunks).reshape(len(streams), -1, HOP)
        return [max(map(stream.score, pair)) for stream, pair in zip(streams, hops, strict=True)]


@cache
def _library() -> ctypes.CDLL:
    return open_library(f"{platform.system()} {platform.machine()}")


def open_library(where: str, package: str = PACKAGE) -> ctypes.CDLL:
    """The library in a package, on a system and machine. Raises `MediaError` saying what is missing."""
    if where != PLATFORM:
        raise MediaError(f"ten-vad runs on {PLATFORM} here, not on {where}")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MediaError("it is not installed: pip install 'rustpbx[ten]' (mind its licence)")
    try:
        library = ctypes.CDLL(str(Path(found.origin).parent / LIBRARY))
    except OSError as error:
        raise MediaError(f"its library cannot be loaded (it needs libc++, on Debian: libc++1): {error}") from error
    handle = ctypes.POINTER(ctypes.c_void_p)
    library.ten_vad_create.argtypes = (handle, ctypes.c_size_t, ctypes.c_float)
    library.ten_vad_destroy.argtypes = (handle,)
    out = (ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int32))
    library.ten_vad_process.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, *out)
    return library


def _create(library: ctypes.CDLL) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    if library.ten_vad_create(ctypes.byref(handle), HOP, THRESHOLD) != 0:
        raise MediaError("ten-vad has no memory for another stream")
    return handle


def _destroy(library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
    library.ten_vad_destroy(ctypes.byref(handle))
