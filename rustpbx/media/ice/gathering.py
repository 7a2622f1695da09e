"""Our side's candidates: hosts at once, the others when servers have answered (RFC 8445 5.1.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs
from aioice.stun import Message

from rustpbx.core import NEVER, Address, Deadline
from rustpbx.media.ice.candidates import host_candidate, is_ipv6, reflexive_candidate, relayed_candidate
from rustpbx.media.ice.facts import Datagram, Effect, Gathered, IceOptions, RelayLost, Send
from rustpbx.media.ice.query import Query
from rustpbx.media.ice.turn.relay import Relay
from rustpbx.media.ice.turn.relays import Relays
from rustpbx.media.ice.turn.server import Transport
from rustpbx.media.sdp.ice import Candidate

RELAY_PREFERENCE = {Transport.UDP: 65535, Transport.TCP: 32767, Transport.TLS: 16383}
"""A relay that is reached by a stream waits for what was lost there."""


class Gathering:
    """`candidates` are what the peer is told, `locals` what pairs are made of, by base: hosts and relays.

    `entropy(n)` gives n random bytes. A lite agent has hosts only (5.2).
    """

    def __init__(self, options: IceOptions, entropy: Callable[[int], bytes], counters: Counter[str]) -> None:
        self.candidates: tuple[Candidate, ...] = ()
        self.locals: dict[Address, Candidate] = {}
        self.lost: list[RelayLost] = []
        """Relays that are not there, or not any more."""
        self.relays = Relays(entropy, counters)
        self._options = options
        self._entropy = entropy
        self._queries: list[Query] = []
        self._fresh: list[Candidate] = []
        self._told = True
        self._known: dict[Relay, Address] = {}

    @property
    def ended(self) -> bool:
        """Whether no candidate will follow."""
        return self._told

    def begin(self, bases: tuple[Address, ...], now: float) -> list[Effect]:
        """These addresses are bound, the best first."""
        effects: list[Effect] = []
        self._told = False
        if not self._options.relay_only:
            for number, base in enumerate(bases):
                effects.extend(self._begin_base(base, 65535 - number, now))
        if not self._options.lite:
            effects.extend(self.relays.begin(self._options.turn_servers, bases, now))
        return [*effects, *self._settle()]

    def _begin_base(self, base: Address, preference: int, now: float) -> list[Effect]:
        host = host_candidate(base, preference)
        self._use(base, host)
        outside = [ip for ip in self._options.external_ips if (":" in ip) == is_ipv6(base)]
        if outside and self._options.lite:
            self._add(attrs.evolve(host, address=(outside[0], base[1])))
            return []
        self._add(host)
        if outside:
            self._add(reflexive_candidate((outside[0], base[1]), base, preference, None))
            return []
        return self._ask_servers(base, now)

    def pop_fresh(self) -> list[Candidate]:
        """Of `locals`, those that nobody has paired yet."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def _use(self, base: Address, candidate: Candidate) -> None:
        self.locals[base] = candidate
        self._fresh.append(candidate)

    def _add(self, candidate: Candidate) -> None:
        """Tell the peer of one more, unless it has that address already."""
        if all(candidate.address != known.address for known in self.candidates):
            self.candidates = (*self.candidates, candidate)

    def _ask_servers(self, base: Address, now: float) -> list[Effect]:
        if self._options.lite:
            return []
        servers = [server for server in self._options.stun_servers if is_ipv6(server) == is_ipv6(base)]
        queries = [Query(base, server, self._entropy(12), now) for server in servers]
        self._queries.extend(queries)
        return [Send(query.request, base, query.server) for query in queries]

    def answer(self, message: Message, datagram: Datagram, now: float) -> bool:
        """Take a response that came to a base; False if it answers no question of ours."""
        came = (datagram.base, datagram.source)
        for query in self._queries:
            if query.transaction == message.transaction_id and (query.base, query.server) == came:
                query.answer(message, now)
                if query.mapped is not None:
                    self._add_reflexive(query.mapped, query.base, query.server)
                return True
        return False

    def _add_reflexive(self, mapped: Address, base: Address, server: Address) -> None:
        preference = (self.locals[base].priority >> 8) & 0xFFFF
        self._add(reflexive_candidate(mapped, base, preference, server))

    def tick(self, now: float) -> list[Effect]:
        """Ask again what is not answered; see what has become of the relays, and whether that was all."""
        again = [Send(query.request, query.base, query.server) for query in self._queries if query.tick(now)]
        return [*again, *self.relays.tick(now), *self._look_at_relays(), *self._settle()]

    def _look_at_relays(self) -> list[Effect]:
        news: list[Effect] = []
        for number, relay in enumerate(self.relays.all):
            if relay.relayed is not None and relay not in self._known:
                self._take_relay(relay, relay.relayed, number)
            elif relay.relayed is None and relay in self._known:
                gone = self._known.pop(relay)
                self.locals.pop(gone)
                self.candidates = tuple(one for one in self.candidates if one.address != gone)
        for relay in self.relays.pop_lost():
            lost = RelayLost(relay.server, relay.problem)
            self.lost.append(lost)
            news.append(lost)
        return news

    def _take_relay(self, relay: Relay, relayed: Address, number: int) -> None:
        preference = RELAY_PREFERENCE[relay.server.transport] - number
        mapped = relay.mapped or relayed
        found = relayed_candidate(relayed, mapped, preference, relay.server.address)
        self._known[relay] = relayed
        self._use(relayed, found)
        self._add(found)
        if relay.base in self.locals and relay.mapped is not None and relay.base is not None:
            self._add_reflexive(relay.mapped, relay.base, relay.server.address)

    def _settle(self) -> list[Effect]:
        """Tell when the last question is done."""
        if self._told or not self.relays.settled or not all(query.done for query in self._queries):
            return []
        self._queries.clear()
        self._told = True
        return [Gathered()]

    def deadline(self) -> Deadline:
        """When a server is asked again, or given up."""
        return min([*(query.deadline() for query in self._queries), self.relays.deadline()], default=NEVER)
