"""Who may use the HTTP and WebSocket interface. Pure: facts of a request in, a decision out.

One of these must vouch for a request: a loopback address, a token, a network in `allow_from`, or `allow_anonymous`.
Admin routes (list and end calls) want more: see `Access.check`. Behind a reverse proxy every peer looks local, so a
loopback address stops vouching as soon as `trusted_proxies` is configured, and for any request that names a
forwarder.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

import attrs

from rustpbx.config import Config, Network
from rustpbx.shell.origins import may_come

IpAddress = IPv4Address | IPv6Address

FORWARDERS = ("x-forwarded-for", "forwarded", "x-real-ip")
ADMIN_PATHS = ("/call/lists", "/call/kill", "/list", "/kill", "/ami", "/metrics")
"""Each with everything below it."""

_OF_A_CALL = re.compile(r"/call/.+/sip", re.DOTALL)
"""What is shown of one call: also for those who run the server only."""


@attrs.frozen(kw_only=True)
class RequestFacts:
    """What access depends on. `headers`: lower-case names, repeated ones joined by a comma. `query`: decoded.

    `path` is what stands behind the token, if the path began with one; `token` is that, decoded.
    """

    method: str
    path: str
    token: str = ""
    peer: str
    """The IP literal at the other end of the TCP connection."""
    query: Mapping[str, str] = attrs.field(factory=dict)
    headers: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Decision:
    """`status` is the HTTP status of the refusal (401 or 403), `reason` a sentence for its body and the log."""

    allowed: bool
    status: int = 200
    reason: str = ""
    admin: bool = False
    """Whether this request may use the admin routes too."""
    client: str = ""
    """The client's address as far as we trust it; for logs."""
    token: str = ""
    """Which token it showed, by its place in the configuration (`token 1`), so that it may be logged; "" for none."""


@attrs.frozen(kw_only=True)
class Access:
    """The access rules of one server."""

    tokens: tuple[str, ...] = attrs.field(default=(), repr=False)
    allow_from: tuple[Network, ...] = ()
    allow_anonymous: bool = False
    trusted_proxies: tuple[Network, ...] = ()
    origins: tuple[str, ...] = ()
    ami_allows: tuple[Network | None, ...] | None = None
    """The list of `[ami]`: None = no such list, a None in it = `*`."""

    @classmethod
    def from_config(cls, config: Config) -> Access:
        """Take the rules out of a configuration."""
        return cls(
            tokens=config.tokens,
            allow_from=config.allow_from,
            allow_anonymous=config.allow_anonymous,
            trusted_proxies=config.trusted_proxies,
            origins=config.origins,
            ami_allows=config.ami.allows if config.ami else None,
        )

    def check(self, request: RequestFacts) -> Decision:
        """Decide about one request, upgrades included.

        401: a token could help. 403: it could not. An admin route is open to loopback, tokens and `allow_from`;
        where `[ami]` has a list, to the addresses on it: one that is listed vouches for itself, `*` leaves
        it to the other rules. For `/metrics` a token does, whatever that list says.
        """
        client = _client(request, self.trusted_proxies)
        shown = str(client) if client else request.peer
        problem = self._origin_problem(request)
        if problem:
            return Decision(False, 403, problem, client=shown)
        token = self._token(request)
        if self.tokens and not token and _token_given(request):
            return Decision(False, 401, "the token is not valid", client=shown)
        vouched = bool(token) or self._known_address(request, client)
        admin = self._admin(request, client, vouched=vouched)
        is_admin = is_admin_path(request.path)
        scrape = bool(token) and request.path == "/metrics"  # a scraper's address changes more often than its token
        if admin or scrape if is_admin else vouched or self.allow_anonymous:
            return Decision(True, admin=admin, client=shown, token=token)
        if is_admin:
            return Decision(False, *self._admin_refusal(), client=shown)
        return Decision(False, *self._refusal(request, client), client=shown)

    def shown_elsewhere(self, request: RequestFacts) -> str | None:
        """The Authorization header, if it is meant for somebody else: it holds none of our tokens."""
        given = request.headers.get("authorization")
        if given is None or self._token(attrs.evolve(request, token="", query={})):
            return None
        return given

    def _token(self, request: RequestFacts) -> str:
        given = _token_given(request).encode()
        # Every token is compared, each in constant time: the answer's timing tells nothing.
        matches = [hmac.compare_digest(given, token.encode()) for token in self.tokens]
        return f"token {matches.index(True) + 1}" if True in matches else ""

    def _known_address(self, request: RequestFacts, client: IpAddress | None) -> bool:
        if client is None:
            return False
        if any(client in network for network in self.allow_from):
            # A browser that DNS led here sends no Origin with a GET: what it reads must be worth nothing to it.
            harmless = "origin" not in request.headers and not is_admin_path(request.path)
            return harmless or self._our_host(request)
        return client.is_loopback and self._is_direct(request) and self._our_host(request)

    def _is_direct(self, request: RequestFacts) -> bool:
        """Whether no reverse proxy on this machine stands between us and a loopback address."""
        return not self.trusted_proxies and not any(name in request.headers for name in FORWARDERS)

    def _our_host(self, request: RequestFacts) -> bool:
        """Whether Host names us: another name, where only the address vouches, is a browser led here by DNS."""
        host = request.headers.get("host", "").strip().lower()
        if not host:
            return True
        name = host.partition(":")[0]
        listed = {urlsplit(origin).hostname for origin in self.origins}
        return name == "localhost" or name.endswith(".localhost") or name in listed or _is_literal(host)

    def _origin_problem(self, request: RequestFacts) -> str:
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        peer = _ip(request.peer)
        if peer and any(peer in network for network in self.trusted_proxies):
            host = request.headers.get("x-forwarded-host", host)
        if origin is None or may_come(origin, host, self.origins):
            return ""
        return f"origin {origin[:100]} is not allowed: add it to `origins`"

    def _admin(self, request: RequestFacts, client: IpAddress | None, *, vouched: bool) -> bool:
        if self.ami_allows is None:
            return vouched
        if None in self.ami_allows and (vouched or self.allow_anonymous):
            return True
        if client is None or not any(network is not None and client in network for network in self.ami_allows):
            return False
        return self._our_host(request) and (not client.is_loopback or self._is_direct(request))

    def _admin_refusal(self) -> tuple[int, str]:
        if self.ami_allows is not None and None not in self.ami_allows:
            return 403, "this address is not in the `allows` list of [ami]"
        if self.tokens:
            return 401, "admin routes need a token"
        return 403, "admin routes are open to loopback, tokens and `allow_from` only"

    def _refusal(self, request: RequestFacts, client: IpAddress | None) -> tuple[int, str]:
        if self.tokens:
            return 401, "a token is needed: `Authorization: Bearer <token>`, `?token=` or `/t/<token>/...`"
        if client is not None and client.is_loopback:
            if not self._our_host(request):
                return (
                    403,
                    "the Host header does not name this machine: use an IP address, or add the name to `origins`",
                )
            return 403, "the request came through a proxy: configure `trusted_proxies`, and `tokens` or `allow_from`"
        return 403, "this address is not in `allow_from`"


def is_admin_path(path: str) -> bool:
    """True for the routes that list or end calls."""
    below = any(path == admin or path.startswith(f"{admin}/") for admin in ADMIN_PATHS)
    return below or _OF_A_CALL.fullmatch(path) is not None


def _token_given(request: RequestFacts) -> str:
    if request.token:
        return request.token  # also where a header is meant for the language model
    scheme, _, credentials = request.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.query.get("token", "")


def _ip(text: str) -> IpAddress | None:
    try:
        address = ip_address(text.strip().strip("[]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, IPv4Address) else address


def _is_literal(host: str) -> bool:
    """True if a Host header names an IP address, with or without a port."""
    bare = host.rpartition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    return _ip(bare) is not None


def _client(request: RequestFacts, trusted: tuple[Network, ...]) -> IpAddress | None:
    """The nearest address that is no proxy of ours: X-Forwarded-For is read from the right, only as far as we trust.

    Other headers do not count: a proxy that does not write them passes on what the client claims.
    """
    address = _ip(request.peer)
    hops = [hop for hop in request.headers.get("x-forwarded-for", "").split(",") if hop.strip()]
    while hops and address is not None and any(address in network for network in trusted):
        address = _ip(hops.pop())
    return address
