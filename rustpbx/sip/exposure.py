"""Keys of SRTP in signalling that others can read: said once a call, since RFC 4568 trusts the signalling with them."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from rustpbx.journal import Journal
from rustpbx.sip.hop import Hop, is_literal

_KEYS = b"\na=crypto:"
MOST = 1000
"""Calls remembered as told; a longer-lived one may be told again."""


class Exposure:
    """Looks at every message that leaves."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, None] = OrderedDict()
        self._log = Journal(__name__)

    def look(self, data: bytes, peer: Hop, call: str) -> None:
        """A message goes to `peer`, of the call `call`."""
        if _KEYS not in data or peer.transport.secure or call in self._told or _stays_here(peer):
            return
        self._told[call] = None
        if len(self._told) > MOST:
            self._told.popitem(last=False)
        self._log.warning(
            "SRTP keys go out in the clear, by %s: whoever reads the signalling can hear the call",
            peer.transport.value,
            call=call,
        )


def _stays_here(peer: Hop) -> bool:
    host = peer.address[0]
    return is_literal(host) and ipaddress.ip_address(host).is_loopback
