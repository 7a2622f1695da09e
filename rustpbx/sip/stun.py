"""STUN on the SIP port (RFC 5626 3.5.2, RFC 8489): binding requests answered, and sent to keep a flow open."""

from __future__ import annotations

import random

from aioice import stun

from rustpbx.core import Address

_COOKIE = stun.COOKIE.to_bytes(4, "big")


def is_stun(data: bytes) -> bool:
    """Whether a datagram is STUN: no SIP message begins with these bits (RFC 5626 3.5.2)."""
    return len(data) >= stun.HEADER_LENGTH and data[0] < 4 and data[4:8] == _COOKIE


def new_transaction(rng: random.Random) -> bytes:
    """The 96 bits that a request and its response share."""
    return rng.getrandbits(96).to_bytes(12, "big")


def binding_request(transaction: bytes) -> bytes:
    """Ask a peer what it sees of us."""
    return bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction))


def answer_binding(data: bytes, source: Address) -> bytes | None:
    """The response to a binding request: where it came from. None for anything else, and for what cannot be read."""
    message = _parse(data)
    if message is None or (message.message_method, message.message_class) != (stun.Method.BINDING, stun.Class.REQUEST):
        return None
    answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, message.transaction_id)
    answer.attributes["XOR-MAPPED-ADDRESS"] = source
    return bytes(answer)


def mapped_address(data: bytes) -> tuple[bytes, Address] | None:
    """What a binding response says: its transaction, and our address as the peer sees it. None for anything else."""
    message = _parse(data)
    if message is None or (message.message_method, message.message_class) != (stun.Method.BINDING, stun.Class.RESPONSE):
        return None
    found = message.attributes.get("XOR-MAPPED-ADDRESS") or message.attributes.get("MAPPED-ADDRESS")
    return (message.transaction_id, (found[0], found[1])) if found else None


def _parse(data: bytes) -> stun.Message | None:
    try:
        return stun.parse_message(data)
    except Exception:  # noqa: BLE001 - the codec promises ValueError, but its unpackers raise what they meet
        return None
