"""A call and the offers within it as data."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table

# -- a call (INVITE usage of a dialog), both sides --------------------------------------------------------------------


class CallState(Enum):
    """States of a call. GIVING_UP and HANGING_UP wait for what must come before CANCEL and BYE may be sent."""

    NEW = auto()
    CALLING = auto()
    PROCEEDING = auto()
    GIVING_UP = auto()
    CANCELLING = auto()
    INCOMING = auto()
    ANSWERED = auto()
    HANGING_UP = auto()
    CONFIRMED = auto()
    ENDING = auto()
    ENDED = auto()
    TERMINATED = auto()


class CallTrigger(Enum):
    """What can happen to a call.

    FAILURE is also what a timeout or an unreachable host comes to, REDIRECT either where there is another target to
    call, FAULT our own bug.
    """

    DIAL = auto()
    TRYING = auto()
    PROVISIONAL = auto()
    CHALLENGE = auto()
    TOO_BRIEF = auto()
    REDIRECT = auto()
    SUCCESS = auto()
    SUCCESS_AGAIN = auto()
    SUCCESS_ELSEWHERE = auto()
    FAILURE = auto()
    INVITE = auto()
    RING = auto()
    ANSWER = auto()
    REFUSE = auto()
    CANCEL = auto()
    ACK = auto()
    ACK_LOST = auto()
    HANG_UP = auto()
    BYE = auto()
    BYE_ANSWERED = auto()
    DIALOG_LOST = auto()
    PRACK_LOST = auto()
    RING_LIMIT = auto()
    ANSWER_LIMIT = auto()
    ABANDON = auto()
    LINGER = auto()
    FAULT = auto()


class CallAction(Enum):
    """What a call does."""

    SEND_INVITE = auto()
    AUTHORIZE = auto()
    LENGTHEN = auto()
    FOLLOW = auto()
    CONFIRM = auto()
    RESEND_ACK = auto()
    END_FORK = auto()
    SEND_CANCEL = auto()
    STAY = auto()
    SEND_TRYING = auto()
    SEND_PROVISIONAL = auto()
    SEND_SUCCESS = auto()
    SEND_REFUSAL = auto()
    SEND_DECLINE = auto()
    SEND_UNAVAILABLE = auto()
    SEND_TIMEOUT = auto()
    SEND_TERMINATED = auto()
    SEND_BYE = auto()
    ANSWER_BYE = auto()
    CLOSE = auto()
    FORGET = auto()
    REPORT_INCOMING = auto()
    REPORT_PROGRESS = auto()
    REPORT_ANSWERED = auto()
    REPORT_CONFIRMED = auto()
    REPORT_REFUSED = auto()
    REPORT_NO_ANSWER = auto()
    REPORT_CANCELLED = auto()
    REPORT_BYE = auto()
    REPORT_LOST = auto()


def _call_table() -> Table[CallState, CallTrigger, CallAction]:
    s, t, a = CallState, CallTrigger, CallAction
    rows = {
        # The calling side (13.2).
        (s.NEW, t.DIAL): Step(s.CALLING, (a.SEND_INVITE,)),
        (s.CALLING, t.TRYING): Step(s.PROCEEDING),
        (s.CALLING, t.PROVISIONAL): Step(s.PROCEEDING, (a.REPORT_PROGRESS,)),
        (s.CALLING, t.CHALLENGE): Step(s.CALLING, (a.AUTHORIZE,)),
        (s.CALLING, t.TOO_BRIEF): Step(s.CALLING, (a.LENGTHEN,)),  # RFC 4028 7.3
        (s.CALLING, t.REDIRECT): Step(s.CALLING, (a.FOLLOW,)),  # 8.1.3.4
        (s.CALLING, t.SUCCESS): Step(s.CONFIRMED, (a.CONFIRM, a.REPORT_ANSWERED)),
        (s.CALLING, t.FAILURE): Step(s.ENDED, (a.CLOSE, a.REPORT_REFUSED)),
        (s.CALLING, t.HANG_UP): Step(s.GIVING_UP, (a.STAY,)),
        (s.CALLING, t.RING_LIMIT): Step(s.GIVING_UP, (a.REPORT_NO_ANSWER, a.STAY)),
        (s.PROCEEDING, t.TRYING): Step(s.PROCEEDING),
        (s.PROCEEDING, t.PROVISIONAL): Step(s.PROCEEDING, (a.REPORT_PROGRESS,)),
        (s.PROCEEDING, t.CHALLENGE): Step(s.CALLING, (a.AUTHORIZE,)),
        (s.PROCEEDING, t.TOO_BRIEF): Step(s.CALLING, (a.LENGTHEN,)),
        (s.PROCEEDING, t.REDIRECT): Step(s.CALLING, (a.FOLLOW,)),
        (s.PROCEEDING, t.SUCCESS): Step(s.CONFIRMED, (a.CONFIRM, a.REPORT_ANSWERED)),
        (s.PROCEEDING, t.FAILURE): Step(s.ENDED, (a.CLOSE, a.REPORT_REFUSED)),
        (s.PROCEEDING, t.HANG_UP): Step(s.CANCELLING, (a.SEND_CANCEL,)),
        (s.PROCEEDING, t.RING_LIMIT): Step(s.CANCELLING, (a.SEND_CANCEL, a.REPORT_NO_ANSWER)),
        # A callee may not hang up an early dialog (15), but its 200 may be the one datagram that was lost.
        (s.PROCEEDING, t.BYE): Step(s.CANCELLING, (a.ANSWER_BYE, a.SEND_CANCEL, a.REPORT_BYE)),
        # No CANCEL before a provisional response (9.1).
        (s.GIVING_UP, t.TRYING): Step(s.CANCELLING, (a.SEND_CANCEL,)),
        (s.GIVING_UP, t.PROVISIONAL): Step(s.CANCELLING, (a.SEND_CANCEL,)),
        (s.GIVING_UP, t.SUCCESS): Step(s.ENDING, (a.CONFIRM, a.SEND_BYE)),
        (s.GIVING_UP, t.CHALLENGE): Step(s.ENDED, (a.CLOSE,)),
        (s.GIVING_UP, t.FAILURE): Step(s.ENDED, (a.CLOSE,)),
        (s.GIVING_UP, t.ABANDON): Step(s.ENDED, (a.CLOSE,)),
        (s.CANCELLING, t.SUCCESS): Step(s.ENDING, (a.CONFIRM, a.SEND_BYE)),
        (s.CANCELLING, t.CHALLENGE): Step(s.ENDED, (a.CLOSE,)),
        (s.CANCELLING, t.FAILURE): Step(s.ENDED, (a.CLOSE,)),
        (s.CANCELLING, t.BYE): Step(s.CANCELLING, (a.ANSWER_BYE,)),
        (s.CANCELLING, t.ABANDON): Step(s.ENDED, (a.CLOSE,)),
        # The called side (13.3).
        (s.NEW, t.INVITE): Step(s.INCOMING, (a.SEND_TRYING, a.REPORT_INCOMING)),
        (s.INCOMING, t.RING): Step(s.INCOMING, (a.SEND_PROVISIONAL,)),
        (s.INCOMING, t.ANSWER): Step(s.ANSWERED, (a.SEND_SUCCESS,)),
        (s.INCOMING, t.REFUSE): Step(s.ENDED, (a.SEND_REFUSAL, a.CLOSE)),
        (s.INCOMING, t.HANG_UP): Step(s.ENDED, (a.SEND_DECLINE, a.CLOSE)),
        (s.INCOMING, t.CANCEL): Step(s.ENDED, (a.SEND_TERMINATED, a.CLOSE, a.REPORT_CANCELLED)),
        (s.INCOMING, t.BYE): Step(s.ENDED, (a.ANSWER_BYE, a.SEND_TERMINATED, a.CLOSE, a.REPORT_BYE)),
        (s.INCOMING, t.ANSWER_LIMIT): Step(s.ENDED, (a.SEND_UNAVAILABLE, a.CLOSE, a.REPORT_LOST)),
        # RFC 3262 3: 5xx where a reliable provisional response is not acknowledged.
        (s.INCOMING, t.PRACK_LOST): Step(s.ENDED, (a.SEND_TIMEOUT, a.CLOSE, a.REPORT_LOST)),
        (s.ANSWERED, t.ACK): Step(s.CONFIRMED, (a.REPORT_CONFIRMED,)),
        (s.ANSWERED, t.ACK_LOST): Step(s.ENDING, (a.SEND_BYE, a.REPORT_LOST)),
        (s.ANSWERED, t.BYE): Step(s.ENDED, (a.ANSWER_BYE, a.CLOSE, a.REPORT_BYE)),
        (s.ANSWERED, t.ABANDON): Step(s.ENDING, (a.SEND_BYE, a.REPORT_LOST)),
        # The called side sends no BYE before the ACK, or 64*T1 without it (15).
        (s.ANSWERED, t.HANG_UP): Step(s.HANGING_UP),
        (s.HANGING_UP, t.ACK): Step(s.ENDING, (a.SEND_BYE,)),
        (s.HANGING_UP, t.ACK_LOST): Step(s.ENDING, (a.SEND_BYE,)),
        (s.HANGING_UP, t.BYE): Step(s.ENDED, (a.ANSWER_BYE, a.CLOSE)),
        (s.HANGING_UP, t.ABANDON): Step(s.ENDING, (a.SEND_BYE,)),
        # Both sides (15, 12.2.1.2).
        (s.CONFIRMED, t.HANG_UP): Step(s.ENDING, (a.SEND_BYE,)),
        (s.CONFIRMED, t.BYE): Step(s.ENDED, (a.ANSWER_BYE, a.CLOSE, a.REPORT_BYE)),
        (s.CONFIRMED, t.DIALOG_LOST): Step(s.ENDING, (a.SEND_BYE, a.REPORT_LOST)),
        (s.ENDING, t.BYE): Step(s.ENDING, (a.ANSWER_BYE,)),
        (s.ENDING, t.BYE_ANSWERED): Step(s.ENDED, (a.CLOSE,)),
        (s.ENDING, t.LINGER): Step(s.TERMINATED, (a.CLOSE, a.FORGET)),
        (s.ENDED, t.LINGER): Step(s.TERMINATED, (a.FORGET,)),
        # Another server, which had been silent too long, has answered a call that had failed meanwhile.
        (s.ENDED, t.SUCCESS): Step(s.ENDING, (a.CONFIRM, a.SEND_BYE)),
        # A bug of ours ends the call as a hang-up would; requests of the peer's that it left unanswered have got 500.
        (s.CALLING, t.FAULT): Step(s.GIVING_UP, (a.REPORT_LOST, a.STAY)),
        (s.PROCEEDING, t.FAULT): Step(s.CANCELLING, (a.SEND_CANCEL, a.REPORT_LOST)),
        (s.INCOMING, t.FAULT): Step(s.ENDED, (a.CLOSE, a.REPORT_LOST)),
        (s.ANSWERED, t.FAULT): Step(s.HANGING_UP, (a.REPORT_LOST,)),
        (s.CONFIRMED, t.FAULT): Step(s.ENDING, (a.SEND_BYE, a.REPORT_LOST)),
    }
    for state in (s.CONFIRMED, s.ENDING, s.ENDED):
        # Every copy of the 2xx is acknowledged again, every other fork's 2xx acknowledged and hung up (13.2.2.4).
        rows[state, t.SUCCESS_AGAIN] = Step(state, (a.RESEND_ACK,))
        rows[state, t.SUCCESS_ELSEWHERE] = Step(state, (a.END_FORK,))
    return Table(
        name="call",
        spec="RFC 3261 9, 12, 13, 15",
        start=s.NEW,
        ends=frozenset({s.TERMINATED}),
        rows=rows,
        timers={
            s.CALLING: frozenset({t.RING_LIMIT}),
            s.PROCEEDING: frozenset({t.RING_LIMIT}),
            s.GIVING_UP: frozenset({t.ABANDON}),
            s.CANCELLING: frozenset({t.ABANDON}),
            s.INCOMING: frozenset({t.ANSWER_LIMIT}),
            s.ANSWERED: frozenset({t.ABANDON}),
            s.HANGING_UP: frozenset({t.ABANDON}),
            s.ENDING: frozenset({t.LINGER}),
            s.ENDED: frozenset({t.LINGER}),
        },
        # NEW is left by what makes the call; a conversation lasts as long as both sides like.
        patient=frozenset({s.NEW, s.CONFIRMED}),
    )


CALL = _call_table()

# -- offers within a call ---------------------------------------------------------------------------------------------


class OfferState(Enum):
    """Who has an offer under way. INITIAL and UNANSWERED are the first INVITE's own exchange.

    GLARED is an offer of ours that met one of the peer's: it is made once more after a while. TAKING_BACK is an offer
    of ours that took too long: its CANCEL may still come too late. REFRESHING is a re-INVITE that offers what is agreed
    already (RFC 4028 7.4), of which the session knows nothing. HAVE_REMOTE is an offer by
    re-INVITE, HAVE_UPDATE one by UPDATE.
    """

    INITIAL = auto()
    UNANSWERED = auto()
    STABLE = auto()
    HAVE_LOCAL = auto()
    REFRESHING = auto()
    GLARED = auto()
    TAKING_BACK = auto()
    HAVE_REMOTE = auto()
    HAVE_UPDATE = auto()
    ACCEPTED = auto()
    CLOSED = auto()


class OfferTrigger(Enum):
    """What can happen to offers; LOCAL_* are our side's wishes."""

    INVITED = auto()
    ANSWERED = auto()
    EARLY_ANSWERED = auto()
    ESTABLISHED = auto()
    LOCAL_OFFER = auto()
    LOCAL_REFRESH = auto()
    LOCAL_ACCEPT = auto()
    LOCAL_REFUSE = auto()
    REMOTE_OFFER = auto()
    REMOTE_UPDATE = auto()
    REMOTE_ACCEPT = auto()
    REMOTE_REFUSE = auto()
    REMOTE_GLARE = auto()
    REMOTE_CANCEL = auto()
    CHALLENGE = auto()
    TOO_BRIEF = auto()
    ACK = auto()
    ACK_WITH_ANSWER = auto()
    CALL_ENDED = auto()
    OFFER_LIMIT = auto()
    GLARE_WAIT = auto()
    UPDATE_LIMIT = auto()


class OfferAction(Enum):
    """What is done about an offer."""

    SEND_OFFER = auto()
    SEND_REFRESH = auto()
    OFFER_AGAIN = auto()
    AUTHORIZE = auto()
    SEND_CANCEL = auto()
    SEND_ACCEPTANCE = auto()
    SEND_UPDATE_ACCEPTANCE = auto()
    SEND_REFUSAL = auto()
    SEND_FAILURE = auto()
    SEND_TIMEOUT = auto()
    SEND_TERMINATED = auto()
    REFUSE_GLARE = auto()
    REFUSE_PENDING = auto()
    REPORT_OFFER = auto()
    REPORT_ANSWERED = auto()
    REPORT_REFRESHED = auto()
    REPORT_REFUSED = auto()
    REPORT_GLARE = auto()
    REPORT_TIMEOUT = auto()


def _offer_table() -> Table[OfferState, OfferTrigger, OfferAction]:
    s, t, a = OfferState, OfferTrigger, OfferAction
    rows = {
        (s.INITIAL, t.INVITED): Step(s.UNANSWERED),
        (s.INITIAL, t.ESTABLISHED): Step(s.STABLE),
        (s.UNANSWERED, t.ANSWERED): Step(s.INITIAL),
        # RFC 3262 5: the first exchange is over before the 2xx, where the answer is in a reliable 1xx or in its PRACK.
        (s.INITIAL, t.EARLY_ANSWERED): Step(s.STABLE),
        (s.UNANSWERED, t.EARLY_ANSWERED): Step(s.STABLE),
        (s.INITIAL, t.ACK_WITH_ANSWER): Step(s.STABLE, (a.REPORT_ANSWERED,)),
        (s.STABLE, t.LOCAL_OFFER): Step(s.HAVE_LOCAL, (a.SEND_OFFER,)),
        (s.STABLE, t.REMOTE_OFFER): Step(s.HAVE_REMOTE, (a.REPORT_OFFER,)),
        (s.STABLE, t.REMOTE_UPDATE): Step(s.HAVE_UPDATE, (a.REPORT_OFFER,)),
        (s.HAVE_LOCAL, t.CHALLENGE): Step(s.HAVE_LOCAL, (a.AUTHORIZE,)),
        (s.HAVE_LOCAL, t.TOO_BRIEF): Step(s.HAVE_LOCAL, (a.OFFER_AGAIN,)),  # RFC 4028 7.3
        (s.HAVE_LOCAL, t.REMOTE_ACCEPT): Step(s.STABLE, (a.REPORT_ANSWERED,)),
        (s.HAVE_LOCAL, t.REMOTE_REFUSE): Step(s.STABLE, (a.REPORT_REFUSED,)),
        (s.HAVE_LOCAL, t.REMOTE_GLARE): Step(s.GLARED),
        (s.HAVE_LOCAL, t.OFFER_LIMIT): Step(s.TAKING_BACK, (a.SEND_CANCEL,)),
        (s.STABLE, t.LOCAL_REFRESH): Step(s.REFRESHING, (a.SEND_REFRESH,)),
        (s.REFRESHING, t.CHALLENGE): Step(s.REFRESHING, (a.AUTHORIZE,)),
        (s.REFRESHING, t.TOO_BRIEF): Step(s.REFRESHING, (a.SEND_REFRESH,)),
        (s.REFRESHING, t.REMOTE_ACCEPT): Step(s.STABLE, (a.REPORT_REFRESHED,)),
        (s.REFRESHING, t.REMOTE_REFUSE): Step(s.STABLE),
        (s.REFRESHING, t.REMOTE_GLARE): Step(s.STABLE),
        (s.REFRESHING, t.OFFER_LIMIT): Step(s.STABLE, (a.SEND_CANCEL,)),
        # 14.1: once more, unless the peer's own offer comes first; then the session decides anew.
        (s.GLARED, t.GLARE_WAIT): Step(s.HAVE_LOCAL, (a.OFFER_AGAIN,)),
        (s.GLARED, t.REMOTE_OFFER): Step(s.HAVE_REMOTE, (a.REPORT_GLARE, a.REPORT_OFFER)),
        (s.GLARED, t.REMOTE_UPDATE): Step(s.HAVE_UPDATE, (a.REPORT_GLARE, a.REPORT_OFFER)),
        (s.GLARED, t.LOCAL_OFFER): Step(s.GLARED, (a.REPORT_GLARE,)),
        # A 2xx that crosses our CANCEL stands: both sides have the new session (9.1, 14.1).
        (s.TAKING_BACK, t.REMOTE_ACCEPT): Step(s.STABLE, (a.REPORT_ANSWERED,)),
        (s.TAKING_BACK, t.REMOTE_REFUSE): Step(s.STABLE, (a.REPORT_TIMEOUT,)),
        (s.TAKING_BACK, t.CHALLENGE): Step(s.STABLE, (a.REPORT_TIMEOUT,)),
        (s.TAKING_BACK, t.OFFER_LIMIT): Step(s.STABLE, (a.SEND_CANCEL, a.REPORT_TIMEOUT)),
        (s.HAVE_REMOTE, t.LOCAL_ACCEPT): Step(s.ACCEPTED, (a.SEND_ACCEPTANCE,)),
        (s.HAVE_REMOTE, t.LOCAL_REFUSE): Step(s.STABLE, (a.SEND_REFUSAL,)),
        (s.HAVE_REMOTE, t.REMOTE_CANCEL): Step(s.STABLE, (a.SEND_TERMINATED,)),
        (s.HAVE_REMOTE, t.OFFER_LIMIT): Step(s.STABLE, (a.SEND_FAILURE,)),
        (s.HAVE_REMOTE, t.CALL_ENDED): Step(s.CLOSED, (a.SEND_TERMINATED,)),  # 15.1.2
        (s.HAVE_UPDATE, t.LOCAL_ACCEPT): Step(s.STABLE, (a.SEND_UPDATE_ACCEPTANCE,)),
        (s.HAVE_UPDATE, t.LOCAL_REFUSE): Step(s.STABLE, (a.SEND_REFUSAL,)),
        (s.HAVE_UPDATE, t.REMOTE_CANCEL): Step(s.STABLE, (a.SEND_TERMINATED,)),  # another fork has answered
        # RFC 3311 5.2: answered at once or not at all, for its sender gives up at 64*T1 (timer F).
        (s.HAVE_UPDATE, t.UPDATE_LIMIT): Step(s.STABLE, (a.SEND_TIMEOUT,)),
        (s.HAVE_UPDATE, t.CALL_ENDED): Step(s.CLOSED, (a.SEND_TERMINATED,)),
        # Our 2xx to a re-INVITE waits for its ACK; the pending-ack machine resends it, and ends the call without one.
        (s.ACCEPTED, t.ACK): Step(s.STABLE),
        (s.ACCEPTED, t.ACK_WITH_ANSWER): Step(s.STABLE, (a.REPORT_ANSWERED,)),
        (s.ACCEPTED, t.OFFER_LIMIT): Step(s.STABLE),
    }
    for state in (s.INITIAL, s.UNANSWERED, s.STABLE, s.HAVE_LOCAL, s.REFRESHING, s.GLARED, s.TAKING_BACK, s.ACCEPTED):
        rows[state, t.CALL_ENDED] = Step(s.CLOSED)
    # 14.2, RFC 3311 5.2: 491 where an offer of ours has no answer yet, 500 where one of the peer's has none.
    ours = (s.INITIAL, s.HAVE_LOCAL, s.REFRESHING, s.TAKING_BACK, s.ACCEPTED)
    theirs = (s.UNANSWERED, s.HAVE_REMOTE, s.HAVE_UPDATE)
    for state in (*ours, *theirs):
        rows[state, t.LOCAL_OFFER] = Step(state, (a.REPORT_GLARE,))
        # Before the first INVITE is over, a re-INVITE is refused whatever the offers are.
        for offer in (t.REMOTE_UPDATE,) if state in {s.INITIAL, s.UNANSWERED} else (t.REMOTE_OFFER, t.REMOTE_UPDATE):
            rows[state, offer] = Step(state, (a.REFUSE_GLARE if state in ours else a.REFUSE_PENDING,))
    waiting = frozenset({t.OFFER_LIMIT})
    return Table(
        name="offer",
        spec="RFC 3261 14, RFC 3264 4, RFC 3311",
        start=s.INITIAL,
        ends=frozenset({s.CLOSED}),
        rows=rows,
        timers={
            s.HAVE_LOCAL: waiting,
            s.REFRESHING: waiting,
            s.GLARED: frozenset({t.GLARE_WAIT}),
            s.TAKING_BACK: waiting,
            s.HAVE_REMOTE: waiting,
            s.HAVE_UPDATE: frozenset({t.UPDATE_LIMIT}),
            s.ACCEPTED: waiting,
        },
        # The call machine bounds the first exchange; between offers there is nothing to wait for.
        patient=frozenset({s.INITIAL, s.UNANSWERED, s.STABLE}),
    )


OFFER = _offer_table()
