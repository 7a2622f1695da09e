"""A network address translator for datagrams (RFC 4787), as a core of its own: addresses and `now` in, addresses out.

    wire.nat("198.51.100.1", ["192.168.1.10"], PORT_RESTRICTED)
    wire.nat("198.51.100.2", ["192.168.1.20"], attrs.evolve(SYMMETRIC, timeout=30, hairpinning=True))

The four kinds that people name are `FULL_CONE`, `ADDRESS_RESTRICTED`, `PORT_RESTRICTED` and `SYMMETRIC`. SIP and media
pass a NAT alike; streams do not (an agent behind one connects outwards, where nothing would change).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from enum import Enum

import attrs

from rustpbx.core import Address

PORTS = range(40000, 65536)
"""The public ports of a NAT, used in turn."""

TIMEOUT = 120.0
"""Seconds that a mapping lives without traffic from inside: the least that RFC 4787 REQ-5 allows."""


class Dependence(Enum):
    """What of the other end's address a mapping, or a filter, depends on (RFC 4787 sections 4.1 and 5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"

    def part(self, address: Address) -> tuple[object, ...]:
        """The part of `address` that counts."""
        if self is Dependence.ENDPOINT_INDEPENDENT:
            return ()
        return (address[0],) if self is Dependence.ADDRESS_DEPENDENT else address


@attrs.frozen
class Behaviour:
    """How a NAT maps and filters; `hairpinning`: whether hosts behind it reach each other by its public address.

    `timeout` is how many seconds a mapping, and the permission of a peer to use it, live without traffic from inside.
    """

    mapping: Dependence
    filtering: Dependence
    timeout: float = attrs.field(default=TIMEOUT, validator=attrs.validators.gt(0))
    hairpinning: bool = False


FULL_CONE = Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ENDPOINT_INDEPENDENT)
ADDRESS_RESTRICTED = Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_DEPENDENT)
PORT_RESTRICTED = Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_AND_PORT_DEPENDENT)
SYMMETRIC = Behaviour(Dependence.ADDRESS_AND_PORT_DEPENDENT, Dependence.ADDRESS_AND_PORT_DEPENDENT)


@attrs.define
class _Mapping:
    key: tuple[object, ...]
    inside: Address
    outside: Address
    used: float
    spoken_to: dict[tuple[object, ...], float] = attrs.field(factory=dict)


class Nat:
    """One translator with the public address `ip` and the hosts `behind` it."""

    def __init__(self, ip: str, behind: Iterable[str], behaviour: Behaviour) -> None:
        self.ip = ip
        self.behind = frozenset(behind)
        self.behaviour = behaviour
        self._ports = itertools.cycle(PORTS)
        self._by_inside: dict[tuple[object, ...], _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}

    def outbound(self, source: Address, destination: Address, now: float) -> Address | None:
        """The public address that a datagram from `source` inside to `destination` leaves from.

        None if all ports are in use: it is dropped.
        """
        key = (source, *self.behaviour.mapping.part(destination))
        mapping = self._by_inside.get(key)
        if mapping is None or self._expired(mapping, now):
            port = self._free_port(now)
            if port is None:
                return None
            mapping = _Mapping(key, source, (self.ip, port), now)
            self._by_inside[key] = self._by_port[port] = mapping
        mapping.used = now
        mapping.spoken_to[self.behaviour.filtering.part(destination)] = now
        return mapping.outside

    def inbound(self, port: int, source: Address, now: float) -> Address | None:
        """Where inside a datagram from `source` to the public `port` goes; None if it is not let in."""
        mapping = self._by_port.get(port)
        if mapping is None or self._expired(mapping, now):
            return None
        spoken = mapping.spoken_to.get(self.behaviour.filtering.part(source))
        return mapping.inside if spoken is not None and now - spoken <= self.behaviour.timeout else None

    def _free_port(self, now: float) -> int | None:
        """The next port in turn, so that one that has just died is not soon another's."""
        for port in itertools.islice(self._ports, len(PORTS)):
            mapping = self._by_port.get(port)
            if mapping is None:
                return port
            if self._expired(mapping, now):
                if self._by_inside.get(mapping.key) is mapping:
                    del self._by_inside[mapping.key]
                return port
        return None

    def _expired(self, mapping: _Mapping, now: float) -> bool:
        return now - mapping.used > self.behaviour.timeout


class Borders:
    """All translators of a wire: which of them a datagram passes, and where it comes out."""

    def __init__(self) -> None:
        self._by_ip: dict[str, Nat] = {}
        self._by_host: dict[str, Nat] = {}

    def add(self, nat: Nat) -> None:
        """Put one up. Raises ValueError if an address of it has another place already."""
        for ip in (nat.ip, *sorted(nat.behind)):
            if ip in self._by_ip or ip in self._by_host:
                raise ValueError(f"{ip} belongs to another NAT")
        if nat.ip in nat.behind:
            raise ValueError(f"{nat.ip} cannot be in front of its NAT and behind it")
        self._by_ip[nat.ip] = nat
        self._by_host.update(dict.fromkeys(nat.behind, nat))

    def cross(self, source: Address, destination: Address, now: float) -> tuple[Address, Address | None]:
        """The source as others see it, and where the datagram really goes; None if it is dropped on its way."""
        ours = self._by_host.get(source[0])
        if ours is None:
            return source, self._enter(source, destination, now)
        if destination[0] in ours.behind:
            return source, destination
        seen_from = ours.outbound(source, destination, now)
        if seen_from is None or (destination[0] == ours.ip and not ours.behaviour.hairpinning):
            return seen_from or source, None
        return seen_from, self._enter(seen_from, destination, now)

    def _enter(self, source: Address, destination: Address, now: float) -> Address | None:
        if destination[0] in self._by_host:
            return None  # a private address is not routed
        nat = self._by_ip.get(destination[0])
        return destination if nat is None else nat.inbound(destination[1], source, now)
