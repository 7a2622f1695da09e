"""Sample-rate conversion: a streaming resampler for one stream, and a matrix for all streams at once.

`Resampler` serves everything that is not a row of the plane (playback, synthesised speech, taps at odd rates).
`upsampling_matrix` makes the 8 -> 16 kHz step of all calls one matrix product per tick (and `downsampling_matrix` the
way back): with `rows` float32 (N, history + samples), the old samples first, `rows @ matrix` is (N, samples * factor).
"""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt

from rustpbx.errors import MediaError
from rustpbx.media.events import Pcm

TAPS = 24
"""Filter taps per phase."""

BETA = 5.0
"""Kaiser window of the interpolation filter: -54 dB images above 4.6 kHz, 0.02 dB ripple up to 3.4 kHz."""

EMPTY: Pcm = np.zeros(0, np.int16)


class Resampler:
    """int16 mono blocks of any size from `source` to `target` Hz, continuous over block borders.

    At most 2 ms are held back until later blocks come (or `flush`); images and aliases stay below -80 dB. Equal rates
    pass through untouched. Raises `MediaError` for rates outside 4..192 kHz.
    """

    def __init__(self, source: int, target: int) -> None:
        for rate in (source, target):
            if not 4_000 <= rate <= 192_000:
                raise MediaError(f"sample rate {rate} Hz is not supported")
        self.source = source
        self.target = target
        self._start()

    def _start(self) -> None:
        self._fed = False
        self._engine = None
        if self.source != self.target:
            self._engine = av.AudioResampler(format="s16", layout="mono", rate=self.target)

    def feed(self, pcm: Pcm) -> Pcm:
        """Convert one block; what comes back may be a few samples shorter or longer than the exact ratio."""
        if self._engine is None or not pcm.size:
            return pcm
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm)[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = self.source
        self._fed = True
        return _joined(self._engine.resample(frame))

    def flush(self) -> Pcm:
        """The samples held back; the next `feed` begins a new stream."""
        if self._engine is None or not self._fed:
            return EMPTY
        rest = _joined(self._engine.resample(None))
        self._start()
        return rest


def _joined(frames: list[av.AudioFrame]) -> Pcm:
    blocks = [frame.to_ndarray()[0] for frame in frames]
    if not blocks:
        return EMPTY
    joined: Pcm = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    return joined


def resample(pcm: Pcm, source: int, target: int) -> Pcm:
    """Convert a whole recording at once. Raises `MediaError` as `Resampler` does."""
    resampler = Resampler(source, target)
    return np.concatenate([resampler.feed(pcm), resampler.flush()])


def interpolation_filter(factor: int = 2) -> npt.NDArray[np.float32]:
    """The low-pass behind `upsampling_matrix`: float32 (factor * TAPS,), Kaiser-windowed sinc, pass-band gain `factor`.

    The length used is one less (the last tap is 0), so the filter is symmetric and its delay a whole sample.
    """
    length = factor * TAPS - 1
    time = np.arange(length) - (length - 1) / 2
    taps = np.sinc(time / factor) * np.kaiser(length, BETA)
    return np.append(taps, 0.0).astype(np.float32)


def delay(factor: int = 2) -> int:
    """How many *output* samples the matrix product lags: 23 at 16 kHz for the factor 2, which is 1.44 ms."""
    return (factor * TAPS - 2) // 2


def upsampling_matrix(samples: int, factor: int = 2) -> tuple[npt.NDArray[np.float32], int]:
    """The Toeplitz matrix, float32 (history + samples, samples * factor), and `history` (TAPS - 1 = 23).

    For 20 ms at 8 kHz: (183, 320). Keep the last `history` input samples of a row in front of its next `samples`
    new ones; start with zeros. Values are in the input's unit: round and clip to -32768..32767 afterwards.
    At 8 -> 16 kHz: ripple 0.02 dB up to 3.4 kHz, images of that band (4.6 kHz and above) below -54 dB; a tone of
    3.4-4 kHz, which telephone lines filter out anyway, has its image attenuated less.
    """
    history = TAPS - 1
    phases = interpolation_filter(factor).reshape(TAPS, factor)
    matrix = np.zeros((history + samples, samples, factor), np.float32)
    for m in range(samples):
        matrix[m : m + TAPS, m] = phases[::-1]
    return matrix.reshape(history + samples, samples * factor), history


def downsampling_matrix(samples: int, factor: int = 2) -> tuple[npt.NDArray[np.float32], int]:
    """The way back: float32 (history + samples, samples / factor), and `history`, with the same filter before it.

    For 20 ms at 16 kHz: (366, 160). Use it as that of `upsampling_matrix`.
    """
    taps = interpolation_filter(factor)[: factor * TAPS - 1] / factor
    history = taps.size - 1
    matrix = np.zeros((history + samples, samples // factor), np.float32)
    for m in range(samples // factor):
        matrix[m * factor : m * factor + taps.size, m] = taps[::-1]
    return matrix, history
