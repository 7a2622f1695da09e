"""Opus (RFC 6716, RFC 7587) through libopus, which makes and takes 16 kHz by itself."""

from __future__ import annotations

import contextlib
import ctypes
import weakref

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


class OpusCoder:
    """One leg's encoder and decoder, both mono. `params` is what the peer wants to be sent."""

    clock_rate = 48_000

    def __init__(self, params: OpusParams = ANY_WAY, complexity: int = COMPLEXITY) -> None:
        """Raises `MediaError` if there is no libopus here."""
        self._library = library = libopus()
        error = ctypes.c_int()
        self._encoder = library.opus_encoder_create(RATE, 1, APPLICATION_VOIP, ctypes.byref(error))
        if self._encoder:
            weakref.finalize(self, library.opus_encoder_destroy, self._encoder)
        self._decoder = library.opus_decoder_create(RATE, 1, ctypes.byref(error))
        if self._decoder:
            weakref.finalize(self, library.opus_decoder_destroy, self._decoder)
        if not self._encoder or not self._decoder:
            raise MediaError(f"Opus: {reason(error.value)}")
        self._packet = ctypes.create_string_buffer(PACKET)
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
        count = pcm.size
        self._samples[:count] = pcm
        size = self._library.opus_encode(self._encoder, self._place, count, self._packet, PACKET)
        if size < 0:
            raise MediaError(f"Opus cannot encode {count} samples: {reason(size)}")
        return ctypes.string_at(self._packet, size) if size > NOT_SENT else b""

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
