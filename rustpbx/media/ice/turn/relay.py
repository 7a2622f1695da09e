"""One allocation on a TURN server: an address of ours there, who may send to it, and what goes by a channel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count

from aioice.stun import Class, Message, Method

from rustpbx.core import Address, Deadline
from rustpbx.errors import RemoteError
from rustpbx.media.ice.candidates import is_ipv6
from rustpbx.media.ice.facts import Connect, Datagram, Effect, Send, Write
from rustpbx.media.ice.stun import mapped_address, read_stun
from rustpbx.media.ice.turn.grant import Grant, GrantKind
from rustpbx.media.ice.turn.message import (
    FIRST_CHANNEL,
    IPV6,
    LAST_CHANNEL,
    UDP,
    Frames,
    channel_data,
    is_channel_data,
    read_channel_data,
    send_indication,
)
from rustpbx.media.ice.turn.server import Session, TurnServer
from rustpbx.media.ice.turn.tables import GrantAction, GrantState, GrantTrigger


class Relay:
    """`base` is where the server is asked from by UDP, None for a stream. `entropy(n)` gives n random bytes.

    What its methods return is to be performed; a `Datagram` among it came to `relayed` from a peer.
    """

    def __init__(
        self, server: TurnServer, base: Address | None, entropy: Callable[[int], bytes], counters: Counter[str]
    ) -> None:
        self.server = server
        self.base = base
        self.address: Address | None = None
        """Our address at the server, also when it is ours no longer."""
        self.mapped: Address | None = None
        """What the server sees of us."""
        self._entropy = entropy
        self._counters = counters
        self._session = Session(server.username, server.password)
        self._frames = Frames()
        self._numbers = count(FIRST_CHANNEL)
        wanted: dict[str, object] = {"REQUESTED-TRANSPORT": UDP}
        if is_ipv6(server.address):
            wanted["REQUESTED-ADDRESS-FAMILY"] = IPV6
        self._allocation = self._grant(GrantKind.ALLOCATION, wanted)
        self._permissions: dict[str, Grant] = {}
        self._channels: dict[Address, tuple[int, Grant]] = {}

    def _grant(self, kind: GrantKind, attributes: dict[str, object]) -> Grant:
        return Grant(kind, attributes, self._session, self._entropy, reliable=self.base is None)

    @property
    def state(self) -> GrantState:
        """Where the allocation stands."""
        return self._allocation.machine.state

    @property
    def relayed(self) -> Address | None:
        """Our address at the server, while it is granted."""
        return self.address if self._allocation.granted else None

    @property
    def done(self) -> bool:
        """Whether the server has nothing of ours any more, as far as we know."""
        return self._allocation.machine.done

    @property
    def problem(self) -> str:
        """Why there is no relay, or none any more."""
        return self._allocation.problem

    # -- its life

    def begin(self, now: float) -> list[Effect]:
        """Ask for it, or first for a stream to the server."""
        self._allocation.begin(now)
        return [Connect(self.server)] if self.base is None else self.connected(now)

    def connected(self, now: float) -> list[Effect]:
        """The server can be asked."""
        self._allocation.step(GrantTrigger.CONNECTED, now)
        return self._flush()

    def broken(self, reason: str, now: float) -> None:
        """The stream is."""
        self._allocation.problem = reason
        self._report(self._allocation.step(GrantTrigger.BROKEN, now, reason))

    def release(self, now: float) -> list[Effect]:
        """Give it back."""
        self._allocation.step(GrantTrigger.RELEASE, now)
        self._end()
        return self._flush()

    def tick(self, now: float) -> list[Effect]:
        """All timers."""
        for grant in self._grants():
            reports = grant.tick(now)
            if grant is self._allocation:
                self._report(reports)
        return self._flush()

    def deadline(self) -> Deadline:
        """The earliest of them."""
        return min(grant.deadline() for grant in self._grants())

    def _grants(self) -> list[Grant]:
        return [self._allocation, *self._permissions.values(), *(grant for _, grant in self._channels.values())]

    def _report(self, reports: tuple[GrantAction, ...]) -> None:
        """What has become of the allocation."""
        if GrantAction.REPORT_GRANTED in reports and self._allocation.answer is not None:
            answer = self._allocation.answer
            self.address, self.mapped = answer.attributes.get("XOR-RELAYED-ADDRESS"), mapped_address(answer)
        if GrantAction.REPORT_REFUSED in reports:
            self._counters["turn_relays_refused"] += 1
            self._end()

    def _end(self) -> None:
        self._permissions.clear()
        self._channels.clear()

    # -- peers

    def permit(self, peer: Address, now: float) -> list[Effect]:
        """Let a peer's host send to us, and be sent to (9)."""
        if peer[0] in self._permissions or self.relayed is None:
            return []
        grant = self._grant(GrantKind.PERMISSION, {"XOR-PEER-ADDRESS": peer})
        self._permissions[peer[0]] = grant
        return self._open(grant, now)

    def bind(self, peer: Address, now: float) -> list[Effect]:
        """Have a channel to a peer (12): 4 bytes instead of 36 for each packet. Without one it goes by indications."""
        if peer in self._channels or self.relayed is None:
            return []
        number = next(self._numbers)
        if number > LAST_CHANNEL:  # a number is not used again for another peer while it might still be bound
            return []
        grant = self._grant(GrantKind.CHANNEL, {"CHANNEL-NUMBER": number, "XOR-PEER-ADDRESS": peer})
        self._channels[peer] = (number, grant)
        return self._open(grant, now)

    def _open(self, grant: Grant, now: float) -> list[Effect]:
        grant.begin(now)
        grant.step(GrantTrigger.CONNECTED, now)
        return self._flush()

    def retain(self, peers: Iterable[Address]) -> None:
        """Keep permissions and channels for these alone; the others are not renewed."""
        kept = set(peers)
        hosts = {host for host, _ in kept}
        self._permissions = {host: grant for host, grant in self._permissions.items() if host in hosts}
        self._channels = {peer: channel for peer, channel in self._channels.items() if peer in kept}

    # -- what passes

    def send(self, data: bytes, peer: Address) -> Send | Write | None:
        """On its way to a peer; None, and counted, if the server would not let it pass."""
        permission = self._permissions.get(peer[0])
        if self.relayed is None or permission is None or permission.machine.state is GrantState.REFUSED:
            self._counters["turn_not_permitted"] += 1
            return None
        number, channel = self._channels.get(peer, (0, None))
        if channel is not None and channel.granted:
            return self._carry(channel_data(number, data, padded=self.base is None))
        return self._carry(send_indication(self._entropy(12), peer, data))

    def _carry(self, data: bytes) -> Send | Write:
        return Write(data, self.server) if self.base is None else Send(data, self.base, self.server.address)

    def _flush(self) -> list[Effect]:
        found: list[Effect] = []
        for grant in self._grants():
            found.extend(self._carry(data) for data in grant.outgoing)
            grant.outgoing.clear()
        return found

    def feed(self, data: bytes, now: float) -> list[Effect | Datagram]:
        """What has come on the stream; after what cannot be read there is no next message to be found."""
        if self.done:
            return []
        try:
            messages = self._frames.feed(data)
        except RemoteError as error:
            self.broken(str(error), now)
            return []
        return [outcome for message in messages for outcome in self.take(message, now)]

    def take(self, data: bytes, now: float) -> list[Effect | Datagram]:
        """A message of the server."""
        try:
            if is_channel_data(data):
                return self._of_channel(data)
            message = read_stun(data)
        except RemoteError:
            self._counters["turn_unreadable"] += 1
            return []
        if message.message_class == Class.INDICATION:
            return self._indicated(message)
        self._answered(message, now)
        return [*self._flush()]

    def on_channel(self, data: bytes) -> Datagram | None:
        """What a peer sent, if this is channel data of ours. Raises RemoteError for channel data that is cut."""
        number, content = read_channel_data(data)
        for peer, (bound, _) in self._channels.items():
            if bound == number and self.relayed is not None:
                return Datagram(content, self.relayed, peer)
        return None

    def _of_channel(self, data: bytes) -> list[Effect | Datagram]:
        found = self.on_channel(data)
        if found is None:
            self._counters["turn_channel_unknown"] += 1
        return [] if found is None else [found]

    def _indicated(self, message: Message) -> list[Effect | Datagram]:
        """A peer's data (11.4); only from hosts that we wanted to hear."""
        peer, data = message.attributes.get("XOR-PEER-ADDRESS"), message.attributes.get("DATA")
        if message.message_method != Method.DATA or peer is None or data is None:
            self._counters["turn_indications_of_no_use"] += 1
        elif self.relayed is None or peer[0] not in self._permissions:
            self._counters["turn_data_of_strangers"] += 1
        else:
            return [Datagram(data, self.relayed, peer)]
        return []

    def _answered(self, message: Message, now: float) -> None:
        grant = next((one for one in self._grants() if one.transaction == message.transaction_id), None)
        if grant is None or message.message_class == Class.REQUEST:
            self._counters["turn_unasked"] += 1
        elif not self._session.believes(message):
            self._counters["turn_not_authentic"] += 1
        else:
            reports = grant.take(message, now)
            if grant is self._allocation:
                self._report(reports)
