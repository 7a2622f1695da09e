"""Which detectors there are: one look-up from the engine's name to a new detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from rustpbx.errors import MediaError
from rustpbx.media.vad.webrtc import WebrtcDetector


class Detector(Protocol):
    """Says of each 20 ms frame of one stream whether it is speech."""

    @property
    def voiced(self) -> Callable[[bytes | memoryview, int], bool]:
        """The function that judges a frame: its bytes (int16, native order, 8 kHz mono), and how many samples."""
        ...


ENGINES: Mapping[str, Callable[[], Detector]] = MappingProxyType({"webrtc": WebrtcDetector})


def make_detector(engine: str) -> Detector:
    """A new detector. Raises `MediaError` naming the engines there are if `engine` is none of them."""
    try:
        return ENGINES[engine]()
    except KeyError:
        raise MediaError(f"unknown VAD engine {engine!r}; there is: {', '.join(sorted(ENGINES))}") from None
