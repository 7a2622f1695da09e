"""Whether a certificate is the one that SDP promised (RFC 8122 5)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from rustpbx.media.sdp.fingerprint import HASHES, Fingerprint


def fingerprint(certificate: bytes, algorithm: str = "sha-256") -> Fingerprint:
    """The fingerprint of a certificate in DER."""
    return Fingerprint(algorithm, hashlib.new(algorithm.replace("-", ""), certificate).digest())


def usable(fingerprints: Iterable[Fingerprint]) -> tuple[Fingerprint, ...]:
    """Those that count: all of the most preferred hash that is among them. None: no certificate can be believed."""
    known = tuple(fingerprints)
    best = next((name for name in HASHES if any(one.algorithm == name for one in known)), None)
    return tuple(one for one in known if one.algorithm == best)


def is_promised(certificate: bytes, fingerprints: Iterable[Fingerprint]) -> bool:
    """Whether a certificate in DER is one of those that the fingerprints stand for."""
    return any(fingerprint(certificate, one.algorithm) == one for one in usable(fingerprints))
