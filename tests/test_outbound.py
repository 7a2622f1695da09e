"""What goes out over HTTP: the client over `Network`, and the policy for URLs of agents."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trio

from rustpbx.errors import PolicyError
from rustpbx.outbound import (
    Download,
    OutboundPolicy,
    check_address,
    check_url,
    download,
    open_client,
    open_guarded_client,
)
from rustpbx.shell.network import RealNetwork
from tests.kit.web import Web, page

STRICT = OutboundPolicy()
CERTIFICATE = Path(__file__).parent / "golden" / "tls" / "media.test.pem"


@asynccontextmanager
async def guarded(
    policy: OutboundPolicy = STRICT, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Web, httpx.AsyncClient]]:
    """A web and a guarded client in it."""
    async with trio.open_nursery() as nursery:
        web = Web(nursery)
        async with open_guarded_client(web, policy, ssl_context=ssl_context or ssl.create_default_context()) as client:
            yield web, client
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.8.9.10", "a loopback address"),
        ("::1", "a loopback address"),
        ("0.0.0.0", "the unspecified address"),  # noqa: S104 - it is to be refused
        ("::", "the unspecified address"),
        ("10.1.2.3", "a private address"),
        ("172.16.0.1", "a private address"),
        ("192.168.1.1", "a private address"),
        ("fd12:3456::1", "a private address"),
        ("169.254.169.254", "a cloud metadata service"),
        ("fd00:ec2::254", "a cloud metadata service"),
        ("169.254.1.1", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fe80::1%eth0", "a link-local address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("100.64.0.1", "a shared (carrier) address"),
        ("192.0.2.1", "a private address"),
        ("240.0.0.1", "a private address"),
        ("255.255.255.255", "a private address"),
        ("64:ff9b:1::1", "a local NAT64 address"),
        ("::ffff:10.0.0.1", "a private address"),
        ("::ffff:169.254.169.254", "a cloud metadata service"),
        ("::10.0.0.1", "a way to 10.0.0.1, a private address"),
        ("2002:7f00:1::", "a way to 127.0.0.1, a loopback address"),
        ("2002:a9fe:a9fe::", "a way to 169.254.169.254, a cloud metadata service"),
        ("64:ff9b::192.168.0.1", "a way to 192.168.0.1, a private address"),
        ("2001:0:4136:e378:8000:63bf:f5ff:fffe", "a way to 10.0.0.1, a private address"),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str, kind: str) -> None:
    """Each kind of special address is refused by name, however it is wrapped."""
    with pytest.raises(PolicyError) as caught:
        check_address(address, STRICT)
    assert str(caught.value) == f"{address} is {kind}: not allowed"


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::"]
)
def test_public_addresses_pass(address: str) -> None:
    """What is public, wrapped or not, may be reached."""
    check_address(address, STRICT)


def test_configuration_allows_more() -> None:
    """Listed networks and, if wanted, loopback are allowed; nothing beside them is."""
    policy = OutboundPolicy(allow_private=(ipaddress.ip_network("10.1.0.0/16"),), allow_loopback=True)
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "127.0.0.1", "::1", "2002:a01:203::"):
        check_address(address, policy)
    for address in ("10.2.0.1", "0.0.0.0", "169.254.169.254", "192.168.1.1"):  # noqa: S104 - it is to be refused
        with pytest.raises(PolicyError):
            check_address(address, policy)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///etc/passwd", "file scheme: only http and https URLs are allowed"),
        ("ftp://example.com/a.wav", "ftp scheme: only http and https URLs are allowed"),
        ("/etc/passwd", "no scheme: only http and https URLs are allowed"),
        ("http://user:secret@example.com/", "a URL with a user name or password is not allowed"),
        ("http:///a.wav", "a URL without a host is not allowed"),
        ("http://[::1/", "http://[::1/: not a valid URL: Invalid port: ':1'"),
    ],
)
def test_urls_are_judged_before_any_look_up(url: str, problem: str) -> None:
    """Scheme, credentials, host: each refusal says which."""
    with pytest.raises(PolicyError) as caught:
        check_url(url)
    assert str(caught.value) == problem


async def test_a_download_goes_to_the_checked_address() -> None:
    """One look-up, a connection to its answer, the name in Host, no compression asked for."""
    async with guarded() as (web, client):
        web.names["media.test"] = [["8.8.8.8"]]
        web.serve("8.8.8.8", 80, page(b"sound", "Content-Type: audio/wav", "Set-Cookie: a=b"))
        got = await download(client, "http://media.test/a.wav?b=c", STRICT)
        assert not client.cookies
    assert got == Download("http://media.test/a.wav?b=c", 200, "audio/wav", b"sound")
    assert web.looked_up == ["media.test"]
    assert web.connected == [("8.8.8.8", 80)]
    request, *headers = web.asked[0].split("\r\n")
    assert request == "GET /a.wav?b=c HTTP/1.1"
    assert {"Host: media.test", "accept-encoding: identity"} <= set(headers)


async def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    """DNS rebinding: the connection goes where the one judged answer said; a second answer is judged anew."""
    async with guarded() as (web, client):
        web.names["evil.test"] = [["8.8.8.8"], ["127.0.0.1"]]
        web.serve("8.8.8.8", 80, page(b"first", "Connection: close"))
        web.serve("127.0.0.1", 80, page(b"secret"))
        assert (await download(client, "http://evil.test/", STRICT)).body == b"first"
        with pytest.raises(PolicyError, match=r"^evil.test: 127.0.0.1 is a loopback address: not allowed$"):
            await download(client, "http://evil.test/", STRICT)
    assert web.connected == [("8.8.8.8", 80)]


async def test_one_bad_address_condemns_a_name() -> None:
    """A name with a public and a private address is refused before anything is connected."""
    async with guarded() as (web, client):
        web.names["mixed.test"] = [["8.8.8.8", "10.0.0.1"]]
        with pytest.raises(PolicyError, match=r"^mixed.test: 10.0.0.1 is a private address: not allowed$"):
            await download(client, "http://mixed.test/", STRICT)
    assert web.connected == []


async def test_the_next_address_is_tried() -> None:
    """Where the first of two good addresses refuses, the second serves."""
    async with guarded() as (web, client):
        web.names["two.test"] = [["2606:4700::1111", "8.8.8.8"]]
        web.serve("8.8.8.8", 80, page(b"here"))
        assert (await download(client, "http://two.test/", STRICT)).body == b"here"
    assert web.connected == [("2606:4700::1111", 80), ("8.8.8.8", 80)]


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("http://169.254.169.254/latest", r"^169.254.169.254 is a cloud metadata service: not allowed$"),
        ("http://inside.test/", r"^inside.test: 192.168.0.7 is a private address: not allowed$"),
        ("http://a:b@open.test/", r"^a URL with a user name or password is not allowed$"),
        ("https://open.test:99999/", r"^there is no port 99999$"),
        ("file:///etc/passwd", r"^file scheme: only http and https URLs are allowed$"),
    ],
)
async def test_redirects_are_judged(location: str, problem: str) -> None:
    """A public server cannot lead us to where the URL itself could not."""
    async with guarded() as (web, client):
        web.names = {"open.test": [["8.8.8.8"]], "inside.test": [["192.168.0.7"]]}
        web.serve("8.8.8.8", 80, page(b"", f"Location: {location}", status="302 Found"))
        web.serve("192.168.0.7", 80, page(b"secret"))
        with pytest.raises(PolicyError, match=problem):
            await download(client, "http://open.test/", STRICT)
    assert web.connected == [("8.8.8.8", 80)]


async def test_redirects_end() -> None:
    """Five redirects are followed, the sixth is refused."""
    again = page(b"", "Location: /next", status="302 Found")
    async with guarded() as (web, client):
        web.serve("8.8.8.8", 80, *[again] * 5, page(b"done"), *[again] * 6)
        assert (await download(client, "http://8.8.8.8/", STRICT)).url == "http://8.8.8.8/next"
        with pytest.raises(PolicyError, match=r"^http://8.8.8.8/: more than 5 redirects$"):
            await download(client, "http://8.8.8.8/", STRICT)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"4\r\nabcd\r\n" * 5 + b"0\r\n\r\n"


@pytest.mark.parametrize("response", [page(b"x" * 17), CHUNKED], ids=["announced", "chunked"])
async def test_size_is_capped(response: bytes) -> None:
    """Too large a body is refused, by what is announced or by what really comes."""
    policy = OutboundPolicy(max_bytes=16)
    async with guarded(policy) as (web, client):
        web.serve("8.8.8.8", 80, response)
        with pytest.raises(PolicyError, match=r"^the response is larger than 16 bytes$"):
            await download(client, "http://8.8.8.8/", policy)


async def test_what_unfolds_later_is_refused() -> None:
    """A compressed answer to a request that asked for none could be any size."""
    async with guarded() as (web, client):
        web.serve("8.8.8.8", 80, page(b"...", "Content-Encoding: gzip"))
        with pytest.raises(PolicyError, match=r"^the response is compressed \(gzip\), which is not accepted$"):
            await download(client, "http://8.8.8.8/", STRICT)


async def test_time_is_capped() -> None:
    """A server that sends a byte now and then never exceeds a read's timeout, but the whole has one."""

    async def drip(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with suppress(trio.BrokenResourceError):
            while True:
                await trio.sleep(5)
                await stream.send_all(b".")

    async with guarded() as (web, client):
        web.handle("8.8.8.8", 80, drip)
        start = trio.current_time()
        with pytest.raises(PolicyError, match=r"^http://8.8.8.8/: took longer than 30 s$"):
            await download(client, "http://8.8.8.8/", STRICT)
        assert trio.current_time() == start + 30


async def test_an_error_page_is_not_read() -> None:
    """Of an answer that is no success only the status is of interest."""
    async with guarded() as (web, client):
        web.serve("8.8.8.8", 80, page(b"no such thing", status="404 Not Found"))
        assert await download(client, "http://8.8.8.8/", STRICT) == Download("http://8.8.8.8/", 404, "", b"")


async def test_tls_verifies_the_name_on_a_pinned_address() -> None:
    """The handshake is for the URL's name though the connection goes to the address; another name fails."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    names: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: names.append(name)
    async with guarded(ssl_context=ssl.create_default_context(cafile=CERTIFICATE)) as (web, client):
        web.names = {"media.test": [["8.8.8.8"]], "other.test": [["8.8.8.8"]]}
        web.serve("8.8.8.8", 443, page(b"sealed"), page(b"unseen"), tls=server)
        assert (await download(client, "https://media.test/", STRICT)).body == b"sealed"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await download(client, "https://other.test/", STRICT)
    assert names == ["media.test", "other.test"]


async def test_the_trusted_client_goes_anywhere() -> None:
    """URLs of our own configuration may be private, and their redirects are the caller's business."""
    async with trio.open_nursery() as nursery:
        web = Web(nursery)
        web.serve("10.0.0.1", 8080, page(b"{}", "Location: /elsewhere", status="307 Temporary Redirect"))
        async with open_client(web, ssl_context=ssl.create_default_context()) as client:
            response = await client.post("http://10.0.0.1:8080/hook", json={"event": "incoming"})
        nursery.cancel_scope.cancel()
    assert (response.status_code, response.content) == (307, b"{}")
    assert web.asked[0].startswith("POST /hook HTTP/1.1\r\nHost: 10.0.0.1:8080\r\n")


async def test_failures_are_httpx_errors() -> None:
    """Refused, broken off, silent, nonsense: each is the error that httpx users know."""

    async def silent(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        web = Web(nursery)
        web.serve("8.8.8.8", 1, page(b"half", length=8))
        web.serve("8.8.8.8", 2, b"SSH-2.0-x\r\n\r\n")
        web.handle("8.8.8.8", 3, silent)
        async with open_client(web, ssl_context=ssl.create_default_context()) as client:
            with pytest.raises(httpx.ConnectError, match=r"8.8.8.8:9 refuses"):
                await client.get("http://8.8.8.8:9/")
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
                await client.get("http://8.8.8.8:1/")
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("http://8.8.8.8:2/")
            with pytest.raises(httpx.ReadTimeout):
                await client.get("http://8.8.8.8:3/", timeout=3)
        nursery.cancel_scope.cancel()


@pytest.mark.real_time
async def test_a_closed_idle_connection_is_not_used_again() -> None:
    """A kept connection serves the next request; one that the server closed meanwhile is replaced unnoticed."""
    connections = 0

    async def twice(stream: trio.abc.Stream) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            await stream.receive_some()
            await stream.send_all(page(b"ok"))
        await stream.aclose()

    network = RealNetwork()
    listener = await network.listen("127.0.0.1", 0)
    assert isinstance(listener, trio.SocketListener)
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, twice, [listener])
        async with open_client(network, ssl_context=ssl.create_default_context()) as client:
            bodies = [(await client.get(url)).content for _ in range(5)]
        nursery.cancel_scope.cancel()
    assert (bodies, connections) == ([b"ok"] * 5, 3)
