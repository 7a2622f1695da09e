"""RNNoise: the C library in the package `pyrnnoise`, through ctypes; nothing of that package is imported. An extra.

The network hears 48 kHz in frames of 10 ms; telephone audio is brought there and back by the filters of
`rustpbx.media.codec.resample`. It knows no batches: the streams go one after the other, but the library runs without
Python's lock, so that a thread can do it beside the media clock.
"""

from __future__ import annotations

import ctypes
import importlib.util
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from rustpbx.errors import MediaError
from rustpbx.media.codec.resample import TAPS, interpolation_filter
from rustpbx.media.events import Pcm

PACKAGE = "pyrnnoise"
LIBRARY = "librnnoise.so"
RATE = 48000
HOP = RATE // 100
"""Samples that the network takes at once."""
TICK = RATE // 50
"""Samples of the 20 ms that are cleaned at once."""

DELAY = 0.02
"""Seconds, about, that what comes out lags what goes in: 20 ms of the network's, and 1.5 ms of each filter."""

Floats = npt.NDArray[np.float32]


class Cleaned(NamedTuple):
    """20 ms of a stream without noise: at 8 kHz (160,), and at 16 kHz (320,) if that is the stream's rate."""

    narrow: Pcm
    wide: Pcm | None


class _Rising:
    """From `rate` Hz to 48 kHz, 20 ms at a time. Each new sample is a product of TAPS old ones with one phase."""

    def __init__(self, rate: int) -> None:
        factor = RATE // rate
        self._phases = np.ascontiguousarray(interpolation_filter(factor).reshape(TAPS, factor)[::-1])
        self._past = np.zeros(TAPS - 1, np.float32)

    def apply(self, frame: Pcm) -> Floats:
        """The frame (rate / 50,) as (960,)."""
        samples = np.concatenate([self._past, frame.astype(np.float32)])
        self._past = samples[1 - TAPS :]
        risen: Floats = (sliding_window_view(samples, TAPS) @ self._phases).reshape(-1)
        return risen


class _Falling:
    """From 48 kHz to `rate` Hz, 20 ms at a time. Of what the low-pass filter makes, only every n-th is computed."""

    def __init__(self, rate: int) -> None:
        self._factor = RATE // rate
        self._taps = interpolation_filter(self._factor)[:-1] / self._factor
        self._past = np.zeros(self._taps.size - 1, np.float32)

    def apply(self, sound: Floats) -> Pcm:
        """The sound (960,) as (rate / 50,)."""
        samples = np.concatenate([self._past, sound])
        self._past = samples[1 - self._taps.size :]
        fallen = sliding_window_view(samples, self._taps.size)[:: self._factor] @ self._taps  # they are symmetric
        pcm: Pcm = np.clip(np.rint(fallen), -32768, 32767).astype(np.int16)
        return pcm


class RnnoiseStream:
    """One stream at `rate` Hz (8000 or 16000): the network's state, and the past of the filters."""

    def __init__(self, rate: int) -> None:
        self._handle: ctypes.c_void_p | None = None
        self._rising = _Rising(rate)
        self._narrow = _Falling(8000)
        self._wide = _Falling(16000) if rate == 16000 else None

    def clean(self, frame: Pcm) -> Cleaned:
        """Take 20 ms at `rate`. Raises `MediaError` if there is no memory for the stream."""
        library = _library()
        if self._handle is None:
            handle = library.rnnoise_create(None)
            if not handle:
                raise MediaError("rnnoise has no memory for another stream")
            self._handle = ctypes.c_void_p(handle)
            weakref.finalize(self, library.rnnoise_destroy, self._handle)
        sound = np.ascontiguousarray(self._rising.apply(frame))
        for at in range(0, TICK, HOP):
            place = sound[at:].ctypes.data
            library.rnnoise_process_frame(self._handle, place, place)
        return Cleaned(self._narrow.apply(sound), None if self._wide is None else self._wide.apply(sound))


class Rnnoise:
    """The library; see `rustpbx.media.denoise.engine.Denoiser`."""

    def load(self) -> None:
        """Open the library. Raises `MediaError` saying what is missing."""
        _library()

    def open(self, rate: int) -> RnnoiseStream:
        """A new stream at 8000 or 16000 Hz."""
        return RnnoiseStream(rate)

    def clean(self, streams: Sequence[RnnoiseStream], frames: Sequence[Pcm]) -> list[Cleaned]:
        """Clean 20 ms of each of these streams."""
        return [stream.clean(frame) for stream, frame in zip(streams, frames, strict=True)]


@cache
def _library() -> ctypes.CDLL:
    return open_library()


def open_library(package: str = PACKAGE) -> ctypes.CDLL:
    """The library in a package. Raises `MediaError` saying what is missing."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MediaError("it is not installed: pip install 'rustpbx[denoise]'")
    try:
        library = ctypes.CDLL(str(Path(found.origin).parent / LIBRARY))
    except OSError as error:
        raise MediaError(f"its library cannot be loaded: {error}") from error
    library.rnnoise_create.argtypes = (ctypes.c_void_p,)
    library.rnnoise_create.restype = ctypes.c_void_p
    library.rnnoise_destroy.argtypes = (ctypes.c_void_p,)
    library.rnnoise_destroy.restype = None
    library.rnnoise_process_frame.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    library.rnnoise_process_frame.restype = ctypes.c_float
    return library
