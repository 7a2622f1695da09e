"""SIP messages as people draw them: a lane for each host, an arrow for each message, media as a count.

Pure: `draw` takes what passed between hosts and returns text. `rustpbx.sip.trace` draws the messages of one call so,
`rustpbx.testing.ladder` the transcript of a whole wire.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import attrs

WIDTH = 120
MARGIN = 10
"""Columns for the time."""
WIDEST_LANE = 40

_CSEQ = re.compile(rb"^CSeq[ \t]*:[ \t]*(\d+)[ \t]+(\S+)", re.IGNORECASE | re.MULTILINE)


@attrs.frozen
class Rung:
    """One datagram between two hosts. `lost` says what became of one that did not arrive; `media` is only counted."""

    at: float
    source: str
    destination: str
    data: bytes
    lost: str = ""
    media: bool = False


def draw(
    rungs: Iterable[Rung],
    names: Mapping[str, str] | None = None,
    *,
    time: Callable[[float], str] = "{:.3f}".format,
    margin: int = MARGIN,
) -> str:
    """Draw datagrams in their order, at most 120 columns wide for up to four hosts.

    A repeated message is marked `again`; one that did not arrive ends in `x` and says what became of it. Media between
    two messages is one line. `names` are what hosts are called, `time` writes the time of a rung in `margin` columns.
    """
    return "\n".join(_Ladder(list(rungs), names or {}, time, margin).lines()) + "\n"


@attrs.define
class _Ladder:
    rungs: list[Rung]
    names: Mapping[str, str]
    time: Callable[[float], str]
    margin: int
    _media: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    _seen: set[tuple[str, str, bytes]] = attrs.field(factory=set)
    _hosts: list[str] = attrs.field(init=False)
    _lane: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._hosts = list(dict.fromkeys(host for rung in self.rungs for host in (rung.source, rung.destination)))
        self._lane = min(WIDEST_LANE, (WIDTH - self.margin) // max(1, len(self._hosts)))

    def lines(self) -> list[str]:
        """All of them, the hosts first."""
        lines = [self._heading()]
        for rung in self.rungs:
            if rung.media:
                self._media[rung.source, rung.destination] += 1
            else:
                lines += self._media_lines()
                lines.append(self._arrow(rung))
        return [line.rstrip() for line in lines + self._media_lines()]

    def _x(self, host: str) -> int:
        return self.margin + self._hosts.index(host) * self._lane + self._lane // 2

    def _heading(self) -> str:
        cells = [self.names.get(host, host)[: self._lane - 1].center(self._lane) for host in self._hosts]
        return " " * self.margin + "".join(cells)

    def _empty(self, time: str = "") -> list[str]:
        line = list(time.rjust(self.margin - 2).ljust(self.margin + len(self._hosts) * self._lane))
        for host in self._hosts:
            line[self._x(host)] = "|"
        return line

    def _arrow(self, rung: Rung) -> str:
        text, about = _label(rung.data)
        key = (rung.source, rung.destination, rung.data)
        if key in self._seen:
            about += " again"
        self._seen.add(key)
        if rung.lost:
            about += f" {rung.lost}"
        room = abs(self._x(rung.source) - self._x(rung.destination)) - 5 - len(about)
        text = (text if rung.source == rung.destination else text[: max(0, room)]) + about
        return self._across(rung, text, "-", self._empty(self.time(rung.at)), "x" if rung.lost else "")

    def _media_lines(self) -> list[str]:
        lines = []
        for (source, destination), count in self._media.items():
            here, there = self._x(source), self._x(destination)
            text = f"RTP x {count} {'>' if there > here else '<'}"
            lines.append(self._across(Rung(0.0, source, destination, b""), text, ".", self._empty(), "."))
        self._media.clear()
        return lines

    def _across(self, rung: Rung, text: str, fill: str, line: list[str], head: str) -> str:
        """`line` with a shaft from lane to lane, and `text` in its middle."""
        here, there = self._x(rung.source), self._x(rung.destination)
        if here == there:  # to itself
            line[here + 2 : here + 2 + len(text)] = text
            return "".join(line)
        left, right = min(here, there), max(here, there)
        line[left + 1 : right] = f" {text} "[: right - left - 3].center(right - left - 1, fill)
        line[right - 1 if there > here else left + 1] = head or (">" if there > here else "<")
        return "".join(line)


def _label(data: bytes) -> tuple[str, str]:
    """What a message is, which may be cut short, and which one: `200 OK` and ` (1 INVITE)`."""
    first = data[:500].split(b"\r\n", 1)[0].decode("utf-8", "replace")
    first = "".join(c if c.isprintable() else "?" for c in first)
    found = _CSEQ.search(data)
    number, method = (found[1].decode(), found[2].decode("ascii", "replace")) if found else ("?", "?")
    if first.startswith("SIP/2.0 "):
        return first[8:], f" ({number} {method})"
    return first.split(" ", 1)[0], f" ({number})" + (" sdp" if b"\r\n\r\nv=0" in data else "")
