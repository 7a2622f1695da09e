"""RNNoise alone: how much of the noise goes, what is left of the speech, and what is said where it cannot be had."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from rustpbx.errors import MediaError
from rustpbx.media.codec.resample import resample
from rustpbx.media.denoise import rnnoise
from rustpbx.media.denoise.engine import DENOISERS
from rustpbx.media.events import Pcm
from tests.kit.recordings import read_wav
from tests.media.plane_rig import tone

SAMPLE = Path(__file__).parents[1] / "golden" / "speech" / "hello-8k.wav"
NOISE = 1000.0
"""Standard deviation of the noise: it and the sample are about 4 dB apart."""


def speech(rate: int) -> Pcm:
    """The sample at 8000 or 16000 Hz, in whole frames."""
    sound = resample(read_wav(SAMPLE), 8000, rate)
    return sound[: sound.size // (rate // 50) * (rate // 50)]


def cleaned(sound: Pcm, rate: int) -> Pcm:
    """All of a stream, cleaned frame by frame, at its own rate."""
    engine = rnnoise.Rnnoise()
    stream = engine.open(rate)
    frames = [engine.clean([stream], [frame])[0] for frame in sound.reshape(-1, rate // 50)]
    return np.concatenate([frame.narrow if frame.wide is None else frame.wide for frame in frames])


def decibels(clean: Pcm, other: Pcm) -> float:
    """The signal-to-noise ratio of `other`, whose signal is `clean`."""
    signal = clean.astype(np.float64)
    error = other.astype(np.float64) - signal
    return float(10 * np.log10((signal @ signal) / (error @ error)))


@pytest.mark.package("pyrnnoise")
@pytest.mark.parametrize("rate", [8000, 16000])
def test_speech_stands_out_of_noise_by_more_than_before(rate: int) -> None:
    """Real speech in seeded noise: its SNR grows by 1.5 dB and more, at the lag that is given for the engine."""
    sound = speech(rate)
    noise = np.random.default_rng(5).normal(scale=NOISE, size=sound.size)
    noisy = np.clip(sound + noise, -32768, 32767).astype(np.int16)
    out = cleaned(noisy, rate)
    lags = range(round(rnnoise.DELAY * rate), round((rnnoise.DELAY + 0.004) * rate))
    after = max(decibels(sound[:-lag], out[lag:]) for lag in lags)
    assert after - decibels(sound, noisy) >= 1.5


@pytest.mark.package("pyrnnoise")
def test_noise_alone_all_but_goes() -> None:
    """Half a second in, noise without speech is 20 dB fainter than it was."""
    noise = np.random.default_rng(6).normal(scale=NOISE, size=16000).astype(np.int16)
    left = cleaned(noise, 8000)[4000:].astype(np.float64)
    assert np.sqrt(np.mean(left**2)) < NOISE / 10


@pytest.mark.package("pyrnnoise")
def test_a_wide_stream_is_given_at_both_rates() -> None:
    """16 kHz goes in: what comes out at 8 kHz is the same sound as what comes out at 16."""
    engine, sound = rnnoise.Rnnoise(), speech(16000)
    stream = engine.open(16000)
    frames = [engine.clean([stream], [frame])[0] for frame in sound.reshape(-1, 320)]
    narrow = np.concatenate([frame.narrow for frame in frames])
    wide = np.concatenate([frame.wide for frame in frames if frame.wide is not None])
    halved = resample(wide, 16000, 8000)
    # The filter from 48 kHz to 8 kHz lags 1.5 ms, that to 16 kHz half as much.
    assert max(decibels(halved[100 - lag : 8000 - lag], narrow[100:8000]) for lag in range(20)) > 20


@pytest.mark.package("pyrnnoise")
def test_streams_do_not_hear_each_other_and_end_with_their_owner() -> None:
    """Two streams in one batch are what each is alone; the library's memory goes when the stream does."""
    engine = rnnoise.Rnnoise()
    sounds = [tone(0.2), np.random.default_rng(7).normal(scale=NOISE, size=1600).astype(np.int16)]
    streams = [engine.open(8000), engine.open(8000)]
    batches = zip(*(sound.reshape(-1, 160) for sound in sounds), strict=True)
    together = [[frame.narrow for frame in engine.clean(streams, list(batch))] for batch in batches]
    for sound, frames in zip(sounds, zip(*together, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(frames), cleaned(sound, 8000))
    gone = [weakref.ref(stream) for stream in streams]
    del streams
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_missing_or_broken_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package its extra is named; a file that is no library is reported as such."""
    with pytest.raises(MediaError, match=r"^it is not installed: pip install 'rustpbx\[denoise\]'$"):
        rnnoise.open_library("no_such_package")
    package = tmp_path / "rnnoise_broken"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / rnnoise.LIBRARY).write_bytes(b"no library")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MediaError, match=r"^its library cannot be loaded: "):
        rnnoise.open_library("rnnoise_broken")


def test_the_one_that_an_option_means_is_rnnoise() -> None:
    """By name, for the plane."""
    assert isinstance(DENOISERS["rnnoise"](), rnnoise.Rnnoise)
