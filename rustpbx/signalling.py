"""From the `[ua]` table to a SIP stack: its transports, its keys, its bounds."""

from __future__ import annotations

import random
from collections.abc import Callable

from rustpbx import __version__
from rustpbx.settings import AuthConfig, Config, SipUser, UaConfig
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Network
from rustpbx.sip.admission import SCANNERS, AdmissionRules
from rustpbx.sip.auth_server import Realm, User, secret
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.extensions import Extensions
from rustpbx.sip.hop import Transport
from rustpbx.sip.passing import PassList
from rustpbx.sip.shell.connections import Streams
from rustpbx.sip.shell.stack import Stack
from rustpbx.sip.shell.tls import Tls, TlsFiles
from rustpbx.sip.timing import Timing
from rustpbx.sip.uri import Uri


def make_stack(  # noqa: PLR0917 - the two settings, and what the server reaches the world through
    config: Config,
    ua: UaConfig,
    network: Network,
    clock: Clock,
    rng: random.Random,
    host: str,
    redirect_refusal: Callable[[str, Uri], str] = lambda _leg, _target: "",
    nonce_key: bytes = b"",
) -> Stack:
    """The stack that the configuration asks for, bound to `host`. Raises ConfigError for a certificate or key."""
    endpoint = EndpointConfig(
        user_agent=ua.useragent or f"rustpbx/{__version__}",
        port=ua.udp_port,
        callid_suffix=ua.callid_suffix,
        max_calls=config.max_calls,
        max_redirects=ua.max_redirects if ua.redirect == "follow" else 0,
        redirect_refusal=redirect_refusal,
        mtu=ua.mtu,
        pass_headers=PassList(ua.pass_headers),
        admission=admission_rules(ua),
        nonce_key=nonce_key,
        extensions=Extensions(
            prack=ua.prack,
            session_timers=ua.session_timers,
            session_expires=ua.session_expires,
            min_se=ua.min_se,
        ),
        timing=Timing(ring_limit=max(180.0, ua.ring_timeout + 60), answer_limit=max(600.0, ua.accept_timeout + 60)),
    )
    return Stack(endpoint, network, clock, host, ua.udp_port, config.external_ip, rng, streams_of(ua))


def admission_rules(ua: UaConfig) -> AdmissionRules:
    """Who may call, as the endpoint judges it."""
    auth, limits = ua.auth or AuthConfig(), ua.limits
    realm = Realm(
        name=auth.realm,
        users={user.username: _user(user, auth) for user in auth.users},
        algorithms=auth.algorithms,
        lifetime=auth.nonce_lifetime,
    )
    return AdmissionRules(
        trusted=auth.trusted,
        denied=auth.deny,
        realm=realm if ua.auth is not None else None,
        unknown=auth.unknown,
        scanners=SCANNERS if limits.scanners is None else tuple(text.lower() for text in limits.scanners),
        requests=limits.requests,
        invites=limits.invites,
        burst=limits.burst,
        calls=limits.calls,
        failures=limits.failures,
        quiet=limits.quiet,
        sources=limits.sources,
        unlimited=limits.unlimited,
    )


def _user(user: SipUser, auth: AuthConfig) -> User:
    """His secrets, and no password."""
    offered = auth.algorithms if user.password else ()
    made = {name: secret(name, user.username, auth.realm, user.password) for name in offered}
    return User({**made, **dict(user.ha1)}, user.callers)


def streams_of(ua: UaConfig) -> Streams:
    """The transports beside UDP. Raises ConfigError for a certificate or key that cannot be used."""
    asked = {
        Transport.TCP: ua.tcp_port,
        Transport.TLS: ua.tls_port,
        Transport.WS: ua.ws_port,
        Transport.WSS: ua.wss_port,
    }
    ports = {transport: port for transport, port in asked.items() if port is not None}
    files = TlsFiles(
        certificate=ua.ssl_certificate,
        private_key=ua.ssl_private_key,
        ca=ua.ssl_ca,
        client_certificate=ua.ssl_client_certificate,
        client_key=ua.ssl_client_key,
        verify=ua.tls_verify == "full",
        certified_clients=ua.tls_clients == "certified",
        alpn=ua.alpn,
    )
    tls = Tls(files)
    tls.ready(server=any(transport.secure for transport in ports))
    return Streams(ports=ports, tls=tls, origins=frozenset(ua.ws_origins))
