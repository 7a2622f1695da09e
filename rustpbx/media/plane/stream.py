"""`Stream`: a leg without ports, whose audio comes and goes as bytes in somebody else's messages (a WebSocket's).

There is no packet, no number and no time in it, so it is cut into frames here, which go on into the jitter buffer as it
has room: a burst is heard at the pace of speech, and later audio behind it.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rustpbx.errors import MediaError

LONGEST = 250
"""Frames that may wait: 5 s. The oldest are dropped for newer ones."""

AHEAD = 3
"""Frames that the jitter buffer holds of it."""


@attrs.frozen
class StreamFormat:
    """A stream of `codec` (`pcm`, `pcmu`, `pcma`, `g722`): so many bytes are 20 ms, and `unit` of them one sample."""

    codec: str
    frame: int
    unit: int


PCM = StreamFormat("pcm", 640, 2)
FORMATS = {
    form.codec: form
    for form in (PCM, StreamFormat("pcmu", 160, 1), StreamFormat("pcma", 160, 1), StreamFormat("g722", 160, 1))
}


class Stream:
    """Both directions. `sink` is called with each frame that is played, on the plane's tick: it must not wait."""

    def __init__(self, form: StreamFormat, sink: Callable[[bytes], None]) -> None:
        self.form = form
        self.sink = sink
        self.fed = 0  # messages so far
        self._waiting = bytearray()

    def feed(self, data: bytes) -> int:
        """Take what was received; how many frames were dropped for it.

        Raises `MediaError`, and takes nothing, for a part of a sample or more than five seconds at once.
        """
        if len(data) % self.form.unit:
            raise MediaError(f"{len(data)} bytes of {self.form.codec} are no whole samples")
        if len(data) > LONGEST * self.form.frame:
            raise MediaError(f"{len(data)} bytes of {self.form.codec} in one message: at most five seconds")
        self.fed += 1
        self._waiting += data
        surplus = len(self._waiting) - LONGEST * self.form.frame
        dropped = -(-surplus // self.form.frame) if surplus > 0 else 0
        del self._waiting[: dropped * self.form.frame]
        return dropped

    def next(self) -> bytes | None:
        """The next whole frame."""
        size = self.form.frame
        if len(self._waiting) < size:
            return None
        frame = bytes(self._waiting[:size])
        del self._waiting[:size]
        return frame

    @property
    def ready(self) -> bool:
        """Whether there is one."""
        return len(self._waiting) >= self.form.frame
