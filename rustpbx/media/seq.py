"""Sequence numbers and loss statistics of one received stream (RFC 3550 appendix A.1, A.3, A.8)."""

from __future__ import annotations

import attrs

MAX_DROPOUT = 3000
"""A forward jump up to here is loss; beyond, the sender may have restarted."""

MAX_MISORDER = 100
"""A packet up to this far behind is late; beyond, the sender may have restarted."""

MIN_SEQUENTIAL = 2
"""So many packets in sequence make a source valid."""


def extend(value: int, near: int, bits: int = 16) -> int:
    """The integer closest to `near` whose low `bits` are `value`: unwraps sequence numbers (16) and times (32)."""
    size = 1 << bits
    return near + ((value - near + size // 2) % size) - size // 2


@attrs.frozen
class LossReport:
    """What a report block says of the time since the last one: `fraction` in 1/256, `lost` in total, highest seen."""

    fraction: int
    lost: int
    highest: int


class Reception:
    """Counts what arrives from one SSRC. `clock_rate` is that of its RTP timestamps, in Hz."""

    def __init__(self, clock_rate: int = 8000) -> None:
        self.clock_rate = clock_rate
        self.received = 0
        self.highest = 0
        self._base = 0
        self._probation = MIN_SEQUENTIAL
        self._expected_next: int | None = None
        self._suspect: int | None = None
        self._reported = (0, 0)
        self._transit: tuple[float, int] | None = None
        self._jitter = 0.0

    @property
    def valid(self) -> bool:
        """Whether enough packets came in sequence for this to be a real source."""
        return self._probation == 0

    @property
    def expected(self) -> int:
        """How many packets there were, by their sequence numbers."""
        return self.highest - self._base + 1 if self.valid else 0

    @property
    def lost(self) -> int:
        """Expected less received; negative where packets came twice."""
        return self.expected - self.received

    @property
    def jitter(self) -> int:
        """Interarrival jitter in ticks of the clock, as a report block carries it."""
        return int(self._jitter)

    @property
    def jitter_seconds(self) -> float:
        """Interarrival jitter in seconds."""
        return self._jitter / self.clock_rate

    def receive(self, sequence: int, rtp_time: int, arrival: float) -> bool:
        """Count one packet that arrived at `arrival` (seconds). False if it must not be played: still on probation,
        or a lone jump that may be a stray.
        """
        if not self._place(sequence):
            return False
        self.received += 1
        self._measure(rtp_time, arrival)
        return True

    def _place(self, sequence: int) -> bool:
        if not self.valid:
            in_sequence = sequence == self._expected_next
            self._probation = self._probation - 1 if in_sequence else MIN_SEQUENTIAL - 1
            self._expected_next = (sequence + 1) & 0xFFFF
            if self.valid:
                self._restart(sequence)
            return self.valid
        extended = extend(sequence, self.highest)
        if -MAX_MISORDER < extended - self.highest < MAX_DROPOUT:
            self.highest = max(self.highest, extended)
            self._suspect = None
            return True
        if sequence != self._suspect:  # A.1: two in sequence after a jump mean that the other side restarted
            self._suspect = (sequence + 1) & 0xFFFF
            return False
        self._restart(sequence)
        return True

    def _restart(self, sequence: int) -> None:
        self._base = self.highest = sequence
        self._suspect = None
        self.received = 0
        self._reported = (0, 0)
        self._transit = None

    def _measure(self, rtp_time: int, arrival: float) -> None:
        """A.8. Differences of 32-bit times, so that a wrap is no jitter."""
        if self._transit is not None:
            then, before = self._transit
            ticks = extend(rtp_time, before, 32) - before
            difference = abs((arrival - then) * self.clock_rate - ticks)
            self._jitter += (difference - self._jitter) / 16
        self._transit = (arrival, rtp_time)

    def report(self) -> LossReport:
        """Loss for the next report block; the fraction counts from the previous call (A.3)."""
        expected, received = self.expected, self.received
        expected_since = expected - self._reported[0]
        lost_since = expected_since - (received - self._reported[1])
        self._reported = (expected, received)
        fraction = min(255, (lost_since << 8) // expected_since) if expected_since > 0 and lost_since > 0 else 0
        lost = max(-0x800000, min(0x7FFFFF, self.lost))
        return LossReport(fraction, lost, self.highest & 0xFFFFFFFF)
