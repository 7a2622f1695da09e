"""Word error rate on normalised text: how much of what was said came through."""

from __future__ import annotations

import re

_CONTRACTIONS = {
    "can't": "can not",
    "cannot": "can not",
    "won't": "will not",
    "shan't": "shall not",
    "let's": "let us",
    "ma'am": "madam",
    "it's": "it is",
    "that's": "that is",
    "there's": "there is",
    "here's": "here is",
    "what's": "what is",
    "who's": "who is",
    "where's": "where is",
    "he's": "he is",
    "she's": "she is",
    "gonna": "going to",
    "wanna": "want to",
    "ok": "okay",
    "mr": "mister",
    "dr": "doctor",
}
_ENDINGS = (("n't", " not"), ("'re", " are"), ("'ve", " have"), ("'ll", " will"), ("'d", " would"), ("'m", " am"))
_ONES = tuple(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "  # noqa: SIM905
    "seventeen eighteen nineteen".split()
)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def words(text: str) -> list[str]:
    """The words of `text` in one common spelling.

    Lower case, no punctuation, contractions spelled out (`I'd` is `i would`), whole numbers below 10,000 and
    ordinals as words (`21` is `twenty one`), longer ones digit by digit.
    """
    plain = text.lower().replace("\u2019", "'").replace("\u2018", "'").replace("%", " percent ").replace("&", " and ")
    plain = re.sub(r"(?<=\d),(?=\d{3}\b)", "", plain)
    return [word for token in _TOKEN.findall(plain) for word in _spelled(token)]


def _spelled(token: str) -> list[str]:
    if token in _CONTRACTIONS:
        return _CONTRACTIONS[token].split()
    ordinal = re.fullmatch(r"([0-9]{1,4})(?:st|nd|rd|th)", token)
    if ordinal:
        *head, last = _number(ordinal[1])
        return [*head, _ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")]
    if token.isascii() and token.isdecimal():
        return _number(token)
    for ending, spelled in _ENDINGS:
        if token.endswith(ending) and token != ending:
            return (token.removesuffix(ending) + spelled).split()
    return [token.replace("'", "")]


def _number(digits: str) -> list[str]:
    if len(digits) > 4 or (len(digits) > 1 and digits[0] == "0"):
        return [_ONES[int(digit)] for digit in digits]
    return _below_ten_thousand(int(digits))


def _below_ten_thousand(number: int) -> list[str]:
    if number < 20:
        return [_ONES[number]]
    if number < 100:
        tens, ones = divmod(number, 10)
        return [_TENS[tens - 2], *([_ONES[ones]] if ones else [])]
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    high, low = divmod(number, size)
    return [*_below_ten_thousand(high), name, *(_below_ten_thousand(low) if low else [])]


def word_errors(reference: list[str], heard: list[str]) -> int:
    """Fewest substitutions, insertions and deletions that turn `reference` into `heard`."""
    row = list(range(len(heard) + 1))
    for i, wanted in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, got in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (wanted != got))
    return row[-1]


def word_error_rate(reference: str, heard: str) -> float:
    """Word errors per word of the reference, both normalised by `words`; may exceed 1.

    An empty reference gives 0.0 for silence and 1.0 for anything heard.
    """
    wanted, got = words(reference), words(heard)
    if not wanted:
        return float(bool(got))
    return word_errors(wanted, got) / len(wanted)
