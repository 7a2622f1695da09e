"""Which side controls, and how a conflict about that is settled (RFC 8445 6.1.1, 7.3.1.1)."""

from __future__ import annotations

from collections.abc import Callable

from aioice.stun import Message

from rustpbx.media.ice.stun import CONTROLLED, CONTROLLING


class Role:
    """`entropy(n)` gives n random bytes: each role that is taken has a tie-breaker of its own."""

    def __init__(self, *, controlling: bool, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self.take(controlling=controlling)

    def take(self, *, controlling: bool) -> None:
        """Play this role from now on."""
        self.controlling = controlling
        self.tie_breaker = int.from_bytes(self._entropy(8))

    def contested(self, check: Message) -> bool | None:
        """Who controls by the tie-breakers, if the peer wants the role that is ours: True for us; None if it does not.

        The larger tie-breaker controls. Where that is no change for us, the peer has to yield.
        """
        theirs = check.attributes.get(CONTROLLING if self.controlling else CONTROLLED)
        return None if theirs is None else self.tie_breaker >= theirs
