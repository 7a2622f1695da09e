"""`NullPorts`: media ports for calls that are only signalled, an hour of which passes in an instant."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Sequence

import numpy as np

from rustpbx.core import Address
from rustpbx.media.plane.port import Datagram, Parcel
from rustpbx.media.plane.stages import Bytes
from rustpbx.shell.network import Datagrams
from rustpbx.testing.wire import os_error


class NullPorts:
    """Ports that can be opened, swallow what is sent and receive nothing (`rustpbx.media.plane.port.Ports`).

    They are `silent`, so the media clock rests: nothing is played, a playback does not end, nobody is heard.
    """

    silent = True

    def __init__(self) -> None:
        self.packets: Bytes = np.zeros((1, 1), np.uint8)
        self._handles = itertools.count(1)
        self._open: dict[int, tuple[str, int]] = {}

    @property
    def bound(self) -> list[Address]:
        """What is open, sorted: for tests of tidiness."""
        return sorted(self._open.values())

    def open(self, host: str, port: int) -> int:
        """Take a port. Raises OSError (EADDRINUSE)."""
        if (host, port) in self._open.values():
            raise os_error(errno.EADDRINUSE)
        handle = next(self._handles)
        self._open[handle] = (host, port)
        return handle

    def adopt(self, sock: Datagrams) -> int:
        """Take somebody else's socket."""
        handle = next(self._handles)
        self._open[handle] = sock.address
        return handle

    def close(self, handle: int) -> None:
        """Give a port back; an unknown handle is ignored."""
        self._open.pop(handle, None)

    def receive(self) -> list[Datagram]:
        """Nothing ever."""
        return []

    def recycle(self) -> None:
        """Nothing to do."""

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:  # noqa: ARG002 - swallowed
        """Swallow it; False on a closed handle."""
        return handle in self._open

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:
        """Swallow them; the indices of those on closed handles."""
        return [index for index, parcel in enumerate(parcels) if not self.send(*parcel)]
