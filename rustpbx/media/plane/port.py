"""`Ports`: the datagram sockets of the media plane, synchronous and never waiting.

The plane asks once per tick which sockets hold data and reads only those. The sockets are not known to Trio, stay
unconnected (whose packets count is decided by `rustpbx.media.plane.latch`), and are non-blocking.
"""

from __future__ import annotations

import select
import selectors
import socket
from typing import Protocol

from rustpbx.core import Address

RECEIVE_BUFFER = 256 * 1024
"""Bytes of kernel buffer asked for each socket: about a second of one call, so that a stall loses nothing."""


class Ports(Protocol):
    """Bound UDP sockets behind small integer handles."""

    def open(self, host: str, port: int) -> int:
        """Bind `port` on the IP literal `host` and return its handle. Raises OSError if it is in use."""
        ...

    def close(self, handle: int) -> None:
        """Give the port back; an unknown handle is ignored."""
        ...

    def ready(self) -> list[int]:
        """The handles with at least one datagram waiting, each once; never waits."""
        ...

    def receive_into(self, handle: int, buffer: memoryview) -> tuple[int, Address] | None:
        """Read one datagram: its size and source, or None if none waits. What does not fit `buffer` is cut off."""
        ...

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        """Send one datagram; False if the system refused it. `data` may be reused at once."""
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

    def receive_into(self, handle: int, buffer: memoryview) -> tuple[int, Address] | None:
        try:
            size, source = self._sockets[handle].recvfrom_into(buffer)
        except (OSError, KeyError):
            # Nothing there, or an ICMP error of something we sent earlier: both mean that there is nothing to read.
            return None
        return (size, source) if len(source) == 2 else (size, (source[0], source[1]))

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        try:
            self._sockets[handle].sendto(data, destination)
        except (OSError, KeyError):
            return False
        return True

    def _watch(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def _unwatch(self, sock: socket.socket) -> None:
        raise NotImplementedError


class SelectorPorts(_Sockets):
    """Anywhere: the standard library's best selector."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = selectors.DefaultSelector()

    def ready(self) -> list[int]:
        """Ask the selector, not waiting."""
        if not self._sockets:
            return []
        return [key.fd for key, _ in self._selector.select(0)]

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

        def ready(self) -> list[int]:
            """Ask epoll, not waiting."""
            return [fd for fd, _ in self._epoll.poll(0, max(1, len(self._sockets)))]

        def _watch(self, sock: socket.socket) -> None:
            self._epoll.register(sock.fileno(), select.EPOLLIN)

        def _unwatch(self, sock: socket.socket) -> None:
            self._epoll.unregister(sock.fileno())


def real_ports() -> Ports:
    """The operating system's sockets, by the fastest means it has."""
    if hasattr(select, "epoll"):
        return EpollPorts()
    return SelectorPorts()
