"""What a TURN server grants, as data: an allocation, a permission, a channel. All three are asked for, kept by asking
again, and an allocation is given back; what differs is what is asked and how long each lasts (RFC 8656 7, 9, 12).
"""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class GrantState(Enum):
    """States of a grant."""

    CONNECTING = auto()
    ASKING = auto()
    GRANTED = auto()
    RENEWING = auto()
    RELEASING = auto()
    REFUSED = auto()
    RELEASED = auto()


class GrantTrigger(Enum):
    """What can happen to it."""

    CONNECTED = auto()  # the server can be asked; by UDP that is so from the start
    SUCCESS = auto()
    CHALLENGED = auto()  # 401 to a question without credentials, 438: there is another nonce
    REFUSAL = auto()
    RELEASE = auto()
    BROKEN = auto()  # the stream to the server is
    RESEND_TIMER = auto()
    ANSWER_TIMEOUT = auto()
    RENEW_TIMER = auto()


class GrantAction(Enum):
    """What it does."""

    ASK = auto()
    SEND_AGAIN = auto()
    RENEW = auto()
    GIVE_BACK = auto()
    REPORT_GRANTED = auto()
    REPORT_REFUSED = auto()


def _grant_table() -> Table[GrantState, GrantTrigger, GrantAction]:
    s, t, a = GrantState, GrantTrigger, GrantAction
    rows = {
        (s.CONNECTING, t.CONNECTED): Step(s.ASKING, (a.ASK,)),
        (s.CONNECTING, t.RELEASE): Step(s.RELEASED),
        (s.ASKING, t.SUCCESS): Step(s.GRANTED, (a.REPORT_GRANTED,)),
        (s.ASKING, t.CHALLENGED): Step(s.ASKING, (a.ASK,)),
        (s.ASKING, t.RELEASE): Step(s.RELEASED),  # what may have been granted meanwhile ends with its lifetime
        (s.GRANTED, t.RENEW_TIMER): Step(s.RENEWING, (a.RENEW,)),
        (s.GRANTED, t.RELEASE): Step(s.RELEASING, (a.GIVE_BACK,)),
        (s.RENEWING, t.SUCCESS): Step(s.GRANTED),
        (s.RENEWING, t.CHALLENGED): Step(s.RENEWING, (a.RENEW,)),
        (s.RENEWING, t.RELEASE): Step(s.RELEASING, (a.GIVE_BACK,)),
        (s.RELEASING, t.SUCCESS): Step(s.RELEASED),
        (s.RELEASING, t.CHALLENGED): Step(s.RELEASING, (a.GIVE_BACK,)),
        (s.RELEASING, t.REFUSAL): Step(s.RELEASED),
        (s.RELEASING, t.ANSWER_TIMEOUT): Step(s.RELEASED),
        (s.RELEASING, t.BROKEN): Step(s.RELEASED),
        (s.GRANTED, t.BROKEN): Step(s.REFUSED, (a.REPORT_REFUSED,)),
    }
    for state in (s.CONNECTING, s.ASKING, s.RENEWING):
        for trigger in (t.REFUSAL, t.BROKEN, t.ANSWER_TIMEOUT):
            rows[state, trigger] = Step(s.REFUSED, (a.REPORT_REFUSED,))
    for state in (s.ASKING, s.RENEWING, s.RELEASING):
        rows[state, t.RESEND_TIMER] = Step(state, (a.SEND_AGAIN,))
    asking = frozenset({t.RESEND_TIMER, t.ANSWER_TIMEOUT})
    return Table(
        name="turn-grant",
        spec="RFC 8656 7, 8, 10, 12, RFC 8489 6.2, 9.2.5",
        start=s.CONNECTING,
        ends=frozenset({s.REFUSED, s.RELEASED}),
        rows=rows,
        timers={
            s.CONNECTING: frozenset({t.ANSWER_TIMEOUT}),
            s.ASKING: asking,
            s.GRANTED: frozenset({t.RENEW_TIMER}),
            s.RENEWING: asking,
            s.RELEASING: asking,
        },
    )


TURN_GRANT = _grant_table()
