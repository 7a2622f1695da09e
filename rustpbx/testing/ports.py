"""`MemoryPorts`: the media plane's datagram ports (`rustpbx.media.plane.port.Ports`) on an in-memory wire."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np

from rustpbx.core import Address
from rustpbx.media.plane.bank import PACKET
from rustpbx.media.plane.port import ROWS, Datagram, Parcel
from rustpbx.media.plane.stages import Bytes
from rustpbx.shell.network import Datagrams
from rustpbx.testing.network import MemoryDatagrams, own_ip
from rustpbx.testing.wire import Wire

RECEIVE_QUEUE = 64  # datagrams per port, more than a second of audio; a full queue drops the newest, as a kernel does


class MemoryPorts:
    """The ports of the host `ip`. Handles are small integers that are never used twice."""

    silent = False

    def __init__(self, wire: Wire, ip: str) -> None:
        self.wire = wire
        self.ip = ip
        self._handles = itertools.count(1)
        self._queues: dict[int, deque[tuple[bytes, Address]]] = {}
        self._addresses: dict[int, Address] = {}
        self._adopted: dict[int, MemoryDatagrams] = {}
        self._ready: dict[int, None] = {}  # an ordered set
        self.packets: Bytes = np.zeros((ROWS, PACKET), np.uint8)
        self._row = 0

    def open(self, host: str, port: int) -> int:
        """Bind a port. Raises OSError (EADDRINUSE, EADDRNOTAVAIL)."""
        ip = own_ip(self.ip, host)
        handle = next(self._handles)
        self._addresses[handle] = self.wire.bind(ip, port, partial(self._deliver, handle))
        self._queues[handle] = deque()
        return handle

    def adopt(self, sock: Datagrams) -> int:
        """Receive what comes to somebody else's socket, and send from it, until `close`."""
        assert isinstance(sock, MemoryDatagrams)  # noqa: S101 - a wire has no others
        handle = next(self._handles)
        self._addresses[handle] = sock.bound
        self._queues[handle] = deque()
        self._adopted[handle] = sock
        sock.divert(partial(self._deliver, handle))
        return handle

    def _deliver(self, handle: int, data: bytes, source: Address) -> bool:
        queue = self._queues[handle]
        if len(queue) >= RECEIVE_QUEUE:
            return False
        queue.append((data, source))
        self._ready[handle] = None
        return True

    def close(self, handle: int) -> None:
        """Give a port back; what it had not read is lost. An unknown handle is ignored."""
        if handle in self._addresses:
            address, adopted = self._addresses.pop(handle), self._adopted.pop(handle, None)
            if adopted is None:
                self.wire.unbind(address)
            else:
                adopted.divert(None)
            del self._queues[handle]
            self._ready.pop(handle, None)

    def receive(self) -> list[Datagram]:
        """Read one datagram from each port that has one, as (handle, row of `packets`, size, source)."""
        received: list[Datagram] = []
        for handle, row in zip(list(self._ready), range(self._row, ROWS), strict=False):
            queue = self._queues[handle]
            data, source = queue.popleft()
            if not queue:
                del self._ready[handle]
            size = min(len(data), PACKET)
            self.packets[row, :size] = np.frombuffer(data, np.uint8, size)
            received.append((handle, row, size, source))
        self._row += len(received)
        return received

    def recycle(self) -> None:
        """What was received so far is not needed any more."""
        self._row = 0

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        """Send one datagram; False on a closed handle."""
        if handle not in self._addresses:
            return False
        self.wire.send(self._addresses[handle], destination, bytes(data))
        return True

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:
        """Send datagrams in order; the indices of those on closed handles."""
        return [index for index, parcel in enumerate(parcels) if not self.send(*parcel)]
