"""Transactions as data: the four of RFC 3261 section 17, and the wait for the ACK of a 2xx."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table

# -- client transactions --------------------------------------------------------------------------------------------


class ClientTrigger(Enum):
    """What can happen to a client transaction."""

    PROVISIONAL = auto()
    SUCCESS = auto()
    FAILURE = auto()
    CANCEL = auto()
    UNDELIVERABLE = auto()
    TIMER_A = auto()
    TIMER_B = auto()
    TIMER_C = auto()
    TIMER_D = auto()
    TIMER_E = auto()
    TIMER_F = auto()
    TIMER_K = auto()
    TIMER_M = auto()
    CANCEL_LIMIT = auto()


class ClientAction(Enum):
    """What a client transaction does."""

    RESEND = auto()
    SEND_ACK = auto()
    PASS_UP = auto()
    REPORT_TIMEOUT = auto()
    REPORT_UNDELIVERABLE = auto()


class InviteClient(Enum):
    """States of an INVITE client transaction.

    CANCELLING is PROCEEDING after our CANCEL went out, and CALLING of a server that we do without (RFC 3263 4.3).
    """

    CALLING = auto()
    PROCEEDING = auto()
    CANCELLING = auto()
    COMPLETED = auto()
    ACCEPTED = auto()
    TERMINATED = auto()


INVITE_CLIENT = Table[InviteClient, ClientTrigger, ClientAction](
    name="invite-client",
    spec="RFC 3261 17.1.1 + RFC 6026 7.2",
    start=InviteClient.CALLING,
    ends=frozenset({InviteClient.TERMINATED}),
    rows={
        (InviteClient.CALLING, ClientTrigger.TIMER_A): Step(InviteClient.CALLING, (ClientAction.RESEND,)),
        (InviteClient.CALLING, ClientTrigger.TIMER_B): Step(InviteClient.TERMINATED, (ClientAction.REPORT_TIMEOUT,)),
        (InviteClient.CALLING, ClientTrigger.UNDELIVERABLE): Step(
            InviteClient.TERMINATED, (ClientAction.REPORT_UNDELIVERABLE,)
        ),
        # No more copies; what the server answers after all is passed up, and its first word answered by CANCEL.
        (InviteClient.CALLING, ClientTrigger.CANCEL): Step(InviteClient.CANCELLING),
        (InviteClient.CALLING, ClientTrigger.PROVISIONAL): Step(InviteClient.PROCEEDING, (ClientAction.PASS_UP,)),
        (InviteClient.CALLING, ClientTrigger.SUCCESS): Step(InviteClient.ACCEPTED, (ClientAction.PASS_UP,)),
        (InviteClient.CALLING, ClientTrigger.FAILURE): Step(
            InviteClient.COMPLETED, (ClientAction.SEND_ACK, ClientAction.PASS_UP)
        ),
        (InviteClient.PROCEEDING, ClientTrigger.PROVISIONAL): Step(InviteClient.PROCEEDING, (ClientAction.PASS_UP,)),
        (InviteClient.PROCEEDING, ClientTrigger.SUCCESS): Step(InviteClient.ACCEPTED, (ClientAction.PASS_UP,)),
        (InviteClient.PROCEEDING, ClientTrigger.FAILURE): Step(
            InviteClient.COMPLETED, (ClientAction.SEND_ACK, ClientAction.PASS_UP)
        ),
        (InviteClient.PROCEEDING, ClientTrigger.CANCEL): Step(InviteClient.CANCELLING),
        # Section 16.6 item 11; above the call's RING_LIMIT, which cancels first.
        (InviteClient.PROCEEDING, ClientTrigger.TIMER_C): Step(InviteClient.TERMINATED, (ClientAction.REPORT_TIMEOUT,)),
        # Section 9.1: without a final response 64*T1 after the CANCEL, consider the INVITE cancelled.
        (InviteClient.CANCELLING, ClientTrigger.PROVISIONAL): Step(InviteClient.CANCELLING, (ClientAction.PASS_UP,)),
        (InviteClient.CANCELLING, ClientTrigger.SUCCESS): Step(InviteClient.ACCEPTED, (ClientAction.PASS_UP,)),
        (InviteClient.CANCELLING, ClientTrigger.FAILURE): Step(
            InviteClient.COMPLETED, (ClientAction.SEND_ACK, ClientAction.PASS_UP)
        ),
        (InviteClient.CANCELLING, ClientTrigger.CANCEL_LIMIT): Step(
            InviteClient.TERMINATED, (ClientAction.REPORT_TIMEOUT,)
        ),
        (InviteClient.COMPLETED, ClientTrigger.FAILURE): Step(InviteClient.COMPLETED, (ClientAction.SEND_ACK,)),
        (InviteClient.COMPLETED, ClientTrigger.UNDELIVERABLE): Step(InviteClient.TERMINATED),
        (InviteClient.COMPLETED, ClientTrigger.TIMER_D): Step(InviteClient.TERMINATED),
        # RFC 6026 7.2: 2xx of all forks and their copies reach the core, which acknowledges each.
        (InviteClient.ACCEPTED, ClientTrigger.SUCCESS): Step(InviteClient.ACCEPTED, (ClientAction.PASS_UP,)),
        (InviteClient.ACCEPTED, ClientTrigger.TIMER_M): Step(InviteClient.TERMINATED),
    },
    timers={
        InviteClient.CALLING: frozenset({ClientTrigger.TIMER_A, ClientTrigger.TIMER_B}),
        InviteClient.PROCEEDING: frozenset({ClientTrigger.TIMER_C}),
        InviteClient.CANCELLING: frozenset({ClientTrigger.CANCEL_LIMIT}),
        InviteClient.COMPLETED: frozenset({ClientTrigger.TIMER_D}),
        InviteClient.ACCEPTED: frozenset({ClientTrigger.TIMER_M}),
    },
)


class RequestClient(Enum):
    """States of a client transaction of any other method."""

    TRYING = auto()
    PROCEEDING = auto()
    COMPLETED = auto()
    TERMINATED = auto()


REQUEST_CLIENT = Table[RequestClient, ClientTrigger, ClientAction](
    name="request-client",
    spec="RFC 3261 17.1.2",
    start=RequestClient.TRYING,
    ends=frozenset({RequestClient.TERMINATED}),
    rows={
        (RequestClient.TRYING, ClientTrigger.TIMER_E): Step(RequestClient.TRYING, (ClientAction.RESEND,)),
        (RequestClient.TRYING, ClientTrigger.TIMER_F): Step(RequestClient.TERMINATED, (ClientAction.REPORT_TIMEOUT,)),
        (RequestClient.TRYING, ClientTrigger.UNDELIVERABLE): Step(
            RequestClient.TERMINATED, (ClientAction.REPORT_UNDELIVERABLE,)
        ),
        (RequestClient.TRYING, ClientTrigger.PROVISIONAL): Step(RequestClient.PROCEEDING, (ClientAction.PASS_UP,)),
        (RequestClient.TRYING, ClientTrigger.SUCCESS): Step(RequestClient.COMPLETED, (ClientAction.PASS_UP,)),
        (RequestClient.TRYING, ClientTrigger.FAILURE): Step(RequestClient.COMPLETED, (ClientAction.PASS_UP,)),
        (RequestClient.PROCEEDING, ClientTrigger.TIMER_E): Step(RequestClient.PROCEEDING, (ClientAction.RESEND,)),
        (RequestClient.PROCEEDING, ClientTrigger.TIMER_F): Step(
            RequestClient.TERMINATED, (ClientAction.REPORT_TIMEOUT,)
        ),
        (RequestClient.PROCEEDING, ClientTrigger.UNDELIVERABLE): Step(
            RequestClient.TERMINATED, (ClientAction.REPORT_UNDELIVERABLE,)
        ),
        (RequestClient.PROCEEDING, ClientTrigger.PROVISIONAL): Step(RequestClient.PROCEEDING, (ClientAction.PASS_UP,)),
        (RequestClient.PROCEEDING, ClientTrigger.SUCCESS): Step(RequestClient.COMPLETED, (ClientAction.PASS_UP,)),
        (RequestClient.PROCEEDING, ClientTrigger.FAILURE): Step(RequestClient.COMPLETED, (ClientAction.PASS_UP,)),
        (RequestClient.COMPLETED, ClientTrigger.TIMER_K): Step(RequestClient.TERMINATED),
    },
    timers={
        RequestClient.TRYING: frozenset({ClientTrigger.TIMER_E, ClientTrigger.TIMER_F}),
        RequestClient.PROCEEDING: frozenset({ClientTrigger.TIMER_E, ClientTrigger.TIMER_F}),
        RequestClient.COMPLETED: frozenset({ClientTrigger.TIMER_K}),
    },
)

# -- server transactions --------------------------------------------------------------------------------------------


class ServerTrigger(Enum):
    """What can happen to a server transaction; REPLY_* are our own responses."""

    REQUEST = auto()
    ACK = auto()
    REPLY_PROVISIONAL = auto()
    REPLY_SUCCESS = auto()
    REPLY_FAILURE = auto()
    TIMER_G = auto()
    TIMER_H = auto()
    TIMER_I = auto()
    TIMER_J = auto()
    TIMER_L = auto()


class ServerAction(Enum):
    """What a server transaction does."""

    SEND = auto()
    RESEND = auto()


class InviteServer(Enum):
    """States of an INVITE server transaction."""

    PROCEEDING = auto()
    COMPLETED = auto()
    CONFIRMED = auto()
    ACCEPTED = auto()
    TERMINATED = auto()


INVITE_SERVER = Table[InviteServer, ServerTrigger, ServerAction](
    name="invite-server",
    spec="RFC 3261 17.2.1 + RFC 6026 7.1",
    start=InviteServer.PROCEEDING,
    ends=frozenset({InviteServer.TERMINATED}),
    rows={
        (InviteServer.PROCEEDING, ServerTrigger.REQUEST): Step(InviteServer.PROCEEDING, (ServerAction.RESEND,)),
        (InviteServer.PROCEEDING, ServerTrigger.REPLY_PROVISIONAL): Step(InviteServer.PROCEEDING, (ServerAction.SEND,)),
        (InviteServer.PROCEEDING, ServerTrigger.REPLY_SUCCESS): Step(InviteServer.ACCEPTED, (ServerAction.SEND,)),
        (InviteServer.PROCEEDING, ServerTrigger.REPLY_FAILURE): Step(InviteServer.COMPLETED, (ServerAction.SEND,)),
        (InviteServer.COMPLETED, ServerTrigger.REQUEST): Step(InviteServer.COMPLETED, (ServerAction.RESEND,)),
        (InviteServer.COMPLETED, ServerTrigger.TIMER_G): Step(InviteServer.COMPLETED, (ServerAction.RESEND,)),
        (InviteServer.COMPLETED, ServerTrigger.TIMER_H): Step(InviteServer.TERMINATED),
        (InviteServer.COMPLETED, ServerTrigger.ACK): Step(InviteServer.CONFIRMED),
        (InviteServer.CONFIRMED, ServerTrigger.TIMER_I): Step(InviteServer.TERMINATED),
        # RFC 6026 7.1: copies of an accepted INVITE are absorbed, the core resends its 2xx.
        (InviteServer.ACCEPTED, ServerTrigger.REQUEST): Step(InviteServer.ACCEPTED),
        (InviteServer.ACCEPTED, ServerTrigger.REPLY_SUCCESS): Step(InviteServer.ACCEPTED, (ServerAction.SEND,)),
        (InviteServer.ACCEPTED, ServerTrigger.TIMER_L): Step(InviteServer.TERMINATED),
    },
    timers={
        InviteServer.COMPLETED: frozenset({ServerTrigger.TIMER_G, ServerTrigger.TIMER_H}),
        InviteServer.CONFIRMED: frozenset({ServerTrigger.TIMER_I}),
        InviteServer.ACCEPTED: frozenset({ServerTrigger.TIMER_L}),
    },
    # It waits for our own side, and the call above has the limits (ANSWER_LIMIT, OFFER_LIMIT).
    patient=frozenset({InviteServer.PROCEEDING}),
)


class RequestServer(Enum):
    """States of a server transaction of any other method."""

    TRYING = auto()
    PROCEEDING = auto()
    COMPLETED = auto()
    TERMINATED = auto()


REQUEST_SERVER = Table[RequestServer, ServerTrigger, ServerAction](
    name="request-server",
    spec="RFC 3261 17.2.2",
    start=RequestServer.TRYING,
    ends=frozenset({RequestServer.TERMINATED}),
    rows={
        (RequestServer.TRYING, ServerTrigger.REQUEST): Step(RequestServer.TRYING),
        (RequestServer.TRYING, ServerTrigger.REPLY_PROVISIONAL): Step(RequestServer.PROCEEDING, (ServerAction.SEND,)),
        (RequestServer.TRYING, ServerTrigger.REPLY_SUCCESS): Step(RequestServer.COMPLETED, (ServerAction.SEND,)),
        (RequestServer.TRYING, ServerTrigger.REPLY_FAILURE): Step(RequestServer.COMPLETED, (ServerAction.SEND,)),
        (RequestServer.PROCEEDING, ServerTrigger.REQUEST): Step(RequestServer.PROCEEDING, (ServerAction.RESEND,)),
        (RequestServer.PROCEEDING, ServerTrigger.REPLY_PROVISIONAL): Step(
            RequestServer.PROCEEDING, (ServerAction.SEND,)
        ),
        (RequestServer.PROCEEDING, ServerTrigger.REPLY_SUCCESS): Step(RequestServer.COMPLETED, (ServerAction.SEND,)),
        (RequestServer.PROCEEDING, ServerTrigger.REPLY_FAILURE): Step(RequestServer.COMPLETED, (ServerAction.SEND,)),
        (RequestServer.COMPLETED, ServerTrigger.REQUEST): Step(RequestServer.COMPLETED, (ServerAction.RESEND,)),
        (RequestServer.COMPLETED, ServerTrigger.TIMER_J): Step(RequestServer.TERMINATED),
    },
    timers={RequestServer.COMPLETED: frozenset({ServerTrigger.TIMER_J})},
    # They wait for our own side: all answers are immediate but an UPDATE's, which UPDATE_LIMIT bounds.
    patient=frozenset({RequestServer.TRYING, RequestServer.PROCEEDING}),
)

# -- a 2xx to INVITE that waits for its ACK ---------------------------------------------------------------------------


class PendingAck(Enum):
    """States of the wait for the ACK of one 2xx."""

    WAITING = auto()
    OVER = auto()


class PendingAckTrigger(Enum):
    """What can happen while a 2xx waits for its ACK; CALL_ENDED is a BYE that came first."""

    ACK = auto()
    CALL_ENDED = auto()
    RESEND_TIMER = auto()
    ACK_LIMIT = auto()


class PendingAckAction(Enum):
    """What the wait does."""

    RESEND = auto()
    REPORT_ACK = auto()
    REPORT_LOST = auto()


PENDING_ACK = Table[PendingAck, PendingAckTrigger, PendingAckAction](
    name="pending-ack",
    spec="RFC 3261 13.3.1.4",
    start=PendingAck.WAITING,
    ends=frozenset({PendingAck.OVER}),
    rows={
        (PendingAck.WAITING, PendingAckTrigger.RESEND_TIMER): Step(PendingAck.WAITING, (PendingAckAction.RESEND,)),
        (PendingAck.WAITING, PendingAckTrigger.ACK): Step(PendingAck.OVER, (PendingAckAction.REPORT_ACK,)),
        (PendingAck.WAITING, PendingAckTrigger.ACK_LIMIT): Step(PendingAck.OVER, (PendingAckAction.REPORT_LOST,)),
        (PendingAck.WAITING, PendingAckTrigger.CALL_ENDED): Step(PendingAck.OVER),
    },
    timers={PendingAck.WAITING: frozenset({PendingAckTrigger.RESEND_TIMER, PendingAckTrigger.ACK_LIMIT})},
)
