"""A registration as data (RFC 3261 10.2)."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class RegistrationState(Enum):
    """States of one account. STOPPING waits for the answer to a REGISTER before it may send the last one (10.2)."""

    IDLE = auto()
    REGISTERING = auto()
    REGISTERED = auto()
    REFRESHING = auto()
    WAITING = auto()
    STOPPING = auto()
    UNREGISTERING = auto()
    ENDED = auto()


class RegistrationTrigger(Enum):
    """What can happen to an account. MOVED is a 200 that shows another address of ours than our Contact says.

    FAILED is the network or an overloaded registrar, REFUSED an answer that another try does not change; a flow that is
    lost soon after it was made is UNSTEADY.
    """

    START = auto()
    OK = auto()
    MOVED = auto()
    CHALLENGE = auto()
    TOO_BRIEF = auto()
    FAILED = auto()
    REFUSED = auto()
    FLOW_LOST = auto()
    FLOW_UNSTEADY = auto()
    STOP = auto()
    REFRESH_DUE = auto()
    RETRY_DUE = auto()
    ANSWER_LIMIT = auto()
    STOP_LIMIT = auto()


class RegistrationAction(Enum):
    """What is done about it."""

    SEND = auto()
    SEND_NEW_ADDRESS = auto()
    SEND_LONGER = auto()
    AUTHORIZE = auto()
    NOTE = auto()
    SEND_LAST = auto()
    LET_GO = auto()
    REPORT = auto()


def _registration_table() -> Table[RegistrationState, RegistrationTrigger, RegistrationAction]:
    s, t, a = RegistrationState, RegistrationTrigger, RegistrationAction
    rows = {
        (s.IDLE, t.START): Step(s.REGISTERING, (a.SEND, a.REPORT)),
        (s.IDLE, t.STOP): Step(s.ENDED, (a.REPORT,)),
        (s.REGISTERED, t.REFRESH_DUE): Step(s.REFRESHING, (a.SEND,)),
        # RFC 5626 4.5: the way to the registrar is gone, and with it what it would send us; one that is lost again and
        # again is not made again and again at once.
        (s.REGISTERED, t.FLOW_LOST): Step(s.REGISTERING, (a.SEND, a.REPORT)),
        (s.REGISTERED, t.FLOW_UNSTEADY): Step(s.WAITING, (a.REPORT,)),
        (s.REGISTERED, t.STOP): Step(s.UNREGISTERING, (a.SEND_LAST,)),
        (s.WAITING, t.RETRY_DUE): Step(s.REGISTERING, (a.SEND, a.REPORT)),
        (s.WAITING, t.STOP): Step(s.ENDED, (a.LET_GO, a.REPORT)),
        (s.STOPPING, t.OK): Step(s.UNREGISTERING, (a.SEND_LAST,)),
        (s.STOPPING, t.MOVED): Step(s.UNREGISTERING, (a.SEND_LAST,)),
        (s.UNREGISTERING, t.CHALLENGE): Step(s.UNREGISTERING, (a.AUTHORIZE,)),
        (s.STOPPING, t.STOP_LIMIT): Step(s.ENDED, (a.LET_GO, a.REPORT)),
        (s.UNREGISTERING, t.STOP_LIMIT): Step(s.ENDED, (a.LET_GO, a.REPORT)),
    }
    for state in (s.REGISTERING, s.REFRESHING):
        rows |= {
            (state, t.OK): Step(s.REGISTERED, (a.NOTE, a.REPORT)),
            (state, t.MOVED): Step(state, (a.NOTE, a.SEND_NEW_ADDRESS)),
            (state, t.CHALLENGE): Step(state, (a.AUTHORIZE,)),
            (state, t.TOO_BRIEF): Step(state, (a.SEND_LONGER,)),
            (state, t.STOP): Step(s.STOPPING),
        }
        for trouble in (t.FAILED, t.REFUSED, t.ANSWER_LIMIT):
            rows[state, trouble] = Step(s.WAITING, (a.LET_GO, a.REPORT))
    for trouble in (t.CHALLENGE, t.TOO_BRIEF, t.FAILED, t.REFUSED):
        rows[s.STOPPING, trouble] = Step(s.ENDED, (a.LET_GO, a.REPORT))
    for answer in (t.OK, t.MOVED, t.TOO_BRIEF, t.FAILED, t.REFUSED):
        rows[s.UNREGISTERING, answer] = Step(s.ENDED, (a.LET_GO, a.REPORT))
    return Table(
        name="registration",
        spec="RFC 3261 10.2, RFC 5626 4",
        start=s.IDLE,
        ends=frozenset({s.ENDED}),
        rows=rows,
        timers={
            s.REGISTERING: frozenset({t.ANSWER_LIMIT}),
            s.REFRESHING: frozenset({t.ANSWER_LIMIT}),
            s.REGISTERED: frozenset({t.REFRESH_DUE}),
            s.WAITING: frozenset({t.RETRY_DUE}),
            s.STOPPING: frozenset({t.STOP_LIMIT}),
            s.UNREGISTERING: frozenset({t.STOP_LIMIT}),
        },
        # An account lives as long as the server: it is refreshed, or tried again, until somebody stops it.
        patient=frozenset({s.IDLE, s.REGISTERED, s.WAITING}),
    )


REGISTRATION = _registration_table()
