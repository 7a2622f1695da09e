"""`Coder`: one leg's encoder and decoder, for codecs that are no table: Opus, G.722, plain samples.

All of them speak 16 kHz to the media plane, whatever they do inside.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from rustpbx.media.events import Pcm

RATE = 16000
"""Hz of what a coder takes and gives."""

WIDE = 320
"""Samples of a 20 ms frame at that rate."""


class Coder(Protocol):
    """The two directions of one stream, each with its own state. Samples are int16, mono, at 16 kHz."""

    @property
    def clock_rate(self) -> int:
        """Hz of the RTP time of this codec."""
        ...

    def encode(self, pcm: Pcm) -> bytes:
        """A frame (320,) as a payload; b"" if the codec wants nothing sent for it (silence with DTX)."""
        ...

    def decode(self, payload: bytes) -> Pcm:
        """The samples of one payload, as many as `duration` says. Raises `MediaError` for one that is malformed."""
        ...

    def conceal(self, following: bytes | None) -> Pcm:
        """A frame (320,) in place of one that was lost; `following` is the payload behind it, if it is here already."""
        ...

    def duration(self, payload: bytes) -> int:
        """How many samples a payload holds; 0 if it is malformed."""
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """A coder that can encode ahead in another thread; `Coder.encode` then has the packet already."""

    def expect(self, pcm: Pcm) -> None:
        """Say which frame (320,) will probably be encoded next."""
        ...

    def prepare(self) -> None:
        """Encode it, in whichever thread, without the GIL; nothing if it is too late for that."""
        ...
