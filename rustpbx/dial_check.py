"""`python -m rustpbx dial-check URI`: what the dial policy says of an address, and which servers a call would go to.

Nothing is dialled. Exit status: 0 it may be dialled, 1 it may not, 2 the address or the token is none.
"""

from __future__ import annotations

import random
import re
import sys
from functools import partial

import trio

from rustpbx.config import Config
from rustpbx.dialplan import DialPlan, Verdict, holds_shipped
from rustpbx.errors import RemoteError
from rustpbx.settings import DialConfig, UaConfig
from rustpbx.shell.clock import TrioClock
from rustpbx.shell.network import Network, RealNetwork
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.hop import Transport
from rustpbx.sip.locate import Unlocated
from rustpbx.sip.shell.dns import Names
from rustpbx.sip.uri import Uri, parse_aor

_NUMBER = re.compile(r"[+(]?[0-9][-0-9.() ]*")


def run(config: Config, text: str, token: str | None) -> int:
    """Check one address and print what comes of it; the exit status."""
    try:
        uri = parse_target(text)
    except RemoteError as problem:
        print(f"dial-check: {problem}", file=sys.stderr)
        return 2
    if token is not None and token not in config.tokens:
        print("dial-check: the token is none of `tokens`", file=sys.stderr)
        return 2
    verdict = DialPlan.of(config).judge(uri)
    place = config.tokens.index(token) + 1 if token is not None else 0
    servers = trio.run(partial(find_servers, config.ua, uri, RealNetwork()))
    print("\n".join(report(config, uri, verdict, servers, place)))
    return 0 if verdict.allowed else 1


def parse_target(text: str) -> Uri:
    """An address as people write it; a number alone is a `tel:` one. Raises RemoteError for what cannot be dialled."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return parse_aor(f"tel:{text.replace(' ', '-')}")
    scheme, colon, _ = text.partition("@")[0].partition(":")
    if colon and "@" in text and scheme.lower() not in {"sip", "sips", "tel"}:
        raise RemoteError(f"a {scheme[:20]}: address cannot be dialled")
    return parse_aor(text)


async def find_servers(ua: UaConfig | None, uri: Uri, network: Network) -> str:
    """The servers for an address, in the order in which they would be tried, or why there are none."""
    if ua is None:
        return "none: no SIP is configured"
    if uri.scheme == "tel":
        return "none: a number alone names no server"
    ports = {Transport.TCP: ua.tcp_port, Transport.TLS: ua.tls_port}
    spoken = EndpointConfig(port=ua.udp_port, ports={t: port for t, port in ports.items() if port is not None}).spoken
    host = ua.addr or network.source_for("192.0.2.1")
    names = Names(
        network, TrioClock(), random.Random(), lambda address: host == "::" or (":" in host) == (":" in address)
    )
    found = await names.locate(uri, spoken)
    return f"none: {found.problem}" if isinstance(found, Unlocated) else ", ".join(map(str, found))


def report(config: Config, uri: Uri, verdict: Verdict, servers: str, token: int) -> list[str]:
    """What is printed, a line each; `token` is the token's place in the configuration, 0 for none."""
    if not verdict.allowed:
        decision = f"denied by the rule {verdict.rule!r}"
    else:
        decision = f"allowed by the rule {verdict.rule!r}" if verdict.rule else "allowed: no rule speaks against it"
    shipped = "hold" if holds_shipped(config) else "do not hold"
    who = f"token {token}" if token else "clients without a token"
    return [
        f"{uri}: {decision}",
        f"  number: {verdict.dialled.number or 'none, this is a name'}",
        f"  shipped rules (premium rate, satellite): {shipped}",
        f"  caps for {who}: {_caps(config.dial) or 'none'}",
        f"  servers: {servers}",
    ]


def _caps(dial: DialConfig) -> str:
    caps = {
        "calls a minute over all": dial.max_per_minute,
        "calls a minute": dial.max_per_minute_per_token,
        "calls at one time": dial.max_calls_per_token,
    }
    return ", ".join(f"{cap} {what}" for what, cap in caps.items() if cap is not None)
