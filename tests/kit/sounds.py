"""Audio to test with: tones, and files of them written by PyAV."""

from __future__ import annotations

import io

import av
import numpy as np

from rustpbx.media.events import Pcm


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0, level: float = 0.5) -> Pcm:
    """A sine, mono."""
    times = np.arange(int(rate * seconds)) / rate
    return (np.sin(2 * np.pi * hertz * times) * level * 32767).astype(np.int16)


def pitch(pcm: Pcm, rate: int) -> float:
    """The strongest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(pcm))
    return float(spectrum.argmax() * rate / len(pcm))


def encode(container: str, codec: str, rate: int, *channels: Pcm) -> bytes:
    """A file of one or two channels."""
    layout = "mono" if len(channels) == 1 else "stereo"
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        interleaved = np.stack(channels, axis=1).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout=layout)
        frame.sample_rate = rate
        size = stream.codec_context.frame_size or None
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()
