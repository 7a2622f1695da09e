"""Whether peers are still there: a leg on which nothing arrives for too long is told of (RTP and RTCP count).

Not on hold, whoever holds: nearly no phone sends anything to whom it holds. What is counted is what was believed: a
stranger's packets, or ones that SRTP cannot open, keep no call up.
"""

from __future__ import annotations

from collections.abc import Iterable

from rustpbx.media.events import Direction, MediaSilent
from rustpbx.media.plane.leg import Leg

INTERVAL = 0.5
"""Seconds between two looks: how exact the time-out is."""

UNSEEN = -1
"""In `Leg.life`: the time begins with the next look."""


class Vigil:
    """Over the legs of one plane; `timeout` in seconds is for legs without a limit of their own (None: no limit)."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._next = 0.0

    def look(self, legs: Iterable[Leg], now: float) -> None:
        """Look at all legs, if it is time; `MediaSilent` for those that have been silent for too long."""
        if now < self._next:
            return
        self._next = now + INTERVAL
        for leg in legs:
            patience = self._timeout if leg.patience is None else leg.patience
            if patience is not None:
                self._look(leg, patience, now)

    def _look(self, leg: Leg, patience: float, now: float) -> None:
        life = leg.totals()[0] + leg.reporter.received
        if leg.stream is not None:
            life = leg.stream.fed
        elif leg.format is None or leg.format.direction is not Direction.SENDRECV:
            leg.life = UNSEEN
            return
        if life != leg.life:
            leg.life, leg.quiet_since = life, now
        elif now - leg.quiet_since >= patience and not leg.failed:
            leg.quiet_since = now
            leg.tell(MediaSilent(leg.name, patience))
