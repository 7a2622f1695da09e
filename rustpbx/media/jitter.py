"""The adaptive jitter buffer: how long to hold audio back (`DelayEstimator`), and one call's buffer that obeys it.

The policy, in four numbers per stream, so that arrays can follow it too. With transit = arrival - timestamp / rate:
`base` is the least transit and `worst` the second largest of the last 5 to 10 s (one stray packet is not jitter);
target = worst - base + 20 ms, held between 20 and 200 ms, and at least 40 ms for the first 5 s. A packet is due at
timestamp / rate + base + target. The delay grows whenever it must and shrinks only in silence, a frame at a time.
"""

from __future__ import annotations

import math
from enum import Enum

import attrs

from rustpbx.media.seq import MAX_DROPOUT, MAX_MISORDER, extend

START = 0.040
"""Least target until a whole window has been measured, in seconds."""

LEAST, MOST = 0.020, 0.200
"""Bounds of the target, in seconds."""

MARGIN = 0.020
"""Added to the jitter seen: the reader comes by every 20 ms, not when a packet is due."""

WINDOW = 5.0
"""Seconds a measurement counts, once it is in a full window."""

RESET = 1.0
"""A transit this far (seconds) from `base` means that the sender began a new timeline."""


class Gap(Enum):
    """What `JitterBuffer.take` gives when it has no frame."""

    LOST = "lost"  # conceal one frame: it will not come in time
    WAIT = "wait"  # conceal or stay silent: nothing is due yet


@attrs.define
class _Window:
    least: float = math.inf
    most: float = -math.inf
    second: float = -math.inf

    def add(self, transit: float) -> None:
        self.least = min(self.least, transit)
        self.second = max(self.second, min(self.most, transit))
        self.most = max(self.most, transit)


class DelayEstimator:
    """The target delay of one stream, from its packets' times. Pure; times in seconds."""

    def __init__(self) -> None:
        self._window = _Window()
        self._before: _Window | None = None
        self._window_ends = -math.inf

    @property
    def base(self) -> float:
        """The least transit; infinity before the first packet."""
        return min(self._window.least, self._before.least if self._before else math.inf)

    @property
    def target(self) -> float:
        """How long after the earliest possible moment a packet is played."""
        worst = max(self._window.second, self._before.second if self._before else -math.inf)
        wanted = max(0.0, worst - self.base) + MARGIN if worst > -math.inf else START
        return min(MOST, max(wanted, LEAST if self._before else START))

    def observe(self, transit: float, now: float) -> bool:
        """Take one packet's transit. False if it began a new timeline: then everything before is forgotten."""
        fresh = self.base < math.inf and abs(transit - self.base) > RESET
        if fresh:
            self._window, self._before = _Window(), None
            self._window_ends = -math.inf
        if self._window_ends == -math.inf:
            self._window_ends = now + WINDOW
        elif now >= self._window_ends:
            self._before, self._window = self._window, _Window()
            self._window_ends = now + WINDOW
        self._window.add(transit)
        return not fresh


@attrs.define
class JitterCounts:
    """What became of packets: every one put is taken, still there, or counted here once."""

    late: int = 0
    duplicate: int = 0
    overflow: int = 0
    shrunk: int = 0
    stray: int = 0
    lost: int = 0
    restarts: int = 0


@attrs.frozen
class _Frame:
    rtp_time: int
    payload: bytes


class JitterBuffer:
    """Reorders one call's packets and gives one frame each time the reader asks.

    `frame` is what one packet holds, in seconds; the reader calls `take` once per frame. At most `capacity` packets
    are kept: when it is full the oldest goes (late audio is worse than lost audio), counted as `overflow`.
    """

    def __init__(self, *, clock_rate: int = 8000, frame: float = 0.020, capacity: int = 25) -> None:
        self.clock_rate = clock_rate
        self.frame = frame
        self.capacity = capacity
        self.counts = JitterCounts()
        self.estimator = DelayEstimator()
        self._frames: dict[int, _Frame] = {}
        self._ssrc: int | None = None
        self._cursor: int | None = None  # the next sequence number to play; None before the first
        self._filling = True
        self._highest = 0
        self._rtp_time = 0
        self._suspect: int | None = None
        self._dry_since: float | None = None

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def target(self) -> float:
        """The present target delay in seconds."""
        return self.estimator.target

    # -- put --------------------------------------------------------------------------------------------------------

    def put(self, ssrc: int, sequence: int, timestamp: int, payload: bytes, now: float) -> None:
        """Take one packet that arrived at `now`. A new SSRC begins a new stream and drops what is left of the old."""
        if ssrc != self._ssrc:
            if self._ssrc is not None:
                self.counts.restarts += 1
            self._begin(ssrc, sequence, timestamp)
        number = self._number(sequence)
        if number is None:
            return
        rtp_time = extend(timestamp, self._rtp_time, 32)
        if not self.estimator.observe(now - rtp_time / self.clock_rate, now):
            self.counts.restarts += 1
            self._clear()
        self._store(number, _Frame(rtp_time, payload))

    def _begin(self, ssrc: int, sequence: int, timestamp: int) -> None:
        self._ssrc = ssrc
        self._highest = sequence
        self._rtp_time = timestamp
        self._suspect = None
        self.estimator = DelayEstimator()
        self._clear()

    def _clear(self) -> None:
        self._frames.clear()
        self._cursor = None
        self._filling = True
        self._dry_since = None

    def _number(self, sequence: int) -> int | None:
        """The extended sequence number; None for a lone jump, which may be a stray (RFC 3550 A.1)."""
        number = extend(sequence, self._highest)
        if -MAX_MISORDER < number - self._highest < MAX_DROPOUT:
            self._suspect = None
            return number
        if sequence != self._suspect:
            self._suspect = (sequence + 1) & 0xFFFF
            self.counts.stray += 1
            return None
        self.counts.restarts += 1
        self._suspect = None
        self._highest = number
        self.estimator = DelayEstimator()
        self._clear()
        return number

    def _store(self, number: int, frame: _Frame) -> None:
        if number in self._frames:
            self.counts.duplicate += 1
            return
        if self._cursor is not None and number < self._cursor:
            self.counts.late += 1
            return
        self._frames[number] = frame
        if number >= self._highest:
            self._highest, self._rtp_time = number, frame.rtp_time
        if len(self._frames) > self.capacity:
            oldest = min(self._frames)
            del self._frames[oldest]
            self.counts.overflow += 1
            if self._cursor is not None:
                self._cursor = oldest + 1

    # -- take -------------------------------------------------------------------------------------------------------

    def take(self, now: float, *, quiet: bool = False) -> bytes | Gap:
        """The frame to play at `now`. `quiet` says that the last one was silence: then the delay may be corrected."""
        if not self._frames:
            return self._run_dry(now)
        self._dry_since = None
        head = min(self._frames)
        early = self._early(head, now)
        if self._filling and early > self.frame / 2:
            return Gap.WAIT
        self._filling = False
        missing = head - self._cursor if self._cursor is not None else 0
        if missing:
            return self._bridge(head, missing, early)
        if quiet and early > self.frame:
            return Gap.WAIT
        if quiet and early < -self.frame and head + 1 in self._frames:
            del self._frames[head]
            self.counts.shrunk += 1
            head += 1
        return self._play(head)

    def _early(self, number: int, now: float) -> float:
        return self._frames[number].rtp_time / self.clock_rate + self.estimator.base + self.target - now

    def _bridge(self, head: int, missing: int, early: float) -> bytes | Gap:
        """Packets are missing before the first we have: jump to it if its time has come, conceal one frame, or wait.

        The reader's ticks and the due times differ by up to half a frame, hence the tolerances.
        """
        if early <= 0.1 * self.frame:
            self.counts.lost += missing
            return self._play(head)
        if early > (missing + 0.5) * self.frame:
            return Gap.WAIT
        self.counts.lost += 1
        self._cursor = head - missing + 1
        return Gap.LOST

    def _play(self, number: int) -> bytes:
        self._cursor = number + 1
        return self._frames.pop(number).payload

    def _run_dry(self, now: float) -> Gap:
        """Nothing there. After a long pause the stream is filled up again before it is played."""
        if self._dry_since is None:
            self._dry_since = now
        elif now - self._dry_since > MOST:
            self._filling = True
        return Gap.WAIT
