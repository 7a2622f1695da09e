"""Certificates of ours: self-signed, known to peers by the fingerprint in SDP only, and exchanged now and then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from rustpbx.media.dtls.trust import fingerprint
from rustpbx.media.events import SrtpSuite
from rustpbx.media.sdp.fingerprint import Fingerprint

VALID = timedelta(days=30)
"""How long a certificate says that it holds, as browsers have it (RFC 8827 6.5 leaves it open)."""

SKEW = timedelta(days=1)
"""How far a peer's clock may be behind ours."""

ROTATION = 86_400.0
"""Seconds after which new calls get a new certificate."""

PROFILES = {
    SrtpSuite.AEAD_AES_128_GCM: b"SRTP_AEAD_AES_128_GCM",
    SrtpSuite.AEAD_AES_256_GCM: b"SRTP_AEAD_AES_256_GCM",
    SrtpSuite.AES_CM_128_HMAC_SHA1_80: b"SRTP_AES128_CM_SHA1_80",
}
"""What protects the media (RFC 5764 4.1.2, RFC 7714 14.2), best first, by OpenSSL's names."""

_DTLS_1_2 = 0xFEFD


class Certificate:
    """A key with its certificate. Calls keep the one that they began with: its fingerprint is in their SDP."""

    def __init__(self, wall: float) -> None:
        """A new one, good from `wall` (seconds since 1970) on. Takes some milliseconds."""
        now = datetime.fromtimestamp(wall, UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rustpbx")])
        self.key = ec.generate_private_key(ec.SECP256R1())  # the curve that RFC 8827 6.5 demands
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + VALID)
            .sign(self.key, hashes.SHA256())
        )
        self.made_at = wall

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What SDP says of it."""
        return fingerprint(self.certificate.public_bytes(Encoding.DER))

    @cached_property
    def active(self) -> SSL.Context:
        """OpenSSL's settings for those who begin."""
        return self._context()

    @cached_property
    def passive(self) -> SSL.Context:
        """The same for those who wait for a hello; the cookie in it has been judged before OpenSSL sees it."""
        context = self._context()
        context.set_options(SSL.OP_COOKIE_EXCHANGE or 0)
        context.set_cookie_generate_callback(_no_cookie)
        context.set_cookie_verify_callback(_any_cookie)
        return context

    def _context(self) -> SSL.Context:
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_min_proto_version(_DTLS_1_2)
        context.set_max_proto_version(_DTLS_1_2)
        # Without NO_QUERY_MTU the size that is set is not obeyed.
        context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | (SSL.OP_NO_RENEGOTIATION or 0))
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_cipher_list(b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES")
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _any_certificate)
        context.use_certificate(self.certificate)
        context.use_privatekey(self.key)
        context.set_tlsext_use_srtp(b":".join(PROFILES.values()))
        return context


class Certificates:
    """The process's certificate: one for all new calls, another every `rotation` seconds."""

    def __init__(self, rotation: float = ROTATION) -> None:
        self._rotation = rotation
        self._latest: Certificate | None = None

    def current(self, wall: float) -> Certificate:
        """The one for a call that begins at `wall` (seconds since 1970)."""
        latest = self._latest
        if latest is None or not 0 <= wall - latest.made_at < self._rotation:
            latest = self._latest = Certificate(wall)
        return latest


def _any_certificate(*_: object) -> bool:
    """Nobody has signed it; its fingerprint decides, when the handshake is over and before a key is given out."""
    return True


def _any_cookie(*_: object) -> bool:
    return True


def _no_cookie(_: SSL.Connection) -> bytes:
    """For a request that is never sent."""
    return bytes(16)
