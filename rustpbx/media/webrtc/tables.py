"""How far a browser's leg is, as data: ICE below, DTLS above it."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class PeerState(Enum):
    """States of a leg to a browser."""

    GATHERING = auto()
    """Our candidates are collected."""
    CONNECTING = auto()
    """Our description is out; ICE looks for a path."""
    SECURING = auto()
    """There is a path; DTLS is under way on it."""
    UP = auto()
    SILENT = auto()
    """The peer does not answer ICE any more, for now."""
    LOST = auto()
    CLOSED = auto()


class PeerTrigger(Enum):
    """What can happen to it."""

    GATHERED = auto()
    PATH = auto()
    SECURED = auto()
    FELL_SILENT = auto()
    RETURNED = auto()
    PATH_FAILED = auto()
    DTLS_FAILED = auto()
    PEER_CLOSED = auto()
    CLOSE = auto()
    GATHER_TIMEOUT = auto()
    CONNECT_TIMEOUT = auto()
    SILENCE_TIMEOUT = auto()


class PeerAction(Enum):
    """What it does."""

    REPORT_READY = auto()
    FOLLOW = auto()
    REPORT_SECURED = auto()
    REPORT_LOST = auto()
    REPORT_GONE = auto()
    SAY_GOODBYE = auto()


def _peer_table() -> Table[PeerState, PeerTrigger, PeerAction]:
    s, t, a = PeerState, PeerTrigger, PeerAction
    rows = {
        # What has been found so far is told when the time is over: a peer that gets no answer has no call at all.
        **{(s.GATHERING, trigger): Step(s.CONNECTING, (a.REPORT_READY,)) for trigger in (t.GATHERED, t.GATHER_TIMEOUT)},
        (s.CONNECTING, t.PATH): Step(s.SECURING, (a.FOLLOW,)),
        (s.CONNECTING, t.CONNECT_TIMEOUT): Step(s.LOST, (a.REPORT_LOST,)),
        (s.SECURING, t.PATH): Step(s.SECURING, (a.FOLLOW,)),
        (s.SECURING, t.SECURED): Step(s.UP, (a.REPORT_SECURED,)),
        (s.UP, t.PATH): Step(s.UP, (a.FOLLOW,)),
        (s.UP, t.FELL_SILENT): Step(s.SILENT),
        (s.SILENT, t.RETURNED): Step(s.UP),
        (s.SILENT, t.PATH): Step(s.UP, (a.FOLLOW,)),
        (s.SILENT, t.SILENCE_TIMEOUT): Step(s.LOST, (a.REPORT_LOST,)),
    }
    live = (s.GATHERING, s.CONNECTING, s.SECURING, s.UP, s.SILENT)
    for state in live:
        rows[state, t.PATH_FAILED] = Step(s.LOST, (a.REPORT_LOST,))
        rows[state, t.CLOSE] = Step(s.CLOSED, (a.SAY_GOODBYE,))
    for state in (s.SECURING, s.UP, s.SILENT):
        rows[state, t.DTLS_FAILED] = Step(s.LOST, (a.REPORT_LOST,))
        rows[state, t.PEER_CLOSED] = Step(s.CLOSED, (a.REPORT_GONE,))
    return Table(
        name="peer",
        spec="a leg to a browser: RFC 8445, RFC 7675, RFC 5764",
        start=s.GATHERING,
        ends=frozenset({s.LOST, s.CLOSED}),
        rows=rows,
        timers={
            s.GATHERING: frozenset({t.GATHER_TIMEOUT}),
            s.CONNECTING: frozenset({t.CONNECT_TIMEOUT}),
            s.SILENT: frozenset({t.SILENCE_TIMEOUT}),
        },
        # SECURING ends with the handshake's own time, which says what was wrong with it; UP by consent.
        patient=frozenset({s.SECURING, s.UP}),
    )


PEER = _peer_table()
