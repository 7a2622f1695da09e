"""`a=fingerprint` and `a=setup`: which certificate a peer of DTLS will show (RFC 8122), and who begins (RFC 4145)."""

from __future__ import annotations

import re
from enum import Enum

import attrs

HASHES = ("sha-512", "sha-384", "sha-256")
"""What we believe in, most preferred first. SHA-1 and MD5 are not enough any more."""

_LINE = re.compile(r"(?P<hash>[!-~]{1,32})[ \t]+(?P<digest>[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){0,127})[ \t]*")


@attrs.frozen
class Fingerprint:
    """The hash of a certificate: the function's name in lower case (`sha-256`), and what it gives."""

    algorithm: str
    digest: bytes

    def __str__(self) -> str:
        return f"{self.algorithm} {self.digest.hex(':').upper()}"


class Setup(Enum):
    """Who begins: us, the peer, either as the answer says, or nobody for now (RFC 4145 4)."""

    ACTIVE = "active"
    PASSIVE = "passive"
    ACTPASS = "actpass"
    HOLDCONN = "holdconn"


def parse_fingerprint(value: str) -> Fingerprint | None:
    """What stands behind `a=fingerprint:`; None if it is not of the form."""
    found = _LINE.fullmatch(value)
    return Fingerprint(found["hash"].lower(), bytes.fromhex(found["digest"].replace(":", ""))) if found else None


def parse_setup(value: str) -> Setup | None:
    """What stands behind `a=setup:`; None for a word that is not known."""
    return next((setup for setup in Setup if setup.value == value.strip().lower()), None)


def answering(offered: Setup | None) -> Setup:
    """Our part in an answer: passive wherever we may be (RFC 5763 5), active if the peer wants us to begin.

    Who is passive speaks last in the handshake, and so knows from the peer's repetitions what was lost; and it sees
    the peer's cookie before it keeps anything. A peer that says nothing begins (RFC 4145 4.1).
    """
    match offered:
        case Setup.PASSIVE:
            return Setup.ACTIVE
        case Setup.HOLDCONN:
            return Setup.HOLDCONN
        case _:
            return Setup.PASSIVE
