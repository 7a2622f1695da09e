"""Whole calls by script over a wire on which one datagram overtakes, or is overtaken by, any other.

A `Script` says what each side's session does when it is told something. A `Play` of it runs once, with one datagram
held back until some later one has arrived, or lost for good; everything else takes `HOP` seconds. What must hold then,
whatever was held, is `check_all`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs

from rustpbx.sip.events import AcceptOffer, CallLost, Fact, HangUp, OfferReceived, Wish
from rustpbx.sip.tables import CallState, OfferState
from tests.kit.fork import EDGE, Fork
from tests.kit.hostile_calls import CAROL, Book, User
from tests.kit.peers_sip import ALICE, ANSWER, BOB, LEG, Packet, invite_wish
from tests.kit.wire_rules import check_requests, check_responses

HOP = 0.01
"""Seconds that a datagram takes."""

HELD = 4.0
"""Seconds that one may be held back at most: a network forgets it then (T4 is 5)."""

CURTAIN = 90.0
"""When whoever is still in a call hangs up."""

QUIET = 400.0
"""Seconds after which nothing is left."""

Make = Callable[[str], Wish]
Part = Mapping[type[Fact], tuple[tuple[float, Make], ...]]
"""What a session wishes, and how many seconds after it was first told which kind of fact."""


@attrs.frozen(kw_only=True)
class Script:
    """One call: what Alice, who places it, does, and Bob, and Carol where it forks; `after` counts from the INVITE."""

    name: str
    alice: Part = attrs.field(factory=dict)
    bob: Part = attrs.field(factory=dict)
    carol: Part | None = None
    after: tuple[tuple[float, Make], ...] = ()


@attrs.frozen
class Held:
    """The datagram with this number (from 0, in the order in which they set out) arrives after the one numbered `past`.

    `past` None loses it.
    """

    number: int
    past: int | None


@attrs.define(eq=False)
class Play:
    """One performance. `sent` are all datagrams in the order in which they set out."""

    script: Script
    held: Held | None = None
    now: float = 0.0
    sent: list[Packet] = attrs.field(factory=list)
    _flying: list[tuple[float, int]] = attrs.field(factory=list)
    _waiting: tuple[float, int] | None = None
    _agenda: list[tuple[float, User, Book, Make]] = attrs.field(factory=list)
    _heard: dict[int, int] = attrs.field(factory=dict)
    alice: User = attrs.field(init=False)
    users: list[User] = attrs.field(init=False)
    _fork: Fork | None = attrs.field(init=False)
    _parts: dict[int, Part] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.users = [User(at, 11 + i) for i, at in enumerate((ALICE, BOB, CAROL))]
        self.alice = self.users[0]
        self._fork = Fork((BOB, CAROL)) if self.script.carol is not None else None
        parts = (self.script.alice, self.script.bob, self.script.carol or {})
        self._parts = {id(user): part for user, part in zip(self.users, parts, strict=True)}

    def run(self) -> Play:
        """From the first INVITE until nothing is left."""
        destination = self._fork.address if self._fork is not None else None
        self._put(self.alice.dial(invite_wish(destination=destination), self.now))
        book = self.alice.books[LEG]
        self._agenda += [(delay, self.alice, book, make) for delay, make in self.script.after]
        self._until(CURTAIN)
        self.check_agreement()
        for user, book in self.legs():
            self._put(user.wish(book, HangUp(book.leg), self.now))
        self._until(CURTAIN + QUIET)
        return self

    def legs(self) -> Iterator[tuple[User, Book]]:
        """All that there were."""
        return ((user, book) for user in self.users for book in user.books.values())

    # -- time and wire ------------------------------------------------------------------------------------------------

    def _until(self, end: float) -> None:
        while True:
            at = min(self._next_times())
            if at > end:
                self.now = end
                return
            self.now = max(self.now, at)
            self._step()

    def _next_times(self) -> Iterator[float]:
        yield from (at for at, _ in self._flying)
        yield from (at for at, *_ in self._agenda)
        yield from (user.deadline() for user in self.users)
        yield self._waiting[0] if self._waiting is not None else float("inf")

    def _step(self) -> None:
        """The one thing that is due first: what arrives, then what is wished, then what time brings."""
        arriving = next((one for one in self._flying if one[0] <= self.now), None)
        if arriving is None and self._waiting is not None and self._waiting[0] <= self.now:
            arriving, self._waiting = self._waiting, None
            self._arrive(arriving[1])
        elif arriving is not None:
            self._flying.remove(arriving)
            self._arrive(arriving[1])
        elif any(at <= self.now for at, *_ in self._agenda):
            due = min(self._agenda, key=lambda entry: entry[0])
            self._agenda.remove(due)
            _, user, book, make = due
            self._put(user.wish(book, make(book.leg), self.now))
        else:
            for user in self.users:
                if user.deadline() <= self.now:
                    self._put(user.tick(self.now))
        self._react()
        for user in self.users:
            if user.deadline() > self.now:  # else its time comes in the next step
                user.check(self.now)

    def _put(self, packets: list[Packet]) -> None:
        for packet in packets:
            number = len(self.sent)
            self.sent.append(attrs.evolve(packet, at=self.now))
            if self.held is None or self.held.number != number:
                self._flying.append((self.now + HOP, number))
            elif self.held.past is not None:
                self._waiting = self.now + HELD, number

    def _arrive(self, number: int) -> None:
        packet = self.sent[number]
        for user in self.users:
            if user.address == packet.destination:
                self._put(user.receive(packet, self.now))
        if self._fork is not None and packet.destination == self._fork.address:
            self._put(self._fork.receive(packet))
        if self.held is not None and self.held.past == number and self._waiting is not None:
            late, self._waiting = self._waiting[1], None
            self._flying.insert(0, (self.now, late))

    # -- sessions -----------------------------------------------------------------------------------------------------

    def _react(self) -> None:
        for user, book in self.legs():
            before = self._heard.get(id(book), 0)
            self._heard[id(book)] = len(book.facts)
            for at in range(before, len(book.facts)):
                self._told(user, book, book.facts[at], first=type(book.facts[at]) not in map(type, book.facts[:at]))

    def _told(self, user: User, book: Book, fact: Fact, *, first: bool) -> None:
        if isinstance(fact, OfferReceived):
            number = sum(isinstance(one, OfferReceived) for one in book.facts)
            body = ANSWER + b"a=x-answer:%d\r\n" % number
            self._agenda.append((self.now, user, book, lambda leg: AcceptOffer(leg, body)))
        if first:
            part = self._parts[id(user)].get(type(fact), ())
            self._agenda += [(self.now + delay, user, book, make) for delay, make in part]

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check_agreement(self) -> None:
        """Long after the last act: a call is up on both sides or on none, and both believe in the same session."""
        placed = self.alice.books[LEG]
        taken = [book for user, book in self.legs() if user is not self.alice]
        up = [book for book in taken if not book.ended]
        assert len(up) == int(not placed.ended), (placed, taken)
        for book in up:
            assert book.state is placed.state is CallState.CONFIRMED, (placed, book)
            assert book.offer_state is placed.offer_state is OfferState.STABLE, (placed, book)
            assert book.agreed == placed.agreed, (placed.agreed, book.agreed)

    def check_all(self) -> None:
        """In the end: every leg has ended, nothing is left, one final response a request, CSeq in order."""
        assert [book for _, book in self.legs() if not book.ended] == []
        lost = [fact.cause for _, book in self.legs() for fact in book.facts if isinstance(fact, CallLost)]
        # 481 is how one hears that the other has hung up already.
        assert [cause for cause in lost if not cause.startswith("481")] == [], "one datagram ends no call"
        for user in self.users:
            user.check(self.now)
            assert user.left() == [0] * 8, user.left()
        for user in self.users:
            sent = [packet.message for packet in self.sent if packet.source == user.address]
            check_responses(sent)
            check_requests(sent)


def performances(script: Script) -> Iterator[Held | None]:
    """Nothing held; each datagram lost; each held until each later one has arrived; numbered as in the plain run.

    What the forking proxy sends is not lost: it has no timers to send it again.
    """
    sent = Play(script).run().sent
    yield None
    for number, packet in enumerate(sent):
        if packet.source != EDGE:
            yield Held(number, None)
        yield from (Held(number, past) for past in range(number + 1, len(sent) + 2))
