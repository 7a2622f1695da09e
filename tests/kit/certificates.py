"""Certificates for tests, made once for the whole run: an authority, and whoever it vouches for."""

from __future__ import annotations

import functools
from pathlib import Path

import trustme

from rustpbx.sip.shell.tls import Tls, TlsFiles


@functools.cache
def authority() -> trustme.CA:
    """The one that everybody trusts."""
    return trustme.CA()


def make_files(folder: Path, *names: str, ca: trustme.CA | None = None, **more: object) -> TlsFiles:
    """A certificate for these names, and the authority, as PEM files; `more` are further fields of `TlsFiles`."""
    issuer = ca or authority()
    issued = issuer.issue_cert(*names)
    certificate, key, trusted = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    authority().cert_pem.write_to_path(trusted)
    fields = {"certificate": str(certificate), "private_key": str(key), "ca": str(trusted), **more}
    return TlsFiles(**fields)  # type: ignore[arg-type]  # fields by name


def make_tls(folder: Path, *names: str, ca: trustme.CA | None = None, **more: object) -> Tls:
    """TLS with such files."""
    folder.mkdir(exist_ok=True)
    return Tls(make_files(folder, *names, ca=ca, **more))
