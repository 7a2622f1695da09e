"""What the measurements must reach, and whether they do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from bench.messages import Messages
from bench.run import Run
from bench.signalling import Signalling

SMALL, MIDDLE, LARGE = 50, 200, 500
COMPARED = 100
"""Calls at which the naive design is measured: it holds no more."""

FURTHER_BAR = 0.13
CALL_BAR = 0.15
SENT_BAR = 99.9
JITTER_BAR = 5.0
NAIVE_BAR = 3.0
SETUP_BAR = 10.0


@attrs.frozen
class Verdict:
    """One bar: what is asked, what was found, and whether it held."""

    asked: str
    found: str
    held: bool

    def __str__(self) -> str:
        return f"{'held  ' if self.held else 'MISSED'}  {self.asked}: {self.found}"


@attrs.frozen(kw_only=True)
class Results:
    """All that was measured: runs of the plane by number of calls, of the naive server, and of signalling.

    `bare` is what each further call costs a loop that does nothing but receive and send, in per cent of a core.
    """

    plane: Mapping[int, Sequence[Run]]
    naive: Sequence[Run]
    bare: float
    embedded: Signalling
    websocket: Signalling
    busy: Signalling
    messages: Messages

    def best(self, calls: int) -> Run | None:
        """The cheapest run of so many calls that did its work: a server that sends less is cheap, not good."""
        return cheapest(self.plane.get(calls, ()))

    @property
    def further(self) -> float:
        """Per cent of a core for each call beyond the small number; fifty ticks a second have a price of their own."""
        small, middle = self.best(SMALL), self.best(MIDDLE)
        return (middle.cpu - small.cpu) / (MIDDLE - SMALL) if small and middle else math.inf

    @property
    def memory(self) -> float:
        """KB of memory for each further call."""
        small, large = self.best(SMALL), self.best(LARGE)
        return (large.memory - small.memory) / (LARGE - SMALL) / 1024 if small and large else math.inf

    @property
    def naive_ratio(self) -> float:
        """How many times cheaper a frame is here than in the naive design, at the same number of calls."""
        ours = self.best(COMPARED)
        naive = min((run.per_frame for run in self.naive), default=math.inf)
        return naive / ours.per_frame if ours else 0.0

    def verdicts(self) -> list[Verdict]:
        """Each bar in turn."""
        middle = max((run.sent for run in self.plane.get(MIDDLE, ())), default=0.0)
        large = self.best(LARGE)
        jitter = min((run.jitter_p99 for run in self.plane.get(LARGE, ())), default=math.inf)
        return [
            at_most(f"each call beyond {SMALL}, per cent of a core", self.further, FURTHER_BAR, 4),
            at_least(f"per cent of frames sent at {MIDDLE} calls", middle, SENT_BAR),
            at_most(
                f"a call of {LARGE}, per cent of a core, with {SENT_BAR} % of frames sent",
                large.per_call if large else math.inf,
                CALL_BAR,
                4,
            ),
            at_most(f"send jitter p99 at {LARGE} calls, ms", jitter, JITTER_BAR),
            at_least(f"times cheaper per frame than the naive design at {COMPARED} calls", self.naive_ratio, NAIVE_BAR),
            at_most("INVITE to 200 p95, agent in the server's process, ms", self.embedded.p95, SETUP_BAR),
        ]


def cheapest(runs: Sequence[Run]) -> Run | None:
    """See `Results.best`."""
    return min((run for run in runs if run.sent >= SENT_BAR), key=lambda run: run.cpu, default=None)


def quickest(runs: Sequence[Signalling]) -> Signalling:
    """The run with the shortest p95; one that lost a call counts only if all did."""
    return min(runs, key=lambda run: (run.ended < run.begun, run.p95))


def at_most(asked: str, found: float, bar: float, digits: int = 2) -> Verdict:
    """A bar that must not be exceeded."""
    return Verdict(f"{asked}, at most {bar:g}", f"{found:.{digits}f}", found <= bar)


def at_least(asked: str, found: float, bar: float) -> Verdict:
    """A bar that must be reached."""
    return Verdict(f"{asked}, at least {bar:g}", f"{found:.2f}", found >= bar)
