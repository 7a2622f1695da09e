"""The demo's story: who did what when, printed as it happens and kept for `demo.json`."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs

LANES = {
    "phone": "phone",
    "sip": "SIP",
    "webhook": "webhook",
    "command": "agent >",
    "event": "agent <",
    "note": "",
}


@attrs.frozen
class Entry:
    """One thing that happened: epoch seconds, the call it belongs to, who it concerns, and a line about it."""

    at: float
    call: str
    lane: str
    text: str
    detail: object = None


class Timeline:
    """Collects entries and prints each at once, with seconds since the call's first entry."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.entries: list[Entry] = []
        self._write = write
        self._start: dict[str, float] = {}

    def add(self, call: str, lane: str, text: str, at: float | None = None, detail: object = None) -> Entry:
        """Note something; `at` is epoch seconds, None is now; `detail` (JSON) is for `demo.json` only."""
        entry = Entry(time.time() if at is None else at, call, lane, text, detail)
        self.entries.append(entry)
        since = entry.at - self._start.setdefault(call, entry.at)
        self._write(f"{since:8.3f}  {LANES[lane]:<8} {text}")
        return entry

    def heading(self, text: str) -> None:
        """Print a line that belongs to no call."""
        self._write("")
        self._write(text)

    def of(self, call: str) -> list[dict[str, object]]:
        """The entries of one call by time, times relative to its first."""
        mine = sorted((entry for entry in self.entries if entry.call == call), key=lambda entry: entry.at)
        if not mine:
            return []
        start = mine[0].at
        return [
            {
                "at": round(entry.at - start, 3),
                "who": entry.lane,
                "what": entry.text,
                **({"detail": entry.detail} if entry.detail is not None else {}),
            }
            for entry in mine
        ]
