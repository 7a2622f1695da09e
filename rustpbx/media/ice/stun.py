"""STUN as ICE speaks it (RFC 8489, RFC 8445 7): messages read whole or not at all, and the few that are written."""

from __future__ import annotations

import struct

from aioice import stun
from aioice.stun import Class, Message, Method

from rustpbx.core import Address
from rustpbx.errors import RemoteError

ROLE_CONFLICT = 487
CONTROLLING, CONTROLLED = "ICE-CONTROLLING", "ICE-CONTROLLED"
_COOKIE = stun.COOKIE.to_bytes(4, "big")


def is_stun(data: bytes) -> bool:
    """Whether a datagram is STUN and neither DTLS nor RTP (RFC 7983 7)."""
    return len(data) >= stun.HEADER_LENGTH and data[0] < 4 and data[4:8] == _COOKIE


def method_of(data: bytes) -> int:
    """The method of a STUN message, by its header (RFC 8489 5)."""
    return int.from_bytes(data[:2]) & 0x3EEF


def read_stun(data: bytes) -> Message:
    """Read a message; nothing in it is authentic yet. Raises RemoteError if it is none, or its fingerprint is wrong."""
    if not is_stun(data):
        raise RemoteError("no STUN message")
    if not _is_whole(data):
        raise RemoteError("a STUN message whose attributes do not end where it ends")
    try:
        message = stun.parse_message(data)
    except (ValueError, struct.error, IndexError, KeyError) as error:  # UnicodeDecodeError is a ValueError
        raise RemoteError("a STUN message that cannot be read") from error
    return message


def _is_whole(data: bytes) -> bool:
    """Whether the attributes, padding included, fill the message (RFC 8489 14); the codec reads on without."""
    position = stun.HEADER_LENGTH
    while position + 4 <= len(data):
        position += 4 + (int.from_bytes(data[position + 2 : position + 4]) + 3 & ~3)
    return position == len(data)


def is_authentic(message: Message, pwd: str) -> bool:
    """Whether it was written by somebody who knows this password, and ends in a fingerprint (RFC 8445 7.1, 7.3)."""
    return "FINGERPRINT" in message.attributes and message.check_message_integrity(pwd.encode())


def check_request(
    transaction: bytes, username: str, pwd: str, priority: int, tie_breaker: int, *, controlling: bool, nominate: bool
) -> bytes:
    """A connectivity check (RFC 8445 7.2.2)."""
    message = Message(Method.BINDING, Class.REQUEST, transaction)
    message.attributes["USERNAME"] = username
    message.attributes["PRIORITY"] = priority
    message.attributes[CONTROLLING if controlling else CONTROLLED] = tie_breaker
    if nominate:
        message.attributes["USE-CANDIDATE"] = None
    message.add_message_integrity(pwd.encode())
    return bytes(message)


def success(transaction: bytes, source: Address, pwd: str) -> bytes:
    """The answer to a check: where it came from (7.3.1.2)."""
    message = Message(Method.BINDING, Class.RESPONSE, transaction)
    message.attributes["XOR-MAPPED-ADDRESS"] = source
    message.add_message_integrity(pwd.encode())
    return bytes(message)


def role_conflict(transaction: bytes, pwd: str) -> bytes:
    """The answer to a peer that has to change its role (7.3.1.1)."""
    message = Message(Method.BINDING, Class.ERROR, transaction)
    message.attributes["ERROR-CODE"] = (ROLE_CONFLICT, "Role Conflict")
    message.add_message_integrity(pwd.encode())
    return bytes(message)


def binding_request(transaction: bytes) -> bytes:
    """Ask a STUN server what it sees of us."""
    message = Message(Method.BINDING, Class.REQUEST, transaction)
    message.add_fingerprint()
    return bytes(message)


def mapped_address(message: Message) -> Address | None:
    """What a response says of our address (RFC 8489 14.1, 14.2)."""
    found = message.attributes.get("XOR-MAPPED-ADDRESS") or message.attributes.get("MAPPED-ADDRESS")
    return (found[0], found[1]) if found else None
