"""What we know of the peer's addresses: its candidates, and its checks that came before its description."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import attrs

from rustpbx.core import Address
from rustpbx.media.ice.candidates import refusal
from rustpbx.media.sdp.ice import MOST_CANDIDATES, Candidate, CandidateKind


@attrs.frozen
class PeerCheck:
    """An authentic check of the peer: to which base, from where, with which ufrag; `wanted`: it nominates."""

    base: Address
    source: Address
    ufrag: str
    priority: int
    wanted: bool


class Remotes:
    """The peer's candidates by address. `counters` gets those that we do not touch, by reason."""

    def __init__(self, counters: Counter[str], *, allow_loopback: bool) -> None:
        self._counters = counters
        self._allow_loopback = allow_loopback
        self._by_address: dict[Address, Candidate] = {}
        self._early: list[PeerCheck] = []

    def all(self) -> list[Candidate]:
        """Those that we know."""
        return list(self._by_address.values())

    def clear(self) -> None:
        """Forget them."""
        self._by_address.clear()
        self._early.clear()

    def learn(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Take in what is of use, and return what was new."""
        found = []
        for candidate in candidates:
            problem = self._problem(candidate)
            if problem:
                self._counters[problem] += 1
                continue
            self._by_address[candidate.address] = candidate
            found.append(candidate)
        return found

    def _problem(self, candidate: Candidate) -> str | None:
        if candidate.component != 1 or candidate.transport != "udp":
            return "ice_candidates_of_no_use"
        if candidate.is_name:
            return "ice_names"  # only the peer's network can resolve it; its checks will show the address
        if refusal(candidate.address, allow_loopback=self._allow_loopback):
            return "ice_candidates_refused"
        if candidate.address in self._by_address:
            return "ice_candidates_repeated"
        return "ice_candidates_too_many" if len(self._by_address) >= MOST_CANDIDATES else None

    def source_of(self, check: PeerCheck) -> Candidate | None:
        """The candidate that a check came from, a peer-reflexive one if need be (7.3.1.3); None for one too many."""
        found = self._by_address.get(check.source)
        if found is not None:
            return found
        if len(self._by_address) >= MOST_CANDIDATES:
            self._counters["ice_candidates_too_many"] += 1
            return None
        kind = CandidateKind.PEER_REFLEXIVE
        found = Candidate(f"prflx{len(self._by_address)}", check.priority, check.source, kind)
        self._by_address[check.source] = found
        return found

    def keep(self, check: PeerCheck) -> None:
        """Keep a check until the peer's description is there."""
        if check not in self._early and len(self._early) < MOST_CANDIDATES:
            self._early.append(check)

    def kept(self, ufrag: str) -> list[PeerCheck]:
        """Give out the kept checks of this ufrag; the others are forgotten."""
        early, self._early = self._early, []
        return [check for check in early if check.ufrag == ufrag]
