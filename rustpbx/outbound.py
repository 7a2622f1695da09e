"""HTTP to the outside: httpx over our own `Network`, and the policy for every URL that an agent supplies.

Two clients. `open_client` is for URLs from our own configuration (webhooks, provider defaults), which are trusted.
`open_guarded_client` is for URLs that came over the control API: only http and https without credentials, the name is
resolved once, every address it has is judged, and the connection goes to a judged address, so a second DNS answer
cannot move it. The check sits where connections are made, so redirects pass it too.
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cache
from typing import Any

import attrs
import httpcore
import httpx
import trio

from rustpbx.errors import PolicyError
from rustpbx.shell.network import Network

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_REDIRECTS = 5

METADATA = frozenset(map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200")))
"""Where clouds tell a machine its secrets."""
_SHARED = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052; the last 32 bits are an IPv4 address
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215; translates to what the site likes
_COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291 2.5.5.1, deprecated; `::` and `::1` are judged before


@attrs.frozen(kw_only=True)
class OutboundPolicy:
    """What an agent's URL may reach.

    `allow_private` are networks that may be reached although they are not public. `max_bytes` caps one response's
    body, `timeout` is the whole request's time in seconds, redirects and body included.
    """

    allow_private: tuple[IpNetwork, ...] = ()
    allow_loopback: bool = False
    max_bytes: int = 32 * 1024 * 1024
    timeout: float = 30.0


@attrs.frozen
class Download:
    """One answered GET: where it ended after redirects, and what came. `body` is empty unless `status` is 2xx."""

    url: str
    status: int
    content_type: str
    body: bytes = attrs.field(repr=False)


def open_client(network: Network, *, ssl_context: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """An httpx client over `network` for trusted URLs. The first costs about 20 ms: it reads the certificates.

    Redirects are not followed, the environment's proxies and .netrc are not read. Raises httpx's own errors.
    """
    transport = _PoolTransport(_Backend(network), ssl_context)
    return httpx.AsyncClient(transport=transport, trust_env=False)


def open_guarded_client(
    network: Network, policy: OutboundPolicy, *, ssl_context: ssl.SSLContext | None = None
) -> httpx.AsyncClient:
    """An httpx client over `network` for URLs that an agent supplied. Raises `PolicyError` besides httpx's errors.

    Follows up to five redirects, each judged like the first URL; keeps no cookies. Prefer `download`, which adds the
    cap on total time.
    """
    transport = _GuardedTransport(_GuardedBackend(network, policy), ssl_context, policy)
    return httpx.AsyncClient(
        transport=transport,
        trust_env=False,
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=policy.timeout,
        # The cap counts bytes on the wire, so what unfolds later is not accepted.
        headers={"accept-encoding": "identity"},
    )


async def download(client: httpx.AsyncClient, url: str, policy: OutboundPolicy) -> Download:
    """GET `url` with a guarded client, within the policy's time. Raises `PolicyError` and `httpx.HTTPError`."""
    check_url(url)  # before httpx takes a URL without a host for a relative one
    try:
        with trio.fail_after(policy.timeout):
            async with client.stream("GET", url) as response:
                body = await response.aread() if response.is_success else b""
    except trio.TooSlowError:
        raise PolicyError(f"{url}: took longer than {policy.timeout:g} s") from None
    except httpx.TooManyRedirects:
        raise PolicyError(f"{url}: more than {MAX_REDIRECTS} redirects") from None
    return Download(str(response.url), response.status_code, response.headers.get("content-type", ""), body)


def check_url(url: httpx.URL | str) -> None:
    """Judge what can be judged without DNS. Raises `PolicyError` for another scheme, credentials, no host."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise PolicyError(f"{url}: not a valid URL: {error}") from None
    if parsed.scheme not in ("http", "https"):
        raise PolicyError(f"{parsed.scheme or 'no'} scheme: only http and https URLs are allowed")
    if parsed.userinfo:
        raise PolicyError("a URL with a user name or password is not allowed")
    if not parsed.host:
        raise PolicyError("a URL without a host is not allowed")
    if not 1 <= (parsed.port or 80) <= 65535 or parsed.port == 0:
        raise PolicyError(f"there is no port {parsed.port}")


def check_address(address: str, policy: OutboundPolicy) -> None:
    """Judge one resolved address. Raises `PolicyError` naming the kind of address it is."""
    refused = _refusal(ipaddress.ip_address(address), policy)
    if refused:
        raise PolicyError(f"{address} is {refused}: not allowed")


async def connect_judged(network: Network, policy: OutboundPolicy, host: str, port: int) -> trio.abc.Stream:
    """Connect to an address that has been judged. Raises `PolicyError` if any address of the name may not be reached,
    OSError if none answers.
    """
    addresses = await network.resolve(host)
    for address in addresses:
        try:
            check_address(address, policy)
        except PolicyError as error:
            raise PolicyError(f"{host}: {error}" if host != address else str(error)) from None
    failure = OSError(f"{host} has no address")
    for address in addresses:
        try:
            return await network.connect(address, port)
        except OSError as error:
            failure = error
    raise failure


@attrs.frozen(kw_only=True)
class Reach:
    """A way out, for HTTP and streams: to wherever our configuration says or, with a `policy`, to what that allows."""

    network: Network
    client: httpx.AsyncClient
    policy: OutboundPolicy | None = None

    async def connect(self, url: httpx.URL) -> trio.abc.Stream:
        """A stream to the host of a ws, wss, http or https URL, encrypted where its scheme says so.

        Raises `PolicyError`, OSError, `trio.BrokenResourceError` when TLS fails.
        """
        secure = url.scheme in ("https", "wss")
        port = url.port or (443 if secure else 80)
        if self.policy is None:
            stream = await self.network.connect(url.host, port)
        else:
            check_url(url.copy_with(scheme="https" if secure else "http"))
            stream = await connect_judged(self.network, self.policy, url.host, port)
        if not secure:
            return stream
        tls = trio.SSLStream(stream, _public_authorities(), server_hostname=url.host, https_compatible=True)
        try:
            await tls.do_handshake()
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)
            raise
        return tls


def _refusal(address: IpAddress, policy: OutboundPolicy) -> str | None:
    """Why `address` may not be reached; None if it may."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return _refusal(address.ipv4_mapped, policy)
    if any(address in network for network in policy.allow_private):
        return None
    kind = _kind(address)
    if kind == "a loopback address" and policy.allow_loopback:
        return None
    if kind:
        return kind
    for inner in embedded(address):
        refused = _refusal(inner, policy)
        if refused:
            return f"a way to {inner}, {refused}"
    return None


def _kind(address: IpAddress) -> str | None:  # noqa: PLR0911 - one return per kind is the clearest table
    """What is special about an address that is not simply public."""
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback:
        return "a loopback address"
    if address in METADATA:
        return "a cloud metadata service"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address in _SHARED:
        return "a shared (carrier) address"
    if address in _NAT64_LOCAL:
        return "a local NAT64 address"
    if embedded(address):
        return None  # the IPv4 address inside decides
    if address.is_private:
        return "a private address"
    return None if address.is_global else "a reserved address"


def embedded(address: IpAddress) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses that packets to an IPv6 address may be handed on to."""
    if not isinstance(address, ipaddress.IPv6Address):
        return []
    if address.sixtofour:
        return [address.sixtofour]
    if address.teredo:
        return list(address.teredo)
    if address in _NAT64 or address in _COMPATIBLE:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return []


# -- httpcore over Network ------------------------------------------------------------------------------------------


class _Stream(httpcore.AsyncNetworkStream):
    """A Trio stream as httpcore wants it: a timeout per operation, httpcore's errors."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._refused: PolicyError | None = None

    def refuse(self, error: PolicyError) -> None:
        """Nothing more is to be read here: the next `read` raises `error`."""
        self._refused = error

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's API
        if self._refused is not None:
            raise self._refused
        with _operation(timeout, httpcore.ReadTimeout, httpcore.ReadError):
            return bytes(await self._stream.receive_some(max_bytes))
        raise AssertionError  # the block returns or raises

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's API
        if buffer:
            with _operation(timeout, httpcore.WriteTimeout, httpcore.WriteError):
                await self._stream.send_all(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's API
    ) -> httpcore.AsyncNetworkStream:
        tls = trio.SSLStream(self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True)
        try:
            with _operation(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
                await tls.do_handshake()
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)
            raise
        return _Stream(tls)

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":
            return None
        stream = self._stream
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        # An idle connection that has something to read was closed by the server. Where that cannot be known, say
        # yes: the connection is then not used again, which is slower and always right.
        return stream.socket.is_readable() if isinstance(stream, trio.SocketStream) else True


@contextlib.contextmanager
def _operation(
    seconds: float | None, too_slow: type[httpcore.TimeoutException], broken: type[httpcore.NetworkError]
) -> Iterator[None]:
    try:
        with trio.fail_after(float("inf") if seconds is None else seconds):
            yield
    except trio.TooSlowError as error:
        raise too_slow(f"nothing for {seconds:g} s") from error
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
        raise broken(_text(error)) from error


def _text(error: BaseException) -> str:
    """What to tell about a failed operation: Trio's own words say little, their cause says it."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return str(cause or error) or type(error).__name__


class _Backend(httpcore.AsyncNetworkBackend):
    """Connections through `Network`."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's API
        local_address: str | None = None,  # noqa: ARG002 - httpcore's API
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - httpcore's API
    ) -> httpcore.AsyncNetworkStream:
        with _operation(timeout, httpcore.ConnectTimeout, httpcore.ConnectError):
            return _Stream(await self._connect(host, port))
        raise AssertionError  # the block returns or raises

    async def _connect(self, host: str, port: int) -> trio.abc.Stream:
        return await self._network.connect(host, port)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class _GuardedBackend(_Backend):
    """Connections to judged addresses only; TLS still verifies the name, because httpcore keeps it."""

    def __init__(self, network: Network, policy: OutboundPolicy) -> None:
        super().__init__(network)
        self._policy = policy

    async def _connect(self, host: str, port: int) -> trio.abc.Stream:
        return await connect_judged(self._network, self._policy, host, port)


# -- httpx over httpcore --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _httpx_errors() -> Iterator[None]:
    """Raise httpcore's errors as httpx's, which have the same names."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
        names = (cls.__name__ for cls in type(error).__mro__)
        wanted = next((getattr(httpx, name) for name in names if hasattr(httpx, name)), httpx.TransportError)
        raise wanted(str(error)) from error


class _Body(httpx.AsyncByteStream):
    """A response body; `limit` caps the bytes that are read of it."""

    def __init__(self, response: httpcore.Response, limit: float) -> None:
        self._response = response
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        with _httpx_errors():
            async for part in self._response.aiter_stream():
                total += len(part)
                if total <= self._limit:
                    yield part
                    continue
                # Raised from below, by the next read, the error ends httpcore's generators on its way; raised here it
                # would leave them to the garbage collector.
                stream = self._response.extensions.get("network_stream")
                if isinstance(stream, _Stream):
                    stream.refuse(self._too_large())
        if total > self._limit:
            raise self._too_large()

    def _too_large(self) -> PolicyError:
        return PolicyError(f"the response is larger than {self._limit} bytes")

    async def aclose(self) -> None:
        await self._response.aclose()


@attrs.frozen
class _Sent:
    """A request's body, for httpcore to iterate.

    httpx's own is an async generator: cancelled half-way, it is left to the garbage collector, which Trio tells of.
    """

    body: bytes

    def __aiter__(self) -> _Pieces:
        return _Pieces([self.body] if self.body else [])


@attrs.define
class _Pieces:
    left: list[bytes]

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop()


@cache
def _public_authorities() -> ssl.SSLContext:
    """The certificates that httpx trusts, read once in a process."""
    return httpx.create_ssl_context(trust_env=False)


class _PoolTransport(httpx.AsyncBaseTransport):
    """httpx's transport over a connection pool with our backend."""

    def __init__(self, backend: _Backend, ssl_context: ssl.SSLContext | None) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or _public_authorities(),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._send(request, float("inf"))

    async def _send(self, request: httpx.Request, limit: float) -> httpx.Response:
        body = _Sent(await request.aread())
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        wanted = httpcore.Request(
            method=request.method,
            url=url,
            headers=request.headers.raw,
            content=body,
            extensions=request.extensions,
        )
        with _httpx_errors():
            answer = await self._pool.handle_async_request(wanted)
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer, limit), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _GuardedTransport(_PoolTransport):
    """Judges each request, redirects included, before it leaves, and each answer's head before its body is read."""

    def __init__(self, backend: _GuardedBackend, ssl_context: ssl.SSLContext | None, policy: OutboundPolicy) -> None:
        super().__init__(backend, ssl_context)
        self._policy = policy

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        check_url(request.url)
        response = await self._send(request, self._policy.max_bytes)
        problem = self._problem(response.headers)
        if problem:
            await response.aclose()
            raise PolicyError(problem)
        # The client is shared by all calls: what one server sets for one agent must not go out for another.
        response.headers.pop("set-cookie", None)
        return response

    def _problem(self, headers: httpx.Headers) -> str | None:
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._policy.max_bytes:
            return f"the response is larger than {self._policy.max_bytes} bytes"
        encoding = headers.get("content-encoding", "identity").strip().lower()
        return (
            None if encoding in ("", "identity") else f"the response is compressed ({encoding}), which is not accepted"
        )
