"""`MemoryPorts`: the media plane's datagram ports (`rustpbx.media.plane.port.Ports`) on an in-memory wire."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence

from rustpbx.core import Address
from rustpbx.media.plane.port import Datagram, Parcel
from rustpbx.testing.network import own_ip
from rustpbx.testing.wire import Wire

RECEIVE_QUEUE = 64  # datagrams per port, more than a second of audio; a full queue drops the newest, as a kernel does


class MemoryPorts:
    """The ports of the host `ip`. Handles are small integers that are never used twice."""

    def __init__(self, wire: Wire, ip: str) -> None:
        self.wire = wire
        self.ip = ip
        self._handles = itertools.count(1)
        self._queues: dict[int, deque[tuple[bytes, Address]]] = {}
        self._addresses: dict[int, Address] = {}
        self._ready: dict[int, None] = {}  # an ordered set

    def open(self, host: str, port: int) -> int:
        """Bind a port. Raises OSError (EADDRINUSE, EADDRNOTAVAIL)."""
        ip = own_ip(self.ip, host)
        handle = next(self._handles)

        def deliver(data: bytes, source: Address) -> bool:
            queue = self._queues[handle]
            if len(queue) >= RECEIVE_QUEUE:
                return False
            queue.append((data, source))
            self._ready[handle] = None
            return True

        self._addresses[handle] = self.wire.bind(ip, port, deliver)
        self._queues[handle] = deque()
        return handle

    def close(self, handle: int) -> None:
        """Give a port back; what it had not read is lost. An unknown handle is ignored."""
        if handle in self._addresses:
            self.wire.unbind(self._addresses.pop(handle))
            del self._queues[handle]
            self._ready.pop(handle, None)

    def receive(self, buffers: Sequence[memoryview], first: int = 0) -> list[Datagram]:
        """Read one datagram from each port that has one, the n-th into `buffers[first + n]` (cut to its length)."""
        received: list[Datagram] = []
        for handle, buffer in zip(list(self._ready), itertools.islice(buffers, first, None), strict=False):
            queue = self._queues[handle]
            data, source = queue.popleft()
            if not queue:
                del self._ready[handle]
            size = min(len(data), len(buffer))
            buffer[:size] = data[:size]
            received.append((handle, size, source))
        return received

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        """Send one datagram; False on a closed handle."""
        if handle not in self._addresses:
            return False
        self.wire.send(self._addresses[handle], destination, bytes(data))
        return True

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:
        """Send datagrams in order; the indices of those on closed handles."""
        return [index for index, parcel in enumerate(parcels) if not self.send(*parcel)]
