"""What DNS said, remembered: a bounded cache, one look-up at a time per question, a limit of time for each.

`Names.locate` runs the search of `rustpbx.sip.locate` with it.
"""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

import attrs
import trio

from rustpbx.journal import Journal
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Network
from rustpbx.shell.records import Answer, Record
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.locate import Question, Search, Unlocated, locate
from rustpbx.sip.uri import Uri

log = Journal(__name__)

MOST_NAMES = 1000
"""Answers that are remembered; the one that was used the longest ago goes first."""
MOST_WAITING = 1000
"""Searches that may wait for DNS at one time; one more fails at once."""
PATIENCE = 4.0
"""Seconds that one question may take. The next one is asked all the same: without SRV there may be an address."""
SHORTEST, LONGEST = 1.0, 3600.0
"""A TTL is taken as at least, and at most, so many seconds."""
ADDRESS_TTL = 60.0
"""Seconds that an address holds: the system's resolver, which knows the hosts file, does not tell a TTL."""
FAILURE_TTL = 5.0
"""Seconds that nobody is asked again where nobody answered: a dead name server costs one call its time, not each."""


@attrs.frozen
class _Known:
    records: tuple[Record, ...]
    until: float
    problem: str = ""


@attrs.define(eq=False)
class _Flight:
    """A look-up under way; those who wait for it find what it learnt."""

    landed: trio.Event = attrs.field(factory=trio.Event)
    known: _Known = _Known((), -math.inf, "the look-up was broken off")


class Names:
    """DNS for one SIP stack. `fits` says which IP literals its sockets can send to."""

    def __init__(self, network: Network, clock: Clock, rng: random.Random, fits: Callable[[str], bool]) -> None:
        self.counters: Counter[str] = Counter()
        self._network = network
        self._clock = clock
        self._rng = rng
        self._fits = fits
        self._known: OrderedDict[Question, _Known] = OrderedDict()
        self._flights: dict[Question, _Flight] = {}
        self._waiting = 0

    async def locate(self, uri: Uri, spoken: Sequence[Transport]) -> tuple[Hop, ...] | Unlocated:
        """The servers for a target, the best first; `spoken` are the transports that we have."""
        return await self.run(locate(uri, spoken, self._rng, self._fits))

    async def run(self, search: Search) -> tuple[Hop, ...] | Unlocated:
        """Carry out a search; questions of one step are asked together."""
        if self._waiting >= MOST_WAITING:
            self.counters["lookups_refused"] += 1
            return Unlocated("too many names are being looked up")
        self._waiting += 1
        problem = ""
        try:
            questions = next(search)
            while True:
                found = await self._ask_all(questions)
                problem = next((known.problem for known in found if known.problem), problem)
                questions = search.send(tuple(known.records for known in found))
        except StopIteration as end:
            outcome: tuple[Hop, ...] | Unlocated = end.value
        finally:
            self._waiting -= 1
        if isinstance(outcome, Unlocated) and problem:
            return Unlocated(f"{outcome.problem}: {problem}")
        return outcome

    async def _ask_all(self, questions: Sequence[Question]) -> list[_Known]:
        if len(questions) == 1:
            return [await self._ask(questions[0])]
        found: dict[Question, _Known] = {}

        async def ask(question: Question) -> None:
            found[question] = await self._ask(question)

        async with trio.open_nursery() as nursery:
            for question in questions:
                nursery.start_soon(ask, question)
        return [found[question] for question in questions]

    async def _ask(self, question: Question) -> _Known:
        question = attrs.evolve(question, name=question.name.lower())
        known = self._remembered(question)
        while known is None:
            flight = self._flights.get(question)
            if flight is None:
                return await self._look_up(question)
            await flight.landed.wait()
            # Who was asking may have been cancelled; then the next of those who waited asks.
            known = flight.known if flight.known.until >= self._clock.now() else self._remembered(question)
        return known

    def _remembered(self, question: Question) -> _Known | None:
        known = self._known.get(question)
        if known is None or known.until <= self._clock.now():
            return None
        self._known.move_to_end(question)
        return known

    async def _look_up(self, question: Question) -> _Known:
        flight = self._flights[question] = _Flight()
        try:
            flight.known = known = await self._learn(question)
        finally:
            del self._flights[question]
            flight.landed.set()
        self._known[question] = known
        self._known.move_to_end(question)
        while len(self._known) > MOST_NAMES:
            self._known.popitem(last=False)
        return known

    async def _learn(self, question: Question) -> _Known:
        self.counters["lookups"] += 1
        try:
            with trio.fail_after(PATIENCE):
                answer = await self._query(question)
        except trio.TooSlowError:
            problem = f"no answer in {PATIENCE:g} s"
        except (OSError, UnicodeError) as error:
            problem = str(error) or type(error).__name__
        else:
            ttl = min(max(answer.ttl, SHORTEST), LONGEST)
            return _Known(answer.records, self._clock.now() + ttl)
        self.counters["lookups_failed"] += 1
        log.info("DNS: %s of %s: %s", question.kind, question.name[:80], problem)
        return _Known((), self._clock.now() + FAILURE_TTL, problem)

    async def _query(self, question: Question) -> Answer:
        if question.kind == "ADDRESS":
            return Answer(tuple(await self._network.resolve(question.name)), ADDRESS_TTL)
        return await self._network.lookup(question.name, question.kind)
