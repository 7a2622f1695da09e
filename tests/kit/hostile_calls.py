"""Endpoints on a hostile wire, the books of every leg, and a proxy in the middle that challenges and forks.

A `Book` holds what one side was told and what it wished for one leg; `check` says whether that may be. The proxy is
part of the wire (`ProxiedWire`): a request it challenges never arrives, an INVITE it forks arrives twice.
"""

from __future__ import annotations

import math

import attrs

from rustpbx.core import Address, Tick
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import (
    ENDINGS,
    AcceptOffer,
    Answer,
    CallAnswered,
    CallCancelled,
    CallConfirmed,
    CallProgress,
    CallRefused,
    Fact,
    HangUp,
    IncomingCall,
    OfferAnswered,
    OfferReceived,
    OfferRefused,
    Received,
    Refuse,
    Ring,
    SendInvite,
    SendOffer,
    Undeliverable,
    Wish,
)
from rustpbx.sip.message import Request, Response
from rustpbx.sip.tables import CALL, OFFER, PENDING_ACK, CallState, OfferState
from rustpbx.sip.transaction import ack_for
from tests.kit.hostile import Kind, Wire
from tests.kit.peers_sip import Packet, Side, reply, udp

CAROL: Address = ("192.0.2.3", 5060)
STRANGER: Address = ("192.0.2.66", 5066)

CHALLENGE = ("Proxy-Authenticate", 'Digest realm="proxy", nonce="n1", qop="auth", algorithm=MD5')

UNDER_WAY = frozenset({OfferState.HAVE_LOCAL, OfferState.GLARED, OfferState.TAKING_BACK})
"""The states in which an offer of ours has no outcome yet."""

_BEFORE_ANSWER = (CallProgress, CallRefused, CallCancelled)


@attrs.define(eq=False, repr=False)
class Book:
    """One leg: what its session was told and wished.

    `end` is how many facts there were when it wished for the end, `answered` whether it took the call, `agreed` the
    offer and the answer that it believes in.
    """

    side: Side
    leg: str
    call_id: str
    placed: bool
    facts: list[Fact] = attrs.field(factory=list)
    offers: int = 0
    end: float = math.inf
    answered: bool = False
    described: bool = False
    agreed: tuple[bytes, bytes] = (b"", b"")
    offered: bytes = b""
    received: bytes = b""

    def __repr__(self) -> str:
        return f"<{'placed' if self.placed else 'taken'} by {self.side.address[0]}: {self.kinds()} end {self.end}>"

    @property
    def state(self) -> CallState:
        """The call's state; TERMINATED when the endpoint has forgotten it."""
        call = self.side.endpoint._directory.calls.get(self.leg)
        return call.state if call is not None else CallState.TERMINATED

    @property
    def up(self) -> bool:
        """Whether the session knows of a conversation."""
        return self.told(CallAnswered if self.placed else CallConfirmed)

    @property
    def ended(self) -> bool:
        """Whether the session knows of the end, or has wished for it."""
        return self.end < math.inf or any(isinstance(fact, ENDINGS) for fact in self.facts)

    def wish(self, wish: Wish) -> None:
        """Note what a wish comes to; after HangUp, and Refuse of a call that rings, nothing more may be told."""
        state = self.state
        if self.ended or state is CallState.TERMINATED:
            return
        match wish:
            case HangUp():
                self.end = len(self.facts)
            case Refuse() if state is CallState.INCOMING:
                self.end = len(self.facts)
            case Answer() if state is CallState.INCOMING:
                self.answered = True
            case Ring(body=body) if body and state is CallState.INCOMING:
                self.described = True
            case SendOffer(body=body):
                self.offers += 1
                if self.offer_state is OfferState.STABLE:
                    self.offered = body
            case AcceptOffer(body=body) if self.offer_state in {OfferState.HAVE_REMOTE, OfferState.HAVE_UPDATE}:
                self.agreed = self.received, body

    def tell(self, fact: Fact) -> None:
        """Note a fact."""
        self.facts.append(fact)
        match fact:
            case OfferReceived(body=body):
                self.received = body
            case OfferAnswered(body=body):
                self.agreed = self.offered, body

    @property
    def offer_state(self) -> OfferState:
        """Who has an offer under way."""
        return self.side.endpoint._directory.calls[self.leg].offers.state

    def told(self, kind: type[Fact] | tuple[type[Fact], ...]) -> bool:
        """Whether such a fact was told."""
        return any(isinstance(fact, kind) for fact in self.facts)

    def kinds(self) -> list[str]:
        """The facts by name."""
        return [type(fact).__name__ for fact in self.facts]

    def check(self) -> None:
        """The facts are in a legal order."""
        kinds = self.kinds()
        endings = [index for index, fact in enumerate(self.facts) if isinstance(fact, ENDINGS)]
        assert endings in ([], [len(kinds) - 1]), kinds  # ended once, and last
        assert len(kinds) <= self.end, kinds
        up = "CallAnswered" if self.placed else "CallConfirmed"
        assert kinds.count(up) <= 1, kinds
        assert "IncomingCall" not in kinds[1:], kinds
        assert self.placed or kinds[0] == "IncomingCall", kinds
        assert not self.told((CallConfirmed, CallCancelled) if self.placed else (CallAnswered, CallProgress)), kinds
        if up in kinds:  # nothing of the set-up after the answer, nothing of the conversation before it
            assert not any(isinstance(fact, _BEFORE_ANSWER) for fact in self.facts[kinds.index(up) :]), kinds
        talk = next((index for index, fact in enumerate(self.facts) if isinstance(fact, OfferReceived)), math.inf)
        assert talk == math.inf or (up in kinds and kinds.index(up) < talk) or self._described(talk), kinds
        self._check_offers()

    def _described(self, talk: float) -> bool:
        """Whether the session was described before the answer: by a reliable response, after which it may change."""
        if not self.placed:
            return self.described
        told = (fact for index, fact in enumerate(self.facts) if index < talk and isinstance(fact, CallProgress))
        return any(fact.body for fact in told)

    def _check_offers(self) -> None:
        """Every offer of ours has one outcome, but for the one under way."""
        outcomes = sum(isinstance(fact, OfferAnswered | OfferRefused) for fact in self.facts)
        assert outcomes <= self.offers, self
        if not self.ended:
            assert outcomes + (self.offer_state in UNDER_WAY) == self.offers, self


class User:
    """An endpoint behind an address, and the books of its legs; a station of the wire."""

    def __init__(self, address: Address, seed: int, config: EndpointConfig | None = None) -> None:
        self.side = Side(address, seed, config)
        self.books: dict[str, Book] = {}

    @property
    def address(self) -> Address:
        """Where it is reached."""
        return self.side.address

    def receive(self, packet: Packet, now: float) -> list[Packet]:
        """Take a datagram."""
        return self._file(self.side.handle(Received(packet.data, udp(packet.source), self.address[0]), now))

    def tick(self, now: float) -> list[Packet]:
        """Time has passed."""
        return self._file(self.side.handle(Tick(), now))

    def deadline(self) -> float:
        """The endpoint's."""
        return self.side.endpoint.deadline().at

    def dial(self, wish: SendInvite, now: float) -> list[Packet]:
        """Place a call."""
        packets = self.side.handle(wish, now)
        self.books[wish.leg] = Book(self.side, wish.leg, packets[0].message.call_id, placed=True)
        return self._file(packets)

    def wish(self, book: Book, wish: Wish, now: float) -> list[Packet]:
        """Wish something for a leg."""
        book.wish(wish)
        return self._file(self.side.handle(wish, now))

    def within(self, book: Book, method: str, body: bytes, now: float) -> list[Packet]:
        """Send a request within the dialog that no wish asks for."""
        call = self.side.endpoint._directory.calls[book.leg]
        lines = (("Content-Type", "application/sdp"),) if body else ()
        call.leg.request(method, None, now, contact=method == "UPDATE", lines=lines, body=body)
        return self.side.perform(self.side.endpoint._layer.take())

    def unsendable(self, packet: Packet, now: float) -> list[Packet]:
        """The transport could not send one of ours."""
        return self._file(self.side.handle(Undeliverable(packet.message.via.branch or "", "no route"), now))

    def check(self, now: float) -> None:
        """Books legal, timers those of the tables, no deadline in the past, no bug."""
        endpoint = self.side.endpoint
        for book in self.books.values():
            book.check()
        counters = endpoint.counters
        assert (counters["bugs"], counters["malformed"], counters["unanswerable"]) == (0, 0, 0)
        assert endpoint.deadline().at > now
        for call in endpoint._directory.calls.values():
            assert call._machine.armed.keys() == CALL.timers.get(call.state, frozenset())
            assert call.offers._machine.armed.keys() == OFFER.timers.get(call.offers.state, frozenset())
            if call.leg.ack_wait is not None:
                machine = call.leg.ack_wait._machine
                assert machine.armed.keys() == PENDING_ACK.timers.get(machine.state, frozenset())

    def left(self) -> list[int]:
        """How much of everything the endpoint still holds."""
        directory, layer = self.side.endpoint._directory, self.side.endpoint._layer
        held = (directory.calls, directory.dialogs, directory.invites, directory.live, layer._merged, layer.schedule)
        return [*(len(one) for one in held), layer.running, layer.unanswered]

    def _file(self, packets: list[Packet]) -> list[Packet]:
        """Put what was told into the books."""
        for fact in self.side.facts:
            if isinstance(fact, IncomingCall):
                assert fact.leg not in self.books
                self.books[fact.leg] = Book(self.side, fact.leg, _call_id(fact), placed=False)
            self.books[fact.leg].tell(fact)
        self.side.facts.clear()
        return packets


def _call_id(fact: IncomingCall) -> str:
    return next(line for line in fact.headers if line.startswith("Call-ID: ")).removeprefix("Call-ID: ")


class ProxiedWire(Wire):
    """A wire with a proxy that challenges requests and forks INVITEs to Carol, who is reached by no other way."""

    def __init__(self, users: list[User], kind: Kind) -> None:
        super().__init__(users, kind)
        self.challenged: dict[str, Packet] = {}
        self.forked: dict[str, Packet] = {}
        self.arrived: set[str] = set()
        self._sequences: dict[tuple[str, str, str], tuple[int, set[str]]] = {}

    def put(self, packets: list[Packet]) -> None:
        """What Carol's branch refuses stays at the proxy, which acknowledges it."""
        for packet in packets:
            self._check_sequence(packet.message)
        kept = [packet for packet in packets if self._kept(packet)]
        super().put([packet for packet in packets if packet not in kept])
        for packet in kept:
            invite, response = self.forked[packet.message.via.branch or ""], packet.message
            asked = invite.message
            assert isinstance(asked, Request)
            assert isinstance(response, Response)
            ack = encode_message(ack_for(asked, response))
            super().put(self.stations[CAROL].receive(attrs.evolve(invite, data=ack), self.now))

    def deliver(self, packet: Packet) -> None:
        """Pass a datagram on, or answer for the callee."""
        message = packet.message
        branch = message.via.branch or ""
        if isinstance(message, Response):
            super().deliver(packet)
            return
        if branch in self.challenged:
            if message.method not in {"ACK", "CANCEL"}:
                super().put([self.challenged[branch]])
            return
        self.arrived.add(branch)
        super().deliver(packet)
        if branch in self.forked and message.method == "CANCEL":
            super().put(self.stations[CAROL].receive(packet, self.now))

    def challenge(self, packet: Packet) -> None:
        """Answer a request by 407 instead of passing it on; its copies as well."""
        message = packet.message
        assert isinstance(message, Request)
        self.flying.remove(packet)
        response = reply(message, 407, tag="proxy", contact=None, lines=(CHALLENGE,))
        self.challenged[message.via.branch or ""] = Packet(
            encode_message(response), packet.destination, packet.source, self.now
        )
        self.deliver(packet)

    def fork(self, packet: Packet) -> None:
        """Let an INVITE reach Carol too."""
        self.forked[packet.message.via.branch or ""] = packet
        super().put(self.stations[CAROL].receive(packet, self.now))

    def challengeable(self) -> list[Packet]:
        """Requests in flight that nobody has seen yet and that carry no credentials."""
        return [packet for packet in self._requests({"INVITE", "BYE", "INFO"}) if self._fresh(packet.message)]

    def forkable(self) -> list[Packet]:
        """First INVITEs in flight, not yet forked."""
        return [
            packet
            for packet in self._requests({"INVITE"})
            if packet.message.to.tag is None
            and (packet.message.via.branch or "") not in self.forked
            and (packet.message.via.branch or "") not in self.challenged
        ]

    def _requests(self, methods: set[str]) -> list[Packet]:
        messages = [(packet, packet.message) for packet in self.flying]
        return [packet for packet, message in messages if isinstance(message, Request) and message.method in methods]

    def _fresh(self, message: Request | Response) -> bool:
        branch = message.via.branch or ""
        known = branch in self.arrived or branch in self.forked
        return not known and message.header("Proxy-Authorization") is None

    def _kept(self, packet: Packet) -> bool:
        message = packet.message
        if packet.source != CAROL or not isinstance(message, Response):
            return False
        final = message.status >= 300 or message.cseq.method == "CANCEL"
        return final and (message.via.branch or "") in self.forked

    def _check_sequence(self, message: Request | Response) -> None:
        """A new request of a dialog has a higher CSeq than all before it (12.2.1.1); ACK and CANCEL repeat one."""
        if isinstance(message, Response) or message.method in {"ACK", "CANCEL"}:
            return
        key = message.call_id, message.from_.tag or "", message.to.tag or ""
        branch = message.via.branch or ""
        highest, branches = self._sequences.get(key, (0, set()))
        if branch not in branches:
            assert message.cseq.number > highest, message
            self._sequences[key] = message.cseq.number, branches | {branch}
