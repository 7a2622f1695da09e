"""TLS for SIP (RFC 3261 26.3.2, RFC 5922): contexts from PEM files, and the two handshakes."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import attrs
import trio

from rustpbx.errors import ConfigError

OLDEST = ssl.TLSVersion.TLSv1_2

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class TlsFiles:
    """Where the keys are: PEM files; each None is "without". `alpn` are protocol names, none by default.

    `ca` are the authorities that peers' certificates must come from, instead of the system's. Without `verify` any
    certificate is taken: the connection is secret, but nobody knows with whom. With `certified_clients` who connects to
    us must show a certificate, too.
    """

    certificate: str | None = None
    private_key: str | None = None
    ca: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    verify: bool = True
    certified_clients: bool = False
    alpn: tuple[str, ...] = ()


class Tls:
    """The contexts of one user agent: `server` for who connects to us, `client` for whom we connect to.

    Both are made when they are first used. `ready()` makes them at once: it raises ConfigError for a file that cannot
    be used, named by its key in the configuration.
    """

    def __init__(self, files: TlsFiles | None = None) -> None:
        self._files = files or TlsFiles()

    @property
    def verifies(self) -> bool:
        """Whether a connection that we opened is to whom its certificate says."""
        return self.client.verify_mode is ssl.CERT_REQUIRED

    @cached_property
    def client(self) -> ssl.SSLContext:
        """For connections that we open. Raises ConfigError."""
        files = self._files
        context = _load("ssl_ca", lambda: ssl.create_default_context(cafile=files.ca))
        context.minimum_version = OLDEST
        if not files.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate, key = files.client_certificate or files.certificate, files.client_key or files.private_key
        if certificate is not None:
            named = "ssl_client_certificate" if files.client_certificate else "ssl_certificate"
            _load(named, lambda: context.load_cert_chain(certificate, key))
        return self._with_alpn(context)

    @cached_property
    def server(self) -> ssl.SSLContext:
        """For connections that others open. Raises ConfigError, also if there is no certificate."""
        files = self._files
        certificate = files.certificate
        if certificate is None:
            raise ConfigError("ua.ssl_certificate", "is needed to accept TLS")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = OLDEST
        _load("ssl_certificate", lambda: context.load_cert_chain(certificate, files.private_key))
        if files.certified_clients:
            context.verify_mode = ssl.CERT_REQUIRED
            if files.ca is None:
                context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
            else:
                _load("ssl_ca", lambda: context.load_verify_locations(files.ca))
        return self._with_alpn(context)

    def ready(self, *, server: bool) -> None:
        """Make the contexts now. Raises ConfigError."""
        files = self._files
        if server:
            _ = self.server
        if files != TlsFiles():
            _ = self.client

    def _with_alpn(self, context: ssl.SSLContext) -> ssl.SSLContext:
        if self._files.alpn:
            context.set_alpn_protocols(list(self._files.alpn))
        return context


def _load(key: str, load: Callable[[], T]) -> T:
    try:
        return load()
    except ssl.SSLError as error:
        raise ConfigError(f"ua.{key}", f"not a usable PEM file: {error.reason or error}") from error
    except OSError as error:
        raise ConfigError(f"ua.{key}", f"cannot be read: {error.strerror or error}") from error


async def accept_tls(stream: trio.abc.Stream, tls: Tls) -> trio.abc.Stream:
    """The server's side of the handshake. Raises trio.BrokenResourceError."""
    secured = trio.SSLStream(stream, tls.server, server_side=True, https_compatible=True)
    await secured.do_handshake()
    return secured


async def connect_tls(stream: trio.abc.Stream, tls: Tls, domain: str) -> trio.abc.Stream:
    """The client's side: names `domain` (SNI) and checks the certificate against it. Raises trio.BrokenResourceError.

    `domain` is the SIP domain that was asked for, not the host that DNS named for it (RFC 5922 4).
    """
    secured = trio.SSLStream(stream, tls.client, server_hostname=domain, https_compatible=True)
    await secured.do_handshake()
    return secured


def tls_problem(error: BaseException) -> str:
    """Why a handshake failed, in words."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate refused: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason or cause}"
    return str(error) or type(error).__name__
