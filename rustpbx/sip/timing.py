"""How long everything lasts (RFC 3261 table 4): durations are data, and a reliable transport has other ones."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from types import MappingProxyType

import attrs

from rustpbx.sip.hop import Transport


@attrs.frozen
class Timing:
    """T1, T2, T4 in seconds (RFC 3261 17.1.1.1), and the durations that follow from them.

    `ring_limit` is how long our INVITE may ring before it is cancelled, `answer_limit` how long an incoming one may
    wait for our own side.

    `hop_limit` is how long a server may be silent before the next one is asked (RFC 3263 4.3: a timeout, which RFC 3261
    makes 64*T1; callers do not wait half a minute): four copies by UDP, and T1 for the answer to the last. The last
    server has all of 64*T1. `locate_limit` is how long DNS may take. A server that failed is tried last for `hop_rest`
    seconds, one that said so by Retry-After for as long as that says, at most `longest_rest`.

    On a reliable transport nothing is resent and nothing lingers for stray copies; the same tables run with
    these other durations.
    """

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0
    reliable: bool = False
    ring_limit: float = 180.0
    answer_limit: float = 600.0
    hop_limit: float = 4.0
    locate_limit: float = 15.0
    hop_rest: float = 30.0
    longest_rest: float = 300.0

    def over(self, transport: Transport) -> Timing:
        """The same, as this transport has it."""
        return _reliable(self) if transport.reliable else self

    @property
    def limit(self) -> float:
        """64*T1: when a transaction, or the wait for an ACK, is given up."""
        return 64 * self.t1

    @property
    def first_resend(self) -> float:
        """The first resend interval (timers A, E, G and the 2xx); never on a reliable transport."""
        return math.inf if self.reliable else self.t1

    @property
    def fixed(self) -> Mapping[str, float]:
        """Seconds of every timer that does not back off, by trigger name."""
        return _durations(self)


@functools.cache
def _reliable(timing: Timing) -> Timing:
    return attrs.evolve(timing, reliable=True)


@functools.cache
def _durations(timing: Timing) -> Mapping[str, float]:
    limit = timing.limit
    return MappingProxyType(
        {
            "TIMER_B": limit,
            "TIMER_C": timing.ring_limit + limit,
            "TIMER_D": _lingers(timing, max(limit, 32.0)),
            "TIMER_F": limit,
            "TIMER_H": limit,
            "TIMER_I": _lingers(timing, timing.t4),
            "TIMER_J": _lingers(timing, limit),
            "TIMER_K": _lingers(timing, timing.t4),
            "TIMER_L": limit,  # RFC 6026 7.1
            "TIMER_M": limit,  # RFC 6026 7.2
            "CANCEL_LIMIT": limit,  # section 9.1: a cancelled INVITE nobody answers
            "ACK_LIMIT": limit,  # section 13.3.1.4
            "PRACK_LIMIT": limit,  # RFC 3262 section 3
            "RING_LIMIT": timing.ring_limit,
            "ANSWER_LIMIT": timing.answer_limit,
            "OFFER_LIMIT": 1.25 * limit,  # more than timer B, so that an unanswered re-INVITE may be cancelled
            "UPDATE_LIMIT": timing.t2,  # a small part of the sender's timer F
            "ABANDON": 2.5 * limit,  # more than timer B and the limit of a CANCEL after it
            "LINGER": limit,
        }
    )


def _lingers(timing: Timing, seconds: float) -> float:
    return 0.0 if timing.reliable else seconds


class Backoff:
    """One doubling resend interval: `next()` gives T1, 2*T1, 4*T1 ... never more than `cap` seconds."""

    def __init__(self, timing: Timing, cap: float = math.inf) -> None:
        self._following = timing.first_resend
        self._cap = cap

    def next(self) -> float:
        """The seconds to wait before the next resend."""
        interval = min(self._following, self._cap) if self._following != math.inf else math.inf
        self._following = interval * 2
        return interval
