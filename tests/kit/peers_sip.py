"""Two SIP endpoints joined by a list instead of a network, and one endpoint against raw messages. No Trio."""

from __future__ import annotations

import functools
import random
from typing import Any

import attrs

from rustpbx.core import Address, Tick
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.endpoint import Endpoint, EndpointConfig
from rustpbx.sip.events import Credentials, Effect, Emit, Fact, IncomingCall, Input, Received, Send, SendInvite, Wish
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.message import REASONS, CSeq, Lines, Message, NameAddr, Request, Response, Via
from rustpbx.sip.parser import parse_message
from rustpbx.sip.uri import Uri, parse_uri
from tests.kit.rounds import while_it_lasts

ALICE: Address = ("192.0.2.1", 5060)
BOB: Address = ("192.0.2.2", 5060)
OFFER = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n"
ANSWER = b"v=0\r\no=- 2 2 IN IP4 192.0.2.2\r\ns=-\r\nt=0 0\r\n"
LEG = "call-1"


def udp(address: Address) -> Hop:
    """A peer that datagrams come from, or go to."""
    return Hop(Transport.UDP, address)


def invite_wish(
    leg: str = LEG,
    *,
    credentials: Credentials | None = None,
    headers: Lines = (),
    contact: Uri | None = None,
    destination: Address | None = None,
) -> SendInvite:
    """Alice calls Bob."""
    return SendInvite(
        leg=leg,
        caller=NameAddr(parse_uri("sip:alice@192.0.2.1")),
        callee=parse_uri("sip:bob@192.0.2.2"),
        body=OFFER,
        local_host=ALICE[0],
        credentials=credentials,
        headers=headers,
        contact=contact,
        destination=destination and udp(destination),
    )


_read = functools.lru_cache(10_000)(parse_message)  # machines look at what is in flight again and again


@attrs.frozen
class Packet:
    """A datagram under way."""

    data: bytes
    source: Address
    destination: Address
    at: float = 0.0

    def __str__(self) -> str:
        return f"{self.title} {self.source[0]} -> {self.destination[0]}"

    @property
    def message(self) -> Request | Response:
        """What it says."""
        return _read(self.data)

    @property
    def title(self) -> str:
        """`INVITE` or `180 INVITE`."""
        return title(self.message)


def title(message: Message) -> str:
    """The method of a request, status and method of a response."""
    if isinstance(message, Response):
        return f"{message.status} {message.cseq.method}"
    return message.cseq.method


class Side:
    """One endpoint and what it said."""

    def __init__(self, address: Address, seed: int, config: EndpointConfig | None = None) -> None:
        self.address = address
        self.endpoint = Endpoint(config or EndpointConfig(port=address[1]), random.Random(seed))
        self.facts: list[Fact] = []

    def handle(self, what: Input | Tick, now: float) -> list[Packet]:
        """Feed the endpoint; its facts are kept, its datagrams returned."""
        return self.perform(self.endpoint.handle(what, now))

    def perform(self, effects: list[Effect]) -> list[Packet]:
        """Sort effects into facts and datagrams."""
        self.facts += [effect.fact for effect in effects if isinstance(effect, Emit)]
        return [Packet(e.data, self.address, e.destination.address) for e in effects if isinstance(e, Send)]


class Pair:
    """Alice and Bob, a wire, and a time that only tests move."""

    def __init__(self, seed: int = 0, config: EndpointConfig | None = None) -> None:
        self.now = 0.0
        self.alice = Side(ALICE, seed, config)
        self.bob = Side(BOB, seed + 1, config)
        self.wire: list[Packet] = []
        self.seen: list[str] = []

    def wish(self, side: Side, wish: Wish) -> None:
        """Let a side wish for something."""
        self._put(side.handle(wish, self.now))

    def deliver(self, packet: Packet) -> None:
        """Hand a datagram to whoever owns its destination; nobody does: it is lost."""
        for side in (self.alice, self.bob):
            if packet.destination == side.address:
                self._put(side.handle(Received(packet.data, udp(packet.source), side.address[0]), self.now))

    def settle(self) -> None:
        """Deliver in order until the wire is empty."""
        for _ in while_it_lasts(lambda: self.wire):
            self.deliver(self.wire.pop(0))

    def drop(self) -> list[str]:
        """Lose everything on the wire; what it was."""
        lost = [packet.title for packet in self.wire]
        self.wire.clear()
        return lost

    def advance(self, seconds: float, *, settle: bool = True) -> None:
        """Let time pass, with a tick at each deadline on the way."""
        end = self.now + seconds
        for _ in while_it_lasts(lambda: self.deadline() <= end):
            self.now = max(self.now, self.deadline())
            self.tick()
            if settle:
                self.settle()
        self.now = end

    def deadline(self) -> float:
        """The earliest deadline of both sides."""
        return min(side.endpoint.deadline().at for side in (self.alice, self.bob))

    def tick(self) -> None:
        """Tell both sides that time has passed."""
        for side in (self.alice, self.bob):
            self._put(side.handle(Tick(), self.now))

    def _put(self, packets: list[Packet]) -> None:
        self.wire += [attrs.evolve(packet, at=self.now) for packet in packets]
        self.seen += [f"{'>' if p.source == ALICE else '<'} {p.title}" for p in packets]


class Lone:
    """One endpoint (Bob) against hand-made messages from `peer`, which may be any address."""

    def __init__(self, config: EndpointConfig | None = None, peer: Address = ALICE, seed: int = 7) -> None:
        self.now = 0.0
        self.side = Side(BOB, seed, config)
        self.peer = peer

    @property
    def facts(self) -> list[Fact]:
        """Everything told so far."""
        return self.side.facts

    @property
    def leg(self) -> str:
        """The first incoming call."""
        return next(fact.leg for fact in self.facts if isinstance(fact, IncomingCall))

    @property
    def tag(self) -> str:
        """Our tag in it: the 16 digits in the leg's name."""
        return next(part for part in self.leg.split("-")[-3:] if len(part) == 16)

    def send(self, what: Message | bytes | str) -> list[Packet]:
        """Give the endpoint a message; what it sends at once."""
        match what:
            case bytes():
                data = what
            case str():
                data = what.replace("\n", "\r\n").encode()
            case _:
                data = encode_message(what)
        return self.side.handle(Received(data, udp(self.peer), BOB[0]), self.now)

    def wish(self, wish: Wish) -> list[Packet]:
        """Let the session wish for something."""
        return self.side.handle(wish, self.now)

    def wait(self, seconds: float) -> list[tuple[float, Packet]]:
        """Let time pass; what was sent, and when."""
        end = self.now + seconds
        sent: list[tuple[float, Packet]] = []
        for _ in while_it_lasts(lambda: self.side.endpoint.deadline().at <= end):
            self.now = max(self.now, self.side.endpoint.deadline().at)
            sent += [(self.now, packet) for packet in self.side.handle(Tick(), self.now)]
        self.now = end
        return sent


def request(
    method: str = "INVITE",
    *,
    branch: str = "z9hG4bKone",
    cseq: int = 1,
    call_id: str = "call@192.0.2.1",
    from_tag: str = "alice-tag",
    to_tag: str | None = None,
    lines: Lines = (),
    body: bytes = b"",
    contact: str | None = "sip:alice@192.0.2.1:5060",
    uri: str = "sip:bob@192.0.2.2",
    via: Via | None = None,
    record_routes: tuple[str, ...] = (),
) -> Request:
    """A hand-made request from Alice to Bob."""
    to = NameAddr(parse_uri("sip:bob@192.0.2.2"))
    top = via or Via("UDP", ALICE[0], ALICE[1])
    return Request(
        method=method,
        uri=parse_uri(uri),
        vias=(attrs.evolve(top, params=top.params.set("branch", branch)),),
        from_=NameAddr(parse_uri("sip:alice@192.0.2.1")).tagged(from_tag),
        to=to if to_tag is None else to.tagged(to_tag),
        call_id=call_id,
        cseq=CSeq(cseq, method),
        contacts=() if contact is None else (NameAddr(parse_uri(contact)),),
        record_routes=tuple(NameAddr(parse_uri(route)) for route in record_routes),
        lines=lines,
        body=body,
    )


def invite(**changes: Any) -> Request:
    """A hand-made INVITE with an offer."""
    return request("INVITE", **{"lines": SDP_LINES, "body": OFFER, **changes})


def reply(
    to: Request,
    status: int,
    *,
    tag: str | None = "bob-tag",
    contact: str | None = "sip:bob@192.0.2.2:5060",
    lines: Lines = (),
    body: bytes = b"",
    record_routes: tuple[str, ...] = (),
) -> Response:
    """A hand-made response."""
    return Response(
        status=status,
        reason=REASONS[status],
        vias=to.vias,
        from_=to.from_,
        to=to.to if tag is None or to.to.tag else to.to.tagged(tag),
        call_id=to.call_id,
        cseq=to.cseq,
        contacts=() if contact is None else (NameAddr(parse_uri(contact)),),
        record_routes=tuple(NameAddr(parse_uri(route)) for route in record_routes),
        lines=lines,
        body=body,
    )


SDP_LINES: Lines = (("Content-Type", "application/sdp"),)


def titles(packets: list[Packet]) -> list[str]:
    """What datagrams say, in short."""
    return [packet.title for packet in packets]


def schedule(sent: list[tuple[float, Packet]]) -> list[tuple[float, str]]:
    """When what was sent."""
    return [(at, packet.title) for at, packet in sent]
