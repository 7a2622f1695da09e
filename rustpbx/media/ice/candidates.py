"""Our candidates, and which of the peer's we touch (RFC 8445 5.1)."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator

from rustpbx.core import Address
from rustpbx.media.sdp.ice import Candidate, CandidateKind
from rustpbx.outbound import METADATA, IpAddress, embedded

PREFERENCE = {
    CandidateKind.HOST: 126,
    CandidateKind.PEER_REFLEXIVE: 110,
    CandidateKind.SERVER_REFLEXIVE: 100,
    CandidateKind.RELAYED: 0,
}
"""The type preferences that section 5.1.2.2 recommends."""


def priority(kind: CandidateKind, local_preference: int) -> int:
    """The formula of section 5.1.2.1, for component 1."""
    return (PREFERENCE[kind] << 24) + (local_preference << 8) + 255


def foundation(kind: CandidateKind, base: Address, server: Address | None = None) -> str:
    """Equal for what comes from the same interface in the same way (5.1.1.3)."""
    key = f"{kind.value} {base[0]} {server and server[0]}"
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def host_candidate(base: Address, local_preference: int) -> Candidate:
    """What we are bound to."""
    kind = CandidateKind.HOST
    return Candidate(foundation(kind, base), priority(kind, local_preference), base, kind)


def reflexive_candidate(mapped: Address, base: Address, local_preference: int, server: Address | None) -> Candidate:
    """What a server sees of a base, or (without a server) what a 1:1 NAT makes of it."""
    kind = CandidateKind.SERVER_REFLEXIVE
    return Candidate(foundation(kind, base, server), priority(kind, local_preference), mapped, kind, related=base)


def relayed_candidate(relayed: Address, mapped: Address, local_preference: int, server: Address) -> Candidate:
    """Our address at a TURN server, which sees us at `mapped`."""
    kind = CandidateKind.RELAYED
    return Candidate(foundation(kind, mapped, server), priority(kind, local_preference), relayed, kind, related=mapped)


def is_ipv6(address: Address) -> bool:
    """The family of a literal."""
    return ":" in address[0]


def refusal(address: Address, *, allow_loopback: bool = False) -> str | None:
    """Why we send nothing there, whoever asks for it; None if we may. The address is an IP literal and a port."""
    host, port = address
    if port == 0:
        return "port 0"
    return next((why for ip in _all(ipaddress.ip_address(host)) if (why := _refusal(ip, allow_loopback))), None)


def _all(ip: IpAddress) -> Iterator[IpAddress]:
    yield ip
    yield from embedded(ip)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        yield ip.ipv4_mapped


def _refusal(ip: IpAddress, allow_loopback: bool) -> str | None:
    if ip.is_loopback:
        return None if allow_loopback else "a loopback address"
    if ip in METADATA:
        return "a cloud metadata service"
    if ip.is_unspecified or ip.is_multicast or ip == ipaddress.ip_address("255.255.255.255"):
        return "no address of a host"
    return "a link-local address" if ip.is_link_local else None
