"""What every sans-IO core has in common: inputs come with `now`, effects are returned, deadlines have a reason.

A core never waits, never reads a clock and never touches a socket. The shell that owns it calls
`handle(input, now)` for each thing that happened, performs the returned effects in order, and calls
again with `Tick()` when `deadline()` has passed (`rustpbx.shell.drive`).
"""

from __future__ import annotations

import math
from typing import Protocol, TypeVar

import attrs

Address = tuple[str, int]
"""Host (an IP literal once resolved) and port."""


def address_text(address: Address) -> str:
    """`10.0.0.2:5060`, `[2001:db8::2]:5060`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


InputT_contra = TypeVar("InputT_contra", contravariant=True)
EffectT = TypeVar("EffectT")


@attrs.frozen
class Tick:
    """The input that says: time has passed, look at your timers."""


@attrs.frozen(order=True)
class Deadline:
    """When a core wants its next `Tick`, in seconds of the monotonic clock, and why (for logs)."""

    at: float
    reason: str = attrs.field(default="", order=False)


NEVER = Deadline(math.inf, "nothing armed")


class Core(Protocol[InputT_contra, EffectT]):
    """The three members of a sans-IO core."""

    def handle(self, what: InputT_contra | Tick, now: float) -> list[EffectT]:
        """Take one input at `now` (seconds, monotonic) and return the effects it causes, in order."""
        ...

    def deadline(self) -> Deadline:
        """When the next `Tick` is due; `NEVER` if no timer is armed."""
        ...

    @property
    def done(self) -> bool:
        """True once nothing can happen any more."""
        ...
