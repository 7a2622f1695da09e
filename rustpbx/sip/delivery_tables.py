"""One request of ours on its way to one of several servers, as data (RFC 3263 4.3, RFC 3261 8.1.3.1)."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class DeliveryState(Enum):
    """Where a request of ours is.

    TRYING has heard nothing of the server that it asked, REACHED a 100, COMMITTED that it rings. STAYING is TRYING
    without the other servers. WITHDRAWING waits for the provisional response without which there is no CANCEL (9.1),
    WITHDRAWN has sent it. ANSWERED has a final response.
    """

    NEW = auto()
    LOCATING = auto()
    TRYING = auto()
    REACHED = auto()
    STAYING = auto()
    COMMITTED = auto()
    WITHDRAWING = auto()
    WITHDRAWN = auto()
    ANSWERED = auto()
    OVER = auto()


class DeliveryTrigger(Enum):
    """What can happen to a request on its way.

    REACHABLE is a 100, PROGRESS any other provisional response. HOP_FAILED is a transport failure, a timeout without
    a response, or 503, where another server is left. FINAL is a final response, or a failure of the last server.
    STAY and CANCEL are its owner's: ask no other server, and take it back.
    """

    LOCATE = auto()
    LOCATED = auto()
    NOT_LOCATED = auto()
    LOCATE_LIMIT = auto()
    REACHABLE = auto()
    PROGRESS = auto()
    FINAL = auto()
    HOP_FAILED = auto()
    HOP_LIMIT = auto()
    STAY = auto()
    CANCEL = auto()
    FORGOTTEN = auto()


class DeliveryAction(Enum):
    """What is done about it. GO_ON leaves the server that has not answered, SEND asks the next one."""

    ASK = auto()
    SEND = auto()
    GO_ON = auto()
    SEND_CANCEL = auto()
    PASS_UP = auto()
    REPORT_UNLOCATED = auto()
    REPORT_GIVEN_UP = auto()


def _delivery_table() -> Table[DeliveryState, DeliveryTrigger, DeliveryAction]:
    s, t, a = DeliveryState, DeliveryTrigger, DeliveryAction
    rows = {
        (s.NEW, t.LOCATE): Step(s.LOCATING, (a.ASK,)),
        (s.NEW, t.LOCATED): Step(s.TRYING, (a.SEND,)),
        (s.NEW, t.NOT_LOCATED): Step(s.OVER, (a.REPORT_UNLOCATED,)),
        (s.LOCATING, t.LOCATED): Step(s.TRYING, (a.SEND,)),
        (s.LOCATING, t.NOT_LOCATED): Step(s.OVER, (a.REPORT_UNLOCATED,)),
        (s.LOCATING, t.LOCATE_LIMIT): Step(s.OVER, (a.REPORT_UNLOCATED,)),
        # Nobody wants it any more, and nobody has got it.
        (s.LOCATING, t.STAY): Step(s.OVER, (a.REPORT_GIVEN_UP,)),
        (s.LOCATING, t.CANCEL): Step(s.OVER, (a.REPORT_GIVEN_UP,)),
        (s.TRYING, t.REACHABLE): Step(s.REACHED, (a.PASS_UP,)),
        (s.TRYING, t.HOP_FAILED): Step(s.TRYING, (a.SEND,)),
        (s.TRYING, t.HOP_LIMIT): Step(s.TRYING, (a.GO_ON, a.SEND)),
        (s.TRYING, t.STAY): Step(s.STAYING),
        (s.TRYING, t.CANCEL): Step(s.WITHDRAWING),
        # "100 Trying" is not silence: the server lives, and only its own 503 sends us on.
        (s.REACHED, t.REACHABLE): Step(s.REACHED, (a.PASS_UP,)),
        (s.REACHED, t.HOP_FAILED): Step(s.TRYING, (a.SEND,)),
        (s.REACHED, t.STAY): Step(s.COMMITTED),
        (s.REACHED, t.CANCEL): Step(s.WITHDRAWN, (a.SEND_CANCEL,)),
        (s.STAYING, t.REACHABLE): Step(s.COMMITTED, (a.PASS_UP,)),
        (s.STAYING, t.CANCEL): Step(s.WITHDRAWING),
        (s.COMMITTED, t.REACHABLE): Step(s.COMMITTED, (a.PASS_UP,)),
        (s.COMMITTED, t.CANCEL): Step(s.WITHDRAWN, (a.SEND_CANCEL,)),
        (s.WITHDRAWING, t.REACHABLE): Step(s.WITHDRAWN, (a.SEND_CANCEL, a.PASS_UP)),
        (s.WITHDRAWING, t.PROGRESS): Step(s.WITHDRAWN, (a.SEND_CANCEL, a.PASS_UP)),
        (s.WITHDRAWN, t.REACHABLE): Step(s.WITHDRAWN, (a.PASS_UP,)),
        (s.WITHDRAWN, t.PROGRESS): Step(s.WITHDRAWN, (a.PASS_UP,)),
        # Copies and forks of a 2xx, each for the owner to acknowledge.
        (s.ANSWERED, t.FINAL): Step(s.ANSWERED, (a.PASS_UP,)),
        (s.ANSWERED, t.FORGOTTEN): Step(s.OVER),
    }
    for state in (s.TRYING, s.REACHED, s.STAYING, s.COMMITTED):
        # It rings there: whatever that server says next is the answer, its 503 too.
        rows[state, t.PROGRESS] = Step(s.COMMITTED, (a.PASS_UP,))
    for state in (s.TRYING, s.REACHED, s.STAYING, s.COMMITTED, s.WITHDRAWING, s.WITHDRAWN):
        rows[state, t.FINAL] = Step(s.ANSWERED, (a.PASS_UP,))
    return Table(
        name="delivery",
        spec="RFC 3263 4.3, RFC 3261 8.1.3.1",
        start=s.NEW,
        ends=frozenset({s.OVER}),
        rows=rows,
        timers={s.LOCATING: frozenset({t.LOCATE_LIMIT}), s.TRYING: frozenset({t.HOP_LIMIT})},
        # NEW is left in the same breath. The others wait for their transactions, each of which has a timer out; TRYING
        # goes on from server to server, and there are only so many.
        patient=frozenset(s) - {s.LOCATING, s.OVER},
    )


DELIVERY = _delivery_table()
