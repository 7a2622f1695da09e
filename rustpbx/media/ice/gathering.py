"""Our side's candidates: hosts at once, the others when servers have answered (RFC 8445 5.1.1)."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from aioice.stun import Message

from rustpbx.core import NEVER, Address, Deadline
from rustpbx.media.ice.candidates import host_candidate, is_ipv6, reflexive_candidate
from rustpbx.media.ice.facts import Datagram, Effect, Gathered, IceOptions, Send
from rustpbx.media.ice.query import Query
from rustpbx.media.sdp.ice import Candidate


class Gathering:
    """`candidates` are what the peer is told, `locals` what pairs are made of, by base.

    `entropy(n)` gives n random bytes. A lite agent has hosts only (5.2).
    """

    def __init__(self, options: IceOptions, entropy: Callable[[int], bytes]) -> None:
        self.candidates: tuple[Candidate, ...] = ()
        self.locals: dict[Address, Candidate] = {}
        self._options = options
        self._entropy = entropy
        self._queries: list[Query] = []

    @property
    def ended(self) -> bool:
        """Whether no candidate will follow."""
        return not self._queries

    def begin(self, bases: tuple[Address, ...], now: float) -> list[Effect]:
        """These addresses are bound, the best first."""
        effects: list[Effect] = []
        for number, base in enumerate(bases):
            preference = 65535 - number
            host = self.locals[base] = host_candidate(base, preference)
            outside = [ip for ip in self._options.external_ips if (":" in ip) == is_ipv6(base)]
            if outside and self._options.lite:
                self._add(attrs.evolve(host, address=(outside[0], base[1])))
                continue
            self._add(host)
            if outside:
                self._add(reflexive_candidate((outside[0], base[1]), base, preference, None))
            else:
                effects.extend(self._ask_servers(base, now))
        return effects if self._queries else [*effects, Gathered()]

    def _add(self, candidate: Candidate) -> None:
        self.candidates = (*self.candidates, candidate)

    def _ask_servers(self, base: Address, now: float) -> list[Effect]:
        if self._options.lite:
            return []
        servers = [server for server in self._options.stun_servers if is_ipv6(server) == is_ipv6(base)]
        queries = [Query(base, server, self._entropy(12), now) for server in servers]
        self._queries.extend(queries)
        return [Send(query.request, base, query.server) for query in queries]

    def answer(self, message: Message, datagram: Datagram, now: float) -> list[Effect] | None:
        """Take a response that came to a base; None if it answers no question of ours."""
        came = (datagram.base, datagram.source)
        for query in self._queries:
            if query.transaction == message.transaction_id and (query.base, query.server) == came:
                query.answer(message, now)
                self._take(query)
                return self._settle()
        return None

    def _take(self, query: Query) -> None:
        known = {candidate.address for candidate in self.candidates}
        if query.mapped is not None and query.mapped not in known:
            preference = (self.locals[query.base].priority >> 8) & 0xFFFF
            self._add(reflexive_candidate(query.mapped, query.base, preference, query.server))

    def tick(self, now: float) -> list[Effect]:
        """Ask again what is not answered, and end when nothing is open any more."""
        again: list[Effect] = [
            Send(query.request, query.base, query.server) for query in self._queries if query.tick(now)
        ]
        return again + self._settle()

    def _settle(self) -> list[Effect]:
        """Tell when the last question is done."""
        if not self._queries or not all(query.done for query in self._queries):
            return []
        self._queries.clear()
        return [Gathered()]

    def deadline(self) -> Deadline:
        """When a server is asked again, or given up."""
        return min((query.deadline() for query in self._queries), default=NEVER)
