"""The steps of a tick as pure functions over rows, one row per leg; a (3, 160) array is enough to try any of them.

Arrays of a bank are passed whole together with `slots`, the rows meant; functions that change them say so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from rustpbx.media.codec.g711 import PCMA, PCMU
from rustpbx.media.codec.resample import upsampling_matrix
from rustpbx.media.events import Codec

Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Samples = npt.NDArray[np.int16]
Slots = npt.NDArray[np.intp]
Words = npt.NDArray[np.uint32]

FRAME = 160
"""Samples of a 20 ms frame at 8 kHz; of G.711 also its bytes."""

HEADER = 12
"""Bytes of an RTP header without CSRC and extension (RFC 3550 section 5.1)."""

LAWS = (PCMU, PCMA)
LAW_OF = {Codec.PCMU: 0, Codec.PCMA: 1}
"""Which of them is a codec's: what the bank's `law_in` and `law_out` hold."""

SILENCE = np.array([law.silence for law in LAWS], np.uint8)

STRETCH = 16
"""Samples that one product of `upsample` takes: small ones do less multiplying by zero, and still fill the unit."""

_MATRIX, HISTORY = upsampling_matrix(STRETCH)
BETWEEN = np.ascontiguousarray(_MATRIX[:, 0::2], np.float32)
"""The half of the interpolation that needs computing: the samples between those there are."""

LAG = int(_MATRIX[:, 1].argmax())
"""The other half are the samples themselves, so many places into a row: the filter is a half-band one."""

FADE = np.array([1.0, 0.9, 0.8, 0.65, 0.45, 0.0], np.float32)
"""Gain over the frame before, by how many frames were missing already: less each time, nothing after 100 ms."""


class Headers(NamedTuple):
    """The fixed RTP header of n packets. `first` is version, padding, extension and CSRC count in one byte."""

    first: Bytes
    marker: Flags
    payload_type: Bytes
    sequence: npt.NDArray[np.uint16]
    rtp_time: Words
    ssrc: Words

    def only(self, rows: Flags) -> Headers:
        """The headers of those rows."""
        return Headers(
            self.first[rows],
            self.marker[rows],
            self.payload_type[rows],
            self.sequence[rows],
            self.rtp_time[rows],
            self.ssrc[rows],
        )


def parse_headers(packets: Bytes) -> Headers:
    """Read the headers of `packets` (n, >= 12). What they hold is not judged here."""
    second = packets[:, 1]
    return Headers(
        packets[:, 0],
        second >= 0x80,
        np.bitwise_and(second, np.uint8(0x7F), dtype=np.uint8),
        packets[:, 2:4].view(">u2")[:, 0].astype(np.uint16),
        packets[:, 4:8].view(">u4")[:, 0].astype(np.uint32),
        packets[:, 8:12].view(">u4")[:, 0].astype(np.uint32),
    )


def write_headers(
    packets: Bytes, slots: Slots, *, marker: Flags, payload_type: Bytes, sequence: Ints, rtp_time: Ints, ssrc: Words
) -> None:
    """Write the headers of rows `slots` of `packets` (N, >= 12) in place; the other arrays have one entry a slot."""
    packets[slots, 0] = 0x80
    packets[slots, 1] = payload_type | (marker.astype(np.uint8) << 7)
    packets[:, 2:4].view(">u2")[slots, 0] = sequence & 0xFFFF
    packets[:, 4:8].view(">u4")[slots, 0] = rtp_time & 0xFFFFFFFF
    packets[:, 8:12].view(">u4")[slots, 0] = ssrc


def signed(words: Words) -> Ints:
    """Differences of 32-bit counters as signed numbers (n,)."""
    return words.view(np.int32).astype(np.int64)


def insert(ring: Bytes, present: Flags, head: Ints, slots: Slots, *, ahead: Ints, payload: Bytes) -> None:
    """Put one frame per slot into its jitter ring, `ahead` frames after the one due next.

    `ring` (N, depth, 160) and `present` (N, depth) change; `ahead` is 0 <= ahead < depth, a slot appears once.
    """
    index = (head[slots] + ahead) % ring.shape[1]
    ring[slots, index] = payload
    present[slots, index] = True


def take(ring: Bytes, present: Flags, head: Ints, slots: Slots) -> tuple[Bytes, Flags]:
    """The frames due next (n, 160) and which of them are there. Nothing changes: `advance` follows."""
    index = head[slots]
    return ring[slots, index], present[slots, index]


def advance(present: Flags, head: Ints, slots: Slots) -> None:
    """Empty the place at the head of each slot's ring and move on by one frame; changes `present` and `head`."""
    index = head[slots]
    present[slots, index] = False
    head[slots] = (index + 1) % present.shape[1]


def decode(payload: Bytes, law: Ints) -> Samples:
    """G.711 to samples, each row by its law. All of one law, as nearly always, is one look-up: twice as fast."""
    if (law == law[0]).all():
        return LAWS[law[0]].decode(payload)
    pcm = np.empty(payload.shape, np.int16)
    for value in np.unique(law).tolist():
        rows = law == value
        pcm[rows] = LAWS[value].decode(payload[rows])
    return pcm


def silence(law: Ints) -> Bytes:
    """Rows of G.711 silence (n, 160)."""
    return np.repeat(SILENCE[law], FRAME).reshape(-1, FRAME)


def conceal(before: Samples, misses: Ints) -> Samples:
    """What to hear instead of frames that are not there: what was heard before, fading with each one missing."""
    faded: Samples = np.rint(before * FADE[np.minimum(misses, len(FADE) - 1)][:, np.newaxis]).astype(np.int16)
    return faded


class Workbench:
    """Memory that `upsample` works in, for up to `rows` rows of `samples` samples each: made anew each time, it would
    cost more than the filter. `kept` is where the caller may put its rows.
    """

    def __init__(self, rows: int, samples: int) -> None:
        if samples % STRETCH:
            raise ValueError(f"{samples} samples are not a multiple of {STRETCH}")
        self.rows = rows
        self.samples = samples
        self.floats: Floats = np.empty((rows, HISTORY + samples), np.float32)
        shape = (rows, samples // STRETCH, HISTORY + STRETCH)
        strides = (self.floats.strides[0], STRETCH * self.floats.itemsize, self.floats.itemsize)
        self.overlapping = as_strided(self.floats, shape, strides, writeable=False)
        self.stretches: Floats = np.empty(shape, np.float32)
        self.between: Floats = np.empty((rows * samples // STRETCH, STRETCH), np.float32)
        self.wide: Samples = np.empty((rows, samples, 2), np.int16)


def upsample(kept: Samples, bench: Workbench) -> Samples:
    """8 to 16 kHz in one matrix product: int16 (n, 2m) out of (n, 23 + m), the 23 being the past.

    n is at most `bench.rows`, m is `bench.samples`; what comes back is the bench's memory, good until it is used again.
    """
    rows, samples = len(kept), bench.samples
    between = bench.between[: rows * samples // STRETCH]
    bench.floats[:rows] = kept
    bench.stretches[:rows] = bench.overlapping[:rows]
    np.matmul(bench.stretches[:rows].reshape(-1, HISTORY + STRETCH), BETWEEN, out=between)
    np.rint(between, out=between)
    np.clip(between, -32768, 32767, out=between)
    wide = bench.wide[:rows]
    wide[:, :, 0] = between.reshape(rows, samples)
    wide[:, :, 1] = kept[:, LAG : LAG + samples]
    return wide.reshape(rows, 2 * samples)


def levels(pcm: Samples) -> Floats:
    """The mean power of each row, in squared int16 units."""
    samples = pcm.astype(np.float32)
    power: Floats = np.einsum("ij,ij->i", samples, samples) / samples.shape[1]
    return power
