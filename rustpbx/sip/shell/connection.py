"""One connection from its first byte to its end: handshake, messages both ways, keep-alives, and why it ended."""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable

import attrs
import trio

from rustpbx.errors import ConfigError, RemoteError
from rustpbx.journal import Journal
from rustpbx.shell.clock import Clock
from rustpbx.sip.events import Send
from rustpbx.sip.flows import Flow
from rustpbx.sip.framing import PING
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.shell.pipe import GONE, Pipe
from rustpbx.sip.shell.tls import tls_problem
from rustpbx.sip.shell.ws import NO_WEBSOCKET

log = Journal(__name__)

PONG = b"\r\n"
MOST_QUEUED = 500
"""Messages that wait for one connection. Full: the newest is refused, for its peer does not read."""
GOODBYE = 1.0
"""Seconds that the end of a connection may take: a close frame, what TLS wants to say."""
MOST_REMEMBERED = 100
"""Requests that went by a connection and may have been lost with it."""

WEB = frozenset({Transport.WS, Transport.WSS})

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
class Parcel:
    """One message to send, perhaps for the second time."""

    send: Send
    at: float
    again: bool = False

    @property
    def is_sign_of_life(self) -> bool:
        """Whether it is a keep-alive, or the answer to one."""
        return self.send.data in {PING, PONG}


@attrs.frozen(kw_only=True)
class Surroundings:
    """What all connections of a stack share. `busy` says whether a call or an account needs the one of that number."""

    exchange: Exchange
    patience: Patience
    clock: Clock
    rng: random.Random
    counters: Counter[str]
    busy: Callable[[int], bool]
    retire: Callable[[Flow], None]
    """Nothing more is to be sent by it."""


class Connection:
    """One connection. `flow` is its place in the table, `up` is set once its handshakes are done."""

    def __init__(self, flow: Flow, around: Surroundings) -> None:
        self.flow = flow
        self.up = False
        self.problem = ""
        self._around = around
        self._patience = around.patience
        # Full: the newest message is refused, for the peer does not read.
        self._outbox, self._waiting = trio.open_memory_channel[Parcel](MOST_QUEUED)
        self._scope = trio.CancelScope()
        self._sent: OrderedDict[str, Parcel] = OrderedDict()
        self._heard = trio.Event()
        self._spoke = flow.ours  # a stranger has to say something first
        self._answers_pings = False

    @property
    def hop(self) -> Hop:
        """Its other end."""
        return self.flow.hop

    @property
    def web(self) -> bool:
        """Whether it is a WebSocket."""
        return self.hop.transport in WEB

    @property
    def unsent(self) -> int:
        """How many messages wait to be sent."""
        return self._waiting.statistics().current_buffer_used

    def post(self, parcel: Parcel) -> bool:
        """Put a message into the queue; False if that is full."""
        try:
            self._outbox.send_nowait(parcel)
        except (trio.WouldBlock, trio.ClosedResourceError):
            return False
        return True

    def give_up(self, problem: str) -> None:
        """It is of no use any more."""
        self.problem = self.problem or problem
        self._scope.cancel()

    def owed(self) -> list[Parcel]:
        """It is over: what was not sent, and requests that nobody has heard of, which may have been lost with it."""
        self._outbox.close()
        now, waits_for = self._around.clock.now(), self._around.exchange.waits_for
        fresh = [parcel for parcel in self._sent.values() if now - parcel.at < self._patience.answered]
        owed = [parcel for parcel in fresh if waits_for(parcel.send.branch)]
        while True:
            try:
                parcel = self._waiting.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return owed
            if not parcel.is_sign_of_life:
                owed.append(parcel)

    async def live(self, make: Make) -> None:
        """All of it; `make` opens or greets it. Returns when it is over, whatever brought that about."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await self._talk(make, nursery)
                    nursery.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - reported in full, and contained
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """What came out of its tasks: how the WebSocket library says no, or a bug of ours.

        The library's reader raises what it makes of an answer that is no WebSocket's, or no HTTP at all.
        """
        if self.web and not self.up:
            self._count("connections_failed")
            self.problem = self.problem or NO_WEBSOCKET
            log.info("no connection with %s: %r", self.hop, error)
            return
        self._count("bugs")
        log.exception("the connection with %s failed", self.hop)  # noqa: LOG004 - called where it is handled
        self.problem = self.problem or "internal error"

    async def _talk(self, make: Make, nursery: trio.Nursery) -> None:
        pipe = await self._establish(make, nursery)
        if pipe is None:
            return
        self.up = True
        nursery.start_soon(self._write, pipe)
        nursery.start_soon(self._ping, pipe)
        try:
            await self._read(pipe)
        except GONE as error:
            self.problem = self.problem or _gone(error)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(GOODBYE):
                await _close(pipe)

    async def _establish(self, make: Make, nursery: trio.Nursery) -> Pipe | None:
        pipe = None
        try:
            with trio.fail_after(self._patience.connect):
                pipe = await make(nursery)
        except trio.TooSlowError:
            self._count("connections_stalled")
            self.problem = f"no connection within {self._patience.connect:g} s"
        except ConfigError as error:
            self.problem = str(error)
        except GONE as error:
            self.problem = tls_problem(error)
        if pipe is None:
            self._count("connections_failed")
            self.problem = self.problem or "not SIP over WebSocket"
            log.info("no connection with %s: %s", self.hop, self.problem)
        else:
            self._count("connections_opened" if self.flow.ours else "connections_accepted")
        return pipe

    # -- what comes in ------------------------------------------------------------------------------------------------

    async def _read(self, pipe: Pipe) -> None:
        begun = self._around.clock.now()
        while pipe.broken is None:
            was_partial = pipe.partial
            with trio.move_on_after(self._limit(pipe, begun)) as waiting:
                messages = await pipe.receive()
            if waiting.cancelled_caught:
                if self._overdue(pipe):
                    return
                continue
            now = self.flow.used_at = self._around.clock.now()
            self._heard.set()
            if messages or not was_partial:
                begun = now
            for message in messages:
                self._take(message)
                await trio.lowlevel.checkpoint()
        await self._break(pipe.broken)

    def _take(self, message: bytes) -> None:
        if message == PING:
            self.post(Parcel(Send(PONG, self.hop), self._around.clock.now()))
        else:
            self._spoke = True
            self._around.exchange.heard(message, self.hop)

    def _limit(self, pipe: Pipe, begun: float) -> float:
        """How long to wait for the next bytes; a message that has `begun` must end."""
        if pipe.partial:
            return max(0.0, begun + self._patience.message - self._around.clock.now())
        return self._patience.idle if self._spoke else self._patience.first

    def _overdue(self, pipe: Pipe) -> bool:
        """Nothing has come for too long; True if that is the end of it."""
        if pipe.partial or not self._spoke:
            self._count("connections_stalled")
            log.info("%s takes too long for a message: closed", self.hop)
            return True
        idle = self._around.clock.now() - self.flow.used_at >= self._patience.idle
        return idle and not self._around.busy(self.flow.number)

    async def _break(self, error: RemoteError) -> None:
        """Answer what can be answered, and close: nothing after it can be understood."""
        self._count("streams_broken")
        self._around.exchange.garbled(error, self.hop)
        self.problem = f"no SIP: {error}"
        self._around.retire(self.flow)
        self._outbox.close()  # the writer ends when it is empty, and the connection with it
        with trio.move_on_after(self._patience.write):
            await trio.sleep_forever()

    # -- what goes out ------------------------------------------------------------------------------------------------

    async def _write(self, pipe: Pipe) -> None:
        async for parcel in self._waiting:
            if not parcel.is_sign_of_life:
                self._around.exchange.passed(parcel.send.data, self.hop)
                self._remember(parcel)
            try:
                with trio.fail_after(self._patience.write):
                    await pipe.send(parcel.send.data)
            except trio.TooSlowError:
                self._count("connections_stalled")
                self.give_up("the peer does not read")
            except GONE as error:
                self.give_up(_gone(error))
        self._scope.cancel()

    def _remember(self, parcel: Parcel) -> None:
        """Requests that may have to be sent again."""
        if parcel.send.branch:
            self._sent[parcel.send.branch] = parcel
            while len(self._sent) > MOST_REMEMBERED:
                self._sent.popitem(last=False)

    async def _ping(self, pipe: Pipe) -> None:
        """Keep the way open through NATs and firewalls, and notice that it is not (RFC 5626 4.4.1, 3.5.1).

        A peer that has never answered a ping may not know them (they are negotiated for accounts only): it is not taken
        for dead.
        """
        while True:
            await trio.sleep(self._around.rng.uniform(*self._patience.ping))
            if not (self.flow.ours and self._around.busy(self.flow.number)):
                continue
            self._heard = trio.Event()
            pipe.expects_pong = True
            self.post(Parcel(Send(PING, self.hop), self._around.clock.now()))
            with trio.move_on_after(self._patience.pong):
                await self._heard.wait()
            self._answers_pings = self._answers_pings or not pipe.expects_pong
            pipe.expects_pong = False
            if self._answers_pings and not self._heard.is_set():
                self._count("connections_lost")
                self.give_up("keep-alives are not answered")

    def _count(self, what: str) -> None:
        self._around.counters[what] += 1


def _gone(error: BaseException) -> str:
    return f"the connection is gone: {error or type(error).__name__}"


async def _close(pipe: Pipe) -> None:
    try:
        await pipe.aclose()
    except GONE:
        return
