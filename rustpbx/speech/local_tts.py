"""The embedded speech synthesis, as jobs for the `tts` workers: hibari (English), its one packaged voice.

The package knows more voices, which it would download: they are never asked for.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rustpbx.errors import SpeechError
from rustpbx.media.events import Pcm
from rustpbx.speech.local_files import checked

if TYPE_CHECKING:
    from hibari import Hibari

VOICE = "heart"
MODEL = ("hibari.onnx", "5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8")
SEED = 1
"""The voice's breath is noise; a fixed seed makes the same text sound the same."""

NORMAL_VOLUME = 5
LONGEST = 300
"""Characters of one piece: the model's memory and time grow with it, and nobody else is served meanwhile."""

SLOWEST, FASTEST = 0.5, 2.0


@functools.cache
def _voice() -> Hibari:
    found = importlib.util.find_spec("hibari")
    if found is None or found.origin is None:
        raise SpeechError("hibari is not installed")
    folder = Path(found.origin).parent / "assets"
    checked(folder, MODEL)
    from hibari import Hibari  # noqa: PLC0415 - part of the `local` extra, and only workers load it

    return Hibari(VOICE, model=str(folder / MODEL[0]))


def split(text: str) -> list[str]:
    """The sentences of a text, in order, as they stand in it; one that is too long to say in one go is cut up."""
    return [piece for sentence in _voice().split_sentences(text) for piece in cut(str(sentence))]


def cut(sentence: str) -> list[str]:
    """A sentence in pieces of at most `LONGEST` characters, cut at spaces where there are any."""
    pieces = []
    while len(sentence) > LONGEST:
        space = sentence.rfind(" ", 1, LONGEST + 1)
        end = space if space > 0 else LONGEST
        pieces.append(sentence[:end])
        sentence = sentence[end:].lstrip()
    return [*pieces, sentence]


def speak(sentence: str, rate: int, speed: float = 1.0, volume: int = NORMAL_VOLUME) -> Pcm:
    """One sentence as mono samples at `rate` Hz; none if there is nothing in it that this voice can say.

    `speed` is held between 0.5 and 2; `volume` 0 is silence, 5 normal, 10 twice the amplitude.
    """
    voice = _voice()
    samples = voice(sentence, speed=min(max(speed, SLOWEST), FASTEST), seed=SEED)
    if not len(samples):
        return np.zeros(0, np.int16)
    loud = np.clip(samples * (volume / NORMAL_VOLUME), -1.0, 1.0)
    return _resampled((loud * 32767).astype(np.int16), voice.sample_rate, rate)


def _resampled(pcm: Pcm, source: int, rate: int) -> Pcm:
    if source == rate:
        return pcm
    import av  # noqa: PLC0415 - 60 ms that only the worker should pay for

    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = source
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces]).astype(np.int16, copy=False)
