"""The Origin of a browser's request (RFC 6454, RFC 6455 10.2): whose page it comes from."""

from __future__ import annotations

from collections.abc import Container
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def may_come(origin: str | None, host: str, listed: Container[str]) -> bool:
    """Whether a request may come from there: not from a page at all, from one of `host` (the Host field), or `listed`.

    `listed` are origins in lower case.
    """
    if origin is None or origin.lower() in listed:
        return True
    ours = _host_port(f"{origin.partition(':')[0]}://{host}")
    return ours is not None and _host_port(origin) == ours


def _host_port(origin: str) -> tuple[str, int] | None:
    """Host and port of an origin, the scheme's default port filled in."""
    try:
        parts = urlsplit(origin.lower())
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname and port else None
