"""Reliable provisional responses (RFC 3262): ours until they are acknowledged, and the order of the peer's."""

from __future__ import annotations

import re
from typing import Protocol

import attrs

from rustpbx.core import Deadline
from rustpbx.errors import RemoteError
from rustpbx.machine import Machine
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.events import Answer, Ring, Send
from rustpbx.sip.extensions import RELIABLE as TAG
from rustpbx.sip.extensions import requires
from rustpbx.sip.headers import parse_number
from rustpbx.sip.leg import Leg
from rustpbx.sip.message import CSeq, Lines, Request, Response
from rustpbx.sip.tables import RELIABLE, ReliableAction, ReliableState, ReliableTrigger
from rustpbx.sip.timing import Backoff
from rustpbx.sip.transaction import ServerTransaction

_RACK = re.compile(r"([0-9]{1,10})[ \t]++([0-9]{1,10})[ \t]++([A-Za-z0-9\-.!%*_+`'~]++)")


@attrs.frozen
class RAck:
    """Which response a PRACK acknowledges: its RSeq, and the CSeq of what it answers (section 7.2)."""

    rseq: int
    cseq: CSeq

    def __str__(self) -> str:
        return f"{self.rseq} {self.cseq.number} {self.cseq.method}"


def parse_rack(request: Request) -> RAck:
    """The RAck of a PRACK. RemoteError (400) if there is none that can be read."""
    found = _RACK.fullmatch(request.header("RAck") or "")
    if found is None or max(int(found[1]), int(found[2])) >= 2**32:
        raise RemoteError("a PRACK without a RAck")
    return RAck(int(found[1]), CSeq(int(found[2]), found[3]))


def rseq_of(response: Response) -> int | None:
    """The RSeq of a reliable provisional response; None for any other. RemoteError (400) if it cannot be read."""
    if not 100 < response.status < 200 or not requires(response, TAG):
        return None
    rseq = parse_number(response.header("RSeq") or "", "RSeq", 2**32)
    if rseq == 0:
        raise RemoteError("an RSeq of 0")
    return rseq


class Owner(Protocol):
    """The call whose INVITE is being answered."""

    def send_reliably(self, ring: Ring, lines: Lines, now: float) -> Response:
        """Send a provisional response with these header fields; what was sent."""
        ...

    def send_answer(self, answer: Answer, now: float) -> None:
        """Send the 2xx: nothing holds it back any more."""
        ...

    def prack_lost(self, now: float) -> None:
        """No PRACK has come within 64*T1."""
        ...


class ReliableResponses:
    """Our reliable provisional responses to one INVITE: one at a time, resent until its PRACK (section 3).

    Of those that are wished for meanwhile the newest waits, but none displaces one with a session description.
    """

    def __init__(self, leg: Leg, invite: ServerTransaction, owner: Owner) -> None:
        self._leg = leg
        self._invite = invite
        self._owner = owner
        self._rseq = leg.layer.first_rseq()
        self._unacknowledged: Send | None = None
        self._ring: Ring | None = None
        self._waiting: Ring | None = None
        self._answer: Answer | None = None
        self._backoff = Backoff(leg.layer.config.timing)
        self._machine = Machine[ReliableState, ReliableTrigger, ReliableAction](RELIABLE, self._duration, call=leg.name)

    @property
    def state(self) -> ReliableState:
        """Where they stand."""
        return self._machine.state

    @property
    def expecting(self) -> bool:
        """Whether a PRACK may still come, also after the final response."""
        return self._unacknowledged is not None

    def deadline(self) -> Deadline:
        """When the next timer runs out."""
        return self._machine.deadline()

    def wake(self, now: float) -> None:
        """Take the timers that have run out."""
        for trigger in self._machine.fired(now):
            self._step(trigger, now)

    def ring(self, ring: Ring, now: float) -> None:
        """Send a provisional response reliably, as soon as it may be."""
        self._ring = ring
        self._step(ReliableTrigger.RING_WITH_SDP if ring.body else ReliableTrigger.RING, now)

    def answer(self, answer: Answer, now: float) -> None:
        """Let the call be answered: now, or when a session description on its way has arrived."""
        self._answer = answer
        self._step(ReliableTrigger.ANSWER, now)

    def final(self, now: float) -> None:
        """A final response of ours has been sent: nothing is resent any more."""
        self._step(ReliableTrigger.FINAL, now)

    def acknowledges(self, rack: RAck) -> bool:
        """Whether a PRACK is for the response that waits for one."""
        return self.expecting and rack == RAck(self._rseq, self._invite.request.cseq)

    def acknowledged(self, now: float) -> None:
        """Its PRACK has come."""
        self._unacknowledged = None
        self._step(ReliableTrigger.PRACK, now)

    def _step(self, trigger: ReliableTrigger, now: float) -> None:
        for action in self._machine.step(trigger, now):
            self._act(action, now)

    def _act(self, action: ReliableAction, now: float) -> None:
        match action:
            case ReliableAction.SEND:
                self._send(now)
            case ReliableAction.RESEND:
                self._resend()
            case ReliableAction.QUEUE:
                self._queue()
            case ReliableAction.SEND_WAITING:
                self._send_waiting(now)
            case ReliableAction.HOLD_ANSWER:
                self._leg.layer.counters["answers_held"] += 1
            case ReliableAction.SEND_ANSWER:
                if self._answer is not None:
                    self._owner.send_answer(self._answer, now)
            case ReliableAction.REPORT_LOST:
                self._owner.prack_lost(now)

    def _send(self, now: float) -> None:
        if self._ring is None:
            return
        self._rseq += 1
        lines = (("Require", TAG), ("RSeq", str(self._rseq)))
        response = self._owner.send_reliably(self._ring, lines, now)
        self._unacknowledged = Send(encode_message(response), self._invite.destination)
        # Resent on every transport, and without T2: a proxy on the way may use UDP.
        self._backoff = Backoff(attrs.evolve(self._leg.layer.config.timing, reliable=False))
        self._machine.restart(ReliableTrigger.RESEND_TIMER, now)

    def _resend(self) -> None:
        if self._unacknowledged is not None:
            self._leg.layer.send(self._unacknowledged)

    def _queue(self) -> None:
        if self._ring is not None and (self._ring.body or self._waiting is None or not self._waiting.body):
            self._waiting = self._ring

    def _send_waiting(self, now: float) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.ring(waiting, now)

    def _duration(self, trigger: ReliableTrigger) -> float:
        if trigger is ReliableTrigger.RESEND_TIMER:
            return self._backoff.next()
        return self._leg.layer.config.timing.fixed[trigger.name]
