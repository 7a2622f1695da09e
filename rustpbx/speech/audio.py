"""Audio between a call and a speech service: blocks to bytes with their times, bytes to samples."""

from __future__ import annotations

from collections import deque

import attrs
import numpy as np
import trio

from rustpbx.errors import SpeechError
from rustpbx.media.codec.resample import EMPTY, Resampler
from rustpbx.media.events import AudioBlock, Pcm

GAP = 0.03
"""Seconds between the end of a block and the begin of the next from which on the call's clock has jumped."""
MOST_STRETCHES = 1000
"""Stretches of audio whose times are remembered."""
RIFF = b"RIFF"
LONGEST_HEADER = 4096
"""Bytes of chunks before the samples of a WAV."""


@attrs.frozen
class _Stretch:
    """Audio without a gap: it begins `offset` seconds into what was sent, and was spoken at `at`."""

    offset: float
    at: float


class AudioFeed:
    """What a call hears as a service takes it: s16le mono at `rate` Hz, `seconds` a piece (the last may be shorter)."""

    def __init__(self, audio: trio.abc.ReceiveChannel[AudioBlock], rate: int, seconds: float) -> None:
        self._audio = audio
        self._rate = rate
        self._size = 2 * round(rate * seconds)
        self._resampler: Resampler | None = None
        self._bytes = bytearray()
        self._over = False
        self._taken = 0.0  # seconds of audio so far
        self._ends = 0.0  # when the last block ended, on the call's clock
        self._stretches: deque[_Stretch] = deque(maxlen=MOST_STRETCHES)

    @property
    def duration(self) -> float:
        """Seconds of audio read so far."""
        return self._taken

    async def next(self) -> bytes | None:
        """The next piece; None when the audio has ended. Safe to cancel: nothing is lost."""
        while len(self._bytes) < self._size and not self._over:
            try:
                self._take(await self._audio.receive())
            except trio.EndOfChannel:
                self._over = True
                if self._resampler is not None:
                    self._bytes += self._resampler.flush().astype("<i2").tobytes()
        piece = bytes(self._bytes[: self._size])
        del self._bytes[: self._size]
        return piece or None

    def at(self, offset: float) -> float:
        """When that was spoken, on the call's clock, which lies `offset` seconds into what was sent."""
        if not self._stretches:
            return 0.0
        before = (stretch for stretch in reversed(self._stretches) if stretch.offset <= offset)
        found = next(before, self._stretches[0])
        return found.at + max(0.0, offset - found.offset)

    def _take(self, block: AudioBlock) -> None:
        if self._resampler is None or self._resampler.source != block.rate:
            self._resampler = Resampler(block.rate, self._rate)
        if not self._stretches or abs(block.at - self._ends) > GAP:
            self._stretches.append(_Stretch(self._taken, block.at))
        seconds = len(block.pcm) / block.rate
        self._taken += seconds
        self._ends = block.at + seconds
        self._bytes += self._resampler.feed(block.pcm).astype("<i2").tobytes()


class PcmReader:
    """What a service sends as samples at `rate` Hz: s16le in pieces of any size, or WAV.

    A WAV header at the begin of a message is read and left out wherever it comes; audio of another rate than promised
    is converted. Raises `SpeechError` for WAV that is no 16-bit PCM.
    """

    def __init__(self, rate: int, service: str) -> None:
        self._rate = rate
        self._service = service
        self._odd = b""
        self._header = b""
        self._resampler = Resampler(rate, rate)

    def feed(self, message: bytes) -> Pcm:
        """The samples that a message completes; (n,) int16, perhaps none."""
        if self._header or (not self._odd and message[:4] == RIFF[: len(message[:4])] and message):
            self._header += message
            rest = self._after_header()
            if rest is None:
                return EMPTY
            message = rest
        message = self._odd + message
        even = len(message) // 2 * 2
        self._odd = message[even:]
        return self._resampler.feed(np.frombuffer(message[:even], "<i2").astype(np.int16))

    def flush(self) -> Pcm:
        """What was kept back: the audio has ended."""
        self._header = self._odd = b""
        return self._resampler.flush()

    def _after_header(self) -> bytes | None:
        """What follows the WAV header; None as long as it is not whole."""
        data, at = self._header, 12
        if len(data) >= at and data[8:12] != b"WAVE":
            return self._not_wav()
        while len(data) >= at + 8:
            name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
            at += 8
            if name == b"data":
                self._header = b""
                return data[at:]
            if name == b"fmt " and len(data) >= at + 16:
                self._obey(data[at : at + 16])
            at += size + size % 2
            if at > LONGEST_HEADER:
                raise SpeechError(f"{self._service} sends WAV with a header of more than {LONGEST_HEADER} bytes")
        return None

    def _not_wav(self) -> bytes:
        """Samples that look like the begin of a WAV header."""
        data, self._header = self._header, b""
        return data

    def _obey(self, form: bytes) -> None:
        kind, channels = int.from_bytes(form[:2], "little"), int.from_bytes(form[2:4], "little")
        rate, bits = int.from_bytes(form[4:8], "little"), int.from_bytes(form[14:16], "little")
        if kind not in (1, 0xFFFE) or channels != 1 or bits != 16 or not 4000 <= rate <= 192_000:
            form_text = f"format {kind}, {channels} channels, {bits} bits, {rate} Hz"
            raise SpeechError(f"{self._service} sends WAV that is not 16-bit mono PCM: {form_text}")
        if rate != self._resampler.source:
            self._resampler = Resampler(rate, self._rate)
