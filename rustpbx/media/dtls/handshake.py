"""`Handshake`: one handshake in OpenSSL's hands, with bytes in place of sockets."""

from __future__ import annotations

from enum import Enum, auto

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from rustpbx.media.dtls.certificate import PROFILES, Certificate
from rustpbx.media.dtls.record import FIRST_HELLO, MTU, Record, read_records
from rustpbx.media.events import SrtpKey, SrtpKeys, SrtpSuite

LABEL = b"EXTRACTOR-dtls_srtp"
"""What the keys of the media are derived under (RFC 5764 4.2)."""

_SALTS = {
    SrtpSuite.AEAD_AES_128_GCM: 12,
    SrtpSuite.AEAD_AES_256_GCM: 12,
    SrtpSuite.AES_CM_128_HMAC_SHA1_80: 14,
}
"""Bytes of the master salt, which is the last part of a key."""


class Progress(Enum):
    """How far it is."""

    UNDER_WAY = auto()
    COMPLETE = auto()
    BROKEN = auto()
    CLOSED = auto()  # the peer has said goodbye


class Handshake:
    """Both roles. `problem` says what broke it."""

    def __init__(self, certificate: Certificate, *, active: bool) -> None:
        self._active = active
        self._connection = SSL.Connection(certificate.active if active else certificate.passive, None)
        self._connection.set_ciphertext_mtu(MTU)
        self._complete = False
        self.problem = ""
        if active:
            self._connection.set_connect_state()
        else:
            self._connection.set_accept_state()
            self.feed(FIRST_HELLO)
            self.said()

    def feed(self, data: bytes = b"") -> Progress:
        """Take a datagram of whole records; how far it came with it."""
        if data:
            self._connection.bio_write(data)
        try:
            if not self._complete:
                self._connection.do_handshake()
                self._complete = True
            self._connection.recv(MTU)  # nothing is ever sent that way; it takes what follows a handshake
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            return Progress.CLOSED
        except SSL.Error as error:
            self.problem = _reason(error)
            return Progress.BROKEN
        return Progress.COMPLETE if self._complete else Progress.UNDER_WAY

    def said(self) -> list[Record]:
        """What it has to say since it was last asked."""
        try:
            return list(read_records(self._connection.bio_read(1 << 16)))
        except SSL.WantReadError:
            return []

    def repeat(self) -> list[Record]:
        """The last flight in records that are new throughout, if OpenSSL thinks that it is time to: after a second.

        Its timers know the real clock only. Ours are quicker, and know any clock.
        """
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error:  # it has lost its patience; ours decides
            return []
        return self.said()

    def certificate(self) -> bytes:
        """The peer's, in DER; b"" if it has shown none."""
        shown = self._connection.get_peer_certificate(as_cryptography=True)
        return b"" if shown is None else shown.public_bytes(Encoding.DER)

    def keys(self) -> SrtpKeys | None:
        """The keys of the media; None if no profile was agreed."""
        profile = self._connection.get_selected_srtp_profile()
        suite = next((suite for suite, name in PROFILES.items() if name == profile), None)
        if suite is None:
            return None
        salt = _SALTS[suite]
        key = suite.key_size - salt
        exported = self._connection.export_keying_material(LABEL, 2 * suite.key_size)
        # 4.2: both keys, then both salts, the client's first.
        masters = [
            SrtpKey(suite, exported[n * key : (n + 1) * key] + exported[2 * key + n * salt : 2 * key + (n + 1) * salt])
            for n in (0, 1)
        ]
        client, server = masters
        return SrtpKeys(send=client, receive=server) if self._active else SrtpKeys(send=server, receive=client)

    def goodbye(self) -> list[Record]:
        """The alert that says that we leave."""
        try:
            self._connection.shutdown()
        except SSL.Error:  # it was not far enough for one
            return []
        return self.said()


def _reason(error: SSL.Error) -> str:
    """The last of OpenSSL's reasons: `no shared cipher`. Some errors of its have none (`SysCallError`)."""
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    texts = [entry[-1] for entry in reasons if entry[-1]]
    return str(texts[-1]) if texts else "what it got makes no sense"
