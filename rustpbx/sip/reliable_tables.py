"""Provisional responses of ours that must be acknowledged, as data (RFC 3262 3)."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class ReliableState(Enum):
    """States of the reliable provisional responses to one INVITE: at most one is unacknowledged.

    WAITING has sent one, WAITING_WITH_SDP one with a session description; HOLDING has a 2xx that may not overtake it.
    """

    IDLE = auto()
    WAITING = auto()
    WAITING_WITH_SDP = auto()
    HOLDING = auto()
    OVER = auto()


class ReliableTrigger(Enum):
    """What can happen to them; RING* and ANSWER are wishes, FINAL is any other final response of ours."""

    RING = auto()
    RING_WITH_SDP = auto()
    PRACK = auto()
    ANSWER = auto()
    FINAL = auto()
    RESEND_TIMER = auto()
    PRACK_LIMIT = auto()


class ReliableAction(Enum):
    """What is done about them."""

    SEND = auto()
    SEND_WAITING = auto()
    RESEND = auto()
    QUEUE = auto()
    HOLD_ANSWER = auto()
    SEND_ANSWER = auto()
    REPORT_LOST = auto()


def _reliable_table() -> Table[ReliableState, ReliableTrigger, ReliableAction]:
    s, t, a = ReliableState, ReliableTrigger, ReliableAction
    rows = {
        (s.IDLE, t.RING): Step(s.WAITING, (a.SEND,)),
        (s.IDLE, t.RING_WITH_SDP): Step(s.WAITING_WITH_SDP, (a.SEND,)),
        (s.IDLE, t.ANSWER): Step(s.OVER, (a.SEND_ANSWER,)),
        (s.IDLE, t.FINAL): Step(s.OVER),
        # A 2xx may overtake what has no session description; its PRACK is answered all the same.
        (s.WAITING, t.ANSWER): Step(s.OVER, (a.SEND_ANSWER,)),
        (s.WAITING_WITH_SDP, t.ANSWER): Step(s.HOLDING, (a.HOLD_ANSWER,)),
        (s.HOLDING, t.PRACK): Step(s.OVER, (a.SEND_ANSWER,)),
    }
    for state in (s.WAITING, s.WAITING_WITH_SDP):
        # No second one before the first is acknowledged.
        rows[state, t.RING] = Step(state, (a.QUEUE,))
        rows[state, t.RING_WITH_SDP] = Step(state, (a.QUEUE,))
        rows[state, t.PRACK] = Step(s.IDLE, (a.SEND_WAITING,))
    for state in (s.WAITING, s.WAITING_WITH_SDP, s.HOLDING):
        rows[state, t.RESEND_TIMER] = Step(state, (a.RESEND,))
        rows[state, t.PRACK_LIMIT] = Step(s.OVER, (a.REPORT_LOST,))
        rows[state, t.FINAL] = Step(s.OVER)
    waiting = frozenset({t.RESEND_TIMER, t.PRACK_LIMIT})
    return Table(
        name="reliable",
        spec="RFC 3262 3",
        start=s.IDLE,
        ends=frozenset({s.OVER}),
        rows=rows,
        timers={s.WAITING: waiting, s.WAITING_WITH_SDP: waiting, s.HOLDING: waiting},
        # It waits for our own side, and the call has the limit (ANSWER_LIMIT).
        patient=frozenset({s.IDLE}),
    )


RELIABLE = _reliable_table()
