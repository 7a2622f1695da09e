"""Opus (RFC 6716, RFC 7587) through libopus, which makes and takes 16 kHz by itself."""

from __future__ import annotations

import contextlib
import ctypes
import weakref

import attrs
import numpy as np

from rustpbx.errors import MediaError
from rustpbx.media.codec.base import RATE, WIDE
from rustpbx.media.codec.libopus import (
    APPLICATION_VOIP,
    BANDWIDTHS,
    SET_BITRATE,
    SET_COMPLEXITY,
    SET_DTX,
    SET_INBAND_FEC,
    SET_MAX_BANDWIDTH,
    SET_PACKET_LOSS_PERC,
    SET_SIGNAL,
    SET_VBR,
    SIGNAL_VOICE,
    libopus,
    reason,
)
from rustpbx.media.events import OpusParams, Pcm

BITRATE = 24_000
"""Bits a second, if the peer does not want fewer: what speech of 16 kHz needs (RFC 7587 3.1.1)."""

LEAST_BITRATE = 6000

COMPLEXITY = 0
"""Of 0 to 10. docs/performance.md has what each costs and gains."""

EXPECTED_LOSS = 20
"""Per cent of packets that the redundancy is made for, where the peer wants any. With less libopus makes none at
this bitrate and complexity."""

MOST = 120 * RATE // 1000
"""Samples of the longest packet."""

PACKET = 400
"""Bytes that a frame of ours may have: 160 kbit/s."""

NOT_SENT = 2
"""A payload of so many bytes or fewer need not be sent (`opus_encode`): silence, with DTX."""


ANY_WAY = OpusParams()
"""A peer without wishes."""


@attrs.frozen
class _Foreseen:
    """A frame encoded ahead: after so many others, and what `opus_encode` said of it."""

    after: int
    samples: bytes
    size: int


class OpusCoder:
    """One leg's encoder and decoder, both mono. `params` is what the peer wants to be sent.

    It can encode ahead, in another thread (`Foreseeing`): in a copy of the encoder, which takes the encoder's place if
    the frame is the one that was expected. So the packets are the same, whether or not it was.
    """

    clock_rate = 48_000

    def __init__(self, params: OpusParams = ANY_WAY, complexity: int = COMPLEXITY) -> None:
        """Raises `MediaError` if there is no libopus here."""
        self._library = library = libopus()
        error = ctypes.c_int()
        self._size = library.opus_encoder_get_size(1)
        # All of an encoder is in its memory, so that it can be copied (opus.h).
        self._encoder, self._spare = (ctypes.create_string_buffer(self._size) for _ in range(2))
        problem = library.opus_encoder_init(self._encoder, RATE, 1, APPLICATION_VOIP)
        if problem:
            raise MediaError(f"Opus: {reason(problem)}")
        self._decoder = library.opus_decoder_create(RATE, 1, ctypes.byref(error))
        if self._decoder:
            weakref.finalize(self, library.opus_decoder_destroy, self._decoder)
        else:
            raise MediaError(f"Opus: {reason(error.value)}")
        self._packet, self._next = (ctypes.create_string_buffer(PACKET) for _ in range(2))
        self._encoded = 0
        self._expected: bytes | None = None
        self._foreseen: _Foreseen | None = None
        self._samples: Pcm = np.zeros(MOST, np.int16)
        self._place = self._samples.ctypes.data  # to ask for it takes longer than to copy a frame
        for request, value in _settings(params, complexity).items():
            self._set(request, value)

    def _set(self, request: int, value: int) -> None:
        error = self._library.opus_encoder_ctl(self._encoder, request, ctypes.c_int(value))
        if error:
            raise MediaError(f"Opus: {reason(error)} ({request}, {value})")

    def encode(self, pcm: Pcm) -> bytes:
        """A packet of 20 ms; b"" for silence, where the peer wants DTX."""
        foreseen, self._foreseen, self._expected = self._foreseen, None, None
        count, self._encoded = pcm.size, self._encoded + 1
        if foreseen is not None and foreseen.after == self._encoded - 1 and foreseen.samples == pcm.tobytes():
            self._encoder, self._spare = self._spare, self._encoder
            return _payload(foreseen.size, self._next, count)
        self._samples[:count] = pcm
        size = self._library.opus_encode(self._encoder, self._place, count, self._packet, PACKET)
        return _payload(size, self._packet, count)

    def expect(self, pcm: Pcm) -> None:
        """Say which frame will probably be encoded next. Not while `prepare` runs."""
        self._expected, self._foreseen = pcm.tobytes(), None

    def prepare(self) -> None:
        """Encode what is expected, in whichever thread, without the GIL.

        There is no lock, and nobody waits: `encode` may be called meanwhile. It touches `_encoder` alone, which is
        copied while the GIL is held, and counts up, so that what was prepared for an earlier frame is not taken.
        """
        after, expected = self._encoded, self._expected
        if expected is None:
            return
        self._spare.raw = self._encoder.raw
        size = libopus(beside=True).opus_encode(self._spare, expected, len(expected) // 2, self._next, PACKET)
        self._foreseen = _Foreseen(after, expected, size)

    def decode(self, payload: bytes) -> Pcm:
        """The samples of a packet of 2.5 to 120 ms, stereo as mono. Raises `MediaError` for what is no packet."""
        return self._decoded(payload, len(payload), MOST, redundancy=False)

    def conceal(self, following: bytes | None) -> Pcm:
        """A lost frame: as the packet behind it repeats it, if it does, else what might have been heard."""
        if following:
            with contextlib.suppress(MediaError):  # no packet either
                return self._decoded(following, len(following), WIDE, redundancy=True)
        return self._decoded(None, 0, WIDE, redundancy=False)

    def duration(self, payload: bytes) -> int:
        """2.5 to 120 ms in samples, by the first byte or two (RFC 6716 3.1)."""
        samples: int = self._library.opus_packet_get_nb_samples(payload, len(payload), RATE)
        return max(0, samples)

    def _decoded(self, payload: bytes | None, size: int, samples: int, *, redundancy: bool) -> Pcm:
        if payload is not None and not size:  # libopus would take it for a lost one
            raise MediaError("Opus: an empty packet")
        count = self._library.opus_decode(self._decoder, payload, size, self._place, samples, redundancy)
        if count < 0:
            raise MediaError(f"Opus: {reason(count)}")
        return self._samples[:count].copy()


def _settings(params: OpusParams, complexity: int) -> dict[int, int]:
    """What the encoder is told, by the numbers of its requests."""
    highest = min((hertz for hertz in BANDWIDTHS if 2 * hertz >= params.playback_rate), default=max(BANDWIDTHS))
    return {
        SET_COMPLEXITY: complexity,
        SET_SIGNAL: SIGNAL_VOICE,  # only the speech coder of the two that Opus consists of makes redundancy
        SET_BITRATE: max(LEAST_BITRATE, min(BITRATE, params.bitrate or BITRATE)),
        SET_MAX_BANDWIDTH: BANDWIDTHS[highest],
        SET_INBAND_FEC: int(params.fec),
        SET_PACKET_LOSS_PERC: EXPECTED_LOSS if params.fec else 0,
        SET_DTX: int(params.dtx),
        SET_VBR: int(not params.cbr),
    }


def _payload(size: int, packet: ctypes.Array[ctypes.c_char], samples: int) -> bytes:
    """What `opus_encode` has left in `packet`; b"" for silence that need not be sent."""
    if size < 0:
        raise MediaError(f"Opus cannot encode {samples} samples: {reason(size)}")
    return ctypes.string_at(packet, size) if size > NOT_SENT else b""
