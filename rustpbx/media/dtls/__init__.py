"""DTLS-SRTP (RFC 5763, RFC 5764): an `Association` agrees on the keys of a leg, `Certificates` has what we show.

`association.py` is the core, `tables.py` its machine, `handshake.py` one handshake in OpenSSL's hands, `record.py`
what we read and write of records ourselves, `trust.py` the fingerprints.
"""

from rustpbx.media.dtls.association import (
    Association,
    Close,
    Closed,
    Datagram,
    Effect,
    Failed,
    Input,
    Path,
    Secured,
    Send,
    Trust,
)
from rustpbx.media.dtls.certificate import Certificate, Certificates

__all__ = [
    "Association",
    "Certificate",
    "Certificates",
    "Close",
    "Closed",
    "Datagram",
    "Effect",
    "Failed",
    "Input",
    "Path",
    "Secured",
    "Send",
    "Trust",
]
