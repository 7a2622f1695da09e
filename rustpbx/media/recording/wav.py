"""The header of a WAV file of 16-bit PCM (Microsoft's RIFF/WAVE): 44 bytes, of which two numbers grow with the file."""

from __future__ import annotations

import struct

import attrs

CHANNELS = 2
FRAME = 2 * CHANNELS
"""Bytes of one sample of both channels."""

HEADER = 44
LONGEST = (2**32 - 1 - HEADER) // FRAME * FRAME
"""Bytes of audio that the header can tell: 18 hours at 16 kHz."""

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


@attrs.frozen
class WavHeader:
    """What the file says of itself: `rate` in Hz, `size` in bytes of audio behind the header."""

    rate: int
    size: int = 0

    def encode(self) -> bytes:
        """The 44 bytes; a size beyond `LONGEST` is told as that."""
        size = min(self.size, LONGEST)
        riff = (b"RIFF", HEADER - 8 + size, b"WAVE")
        form = (b"fmt ", 16, 1, CHANNELS, self.rate, self.rate * FRAME, FRAME, 16)
        return _HEADER.pack(*riff, *form, b"data", size)
