"""The functions of libopus that we use, from the library that PyAV brings, or the system's."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from rustpbx.errors import MediaError

APPLICATION_VOIP = 2048
BANDWIDTHS = {4000: 1101, 6000: 1102, 8000: 1103, 12_000: 1104, 20_000: 1105}
"""OPUS_BANDWIDTH_*, by the highest frequency in Hz."""

SET_BITRATE, SET_MAX_BANDWIDTH, SET_VBR, SET_COMPLEXITY = 4002, 4004, 4006, 4010
SET_INBAND_FEC, SET_PACKET_LOSS_PERC, SET_DTX, SET_SIGNAL = 4012, 4014, 4016, 4024
SIGNAL_VOICE = 3001


@cache
def libopus(*, beside: bool = False) -> ctypes.CDLL:
    """The library. Raises `MediaError` if there is none.

    Its functions keep the GIL, for a call is over before another thread could use it; with `beside` they give it away,
    for threads that shall not be in the way of this one.
    """
    for path in _candidates():
        try:
            return _declared(ctypes.CDLL(path) if beside else ctypes.PyDLL(path))
        except (OSError, AttributeError):
            continue
    raise MediaError("Opus is not possible here: there is no libopus, neither with PyAV nor on this system")


def _candidates() -> Iterator[str]:
    """PyAV's wheels have it beside the package, with a hash in its name."""
    package = find_spec("av")
    if package is not None and package.origin is not None:
        folder = Path(package.origin).parent
        for libraries in (folder.parent / "av.libs", folder / ".dylibs"):
            yield from sorted(map(str, libraries.glob("libopus*")))
    yield ctypes.util.find_library("opus") or "libopus.so.0"


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library, knowing the types of its functions (opus.h)."""
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int32
    for name, result, arguments in (
        ("opus_encoder_get_size", number, (number,)),
        ("opus_encoder_init", number, (pointer, size, number, number)),
        ("opus_encoder_ctl", number, (pointer, number)),  # and one more number
        ("opus_encode", size, (pointer, pointer, number, pointer, size)),
        ("opus_decoder_create", pointer, (size, number, pointer)),
        ("opus_decoder_destroy", None, (pointer,)),
        ("opus_decode", number, (pointer, ctypes.c_char_p, size, pointer, number, number)),
        ("opus_packet_get_nb_samples", number, (ctypes.c_char_p, size, size)),
        ("opus_strerror", ctypes.c_char_p, (number,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def reason(error: int) -> str:
    """What libopus calls one of its errors."""
    text: bytes = libopus().opus_strerror(error)
    return text.decode()
