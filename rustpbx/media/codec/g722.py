"""G.722 at 64 kbit/s through FFmpeg: 16 kHz audio, whose RTP clock says 8 kHz (RFC 3551 4.5.2)."""

from __future__ import annotations

from typing import Literal

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from rustpbx.errors import MediaError
from rustpbx.media.codec.base import RATE, WIDE
from rustpbx.media.codec.resample import EMPTY
from rustpbx.media.events import Pcm

FADE = 0.7
"""Gain over the frame before, for each one that is missing."""


class G722Coder:
    """One leg's encoder and decoder: a byte is two samples."""

    clock_rate = 8000

    def __init__(self) -> None:
        self._encoder = _context("w")
        self._decoder = _context("r")
        self._last: Pcm = np.zeros(WIDE, np.int16)

    def encode(self, pcm: Pcm) -> bytes:
        """160 bytes for a frame."""
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm)[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = RATE
        return b"".join(map(bytes, self._encoder.encode(frame)))

    def decode(self, payload: bytes) -> Pcm:
        """Any number of bytes. Raises `MediaError` for none."""
        if not payload:
            raise MediaError("G.722: an empty packet")
        blocks = [frame.to_ndarray()[0] for frame in self._decoder.decode(av.Packet(payload))]
        pcm: Pcm = np.concatenate([EMPTY, *blocks])
        self._last = np.concatenate([self._last, pcm])[-WIDE:]
        return pcm

    def conceal(self, following: bytes | None) -> Pcm:  # noqa: ARG002 - a packet says nothing of the one before
        """What was heard before, fading with each frame that is missing."""
        self._last = np.rint(self._last * FADE).astype(np.int16)
        return self._last

    def duration(self, payload: bytes) -> int:
        """Two samples a byte."""
        return 2 * len(payload)


def _context(mode: Literal["r", "w"]) -> AudioCodecContext:
    """One direction, as FFmpeg has it."""
    context = AudioCodecContext.create("g722", mode)
    context.sample_rate, context.format, context.layout = RATE, "s16", "mono"
    context.open()
    return context
