"""Whether speech that begins while we speak is meant for us: a cough is not, nor is our own voice that comes back.

Short noises are the detector's matter (`speech_padding`). Here are words: with `vad.minWords` speech counts, while we
speak, once so many words were heard that we are not saying ourselves.
"""

from __future__ import annotations

import re
from collections import deque

from rustpbx.media.events import SpeechEnded, SpeechStarted
from rustpbx.speech.base import Transcript

MOST_SAID = 50
"""Texts of ours that are remembered: what an echo may be made of."""

_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """What counts as a word, in lower case."""
    return _WORD.findall(text.lower())


class BargeIn:
    """Holds speech back until it counts. `least` words are needed; 0 is none, and nothing is ever held."""

    def __init__(self) -> None:
        self.least = 0
        self._said: deque[str] = deque(maxlen=MOST_SAID)
        self._held: SpeechStarted | None = None
        self._ended: SpeechEnded | None = None

    def says(self, text: str, *, anew: bool) -> None:
        """We say this; `anew` if nothing of what we said before can be heard any more."""
        if anew:
            self._said.clear()
        self._said.append(text)

    def began(self, fact: SpeechStarted, *, speaking: bool) -> list[SpeechStarted | SpeechEnded]:
        """The far end speaks, while we do or not; what counts of it now."""
        self._held = self._ended = None
        if not (speaking and self.least):
            return [fact]
        self._held = fact
        return []

    def ended(self, fact: SpeechEnded, *, speaking: bool) -> list[SpeechStarted | SpeechEnded]:
        """It has stopped. Words may still come for it; while we do not speak any more it counts as it is."""
        if self._held is None:
            return [fact]
        if speaking:
            self._ended = fact
            return []
        return [self._take(), fact]

    def heard(self, transcript: Transcript, *, speaking: bool) -> list[SpeechStarted | SpeechEnded]:
        """Words of it; the speech that counts for them."""
        if self._held is None or (speaking and self._foreign(transcript.text) < self.least):
            if transcript.final and self._ended is not None:
                self._held = self._ended = None
            return []
        ended = self._ended
        return [self._take(), *([ended] if ended is not None else [])]

    def _take(self) -> SpeechStarted:
        held, self._held, self._ended = self._held, None, None
        assert held is not None  # noqa: S101 - asked before
        return held

    def _foreign(self, text: str) -> int:
        """How many words are none of ours."""
        ours = {word for said in self._said for word in words(said)}
        return sum(word not in ours for word in words(text))
