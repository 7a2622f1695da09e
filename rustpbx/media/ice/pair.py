"""A candidate pair, and the list of all of them in the order in which they are checked (RFC 8445 6.1.2)."""

from __future__ import annotations

from collections import deque

from rustpbx.core import Address
from rustpbx.machine import Machine
from rustpbx.media.ice.tables import ICE_PAIR, PairAction, PairState, PairTrigger
from rustpbx.media.sdp.ice import Candidate

MOST_PAIRS = 100
"""Pairs of one list (6.1.2.5)."""

FIRST_WAIT = 0.5
LAST_RESEND = 6
TIMEOUT = 39.5
"""A check is sent at 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s, and fails at 39.5 s (14.3, RFC 8489 6.2.1)."""

_NEVER_AGAIN = 2 * TIMEOUT

OPEN = frozenset({PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS})
"""Nobody knows yet whether it works."""

VALID = frozenset({PairState.SUCCEEDED, PairState.NOMINATING, PairState.NOMINATED})
"""It works."""


class Pair:
    """One of our bases and one of the peer's candidates. `wanted`: the peer has nominated it, perhaps too early."""

    def __init__(self, local: Candidate, remote: Candidate) -> None:
        self.local = local
        self.remote = remote
        self.wanted = False
        self.request = b""
        """The check under way, to be sent again as it is."""
        self.machine = Machine(ICE_PAIR, self._duration)
        self._wait = FIRST_WAIT
        self._resends = 0

    @property
    def state(self) -> PairState:
        """Where it stands."""
        return self.machine.state

    @property
    def base(self) -> Address:
        """Where we send from."""
        return self.local.address

    @property
    def foundation(self) -> tuple[str, str]:
        """Equal for pairs that probably fare alike (5.1.1.3)."""
        return self.local.foundation, self.remote.foundation

    def priority(self, *, controlling: bool) -> int:
        """The formula of section 6.1.2.3."""
        own, other = self.local.priority, self.remote.priority
        given, taken = (own, other) if controlling else (other, own)
        return (min(given, taken) << 32) + 2 * max(given, taken) + (given > taken)

    def step(self, trigger: PairTrigger, now: float) -> tuple[PairAction, ...]:
        """One step of its table; a check begins with the first wait."""
        if trigger in (PairTrigger.CHECK, PairTrigger.NOMINATE):
            self._wait, self._resends = FIRST_WAIT, 0
        elif trigger is PairTrigger.RESEND_TIMER:
            self._wait, self._resends = self._wait * 2, self._resends + 1
        return self.machine.step(trigger, now)

    def _duration(self, trigger: PairTrigger) -> float:
        if trigger is PairTrigger.CHECK_TIMEOUT:
            return TIMEOUT
        return self._wait if self._resends < LAST_RESEND else _NEVER_AGAIN


class Checklist:
    """All pairs, best first; `triggered` are those whose turn comes before the others' (6.1.4.1)."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.triggered: deque[Pair] = deque()

    def find(self, base: Address, remote: Address) -> Pair | None:
        """The pair of two addresses."""
        return next((p for p in self.pairs if p.base == base and p.remote.address == remote), None)

    def add(self, pair: Pair, *, controlling: bool) -> bool:
        """Take in one more; of too many, the worst that is not known to work gives way. False if that is this one."""
        self.pairs.append(pair)
        self.sort(controlling=controlling)
        if len(self.pairs) > MOST_PAIRS:
            worst = next((p for p in reversed(self.pairs) if p.state not in VALID), pair)
            self.remove(worst)
        return pair in self.pairs

    def remove(self, pair: Pair) -> None:
        """Forget it; it does nothing more."""
        pair.machine.step(PairTrigger.DROP, 0.0)
        self.pairs.remove(pair)
        if pair in self.triggered:
            self.triggered.remove(pair)

    def clear(self) -> None:
        """Forget all."""
        for pair in list(self.pairs):
            self.remove(pair)

    def sort(self, *, controlling: bool) -> None:
        """Put the best first."""
        self.pairs.sort(key=lambda p: p.priority(controlling=controlling), reverse=True)

    def best(self, *states: PairState) -> Pair | None:
        """The best pair in one of these states."""
        return next((p for p in self.pairs if p.state in states), None)

    def improves(self, pair: Pair, path: Pair | None, *, controlling: bool) -> bool:
        """Whether a nominated pair takes the place of the path: any does for one from before a restart."""
        if path is None or path not in self.pairs:
            return True
        return pair.priority(controlling=controlling) > path.priority(controlling=controlling)

    def drop_below(self, path: Pair) -> None:
        """What is worse than the path, and not known to work, is of no interest any more (8.1.2)."""
        for pair in self.pairs[self.pairs.index(path) + 1 :]:
            if pair.state not in VALID:
                self.remove(pair)

    def enqueue(self, pair: Pair) -> None:
        """Have it checked soon; a pair is in the queue once."""
        if pair not in self.triggered:
            self.triggered.append(pair)

    def take(self, now: float, *, ordinary: bool) -> Pair | None:
        """The pair whose turn it is (6.1.4.2), a triggered one first; `ordinary` says that others have turns, too."""
        while self.triggered:
            pair = self.triggered.popleft()
            if pair.state is PairState.WAITING:
                return pair
        if not ordinary:
            return None
        return self.best(PairState.WAITING) or self._thaw(now)

    def _thaw(self, now: float) -> Pair | None:
        """The best frozen pair of a foundation that nobody is busy with."""
        busy = {p.foundation for p in self.pairs if p.state in (PairState.WAITING, PairState.IN_PROGRESS)}
        pair = next((p for p in self.pairs if p.state is PairState.FROZEN and p.foundation not in busy), None)
        if pair is not None:
            pair.step(PairTrigger.UNFREEZE, now)
        return pair

    def unfreeze_like(self, pair: Pair, now: float) -> None:
        """A pair works: its like probably do (7.2.5.3.3)."""
        for other in self.pairs:
            if other.foundation == pair.foundation:
                other.step(PairTrigger.UNFREEZE, now)

    def has_turns(self, *, ordinary: bool) -> bool:
        """Whether `take` would find one."""
        return bool(self.triggered) or (
            ordinary and any(p.state in (PairState.WAITING, PairState.FROZEN) for p in self.pairs)
        )
