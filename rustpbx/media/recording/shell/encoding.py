"""From the WAV file of a call that is over to mp3, ogg (Opus) or flac: a job for a worker process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.audio.stream import AudioStream

from rustpbx.errors import MediaError
from rustpbx.media.recording.names import Format
from rustpbx.media.recording.wav import CHANNELS, FRAME, HEADER

CODECS: dict[Format, str] = {"mp3": "libmp3lame", "ogg": "libopus", "flac": "flac"}
BIT_RATES: dict[Format, int] = {"mp3": 64_000, "ogg": 48_000}
"""For two voices, each in a channel of its own."""

RATES: dict[Format, tuple[int, ...]] = {
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "ogg": (8000, 12000, 16000, 24000, 48000),
}
"""What an encoder takes, where it does not take every rate."""

CHUNK = 65536
"""Samples that are encoded at once."""

PART = ".part"


def encode_file(source: str, target: str, kind: Format, rate: int) -> int:
    """Make `target` of the WAV file `source`, which goes once the other is whole; the bytes of `target`.

    Raises OSError as the disk does (with the WAV file left), `MediaError` if it cannot be encoded.
    """
    part = Path(target + PART)
    try:
        with Path(source).open("rb") as file:
            file.seek(HEADER)
            _encode(file, part, kind, rate)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        size = part.stat().st_size
        part.replace(target)
    except av.FFmpegError as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror) from None  # one that survives the way to another process
        raise MediaError(f"{kind} cannot be encoded: {error}") from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    Path(source).unlink()
    return size


def _encode(file: BinaryIO, part: Path, kind: Format, rate: int) -> None:
    with av.open(str(part), "w", format=kind) as container:
        able = RATES.get(kind, (rate,))
        stream = container.add_stream(CODECS[kind], rate=min(able, key=lambda one: (one < rate, abs(one - rate))))
        if not isinstance(stream, AudioStream):
            raise MediaError(f"{CODECS[kind]} is no audio codec")
        stream.layout = "stereo"
        if kind in BIT_RATES:
            stream.bit_rate = BIT_RATES[kind]
        for frame in _resampled(file, rate, stream):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _resampled(file: BinaryIO, rate: int, stream: AudioStream) -> Iterator[av.AudioFrame]:
    """What the file holds, in frames as the encoder wants them."""
    context = stream.codec_context
    context.open()
    resampler = av.AudioResampler(context.format, "stereo", context.sample_rate, context.frame_size or CHUNK)
    at = 0
    while data := file.read(CHUNK * FRAME):
        pcm = np.frombuffer(data[: len(data) // FRAME * FRAME], "<i2").reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = rate, at
        at += pcm.size // CHANNELS
        yield from resampler.resample(frame)
    yield from resampler.resample(None)
