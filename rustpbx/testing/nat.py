"""A network address translator for datagrams (RFC 4787), as a core of its own: addresses and `now` in, addresses out.

    wire.nat("198.51.100.1", ["192.168.1.10"], PORT_RESTRICTED)

The four kinds that people name are `FULL_CONE`, `ADDRESS_RESTRICTED`, `PORT_RESTRICTED` and `SYMMETRIC`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from enum import Enum

import attrs

from rustpbx.core import Address

FIRST_PORT = 40000
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
    """How a NAT maps and filters; `hairpinning`: whether hosts behind it reach each other by its public address."""

    mapping: Dependence
    filtering: Dependence
    timeout: float = TIMEOUT
    hairpinning: bool = False


FULL_CONE = Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ENDPOINT_INDEPENDENT)
ADDRESS_RESTRICTED = Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_DEPENDENT)
PORT_RESTRICTED = Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS_AND_PORT_DEPENDENT)
SYMMETRIC = Behaviour(Dependence.ADDRESS_AND_PORT_DEPENDENT, Dependence.ADDRESS_AND_PORT_DEPENDENT)


@attrs.define
class _Mapping:
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
        self._ports = itertools.count(FIRST_PORT)
        self._by_inside: dict[tuple[object, ...], _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}

    def outbound(self, source: Address, destination: Address, now: float) -> Address:
        """The public address that a datagram from `source` inside to `destination` leaves from."""
        key = (source, *self.behaviour.mapping.part(destination))
        mapping = self._by_inside.get(key)
        if mapping is None or self._expired(mapping, now):
            mapping = _Mapping(source, (self.ip, next(self._ports)), now)
            self._by_inside[key] = self._by_port[mapping.outside[1]] = mapping
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

    def _expired(self, mapping: _Mapping, now: float) -> bool:
        return now - mapping.used > self.behaviour.timeout
