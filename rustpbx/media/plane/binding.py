"""The pairs of ports that legs are bound to, and whom the last call on each of them believed."""

from __future__ import annotations

import random

import attrs

from rustpbx.core import Address
from rustpbx.errors import OverloadedError
from rustpbx.media.plane.pool import PortPool
from rustpbx.media.plane.port import Ports

BIND_TRIES = 32
"""Ports tried for one leg: others on this machine may hold some of our range."""


@attrs.frozen
class Bound:
    """An even port and the next one, by the handles of RTP and RTCP; `former` may still be sending to it."""

    port: int
    rtp: int
    rtcp: int
    former: Address | None


class Bindings:
    """Binds on `host`, in the range `first`..`last`; a port rests for `quarantine` seconds after its use."""

    def __init__(  # noqa: PLR0917 - a range of ports, and what they are bound with
        self, ports: Ports, host: str, first: int, last: int, quarantine: float, rng: random.Random
    ) -> None:
        self._ports = ports
        self._host = host
        self._pool = PortPool(first, last, quarantine, rng)
        self._former: dict[int, Address] = {}

    def bind(self, now: float) -> Bound:
        """Bind a pair; ports that others hold rest like used ones. Raises `OverloadedError` if there is none."""
        for _ in range(BIND_TRIES):
            port = self._pool.take(now)
            try:
                rtp = self._ports.open(self._host, port)
            except OSError:
                self._pool.rest(port, now)
                continue
            try:
                return Bound(port, rtp, self._ports.open(self._host, port + 1), self._former.pop(port, None))
            except OSError:
                self._ports.close(rtp)
                self._pool.rest(port, now)
        raise OverloadedError(f"{BIND_TRIES} ports of the RTP range are held by others")

    def lend(self, now: float) -> int:
        """An even port for whoever binds it himself, with the next one. Raises `OverloadedError` if there is none."""
        return self._pool.take(now)

    def take_back(self, port: int, now: float) -> None:
        """Let a lent port rest."""
        self._pool.rest(port, now)

    def unbind(self, bound: Bound, believed: Address | None, now: float) -> None:
        """Let a pair rest; `believed` is who sent to it last."""
        self._ports.close(bound.rtp)
        self._ports.close(bound.rtcp)
        self._pool.rest(bound.port, now)
        if believed is not None:
            self._former[bound.port] = believed
