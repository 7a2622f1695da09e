"""G.711 in both laws as table look-ups over numpy arrays of any shape (ITU-T G.711, RFC 3551 section 4.5.14).

Decoding follows tables 1a-2b of G.711, scaled to 16 bits. Encoding uses the rounding of the classic Sun `g711.c`,
which is also that of CPython's former `audioop`: a sample is shifted right arithmetically to 14 bits (mu-law) or
13 bits (A-law) first, and a magnitude on a decision value goes to the upper interval. Both tables equal `audioop`
bit for bit. Encoding a decoded code gives that code back, except mu-law 0x7F (negative zero), which returns as 0xFF.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs
import numpy as np
import numpy.typing as npt

from rustpbx.media.events import Codec, Pcm

Codes = npt.NDArray[np.uint8]
"""Encoded samples, one byte each, any shape."""

BIAS = 0x84
"""What mu-law adds to a 16-bit magnitude so that every segment begins at a power of two."""


@attrs.frozen(eq=False, repr=False)
class Law:
    """One companding law. All arrays are read-only.

    `decode_table` is int16 (256,), `encode_table` uint8 (65536,), indexed by a sample's bits; `silence` encodes 0.
    """

    codec: Codec
    decode_table: npt.NDArray[np.int16]
    encode_table: Codes
    silence: int

    def decode(self, codes: Codes) -> Pcm:
        """Samples of `codes`, same shape."""
        return self.decode_table.take(codes)

    def encode(self, pcm: Pcm) -> Codes:
        """Codes of int16 samples, same shape."""
        return self.encode_table.take(pcm.view(np.uint16))


def _mulaw_samples() -> npt.NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = ((((code & 0x0F).astype(np.int32) << 3) + BIAS) << ((code & 0x70) >> 4)) - BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_samples() -> npt.NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment = (code & 0x70) >> 4
    interval = ((code & 0x0F) << 4) + 8
    magnitude = np.where(segment == 0, interval, (interval + 0x100) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _all_samples() -> npt.NDArray[np.int32]:
    """Every int16 sample, at the index of its uint16 bits."""
    return np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)


def _mulaw_codes() -> Codes:
    sample = _all_samples() >> 2
    magnitude = np.minimum(np.abs(sample) + (BIAS >> 2), 8191)
    segment = np.searchsorted((0x40 << np.arange(8)) - 1, magnitude)
    code = (segment << 4) | ((magnitude >> (segment + 1)) & 0x0F)
    codes: Codes = np.where(sample < 0, code ^ 0x7F, code ^ 0xFF).astype(np.uint8)
    return codes


def _alaw_codes() -> Codes:
    sample = _all_samples() >> 3
    magnitude = np.where(sample < 0, -sample - 1, sample)
    segment = np.searchsorted((0x20 << np.arange(8)) - 1, magnitude)
    code = (segment << 4) | ((magnitude >> np.maximum(segment, 1)) & 0x0F)
    codes: Codes = np.where(sample < 0, code ^ 0x55, code ^ 0xD5).astype(np.uint8)
    return codes


def _law(codec: Codec, decode_table: npt.NDArray[np.int16], encode_table: Codes) -> Law:
    for table in (decode_table, encode_table):
        table.flags.writeable = False
    return Law(codec, decode_table, encode_table, silence=int(encode_table[0]))


PCMU = _law(Codec.PCMU, _mulaw_samples(), _mulaw_codes())
PCMA = _law(Codec.PCMA, _alaw_samples(), _alaw_codes())

LAWS: Mapping[Codec, Law] = MappingProxyType({Codec.PCMU: PCMU, Codec.PCMA: PCMA})
"""The law of each codec."""
