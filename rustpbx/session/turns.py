"""How long an exchange takes, on one clock: the far end falls silent, its words come, the agent answers, is heard."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rustpbx.session.events import Metrics


@attrs.define
class _Turn:
    """Moments in monotonic seconds; None for what has not been."""

    ended: float
    words: float | None = None
    command: float | None = None
    audio: float | None = None


class Turns:
    """The exchange that is under way. One metric for each: `turn`, with the milliseconds from the end of the far end's
    speech to each step in `data`, and to our first packet in `duration`.
    """

    def __init__(self, wall: Callable[[float], int]) -> None:
        self._wall = wall
        self._turn: _Turn | None = None

    def begins(self) -> None:
        """The far end speaks: what was under way is none any more."""
        self._turn = None

    def ends(self, at: float) -> None:
        """The far end fell silent at `at`."""
        self._turn = _Turn(at)

    def words(self, spoken_until: float, now: float) -> None:
        """Its final words are there."""
        if self._turn is None:
            self._turn = _Turn(spoken_until)
        if self._turn.command is None:
            self._turn.words = now

    def command(self, now: float) -> None:
        """The agent says something, or plays a file."""
        if self._turn is not None and self._turn.command is None:
            self._turn.command = now

    def audio(self, now: float) -> None:
        """The first audio of it has come from its service."""
        if self._turn is not None and self._turn.command is not None and self._turn.audio is None:
            self._turn.audio = now

    def heard(self, play_id: str | None, now: float) -> list[Metrics]:
        """The first packet of a playback has left."""
        turn = self._turn
        if turn is None or turn.command is None:
            return []
        self._turn = None
        steps = {"asrFinal": turn.words, "command": turn.command, "firstAudio": turn.audio, "firstPacket": now}
        data: dict[str, object] = {name: _since(turn, at) for name, at in steps.items() if at is not None}
        data |= {"playId": play_id} if play_id is not None else {}
        return [Metrics(timestamp=self._wall(now), key="turn", duration=_since(turn, now), data=data)]


def _since(turn: _Turn, at: float) -> int:
    return round(1000 * (at - turn.ended))
