"""How a request of ours tells where we can be reached: its Via and its Contact follow the transport it goes by."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.message import NameAddr, Request, Via
from rustpbx.sip.uri import NO_PARAMS, Uri

PortOf = Callable[[Transport], int | None]
"""Our own port for a transport; None if we do not listen there."""

_ALIASES = frozenset({Transport.TCP, Transport.TLS})


def addressed(request: Request, hop: Hop, port_of: PortOf) -> Request:
    """The request as it goes by this hop (RFC 3261 18.1.1). A Contact is ours if it has the host and a port of ours."""
    via = via_for(request.via, hop.transport, port_of)
    if via == request.via:
        return request
    contacts = tuple(
        attrs.evolve(contact, uri=contact_uri(contact.uri, hop.transport, port_of))
        if _is_ours(contact.uri, request.via, port_of)
        else contact
        for contact in request.contacts
    )
    return attrs.evolve(request, vias=(via, *request.vias[1:]), contacts=contacts)


def via_for(via: Via, transport: Transport, port_of: PortOf) -> Via:
    """Our Via for this transport; `alias` lets the peer send its own requests by our connection (RFC 5923)."""
    params = via.params.without("alias")
    if transport in _ALIASES:
        params = params.set("alias", None)
    return attrs.evolve(via, transport=transport, port=_port(transport, port_of), params=params)


def contact_uri(uri: Uri, transport: Transport, port_of: PortOf) -> Uri:
    """Our Contact for peers on this transport: how its next requests, each perhaps by a new connection, find us.

    Where we do not listen for TCP that is UDP; for the others it names the connection, by which alone we are reached.
    """
    if transport is Transport.TCP and port_of(transport) is None:
        transport = Transport.UDP
    named = transport is not Transport.UDP and not (uri.scheme == "sips" and transport is Transport.TLS)
    params = NO_PARAMS.set("transport", transport.param) if named else NO_PARAMS
    return attrs.evolve(uri, port=_port(transport, port_of), params=params)


def our_contact(
    local_host: str, user: str | None, transport: Transport, port_of: PortOf, scheme: str = "sip"
) -> NameAddr:
    """`<sip:user@our-address:port>`: where the peer's next requests reach us; `sips:` for a peer that asked by one."""
    return NameAddr(contact_uri(Uri(scheme, user, None, local_host), transport, port_of))


def _port(transport: Transport, port_of: PortOf) -> int:
    port = port_of(transport)
    return transport.default_port if port is None else port


def _is_ours(uri: Uri, via: Via, port_of: PortOf) -> bool:
    return uri.host == via.host and any(uri.port == _port(transport, port_of) for transport in Transport)
