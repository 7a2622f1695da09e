"""An `.ort` model as an `.onnx` one, so that onnxruntime may optimise it: five times the speed for Moonshine's decoder.

The weights in the wheel are 8-bit integers that the graph turns into floats at every step, and onnxruntime does not
optimise graphs that come in its own format. So it is asked to write the graph out as ONNX, and reads that again: the
conversion is then done once, when the model is loaded. What it writes lacks the names of the branches of an `If`,
which ONNX requires; they are put in here, in the protobuf bytes.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_BRANCHES = (7, 1, 5, 6)
"""ModelProto.graph, GraphProto.node, NodeProto.attribute, AttributeProto.g: field numbers of onnx.proto."""

_NAME = b"\x12\x06branch"
"""GraphProto.name, field 2; the last one of a message counts."""


def open_session(model: bytes, *, optimise: bool = False) -> Any:
    """An onnxruntime session on one thread (workers are many, cores are few) for a model in the `.ort` format.

    `optimise` costs a few seconds and some hundred megabytes, once. If this onnxruntime cannot do it, the model is used
    as it is.
    """
    import onnxruntime  # noqa: PLC0415 - part of the `local` extra, and only workers load it

    if optimise:
        try:
            return onnxruntime.InferenceSession(_as_onnx(model), _options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - its errors have no common base, and the slow way is left
            log.warning("local speech: the model cannot be optimised, which costs speed: %s", error)
    return onnxruntime.InferenceSession(model, _options(), providers=["CPUExecutionProvider"])


def _options() -> Any:
    import onnxruntime  # noqa: PLC0415 - as above

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The arena keeps what the optimiser needed for a moment, and prepacking copies weights for a tenth of the time.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def _as_onnx(model: bytes) -> bytes:
    import onnxruntime  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        options = _options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ONNX")
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return name_branches(memoryview(path.read_bytes()), _BRANCHES)


def name_branches(message: memoryview, path: tuple[int, ...]) -> bytes:
    """The protobuf `message` with a name in each message that `path` (field numbers from the outside in) leads to."""
    if not path:
        return bytes(message) + _NAME
    out: list[bytes | memoryview] = []
    for number, start, body, end in _fields(message):
        if number == path[0] and body is not None:
            inner = name_branches(message[body:end], path[1:])
            out += [_varint(number << 3 | 2), _varint(len(inner)), inner]
        else:
            out.append(message[start:end])
    return b"".join(out)


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | None, int]]:
    """Each field's number, where it starts, where its content starts (None if it has no length), where it ends."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _read_varint(message, at)
        body = None
        match tag & 7:
            case 0:
                _, at = _read_varint(message, at)
            case 1:
                at += 8
            case 2:
                length, body = _read_varint(message, at)
                at = body + length
            case 5:
                at += 4
            case other:
                raise ValueError(f"protobuf wire type {other}")
        yield tag >> 3, start, body, at


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
