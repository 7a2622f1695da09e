"""What waits to be said in one playback: bounded, and remembered until it has been heard."""

from __future__ import annotations

from collections import deque

import attrs

MAX_ENTRIES = 1000
MAX_TEXT = 256 * 1024
MAX_AUDIO = 10 * 1024 * 1024
"""Utterances, bytes of text and bytes of PCM that may wait; an agent that is further ahead is out of control."""
KEPT = 100
"""Texts remembered behind the last one written: one of them is being heard."""


@attrs.frozen
class _Item:
    number: int
    text: str
    size: int
    audio: int


class Backlog:
    """The utterances of one playback by number: those that wait, and the last ones that have been written."""

    def __init__(self) -> None:
        self.said = 0
        """The next one's number."""
        self._waiting: deque[_Item] = deque()
        self._written: deque[_Item] = deque(maxlen=KEPT)
        self._text = 0
        self._audio = 0

    def refusal(self, text: str, pcm: bytes | None) -> str | None:
        """Why one more cannot be taken; None if it can."""
        if len(self._waiting) >= MAX_ENTRIES:
            return f"more than {MAX_ENTRIES} texts wait in this playback"
        if self._text + len(text.encode()) > MAX_TEXT:
            return f"more than {MAX_TEXT // 1024} KB of text wait in this playback"
        if self._audio + len(pcm or b"") > MAX_AUDIO:
            return f"more than {MAX_AUDIO // 1024 // 1024} MB of audio wait in this playback"
        return None

    def add(self, text: str, pcm: bytes | None) -> int:
        """Take one more; its number."""
        item = _Item(self.said, text, len(text.encode()), len(pcm or b""))
        self._waiting.append(item)
        self._text += item.size
        self._audio += item.audio
        self.said += 1
        return item.number

    def written(self, number: int) -> None:
        """This one, and those before it, do not wait any more."""
        while self._waiting and self._waiting[0].number <= number:
            item = self._waiting.popleft()
            self._text -= item.size
            self._audio -= item.audio
            self._written.append(item)
        while len(self._written) > 1 and sum(item.size for item in self._written) > MAX_TEXT:
            self._written.popleft()

    def text(self, number: int | None) -> str | None:
        """The text of an utterance that is not forgotten yet; None for one without words."""
        found = (item.text for queue in (self._written, self._waiting) for item in queue if item.number == number)
        return next(found, None) or None
