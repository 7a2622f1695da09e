"""The timer of a session as data (RFC 4028 10)."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class SessionTimerState(Enum):
    """States of a session's timer.

    OURS, REFRESHING and RETRYING are of the side that refreshes: it waits for the time to, for an answer, or until it
    may ask again. THEIRS waits for the peer.
    """

    OFF = auto()
    OURS = auto()
    REFRESHING = auto()
    RETRYING = auto()
    THEIRS = auto()
    OVER = auto()


class SessionTimerTrigger(Enum):
    """What can happen to it; each agreement is a refresh."""

    AGREED_OURS = auto()
    AGREED_THEIRS = auto()
    AGREED_NOTHING = auto()
    REFUSED = auto()
    CALL_ENDED = auto()
    REFRESH_TIMER = auto()
    RETRY_TIMER = auto()
    EXPIRY = auto()


class SessionTimerAction(Enum):
    """What it does."""

    REFRESH = auto()
    EXPIRE = auto()


def _session_timer_table() -> Table[SessionTimerState, SessionTimerTrigger, SessionTimerAction]:
    s, t, a = SessionTimerState, SessionTimerTrigger, SessionTimerAction
    rows = {
        (s.OURS, t.REFRESH_TIMER): Step(s.REFRESHING, (a.REFRESH,)),
        # 408 and 481 end the call; any other refusal leaves the session as it is, until it expires.
        (s.REFRESHING, t.REFUSED): Step(s.RETRYING),
        (s.RETRYING, t.RETRY_TIMER): Step(s.REFRESHING, (a.REFRESH,)),
    }
    running = (s.OURS, s.REFRESHING, s.RETRYING, s.THEIRS)
    for state in (s.OFF, *running):
        rows[state, t.AGREED_OURS] = Step(s.OURS)
        rows[state, t.AGREED_THEIRS] = Step(s.THEIRS)
        rows[state, t.AGREED_NOTHING] = Step(s.OFF)
        rows[state, t.CALL_ENDED] = Step(s.OVER)
    for state in running:
        rows[state, t.EXPIRY] = Step(s.OVER, (a.EXPIRE,))
    return Table(
        name="session-timer",
        spec="RFC 4028 10",
        start=s.OFF,
        ends=frozenset({s.OVER}),
        rows=rows,
        timers={
            s.OURS: frozenset({t.REFRESH_TIMER, t.EXPIRY}),
            s.REFRESHING: frozenset({t.EXPIRY}),
            s.RETRYING: frozenset({t.RETRY_TIMER, t.EXPIRY}),
            s.THEIRS: frozenset({t.EXPIRY}),
        },
        # Without an agreement a session lasts as long as both sides like.
        patient=frozenset({s.OFF}),
    )


SESSION_TIMER = _session_timer_table()
