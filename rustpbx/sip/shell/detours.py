"""The last ways for a response that its connection and the address behind it did not take (RFC 3263 5)."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.events import Send
from rustpbx.sip.hop import Hop, is_literal
from rustpbx.sip.locate import Unlocated, locate_sent_by
from rustpbx.sip.message import Response
from rustpbx.sip.parser import parse_message
from rustpbx.sip.shell.dns import Names

MOST = 1000
"""Responses that are on such a way at one time; the oldest is given up for one more."""


class Detours:
    """The servers that the Via of a response names, one after the other. `fits` is as in `Names`."""

    def __init__(self, names: Names, rng: random.Random, fits: Callable[[str], bool]) -> None:
        self._names = names
        self._rng = rng
        self._fits = fits
        self._left: OrderedDict[bytes, list[Hop]] = OrderedDict()

    async def next(self, send: Send) -> Send | None:
        """The same response to the next server; None if there is no further one."""
        left = self._left.get(send.data)
        if left is None:
            left = self._left[send.data] = [hop for hop in await self._find(send) if _differ(hop, send.destination)]
            while len(self._left) > MOST:
                self._left.popitem(last=False)
        if not left:
            self._left.pop(send.data, None)
            return None
        return attrs.evolve(send, destination=left.pop(0))

    async def _find(self, send: Send) -> tuple[Hop, ...]:
        try:
            message = parse_message(send.data)
        except RemoteError:
            return ()
        if not isinstance(message, Response) or is_literal(message.via.host):
            return ()
        found = await self._names.run(locate_sent_by(message.via, self._rng, self._fits))
        return () if isinstance(found, Unlocated) else found


def _differ(one: Hop, other: Hop) -> bool:
    return (one.transport, one.address) != (other.transport, other.address)
