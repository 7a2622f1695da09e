"""Codecs of a plain audio stream in 20 ms frames: samples as they are, and G.711, which the plane has at 8 kHz only."""

from __future__ import annotations

import numpy as np

from rustpbx.errors import MediaError
from rustpbx.media.codec.base import RATE, WIDE
from rustpbx.media.codec.g711 import Law
from rustpbx.media.codec.resample import EMPTY, Resampler
from rustpbx.media.events import Pcm


class PlainCoder:
    """16-bit little-endian samples at 16 kHz."""

    clock_rate = RATE

    def encode(self, pcm: Pcm) -> bytes:
        """Two bytes a sample."""
        return pcm.astype("<i2", copy=False).tobytes()

    def decode(self, payload: bytes) -> Pcm:
        """Any whole number of samples. Raises `MediaError` for half a sample."""
        if len(payload) % 2:
            raise MediaError(f"{len(payload)} bytes are no 16-bit samples")
        samples: Pcm = np.frombuffer(payload, "<i2").astype(np.int16, copy=False)
        return samples

    def conceal(self, following: bytes | None) -> Pcm:  # noqa: ARG002 - silence, whatever comes next
        """Silence: nothing is lost on a stream, it only ends."""
        return np.zeros(WIDE, np.int16)

    def duration(self, payload: bytes) -> int:
        """Two bytes a sample."""
        return 0 if len(payload) % 2 else len(payload) // 2


class LawCoder:
    """G.711, resampled: for legs that are not on the plane's own way for it."""

    clock_rate = 8000

    def __init__(self, law: Law) -> None:
        self._law = law
        self._up, self._down = Resampler(8000, RATE), Resampler(RATE, 8000)
        self._coming = _Exact(WIDE)
        self._going = _Exact(WIDE // 2)

    def encode(self, pcm: Pcm) -> bytes:
        """160 bytes for each frame."""
        return self._law.encode(self._going.take(self._down.feed(pcm))).tobytes()

    def decode(self, payload: bytes) -> Pcm:
        """Two samples for each byte."""
        self._coming.size = 2 * len(payload)
        return self._coming.take(self._up.feed(self._law.decode(np.frombuffer(payload, np.uint8))))

    def conceal(self, following: bytes | None) -> Pcm:  # noqa: ARG002 - silence, whatever comes next
        """Silence: nothing is lost on a stream, it only ends."""
        return np.zeros(WIDE, np.int16)

    def duration(self, payload: bytes) -> int:
        """A byte is two samples at 16 kHz."""
        return 2 * len(payload)


class _Exact:
    """Makes blocks of exactly `size` of a stream of nearly such, with some silence before the first if need be."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._held: Pcm = EMPTY

    def take(self, pcm: Pcm) -> Pcm:
        held = np.concatenate([self._held, pcm])
        if held.size < self.size:
            held = np.concatenate([np.zeros(self.size - held.size, np.int16), held])
        self._held = held[self.size :]
        return held[: self.size]
