"""What cleans the audio of many streams at once, and which one is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rustpbx.media.denoise.rnnoise import Cleaned, Rnnoise
from rustpbx.media.events import Pcm


class Denoiser(Protocol):
    """Cleans 20 ms of each of many streams in one go, in a thread, one call at a time.

    What `open` returns is the stream's memory: only the engine looks into it. What comes out may lag by
    `rustpbx.media.denoise.rnnoise.DELAY`.
    """

    def load(self) -> None:
        """Read what it needs, once for the process. Raises `MediaError` saying what is missing."""
        ...

    def open(self, rate: int) -> Any:
        """A new stream's memory, for frames at 8000 or 16000 Hz."""
        ...

    def clean(self, streams: Sequence[Any], frames: Sequence[Pcm]) -> list[Cleaned]:
        """Clean one frame of 20 ms of each stream. If it raises, it is asked again about each stream alone."""
        ...


DENOISERS: dict[str, Callable[[], Denoiser]] = {"rnnoise": Rnnoise}
"""By name. `rnnoise` is the one that `denoise` in an option means."""
