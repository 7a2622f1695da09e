"""NAPTR and SRV records from the name servers of the operating system, by dnspython on Trio.

Addresses are not asked for here: the system's own resolver knows the hosts file too (`Network.resolve`).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver

from rustpbx.shell.records import Answer, Kind, Naptr, Record, Srv

HOSTS = Path("/etc/hosts")
PATIENCE = 5.0
"""Seconds for one question, all name servers and repetitions together; one server gets two."""
NEGATIVE_TTL = 60.0
"""Seconds that "there is none" holds where the zone does not say (RFC 2308 lets it say so by its SOA)."""


class NameServers:
    """The name servers of `/etc/resolv.conf`, read with the first question; or those given as `(host, port)`."""

    def __init__(self, servers: Iterable[tuple[str, int]] = (), hosts: Path = HOSTS) -> None:
        self._given = tuple(servers)
        self._hosts = hosts
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def ask(self, name: str, kind: Kind) -> Answer:
        """The records; none for a name that the hosts file has, for such a host needs no zone.

        Raises OSError if no server answers in time, or none is configured.
        """
        if self._is_local(name):
            return Answer((), NEGATIVE_TTL)
        try:
            answer = await self._open().resolve(
                dns.name.from_text(name),
                kind,
                raise_on_no_answer=False,
                lifetime=PATIENCE,
                backend=dns.asyncbackend.get_backend("trio"),
            )
        except dns.resolver.NXDOMAIN as error:
            return Answer((), _negative_ttl(error))
        except (dns.exception.DNSException, UnicodeError) as error:
            raise socket.gaierror(socket.EAI_AGAIN, f"no answer about {kind} of {name[:80]}: {error}") from None
        if answer.rrset is None:
            return Answer((), _ttl_of(answer.response))
        return Answer(tuple(_records(answer.rrset)), float(answer.rrset.ttl))

    def _open(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            resolver = dns.asyncresolver.Resolver(configure=not self._given)
            if self._given:
                resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in self._given]
            self._resolver = resolver
        return self._resolver

    def _is_local(self, name: str) -> bool:
        """Whether the hosts file names this host, or the owner of an SRV name's `_service._proto.`."""
        host = ".".join(label for label in name.rstrip(".").lower().split(".") if not label.startswith("_"))
        try:
            text = self._hosts.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return any(host in line.partition("#")[0].lower().split()[1:] for line in text.splitlines())


def _records(rrset: Iterable[Any]) -> Iterable[Record]:
    for data in rrset:
        if data.rdtype is dns.rdatatype.SRV:
            yield Srv(data.priority, data.weight, data.port, _text(data.target))
        elif data.rdtype is dns.rdatatype.NAPTR:
            words = [part.decode("ascii", "replace") for part in (data.flags, data.service, data.regexp)]
            flags, service, regexp = words
            yield Naptr(data.order, data.preference, flags.upper(), service.upper(), regexp, _text(data.replacement))


def _text(name: dns.name.Name) -> str:
    return str(name.to_text(omit_final_dot=True)).removesuffix(".")


def _negative_ttl(error: dns.resolver.NXDOMAIN) -> float:
    responses = error.kwargs.get("responses", {})
    return min((_ttl_of(response) for response in responses.values()), default=NEGATIVE_TTL)


def _ttl_of(response: Any) -> float:
    """How long a "there is none" holds: the lower of the SOA's own TTL and its `minimum` (RFC 2308 5)."""
    for rrset in response.authority:
        if rrset.rdtype is dns.rdatatype.SOA:
            return float(min(rrset.ttl, rrset[0].minimum))
    return NEGATIVE_TTL
