"""Which connection a message goes by (RFC 3261 18.1.1, RFC 5923), and which one makes room for a new one. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator

import attrs

from rustpbx.core import Address
from rustpbx.sip.hop import Hop, Transport

Key = tuple[Transport, Address, str]
"""What a connection is looked for by: transport, address, and on a secure one the name that its certificate proves."""


@attrs.define(eq=False)
class Flow:
    """One connection. `hop` is its other end, with its number; `ours` if we opened it, `used_at` when it was used."""

    hop: Hop
    ours: bool
    used_at: float
    keys: set[Key] = attrs.field(factory=set)

    @property
    def number(self) -> int:
        """What names it; never used again."""
        return self.hop.flow


@attrs.frozen
class Crowded:
    """There is no room for one more connection, because of one source or of all; none may be closed for it."""

    problem: str


class Flows:
    """All connections of one user agent: at most `most`, and at most `most_of_one` that one host has opened to us."""

    def __init__(self, most: int = 2000, most_of_one: int = 100) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._numbers = itertools.count(1)
        self._flows: dict[int, Flow] = {}
        self._by_key: dict[Key, Flow] = {}
        self._sources: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._flows)

    def __iter__(self) -> Iterator[Flow]:
        return iter(list(self._flows.values()))

    def add(self, hop: Hop, *, ours: bool, now: float) -> Flow:
        """A new connection to, or from, this address; the hop's own number is not looked at."""
        flow = Flow(attrs.evolve(hop, flow=next(self._numbers)), ours, now)
        self._flows[flow.number] = flow
        self._own(flow, _key(flow.hop))
        if not ours:
            self._sources[hop.address[0]] += 1
        return flow

    def find(self, hop: Hop) -> Flow | None:
        """The connection that a message to this hop goes by: its own, else one to the same place."""
        return self._flows.get(hop.flow) or self._by_key.get(_key(hop))

    def alias(self, number: int, port: int) -> None:
        """Let a connection serve for what goes to this port of its other end (RFC 5923 8.1).

        Who can be reached elsewhere already keeps that: a newcomer takes nothing away from another connection.
        """
        flow = self._flows.get(number)
        if flow is not None:
            self._own(flow, _key(attrs.evolve(flow.hop, address=(flow.hop.address[0], port))))

    def remove(self, flow: Flow) -> None:
        """The connection takes nothing any more."""
        if self._flows.pop(flow.number, None) is None:
            return
        for key in flow.keys:
            del self._by_key[key]
        flow.keys.clear()
        if not flow.ours:
            self._sources[flow.hop.address[0]] -= 1
            self._sources += Counter()  # drops what has come to nothing

    def make_room(self, source: str, busy: Collection[int]) -> Flow | Crowded | None:
        """What must close before this host may open one more: the connection longest unused, or None if there is room.

        One whose number is among the `busy` ones does not go for a stranger.
        """
        if self._sources[source] >= self._most_of_one:
            idle = self._oldest(busy, source)
            return idle or Crowded(f"{source} has {self._most_of_one} connections")
        if len(self._flows) >= self._most:
            return self._oldest(busy) or Crowded(f"there are {self._most} connections")
        return None

    def _oldest(self, busy: Collection[int], source: str | None = None) -> Flow | None:
        flows = self._flows.values()
        theirs = (flow for flow in flows if source is None or (not flow.ours and flow.hop.address[0] == source))
        return min((flow for flow in theirs if flow.number not in busy), key=lambda flow: flow.used_at, default=None)

    def _own(self, flow: Flow, key: Key) -> None:
        if self._by_key.setdefault(key, flow) is flow:
            flow.keys.add(key)


def _key(hop: Hop) -> Key:
    host, port = hop.address
    return hop.transport, (host.lower(), port), hop.domain.lower() if hop.transport.secure else ""
