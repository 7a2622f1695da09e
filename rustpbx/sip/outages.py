"""Servers that did not answer, or said how long to leave them alone: they are tried last for a while."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable

from rustpbx.core import Address
from rustpbx.sip.hop import Hop
from rustpbx.sip.message import Response

MOST = 1000
"""Servers that are remembered as down; the one noted the longest ago is forgotten first."""
_SECONDS = re.compile(r"[ \t]*([0-9]{1,9})")

_Key = tuple[str, Address]


class Outages:
    """Until when each server is to be left alone, in the monotonic seconds of `now`."""

    def __init__(self) -> None:
        self._until: OrderedDict[_Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def note(self, hop: Hop, seconds: float, now: float) -> None:
        """A server failed: try others first for so long."""
        key = _key(hop)
        self._until[key] = max(now + seconds, self._until.get(key, now))
        self._until.move_to_end(key)
        while len(self._until) > MOST:
            self._until.popitem(last=False)

    def clear(self, hop: Hop) -> None:
        """A server has answered."""
        self._until.pop(_key(hop), None)

    def order(self, hops: Iterable[Hop], now: float) -> list[Hop]:
        """The hops with those that are down behind the others, in the same order otherwise. None is left out."""
        return sorted(hops, key=lambda hop: self._until.get(_key(hop), now) > now)


def retry_after(response: Response) -> float:
    """The seconds of a Retry-After (RFC 3261 20.33), its comment and parameters ignored; 0 without one."""
    found = _SECONDS.match(response.header("Retry-After") or "")
    return float(found[1]) if found else 0.0


def _key(hop: Hop) -> _Key:
    return hop.transport, hop.address
