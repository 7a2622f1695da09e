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

import numpy as np

from rustpbx.core import Address
from rustpbx.errors import LocalError
from rustpbx.media.plane.bank import PACKET
from rustpbx.media.plane.stages import Bytes
from rustpbx.shell.network import Datagrams

RECEIVE_BUFFER = 256 * 1024
"""Bytes of kernel buffer asked for each socket: about a second of one call, so that a stall loses nothing."""


ROWS = 1024
"""Datagrams that are read before `recycle`."""

Datagram = tuple[int, int, int, Address]
"""One received: handle, row of `Ports.packets`, size, source."""

Parcel = tuple[int, memoryview, Address]
"""One to send: handle, data, destination."""


class Ports(Protocol):
    """Bound UDP sockets behind small integer handles."""

    @property
    def silent(self) -> bool:
        """Whether nothing ever comes or goes, as in tests of signalling: then the clock need not tick."""
        ...

    def open(self, host: str, port: int) -> int:
        """Bind `port` on the IP literal `host` and return its handle. Raises OSError if it is in use."""
        ...

    def adopt(self, sock: Datagrams) -> int:
        """Receive what comes to somebody else's socket, and send from it: its handle, until `close`.

        The socket stays its owner's, who must not receive on it meanwhile.
        """
        ...

    def close(self, handle: int) -> None:
        """Give the port back; an unknown handle is ignored."""
        ...

    @property
    def packets(self) -> Bytes:
        """Where datagrams are received: (rows, PACKET); what does not fit is cut off."""
        ...

    def receive(self) -> list[Datagram]:
        """Read what waits, at least one datagram from each socket that has one, into fresh rows; never waits.

        [] if none waits, or if there is no fresh row: `recycle` makes all rows fresh again.
        """
        ...

    def recycle(self) -> None:
        """What was received so far is not needed any more."""
        ...

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        """Send one datagram; False if the system refused it. `data` may be reused at once."""
        ...

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:
        """Send datagrams in order; the indices of those that the system refused."""
        ...


def bound_socket(host: str, port: int) -> socket.socket:
    """A non-blocking UDP socket. Raises OSError if the address is in use."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def lent_socket(sock: Datagrams) -> socket.socket:
    """Somebody else's socket under a descriptor of our own: either side may close its one."""
    if sock.raw is None:
        raise LocalError("a socket in memory cannot be lent to the operating system")
    return sock.raw.dup()


class RealPorts(Ports, Protocol):
    """`Ports` that own something of the operating system's."""

    def shutdown(self) -> None:
        """Close all sockets and what watches them; nothing works after that. Idempotent."""
        ...


class _Sockets:
    """What the two real implementations share: a socket per handle, the handle being its file descriptor."""

    silent = False

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self.packets: Bytes = np.zeros((ROWS, PACKET), np.uint8)
        self._views = [memoryview(row) for row in self.packets]
        self._row = 0

    def open(self, host: str, port: int) -> int:
        return self._hold(bound_socket(host, port))

    def adopt(self, sock: Datagrams) -> int:
        return self._hold(lent_socket(sock))

    def _hold(self, sock: socket.socket) -> int:
        try:
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

    def receive(self) -> list[Datagram]:
        received: list[Datagram] = []
        sockets, row = self._sockets, self._row
        if row == ROWS:
            return received
        for handle in self._ready(ROWS - row):
            try:
                size, source = sockets[handle].recvfrom_into(self._views[row])
            except OSError:
                continue  # the ICMP error of something we sent earlier: it is read off, and there is nothing else
            received.append((handle, row, size, source if len(source) == 2 else source[:2]))
            row += 1
        self._row = row
        return received

    def recycle(self) -> None:
        self._row = 0

    def shutdown(self) -> None:
        for handle in list(self._sockets):
            self.close(handle)
        self._close()

    def _close(self) -> None:
        raise NotImplementedError

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

    def _close(self) -> None:
        self._selector.close()


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

        def _close(self) -> None:
            self._epoll.close()


def real_ports() -> RealPorts:
    """The operating system's sockets, by the fastest means it has and allows: io_uring, epoll, or its best selector."""
    from rustpbx.media.plane.ring_ports import ring_ports  # noqa: PLC0415 - it builds on this module

    return ring_ports() or socket_ports()


def socket_ports() -> RealPorts:
    """The operating system's sockets, with a system call for each packet."""
    return EpollPorts() if hasattr(select, "epoll") else SelectorPorts()
