"""A text before it is spoken: cut into sentences while it is still being written, and freed of what has no sound."""

from __future__ import annotations

import re

import attrs

LONGEST = 300
"""Characters of one piece. A text without an end of sentence is cut at its last comma or space before this."""

_CLOSING = re.escape("\"'”’»)]}」』）】》")  # noqa: RUF001 - these are the characters
_WIDE_ENDS = "。！？；…｡"  # noqa: RUF001
_ENDS = re.compile(
    # A CJK sentence ends with its mark, one in other scripts with its mark and the space behind it; a line always ends.
    rf"[{_WIDE_ENDS}]+[{_CLOSING}]*|[.!?‼⁇⁉।؟]+[{_CLOSING}]*(?=\s)|\n+"
)
_NO_END = re.compile(
    # Initials, ordinals ("am 3. Mai") and what is usually followed by a name or a number.
    r"(?:^|[\s(])(?:\w|\d{1,2}|(?:Dr|Prof|Mr|Mrs|Ms|St|Jr|Sr|Nr|No|Str|bzw|ca|vgl|inkl|etc|usw|evtl|Hr|Fr|Mme|Mlle|"
    r"Sra?|approx|vs|e\.g|i\.e|z\. ?B|d\. ?h|u\. ?a))\.$",
    re.IGNORECASE,
)
_SETTLED = re.compile(rf"[.!?{_WIDE_ENDS}][{_CLOSING}]*\s*$")
_SPLITS = re.compile(r"[,;:，、：\s]")  # noqa: RUF001
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2300-\u23ff\ufe0f\u200d\u20e3\U000e0020-\U000e007f]"
)


def without_emoji(text: str) -> str:
    """The text with a space for each character that no voice can say, so that indices into it stay what they were."""
    return _EMOJI.sub(" ", text)


@attrs.frozen
class Sentence:
    """A piece to say, without space around it. `start` is the index of its first character in the whole text."""

    text: str
    start: int


class Sentences:
    """Cuts a text that arrives in pieces. All words that were fed come out once, in order."""

    def __init__(self) -> None:
        self._rest = ""
        self._start = 0

    @property
    def pending(self) -> bool:
        """Whether there are words that belong to no whole sentence yet."""
        return bool(self._rest.strip())

    @property
    def settled(self) -> bool:
        """Whether what is pending looks whole: only what comes next could say otherwise."""
        return _SETTLED.search(self._rest) is not None and not _NO_END.search(self._rest.rstrip())

    def feed(self, text: str) -> list[Sentence]:
        """Take more text, and return the sentences that are whole now."""
        text, found, at = self._rest + text, [], 0
        while (end := _end(text, at)) is not None:
            found.append(_sentence(text[at:end], self._start + at))
            at = end
        self._rest, self._start = text[at:], self._start + at
        return [sentence for sentence in found if sentence.text]

    def flush(self) -> list[Sentence]:
        """No more is coming, or not soon: return what is left."""
        rest = _sentence(self._rest, self._start)
        self._start += len(self._rest)
        self._rest = ""
        return [rest] if rest.text else []


def _sentence(text: str, start: int) -> Sentence:
    words = text.lstrip()
    return Sentence(words.rstrip(), start + len(text) - len(words))


def _end(text: str, at: int) -> int | None:
    """Where the sentence that begins at `at` ends; None if that is not known yet."""
    limit = at + LONGEST
    for match in _ENDS.finditer(text, at, limit + 1):
        if not (match[0].startswith(".") and _NO_END.search(text[at : match.end()])):
            return match.end()
    if len(text) <= limit:
        return None
    splits = [match.end() for match in _SPLITS.finditer(text, at, limit)]
    return splits[-1] if splits else limit
