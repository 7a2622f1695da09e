"""`Ports`: the datagram sockets of the media plane, synchronous and never waiting.

The plane reads and sends for all calls at once; only sockets that hold data are read. The sockets are not known to
Trio, stay unconnected (whose packets count is decided by `rustpbx.media.plane.latch`), and are non-blocking.
"""

from __future__ import annotations

import select
import selectors
import socket
from collections.abc import Sequence
from typing import Protocol

from rustpbx.core import Address

RECEIVE_BUFFER = 256 * 1024
"""Bytes of kernel buffer asked for each socket: about a second of one call, so that a stall loses nothing."""


Datagram = tuple[int, int, Address]
"""One received: handle, size, source."""

Parcel = tuple[int, memoryview, Address]
"""One to send: handle, data, destination."""


class Ports(Protocol):
    """Bound UDP sockets behind small integer handles."""

    def open(self, host: str, port: int) -> int:
        """Bind `port` on the IP literal `host` and return its handle. Raises OSError if it is in use."""
        ...

    def close(self, handle: int) -> None:
        """Give the port back; an unknown handle is ignored."""
        ...

    def receive(self, buffers: Sequence[memoryview], first: int = 0) -> list[Datagram]:
        """Read one datagram from each socket that has one, the n-th into `buffers[first + n]`; never waits.

        [] if none waits. What does not fit a buffer is cut off; sockets beyond the last buffer keep theirs.
        """
        ...

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        """Send one datagram; False if the system refused it. `data` may be reused at once."""
        ...

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:
        """Send datagrams in order; the indices of those that the system refused."""
        ...


class _Sockets:
    """What the two real implementations share: a socket per handle, the handle being its file descriptor."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def open(self, host: str, port: int) -> int:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            sock.bind((host, port))
            self._watch(sock)
        except BaseException:
            sock.close()
            raise
        self._sockets[sock.fileno()] = sock
        return sock.fileno()

    def close(self, handle: int) -> None:
        sock = self._sockets.pop(handle, None)
        if sock is not None:
            self._unwatch(sock)
            sock.close()

    def receive(self, buffers: Sequence[memoryview], first: int = 0) -> list[Datagram]:
        received: list[Datagram] = []
        sockets, row = self._sockets, first
        for handle in self._ready(len(buffers) - first):
            try:
                size, source = sockets[handle].recvfrom_into(buffers[row])
            except OSError:
                continue  # the ICMP error of something we sent earlier: it is read off, and there is nothing else
            received.append((handle, size, source if len(source) == 2 else source[:2]))
            row += 1
        return received

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        try:
            self._sockets[handle].sendto(data, destination)
        except (OSError, KeyError):
            return False
        return True

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:
        refused = []
        sockets = self._sockets
        for index, (handle, data, destination) in enumerate(parcels):
            try:
                sockets[handle].sendto(data, destination)
            except (OSError, KeyError):
                refused.append(index)
        return refused

    def _ready(self, most: int) -> list[int]:
        raise NotImplementedError

    def _watch(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def _unwatch(self, sock: socket.socket) -> None:
        raise NotImplementedError


class SelectorPorts(_Sockets):
    """Anywhere: the standard library's best selector."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = selectors.DefaultSelector()

    def _ready(self, most: int) -> list[int]:
        if not self._sockets:
            return []
        return [key.fd for key, _ in self._selector.select(0)[:most]]

    def _watch(self, sock: socket.socket) -> None:
        self._selector.register(sock, selectors.EVENT_READ)

    def _unwatch(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)


if hasattr(select, "epoll"):

    class EpollPorts(_Sockets):
        """Linux: one epoll of our own, level-triggered."""

        def __init__(self) -> None:
            super().__init__()
            self._epoll = select.epoll()

        def _ready(self, most: int) -> list[int]:
            return [fd for fd, _ in self._epoll.poll(0, most)]

        def _watch(self, sock: socket.socket) -> None:
            self._epoll.register(sock.fileno(), select.EPOLLIN)

        def _unwatch(self, sock: socket.socket) -> None:
            self._epoll.unregister(sock.fileno())


def real_ports() -> Ports:
    """The operating system's sockets, by the fastest means it has."""
    if hasattr(select, "epoll"):
        return EpollPorts()
    return SelectorPorts()
