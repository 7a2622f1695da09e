"""A DTLS association as data (RFC 6347 4.2.4, RFC 5764)."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class DtlsState(Enum):
    """States of an association. Only the passive side listens, only the active one retries."""

    IDLE = auto()
    LISTENING = auto()
    HANDSHAKING = auto()
    RETRYING = auto()
    UNPROVEN = auto()
    SECURE = auto()
    FAILED = auto()
    CLOSED = auto()


class DtlsTrigger(Enum):
    """What can happen to it."""

    LISTEN = auto()  # there is a path, and the peer begins
    CONNECT = auto()  # there is a path, and we begin
    HELLO = auto()  # a ClientHello with our cookie
    BARE_HELLO = auto()  # one without
    FLIGHT = auto()  # the handshake went on, and we have something to say
    PROMISED = auto()  # it is over, with the certificate that SDP promised
    UNANNOUNCED = auto()  # it is over, and SDP has not said yet which certificate it will be
    FOREIGN = auto()  # it is over, with another certificate
    BROKEN = auto()  # it cannot go on: we are passive
    REJECTED = auto()  # it cannot go on: we are active
    REPEATED = auto()  # the peer says again what it said before
    PEER_CLOSED = auto()
    CLOSE = auto()
    RESEND_TIMER = auto()
    HANDSHAKE_TIMEOUT = auto()


class DtlsAction(Enum):
    """What it does."""

    BEGIN = auto()
    VERIFY = auto()
    ACCEPT = auto()
    SEND = auto()
    SEND_AGAIN = auto()
    FORGET = auto()
    SECURE = auto()
    FAIL = auto()
    SAY_GOODBYE = auto()
    REPORT_CLOSED = auto()


def _dtls_table() -> Table[DtlsState, DtlsTrigger, DtlsAction]:
    s, t, a = DtlsState, DtlsTrigger, DtlsAction
    rows = {
        (s.IDLE, t.LISTEN): Step(s.LISTENING),
        (s.IDLE, t.CONNECT): Step(s.HANDSHAKING, (a.BEGIN, a.SEND)),
        # 4.2.1: nothing is kept of a hello until its sender has shown that it can receive at that address.
        (s.LISTENING, t.BARE_HELLO): Step(s.LISTENING, (a.VERIFY,)),
        (s.LISTENING, t.HELLO): Step(s.HANDSHAKING, (a.ACCEPT,)),
        (s.HANDSHAKING, t.FLIGHT): Step(s.HANDSHAKING, (a.SEND,)),
        (s.HANDSHAKING, t.RESEND_TIMER): Step(s.HANDSHAKING, (a.SEND_AGAIN,)),
        (s.HANDSHAKING, t.PROMISED): Step(s.SECURE, (a.SEND, a.SECURE)),
        (s.HANDSHAKING, t.UNANNOUNCED): Step(s.UNPROVEN, (a.SEND,)),
        (s.HANDSHAKING, t.FOREIGN): Step(s.FAILED, (a.FAIL,)),
        # A peer that lost its patience, or its memory, begins anew.
        (s.HANDSHAKING, t.BARE_HELLO): Step(s.HANDSHAKING, (a.VERIFY,)),
        (s.HANDSHAKING, t.HELLO): Step(s.HANDSHAKING, (a.FORGET, a.ACCEPT)),
        # Nothing in a handshake is authentic before its end: what broke it need not have been the peer.
        (s.HANDSHAKING, t.BROKEN): Step(s.LISTENING, (a.FORGET,)),
        (s.HANDSHAKING, t.REJECTED): Step(s.RETRYING, (a.FORGET,)),
        (s.RETRYING, t.RESEND_TIMER): Step(s.HANDSHAKING, (a.BEGIN, a.SEND)),
        (s.UNPROVEN, t.PROMISED): Step(s.SECURE, (a.SECURE,)),
        (s.UNPROVEN, t.FOREIGN): Step(s.FAILED, (a.FAIL,)),
        # 4.2.4: whoever spoke last says it again to a peer that has not heard it.
        (s.UNPROVEN, t.REPEATED): Step(s.UNPROVEN, (a.SEND_AGAIN,)),
        (s.SECURE, t.REPEATED): Step(s.SECURE, (a.SEND_AGAIN,)),
        (s.UNPROVEN, t.PEER_CLOSED): Step(s.CLOSED, (a.REPORT_CLOSED,)),
        (s.SECURE, t.PEER_CLOSED): Step(s.CLOSED, (a.REPORT_CLOSED,)),
        (s.SECURE, t.CLOSE): Step(s.CLOSED, (a.SAY_GOODBYE,)),
    }
    waiting = (s.LISTENING, s.HANDSHAKING, s.RETRYING, s.UNPROVEN)
    for state in waiting:
        rows[state, t.HANDSHAKE_TIMEOUT] = Step(s.FAILED, (a.FAIL,))
    for state in (s.IDLE, *waiting):
        rows[state, t.CLOSE] = Step(s.CLOSED)
    return Table(
        name="dtls",
        spec="RFC 6347 4.2.4, RFC 5764",
        start=s.IDLE,
        ends=frozenset({s.FAILED, s.CLOSED}),
        rows=rows,
        timers={
            s.LISTENING: frozenset({t.HANDSHAKE_TIMEOUT}),
            s.HANDSHAKING: frozenset({t.RESEND_TIMER, t.HANDSHAKE_TIMEOUT}),
            s.RETRYING: frozenset({t.RESEND_TIMER, t.HANDSHAKE_TIMEOUT}),
            s.UNPROVEN: frozenset({t.HANDSHAKE_TIMEOUT}),
        },
        # IDLE until its owner has found a path, SECURE as long as the call lasts.
        patient=frozenset({s.IDLE, s.SECURE}),
    )


DTLS = _dtls_table()
