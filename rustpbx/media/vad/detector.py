"""Which detectors there are: those that judge a frame within the tick, and those that score many streams at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rustpbx.errors import MediaError
from rustpbx.media.vad.silero import Silero
from rustpbx.media.vad.ten import Ten
from rustpbx.media.vad.webrtc import WebrtcDetector

FRAME = 0.02
"""Seconds of a frame that a `Detector` judges."""


class Detector(Protocol):
    """Says of each 20 ms frame of one stream whether it is speech; cheap enough for the tick."""

    @property
    def voiced(self) -> Callable[[bytes | memoryview, int], bool]:
        """The function that judges a frame: its bytes (int16, native order, 8 kHz mono), and how many samples."""
        ...


class Engine(Protocol):
    """Scores a chunk of each of many streams in one go: neural networks, for which that is the cheap way.

    It runs in a thread, one call at a time. What `open` returns is the stream's memory: only the engine looks into it.
    """

    @property
    def rate(self) -> int:
        """Hz of what it hears: 8000 or 16000."""
        ...

    @property
    def chunk(self) -> int:
        """Samples of a chunk, at least 20 ms."""
        ...

    def load(self) -> None:
        """Read what it needs, once for the process. Raises `MediaError` saying what is missing."""
        ...

    def open(self) -> Any:
        """A new stream's memory."""
        ...

    def score(self, streams: Sequence[Any], chunks: npt.NDArray[np.int16]) -> list[float]:
        """How likely each chunk (n, `chunk`) of these streams is speech, 0 to 1.

        If it raises, it is asked again about each stream alone.
        """
        ...


DETECTORS: Mapping[str, Callable[[], Detector]] = MappingProxyType({"webrtc": WebrtcDetector})

ENGINES: dict[str, Callable[[bool], Engine]] = {
    "silero": lambda wide: Silero(16000 if wide else 8000),
    "ten": lambda _: Ten(),
}
"""By name, for streams at 16 kHz (True) or at 8 kHz. A program may add its own."""


def make_detector(engine: str) -> Detector:
    """A new detector that judges frames. Raises `MediaError` naming all engines there are if `engine` is none."""
    try:
        return DETECTORS[engine]()
    except KeyError:
        known = ", ".join(sorted((*DETECTORS, *ENGINES)))
        raise MediaError(f"unknown VAD engine {engine!r}; there is: {known}") from None


def frame_length(engine: str) -> float:
    """Seconds that each verdict of an engine stands for, the same at both rates."""
    if engine not in ENGINES:
        return FRAME
    scored = ENGINES[engine](False)
    return scored.chunk / scored.rate
