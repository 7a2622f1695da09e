"""DTLS records (RFC 6347 4.1) as far as we look into them ourselves: their borders, their numbers, and first hellos."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import attrs

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE = 20, 21, 22
CLIENT_HELLO, HELLO_VERIFY_REQUEST = 1, 3

MTU = 1200
"""Bytes of a datagram of ours: what fits through tunnels, too."""

_HEADER = struct.Struct("!BHHHIH")  # type, version, epoch, sequence (16 and 32 bits), length
_DTLS_1_0, _DTLS_1_2 = b"\xfe\xff", b"\xfe\xfd"


@attrs.frozen
class Record:
    """One record: its content type, epoch and number, and what it carries."""

    content: int
    version: int
    epoch: int
    sequence: int
    body: bytes = attrs.field(repr=False)

    @property
    def is_plain(self) -> bool:
        """Whether it is neither encrypted nor authenticated."""
        return self.epoch == 0

    def __bytes__(self) -> bytes:
        high, low = divmod(self.sequence, 1 << 32)
        return _HEADER.pack(self.content, self.version, self.epoch, high, low, len(self.body)) + self.body


def read_records(datagram: bytes) -> Iterator[Record]:
    """The records of a datagram, up to the first that is not whole."""
    at = 0
    while len(datagram) - at >= _HEADER.size:
        content, version, epoch, high, low, size = _HEADER.unpack_from(datagram, at)
        at += _HEADER.size
        if len(datagram) - at < size:
            return
        yield Record(content, version, epoch, (high << 32) + low, datagram[at : at + size])
        at += size


def pack(records: Iterable[Record], most: int = MTU) -> list[bytes]:
    """Records in as few datagrams as may be; a record that is larger than `most` has one for itself."""
    datagrams = [b""]
    for record in map(bytes, records):
        if datagrams[-1] and len(datagrams[-1]) + len(record) > most:
            datagrams.append(b"")
        datagrams[-1] += record
    return [datagram for datagram in datagrams if datagram]


# -- hellos ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Hello:
    """A ClientHello, or its first fragment: who says it and with which cookie, and in the record of which number."""

    random: bytes
    cookie: bytes
    sequence: int


def read_hello(datagram: bytes) -> Hello | None:
    """The ClientHello that a datagram begins with; None for anything else. The cookie is always in its first part."""
    record = next(read_records(datagram), None)
    if record is None or (record.content, record.epoch) != (HANDSHAKE, 0):
        return None
    body = record.body
    if len(body) < 12 + 35 or body[0] != CLIENT_HELLO or body[6:9] != bytes(3):  # the begin of the message
        return None
    at = 12 + 34  # version and random
    at += 1 + body[at]  # session id
    if at >= len(body) or at + 1 + body[at] > len(body):
        return None
    return Hello(body[14:46], body[at + 1 : at + 1 + body[at]], record.sequence)


def verify_request(hello: Hello, cookie: bytes) -> bytes:
    """The answer to a hello without our cookie (4.2.1): a datagram that needs no memory of it."""
    message = _message(HELLO_VERIFY_REQUEST, _DTLS_1_0 + bytes([len(cookie)]) + cookie)
    return bytes(Record(HANDSHAKE, int.from_bytes(_DTLS_1_0), 0, hello.sequence, message))


def _message(kind: int, body: bytes) -> bytes:
    """A handshake message in one piece, the first of its sender (4.2.2)."""
    size = len(body).to_bytes(3)
    return bytes([kind]) + size + bytes(2) + bytes(3) + size + body


def _first_hello() -> bytes:
    ciphers, compression = b"\x00\x02\xc0\x2b", b"\x01\x00"
    body = _DTLS_1_2 + bytes(32) + b"\0" + b"\0" + ciphers + compression
    return bytes(Record(HANDSHAKE, int.from_bytes(_DTLS_1_0), 0, 0, _message(CLIENT_HELLO, body)))


FIRST_HELLO = _first_hello()
"""Some hello without a cookie, in place of the one that we forgot. OpenSSL wants to have asked for the cookie itself,
and neither this nor its question counts in the handshake that follows (RFC 6347 4.2.1)."""
