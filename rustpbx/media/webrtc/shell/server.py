"""`WebRtc`: what all legs to browsers share: our addresses, the STUN and TURN servers, the certificate."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import attrs
import trio

from rustpbx.core import Address
from rustpbx.journal import Journal
from rustpbx.media.dtls import Certificate, Certificates
from rustpbx.media.ice import IceOptions, TurnServer
from rustpbx.media.ice.url import ServerUrl
from rustpbx.media.plane.plane import Plane
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Network

log = Journal(__name__)

ROUTES = ("192.0.2.1", "2001:db8::1")
"""Addresses that nobody has (RFC 5737, RFC 3849): the ways to them are the default routes."""

RESOLVING = 2.0
"""Seconds that the name of a STUN or TURN server may take."""


@attrs.frozen
class OurServer:
    """A STUN or TURN server that calls of ours use; a TURN server is nothing without a name and a password."""

    url: ServerUrl
    username: str = ""
    password: str = attrs.field(default="", repr=False)


@attrs.frozen(kw_only=True)
class WebRtcConfig:
    """`host` is where media is bound: one address, or the wildcard for those that routes lead from.

    `external_ip` is what a 1:1 NAT makes of it. `lite` is ICE without checks of ours, for a server that all can reach.
    """

    host: str = "127.0.0.1"
    external_ip: str | None = None
    lite: bool = False
    servers: tuple[OurServer, ...] = ()


class WebRtc:
    """One per server. `entropy(n)` makes n bytes that nobody can guess."""

    def __init__(
        self, config: WebRtcConfig, network: Network, plane: Plane, clock: Clock, entropy: Callable[[int], bytes]
    ) -> None:
        self.network = network
        self.plane = plane
        self.clock = clock
        self.entropy = entropy
        self._config = config
        self._certificates = Certificates()

    def certificate(self) -> Certificate:
        """The one for a call that begins now."""
        return self._certificates.current(self.clock.wall(self.clock.now()) / 1000)

    def hosts(self, peer: str, *, ipv6: bool) -> tuple[str, ...]:
        """The addresses to bind for a peer whose signalling comes from `peer` ("" if nobody knows), the best first."""
        if not ipaddress.ip_address(self._config.host).is_unspecified:
            return (self._config.host,)
        found = [self.network.source_for(where) for where in (peer, *ROUTES) if where]
        wanted = [host for host in dict.fromkeys(found) if ipv6 or ":" not in host]
        # Loopback reaches nobody but this machine, whose browsers reach its other addresses as well.
        return tuple(host for host in wanted if not ipaddress.ip_address(host).is_loopback) or tuple(wanted[:1])

    async def ice_options(self, hosts: tuple[str, ...]) -> IceOptions:
        """How ICE is to be done from these addresses; names of servers are looked up."""
        config = self._config
        stun: list[Address] = []
        turn: list[TurnServer] = []
        for server in () if config.lite else config.servers:
            url = server.url
            for host in await self._resolve(url.host):
                if url.relays:
                    turn.append(_turn_server(server, (host, url.port)))
                else:
                    stun.append((host, url.port))
        return IceOptions(
            lite=config.lite,
            stun_servers=tuple(stun),
            turn_servers=tuple(turn),
            external_ips=(config.external_ip,) if config.external_ip else (),
            allow_loopback=any(ipaddress.ip_address(host).is_loopback for host in hosts),
        )

    async def _resolve(self, host: str) -> list[str]:
        try:
            with trio.fail_after(RESOLVING):
                return (await self.network.resolve(host))[:1]
        except (OSError, trio.TooSlowError) as problem:
            log.warning("the ICE server %s cannot be found: %s", host, problem or "no answer from DNS")
            return []


def _turn_server(server: OurServer, address: Address) -> TurnServer:
    return TurnServer(
        address=address,
        username=server.username,
        password=server.password,
        transport=server.url.transport,
        name=server.url.host,
    )
