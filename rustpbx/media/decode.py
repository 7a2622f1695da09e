"""Audio files into plain samples: job functions for the `decode` workers, over PyAV.

Only a few containers are ever opened, chosen by what the bytes look like; PyAV is never left to guess, because the
library under it also reads playlists that name other files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rustpbx.errors import MediaError
from rustpbx.media.events import Pcm

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container.input import InputContainer

MAX_SECONDS = 600.0
"""Longer audio is cut here: it bounds a worker's memory whatever a file claims."""

MIN_RATE, MAX_RATE, MAX_CHANNELS = 4000, 384_000, 8
"""What a file may claim, in Hz and channels."""

_BY_TYPE = {
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/mpeg3": "mp3",
    "audio/x-mpeg": "mp3",
    "audio/flac": "flac",
    "audio/x-flac": "flac",
    "audio/ogg": "ogg",
    "application/ogg": "ogg",
}
_BY_EXTENSION = {"wav": "wav", "wave": "wav", "mp3": "mp3", "flac": "flac", "ogg": "ogg", "oga": "ogg", "opus": "ogg"}
_FORMATS = "wav, mp3, flac and ogg are"


def sniff(data: bytes) -> str | None:
    """The container that the first bytes show: "wav", "mp3", "flac", "ogg", "html", or None."""
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"fLaC":
        return "flac"
    if data[:4] == b"OggS":
        return "ogg"
    # ID3v2, or an MPEG frame header: 11 sync bits, a layer, a bit rate and a sampling rate that exist.
    if data[:3] == b"ID3":
        return "mp3"
    if len(data) >= 3 and data[0] == 0xFF and data[1] & 0xE6 in (0xE2, 0xE4, 0xE6):
        return "mp3" if data[2] >> 4 != 0xF and data[2] & 0x0C != 0x0C else None
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return "html" if start.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml")) else None


def container_of(head: bytes, content_type: str = "", name: str = "") -> str:
    """The container to open: by content first, then Content-Type, then the extension of `name`.

    Raises `MediaError` saying what it looks like if none of them is audio that we read.
    """
    found = sniff(head)
    if found == "html":
        raise MediaError("not audio: looks like HTML")
    declared = content_type.partition(";")[0].strip().lower()
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    container = found or _BY_TYPE.get(declared) or _BY_EXTENSION.get(extension)
    if container is None:
        described = f"Content-Type {declared or 'none'}, first bytes {head[:8]!r}"
        raise MediaError(f"not audio that can be played ({described}): {_FORMATS}")
    return container


def decode(
    data: bytes | npt.NDArray[np.uint8],
    rate: int,
    content_type: str = "",
    name: str = "",
    max_seconds: float = MAX_SECONDS,
) -> Pcm:
    """A whole audio file as mono samples at `rate` Hz: any rate is resampled, channels are mixed down.

    A file that breaks off gives what can be read of it. Raises `MediaError` when that is nothing.
    """
    content = bytes(data)
    if not content:
        raise MediaError("not audio: the file is empty")
    container = container_of(content[:512], content_type, name)
    pieces, problem = _read(content, container, rate, int(max_seconds * rate))
    if not pieces:
        raise MediaError(f"a {container} file that cannot be decoded: {problem}")
    return np.concatenate(pieces)


def _read(content: bytes, container: str, rate: int, limit: int) -> tuple[list[Pcm], str]:
    """Decode up to `limit` samples; the pieces, and why it stopped."""
    import av  # noqa: PLC0415 - 60 ms and 50 MB that only the worker should pay for

    av.logging.set_level(None)
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    pieces: list[Pcm] = []
    left = limit
    problem = "it has no samples"
    try:
        with av.open(io.BytesIO(content), "r", format=container, metadata_errors="ignore") as opened:
            if not opened.streams.audio:
                return [], "it has no audio stream"
            for frame in _frames(opened):
                if frame is not None and not _sane(frame):
                    problem = f"{frame.sample_rate} Hz, {frame.layout.nb_channels} channels"
                    break
                for piece in resampler.resample(frame):
                    samples = piece.to_ndarray()[0, :left].astype(np.int16, copy=False)
                    pieces.append(samples)
                    left -= len(samples)
                if left <= 0:
                    return pieces, "it is long enough"
    except (av.error.FFmpegError, ValueError) as error:
        problem = str(error)
    return [piece for piece in pieces if len(piece)], problem


def _sane(frame: AudioFrame) -> bool:
    """Whether a frame is worth resampling: at the rates that a broken header may claim it takes minutes."""
    return MIN_RATE <= frame.sample_rate <= MAX_RATE and frame.layout.nb_channels <= MAX_CHANNELS


def _frames(opened: InputContainer) -> Iterator[AudioFrame | None]:
    """The frames of the first audio stream, then None to flush; packets that make no sense are skipped."""
    import av  # noqa: PLC0415 - as above

    stream = opened.streams.audio[0]
    packets = opened.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            yield from packet.decode()
        except (av.error.InvalidDataError, av.error.EOFError):
            # The Xing header that many mp3 files start with, or the place where a file breaks off.
            continue
    yield None
