"""All connections of a SIP stack: opened when something must be sent, accepted, kept, used again, and given up.

Nothing here waits for a peer but the task of its own connection. What is sent goes into that connection's queue; what
cannot be sent is reported to the one user of the table (`Exchange`), once for each message.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import attrs
import trio

from rustpbx.core import Address
from rustpbx.errors import ConfigError, RemoteError
from rustpbx.journal import Journal
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Network
from rustpbx.sip.events import Send
from rustpbx.sip.flows import Crowded, Flow, Flows
from rustpbx.sip.framing import PING
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.shell.pipe import GONE, Pipe
from rustpbx.sip.shell.tcp import StreamPipe, peer_of
from rustpbx.sip.shell.tls import Tls, accept_tls, connect_tls, tls_problem
from rustpbx.sip.shell.ws import NO_WEBSOCKET, accept_web, connect_web

log = Journal(__name__)

PONG = b"\r\n"
MOST_QUEUED = 500
"""Messages that wait for one connection. Full: the newest is refused, for its peer does not read."""
MOST_REMEMBERED = 100
"""Requests that went by a connection and may have been lost with it."""

_WEB = frozenset({Transport.WS, Transport.WSS})

Make = Callable[[trio.Nursery], Awaitable[Pipe | None]]


@attrs.frozen(kw_only=True)
class Patience:
    """How long things may take, in seconds.

    `connect` is for the connection and its handshakes, `first` until a stranger says something, `message` for one
    message from its first byte to its last, `write` for one write, `idle` without any use, `answered` how long a
    request may wait for its response. Connections that we opened are pinged each `ping` seconds, at random within it,
    while a call or an account needs them; `pong` is the time for the answer (RFC 5626 4.4.1).
    """

    connect: float = 10.0
    first: float = 30.0
    message: float = 30.0
    write: float = 15.0
    idle: float = 600.0
    answered: float = 32.0
    ping: tuple[float, float] = (25.0, 30.0)
    pong: float = 10.0


@attrs.frozen(kw_only=True)
class Exchange:
    """Who uses the connections: what is told of what happens on them, and asked."""

    heard: Callable[[bytes, Hop], None]
    """A message has come."""
    garbled: Callable[[RemoteError, Hop], None]
    """The next message of a stream cannot be told; what is sent now is the last that goes by it."""
    passed: Callable[[bytes, Hop], None]
    """A message goes out."""
    undeliverable: Callable[[Send, str], None]
    """It cannot be sent."""
    flow_lost: Callable[[Hop, str], None]
    """A connection that was to be kept is gone."""
    waits_for: Callable[[str], bool]
    """Whether the request of ours with this branch has heard nothing yet."""
    flows_in_use: Callable[[], frozenset[int]]
    """The numbers of the connections that calls are on."""


@attrs.frozen
class _Parcel:
    """One message to send, perhaps for the second time."""

    send: Send
    at: float
    again: bool = False


@attrs.define(eq=False)
class _Connection:
    """One connection and what waits for it."""

    flow: Flow
    outbox: trio.MemorySendChannel[_Parcel]
    waiting: trio.MemoryReceiveChannel[_Parcel]
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    sent: OrderedDict[str, _Parcel] = attrs.field(factory=OrderedDict)
    heard: trio.Event = attrs.field(factory=trio.Event)
    up: bool = False
    spoke: bool = False
    answers_pings: bool = False
    problem: str = ""

    def give_up(self, problem: str) -> None:
        """It is of no use any more."""
        self.problem = self.problem or problem
        self.scope.cancel()


@attrs.frozen(kw_only=True)
class Streams:
    """Which transports but UDP we listen on, and how: the `ports` (0: any free one), the keys, and the bounds."""

    ports: Mapping[Transport, int] = attrs.field(factory=dict)
    tls: Tls = attrs.field(factory=Tls)
    patience: Patience = Patience()
    most: int = 2000
    most_of_one: int = 100


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
        self._rng = rng
        self._exchange = exchange
        self._ports = streams.ports
        self._tls = streams.tls
        self._patience = streams.patience
        self._flows = Flows(streams.most, streams.most_of_one)
        self._connections: dict[int, _Connection] = {}
        self._kept: set[int] = set()
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def unsent(self) -> int:
        """How many messages still wait for their connection."""
        return sum(one.waiting.statistics().current_buffer_used for one in self._connections.values())

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
        self._post(_Parcel(send, self._clock.now()))

    def alias(self, number: int, port: int) -> None:
        """Requests to this port of the peer may go by its connection (RFC 5923); on TLS only if it proved who it is."""
        found = self._connections.get(number)
        if found is None:
            return
        proven = found.flow.ours or not self._tls.verifies
        if found.flow.hop.transport is Transport.TCP or proven:
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

    def _post(self, parcel: _Parcel) -> None:
        connection = self._for(parcel.send.destination)
        if isinstance(connection, str):
            self._exchange.undeliverable(parcel.send, connection)
            return
        try:
            connection.outbox.send_nowait(parcel)
        except trio.WouldBlock:
            self.counters["queue_full"] += 1
            self._exchange.undeliverable(parcel.send, "the peer does not read")

    def _for(self, hop: Hop) -> _Connection | str:
        """The connection to send by, or why there is none."""
        flow = self._flows.find(hop)
        if flow is not None:
            flow.used_at = self._clock.now()
            return self._connections[flow.number]
        if self._nursery is None:
            return "the stack does not run"
        if hop.flow and hop.transport in _WEB:
            return "the WebSocket is closed"
        host = hop.address[0]
        room = self._make_room("")
        if room is not None:
            return room.problem
        connection = self._add(attrs.evolve(hop, domain=hop.domain or host if hop.transport.secure else ""), ours=True)
        self._nursery.start_soon(self._live, connection, partial(self._open, connection.flow.hop), name=f"SIP to {hop}")
        return connection

    async def _open(self, hop: Hop, nursery: trio.Nursery) -> Pipe:
        stream = await self._network.connect(*hop.address)
        try:
            if hop.transport.secure:
                stream = await connect_tls(stream, self._tls, hop.domain)
            if hop.transport in _WEB:
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
            if transport in _WEB:
                return await accept_web(stream, nursery)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return StreamPipe(stream)

    # -- one connection -----------------------------------------------------------------------------------------------

    async def _live(self, connection: _Connection, make: Make) -> None:
        """From the first byte of a connection to its end, whatever brings that about."""
        try:
            with connection.scope:
                async with trio.open_nursery() as nursery:
                    await self._talk(connection, make, nursery)
                    nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - reported in full, and contained
            self._failed(connection, error)
        finally:
            self._gone(connection)

    def _failed(self, connection: _Connection, error: Exception) -> None:
        """What came out of a connection's tasks: how the WebSocket library says no, or a bug of ours.

        Its reader raises what it makes of an answer that is no WebSocket's, or no HTTP at all.
        """
        if connection.flow.hop.transport in _WEB and not connection.up:
            self.counters["connections_failed"] += 1
            connection.problem = connection.problem or NO_WEBSOCKET
            log.info("no connection with %s: %r", connection.flow.hop, error)
            return
        self.counters["bugs"] += 1
        log.exception("the connection with %s failed", connection.flow.hop)  # noqa: LOG004 - called where it is handled
        connection.problem = connection.problem or "internal error"

    async def _talk(self, connection: _Connection, make: Make, nursery: trio.Nursery) -> None:
        pipe = await self._establish(connection, make, nursery)
        if pipe is None:
            return
        connection.up = True
        nursery.start_soon(self._write, connection, pipe)
        nursery.start_soon(self._ping, connection, pipe)
        try:
            await self._read(connection, pipe)
        except GONE as error:
            connection.problem = connection.problem or f"the connection is gone: {error or type(error).__name__}"
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await _close(pipe)

    async def _establish(self, connection: _Connection, make: Make, nursery: trio.Nursery) -> Pipe | None:
        try:
            with trio.fail_after(self._patience.connect):
                pipe = await make(nursery)
        except trio.TooSlowError:
            self.counters["connections_stalled"] += 1
            connection.problem = f"no connection within {self._patience.connect:g} s"
        except ConfigError as error:
            connection.problem = str(error)
        except GONE as error:
            connection.problem = tls_problem(error)
        else:
            connection.problem = "" if pipe is not None else "not SIP over WebSocket"
            if pipe is not None:
                self.counters["connections_opened" if connection.flow.ours else "connections_accepted"] += 1
                return pipe
        self.counters["connections_failed"] += 1
        log.info("no connection with %s: %s", connection.flow.hop, connection.problem)
        return None

    async def _read(self, connection: _Connection, pipe: Pipe) -> None:
        begun = self._clock.now()
        while pipe.broken is None:
            limit = self._limit(connection, pipe, begun)
            with trio.move_on_after(max(0.0, limit)) as waiting:
                messages = await pipe.receive()
            if waiting.cancelled_caught:
                if self._overdue(connection, pipe):
                    return
                continue
            now = connection.flow.used_at = self._clock.now()
            if messages or not pipe.partial:
                begun = now
            self._note(connection, messages)
            for message in messages:
                if message == PING:
                    self._keep_alive(connection, PONG)
                else:
                    connection.spoke = True
                    self._exchange.heard(message, connection.flow.hop)
                await trio.lowlevel.checkpoint()
        await self._break(connection, pipe.broken)

    def _limit(self, connection: _Connection, pipe: Pipe, begun: float) -> float:
        """How long to wait for the next bytes."""
        if pipe.partial:
            return begun + self._patience.message - self._clock.now()
        return self._patience.idle if connection.spoke or connection.flow.ours else self._patience.first

    def _overdue(self, connection: _Connection, pipe: Pipe) -> bool:
        """Nothing has come for too long; True if that is the end of the connection."""
        if pipe.partial or not (connection.spoke or connection.flow.ours):
            self.counters["connections_stalled"] += 1
            log.info("%s takes too long for a message: closed", connection.flow.hop)
            return True
        return self._clock.now() - connection.flow.used_at >= self._patience.idle and not self._busy(
            connection.flow.number
        )

    def _note(self, connection: _Connection, messages: list[bytes]) -> None:
        """Something has come: the peer lives. Nothing but a line end is its answer to a ping."""
        connection.answers_pings = connection.answers_pings or not messages
        connection.heard.set()

    async def _break(self, connection: _Connection, error: RemoteError) -> None:
        """Answer what can be answered, and close: nothing after it can be understood."""
        self.counters["streams_broken"] += 1
        self._exchange.garbled(error, connection.flow.hop)
        connection.problem = f"no SIP: {error}"
        self._flows.remove(connection.flow)
        connection.outbox.close()  # the writer ends when it is empty, and the connection with it
        with trio.move_on_after(self._patience.write):
            await trio.sleep_forever()

    async def _write(self, connection: _Connection, pipe: Pipe) -> None:
        async for parcel in connection.waiting:
            send = parcel.send
            if send.data not in (PING, PONG):
                self._exchange.passed(send.data, connection.flow.hop)
                self._remember(connection, parcel)
            try:
                with trio.fail_after(self._patience.write):
                    await pipe.send(send.data)
            except trio.TooSlowError:
                self.counters["connections_stalled"] += 1
                connection.give_up("the peer does not read")
                return
            except GONE as error:
                connection.give_up(f"the connection is gone: {error or type(error).__name__}")
                return
        connection.scope.cancel()

    def _remember(self, connection: _Connection, parcel: _Parcel) -> None:
        """Requests that we may have to send again."""
        if parcel.send.branch:
            connection.sent[parcel.send.branch] = parcel
            while len(connection.sent) > MOST_REMEMBERED:
                connection.sent.popitem(last=False)

    async def _ping(self, connection: _Connection, pipe: Pipe) -> None:
        """Keep the way open through NATs and firewalls, and notice that it is not (RFC 5626 4.4.1, 3.5.1).

        A peer that has never answered a ping may not know them (they are negotiated for accounts only): it is not taken
        for dead.
        """
        while True:
            await trio.sleep(self._rng.uniform(*self._patience.ping))
            if not (connection.flow.ours and self._busy(connection.flow.number)):
                continue
            connection.heard = trio.Event()
            pipe.expect_pong(expected=True)
            self._keep_alive(connection, PING)
            with trio.move_on_after(self._patience.pong):
                await connection.heard.wait()
            pipe.expect_pong(expected=False)
            if not connection.heard.is_set() and connection.answers_pings:
                self.counters["connections_lost"] += 1
                connection.give_up("keep-alives are not answered")

    def _keep_alive(self, connection: _Connection, data: bytes) -> None:
        try:
            connection.outbox.send_nowait(_Parcel(Send(data, connection.flow.hop), self._clock.now()))
        except (trio.WouldBlock, trio.ClosedResourceError):
            return  # who has so much to write needs no sign of life

    # -- the table ----------------------------------------------------------------------------------------------------

    def _add(self, hop: Hop, *, ours: bool) -> _Connection:
        flow = self._flows.add(hop, ours=ours, now=self._clock.now())
        connection = _Connection(flow, *trio.open_memory_channel[_Parcel](MOST_QUEUED))
        self._connections[flow.number] = connection
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

    def _gone(self, connection: _Connection) -> None:
        """The connection is over: what it owed goes by another one, or is reported."""
        flow = connection.flow
        self._flows.remove(flow)
        del self._connections[flow.number]
        connection.outbox.close()
        kept = flow.number in self._kept
        self._kept.discard(flow.number)
        if self._nursery is None:  # the whole stack ends
            return
        for parcel in self._owed(connection):
            self._again(connection, parcel)
        if kept:
            self._exchange.flow_lost(flow.hop, connection.problem or "the peer closed the connection")

    def _owed(self, connection: _Connection) -> list[_Parcel]:
        """What has not been sent, and the requests that nobody has heard of: they may have been lost on the way."""
        now = self._clock.now()
        fresh = [parcel for parcel in connection.sent.values() if now - parcel.at < self._patience.answered]
        owed = [parcel for parcel in fresh if self._exchange.waits_for(parcel.send.branch)]
        while True:
            try:
                parcel = connection.waiting.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return owed
            if parcel.send.data not in (PING, PONG):
                owed.append(parcel)

    def _again(self, connection: _Connection, parcel: _Parcel) -> None:
        """Send by a new connection what was lost with an old one (RFC 3261 18.4), once; the peer absorbs a copy."""
        if connection.up and not parcel.again:
            self.counters["resent"] += 1
            send = attrs.evolve(parcel.send, destination=attrs.evolve(parcel.send.destination, flow=0))
            if connection.flow.hop.transport not in _WEB or connection.flow.ours:
                self._post(attrs.evolve(parcel, send=send, again=True))
                return
        self._exchange.undeliverable(parcel.send, connection.problem or "the peer closed the connection")


def _address(listener: trio.abc.Listener[trio.abc.Stream]) -> Address:
    name = listener.socket.getsockname()  # type: ignore[attr-defined]  # sockets and their doubles have one
    return name[0], name[1]


async def _close(pipe: Pipe) -> None:
    try:
        await pipe.aclose()
    except GONE:
        return
