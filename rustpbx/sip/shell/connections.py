"""All connections of a SIP stack: opened when something must be sent, accepted, used again, and given up.

Nothing here waits for a peer but the task of its own connection. What is sent goes into that connection's queue; what
cannot be sent is reported to the one user of the table (`Exchange`), once for each message.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from functools import partial

import attrs
import trio

from rustpbx.core import Address
from rustpbx.journal import Journal
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Network
from rustpbx.sip.events import Send
from rustpbx.sip.flows import Crowded, Flows
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.shell.connection import WEB, Connection, Exchange, Make, Parcel, Patience, Surroundings
from rustpbx.sip.shell.pipe import Pipe
from rustpbx.sip.shell.tcp import StreamPipe, peer_of
from rustpbx.sip.shell.tls import Tls, accept_tls, connect_tls
from rustpbx.sip.shell.ws import accept_web, connect_web

__all__ = ["Connections", "Exchange", "Patience", "Streams"]

log = Journal(__name__)


@attrs.frozen(kw_only=True)
class Streams:
    """Which transports but UDP we listen on, and how: the `ports` (0: any free one), the keys, and the bounds.

    `origins` are those of other hosts' pages whose browsers may come by WebSocket, in lower case.
    """

    ports: Mapping[Transport, int] = attrs.field(factory=dict)
    tls: Tls = attrs.field(factory=Tls)
    patience: Patience = attrs.field(factory=Patience)
    most: int = 2000
    most_of_one: int = 100
    origins: frozenset[str] = frozenset()


class Connections:
    """The connections of one stack. `run` serves them until it is cancelled.

    Counters: `connections_opened`, `_accepted`, `_failed` (no connection or handshake), `_refused` (no room),
    `_evicted` (for others), `_stalled` (handshake, message or write took too long), `_lost` (keep-alive not answered);
    `streams_broken` (not SIP), `resent` (messages that were lost with a connection), `queue_full`.
    """

    def __init__(
        self,
        network: Network,
        clock: Clock,
        rng: random.Random,
        exchange: Exchange,
        streams: Streams | None = None,
    ) -> None:
        streams = streams or Streams()
        self.listening: dict[Transport, Address] = {}
        self.counters: Counter[str] = Counter()
        self._network = network
        self._clock = clock
        self._exchange = exchange
        self._ports = streams.ports
        self._tls = streams.tls
        self._origins = streams.origins
        self._flows = Flows(streams.most, streams.most_of_one)
        self._connections: dict[int, Connection] = {}
        self._kept: set[int] = set()
        self._nursery: trio.Nursery | None = None
        self._around = Surroundings(
            exchange=exchange,
            patience=streams.patience,
            clock=clock,
            rng=rng,
            counters=self.counters,
            busy=self._busy,
            retire=self._flows.remove,
        )

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def unsent(self) -> int:
        """How many messages still wait for their connection."""
        return sum(connection.unsent for connection in self._connections.values())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the connections; leaving it closes them all."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def listen(self, host: str) -> dict[Transport, trio.abc.Listener[trio.abc.Stream]]:
        """Listen on every port that was asked for, at this address. Raises OSError, and ConfigError about TLS."""
        self._tls.ready(server=any(transport.secure for transport in self._ports))
        listeners = {transport: await self._network.listen(host, port) for transport, port in self._ports.items()}
        self.listening = {transport: _address(listener) for transport, listener in listeners.items()}
        return listeners

    async def serve(self, transport: Transport, listener: trio.abc.Listener[trio.abc.Stream]) -> None:
        """Accept connections until cancelled."""
        if self._nursery is None:
            raise RuntimeError("the connections are not running")
        await trio.serve_listeners(partial(self._accept, transport), [listener], handler_nursery=self._nursery)

    # -- wishes -------------------------------------------------------------------------------------------------------

    def send(self, send: Send) -> None:
        """Hand a message over; never waits."""
        self._post(Parcel(send, self._clock.now()))

    def alias(self, number: int, port: int) -> None:
        """Requests to this port of the peer may go by its connection (RFC 5923); on TLS only if it proved who it is."""
        found = self._connections.get(number)
        if found is None:
            return
        proven = found.flow.ours or not self._tls.verifies
        if found.hop.transport is Transport.TCP or proven:
            self._flows.alias(number, port)

    def keep(self, hop: Hop) -> bool:
        """Keep the connection to this hop open by pings, also without a call; False if there is none."""
        flow = self._flows.find(hop)
        if flow is not None:
            self._kept.add(flow.number)
        return flow is not None

    def let_go(self, hop: Hop) -> None:
        """Let it end when nobody uses it."""
        flow = self._flows.find(hop)
        if flow is not None:
            self._kept.discard(flow.number)

    # -- sending ------------------------------------------------------------------------------------------------------

    def _post(self, parcel: Parcel) -> None:
        connection = self._for(parcel.send.destination)
        if isinstance(connection, str):
            self._exchange.undeliverable(parcel.send, connection)
            return
        if not connection.post(parcel):
            self.counters["queue_full"] += 1
            self._exchange.undeliverable(parcel.send, "the peer does not read")

    def _for(self, hop: Hop) -> Connection | str:
        """The connection to send by, or why there is none."""
        flow = self._flows.find(hop)
        if flow is not None:
            flow.used_at = self._clock.now()
            return self._connections[flow.number]
        if self._nursery is None:
            return "the stack does not run"
        if hop.flow and hop.transport in WEB:
            return "the WebSocket is closed"
        host = hop.address[0]
        room = self._make_room("")
        if room is not None:
            return room.problem
        connection = self._add(attrs.evolve(hop, domain=hop.domain or host if hop.transport.secure else ""), ours=True)
        self._nursery.start_soon(self._live, connection, partial(self._open, connection.hop), name=f"SIP to {hop}")
        return connection

    async def _live(self, connection: Connection, make: Make) -> None:
        try:
            await connection.live(make)
        finally:
            self._gone(connection)

    async def _open(self, hop: Hop, nursery: trio.Nursery) -> Pipe:
        stream = await self._network.connect(*hop.address)
        try:
            if hop.transport.secure:
                stream = await connect_tls(stream, self._tls, hop.domain)
            if hop.transport in WEB:
                return await connect_web(stream, nursery, hop.domain, hop.address)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return StreamPipe(stream)

    # -- accepting ----------------------------------------------------------------------------------------------------

    async def _accept(self, transport: Transport, stream: trio.abc.Stream) -> None:
        try:
            peer = peer_of(stream)
        except OSError:
            await trio.aclose_forcefully(stream)
            return
        room = self._make_room(peer[0])
        if room is not None:
            log.info("a connection from %s is refused: %s", peer[0], room.problem)
            await trio.aclose_forcefully(stream)
            return
        connection = self._add(Hop(transport, peer), ours=False)
        await self._live(connection, partial(self._greet, transport, stream))

    async def _greet(self, transport: Transport, stream: trio.abc.Stream, nursery: trio.Nursery) -> Pipe | None:
        try:
            if transport.secure:
                stream = await accept_tls(stream, self._tls)
            if transport in WEB:
                return await accept_web(stream, nursery, self._origins)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return StreamPipe(stream)

    # -- the table ----------------------------------------------------------------------------------------------------

    def _add(self, hop: Hop, *, ours: bool) -> Connection:
        flow = self._flows.add(hop, ours=ours, now=self._clock.now())
        connection = self._connections[flow.number] = Connection(flow, self._around)
        return connection

    def _busy(self, number: int) -> bool:
        """Whether a call or an account needs this connection."""
        return number in self._kept or number in self._exchange.flows_in_use()

    def _make_room(self, source: str) -> Crowded | None:
        """Let one more connection be; None if it may, perhaps because another one was closed for it."""
        room = self._flows.make_room(source, self._kept | self._exchange.flows_in_use())
        if isinstance(room, Crowded):
            self.counters["connections_refused"] += 1
            return room
        if room is not None:
            self.counters["connections_evicted"] += 1
            self._flows.remove(room)
            self._connections[room.number].give_up("closed for another connection")
        return None

    def _gone(self, connection: Connection) -> None:
        """The connection is over: what it owed goes by another one, or is reported."""
        flow = connection.flow
        self._flows.remove(flow)
        del self._connections[flow.number]
        owed = connection.owed()
        kept = flow.number in self._kept
        self._kept.discard(flow.number)
        if self._nursery is None:  # the whole stack ends
            return
        for parcel in owed:
            self._again(connection, parcel)
        if kept:
            self._exchange.flow_lost(flow.hop, connection.problem or "the peer closed the connection")

    def _again(self, connection: Connection, parcel: Parcel) -> None:
        """Send by a new connection what was lost with an old one (RFC 3261 18.4), once; the peer absorbs a copy."""
        if connection.up and not parcel.again:
            self.counters["resent"] += 1
            send = attrs.evolve(parcel.send, destination=attrs.evolve(parcel.send.destination, flow=0))
            if connection.flow.ours or not connection.web:
                self._post(attrs.evolve(parcel, send=send, again=True))
                return
        self._exchange.undeliverable(parcel.send, connection.problem or "the peer closed the connection")


def _address(listener: trio.abc.Listener[trio.abc.Stream]) -> Address:
    name = listener.socket.getsockname()  # type: ignore[attr-defined]  # sockets and their doubles have one
    return name[0], name[1]
