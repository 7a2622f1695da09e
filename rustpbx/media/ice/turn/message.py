"""What passes between us and a TURN server (RFC 8656): requests, indications, channel data; and how TCP frames them."""

from __future__ import annotations

import struct
from typing import Any

from aioice import stun
from aioice.stun import Class, Message, Method

from rustpbx.core import Address
from rustpbx.errors import RemoteError, one_line

FIRST_CHANNEL, LAST_CHANNEL = 0x4000, 0x4FFF
UDP = 17 << 24
"""REQUESTED-TRANSPORT: the protocol's number and three reserved bytes (18.8)."""

IPV6 = 2 << 24
"""REQUESTED-ADDRESS-FAMILY, likewise (18.6)."""

# The codec does not know this one, which is as long as an unsigned integer.
_FAMILY = (0x0017, "REQUESTED-ADDRESS-FAMILY", stun.pack_unsigned, stun.unpack_unsigned)
stun.ATTRIBUTES_BY_TYPE.setdefault(_FAMILY[0], _FAMILY)
stun.ATTRIBUTES_BY_NAME.setdefault(_FAMILY[1], _FAMILY)

MEANINGS = {
    300: "Try Alternate",
    400: "Bad Request",
    401: "Unauthorized: it does not know this username and password",
    403: "Forbidden",
    437: "Allocation Mismatch",
    438: "Stale Nonce",
    440: "Address Family not Supported",
    441: "Wrong Credentials: the allocation is another user's",
    442: "Unsupported Transport Protocol",
    443: "Peer Address Family Mismatch",
    486: "Allocation Quota Reached",
    500: "Server Error",
    508: "Insufficient Capacity",
}
"""RFC 8656 19 and RFC 8489 14.8."""


def refusal_text(answer: Message) -> str:
    """An error response in words; a code that no standard has keeps the server's own."""
    code, reason = answer.attributes.get("ERROR-CODE", (0, "no error code"))
    return f"{code} {MEANINGS.get(code) or one_line(reason)}"


def request(method: Method, transaction: bytes, attributes: dict[str, Any]) -> Message:
    """One that is not signed yet."""
    return Message(method, Class.REQUEST, transaction, dict(attributes))


def send_indication(transaction: bytes, peer: Address, data: bytes) -> bytes:
    """Have data sent to a peer that we have a permission for (11.1)."""
    message = Message(Method.SEND, Class.INDICATION, transaction)
    message.attributes["XOR-PEER-ADDRESS"] = peer
    message.attributes["DATA"] = data
    return bytes(message)


def channel_data(channel: int, data: bytes, *, padded: bool) -> bytes:
    """The same by a channel (12.4); `padded` for a stream (12.5)."""
    padding = bytes(-len(data) % 4) if padded else b""
    return struct.pack("!HH", channel, len(data)) + data + padding


def is_channel_data(data: bytes) -> bool:
    """Whether a datagram, or the next piece of a stream, is channel data by its first byte (RFC 7983 7)."""
    return bool(data) and 0x40 <= data[0] <= 0x4F


def read_channel_data(data: bytes) -> tuple[int, bytes]:
    """Channel and content; padding may follow it. Raises RemoteError for less than it says."""
    if len(data) < 4:
        raise RemoteError("channel data without a header")
    channel, length = struct.unpack_from("!HH", data)
    if len(data) < 4 + length or len(data) - 4 - length > 3:
        raise RemoteError("channel data of another length than it says")
    return channel, data[4 : 4 + length]


class Frames:
    """Cuts a stream into messages (RFC 8489 6.2.2, RFC 8656 12.5). It keeps at most one, of 64 KB."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises RemoteError for what is neither: nothing after it can be found."""
        self._buffer += data
        found = []
        while len(self._buffer) >= 4:
            length = self._length()
            if len(self._buffer) < length:
                break
            found.append(self._buffer[:length])
            self._buffer = self._buffer[length:]
        return found

    def _length(self) -> int:
        said = int.from_bytes(self._buffer[2:4])
        if is_channel_data(self._buffer):
            return 4 + (said + 3 & ~3)
        if self._buffer[0] >= 4 or said % 4:
            raise RemoteError("a stream of something else than STUN and channel data")
        return stun.HEADER_LENGTH + said
