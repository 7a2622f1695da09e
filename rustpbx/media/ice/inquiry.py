"""Our checks that are not answered yet, and what each of them said (RFC 8445 7.2.2)."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rustpbx.media.ice.candidates import priority
from rustpbx.media.ice.pair import Pair
from rustpbx.media.ice.role import Role
from rustpbx.media.ice.stun import check_request
from rustpbx.media.sdp.ice import CandidateKind, IceDescription

MOST_ASKED = 500
"""Transactions that may still be answered; the oldest are forgotten."""


@attrs.frozen
class Inquiry:
    """One check, and what it said."""

    pair: Pair
    pwd: str
    controlling: bool
    nominating: bool
    consent: bool


class Inquiries:
    """By transaction id. `entropy(n)` gives n random bytes."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._open: dict[bytes, Inquiry] = {}

    def ask(
        self, pair: Pair, remote: IceDescription, ufrag: str, role: Role, *, nominating: bool, consent: bool
    ) -> bytes:
        """Remember a check on a pair, and return it. `ufrag` is ours."""
        transaction = self._entropy(12)
        preference = (pair.local.priority >> 8) & 0xFFFF
        request = check_request(
            transaction,
            f"{remote.ufrag}:{ufrag}",
            remote.pwd,
            priority(CandidateKind.PEER_REFLEXIVE, preference),
            role.tie_breaker,
            controlling=role.controlling,
            nominate=nominating,
        )
        while len(self._open) >= MOST_ASKED:
            del self._open[next(iter(self._open))]
        self._open[transaction] = Inquiry(pair, remote.pwd, role.controlling, nominating, consent)
        return request

    def find(self, transaction: bytes) -> Inquiry | None:
        """What was asked, if it may still be answered."""
        return self._open.get(transaction)

    def close(self, transaction: bytes) -> None:
        """It is answered."""
        del self._open[transaction]

    def clear(self) -> None:
        """Take no answer any more."""
        self._open.clear()
