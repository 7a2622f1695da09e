"""Where a message goes, or came from: a transport, an address, and the connection between (RFC 3261 18)."""

from __future__ import annotations

import ipaddress
from enum import StrEnum

import attrs

from rustpbx.core import Address, address_text
from rustpbx.sip.uri import NO_PARAMS, Uri


class Transport(StrEnum):
    """How messages travel; the value is the token of a Via (RFC 3261 20.42, RFC 7118 5.1)."""

    UDP = "UDP"
    TCP = "TCP"
    TLS = "TLS"
    WS = "WS"
    WSS = "WSS"

    @property
    def reliable(self) -> bool:
        """Whether what is sent arrives or the sender learns that it does not: nothing is sent again (17)."""
        return self is not Transport.UDP

    @property
    def secure(self) -> bool:
        """Whether it may carry what a `sips:` URI asks for."""
        return self in {Transport.TLS, Transport.WSS}

    @property
    def default_port(self) -> int:
        """The port where none is named (19.1.2, RFC 7118 3)."""
        return {Transport.TLS: 5061, Transport.WS: 80, Transport.WSS: 443}.get(self, 5060)

    @property
    def param(self) -> str:
        """The value of a URI's `transport` parameter; WSS has none of its own (RFC 7118 5.2)."""
        return "ws" if self is Transport.WSS else self.value.lower()

    @classmethod
    def of(cls, token: str) -> Transport | None:
        """By its token in upper case; None for one that we do not know."""
        return _BY_TOKEN.get(token)


_BY_TOKEN = {transport.value: transport for transport in Transport}
_SECURED = {Transport.WS: Transport.WSS, Transport.WSS: Transport.WSS}


@attrs.frozen
class Hop:
    """One peer as the transport sees it.

    `flow` is the number of the connection, by which it goes as long as that is up; 0 for none. `domain` is the name
    that the peer's certificate must be for; "" takes the host of the address.
    """

    transport: Transport
    address: Address
    flow: int = 0
    domain: str = ""

    def __str__(self) -> str:
        return f"{self.transport.lower()}:{address_text(self.address)}"


Target = Hop | Uri
"""Where a request goes: to this very server, or to one of those that its Request-URI or topmost route means."""


def is_literal(host: str) -> bool:
    """True for an IPv4 or IPv6 literal."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def uri_transport(uri: Uri) -> Transport | None:
    """The transport that a URI names; None if it leaves it to us. TCP of a `sips:` URI is TLS (RFC 3261 26.2.2)."""
    secure = uri.scheme == "sips"
    named = Transport.of(uri.transport or "")
    if named is None or not secure:
        return Transport.TLS if secure and uri.transport is None else named
    return _SECURED.get(named, Transport.TLS)


def uri_hop(uri: Uri) -> Hop:
    """Where a request to this URI goes when nothing else is known: what it names, else UDP and the usual port."""
    transport = uri_transport(uri) or Transport.UDP
    address = uri.host, uri.port or transport.default_port
    return Hop(transport, address, domain=uri.host if transport.secure else "")


def hop_uri(hop: Hop) -> Uri:
    """A URI that means this server."""
    params = NO_PARAMS if hop.transport is Transport.UDP else NO_PARAMS.set("transport", hop.transport.param)
    return Uri("sip", None, None, *hop.address, params)
