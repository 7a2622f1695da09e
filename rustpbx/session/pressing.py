"""Keys of the remote party that come in more than one way: each is one press."""

from __future__ import annotations

from rustpbx.media import events as media
from rustpbx.sip import events as sip

SAME = 1.0
"""Seconds within which a key that was found in the audio and then told by SIP is one press."""


class Presses:
    """Which digits are new presses.

    Who sends keys as RTP events or by SIP INFO may let their tones be heard as well: what is in the audio counts only
    until the first key came another way, and the one that did so is not counted twice.
    """

    def __init__(self) -> None:
        self._elsewhere = False
        self._last: tuple[str, float] | None = None  # the last one that was found in the audio

    def new(self, fact: media.DigitPressed | sip.DigitReceived, now: float) -> bool:
        """Whether this is a press that has not been told."""
        if isinstance(fact, media.DigitPressed) and fact.inband:
            self._last = (fact.digit, now)
            return not self._elsewhere
        last, self._last = self._last, None
        told = not self._elsewhere and last is not None and last[0] == fact.digit and now - last[1] < SAME
        self._elsewhere = True
        return not told
