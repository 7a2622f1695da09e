"""`Network`: streams, listeners, SIP datagrams and name look-up, the only way to the outside besides media ports."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from rustpbx.core import Address
from rustpbx.shell.nameservers import NameServers
from rustpbx.shell.records import Answer, Kind


class Datagrams(Protocol):
    """One bound UDP socket, used by SIP and by test phones (media has `Ports`)."""

    @property
    def address(self) -> Address:
        """The bound address; the port is the real one even if 0 was asked for."""
        ...

    async def send(self, data: bytes, destination: Address) -> None:
        """Send one datagram; an unreachable peer raises nothing (UDP promises nothing)."""
        ...

    def send_now(self, data: bytes, destination: Address) -> bool:
        """Send one datagram without waiting, as media goes; False if the system did not take it."""
        ...

    async def receive(self) -> tuple[bytes, Address]:
        """Wait for one datagram of at most 65,535 bytes. Raises `trio.ClosedResourceError` after `close()`."""
        ...

    def close(self) -> None:
        """Give the port back; idempotent."""
        ...

    @property
    def raw(self) -> socket.socket | None:
        """The operating system's socket, for somebody else to receive from it; None where there is none (in memory)."""
        ...


class Network(Protocol):
    """Streams, listeners, datagrams, names. The in-memory one lives in `rustpbx.testing`."""

    async def open_datagrams(self, host: str, port: int) -> Datagrams:
        """Bind a UDP socket. Raises OSError if the address is in use."""
        ...

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """Open a TCP stream to an IP literal or a name. Raises OSError."""
        ...

    async def listen(self, host: str, port: int) -> trio.abc.Listener[trio.abc.Stream]:
        """Listen for TCP streams. Raises OSError if the address is in use."""
        ...

    async def resolve(self, host: str) -> list[str]:
        """IP literals of a name (a literal resolves to itself), best first. Raises OSError if there is none."""
        ...

    async def lookup(self, name: str, kind: Kind) -> Answer:
        """The NAPTR or SRV records of a name; none if there are none. Raises OSError if nobody answers."""
        ...

    def source_for(self, host: str) -> str:
        """Our own IP address as the route to the IP literal `host` would use it; what we put into Via and SDP."""
        ...


_MAPPED = "::ffff:"


def _plain(host: str) -> str:
    """An IPv4 peer of a socket that speaks both families, by its own address (RFC 4291 2.5.5.2 maps it into IPv6)."""
    return host.removeprefix(_MAPPED) if host.startswith(_MAPPED) and "." in host else host


class _UdpSocket:
    def __init__(self, sock: trio.socket.SocketType, raw: socket.socket) -> None:
        self._sock = sock
        self._raw = raw  # the same one: Trio's wrapper has no way to send without a checkpoint
        name = sock.getsockname()
        self.address: Address = (name[0], name[1])

    async def send(self, data: bytes, destination: Address) -> None:
        try:
            await self._sock.sendto(data, destination)
        except trio.ClosedResourceError:
            raise
        except OSError:
            # ICMP errors of earlier datagrams surface here; the transaction's timers decide, not the socket.
            return

    def send_now(self, data: bytes, destination: Address) -> bool:
        try:
            self._raw.sendto(data, destination)
        except OSError:
            return False
        return True

    async def receive(self) -> tuple[bytes, Address]:
        while True:
            try:
                data, source = await self._sock.recvfrom(65535)
            except trio.ClosedResourceError:
                raise
            except OSError:
                continue
            return data, (_plain(source[0]), source[1])

    def close(self) -> None:
        self._sock.close()

    @property
    def raw(self) -> socket.socket | None:
        return self._raw


@contextmanager
def _naming(address: str) -> Iterator[None]:
    """The operating system does not say which address is taken; whoever starts a server wants to know."""
    try:
        yield
    except OSError as error:
        error.strerror = f"{error.strerror}: {address}"
        raise


async def _listen_everywhere(port: int) -> trio.SocketListener:
    """Trio's own way leaves IPv4 out on a socket for IPv6."""
    sock = trio.socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        await sock.bind(("::", port))
        sock.listen()
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


class RealNetwork:
    """The operating system's network, through Trio. `name_servers` are those of the system, if no others are given."""

    def __init__(self, name_servers: NameServers | None = None) -> None:
        self._name_servers = name_servers or NameServers()

    async def open_datagrams(self, host: str, port: int) -> Datagrams:
        """Bind a UDP socket of the family that `host` belongs to; one on "::" speaks IPv4 as well."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        raw = socket.socket(family, socket.SOCK_DGRAM)
        sock = trio.socket.from_stdlib_socket(raw)
        try:
            if host == "::":  # without this, some systems leave IPv4 out
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            with _naming(f"UDP {host}:{port}"):
                await sock.bind((host, port))
        except BaseException:
            sock.close()
            raise
        return _UdpSocket(sock, raw)

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """Happy-eyeballs TCP connect."""
        return await trio.open_tcp_stream(host, port)

    async def listen(self, host: str, port: int) -> trio.abc.Listener[trio.abc.Stream]:
        """Listen on one address; on "::" for both families."""
        with _naming(f"TCP {host}:{port}"):
            if host == "::":
                return await _listen_everywhere(port)
            listeners = await trio.open_tcp_listeners(port, host=host)
        for extra in listeners[1:]:
            await extra.aclose()
        return listeners[0]

    async def resolve(self, host: str) -> list[str]:
        """The system resolver; duplicates removed, order kept."""
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def lookup(self, name: str, kind: Kind) -> Answer:
        """Ask the name servers."""
        return await self._name_servers.ask(name, kind)

    def source_for(self, host: str) -> str:
        """Ask the routing table by connecting a UDP socket; nothing is sent."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((host, 9))
                return str(probe.getsockname()[0])
        except OSError:
            return "::1" if family == socket.AF_INET6 else "127.0.0.1"
