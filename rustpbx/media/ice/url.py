"""URIs of STUN and TURN servers (RFC 7064, RFC 7065), as browsers get them too."""

from __future__ import annotations

import re

import attrs

from rustpbx.media.ice.turn.server import Transport

_URL = re.compile(
    r"(?P<kind>stun|turn)(?P<secure>s?):"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:?\[\]]+))(?::(?P<port>[0-9]{1,5}))?"
    r"(?:\?transport=(?P<transport>[A-Za-z]+))?",
    re.ASCII | re.IGNORECASE,
)
_PORT, _SECURE_PORT = 3478, 5349


@attrs.frozen
class ServerUrl:
    """A server to be asked for our address, or one that relays. An IPv6 literal has no brackets."""

    host: str
    port: int
    transport: Transport
    relays: bool


def read_server_url(url: str) -> ServerUrl | None:
    """What a URI says; None if it is none, or wants what we do not speak: DTLS, or STUN by a stream."""
    found = _URL.fullmatch(url)
    if found is None:
        return None
    relays, secure = found["kind"].lower() == "turn", bool(found["secure"])
    carrier = (found["transport"] or ("tcp" if secure else "udp")).lower()
    port = int(found["port"] or (_SECURE_PORT if secure else _PORT))
    if carrier not in ("udp", "tcp") or not 0 < port < 65536 or (secure and carrier == "udp"):
        return None
    transport = Transport.TLS if secure else Transport(carrier)
    if not relays and transport is not Transport.UDP:
        return None
    return ServerUrl(found["ipv6"] or found["host"], port, transport, relays)
