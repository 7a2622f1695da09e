"""All relays of an agent: which of them a datagram comes from, and what they have become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from aioice.stun import Method

from rustpbx.core import NEVER, Address, Deadline
from rustpbx.errors import RemoteError
from rustpbx.media.ice.candidates import is_ipv6
from rustpbx.media.ice.facts import Connected, Datagram, Disconnected, Effect, Received, Selected, Send, Write
from rustpbx.media.ice.stun import is_stun, method_of
from rustpbx.media.ice.turn.message import is_channel_data
from rustpbx.media.ice.turn.relay import Relay
from rustpbx.media.ice.turn.server import Transport, TurnServer
from rustpbx.media.ice.turn.tables import GrantState

Outcome = Effect | Datagram
"""What is to be performed, or what a peer sent to a relayed address."""

MOST_SERVERS = 8
"""Servers that are asked; whoever has more waits for the slowest of them."""


class Relays:
    """`counters` gets what is dropped; `entropy(n)` gives n random bytes."""

    def __init__(self, entropy: Callable[[int], bytes], counters: Counter[str]) -> None:
        self.all: list[Relay] = []
        self._told: set[Relay] = set()
        self._entropy = entropy
        self._counters = counters

    @property
    def settled(self) -> bool:
        """Whether it is known of each whether there is one."""
        return not any(relay.state in (GrantState.CONNECTING, GrantState.ASKING) for relay in self.all)

    @property
    def done(self) -> bool:
        """Whether nothing of ours is on a server any more."""
        return all(relay.done for relay in self.all)

    def pop_lost(self) -> list[Relay]:
        """Those that were refused, or are not there any more, since it was last asked."""
        lost = [one for one in self.all if one.state is GrantState.REFUSED and one not in self._told]
        self._told.update(lost)
        return lost

    def begin(self, servers: Iterable[TurnServer], bases: tuple[Address, ...], now: float) -> list[Effect]:
        """Ask each server: by UDP from every base of its family, else by one stream."""
        effects: list[Effect] = []
        for server in list(dict.fromkeys(servers))[:MOST_SERVERS]:
            family = [base for base in bases if is_ipv6(base) == is_ipv6(server.address)]
            ways: list[Address | None] = [*family] if server.transport is Transport.UDP else [None] * bool(family)
            for base in ways:
                relay = Relay(server, base, self._entropy, self._counters)
                self.all.append(relay)
                effects.extend(relay.begin(now))
        return effects

    def at(self, base: Address) -> Relay | None:
        """The relay whose address this is, or was."""
        return next((relay for relay in self.all if relay.address == base), None)

    def from_channel(self, datagram: Datagram) -> Datagram | None:
        """What a peer sent by a channel, as it was sent; None for all else. It changes nothing, and needs no time."""
        if not is_channel_data(datagram.data):
            return None
        relay = self._of(datagram)
        try:
            return None if relay is None else relay.on_channel(datagram.data)
        except RemoteError:
            return None

    def _of(self, datagram: Datagram) -> Relay | None:
        way = (datagram.base, datagram.source)
        return next((relay for relay in self.all if (relay.base, relay.server.address) == way), None)

    def take(self, datagram: Datagram, now: float) -> list[Outcome] | None:
        """A datagram from a TURN server; None if it is something else, though it may come from there."""
        data = datagram.data
        if not is_channel_data(data) and (not is_stun(data) or method_of(data) == Method.BINDING):
            return None
        relay = self._of(datagram)
        return None if relay is None else relay.take(data, now)

    def retain(self, pairs: Iterable[tuple[Address, Address]]) -> None:
        """Renew permissions and channels for these alone: our address and a peer's."""
        kept: dict[Address, list[Address]] = {}
        for base, peer in pairs:
            kept.setdefault(base, []).append(peer)
        for relay in self.all:
            if relay.address is not None:
                relay.retain(kept.get(relay.address, ()))

    def hear(self, what: Connected | Received | Disconnected, now: float) -> list[Outcome]:
        """News of a stream."""
        outcomes: list[Outcome] = []
        for relay in self.all:
            if relay.base is not None or relay.server != what.server:
                continue
            match what:
                case Connected():
                    outcomes.extend(relay.connected(now))
                case Received():
                    outcomes.extend(relay.feed(what.data, now))
                case Disconnected():
                    relay.broken(what.reason, now)
        return outcomes

    def tick(self, now: float) -> list[Effect]:
        """All timers."""
        return [effect for relay in self.all for effect in relay.tick(now)]

    def deadline(self) -> Deadline:
        """The earliest of them."""
        return min((relay.deadline() for relay in self.all), default=NEVER)

    def release(self, now: float) -> list[Effect]:
        """Give all back."""
        return [effect for relay in self.all for effect in relay.release(now)]

    def route(self, effect: Effect, now: float) -> list[Effect]:
        """What leaves from a relayed address goes by way of the server; a path from there gets a channel."""
        relay = self.at(effect.base) if isinstance(effect, Send | Selected) else None
        if relay is None:
            return [effect]
        if isinstance(effect, Selected):
            return [effect, *relay.permit(effect.remote, now), *relay.bind(effect.remote, now)]
        assert isinstance(effect, Send)  # noqa: S101 - the other of the two
        asked = relay.permit(effect.destination, now)
        sent: Send | Write | None = relay.send(effect.data, effect.destination)
        return asked if sent is None else [*asked, sent]
