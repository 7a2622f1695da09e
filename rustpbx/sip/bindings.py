"""What a registrar's 2xx says of our binding: how long it lasts, where we were seen, and the way for our calls."""

from __future__ import annotations

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.dialog import is_private
from rustpbx.sip.headers import parse_number, parse_route, split_list
from rustpbx.sip.hop import Transport, uri_hop
from rustpbx.sip.message import NameAddr, Response
from rustpbx.sip.uri import NO_PARAMS, Uri

LONGEST_GRANT = 86_400
"""Seconds beyond which nobody's promise, and nobody's demand (423), is believed."""


def granted(response: Response, ours: Uri, asked: int) -> int:
    """For how many seconds our Contact is kept (RFC 3261 10.2.4); 0 if it is not there.

    A single Contact with our user part is ours, though a proxy on the way has written its own address into it.
    """
    default = parse_seconds(response.header("Expires"), asked)
    same = [contact for contact in response.contacts if is_same_contact(contact.uri, ours)]
    if not same and len(response.contacts) == 1 and response.contacts[0].uri.user == ours.user:
        same = list(response.contacts)
    return max((parse_seconds(contact.params.get("expires"), default) for contact in same), default=0)


def seen_at(response: Response, bound: Uri, own: Uri) -> Uri | None:
    """The Contact that reaches us, by what the registrar saw (RFC 3581 4), if that is not `bound`; None if it is.

    `own` is the Contact of one whom no NAT hides. A connection is seen at a port where nobody listens: only behind a
    NAT, where it is the one way to us, it counts.
    A private address that is not our own is not believed by who has a public one.
    """
    via = response.via
    host, port = via.params.get("received"), via.params.get("rport") or ""
    transport = Transport.of(via.transport)
    if host is None or transport is None:
        return None
    if host != via.host and is_private(host) and not is_private(bound.host):
        return None
    number = int(port) if port.isdigit() and 0 < int(port) < 65536 else None
    if not transport.reliable:
        seen = attrs.evolve(bound, host=host, port=number or bound.port)
    elif host == via.host:
        seen = own
    elif number is None:
        return None
    else:
        named = not (bound.scheme == "sips" and transport is Transport.TLS)
        params = NO_PARAMS.set("transport", transport.param) if named else NO_PARAMS
        seen = attrs.evolve(bound, host=host, port=number, params=params)
    return None if is_same_contact(seen, bound) and seen.transport == bound.transport else seen


def service_route(response: Response) -> tuple[NameAddr, ...]:
    """The Service-Route of a 200 (RFC 3608); one that cannot be read counts for none."""
    try:
        return tuple(parse_route(text) for value in response.all("Service-Route") for text in split_list(value))
    except RemoteError:
        return ()


def is_same_contact(one: Uri, other: Uri) -> bool:
    """The same Contact; ports where one names none are the usual ones (RFC 3261 19.1.4)."""
    return (
        one.user == other.user
        and one.host.lower() == other.host.lower()
        and uri_hop(one).address[1] == uri_hop(other).address[1]
    )


def parse_seconds(text: str | None, default: int, most: int = LONGEST_GRANT) -> int:
    """An `expires`, `most` if it is more; `default` where there is none, or none that can be read."""
    if text is None:
        return default
    try:
        return min(parse_number(text.strip(), "expires", 2**32), most)
    except RemoteError:
        return default
