"""SRTP a second time, straight from the RFCs and without libsrtp: slow, short, and what ours is compared with."""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from rustpbx.media.events import SrtpKey, SrtpSuite

HEADER = 12
"""Bytes of an RTP header; nothing here has CSRCs or extensions."""

ENCRYPTED = 1 << 31
"""The E flag before a SRTCP index (RFC 3711 section 3.4)."""

_GCM = (SrtpSuite.AEAD_AES_128_GCM, SrtpSuite.AEAD_AES_256_GCM)
_SHORT = (SrtpSuite.AES_CM_128_HMAC_SHA1_32, SrtpSuite.AES_256_CM_HMAC_SHA1_32)


def keystream(key: bytes, start: bytes, size: int) -> bytes:
    """AES in counter mode from the 16 bytes `start` on (RFC 3711 section 4.1.1)."""
    return Cipher(AES(key), CTR(start)).encryptor().update(bytes(size))


def derive(key: bytes, salt: bytes, label: int, size: int) -> bytes:
    """A session key (section 4.3, a key derivation rate of 0); one of 12 bytes is filled up (RFC 7714 section 11)."""
    start = int.from_bytes(salt.ljust(14, b"\0"), "big") ^ label << 48
    return keystream(key, (start << 16).to_bytes(16, "big"), size)


def xored(left: bytes, right: bytes) -> bytes:
    """One over the other."""
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


class Protector:
    """What a peer with this key sends and takes. Rollover counters and SRTCP indices are arguments."""

    def __init__(self, key: SrtpKey) -> None:
        self._gcm = key.suite in _GCM
        salt_size = 12 if self._gcm else 14
        master, salt = key.master[:-salt_size], key.master[-salt_size:]
        self._tag = 4 if key.suite in _SHORT else 10
        self._rtp = (
            derive(master, salt, 0, len(master)),
            derive(master, salt, 1, 20),
            derive(master, salt, 2, salt_size),
        )
        self._rtcp = (
            derive(master, salt, 3, len(master)),
            derive(master, salt, 4, 20),
            derive(master, salt, 5, salt_size),
        )

    def seal(self, packet: bytes, roc: int = 0) -> bytes:
        """RTP to SRTP."""
        header, payload = packet[:HEADER], packet[HEADER:]
        if self._gcm:
            return header + AESGCM(self._rtp[0]).encrypt(self._rtp_nonce(packet, roc), payload, header)
        sealed = header + xored(payload, self._rtp_stream(packet, roc, len(payload)))
        return sealed + self._rtp_tag(sealed, roc)

    def open(self, packet: bytes, roc: int = 0) -> bytes:
        """SRTP to RTP. Raises if the tag is wrong."""
        header = packet[:HEADER]
        if self._gcm:
            return header + AESGCM(self._rtp[0]).decrypt(self._rtp_nonce(packet, roc), packet[HEADER:], header)
        sealed, tag = packet[: -self._tag], packet[-self._tag :]
        assert tag == self._rtp_tag(sealed, roc)
        return header + xored(sealed[HEADER:], self._rtp_stream(packet, roc, len(sealed) - HEADER))

    def seal_report(self, packet: bytes, index: int = 1) -> bytes:
        """RTCP to SRTCP."""
        head, body = packet[:8], packet[8:]
        word = (ENCRYPTED | index).to_bytes(4, "big")
        if self._gcm:
            return head + AESGCM(self._rtcp[0]).encrypt(self._rtcp_nonce(packet, index), body, head + word) + word
        sealed = head + xored(body, self._rtcp_stream(packet, index, len(body))) + word
        return sealed + hmac.digest(self._rtcp[1], sealed, "sha1")[:10]

    def open_report(self, packet: bytes) -> bytes:
        """SRTCP to RTCP. Raises if the tag is wrong."""
        head = packet[:8]
        if self._gcm:
            body, word = packet[8:-4], packet[-4:]
            index = int.from_bytes(word, "big") & ~ENCRYPTED
            return head + AESGCM(self._rtcp[0]).decrypt(self._rtcp_nonce(packet, index), body, head + word)
        sealed, tag = packet[:-10], packet[-10:]
        assert tag == hmac.digest(self._rtcp[1], sealed, "sha1")[:10]
        body, index = sealed[8:-4], int.from_bytes(sealed[-4:], "big") & ~ENCRYPTED
        return head + xored(body, self._rtcp_stream(packet, index, len(body)))

    def _rtp_stream(self, packet: bytes, roc: int, size: int) -> bytes:
        return self._stream(self._rtp, packet[8:12], roc << 16 | int.from_bytes(packet[2:4], "big"), size)

    def _rtcp_stream(self, packet: bytes, index: int, size: int) -> bytes:
        return self._stream(self._rtcp, packet[4:8], index, size)

    def _stream(self, keys: tuple[bytes, bytes, bytes], ssrc: bytes, index: int, size: int) -> bytes:
        start = int.from_bytes(keys[2], "big") << 16 ^ int.from_bytes(ssrc, "big") << 64 ^ index << 16
        return keystream(keys[0], start.to_bytes(16, "big"), size)

    def _rtp_tag(self, sealed: bytes, roc: int) -> bytes:
        return hmac.digest(self._rtp[1], sealed + roc.to_bytes(4, "big"), "sha1")[: self._tag]

    def _rtp_nonce(self, packet: bytes, roc: int) -> bytes:
        """RFC 7714 section 8.1."""
        return xored(bytes(2) + packet[8:12] + roc.to_bytes(4, "big") + packet[2:4], self._rtp[2])

    def _rtcp_nonce(self, packet: bytes, index: int) -> bytes:
        """RFC 7714 section 9.1."""
        return xored(bytes(2) + packet[4:8] + bytes(2) + index.to_bytes(4, "big"), self._rtcp[2])
