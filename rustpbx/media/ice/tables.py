"""ICE as data: a candidate pair, the agent, and a question to a STUN server (RFC 8445, RFC 7675)."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class PairState(Enum):
    """States of a candidate pair (RFC 8445 6.1.2.6), and those of its nomination."""

    FROZEN = auto()
    WAITING = auto()
    IN_PROGRESS = auto()
    SUCCEEDED = auto()
    NOMINATING = auto()
    NOMINATED = auto()
    FAILED = auto()
    DROPPED = auto()


class PairTrigger(Enum):
    """What can happen to a pair."""

    UNFREEZE = auto()
    TRIGGERED = auto()  # the peer checks it
    CHECK = auto()  # it is its turn
    ANSWERED = auto()
    ANSWERED_WANTED = auto()  # answered, and the peer has nominated it before
    WANTED = auto()  # the peer nominates it
    REFUSED = auto()
    CONFLICT = auto()  # 487: both want the same role
    NOMINATE = auto()
    DROP = auto()
    RESEND_TIMER = auto()
    CHECK_TIMEOUT = auto()


class PairAction(Enum):
    """What it does."""

    ENQUEUE = auto()
    SEND_CHECK = auto()
    SEND_NOMINATION = auto()
    SEND_AGAIN = auto()
    UNFREEZE_OTHERS = auto()
    REPORT_NOMINATED = auto()


def _pair_table() -> Table[PairState, PairTrigger, PairAction]:
    s, t, a = PairState, PairTrigger, PairAction
    rows = {
        (s.FROZEN, t.UNFREEZE): Step(s.WAITING),
        (s.FROZEN, t.TRIGGERED): Step(s.WAITING, (a.ENQUEUE,)),
        (s.WAITING, t.TRIGGERED): Step(s.WAITING, (a.ENQUEUE,)),
        (s.WAITING, t.CHECK): Step(s.IN_PROGRESS, (a.SEND_CHECK,)),
        (s.IN_PROGRESS, t.RESEND_TIMER): Step(s.IN_PROGRESS, (a.SEND_AGAIN,)),
        (s.IN_PROGRESS, t.CHECK_TIMEOUT): Step(s.FAILED),
        (s.IN_PROGRESS, t.REFUSED): Step(s.FAILED),
        (s.IN_PROGRESS, t.CONFLICT): Step(s.WAITING, (a.ENQUEUE,)),
        # 7.3.1.4: the check under way is given up, and another begun; its answer still counts.
        (s.IN_PROGRESS, t.TRIGGERED): Step(s.WAITING, (a.ENQUEUE,)),
        (s.SUCCEEDED, t.WANTED): Step(s.NOMINATED, (a.REPORT_NOMINATED,)),
        (s.SUCCEEDED, t.NOMINATE): Step(s.NOMINATING, (a.SEND_NOMINATION,)),
        (s.NOMINATING, t.RESEND_TIMER): Step(s.NOMINATING, (a.SEND_AGAIN,)),
        (s.NOMINATING, t.CHECK_TIMEOUT): Step(s.FAILED),
        (s.NOMINATING, t.REFUSED): Step(s.FAILED),
        (s.NOMINATING, t.CONFLICT): Step(s.SUCCEEDED),
        (s.NOMINATING, t.ANSWERED): Step(s.NOMINATED, (a.REPORT_NOMINATED,)),
        # The roles have changed meanwhile, and now it is the peer that nominates.
        (s.NOMINATING, t.WANTED): Step(s.NOMINATED, (a.REPORT_NOMINATED,)),
        (s.FAILED, t.TRIGGERED): Step(s.WAITING, (a.ENQUEUE,)),
    }
    for state in (s.WAITING, s.IN_PROGRESS):
        rows[state, t.ANSWERED] = Step(s.SUCCEEDED, (a.UNFREEZE_OTHERS,))
        rows[state, t.ANSWERED_WANTED] = Step(s.NOMINATED, (a.UNFREEZE_OTHERS, a.REPORT_NOMINATED))
    for state in s:
        if state is not s.DROPPED:
            rows[state, t.DROP] = Step(s.DROPPED)
    return Table(
        name="ice-pair",
        spec="RFC 8445 6.1.2.6, 7.2.5, 7.3.1.4, 8.1.1",
        start=s.FROZEN,
        ends=frozenset({s.DROPPED}),
        rows=rows,
        timers={state: frozenset({t.RESEND_TIMER, t.CHECK_TIMEOUT}) for state in (s.IN_PROGRESS, s.NOMINATING)},
        # Only these wait on the peer; the others wait for the agent, which has a time-out of its own.
        patient=frozenset(s) - {s.IN_PROGRESS, s.NOMINATING, s.DROPPED},
    )


class AgentState(Enum):
    """States of an agent. The controlling one alone chooses and nominates."""

    NEW = auto()
    CHECKING = auto()
    CHOOSING = auto()
    NOMINATING = auto()
    CONNECTED = auto()
    DISCONNECTED = auto()
    RESTARTING = auto()
    FAILED = auto()
    CLOSED = auto()


class AgentTrigger(Enum):
    """What can happen to an agent."""

    REMOTE = auto()  # the peer's description is there
    VALID = auto()  # we are controlling and have a pair that works
    BEST = auto()  # and none better can come
    PATH = auto()  # a pair is nominated that is better than what we have
    LOST = auto()  # the nomination failed, or the role is gone
    HEARD = auto()  # the peer consents
    RESTART = auto()
    CLOSE = auto()
    CHOICE_TIMER = auto()
    CHECK_TIMEOUT = auto()
    CONSENT_TIMER = auto()
    SILENCE_TIMER = auto()
    CONSENT_TIMEOUT = auto()


class AgentAction(Enum):
    """What it does."""

    BEGIN = auto()
    NOMINATE = auto()
    SELECT = auto()
    ASK_CONSENT = auto()
    RENEW_CONSENT = auto()
    REPORT_SILENCE = auto()
    REPORT_RETURN = auto()
    FAIL = auto()
    RESTART = auto()
    END = auto()


def _agent_table() -> Table[AgentState, AgentTrigger, AgentAction]:
    s, t, a = AgentState, AgentTrigger, AgentAction
    rows = {
        (s.NEW, t.REMOTE): Step(s.CHECKING, (a.BEGIN,)),
        (s.RESTARTING, t.REMOTE): Step(s.CHECKING, (a.BEGIN,)),
        (s.RESTARTING, t.CONSENT_TIMEOUT): Step(s.FAILED, (a.FAIL,)),
        (s.CHECKING, t.VALID): Step(s.CHOOSING),
        (s.CHOOSING, t.BEST): Step(s.NOMINATING, (a.NOMINATE,)),
        (s.CHOOSING, t.CHOICE_TIMER): Step(s.NOMINATING, (a.NOMINATE,)),
        (s.CHOOSING, t.LOST): Step(s.CHECKING),
        (s.NOMINATING, t.LOST): Step(s.CHECKING),
        (s.CONNECTED, t.PATH): Step(s.CONNECTED, (a.SELECT,)),
        (s.DISCONNECTED, t.PATH): Step(s.CONNECTED, (a.SELECT, a.REPORT_RETURN)),
        (s.CONNECTED, t.HEARD): Step(s.CONNECTED, (a.RENEW_CONSENT,)),
        (s.DISCONNECTED, t.HEARD): Step(s.CONNECTED, (a.RENEW_CONSENT, a.REPORT_RETURN)),
        (s.CONNECTED, t.SILENCE_TIMER): Step(s.DISCONNECTED, (a.REPORT_SILENCE,)),
    }
    for state in (s.CHECKING, s.CHOOSING, s.NOMINATING):
        rows[state, t.PATH] = Step(s.CONNECTED, (a.SELECT,))
        rows[state, t.CHECK_TIMEOUT] = Step(s.FAILED, (a.FAIL,))
    for state in (s.CONNECTED, s.DISCONNECTED):
        rows[state, t.CONSENT_TIMER] = Step(state, (a.ASK_CONSENT,))
        rows[state, t.CONSENT_TIMEOUT] = Step(s.FAILED, (a.FAIL,))  # RFC 7675 5.1: nothing more is sent
    for state in s:
        if state is not s.CLOSED:
            rows[state, t.CLOSE] = Step(s.CLOSED, (a.END,))
            rows[state, t.RESTART] = Step(s.NEW, (a.RESTART,))
    # 9: the old path is used until there is a new one, and no longer than the peer's consent lasts.
    for state in (s.CONNECTED, s.DISCONNECTED, s.RESTARTING):
        rows[state, t.RESTART] = Step(s.RESTARTING, (a.RESTART,))
    checking = frozenset({t.CHECK_TIMEOUT})
    consent = frozenset({t.CONSENT_TIMER, t.CONSENT_TIMEOUT})
    return Table(
        name="ice-agent",
        spec="RFC 8445 6-9, RFC 7675 5.1",
        start=s.NEW,
        ends=frozenset({s.CLOSED}),
        rows=rows,
        timers={
            s.CHECKING: checking,
            s.CHOOSING: checking | {t.CHOICE_TIMER},
            s.NOMINATING: checking,
            s.CONNECTED: consent | {t.SILENCE_TIMER},
            s.DISCONNECTED: consent,
            s.RESTARTING: frozenset({t.CONSENT_TIMEOUT}),
        },
        # NEW until the peer's SDP comes, FAILED until a restart, both as long as the call lets them.
        patient=frozenset({s.NEW, s.FAILED}),
    )


class QueryState(Enum):
    """States of a question to a STUN server."""

    ASKING = auto()
    ANSWERED = auto()
    UNANSWERED = auto()


class QueryTrigger(Enum):
    """What can happen to it."""

    ANSWER = auto()
    REFUSAL = auto()
    RESEND_TIMER = auto()
    QUERY_TIMEOUT = auto()


class QueryAction(Enum):
    """What it does."""

    SEND_AGAIN = auto()


def _query_table() -> Table[QueryState, QueryTrigger, QueryAction]:
    s, t, a = QueryState, QueryTrigger, QueryAction
    return Table(
        name="stun-query",
        spec="RFC 8489 6.2.1",
        start=s.ASKING,
        ends=frozenset({s.ANSWERED, s.UNANSWERED}),
        rows={
            (s.ASKING, t.ANSWER): Step(s.ANSWERED),
            (s.ASKING, t.REFUSAL): Step(s.UNANSWERED),
            (s.ASKING, t.RESEND_TIMER): Step(s.ASKING, (a.SEND_AGAIN,)),
            (s.ASKING, t.QUERY_TIMEOUT): Step(s.UNANSWERED),
        },
        timers={s.ASKING: frozenset({t.RESEND_TIMER, t.QUERY_TIMEOUT})},
    )


ICE_PAIR = _pair_table()
ICE_AGENT = _agent_table()
STUN_QUERY = _query_table()
