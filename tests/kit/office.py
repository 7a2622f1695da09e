"""An endpoint of ours and a scripted registrar with a list between them: no Trio, time moves when a test says so."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from rustpbx.core import Address, Tick
from rustpbx.sip.endpoint import Endpoint, EndpointConfig
from rustpbx.sip.events import (
    Account,
    Credentials,
    Effect,
    Emit,
    Fact,
    Input,
    Keep,
    LetGo,
    Received,
    Register,
    RegistrationChanged,
    Send,
    Unregister,
)
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.message import NameAddr, Request
from rustpbx.sip.parser import parse_message
from rustpbx.sip.uri import NO_PARAMS, Uri
from rustpbx.testing.registrar import Registrar
from tests.kit.rounds import while_it_lasts

HOST, PBX = "10.0.0.1", ("10.0.0.5", 5060)
FOREVER = float("inf")
DESK = Account(
    name="desk",
    aor=NameAddr(Uri("sip", "1001", None, PBX[0])),
    registrar=Uri("sip", None, None, PBX[0]),
    credentials=Credentials("1001", "secret", "registrar"),
)


def by_tcp(account: Account) -> Account:
    """The same account, with a registrar that is reached by TCP."""
    params = NO_PARAMS.set("transport", "tcp")
    return attrs.evolve(account, registrar=attrs.evolve(account.registrar, params=params))


@attrs.frozen
class Parcel:
    """A message under way: to the registrar, or back to us by a hop."""

    data: bytes
    hop: Hop | None = None


class Office:
    """Who registers, where, and what is between: `seen` is where the registrar sees us, `flow` the connection's number.

    `changes` are the registration's states so far, `sent` our REGISTERs, `kept` the ways that are kept open.
    """

    def __init__(
        self,
        registrar: Registrar | None = None,
        account: Account = DESK,
        config: EndpointConfig | None = None,
        seed: int = 1,
    ) -> None:
        self.registrar = registrar or Registrar(users={"1001": "secret"})
        self.account = account
        self.endpoint = Endpoint(config or EndpointConfig(port=5060), random.Random(seed))
        self.now = 0.0
        self.seen: Address = (HOST, 5060)
        self.flow = 1
        self.wire: list[Parcel] = []
        self.changes: list[RegistrationChanged] = []
        self.facts: list[Fact] = []
        self.sent: list[Request] = []
        self.times: list[float] = []
        self.kept: list[Hop] = []

    @property
    def state(self) -> str:
        """As it was told last."""
        return self.changes[-1].state

    def begin(self) -> None:
        """Register."""
        self.feed(Register(account=self.account, local_host=HOST))

    def stop(self) -> None:
        """Take it back."""
        self.feed(Unregister(self.account.name))

    def feed(self, what: Input | Tick) -> None:
        """Give the endpoint one input; what it sends is under way then."""
        for effect in self.endpoint.handle(what, self.now):
            self._perform(effect)

    def deliver(self, index: int = 0, *, keep: bool = False) -> None:
        """Let one message arrive; with `keep` it is still under way afterwards."""
        parcel = self.wire[index] if keep else self.wire.pop(index)
        if parcel.hop is not None:
            self.feed(Received(parcel.data, parcel.hop, HOST))
            return
        for data, _ in self.registrar.hear(parcel.data, self.seen, self.now):
            self.wire.append(Parcel(data, self.hop))

    @property
    def hop(self) -> Hop:
        """The registrar, by the way that is up."""
        transport = Transport.of(self.account.registrar.transport or "UDP") or Transport.UDP
        return Hop(transport, PBX, self.flow if transport.reliable else 0)

    def settle(self) -> None:
        """Deliver in order until nothing is under way."""
        for _ in while_it_lasts(lambda: self.wire):
            self.deliver()

    def jump(self) -> bool:
        """Go to the next deadline; False if there is none."""
        at = self.endpoint.deadline().at
        if at == FOREVER:
            return False
        self.now = max(self.now, at)
        self.feed(Tick())
        return True

    def advance(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, all delivered as it is sent; `until` ends it sooner."""
        end = self.now + seconds
        self.settle()
        while not until() and self.endpoint.deadline().at <= end and self.jump():
            self.settle()
        if not until():
            self.now = max(self.now, end)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(data=data):
                self.wire.append(Parcel(data))
                message = parse_message(data)
                known = {request.via.branch for request in self.sent}
                if isinstance(message, Request) and message.method == "REGISTER" and message.via.branch not in known:
                    self.sent.append(message)
                    self.times.append(self.now)
            case RegistrationChanged():
                self.changes.append(effect)
            case Keep(hop=hop):
                self.kept.append(hop)
            case LetGo(hop=hop):
                self.kept.remove(hop)
            case Emit(fact=fact):
                self.facts.append(fact)
            case _:
                raise AssertionError(effect)
