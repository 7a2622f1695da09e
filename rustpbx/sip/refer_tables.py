"""Transfers by REFER as data: the one that a peer asks us for, and the one that we ask a peer for."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table

# -- the peer's REFER: we are the notifier ----------------------------------------------------------------------------


class Referred(Enum):
    """The subscription that a REFER of the peer's made. CLOSING waits for the answer to the last NOTIFY."""

    NEW = auto()
    ACTIVE = auto()
    CLOSING = auto()
    OVER = auto()


class ReferredTrigger(Enum):
    """PROGRESS and RESULT are what the session says of it. CALL_ENDING: our BYE follows; CALL_GONE: theirs has come."""

    TAKE = auto()
    PROGRESS = auto()
    RESULT = auto()
    NOTIFIED = auto()
    REFUSED = auto()
    CALL_ENDING = auto()
    CALL_GONE = auto()
    EXPIRES = auto()
    CLOSING_LIMIT = auto()


class ReferredAction(Enum):
    """What it does; each TELL is a NOTIFY."""

    ACCEPT = auto()
    TELL_TRYING = auto()
    TELL_PROGRESS = auto()
    TELL_RESULT = auto()
    TELL_DECLINED = auto()
    TELL_TIMEOUT = auto()
    REPORT_REFER = auto()


def _referred_table() -> Table[Referred, ReferredTrigger, ReferredAction]:
    s, t, a = Referred, ReferredTrigger, ReferredAction
    return Table(
        name="referred",
        spec="RFC 3515 2.4.4-2.4.7, RFC 6665 4.2",
        start=s.NEW,
        ends=frozenset({s.OVER}),
        rows={
            # RFC 3515 2.4.4: a NOTIFY at once, whatever comes of it.
            (s.NEW, t.TAKE): Step(s.ACTIVE, (a.ACCEPT, a.TELL_TRYING, a.REPORT_REFER)),
            (s.ACTIVE, t.PROGRESS): Step(s.ACTIVE, (a.TELL_PROGRESS,)),
            (s.ACTIVE, t.RESULT): Step(s.CLOSING, (a.TELL_RESULT,)),
            # Nobody said what became of it, so nothing did.
            (s.ACTIVE, t.EXPIRES): Step(s.CLOSING, (a.TELL_TIMEOUT,)),
            (s.ACTIVE, t.CALL_ENDING): Step(s.CLOSING, (a.TELL_DECLINED,)),
            (s.ACTIVE, t.REFUSED): Step(s.OVER),  # RFC 6665 4.2.2: who refuses a NOTIFY wants no more
            **{(state, t.CALL_GONE): Step(s.OVER) for state in (s.ACTIVE, s.CLOSING)},
            **{(s.CLOSING, end): Step(s.OVER) for end in (t.NOTIFIED, t.REFUSED, t.CLOSING_LIMIT)},
        },
        timers={s.ACTIVE: frozenset({t.EXPIRES}), s.CLOSING: frozenset({t.CLOSING_LIMIT})},
        patient=frozenset({s.NEW}),  # left by what makes it
    )


REFERRED = _referred_table()

# -- our REFER: we are the subscriber ---------------------------------------------------------------------------------


class Referring(Enum):
    """A REFER of ours. OVER knows what became of it; GIVEN_UP does not, and wants no more NOTIFYs."""

    NEW = auto()
    ASKING = auto()
    WAITING = auto()
    PROGRESSING = auto()
    OVER = auto()
    GIVEN_UP = auto()


class ReferringTrigger(Enum):
    """ACCEPTED and REFUSED are the response's, PROGRESS, SUCCESS and FAILURE the NOTIFYs'.

    SUBSCRIPTION_ENDED is a last NOTIFY that says nothing.
    """

    ASK = auto()
    CHALLENGE = auto()
    ACCEPTED = auto()
    REFUSED = auto()
    PROGRESS = auto()
    SUCCESS = auto()
    FAILURE = auto()
    SUBSCRIPTION_ENDED = auto()
    CALL_GONE = auto()
    NOTIFY_LIMIT = auto()
    RESULT_LIMIT = auto()


class ReferringAction(Enum):
    """What it does."""

    SEND_REFER = auto()
    AUTHORIZE = auto()
    REPORT_ACCEPTED = auto()
    REPORT_REFUSED = auto()
    REPORT_PROGRESS = auto()
    REPORT_RESULT = auto()
    REPORT_UNKNOWN = auto()
    REPORT_SILENCE = auto()


def _referring_table() -> Table[Referring, ReferringTrigger, ReferringAction]:
    s, t, a = Referring, ReferringTrigger, ReferringAction
    under_way = (s.ASKING, s.WAITING, s.PROGRESSING)
    limited = frozenset({t.RESULT_LIMIT})
    return Table(
        name="referring",
        spec="RFC 3515 2.4.1, RFC 6665 4.1",
        start=s.NEW,
        ends=frozenset({s.OVER, s.GIVEN_UP}),
        rows={
            (s.NEW, t.ASK): Step(s.ASKING, (a.SEND_REFER,)),
            (s.ASKING, t.CHALLENGE): Step(s.ASKING, (a.AUTHORIZE,)),
            (s.ASKING, t.ACCEPTED): Step(s.WAITING, (a.REPORT_ACCEPTED,)),
            (s.ASKING, t.REFUSED): Step(s.GIVEN_UP, (a.REPORT_REFUSED,)),
            # RFC 6665 4.4.1: a NOTIFY may come before the response.
            **{(state, t.PROGRESS): Step(s.PROGRESSING, (a.REPORT_PROGRESS,)) for state in under_way},
            **{(state, end): Step(s.OVER, (a.REPORT_RESULT,)) for state in under_way for end in (t.SUCCESS, t.FAILURE)},
            **{(state, t.SUBSCRIPTION_ENDED): Step(s.OVER, (a.REPORT_UNKNOWN,)) for state in under_way},
            **{(state, t.RESULT_LIMIT): Step(s.GIVEN_UP, (a.REPORT_SILENCE,)) for state in under_way},
            **{(state, t.CALL_GONE): Step(s.GIVEN_UP) for state in under_way},
            (s.WAITING, t.NOTIFY_LIMIT): Step(s.GIVEN_UP, (a.REPORT_SILENCE,)),
        },
        timers={s.ASKING: limited, s.WAITING: limited | {t.NOTIFY_LIMIT}, s.PROGRESSING: limited},
        patient=frozenset({s.NEW}),  # left by what makes it
    )


REFERRING = _referring_table()
