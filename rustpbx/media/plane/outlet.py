"""`Outlet`: where packets leave. Most go to `Ports`; a leg whose path is somebody else's (ICE) has a carrier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rustpbx.core import Address
from rustpbx.media.plane.port import Parcel, Ports

Carrier = Callable[[bytes], bool]
"""Takes one packet to the peer, at once; False if it cannot."""


class Outlet:
    """Sends by handle. Handles of carriers are negative, so that they are nobody else's."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._carriers: dict[int, Carrier] = {}
        self._last = -1

    def connect(self, carrier: Carrier) -> int:
        """A handle for a carrier, until `disconnect`."""
        self._last -= 1
        self._carriers[self._last] = carrier
        return self._last

    def disconnect(self, handle: int) -> None:
        """Send nothing that way any more."""
        self._carriers.pop(handle, None)

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        """See `Ports.send`. A carrier knows its destination."""
        if handle >= 0:
            return self._ports.send(handle, data, destination)
        carrier = self._carriers.get(handle)
        return carrier is not None and carrier(bytes(data))

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:
        """See `Ports.send_all`."""
        if not self._carriers:
            return self._ports.send_all(parcels)
        ported = [at for at, parcel in enumerate(parcels) if parcel[0] >= 0]
        refused = [ported[at] for at in self._ports.send_all([parcels[at] for at in ported])]
        carried = [at for at, parcel in enumerate(parcels) if parcel[0] < 0]
        return sorted([*refused, *(at for at in carried if not self.send(*parcels[at]))])
