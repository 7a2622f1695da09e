"""A transaction layer with a user that keeps books: what it asked and heard, what it served, and what RFC 3261 expects.

`Asked.expected` and `Served.expected` say from the books alone which state a transaction must be in: a second, much
simpler account of section 17 and RFC 6026 to hold the machines against.
"""

from __future__ import annotations

import math
import random
from typing import Any

import attrs

from rustpbx.core import Address
from rustpbx.machine import Machine
from rustpbx.sip.delivery import Delivery
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.events import Send, Undeliverable
from rustpbx.sip.layer import EndpointConfig, TransactionLayer, stamp
from rustpbx.sip.message import CSeq, Request, Response
from rustpbx.sip.parser import parse_message
from rustpbx.sip.tables import (
    InviteClient,
    InviteServer,
    PendingAckAction,
    PendingAckTrigger,
    RequestClient,
    RequestServer,
)
from rustpbx.sip.timing import Timing
from rustpbx.sip.transaction import AckWait, ClientTransaction, Failed, Heard, Outcome, ServerTransaction
from tests.kit.peers_sip import Packet, request, udp


@attrs.define(eq=False, repr=False)
class Asked:
    """A request of ours; `unsendable` is when the transport gave up on the ACK of its refusal."""

    timing: Timing
    started: float
    delivery: Delivery = attrs.field(init=False)
    outcomes: list[tuple[float, Outcome]] = attrs.field(factory=list)
    cancelled: float = math.inf
    unsendable: float = math.inf

    def outcome(self, _request: Request, outcome: Outcome, now: float) -> None:
        """The layer tells what became of it."""
        self.outcomes.append((now, outcome))

    @property
    def transaction(self) -> ClientTransaction:
        """Its transaction with the peer, the only one: the peer is the only server."""
        assert self.delivery.transaction is not None
        return self.delivery.transaction

    @property
    def invite(self) -> bool:
        """Whether it is an INVITE."""
        return self.transaction.request.method == "INVITE"

    def answered_by(self, response: Response) -> bool:
        """Whether a response is one to this request (17.1.3)."""
        asked = self.transaction.request
        return (asked.via.branch, asked.method) == (response.via.branch, response.cseq.method)

    @property
    def result(self) -> tuple[float, int]:
        """When the first final outcome came, and its status."""
        return next(((at, status) for at, status in self.heard() if status >= 200), (math.inf, 0))

    def heard(self) -> list[tuple[float, int]]:
        """All outcomes as status codes."""
        return [(at, o.response.status if isinstance(o, Heard) else o.status) for at, o in self.outcomes]

    def expected(self, now: float) -> InviteClient | RequestClient:
        """The state at `now`: before a result what was heard last, after it how long strays are waited for."""
        at, status = self.result
        if at < math.inf:
            return self._after(at, status, now)
        if not self.outcomes:
            return InviteClient.CALLING if self.invite else RequestClient.TRYING
        if not self.invite:
            return RequestClient.PROCEEDING
        return InviteClient.CANCELLING if self.cancelled < math.inf else InviteClient.PROCEEDING

    def _after(self, at: float, status: int, now: float) -> InviteClient | RequestClient:
        lost = any(isinstance(outcome, Failed) for _, outcome in self.outcomes)
        if not self.invite:
            lingers = 0.0 if self.timing.reliable else self.timing.t4  # timer K
            return RequestClient.TERMINATED if lost or now >= at + lingers else RequestClient.COMPLETED
        if lost:
            return InviteClient.TERMINATED
        if status < 300:  # timer M
            return InviteClient.TERMINATED if now >= at + self.timing.limit else InviteClient.ACCEPTED
        lingers = 0.0 if self.timing.reliable else self.timing.limit  # timer D
        over = now >= min(at + lingers, self.unsendable)
        return InviteClient.TERMINATED if over else InviteClient.COMPLETED

    def unheard(self, now: float) -> bool:
        """Whether a transport error now is the result: an INVITE that was heard has been sent."""
        return self.expected(now) in {InviteClient.CALLING, RequestClient.TRYING, RequestClient.PROCEEDING}

    def takes(self, status: int, now: float) -> bool:
        """Whether a response that arrives now concerns the user: everything up to a result, then other 2xx."""
        accepted = self.expected(now) is InviteClient.ACCEPTED and 200 <= status < 300
        return self.result[0] == math.inf or accepted

    @property
    def limit(self) -> float:
        """When it must have had a result, whatever the peer and the wire do (timers B, C, F; section 9.1)."""
        if self.cancelled < math.inf:
            return self.cancelled + self.timing.limit
        if self.invite and self.outcomes:
            return self.outcomes[0][0] + self.timing.ring_limit + self.timing.limit
        return self.started + self.timing.limit

    def check(self, now: float) -> None:
        """The books are legal."""
        statuses = [status for _, status in self.heard()]
        finals = [status for status in statuses if status >= 200]
        assert statuses == sorted(statuses, key=lambda status: status >= 200), statuses
        if self.invite and finals[:1] < [300]:  # copies of the 2xx, and those of forks
            assert all(200 <= status < 300 for status in finals), statuses
        else:
            assert len(finals) <= 1, statuses
        assert self.transaction.waiting == (not finals)
        assert finals or now < self.limit
        assert self.transaction.state is self.expected(now)


@attrs.define(eq=False, repr=False)
class Served:
    """A request of the peer's; `final` is when we answered it for good, `confirmed` when the ACK of a refusal came."""

    timing: Timing
    transaction: ServerTransaction
    final: float = math.inf
    confirmed: float = math.inf
    last: bytes = b""
    wait: AckWait | None = None

    @property
    def invite(self) -> bool:
        """Whether it is an INVITE."""
        return self.transaction.request.method == "INVITE"

    @property
    def open(self) -> bool:
        """Whether it still wants an answer."""
        return self.final == math.inf

    def expected(self, now: float) -> InviteServer | RequestServer:
        """The state at `now`."""
        final = self.transaction.final
        if not self.invite:
            if final is None:
                return RequestServer.PROCEEDING if self.last else RequestServer.TRYING
            lingers = 0.0 if self.timing.reliable else self.timing.limit  # timer J
            return RequestServer.TERMINATED if now >= self.final + lingers else RequestServer.COMPLETED
        if final is None:
            return InviteServer.PROCEEDING
        if final.status < 300:  # timer L
            return InviteServer.TERMINATED if now >= self.final + self.timing.limit else InviteServer.ACCEPTED
        if self.confirmed < math.inf:
            lingers = 0.0 if self.timing.reliable else self.timing.t4  # timer I
            return InviteServer.TERMINATED if now >= self.confirmed + lingers else InviteServer.CONFIRMED
        return InviteServer.TERMINATED if now >= self.final + self.timing.limit else InviteServer.COMPLETED  # timer H

    def copied(self, now: float) -> list[bytes]:
        """What a copy of the request must be answered by: the last response, or nothing where its user resends."""
        silent = {InviteServer.ACCEPTED, InviteServer.CONFIRMED, InviteServer.TERMINATED, RequestServer.TERMINATED}
        return [] if self.expected(now) in silent or not self.last else [self.last]


class Node:
    """A transaction layer behind an address, and its user: it asks, serves, and acknowledges 2xx."""

    def __init__(self, address: Address, peer: Address, seed: int, timing: Timing) -> None:
        self.address = address
        self.timing = timing
        self.layer = TransactionLayer(EndpointConfig(port=address[1], timing=timing), random.Random(seed))
        self.asked: list[Asked] = []
        self.served: list[Served] = []
        self._peer = peer
        self._acks: dict[tuple[str, str | None], Send] = {}

    # -- the user's side ----------------------------------------------------------------------------------------------

    def ask(self, method: str, now: float) -> list[Packet]:
        """Start a request."""
        message = attrs.evolve(
            request(method, call_id=f"{len(self.asked)}@{self.address[0]}", to_tag="dialog"),
            vias=(self.layer.new_via(self.address[0]),),
        )
        asked = Asked(self.timing, now)
        asked.delivery = self.layer.start(message, udp(self._peer), asked, now)
        self.asked.append(asked)
        return self._sent()

    def cancel(self, asked: Asked, now: float) -> list[Packet]:
        """Cancel an INVITE that had a provisional response."""
        asked.cancelled = now
        asked.delivery.cancel((), now)
        return self._sent()

    def answer(self, served: Served, status: int, now: float) -> list[Packet]:
        """Answer a request; a second final response goes nowhere."""
        first = served.open
        again = served.expected(now) is InviteServer.ACCEPTED and 200 <= status < 300
        response = self.layer.respond(served.transaction, status, now)
        packets = self._sent()
        if first:
            served.last = encode_message(response)
        assert [packet.data for packet in packets] == ([served.last] if first or again else [])
        if first and status >= 200:
            served.final = now
            if served.invite and status < 300:
                served.wait = AckWait(response, served.transaction.destination, self.timing)
                served.wait.start(now)
        return packets

    def unsendable(self, packet: Packet, now: float) -> list[Packet]:
        """The transport could not send one of ours."""
        message = packet.message
        branch = message.via.branch or ""
        for asked in self.asked:
            if asked.transaction.branch == branch and asked.expected(now) is InviteClient.COMPLETED:
                asked.unsendable = now
        waiting = [one for one in self.asked if one.transaction.branch == branch and one.unheard(now)]
        self.layer.undeliverable(Undeliverable(branch, "no route"), now)
        assert [one.outcomes[-1:] for one in waiting] == [[(now, Failed(503, "no route"))]] * len(waiting)
        return self._sent()

    # -- a station of the wire ----------------------------------------------------------------------------------------

    def receive(self, packet: Packet, now: float) -> list[Packet]:
        """Take a datagram."""
        message = parse_message(packet.data)
        if isinstance(message, Response):
            return self._hear(Heard(message, udp(packet.source)), now)
        return self._take(stamp(message, udp(packet.source)), packet.source, now)

    def tick(self, now: float) -> list[Packet]:
        """Wake the layer and the waits for ACK."""
        self.layer.schedule.wake(now)
        for served in self.served:
            if served.wait is not None:
                for effect in served.wait.tick(now):
                    if isinstance(effect, Send):
                        self.layer.send(effect)
                    else:
                        assert effect is PendingAckAction.REPORT_LOST
        return self._sent()

    def deadline(self) -> float:
        """The earliest of both."""
        waits = [served.wait.deadline().at for served in self.served if served.wait is not None]
        return min([self.layer.schedule.deadline().at, *waits])

    def machines(self) -> list[Machine[Any, Any, Any]]:
        """Every machine that ran here."""
        machines: list[Machine[Any, Any, Any]] = [asked.transaction._machine for asked in self.asked]
        machines += [served.transaction._machine for served in self.served]
        return machines + [served.wait._machine for served in self.served if served.wait is not None]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _hear(self, heard: Heard, now: float) -> list[Packet]:
        response = heard.response
        asked = next((one for one in self.asked if one.answered_by(response)), None)
        refused = response.cseq.method == "INVITE" and response.status >= 300
        state = asked.expected(now) if asked is not None else None
        takes = asked is not None and asked.takes(response.status, now)
        before = list(asked.outcomes) if asked is not None else []
        self.layer.hear(heard, now)
        packets = self._sent()
        # One ACK of the transaction's own for each refusal it takes, none else (17.1.1.2).
        owed = refused and state not in {None, InviteClient.ACCEPTED, InviteClient.TERMINATED}
        assert [packet.title for packet in packets] == (["ACK"] if owed else [])
        if asked is not None:
            assert asked.outcomes == [*before, *([(now, heard)] if takes else [])]
            if takes and asked.invite and 200 <= response.status < 300:
                packets += self._acknowledge(asked, response)
        return packets

    def _acknowledge(self, asked: Asked, response: Response) -> list[Packet]:
        """Every 2xx that comes up is acknowledged, each fork by its own ACK (13.2.2.4)."""
        key = asked.transaction.branch, response.to.tag
        if key not in self._acks:
            ack = attrs.evolve(
                asked.transaction.request,
                method="ACK",
                cseq=CSeq(response.cseq.number, "ACK"),
                vias=(self.layer.new_via(self.address[0]),),
                to=response.to,
                body=b"",
                lines=(),
            )
            self._acks[key] = Send(encode_message(ack), udp(self._peer))
        self.layer.send(self._acks[key])
        return self._sent()

    def _take(self, message: Request, source: Address, now: float) -> list[Packet]:
        known = next((one for one in reversed(self.served) if _same(one.transaction.request, message)), None)
        if message.method == "ACK":
            return self._take_ack(message, known, now)
        alive = known is not None and not known.transaction.done
        expected = known.copied(now) if known is not None and alive else []
        absorbed = self.layer.absorb(message, now)
        assert absorbed == alive
        packets = self._sent()
        assert [packet.data for packet in packets] == expected
        if not absorbed:
            packets += self._open(message, source, known, now)
        return packets

    def _open(self, message: Request, source: Address, known: Served | None, now: float) -> list[Packet]:
        # A copy may only be taken for new when the transaction has had its full time (timers J, L, H).
        reliable = self.timing.reliable
        assert known is None or reliable or now >= min(known.final + self.timing.limit, known.confirmed + 5.0)
        running = self.layer.serving
        served = Served(self.timing, self.layer.open(message, udp(source)))
        assert self.layer.serving == running + 1, "two server transactions with one key"
        self.served.append(served)
        return self._cancelled(served, now) if message.method == "CANCEL" else []

    def _cancelled(self, served: Served, now: float) -> list[Packet]:
        """Section 9.2: the CANCEL is answered at once, and so is the INVITE it means."""
        invite = self.layer.invite_of(served.transaction.request)
        packets = self.answer(served, 200 if invite is not None else 481, now)
        meant = next((one for one in self.served if one.transaction is invite and one.open), None)
        return packets + (self.answer(meant, 487, now) if meant is not None else [])

    def _take_ack(self, ack: Request, known: Served | None, now: float) -> list[Packet]:
        refused = known is not None and known.transaction.state in {InviteServer.COMPLETED, InviteServer.CONFIRMED}
        if known is not None and known.transaction.state is InviteServer.COMPLETED:
            known.confirmed = now
        if self.layer.absorb(ack, now):
            assert refused
        else:
            assert not refused
            for one in self.served:
                if one.wait is not None and one.transaction.request.call_id == ack.call_id:
                    one.wait.step(PendingAckTrigger.ACK, now)
        assert self._sent() == []
        return []

    def _sent(self) -> list[Packet]:
        effects = self.layer.take()
        assert all(isinstance(effect, Send) for effect in effects)
        return [Packet(e.data, self.address, e.destination.address) for e in effects if isinstance(e, Send)]


def _same(one: Request, other: Request) -> bool:
    method = "INVITE" if other.method == "ACK" else other.method
    return one.via.branch == other.via.branch and one.method == method


def fork(packet: Packet, number: int) -> Packet:
    """The 2xx of another branch of the same INVITE: equal but for its To tag (RFC 3261 13.2.2.4)."""
    message = packet.message
    return attrs.evolve(packet, data=encode_message(attrs.evolve(message, to=message.to.tagged(f"fork-{number}"))))
