"""Mutations of text in lines: a header field moved, doubled, lost or given another's value.

Byte by byte a fuzzer finds these one in a million; most of what breaks a parser of lines is among them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

SHARE = 0.5
"""How many inputs are mutated by lines; the others byte by byte, by the fuzzer's own means."""


def mutate_lines(data: bytes, longest: int, rng: random.Random) -> bytes:
    """One to three edits of whole lines or of what follows their first colon or equals sign."""
    end = b"\r\n" if b"\r\n" in data else b"\n"
    lines = data.split(end)
    for _ in range(rng.randint(1, 3)):
        rng.choice(_EDITS)(lines, rng)
    return end.join(lines)[:longest]


def _lose(lines: list[bytes], rng: random.Random) -> None:
    if len(lines) > 1:
        del lines[rng.randrange(len(lines))]


def _double(lines: list[bytes], rng: random.Random) -> None:
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))


def _move(lines: list[bytes], rng: random.Random) -> None:
    line = lines.pop(rng.randrange(len(lines)))
    lines.insert(rng.randrange(len(lines) + 1), line)


def _swap_value(lines: list[bytes], rng: random.Random) -> None:
    to, source = rng.randrange(len(lines)), rng.choice(lines)
    lines[to] = _halves(lines[to])[0] + _halves(source)[1]


def _cut_value(lines: list[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    name, value = _halves(lines[at])
    begin = rng.randrange(len(value) + 1)
    lines[at] = name + value[:begin] + value[rng.randrange(begin, len(value) + 1) :]


def _repeat_value(lines: list[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    name, value = _halves(lines[at])
    lines[at] = name + rng.choice((b", ", b",", b";", b"", b"\r\n ")).join([value] * rng.choice((2, 3, 80)))


def _change_number(lines: list[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    digits = [place for place, letter in enumerate(lines[at]) if 48 <= letter <= 57]
    if digits:
        place = rng.choice(digits)
        put = rng.choice((b"0", b"00", b"-1", b"65536", b"4294967296", b"99999999999999999999", b"", b"1.5"))
        lines[at] = lines[at][:place] + put + lines[at][place + 1 :]


def _halves(line: bytes) -> tuple[bytes, bytes]:
    places = [place for mark in (b":", b"=") if (place := line.find(mark)) >= 0]
    at = min(places, default=-1) + 1
    return line[:at], line[at:]


_EDITS: tuple[Callable[[list[bytes], random.Random], None], ...] = (
    _lose,
    _double,
    _move,
    _swap_value,
    _cut_value,
    _repeat_value,
    _change_number,
)
