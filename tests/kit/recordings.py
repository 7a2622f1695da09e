"""What phones play and record: wav files on disk, 8 kHz mono."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from rustpbx.media.codec.resample import resample
from rustpbx.media.events import Pcm

RATE = 8000

NO_SOUND: Pcm = np.zeros(0, np.int16)

BREATH: Pcm = np.zeros(round(0.3 * RATE), np.int16)
"""Silence before a phone speaks: what it sends before its answer has reached the caller is nobody's yet."""


def write_wav(path: Path, pcm: Pcm, rate: int = RATE) -> None:
    """Make a file of `pcm`."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())


def read_wav(path: Path) -> Pcm:
    """The samples of a file, made 8 kHz mono (the left channel) if a phone has recorded more."""
    with wave.open(str(path), "rb") as file:
        assert file.getsampwidth() == 2, file.getparams()
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, file.getnchannels())[:, 0]
        return resample(pcm, file.getframerate(), RATE)
