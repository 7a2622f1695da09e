"""A TURN server, and who we are to it (RFC 8489 9.2: long-term credentials)."""

from __future__ import annotations

import hashlib
from enum import Enum

import attrs
from aioice.stun import Class, Message

from rustpbx.core import Address, address_text


class Transport(Enum):
    """How a server is reached; what it relays is UDP in any case."""

    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


@attrs.frozen(kw_only=True)
class TurnServer:
    """`address` is an IP literal and a port; `name` is what the certificate is checked against, by TLS."""

    address: Address
    username: str
    password: str = attrs.field(repr=False)
    transport: Transport = Transport.UDP
    name: str = ""

    def __str__(self) -> str:
        return f"turn:{address_text(self.address)} by {self.transport.value}"


class Session:
    """Our credentials as the server wants them: realm and nonce are its own, and the nonce changes."""

    def __init__(self, username: str, password: str) -> None:
        self._username = username
        self._password = password
        self._realm: str | None = None
        self._nonce = b""

    @property
    def _key(self) -> bytes:
        text = f"{self._username}:{self._realm}:{self._password}"
        return hashlib.md5(text.encode(), usedforsecurity=False).digest()  # RFC 8489 9.2.2 has it so

    @property
    def known(self) -> bool:
        """Whether the server has told its realm."""
        return self._realm is not None

    def challenged(self, answer: Message) -> bool:
        """Take realm and nonce of a 401 or 438; False if it has none."""
        nonce = answer.attributes.get("NONCE")
        realm = answer.attributes.get("REALM", self._realm)
        if nonce is None or realm is None:
            return False
        self._realm, self._nonce = realm, nonce
        return True

    def sign(self, request: Message) -> None:
        """Add the credentials, once the realm is known; without, the server will ask for them."""
        if self._realm is None:
            request.add_fingerprint()
            return
        request.attributes["USERNAME"] = self._username
        request.attributes["REALM"] = self._realm
        request.attributes["NONCE"] = self._nonce
        request.add_message_integrity(self._key)

    def believes(self, answer: Message) -> bool:
        """Whether it is by somebody who knows the password, or needs no proof (RFC 8489 9.2.5)."""
        challenge = answer.message_class == Class.ERROR and answer.error_code in (401, 438)
        return challenge or not self.known or answer.check_message_integrity(self._key)
