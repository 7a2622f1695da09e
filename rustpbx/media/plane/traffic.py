"""What all legs together sent and received, those that are closed included."""

from __future__ import annotations

import statistics
from collections.abc import Collection

import attrs

from rustpbx.media.events import LegStats


@attrs.frozen(kw_only=True)
class Traffic:
    """Packets since the start, counts that never fall; jitter, in seconds, of the legs that are open."""

    packets_sent: int = 0
    packets_received: int = 0
    packets_lost: int = 0
    packets_dropped: int = 0
    jitter_p50: float = 0.0
    jitter_worst: float = 0.0


class Ledger:
    """Keeps what closed legs had; a packet that was counted as lost stays so, though it came late."""

    def __init__(self) -> None:
        self._past = LegStats()
        self._most_lost = 0

    def close(self, stats: LegStats) -> None:
        """Take the last numbers of a leg."""
        self._past = _sum([self._past, stats])

    def total(self, legs: Collection[LegStats]) -> Traffic:
        """Everything so far; `legs` are those that are open."""
        whole = _sum([self._past, *legs])
        self._most_lost = max(self._most_lost, whole.packets_lost)
        jitter = [stats.jitter for stats in legs if stats.packets_received] or [0.0]
        return Traffic(
            packets_sent=whole.packets_sent,
            packets_received=whole.packets_received,
            packets_lost=self._most_lost,
            packets_dropped=whole.packets_dropped,
            jitter_p50=statistics.median(jitter),
            jitter_worst=max(jitter),
        )


def _sum(legs: Collection[LegStats]) -> LegStats:
    return LegStats(
        packets_sent=sum(stats.packets_sent for stats in legs),
        packets_received=sum(stats.packets_received for stats in legs),
        packets_lost=sum(stats.packets_lost for stats in legs),
        packets_dropped=sum(stats.packets_dropped for stats in legs),
    )
