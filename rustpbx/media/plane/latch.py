"""Whose RTP a leg believes: the address from SDP, or, shortly after SDP, one that proves to be a stream.

An attacker who sprays packets at open ports must neither be heard nor have our audio sent to him ("RTP Bleed"). So the
signalled address is believed at once and for good. Another one, as NAT makes it, is learned only within `LEARN_FOR`
seconds of `set_remote`, while the signalled address is silent, after `ENOUGH` packets in sequence of one SSRC from
it. What is learned is locked until the next `set_remote`, except that the signalled address, should it speak up within
those seconds, takes its place. An address that the port's last call ended with may still be sending to it, since our
BYE can be lost: it is never learned, only believed where SDP names it.
"""

from __future__ import annotations

import attrs

from rustpbx.core import Address

LEARN_FOR = 5.0
"""Seconds after `set_remote` in which an address other than the signalled one can be learned."""

ENOUGH = 5
"""Packets in sequence that make a stranger the peer."""

CANDIDATES = 4
"""Strangers looked at in one leg at the same time; more are dropped unseen."""


@attrs.define
class _Candidate:
    ssrc: int
    sequence: int
    run: int = 1


class Latch:
    """The believed source of one leg. `address` is None until someone is believed; `barred` is never learned."""

    def __init__(self, signalled: Address, now: float, barred: Address | None = None) -> None:
        self.signalled = signalled
        self._barred = barred
        self.address: Address | None = None
        self._until = now + LEARN_FOR
        self._candidates: dict[Address, _Candidate] = {}

    @property
    def send_to(self) -> Address:
        """Where our packets go: the believed address, before that the signalled one."""
        return self.address or self.signalled

    def may_learn(self, source: Address, now: float) -> bool:
        """Whether a packet from `source` could matter at all: cheap, for whoever has to open packets first."""
        if source in (self.address, self.signalled):
            return source == self.address or self.address is None or now <= self._until
        return self.address is None and now <= self._until and source != self._barred

    def offer(self, source: Address, ssrc: int, sequence: int, now: float) -> bool:
        """A well-formed RTP packet with an expected payload type came from `source`: is it the peer's?"""
        if not self.may_learn(source, now):
            return False
        if source in (self.address, self.signalled):
            return self._believe(source)
        seen = self._candidates.get(source)
        if seen is None:
            if len(self._candidates) < CANDIDATES:
                self._candidates[source] = _Candidate(ssrc, sequence)
            return False
        if seen.ssrc == ssrc and sequence == (seen.sequence + 1) & 0xFFFF:
            seen.run += 1
        else:
            seen.ssrc, seen.run = ssrc, 1
        seen.sequence = sequence
        return seen.run >= ENOUGH and self._believe(source)

    def _believe(self, source: Address) -> bool:
        self.address = source
        self._candidates.clear()
        return True
