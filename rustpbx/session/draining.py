"""`after: "drained"`: a `hangup` or `refer` that waits until all that was to be said has left us."""

from __future__ import annotations

from rustpbx.session import commands
from rustpbx.session.playback import Drained, Output, ServerTrack
from rustpbx.session.reporting import Reporter

DRAINED = "drained"
"""The one thing that can be waited for."""


class Draining:
    """At most one command waits; the next one takes its place."""

    def __init__(self, track: ServerTrack, report: Reporter) -> None:
        self._track = track
        self._report = report
        self._waiting: commands.Hangup | commands.Refer | None = None

    @property
    def waits(self) -> bool:
        """Whether a command waits."""
        return self._waiting is not None

    def take(self, command: commands.Hangup | commands.Refer, now: float) -> list[Output] | None:
        """Let a command wait; None if it is to be carried out now."""
        if command.after is not None and command.after != DRAINED:
            problem = f"{command.name}.after: {command.after[:40]!r} is not {DRAINED}"
            return [*self._report.error("command", problem, None, now)]
        self._waiting = None if command.after is None else command
        return None if command.after is None else self._track.finish(now)

    def refusal(self, command: commands.Tts | commands.Play) -> str | None:
        """Why nothing more can be said; None if it can."""
        if self._waiting is None:
            return None
        return f"{command.name} is not possible: a {self._waiting.name} waits for the last word"

    def released(self, now: float) -> list[Output]:
        """What waited for the answer plays now: it is the last."""
        return [] if self._waiting is None else self._track.finish(now)

    def due(self, *, held: bool) -> list[Output]:
        """The command that waits, if its time has come; `held` if something still waits for the answer."""
        if self._waiting is None or held or self._track.busy:
            return []
        waiting, self._waiting = self._waiting, None
        return [Drained(waiting)]
