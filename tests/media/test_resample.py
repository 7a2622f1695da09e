"""Sample-rate conversion: continuity, length, delay, images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustpbx.errors import MediaError
from rustpbx.media.codec.resample import Resampler, delay, interpolation_filter, resample, upsampling_matrix
from rustpbx.media.events import Pcm


def tone(frequency: float, rate: int, seconds: float, amplitude: float = 10_000) -> Pcm:
    """A sine, int16."""
    time = np.arange(round(rate * seconds)) / rate
    return np.round(amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.int16)


def spectrum(pcm: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Magnitudes in dB relative to the strongest, Blackman window."""
    magnitude = np.abs(np.fft.rfft(pcm.astype(np.float64) * np.blackman(len(pcm)))) + 1e-9
    return np.asarray(20 * np.log10(magnitude / magnitude.max()))


@pytest.mark.parametrize(("source", "target"), [(8000, 16000), (24000, 8000), (16000, 8000), (44100, 8000)])
def test_blocks_equal_the_whole(source: int, target: int) -> None:
    """Cutting the stream into uneven blocks changes no sample."""
    pcm = tone(440, source, 0.3)
    resampler = Resampler(source, target)
    cuts = np.split(pcm, [1, 7, 160, 161, 1000, 1500])
    pieces = [resampler.feed(cut) for cut in cuts] + [resampler.flush()]
    assert np.array_equal(np.concatenate(pieces), resample(pcm, source, target))


@given(st.sampled_from([8000, 16000, 22050, 24000, 44100, 48000]), st.integers(400, 3000))
@settings(max_examples=20, deadline=None)
def test_length_follows_the_ratio(source: int, samples: int) -> None:
    """After the flush the output is as long as the input, to a few samples."""
    out = resample(np.zeros(samples, np.int16), source, 8000)
    assert abs(len(out) - samples * 8000 / source) <= 4


def test_equal_rates_pass_through_and_empty_blocks_are_fine() -> None:
    """No work, no change, no error."""
    pcm = tone(440, 8000, 0.02)
    assert Resampler(8000, 8000).feed(pcm) is pcm
    other = Resampler(8000, 16000)
    assert len(other.flush()) == 0
    assert len(other.feed(pcm[:0])) == 0


def test_a_stream_may_begin_again_after_the_flush() -> None:
    """The second stream is as the first: nothing of it is left inside."""
    pcm = tone(1000, 8000, 0.1)
    resampler = Resampler(8000, 16000)
    first = np.concatenate([resampler.feed(pcm), resampler.flush()])
    second = np.concatenate([resampler.feed(pcm), resampler.flush()])
    assert np.array_equal(first, second)


def test_little_is_held_back() -> None:
    """A live stream lags by 2 ms at most."""
    assert len(Resampler(8000, 16000).feed(tone(440, 8000, 0.02))) >= 320 - 32


def test_strange_rates_are_refused() -> None:
    """A rate from a broken file header is our own error."""
    with pytest.raises(MediaError, match="0 Hz"):
        Resampler(0, 8000)


def test_aliases_of_downsampling() -> None:
    """A 6 kHz tone leaves nothing audible at 8 kHz."""
    out = resample(tone(6000, 16000, 0.5), 16000, 8000)[200:-200]
    assert np.abs(out.astype(np.int32)).max() <= 2


def upsample_rows(rows: Pcm) -> npt.NDArray[np.float32]:
    """Run rows (N, k * 160) through the matrix tick by tick, as the plane does."""
    matrix, history = upsampling_matrix(160)
    stage = np.zeros((len(rows), history + 160), np.float32)
    ticks = []
    for start in range(0, rows.shape[1], 160):
        stage[:, :history] = stage[:, -history:].copy()
        stage[:, history:] = rows[:, start : start + 160]
        ticks.append(stage @ matrix)
    return np.concatenate(ticks, axis=1)


def test_the_matrix_is_the_filter() -> None:
    """Tick by tick equals zero-stuffing and one long convolution."""
    rows = np.stack([tone(500, 8000, 0.1), tone(3100, 8000, 0.1)])
    out = upsample_rows(rows)
    for row, got in zip(rows, out, strict=True):
        stuffed = np.zeros(2 * len(row))
        stuffed[::2] = row
        wanted = np.convolve(stuffed, interpolation_filter())[: 2 * len(row)]
        assert np.allclose(got, wanted, atol=0.05)


def test_the_documented_delay() -> None:
    """An impulse comes out `delay()` samples later."""
    rows = np.zeros((1, 320), np.int16)
    rows[0, 100] = 10_000
    assert int(np.argmax(upsample_rows(rows)[0])) == 200 + delay()
    assert upsampling_matrix(160)[0].shape == (183, 320)


@pytest.mark.parametrize("frequency", [300, 1000, 3400])
def test_the_documented_images_and_ripple(frequency: int) -> None:
    """Telephone tones keep their level to 0.05 dB, and their images are 54 dB down."""
    out = upsample_rows(tone(frequency, 8000, 1.0)[np.newaxis])[0, 320:]
    levels = spectrum(out)
    above = round(4500 / 8000 * (len(levels) - 1))
    assert levels[above:].max() < -54
    level = np.sqrt(np.mean(out.astype(np.float64) ** 2)) * np.sqrt(2) / 10_000
    assert abs(20 * np.log10(level)) < 0.05
