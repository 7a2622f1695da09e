"""What every call may use: the server's parts, handed in by the composition root."""

from __future__ import annotations

from typing import Protocol

import attrs

from rustpbx.media.fetch import Fetcher
from rustpbx.media.plane.plane import Plane
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Network
from rustpbx.sip.events import IncomingCall
from rustpbx.sip.shell.stack import Stack
from rustpbx.speech.registry import SpeechServices


class Announcer(Protocol):
    """Tells somebody that a phone rings; the webhook of `rustpbx.control`."""

    async def announce(self, call: IncomingCall, created_at: int) -> None:
        """Return once one receiver has taken it. Raises `RustpbxError` when none did."""
        ...


@attrs.frozen(kw_only=True)
class Services:
    """One per server. `stack` and `announcer` are None where SIP or the webhook is not configured."""

    clock: Clock
    network: Network
    plane: Plane
    fetcher: Fetcher
    speech: SpeechServices
    stack: Stack | None = None
    announcer: Announcer | None = None
