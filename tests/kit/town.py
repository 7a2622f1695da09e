"""Several SIP elements joined by a list instead of a network: endpoints of ours, proxies, and whoever a test scripts.

Nothing here is Trio: time moves when a test says so. What passed is kept as `Arrow`s, by the names of those it went
between: `alice: INVITE -> atlanta`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

import attrs

from rustpbx.core import Address, Tick
from rustpbx.sip.auth import parse_challenge
from rustpbx.sip.branch import COOKIE
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import Effect, Emit, Fact, IncomingCall, Input, Locate, Located, Received, Send, Wish
from rustpbx.sip.hop import Hop
from rustpbx.sip.layer import response_hop, stamp_via
from rustpbx.sip.message import REASONS, Lines, NameAddr, Request, Response, Via
from rustpbx.sip.parser import parse_message
from rustpbx.sip.uri import NO_PARAMS, Params, Uri, parse_uri
from tests.kit.peers_sip import Side, title, udp
from tests.kit.rounds import while_it_lasts

FOREVER = float("inf")


@attrs.frozen
class Arrow:
    """One datagram and what became of it: `lost` if nobody got it."""

    at: float
    source: str
    destination: str
    data: bytes
    lost: bool = False

    @property
    def message(self) -> Request | Response:
        """What it says."""
        return parse_message(self.data)

    def __str__(self) -> str:
        return f"{self.source}: {title(self.message)} {'-x' if self.lost else '->'} {self.destination}"


Sent = list[tuple[bytes, Address]]


class Resident(Protocol):
    """Who lives at an address."""

    def receive(self, data: bytes, source: Address, now: float) -> Sent:
        """Take a datagram; what is sent at once."""
        ...

    def deadline(self) -> float:
        """When it wants to be woken."""
        ...

    def wake(self, now: float) -> Sent:
        """Time has passed."""
        ...


class Caller:
    """An endpoint of ours in a town. `zone` has the servers that names stand for."""

    def __init__(
        self,
        address: Address,
        seed: int,
        config: EndpointConfig | None = None,
        zone: Mapping[str, tuple[Address, ...]] = MappingProxyType({}),
    ) -> None:
        self.side = Side(address, seed, config)
        self._zone = zone

    @property
    def facts(self) -> list[Fact]:
        """Everything told so far."""
        return self.side.facts

    @property
    def leg(self) -> str:
        """The last incoming call."""
        return [fact.leg for fact in self.facts if isinstance(fact, IncomingCall)][-1]

    @property
    def counters(self) -> Mapping[str, int]:
        """The endpoint's."""
        return self.side.endpoint.counters

    def receive(self, data: bytes, source: Address, now: float) -> Sent:
        """Take a datagram."""
        return self.take(Received(data, udp(source), self.side.address[0]), now)

    def deadline(self) -> float:
        """The endpoint's."""
        return self.side.endpoint.deadline().at

    def wake(self, now: float) -> Sent:
        """A tick."""
        return self.take(Tick(), now)

    def take(self, what: Input | Tick, now: float) -> Sent:
        """Feed the endpoint; names are looked up at once."""
        sent: Sent = []
        todo: list[Input | Tick] = [what]
        while todo:
            for effect in self.side.endpoint.handle(todo.pop(0), now):
                todo += self._perform(effect, sent)
        return sent

    def _perform(self, effect: Effect, sent: Sent) -> Iterable[Located]:
        match effect:
            case Emit(fact=fact):
                self.facts.append(fact)
            case Send(data=data, destination=hop):
                sent.append((data, hop.address))
            case Locate(key=key, target=target):
                hops = tuple(udp(address) for address in self._zone.get(target.host, ()))
                return [Located(key, hops, "" if hops else "no such name")]
        return ()


class Proxy:
    """A stateless proxy (RFC 3261 16.11) that may record the route, loosely or strictly, and ask for credentials.

    `bindings` say where names and users of its domain are, `refuses` and `moved` which users have a status or are
    elsewhere. It answers an INVITE with 100, as stateful ones do.
    """

    def __init__(
        self,
        address: Address,
        bindings: Mapping[str, Address],
        *,
        records: bool = True,
        loose: bool = True,
        realm: str = "",
        refuses: Mapping[str, int] = MappingProxyType({}),
        moved: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.address = address
        self._bindings = bindings
        self._records = records
        self._loose = loose
        self._realm = realm
        self._refuses = refuses
        self._moved = moved
        self._own: set[str] = set()

    def deadline(self) -> float:
        """It has no timers."""
        return FOREVER

    def wake(self, _now: float) -> Sent:
        """It has no timers."""
        return []

    def receive(self, data: bytes, source: Address, _now: float) -> Sent:
        """Pass a message on, or answer it."""
        message = parse_message(data)
        if isinstance(message, Response):
            return self._back(message)
        return self._on(message, udp(source))

    def _back(self, response: Response) -> Sent:
        assert (response.via.host, response.via.port) == self.address, "a response that is not ours"
        response = attrs.evolve(response, vias=response.vias[1:])
        return [(encode_message(response), response_hop(response.via, udp(self.address)).address)]

    def _on(self, request: Request, source: Hop) -> Sent:
        request = attrs.evolve(request, vias=(stamp_via(request.via, source), *request.vias[1:]))
        branch = request.via.branch or ""
        if request.method == "ACK" and branch in self._own:
            return []
        status = self._refusal(request)
        if status:
            self._own.add(branch)
            return [self._answer(request, status, source)]
        sent = [self._answer(request, 100, source)] if request.method == "INVITE" else []
        return [*sent, self._forwarded(request)]

    def _refusal(self, request: Request) -> int:
        if self._realm and request.method in {"INVITE", "BYE"} and not self._knows(request):
            return 407
        if request.method != "INVITE":
            return 0
        user = request.uri.user or ""
        return 302 if user in self._moved else self._refuses.get(user, 0)

    def _knows(self, request: Request) -> bool:
        return any(f'realm="{self._realm}"' in value for value in request.all("Proxy-Authorization"))

    def _answer(self, request: Request, status: int, source: Hop) -> tuple[bytes, Address]:
        lines: Lines = ()
        if status == 407:
            challenge = f'Digest realm="{self._realm}", nonce="n0-{self._realm}", qop="auth", algorithm=SHA-256'
            assert parse_challenge(challenge).realm == self._realm
            lines = (("Proxy-Authenticate", challenge),)
        response = Response(
            status=status,
            reason=REASONS[status],
            vias=request.vias,
            from_=request.from_,
            to=request.to if status == 100 or request.to.tag else request.to.tagged(f"proxy-{self.address[0]}"),
            call_id=request.call_id,
            cseq=request.cseq,
            contacts=(NameAddr(parse_uri(self._moved[request.uri.user or ""])),) if status == 302 else (),
            lines=lines,
        )
        return encode_message(response), response_hop(request.via, source).address

    def _forwarded(self, request: Request) -> tuple[bytes, Address]:
        uri, routes = self._preprocessed(request)
        if self._loose and routes and "lr" not in routes[0].uri.params:  # 16.6 6: the next hop is a strict router
            uri, routes = routes[0].uri, (*routes[1:], NameAddr(uri))
            target = uri
        else:
            target = routes[0].uri if routes and self._loose else uri
        key = f"{request.via.branch} {request.uri} {self.address}"
        via = Via("UDP", *self.address, Params((("branch", f"{COOKIE}{zlib.crc32(key.encode()):08x}p"),)))
        recorded = self._records and request.method == "INVITE" and request.to.tag is None
        params = NO_PARAMS.set("lr", None) if self._loose else NO_PARAMS
        own = (NameAddr(Uri("sip", None, None, *self.address, params)),) if recorded else ()
        passed = attrs.evolve(
            request,
            uri=uri,
            routes=routes,
            vias=(via, *request.vias),
            record_routes=(*own, *request.record_routes),
            max_forwards=request.max_forwards - 1,
        )
        return encode_message(passed), self._where(target)

    def _preprocessed(self, request: Request) -> tuple[Uri, tuple[NameAddr, ...]]:
        """Section 16.4; a strict router of RFC 2543 takes the next route for the Request-URI."""
        uri, routes = request.uri, request.routes
        if (uri.host, uri.port) == self.address and routes:
            if not self._loose:
                return routes[0].uri, routes[1:]
            uri, routes = routes[-1].uri, routes[:-1]
        if routes and (routes[0].uri.host, routes[0].uri.port) == self.address:
            routes = routes[1:]
        return uri, routes

    def _where(self, target: Uri) -> Address:
        for name in (f"{target.user}@{target.host}", target.host):
            if name in self._bindings:
                return self._bindings[name]
        return target.host, target.port or 5060


class Town:
    """Who lives where, what is under way, and what has passed. `lose` says of an arrow whether it is lost."""

    def __init__(self, **residents: tuple[Address, Resident]) -> None:
        self.now = 0.0
        self.passed: list[Arrow] = []
        self.lose: Callable[[Arrow], bool] = lambda _: False
        self._residents = dict(residents.values())
        self._names = {address: name for name, (address, _) in residents.items()}
        self._wire: list[tuple[bytes, Address, Address]] = []

    def wish(self, caller: Caller, wish: Wish) -> None:
        """Let an endpoint wish for something, and deliver all that follows."""
        self.put(caller.side.address, caller.take(wish, self.now))
        self.settle()

    def put(self, source: Address, sent: Sent) -> None:
        """Datagrams set out."""
        self._wire += [(data, source, destination) for data, destination in sent]

    def settle(self) -> None:
        """Deliver in order until nothing is under way."""
        for _ in while_it_lasts(lambda: self._wire):
            data, source, destination = self._wire.pop(0)
            arrow = Arrow(self.now, self._name(source), self._name(destination), data)
            resident = self._residents.get(destination)
            lost = resident is None or self.lose(arrow)
            self.passed.append(attrs.evolve(arrow, lost=lost))
            if resident is not None and not lost:
                self.put(destination, resident.receive(data, source, self.now))

    def deadline(self) -> float:
        """When the next of them wants to be woken."""
        return min(resident.deadline() for resident in self._residents.values())

    def advance(self, seconds: float) -> None:
        """Let time pass, with everybody woken at each deadline on the way."""
        end = self.now + seconds
        for _ in while_it_lasts(lambda: self.deadline() <= end):
            self.now = max(self.now, self.deadline())
            for address, resident in self._residents.items():
                self.put(address, resident.wake(self.now))
            self.settle()
        self.now = end

    def seen(self, *names: str, since: int = 0) -> list[str]:
        """What passed, as text; only what touches one of `names`, if any are given."""
        return [
            str(arrow) for arrow in self.passed[since:] if not names or {arrow.source, arrow.destination} & set(names)
        ]

    def last(self, source: str, wanted: str) -> Request | Response:
        """The last message of this title that somebody sent."""
        return next(a.message for a in reversed(self.passed) if a.source == source and title(a.message) == wanted)

    def _name(self, address: Address) -> str:
        return self._names.get(address, address[0])
