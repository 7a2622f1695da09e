"""`MemoryNetwork`: `rustpbx.shell.network.Network` as one host of an in-memory wire sees it."""

from __future__ import annotations

import errno
import ipaddress
import itertools
import math
import operator
import random
import socket
from collections import deque

import attrs
import trio

from rustpbx.core import Address
from rustpbx.shell.network import Datagrams
from rustpbx.shell.records import Answer, Kind
from rustpbx.testing.wire import FIRST_EPHEMERAL, Deliver, Wire, os_error

RECEIVE_QUEUE = 256  # datagrams; a full queue drops the newest, as a kernel does
STREAM_BUFFER = 64 * 1024  # bytes on the way in one direction; then `send_all` waits, as TCP does
BACKLOG = 64
ANY = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - what "every address" is called, nothing is bound here


class MemoryNetwork:
    """The host `ip` on `wire`. It may bind its own IP or the wildcard, never another host's IP."""

    def __init__(self, wire: Wire, ip: str) -> None:
        self.wire = wire
        self.ip = ip
        self._ephemeral = itertools.cycle(range(FIRST_EPHEMERAL, 65536))

    async def open_datagrams(self, host: str, port: int) -> Datagrams:
        """Bind a UDP address. Raises OSError (EADDRINUSE, EADDRNOTAVAIL)."""
        await trio.lowlevel.checkpoint()
        return MemoryDatagrams(self.wire, own_ip(self.ip, host), host or self.ip, port)

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """Open a stream, which takes a round trip of the link.

        Raises OSError: unknown name, ECONNREFUSED, and ETIMEDOUT (at once) across a cut.
        """
        await trio.lowlevel.checkpoint()
        peer: Address = ((await self.resolve(host))[0], port)
        if self.wire.is_cut(self.ip, peer[0]):
            raise os_error(errno.ETIMEDOUT)
        await trio.sleep(self.wire.round_trip(self.ip, peer[0]))
        listener = self.wire.listeners.get(peer)
        if listener is None:
            raise os_error(errno.ECONNREFUSED)
        ours, theirs = stream_pair((self.ip, next(self._ephemeral)), peer, self.wire)
        listener.offer(theirs)
        return ours

    async def listen(self, host: str, port: int) -> TcpListener:
        """Listen for streams; port 0 takes a free one. Raises OSError as `open_datagrams`."""
        await trio.lowlevel.checkpoint()
        ip = own_ip(self.ip, host)
        if port == 0:
            port = next(p for p in itertools.count(FIRST_EPHEMERAL) if (ip, p) not in self.wire.listeners)
        if (ip, port) in self.wire.listeners:
            raise os_error(errno.EADDRINUSE)
        self.wire.listeners[ip, port] = listener = TcpListener(self.wire, (ip, port))
        return listener

    async def resolve(self, host: str) -> list[str]:
        """The wire's `names`; an IP literal is itself. Raises OSError for an unknown name."""
        await trio.lowlevel.checkpoint()
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            found = self.wire.names.get(host)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, f"no such name on this wire: {host}")
        return list(found)

    async def lookup(self, name: str, kind: Kind) -> Answer:
        """The records of the wire's `zone`. Raises OSError for a name that it says is broken."""
        return await self.wire.zone.ask(name, kind)

    def source_for(self, host: str) -> str:  # noqa: ARG002 - a host of the wire has one address for every peer
        """This host's IP."""
        return self.ip


def own_ip(ip: str, asked: str) -> str:
    """The IP to bind when `asked` for. Raises OSError (EADDRNOTAVAIL) for another host's."""
    if asked not in ANY and asked != ip:
        raise os_error(errno.EADDRNOTAVAIL)
    return ip


class MemoryDatagrams:
    """One bound UDP socket."""

    def __init__(self, wire: Wire, ip: str, shown: str, port: int) -> None:
        self._wire = wire
        self._send, self._receive = trio.open_memory_channel[tuple[bytes, Address]](RECEIVE_QUEUE)
        self._bound = wire.bind(ip, port, self._deliver)
        self.address: Address = (shown, self._bound[1])
        self._closed = False
        self._diverted: Deliver | None = None

    @property
    def raw(self) -> socket.socket | None:
        """There is none."""
        return None

    @property
    def bound(self) -> Address:
        """Where it is bound on the wire."""
        return self._bound

    def divert(self, deliver: Deliver | None) -> None:
        """What comes goes there instead, or comes here again."""
        self._diverted = deliver

    def _deliver(self, data: bytes, source: Address) -> bool:
        if self._diverted is not None:
            return self._diverted(data, source)
        try:
            self._send.send_nowait((data, source))
        except trio.WouldBlock:
            return False
        return True

    async def send(self, data: bytes, destination: Address) -> None:
        """See `Datagrams`."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError
        self._wire.send(self._bound, destination, bytes(data))

    def send_now(self, data: bytes, destination: Address) -> bool:
        """See `Datagrams`."""
        if self._closed:
            return False
        self._wire.send(self._bound, destination, bytes(data))
        return True

    async def receive(self) -> tuple[bytes, Address]:
        """See `Datagrams`."""
        return await self._receive.receive()

    def close(self) -> None:
        """See `Datagrams`."""
        if self._closed:
            return
        self._closed = True
        self._wire.unbind(self._bound)
        self._receive.close()


# -- streams --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Ends:
    """The two methods of a socket that servers ask a stream for (who is calling?)."""

    local: Address
    peer: Address

    def getsockname(self) -> Address:
        """Our address."""
        return self.local

    def getpeername(self) -> Address:
        """The peer's address."""
        return self.peer


class _Pipe:
    """One direction of a stream: a bounded byte queue with an end, and for each piece the time of its arrival.

    While its route is cut its reader sees nothing. What was sent meanwhile is there as soon as the hosts are joined,
    as TCP sends it again.
    """

    def __init__(self, wire: Wire | None, route: tuple[str, str]) -> None:
        self.route = route
        self.size = 0
        self.ended = False  # the writer is done: the reader drains and then sees b""
        self.broken = False  # the reader is gone, or the connection was reset
        self._wire = wire
        self._luck = random.Random(0)
        if wire is not None:
            self._luck = wire.watch(self)
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._last_arrival = 0.0
        self._lot = trio.lowlevel.ParkingLot()

    def wake(self) -> None:
        """Whoever waits here looks again."""
        self._lot.unpark_all()

    async def wait(self) -> None:
        """Until something changes."""
        await self._lot.park()

    def put(self, data: bytes) -> None:
        """Send bytes on their way."""
        self._pieces.append((self._arrival(), data))
        self.size += len(data)
        self.wake()

    def end(self) -> None:
        """Nothing more comes: the reader learns it behind the last bytes."""
        if not self.ended:
            self.ended = True
            self._pieces.append((self._arrival(), b""))
            self.wake()

    def _arrival(self) -> float:
        delay = self._wire.stream_delay(self.route, self._luck) if self._wire is not None else 0.0
        self._last_arrival = max(self._last_arrival, trio.current_time() + delay)
        return self._last_arrival

    def take(self, max_bytes: int | None) -> bytes | None:
        """What has arrived, b"" at the end, None if there is nothing yet."""
        if self._due > trio.current_time():
            return None
        at, piece = self._pieces.popleft()
        if not piece or (max_bytes is not None and len(piece) > max_bytes):
            self._pieces.appendleft((at, piece[max_bytes:]))
            piece = piece[:max_bytes]
        self.size -= len(piece)
        self.wake()
        return piece

    async def arrival(self) -> None:
        """Wait until there may be something to take."""
        with trio.move_on_at(self._due):
            await self._lot.park()

    @property
    def _due(self) -> float:
        if not self._pieces or (self._wire is not None and self._wire.is_cut(*self.route)):
            return math.inf
        return self._pieces[0][0]

    def reset(self) -> None:
        """Break at once; what was on its way is gone."""
        self._pieces.clear()
        self.size = 0
        self.broken = True
        self.wake()


class _OneTask:
    """Lets one task in; the second gets BusyResourceError, as Trio's streams promise."""

    def __init__(self) -> None:
        self._inside = False

    def __enter__(self) -> None:
        if self._inside:
            raise trio.BusyResourceError("another task uses this stream in the same direction")
        self._inside = True

    def __exit__(self, *_: object) -> None:
        self._inside = False


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a connection: bounded (64 KiB each way), so that a peer that does not read stalls the sender.

    `socket` answers `getpeername()` and `getsockname()`. `reset()` is a cable pulled with RST: both ends break.
    """

    def __init__(self, inbound: _Pipe, outbound: _Pipe, ends: Ends) -> None:
        self.socket = ends
        self._in = inbound
        self._out = outbound
        self._closed = False
        self._sending = _OneTask()
        self._receiving = _OneTask()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Put the bytes on the way; waits while the peer reads too slowly."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            rest = bytes(data)
            while rest:
                await self._room()
                self._check_sendable()
                piece = rest[: STREAM_BUFFER - self._out.size]
                rest = rest[len(piece) :]
                self._out.put(piece)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            await self._room()
            self._check_sendable()

    def _check_sendable(self) -> None:
        if self._closed or self._out.ended:
            raise trio.ClosedResourceError
        if self._out.broken:
            raise trio.BrokenResourceError("the peer is gone")

    async def _room(self) -> None:
        while self._out.size >= STREAM_BUFFER and not (self._out.broken or self._closed):
            await self._out.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Some bytes, b"" at the end."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be >= 1")
        with self._receiving:
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError
                if self._in.broken:
                    raise trio.BrokenResourceError("connection reset")
                data = self._in.take(max_bytes)
                if data is not None:
                    return data
                await self._in.arrival()

    async def send_eof(self) -> None:
        """Say that nothing more comes; receiving goes on."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError
            self._out.end()

    async def aclose(self) -> None:
        """Close both directions; the peer reads what is on the way, then b""."""
        self._closed = True
        self._out.end()
        self._out.wake()
        self._in.broken = True
        self._in.wake()
        await trio.lowlevel.checkpoint()

    def reset(self) -> None:
        """Break the connection at once, for both ends."""
        self._in.reset()
        self._out.reset()


def stream_pair(one: Address, other: Address, wire: Wire | None = None) -> tuple[MemoryStream, MemoryStream]:
    """Two ends of a new connection between these addresses; one on a `wire` stalls while its hosts are cut."""
    there, back = _Pipe(wire, (one[0], other[0])), _Pipe(wire, (other[0], one[0]))
    return MemoryStream(back, there, Ends(one, other)), MemoryStream(there, back, Ends(other, one))


class TcpListener(trio.abc.Listener[trio.abc.Stream]):
    """A listening address. `accepted` are the server's ends of its connections, for tests that pull cables."""

    def __init__(self, wire: Wire, address: Address) -> None:
        self.socket = Ends(address, address)
        self.accepted: list[MemoryStream] = []
        self._wire = wire
        self._send, self._receive = trio.open_memory_channel[MemoryStream](BACKLOG)

    def offer(self, stream: MemoryStream) -> None:
        """Queue a new connection. Raises OSError (ETIMEDOUT) when the backlog is full."""
        try:
            self._send.send_nowait(stream)
        except trio.WouldBlock:
            raise os_error(errno.ETIMEDOUT) from None

    async def accept(self) -> MemoryStream:
        """The next connection."""
        stream = await self._receive.receive()
        self.accepted.append(stream)
        return stream

    async def aclose(self) -> None:
        """Stop listening; connections stay, but those that nobody has accepted are reset, as the kernel does it."""
        if self._wire.listeners.get(self.socket.local) is self:
            del self._wire.listeners[self.socket.local]
        while self._receive.statistics().current_buffer_used:
            self._receive.receive_nowait().reset()
        self._receive.close()
        await trio.lowlevel.checkpoint()
