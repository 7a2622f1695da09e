"""The SIP stack at work: one UDP socket, the endpoint behind it, and the facts that come out."""

from __future__ import annotations

import ipaddress
import logging
import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Literal

import attrs
import trio

from rustpbx.core import Address, Tick
from rustpbx.errors import LocalError
from rustpbx.journal import Journal
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Datagrams, Network
from rustpbx.sip.endpoint import Endpoint, EndpointConfig
from rustpbx.sip.events import (
    Account,
    Alias,
    ByeReceived,
    CallCancelled,
    CallLost,
    CallRefused,
    Effect,
    Emit,
    Fact,
    FlowLost,
    Garbled,
    HangUp,
    IncomingCall,
    Input,
    Keep,
    LetGo,
    Locate,
    Located,
    OfferReceived,
    Received,
    Refuse,
    Register,
    RegistrationChanged,
    Send,
    SendInvite,
    Undeliverable,
    Unregister,
    Wish,
)
from rustpbx.sip.exposure import Exposure
from rustpbx.sip.hop import Hop, Transport, is_literal
from rustpbx.sip.locate import Unlocated
from rustpbx.sip.shell.accounts import Accounts
from rustpbx.sip.shell.connections import Connections, Exchange, Streams
from rustpbx.sip.shell.detours import Detours
from rustpbx.sip.shell.dns import Names
from rustpbx.sip.shell.udp import UdpFlows
from rustpbx.sip.stun import is_stun
from rustpbx.sip.trace import Trace, Traced, Traces
from rustpbx.sip.trace import log as trace_log
from rustpbx.sip.uri import Uri

log = Journal(__name__)

MOST_FACTS = 10_000
MOST_OUT = 10_000
MOST_PEERS = 10_000

_ANYWHERE = {False: "192.0.2.1", True: "2001:db8::1"}  # for documentation: ask for the default route, never sent to


class Stack:
    """A SIP user agent on one UDP socket.

    `config.port` 0 advertises the bound port. `external_ip` is what peers shall see of us, but for those on this very
    machine (else the bound host, else the route's own address). Facts of all legs come out of `facts`; when its 10,000
    places are taken, the fact is counted, and its call hung up: the stack never waits for the session.

    Every message is kept for a while (`traced`), logged at `debug` by `rustpbx.sip.trace`, and shown to `trace` if set.
    """

    def __init__(  # noqa: PLR0917 - what it is made of, in the order of the sentence above
        self,
        config: EndpointConfig,
        network: Network,
        clock: Clock,
        host: str,
        port: int,
        external_ip: str | None = None,
        rng: random.Random | None = None,
        streams: Streams | None = None,
    ) -> None:
        self.trace: Callable[[Traced], None] | None = None
        self.address: Address | None = None
        self.listening: Mapping[Transport, Address] = {}
        self.facts: trio.MemoryReceiveChannel[Fact]
        self._emit, self.facts = trio.open_memory_channel[Fact](MOST_FACTS)
        # Full: the newest datagram is dropped and counted; SIP resends what matters.
        self._outbox, self._out = trio.open_memory_channel[Send](MOST_OUT)
        self._config = config
        self._network = network
        self._clock = clock
        self._bind: Address = (host, port)
        self._external_ip = external_ip
        self._rng = rng or random.SystemRandom()
        self._names = Names(network, clock, self._rng, self.speaks)
        self._detours = Detours(self._names, self._rng, self.speaks)
        self._nursery: trio.Nursery | None = None
        self._streams = streams or Streams()
        self._flows = UdpFlows(self._put_stun, self._lose, self._rng)
        self._connections = Connections(network, clock, self._rng, self._exchange(), self._streams)
        self._endpoint: Endpoint | None = None
        self._counters: Counter[str] = Counter()
        self._traces = Traces()
        self._exposure = Exposure()
        self._local: OrderedDict[str, str] = OrderedDict()
        self.accounts = Accounts(clock)
        self._moved = trio.Event()
        self._progress = trio.lowlevel.ParkingLot()
        self._asleep_until = -math.inf
        self._unsent = 0

    @property
    def counters(self) -> Counter[str]:
        """The endpoint's counters (see there) and ours.

        `facts_lost`, `datagrams_dropped`, `undeliverable`, `bugs`, and of DNS: `lookups`, and those that were `_failed`
        and `_refused`.
        """
        endpoint = self._endpoint.counters if self._endpoint is not None else Counter[str]()
        return self._counters + self._names.counters + self._connections.counters + endpoint

    async def run(self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
        """Bind, then serve until cancelled; `started` gets the bound address. Raises OSError if it is in use."""
        datagrams = await self._network.open_datagrams(*self._bind)
        try:
            self.address = datagrams.address
            port = self._config.port or datagrams.address[1]
            async with trio.open_nursery() as nursery:
                await nursery.start(self._connections.run)
                for transport, listener in (await self._connections.listen(self._bind[0])).items():
                    nursery.start_soon(self._connections.serve, transport, listener)
                self.listening = {Transport.UDP: datagrams.address, **self._connections.listening}
                ports = {transport: address[1] for transport, address in self._connections.listening.items()}
                self._config = attrs.evolve(self._config, ports=ports)
                self._endpoint = Endpoint(attrs.evolve(self._config, port=port), self._rng)
                nursery.start_soon(self._receive, datagrams)
                self._nursery = nursery
                nursery.start_soon(self._send, datagrams)
                nursery.start_soon(self._tick)
                task_status.started(datagrams.address)
        finally:
            self._endpoint = self._nursery = None
            datagrams.close()

    def wish(self, wish: Wish) -> None:
        """Hand a wish over; never waits. Facts it causes are in `facts` when it returns.

        Raises LocalError if it cannot be written as SIP (see `Endpoint.handle`) or the stack does not run.
        """
        if self._endpoint is None:
            raise LocalError("the SIP stack does not run")
        self._step(self._endpoint, wish)

    def register(self, account: Account) -> None:
        """Register an account, and keep it so. Raises LocalError if there is one of that name, or no stack runs."""
        if self._endpoint is None:
            raise LocalError("the SIP stack does not run")
        self.accounts.enter(account)
        registrar = account.outbound_proxy or account.registrar
        self._step(self._endpoint, Register(account=account, local_host=self.local_host(registrar.host)))

    async def unregister_all(self, patience: float) -> None:
        """Take all registrations back, at once, and wait at most `patience` seconds for the registrars."""
        for standing in self.accounts.standings:
            self._feed(Unregister(standing.account.name))
        with trio.move_on_after(patience):
            await self.accounts.ended()

    def traced(self, leg: str) -> Trace | None:
        """The messages of a leg's call, up or over for not too long; None for one that is not known."""
        found = self._traces.of(leg, self._clock.now())
        return None if found is None else Trace(leg, self.address, *found)

    @property
    def _waiting(self) -> int:
        """How many messages wait to be sent."""
        return self._unsent + self._connections.unsent

    async def flush(self, patience: float = 1.0) -> None:
        """Wait until everything is sent and every request of ours answered, at most `patience` seconds.

        For the shutdown: a BYE that is lost is sent once more.
        """
        with trio.move_on_after(patience):
            while self._endpoint is not None and (self._waiting or self._endpoint.unanswered):
                await self._progress.park()

    def speaks(self, address: str) -> bool:
        """Whether our socket sends to the family of an IP literal; one on `::` sends to both."""
        host = (self.address or self._bind)[0]
        return host == "::" or (":" in host) == (":" in address)

    async def locate(self, uri: Uri) -> tuple[Hop, ...] | Unlocated:
        """The servers that a request to this URI would go to, the best first (RFC 3263)."""
        return await self._names.locate(uri, self._config.spoken)

    def first_stop(self, caller: Uri, callee: Uri) -> Uri:
        """What a call goes to first: its callee, or the proxy of the account that places it."""
        return callee if self._endpoint is None else self._endpoint.first_stop(caller, callee)

    def local_host(self, peer: str) -> str:
        """Our address as `peer` (an IP literal or a name) should know it: for Via, Contact and SDP."""
        host = self._bind[0]
        address = peer if is_literal(peer) else _ANYWHERE[":" in host]
        if self._external_ip and not ipaddress.ip_address(address).is_loopback:
            return self._external_ip
        if is_literal(host) and not ipaddress.ip_address(host).is_unspecified:
            return host
        known = self._local.get(address)
        if known is None:
            known = self._local[address] = self._network.source_for(address)
            if len(self._local) > MOST_PEERS:
                self._local.popitem(last=False)
        return known

    # -- tasks --------------------------------------------------------------------------------------------------------

    async def _receive(self, datagrams: Datagrams) -> None:
        while True:
            data, source = await datagrams.receive()
            if is_stun(data):
                self._counters["stun"] += 1
                self._flows.hear(data, source)
            else:
                self._hear(data, Hop(Transport.UDP, source))

    def _hear(self, data: bytes, hop: Hop) -> None:
        self._note("in", hop, data)
        self._feed(Received(data, hop, self.local_host(hop.address[0])))

    async def _tick(self) -> None:
        """Give the endpoint its ticks. Not `drive`: wishes are handled at once, so deadlines move meanwhile."""
        while self._endpoint is not None:
            self._moved = trio.Event()
            self._asleep_until = self._endpoint.deadline().at
            with trio.move_on_at(self._asleep_until):
                await self._moved.wait()
            self._feed(Tick())

    async def _send(self, datagrams: Datagrams) -> None:
        async for send in self._out:
            if not is_stun(send.data):
                self._note("out", send.destination, send.data)
            await datagrams.send(send.data, send.destination.address)
            self._unsent -= 1
            self._progress.unpark_all()

    async def _find(self, wanted: Locate) -> None:
        """Ask DNS for the servers of a target."""
        found = await self.locate(wanted.target)
        if isinstance(found, Unlocated):
            self._counters["undeliverable"] += 1
            log.info("cannot send to %s: %s", wanted.target.host[:80], found.problem)
            self._feed(Located(wanted.key, (), found.problem))
        else:
            self._feed(Located(wanted.key, found))

    # -- the endpoint -------------------------------------------------------------------------------------------------

    def _feed(self, what: Input | Tick) -> None:
        """Let the endpoint take what the network or the clock brought; a bug in it costs this input only."""
        if self._endpoint is None:
            return
        try:
            self._step(self._endpoint, what)
        except Exception:
            self._counters["bugs"] += 1
            log.exception("SIP endpoint failed on %s", type(what).__name__)

    def _step(self, endpoint: Endpoint, what: Input | Tick) -> None:
        now = self._clock.now()
        effects = endpoint.handle(what, now)
        self._follow(endpoint, what, now)
        for effect in effects:
            if isinstance(effect, Emit):
                self._follow(endpoint, effect.fact, now)
            unheard = self._perform(effect)
            if unheard is not None:
                for last in endpoint.handle(unheard, now):
                    self._perform(last)
        self._progress.unpark_all()
        if endpoint.deadline().at < self._asleep_until:
            self._moved.set()

    def _follow(self, endpoint: Endpoint, what: Input | Tick | Fact, now: float) -> None:
        """Know which call a message belongs to, from the begin of a leg to its end."""
        match what:
            case SendInvite(leg=leg) | IncomingCall(leg=leg):
                call_id = endpoint.call_id(leg)
                if call_id is not None:
                    self._traces.begins(leg, call_id)
            case OfferReceived(leg=leg):
                successor = endpoint.successor_id(leg)
                if successor is not None:
                    self._traces.joins(leg, successor)
            case HangUp(leg=leg) | Refuse(leg=leg):
                self._traces.ends(leg, now)
            case CallCancelled() | CallRefused() | ByeReceived() | CallLost():
                self._traces.ends(what.leg, now)

    def _perform(self, effect: Effect) -> Wish | None:
        """Do it; a fact that nobody takes ends its call by the wish that comes back."""
        if isinstance(effect, Emit):
            return self._report(effect.fact)
        match effect:
            case Send():
                self._put(effect)
            case Locate():
                if self._nursery is not None:
                    self._nursery.start_soon(self._find, effect)
            case Alias(flow=flow, port=port):
                self._connections.alias(flow, port)
            case RegistrationChanged():
                self.accounts.change(effect)
            case Keep(hop=hop):
                self._keep(hop)
            case LetGo(hop=hop):
                self._flows.let_go(hop)
                self._connections.let_go(hop)
        return None

    def _put(self, send: Send) -> None:
        if send.destination.transport.reliable:
            self._connections.send(send)
            return
        try:
            self._outbox.send_nowait(send)
            self._unsent += 1
        except trio.WouldBlock:
            self._counters["datagrams_dropped"] += 1

    def _keep(self, hop: Hop) -> None:
        if self._nursery is None:
            return
        if hop.transport is Transport.UDP:
            self._flows.keep(hop, self._nursery)
        elif not self._connections.keep(hop):
            self._nursery.start_soon(self._tell_lost, hop)

    async def _tell_lost(self, hop: Hop) -> None:
        self._feed(FlowLost(hop, "there is no connection"))

    def _report(self, fact: Fact) -> Wish | None:
        try:
            self._emit.send_nowait(fact)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self._counters["facts_lost"] += 1
            log.warning("nobody takes facts: %s is lost, the call is hung up", type(fact).__name__, call=fact.leg)
            return Refuse(fact.leg, 503) if isinstance(fact, IncomingCall) else HangUp(fact.leg)
        return None

    def _exchange(self) -> Exchange:
        """What the connections tell us, and ask."""
        return Exchange(
            heard=self._hear,
            garbled=lambda error, hop: self._feed(Garbled(error, hop)),
            passed=self._passed,
            undeliverable=self._undeliverable,
            flow_lost=self._lose,
            waits_for=lambda branch: self._endpoint is not None and self._endpoint.waits_for(branch),
            flows_in_use=lambda: self._endpoint.flows_in_use if self._endpoint is not None else frozenset(),
        )

    def _passed(self, data: bytes, hop: Hop) -> None:
        self._note("out", hop, data)
        self._progress.unpark_all()

    def _lose(self, hop: Hop, problem: str) -> None:
        log.info("the way to %s is lost: %s", hop, problem)
        self._feed(FlowLost(hop, problem))

    def _put_stun(self, data: bytes, peer: Address) -> None:
        self._put(Send(data, Hop(Transport.UDP, peer)))

    def _undeliverable(self, send: Send, problem: str) -> None:
        self._counters["undeliverable"] += 1
        log.info("cannot send to %s: %s", send.destination.address[0], problem)
        if send.branch:
            self._feed(Undeliverable(send.branch, problem))
        elif self._nursery is not None:
            self._nursery.start_soon(self._detour, send)

    async def _detour(self, send: Send) -> None:
        """A response was not taken: where else might its sender listen?"""
        elsewhere = await self._detours.next(send)
        if elsewhere is not None:
            self._put(elsewhere)

    def _note(self, direction: Literal["in", "out"], peer: Hop, data: bytes) -> None:
        traced = Traced(direction, peer, data, self._clock.now())
        leg = self._traces.note(traced)
        if direction == "out":
            self._exposure.look(data, peer, leg)
        if trace_log.wants(logging.DEBUG):
            trace_log.debug("%s\n%s", traced.heading, traced.text.rstrip(), call=leg)
        if self.trace is not None:
            self.trace(traced)
