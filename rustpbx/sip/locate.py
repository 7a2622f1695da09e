"""Finding the servers for a SIP URI (RFC 3263): from a target and what DNS says to hops, the best first.

Pure: `locate` is a generator that yields questions, is sent their answers, and returns the hops. A target that needs
no DNS (an IP literal) returns at once. Section numbers are RFC 3263's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

import attrs

from rustpbx.shell.records import Kind, Naptr, Record, Srv
from rustpbx.sip.hop import Hop, Transport, is_literal
from rustpbx.sip.message import Via
from rustpbx.sip.uri import Uri

MOST_HOPS = 8
"""Servers of one target that are tried; a zone with more of them is cut, the best stay."""

_SRV_PREFIX: Mapping[Transport, str] = MappingProxyType(
    {Transport.UDP: "_sip._udp", Transport.TCP: "_sip._tcp", Transport.TLS: "_sips._tcp"}
)
_BY_SERVICE: Mapping[str, Transport] = MappingProxyType(
    {
        "SIP+D2U": Transport.UDP,
        "SIP+D2T": Transport.TCP,
        "SIPS+D2T": Transport.TLS,
        "SIP+D2W": Transport.WS,  # RFC 7118 8.2
        "SIPS+D2W": Transport.WSS,
    }
)


@attrs.frozen
class Question:
    """Ask DNS for the records of this kind that a name has."""

    name: str
    kind: Kind


@attrs.frozen
class Unlocated:
    """There is no server for a target, and why."""

    problem: str


@attrs.frozen
class _Service:
    """A transport, and the SRV name that says where it is spoken; "" if DNS names no such service."""

    transport: Transport
    name: str = ""


Answers = tuple[tuple[Record, ...], ...]
"""The records for each question, in order; none where there are none, or where nobody answered in time."""

Search = Generator[tuple[Question, ...], Answers, tuple[Hop, ...] | Unlocated]


def locate(
    uri: Uri, spoken: Sequence[Transport], rng: random.Random, fits: Callable[[str], bool] = lambda _: True
) -> Search:
    """The hops for a request to `uri`: the Request-URI, or the topmost loose route (section 4).

    `spoken` are the transports to choose among where the URI names none, the one we like best first. `fits` says
    whether we can send to an IP literal (its family); `rng` draws among SRV records of equal priority.
    """
    target = uri.params.get("maddr") or uri.host
    if uri.scheme not in {"sip", "sips"} or not target:
        return Unlocated(f"no server is named by {uri.scheme}:")
    wanted = _wanted(uri)
    if wanted is not None:
        named = Transport.of(wanted)
        allowed = [] if named is None else [named]
    elif uri.scheme == "sips":
        allowed = [transport for transport in spoken if transport.secure] or [Transport.TLS]
    else:
        allowed = list(spoken)
    if not allowed:
        return Unlocated(f"{target} is to be reached by {wanted or 'any transport'}, which we do not speak")
    search = _Search(target, allowed, rng, fits, domain=uri.host)
    transport = _usual(uri, allowed)
    if is_literal(target) or uri.port is not None:
        return (yield from search.hosts(transport, [(target, uri.port or transport.default_port)]))
    services = [_service(transport, target)] if wanted is not None else (yield from search.services())
    found = yield from search.servers(services)
    if found is not None:
        return found
    # 4.1, 4.2: no SRV records at all: the name is a host, the port the transport's own.
    return (yield from search.hosts(transport, [(target, transport.default_port)]))


def locate_sent_by(via: Via, rng: random.Random, fits: Callable[[str], bool] = lambda _: True) -> Search:
    """Where a response goes when the address that its request came from takes nothing: its `sent-by` (section 5)."""
    transport = Transport.of(via.transport)
    if transport is None:
        return Unlocated(f"we do not speak {via.transport}")
    search = _Search(via.host, [transport], rng, fits, domain=via.host)
    if not is_literal(via.host) and via.port is None:
        found = yield from search.servers([_service(transport, via.host)])
        if found is not None:
            return found
    return (yield from search.hosts(transport, [(via.host, via.port or transport.default_port)]))


def order_servers(records: Iterable[Srv], rng: random.Random) -> list[Srv]:
    """SRV records as they are to be tried: by priority, and by weighted lot among equals (RFC 2782)."""
    ordered: list[Srv] = []
    by_priority = sorted(records, key=lambda record: (record.priority, record.weight, record.target, record.port))
    for _, equals in groupby(by_priority, key=lambda record: record.priority):
        waiting = list(equals)  # those of weight 0 first: they have a chance, if a small one
        while waiting:
            drawn = rng.randint(0, sum(record.weight for record in waiting))
            for record in waiting:
                drawn -= record.weight
                if drawn <= 0:
                    break
            waiting.remove(record)
            ordered.append(record)
    return ordered


class _Search:
    """The steps that ask; each is a generator of questions. `domain` is what a certificate must be for (RFC 5922 4)."""

    def __init__(
        self,
        target: str,
        transports: Sequence[Transport],
        rng: random.Random,
        fits: Callable[[str], bool],
        *,
        domain: str,
    ) -> None:
        self._target = target
        self._transports = transports
        self._rng = rng
        self._fits = fits
        self._domain = domain

    def services(self) -> Generator[tuple[Question, ...], Answers, list[_Service]]:
        """The services of the target by its NAPTR records, else one for each transport that we speak (4.1)."""
        if "." not in self._target.rstrip("."):
            return []  # a name without a dot is a host of our own network: what the hosts file knows
        ((*found,),) = yield (Question(self._target, "NAPTR"),)
        records = sorted(
            (record for record in found if isinstance(record, Naptr) and record.flags == "S"),
            key=lambda record: (record.order, record.preference),
        )
        services = []
        for record in records:
            transport = _BY_SERVICE.get(record.service)
            if transport in self._transports and transport is not None and record.replacement:
                services.append(_Service(transport, record.replacement))
        return services or [_service(transport, self._target) for transport in self._transports]

    def servers(
        self, services: Sequence[_Service]
    ) -> Generator[tuple[Question, ...], Answers, tuple[Hop, ...] | Unlocated | None]:
        """The hops behind the services' SRV records; None if there are no such records."""
        named = [service for service in services if service.name]
        if not named:
            return None
        answers = yield tuple(Question(service.name, "SRV") for service in named)
        hops: list[Hop] = []
        said = False
        for service, records in zip(named, answers, strict=True):
            servers = [record for record in records if isinstance(record, Srv)]
            said = said or bool(servers)
            places = [(server.target, server.port) for server in order_servers(servers, self._rng) if server.target]
            if places:
                found = yield from self.hosts(service.transport, places[:MOST_HOPS])
                hops += found if isinstance(found, tuple) else ()
        if hops:
            return tuple(hops[:MOST_HOPS])
        return Unlocated(f"the SRV records of {self._target} name no host that has an address") if said else None

    def hosts(
        self, transport: Transport, places: Sequence[tuple[str, int]]
    ) -> Generator[tuple[Question, ...], Answers, tuple[Hop, ...] | Unlocated]:
        """The hops of these hosts and ports, every address of each host in its resolver's order."""
        names = list(dict.fromkeys(host for host, _ in places if not is_literal(host)))
        answers = (yield tuple(Question(name, "ADDRESS") for name in names)) if names else ()
        addresses = {
            name: [r for r in records if isinstance(r, str)] for name, records in zip(names, answers, strict=True)
        }
        hops = [
            Hop(transport, (address, port), domain=self._domain if transport.secure else "")
            for host, port in places
            for address in addresses.get(host, [host])
            if self._fits(address)
        ]
        if hops:
            return tuple(dict.fromkeys(hops))[:MOST_HOPS]
        if any(addresses.values()) or not names:
            return Unlocated(f"{self._target} has no address of our family")
        return Unlocated(f"cannot resolve {self._target}")


def _wanted(uri: Uri) -> str | None:
    """The transport that a URI asks for; that of a `sips:` URI is secured (RFC 3261 26.2.2)."""
    if uri.scheme == "sip" or uri.transport is None:
        return uri.transport
    return {"TCP": "TLS", "WS": "WSS"}.get(uri.transport, uri.transport)


def _usual(uri: Uri, allowed: Sequence[Transport]) -> Transport:
    """The transport where DNS asks for none: UDP, or TLS for `sips:`; else the best that we have (4.1)."""
    usual = Transport.UDP if uri.scheme == "sip" else Transport.TLS
    return usual if usual in allowed else allowed[0]


def _service(transport: Transport, target: str) -> _Service:
    prefix = _SRV_PREFIX.get(transport)
    dotted = "." in target.rstrip(".")
    return _Service(transport, f"{prefix}.{target}" if prefix and dotted else "")
