"""A TURN server (RFC 8656) that is strict: what a client does not keep up is gone, and what it may not do is counted.

    service = TurnService(wire.host("203.0.113.9"), "203.0.113.9", users={"user": "secret"})
    nursery.start_soon(service.run)

It speaks UDP and TCP on one port. Credentials, nonces, permissions (300 s), channels (600 s) and lifetimes are looked
at with each message, in Trio's time. `refuse` makes it answer requests with an error of a test's choice.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import attrs
import trio
from aioice.stun import Class, Message, Method

from rustpbx.core import Address
from rustpbx.errors import RemoteError
from rustpbx.media.ice.candidates import is_ipv6
from rustpbx.media.ice.stun import is_stun, read_stun
from rustpbx.media.ice.turn.message import (
    FIRST_CHANNEL,
    IPV6,
    LAST_CHANNEL,
    UDP,
    Frames,
    channel_data,
    is_channel_data,
    read_channel_data,
)
from rustpbx.shell.network import Datagrams, Network

PERMISSION_LIFETIME = 300.0
CHANNEL_LIFETIME = 600.0
LONGEST_LIFETIME = 3600


@attrs.frozen(eq=False)
class _Client:
    """One five-tuple."""

    address: Address
    stream: bool
    send: Callable[[bytes], Awaitable[None]]


@attrs.define(eq=False)
class Allocation:
    """What one client has; times are Trio's. `channels` are peers by number, each until when."""

    client: _Client
    username: str
    transaction: bytes
    relay: Datagrams
    scope: trio.CancelScope
    """Its deadline is the end of the allocation."""
    permissions: dict[str, float] = attrs.field(factory=dict)
    channels: dict[int, tuple[Address, float]] = attrs.field(factory=dict)

    def permits(self, peer: Address) -> bool:
        """Whether a peer's host may send to it."""
        return self.permissions.get(peer[0], 0.0) > trio.current_time()

    def channel_to(self, peer: Address) -> int | None:
        """The number that a peer has."""
        now = trio.current_time()
        return next((n for n, (to, until) in self.channels.items() if to == peer and until > now), None)


class _Refusal(Exception):  # noqa: N818 - an answer
    def __init__(self, code: int, **attributes: object) -> None:
        super().__init__(code)
        self.code = code
        self.attributes = attributes


class TurnService:
    """One server at `host` and `port`, which relays from `relay_host` (its own, if None).

    `users` are passwords by name; `lifetime` is what an allocation gets, `nonce_lifetime` how long a nonce is good, in
    seconds; `most` are the allocations that a user may have. `forbidden` are hosts that nobody may send to.
    """

    def __init__(
        self,
        network: Network,
        host: str,
        port: int = 3478,
        *,
        users: Mapping[str, str],
        realm: str = "example.org",
        lifetime: int = 600,
        nonce_lifetime: float = 3600.0,
        most: int = 10,
        relay_host: str | None = None,
        forbidden: frozenset[str] = frozenset(),
    ) -> None:
        self.address: Address = (host, port)
        self.allocations: dict[tuple[bool, Address], Allocation] = {}
        self.counters: Counter[str] = Counter()
        """What it has answered and dropped: `allocate`, `refresh`, `438`, `not permitted` ..."""
        self._network = network
        self._users = users
        self._realm = realm
        self._lifetime = lifetime
        self._nonce_lifetime = nonce_lifetime
        self._most = most
        self._relay_host = relay_host or host
        self._forbidden = forbidden
        self._nonces: dict[bytes, float] = {}
        self._numbers = itertools.count()
        self._refusals: dict[Method, int] = {}
        self._nursery: trio.Nursery | None = None
        self._scope = trio.CancelScope()

    # -- for tests

    def refuse(self, method: Method, code: int | None) -> None:
        """Answer authentic requests of this method with an error from now on; None: as usual."""
        if code is None:
            self._refusals.pop(method, None)
        else:
            self._refusals[method] = code

    def forget_nonces(self) -> None:
        """Every nonce is stale now."""
        self._nonces.clear()

    def stop(self) -> None:
        """Be gone, without a word by UDP; streams are closed. `run` returns."""
        self._scope.cancel()

    # -- its life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`."""
        sock = await self._network.open_datagrams(*self.address)
        try:
            listener = await self._network.listen(*self.address)
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(trio.serve_listeners, self._serve_stream, [listener])
                    task_status.started()
                    while True:
                        data, source = await sock.receive()
                        await self._take(data, _Client(source, False, _sender(sock, source)))
        finally:
            sock.close()

    async def _serve_stream(self, stream: trio.abc.Stream) -> None:
        frames = Frames()
        client = _Client((f"stream {next(self._numbers)}", 0), True, _writer(stream))
        try:
            async with stream:
                while data := await stream.receive_some(16384):
                    for message in frames.feed(bytes(data)):
                        await self._take(message, client)
        except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteError):
            self.counters["streams broken"] += 1
        finally:
            allocation = self.allocations.get((True, client.address))
            if allocation is not None:
                allocation.scope.cancel()

    async def _keep(self, allocation: Allocation) -> None:
        """An allocation lives until it expires or is given back."""
        try:
            with allocation.scope:
                await self._relay_back(allocation)
        finally:
            del self.allocations[allocation.client.stream, allocation.client.address]
            allocation.relay.close()

    # -- from clients

    async def _take(self, data: bytes, client: _Client) -> None:
        allocation = self.allocations.get((client.stream, client.address))
        try:
            if is_channel_data(data):
                await self._by_channel(*read_channel_data(data), allocation)
                return
            if not is_stun(data):
                self.counters["unreadable"] += 1
                return
            message = read_stun(data)
        except RemoteError:
            self.counters["unreadable"] += 1
            return
        if message.message_class == Class.INDICATION and message.message_method == Method.SEND:
            await self._by_indication(message, allocation)
        elif message.message_class == Class.REQUEST:
            await self._answer(message, client, allocation)
        else:
            self.counters["unexpected"] += 1

    async def _by_channel(self, number: int, data: bytes, allocation: Allocation | None) -> None:
        peer, until = (None, 0.0) if allocation is None else allocation.channels.get(number, (None, 0.0))
        if allocation is None or peer is None or until <= trio.current_time():
            self.counters["channel unknown"] += 1
            return
        await self._forward(allocation, data, peer)

    async def _by_indication(self, message: Message, allocation: Allocation | None) -> None:
        peer, data = (message.attributes.get(name) for name in ("XOR-PEER-ADDRESS", "DATA"))
        if allocation is None or peer is None or data is None:
            self.counters["unexpected"] += 1
            return
        await self._forward(allocation, data, peer)

    async def _forward(self, allocation: Allocation, data: bytes, peer: Address) -> None:
        if not allocation.permits(peer):
            self.counters["not permitted"] += 1
            return
        self.counters["forwarded"] += 1
        await allocation.relay.send(data, peer)

    async def _relay_back(self, allocation: Allocation) -> None:
        while True:
            data, peer = await allocation.relay.receive()
            if not allocation.permits(peer):
                self.counters["peers not permitted"] += 1
                continue
            self.counters["returned"] += 1
            number = allocation.channel_to(peer)
            if number is not None:
                await allocation.client.send(channel_data(number, data, padded=allocation.client.stream))
                continue
            message = Message(Method.DATA, Class.INDICATION)
            message.attributes.update({"XOR-PEER-ADDRESS": peer, "DATA": data})
            await allocation.client.send(bytes(message))

    # -- requests

    async def _answer(self, request: Message, client: _Client, allocation: Allocation | None) -> None:
        if request.message_method == Method.BINDING:
            answer = Message(Method.BINDING, Class.RESPONSE, request.transaction_id)
            answer.attributes["XOR-MAPPED-ADDRESS"] = client.address
            await client.send(bytes(answer))
            return
        key: bytes | None = None
        try:
            key = self._authenticate(request)
            attributes = await self._grant(request, client, allocation)
        except _Refusal as refusal:
            self.counters[str(refusal.code)] += 1
            answer = Message(request.message_method, Class.ERROR, request.transaction_id)
            answer.attributes["ERROR-CODE"] = (refusal.code, "")
            answer.attributes.update(refusal.attributes)
        else:
            self.counters[request.message_method.name.lower()] += 1
            answer = Message(request.message_method, Class.RESPONSE, request.transaction_id)
            answer.attributes.update(attributes)
        if key is not None:
            answer.add_message_integrity(key)
        await client.send(bytes(answer))

    def _authenticate(self, request: Message) -> bytes:
        """The key of an authentic request (RFC 8489 9.2.4)."""
        nonce = str(next(self._numbers)).encode()
        challenge: dict[str, object] = {"REALM": self._realm, "NONCE": nonce}
        given = request.attributes
        if "MESSAGE-INTEGRITY" not in given:
            self._nonces[nonce] = trio.current_time()
            raise _Refusal(401, **challenge)
        if any(name not in given for name in ("USERNAME", "REALM", "NONCE")):
            raise _Refusal(400)
        password = self._users.get(given["USERNAME"], "")
        text = f"{given['USERNAME']}:{self._realm}:{password}"
        key = hashlib.md5(text.encode(), usedforsecurity=False).digest()
        if given["USERNAME"] not in self._users or not request.check_message_integrity(key):
            raise _Refusal(401, **challenge)
        made = self._nonces.get(given["NONCE"])
        if made is None or trio.current_time() - made > self._nonce_lifetime:
            self._nonces[nonce] = trio.current_time()
            raise _Refusal(438, **challenge)
        return key

    async def _grant(self, request: Message, client: _Client, allocation: Allocation | None) -> dict[str, object]:
        if request.message_method in self._refusals:
            raise _Refusal(self._refusals[request.message_method])
        if request.message_method == Method.ALLOCATE:
            return await self._allocate(request, client, allocation)
        if allocation is None:
            raise _Refusal(437)
        if allocation.username != request.attributes["USERNAME"]:
            raise _Refusal(441)
        match request.message_method:
            case Method.REFRESH:
                return self._refresh(request, allocation)
            case Method.CREATE_PERMISSION:
                self._permit(allocation, self._peer_of(request, allocation))
                return {}
            case Method.CHANNEL_BIND:
                self._bind(request, allocation)
                return {}
            case _:
                raise _Refusal(400)

    async def _allocate(self, request: Message, client: _Client, old: Allocation | None) -> dict[str, object]:
        """RFC 8656 7.2."""
        given, username = request.attributes, request.attributes["USERNAME"]
        if old is not None and old.transaction != request.transaction_id:
            raise _Refusal(437)
        if "REQUESTED-TRANSPORT" not in given:
            raise _Refusal(400)
        if given["REQUESTED-TRANSPORT"] != UDP:
            raise _Refusal(442)
        if (given.get("REQUESTED-ADDRESS-FAMILY") == IPV6) != is_ipv6((self._relay_host, 0)):
            raise _Refusal(440)
        if old is None:
            if sum(one.username == username for one in self.allocations.values()) >= self._most:
                raise _Refusal(486)
            relay = await self._network.open_datagrams(self._relay_host, 0)
            until = trio.CancelScope(deadline=trio.current_time() + self._lifetime)
            old = Allocation(client, username, request.transaction_id, relay, until)
            self.allocations[client.stream, client.address] = old
            assert self._nursery is not None  # noqa: S101 - it runs
            self._nursery.start_soon(self._keep, old)
        seen = {} if client.stream else {"XOR-MAPPED-ADDRESS": client.address}
        return {"XOR-RELAYED-ADDRESS": old.relay.address, "LIFETIME": self._lifetime, **seen}

    def _refresh(self, request: Message, allocation: Allocation) -> dict[str, object]:
        wanted = request.attributes.get("LIFETIME", self._lifetime)
        if wanted == 0:
            allocation.scope.cancel()
            self.counters["given back"] += 1
        else:
            wanted = min(max(wanted, self._lifetime), LONGEST_LIFETIME)
            allocation.scope.deadline = trio.current_time() + wanted
        return {"LIFETIME": wanted}

    def _peer_of(self, request: Message, allocation: Allocation) -> Address:
        peer: Address | None = request.attributes.get("XOR-PEER-ADDRESS")
        if peer is None:
            raise _Refusal(400)
        if is_ipv6(peer) != is_ipv6(allocation.relay.address):
            raise _Refusal(443)
        if peer[0] in self._forbidden:
            raise _Refusal(403)
        return peer

    def _permit(self, allocation: Allocation, peer: Address) -> None:
        allocation.permissions[peer[0]] = trio.current_time() + PERMISSION_LIFETIME

    def _bind(self, request: Message, allocation: Allocation) -> None:
        """Section 12.2: a number has one peer, and a peer one number."""
        number, peer = request.attributes.get("CHANNEL-NUMBER", 0), self._peer_of(request, allocation)
        now = trio.current_time()
        bound, until = allocation.channels.get(number, (peer, 0.0))
        other = allocation.channel_to(peer)
        taken = (bound != peer and until > now) or other not in (None, number)
        if not FIRST_CHANNEL <= number <= LAST_CHANNEL or taken:
            raise _Refusal(400)
        allocation.channels[number] = (peer, now + CHANNEL_LIFETIME)
        self._permit(allocation, peer)


def _sender(sock: Datagrams, destination: Address) -> Callable[[bytes], Awaitable[None]]:
    async def send(data: bytes) -> None:
        await sock.send(data, destination)

    return send


def _writer(stream: trio.abc.Stream) -> Callable[[bytes], Awaitable[None]]:
    turn = trio.Lock()  # answers and relayed data come from two tasks

    async def write(data: bytes) -> None:
        async with turn:
            await stream.send_all(data)

    return write
