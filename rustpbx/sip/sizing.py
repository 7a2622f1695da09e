"""Long requests go by TCP, because datagrams of their size get lost (RFC 3261 18.1.1)."""

from __future__ import annotations

import attrs

from rustpbx.sip.encoder import encode_message
from rustpbx.sip.hop import Hop, Target, Transport, uri_transport
from rustpbx.sip.message import Request

_ADDRESS = 200
"""More bytes than a Via, a route or an address takes as a rule: an estimate that spares most requests the counting."""


def by_size(request: Request, target: Target, hops: tuple[Hop, ...], mtu: int) -> tuple[Hop, ...]:
    """The hops for a request to `target`, with TCP before UDP if it is longer than `mtu` bytes (0: never).

    UDP stays behind as what is tried next. A target that names its transport keeps it, and so does one that is reached
    only where its datagrams come from.
    """
    if not mtu or not any(hop.transport is Transport.UDP for hop in hops) or not is_long(request, mtu):
        return hops
    uri = request.routes[0].uri if request.routes else request.uri
    if uri_transport(uri) is not None or (isinstance(target, Hop) and target.address[0] != uri.host):
        return hops
    return tuple(way for hop in hops for way in _ways(hop))


def is_long(request: Request, mtu: int) -> bool:
    """Whether a request has more than so many bytes."""
    addresses = len(request.vias) + len(request.routes) + len(request.record_routes) + len(request.contacts) + 4
    lines = sum(len(name) + len(value) + 4 for name, value in request.lines)
    if addresses * _ADDRESS + lines + len(request.body) <= mtu:
        return False
    return len(encode_message(request)) > mtu


def _ways(hop: Hop) -> tuple[Hop, ...]:
    return (attrs.evolve(hop, transport=Transport.TCP), hop) if hop.transport is Transport.UDP else (hop,)
