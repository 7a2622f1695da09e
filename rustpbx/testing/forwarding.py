"""A stateless proxy that stays in the path of each dialog (RFC 3261 16.11), as pure functions."""

from __future__ import annotations

import zlib

import attrs

from rustpbx.core import Address
from rustpbx.sip.branch import COOKIE
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.layer import response_hop
from rustpbx.sip.message import NameAddr, Request, Response, Via
from rustpbx.sip.uri import NO_PARAMS, Params, Uri

LOOSE = NO_PARAMS.set("lr", None)


def onward(request: Request, own: Address, uri: Uri) -> tuple[Request, Address]:
    """The request as the proxy at `own` sends it on to `uri`, and where; its own Route is taken off (16.4, 16.6)."""
    routes = request.routes
    if routes and is_at(routes[0].uri, own):
        routes = routes[1:]
    first = request.method == "INVITE" and request.to.tag is None
    recorded = (NameAddr(Uri("sip", None, None, *own, LOOSE)),) if first else ()
    passed = attrs.evolve(
        request,
        uri=uri,
        routes=routes,
        vias=(Via("UDP", *own, Params((("branch", _branch(request, own)),))), *request.vias),
        record_routes=(*recorded, *request.record_routes),
        max_forwards=request.max_forwards - 1,
    )
    target = routes[0].uri if routes else uri
    return passed, (target.host, target.port or 5060)


def backward(response: Response, own: Address) -> tuple[Response, Address] | None:
    """The response as the proxy at `own` sends it back, and where; None if it is not one of its own (16.7)."""
    if len(response.vias) < 2 or (response.via.host, response.via.port) != own:
        return None
    passed = attrs.evolve(response, vias=response.vias[1:])
    return passed, response_hop(passed.via, Hop(Transport.UDP, own)).address


def is_at(uri: Uri, own: Address) -> bool:
    """Whether a URI names this very server."""
    return (uri.host, uri.port or 5060) == own


def _branch(request: Request, own: Address) -> str:
    """The same for all copies of a request, and for its CANCEL and the ACK of its refusal (16.11)."""
    key = f"{request.via.branch} {request.via.host} {request.via.port} {own}"
    return f"{COOKIE}{zlib.crc32(key.encode()):08x}f"
