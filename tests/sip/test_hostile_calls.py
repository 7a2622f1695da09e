"""Endpoints that call each other over a hostile wire: legal facts, one end, both sides agree, nothing stays behind."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from rustpbx.sip.encoder import encode_message
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import (
    AcceptOffer,
    Answer,
    Credentials,
    HangUp,
    Refuse,
    RefuseOffer,
    Ring,
    SendDigit,
    SendInvite,
    SendOffer,
    Wish,
)
from rustpbx.sip.extensions import Extensions
from rustpbx.sip.message import NameAddr, Response
from rustpbx.sip.tables import CallState, OfferState
from rustpbx.sip.uri import parse_uri
from tests.kit.hostile import Hostile, Kind
from tests.kit.hostile_calls import CAROL, STRANGER, Book, ProxiedWire, User
from tests.kit.peers_sip import ALICE, ANSWER, BOB, OFFER, Packet, request
from tests.kit.rounds import while_it_lasts

MOST_CALLS = 3

RECOVERY = 40.0
"""Seconds of a good wire after which nothing that was lost matters: more than 64*T1."""

EXTENSIONS = st.builds(
    Extensions,
    prack=st.sampled_from(["supported", "supported", "required", "off"]),
    session_timers=st.sampled_from(["on", "accept", "off"]),
    session_expires=st.sampled_from([90, 1800]),
    min_se=st.sampled_from([90, 110]),
)
"""What a side does beyond RFC 3261."""

STRANGE = {
    "OPTIONS": "200 OPTIONS",
    "BYE": "481 BYE",
    "INFO": "481 INFO",
    "UPDATE": "481 UPDATE",
    "CANCEL": "481 CANCEL",
    "REGISTER": "405 REGISTER",
    "DANCE": "501 DANCE",
    "ACK": None,
}
"""What a stranger asks outside any dialog, and what it is told."""


def wishes(leg: str, number: int) -> list[Wish]:
    """What either side may wish for a leg, sensible or not. Bodies differ, so that they can be told apart."""
    return [
        HangUp(leg),
        SendOffer(leg, OFFER + b"a=x:%d\r\n" % number),
        AcceptOffer(leg, ANSWER + b"a=x:%d\r\n" % number),
        AcceptOffer(leg, ANSWER + b"a=x:%d\r\n" % number),
        RefuseOffer(leg),
        SendDigit(leg, "5"),
    ]


def answers(leg: str) -> list[Wish]:
    """What a called side may wish besides."""
    return [Ring(leg), Ring(leg, 183, ANSWER), Answer(leg, ANSWER), Answer(leg, ANSWER), Refuse(leg, 486)]


class Calls(Hostile):
    """Alice and Bob call each other, Carol answers forks; anything may happen on the way."""

    wire: ProxiedWire

    @initialize(
        seed=st.integers(0, 2**16),
        kind=st.sampled_from([Kind.FAIR, Kind.HOSTILE]),
        known=st.booleans(),
        one=st.integers(0, 1),
        up=st.booleans(),
        does=st.tuples(EXTENSIONS, EXTENSIONS, EXTENSIONS),
    )
    def start(  # noqa: PLR0917 - what a story begins with
        self, seed: int, kind: Kind, known: bool, one: int, up: bool, does: tuple[Extensions, ...]
    ) -> None:
        """Three endpoints and the first INVITE, or a call that is `up`; `known` gives the callers credentials.

        Each `does` PRACK and session timers in its own way.
        """
        self.alice, self.bob, self.carol = (
            User(at, seed + i, EndpointConfig(port=at[1], extensions=extensions))
            for i, (at, extensions) in enumerate(zip((ALICE, BOB, CAROL), does, strict=True))
        )
        self.users = [self.alice, self.bob, self.carol]
        self.credentials = Credentials("alice", "secret") if known else None
        self.wire = ProxiedWire(self.users, kind)
        self.muddled: set[str] = set()
        self.bodies = 0
        self.dial(one)
        if up:
            self.wire.settle()
            for user, book in self.ringing():  # unless what one side insists on is nothing that the other does
                self.ask(user, book, Answer(book.leg, ANSWER))
            self.wire.settle()

    # -- the sessions -------------------------------------------------------------------------------------------------

    @precondition(lambda self: sum(len(user.books) for user in self.users) < MOST_CALLS)
    @rule(one=st.integers(0, 1))
    def dial(self, one: int) -> None:
        """Alice calls Bob, or he her."""
        user, callee = self.users[one], self.users[1 - one]
        wish = SendInvite(
            leg=f"leg-{len(user.books)}",
            caller=NameAddr(parse_uri(f"sip:user@{user.address[0]}")),
            callee=parse_uri(f"sip:user@{callee.address[0]}"),
            body=OFFER,
            local_host=user.address[0],
            credentials=self.credentials,
        )
        self.wire.put(user.dial(wish, self.wire.now))

    @rule(data=st.data())
    def wish(self, data: st.DataObject) -> None:
        """A session wishes something for a leg of its own."""
        user, book = self.pick(data, self.legs())
        self.bodies += 1
        known = wishes(book.leg, self.bodies)
        self.ask(user, book, self.pick(data, known if book.placed else known + answers(book.leg)))

    @precondition(lambda self: self.ringing())
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """A called side decides."""
        user, book = self.pick(data, self.ringing())
        self.ask(user, book, self.pick(data, answers(book.leg)))

    @precondition(lambda self: self.legs_in(OfferState.STABLE))
    @rule(data=st.data())
    def offer(self, data: st.DataObject) -> None:
        """A side that may do so offers another session."""
        user, book = self.pick(data, self.legs_in(OfferState.STABLE))
        self.bodies += 1
        self.ask(user, book, SendOffer(book.leg, OFFER + b"a=x:%d\r\n" % self.bodies))

    @precondition(lambda self: self.legs_in(OfferState.HAVE_REMOTE, OfferState.HAVE_UPDATE))
    @rule(data=st.data(), accept=st.booleans())
    def decide(self, data: st.DataObject, accept: bool) -> None:
        """A side that was offered another session says what it thinks of it."""
        user, book = self.pick(data, self.legs_in(OfferState.HAVE_REMOTE, OfferState.HAVE_UPDATE))
        self.bodies += 1
        wish = AcceptOffer(book.leg, ANSWER + b"a=x:%d\r\n" % self.bodies) if accept else RefuseOffer(book.leg)
        self.ask(user, book, wish)

    @precondition(lambda self: self.talking())
    @rule(data=st.data(), method=st.sampled_from(["OPTIONS", "UPDATE", "INFO"]), body=st.sampled_from([b"", OFFER]))
    def within(self, data: st.DataObject, method: str, body: bytes) -> None:
        """A request within a dialog that our own sessions never ask for."""
        user, book = self.pick(data, self.talking())
        if method == "UPDATE":  # what becomes of its offer, nobody here is told
            self.muddled.add(book.call_id)
        self.wire.put(user.within(book, method, body, self.wire.now))

    # -- the others ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.challengeable())
    @rule(data=st.data())
    def challenge(self, data: st.DataObject) -> None:
        """The proxy wants to know who asks."""
        self.wire.challenge(self.pick(data, self.challengeable()))

    @precondition(lambda self: self.wire.forkable())
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        """The proxy lets Carol answer too."""
        self.wire.fork(self.pick(data, self.wire.forkable()))

    @precondition(lambda self: self.wire.kind is Kind.HOSTILE and self.requests())
    @rule(data=st.data())
    def refuse_to_send(self, data: st.DataObject) -> None:
        """The transport finds no route."""
        packet = self.pick(data, self.requests())
        self.wire.flying.remove(packet)
        user = next(user for user in self.users if user.address == packet.source)
        self.wire.put(user.unsendable(packet, self.wire.now))

    @rule(method=st.sampled_from(sorted(STRANGE)), one=st.integers(0, 1), number=st.integers(0, 2**32))
    def stranger(self, method: str, one: int, number: int) -> None:
        """Who asks outside any dialog is answered at once; nobody else notices."""
        user = self.users[one]
        message = request(method, branch=f"z9hG4bK-{number}", call_id=f"stranger-{number}", contact=None)
        packet = Packet(encode_message(message), STRANGER, user.address)
        told = [len(book.facts) for book in user.books.values()]
        sent = user.receive(packet, self.wire.now)
        wanted = STRANGE[method]
        assert [one.title for one in sent] == ([] if wanted is None else [wanted])
        assert [len(book.facts) for book in user.books.values()] == told

    # -- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def books_are_legal(self) -> None:
        """Facts, timers and counters of every side."""
        if self.started:
            for user in self.users:
                user.check(self.wire.now)

    def teardown(self) -> None:
        """The callers hang up, then the others: over a fair wire all had been told of the end before that."""
        if not self.started:
            return
        fair = self.wire.kind is Kind.FAIR
        if fair:
            self.both_sides_agree()
        for user, book in self.legs():
            if book.placed:
                self.ask(user, book, HangUp(book.leg))
        self.wire.run_down(cut=not fair)
        if fair:
            assert [book for _, book in self.legs() if not book.ended] == []
        for user, book in self.legs():
            self.ask(user, book, HangUp(book.leg))
        self.wire.run_down(cut=not fair)
        for user in self.users:
            user.check(self.wire.now)
            assert user.left() == [0] * 8

    def both_sides_agree(self) -> None:
        """After a while over a good wire: a call is up or over on both sides, and both believe in the same session."""
        end = self.wire.now + RECOVERY
        self.wire.settle()
        for _ in while_it_lasts(lambda: self.wire.deadline() <= end):
            self.wire.wait_until(self.wire.deadline())
            self.wire.settle()
        forked = {packet.message.call_id for packet in self.wire.forked.values()}
        for taken in [book for _, book in self.legs() if not book.placed and book.call_id not in forked]:
            placed = next(book for _, book in self.legs() if book.placed and book.call_id == taken.call_id)
            assert placed.ended == taken.ended, (placed, taken)
            if not taken.ended:
                assert placed.up == taken.up == taken.answered, (placed, taken)
                assert placed.agreed == taken.agreed or taken.call_id in self.muddled, (placed.agreed, taken.agreed)

    # -- helpers ------------------------------------------------------------------------------------------------------

    def ask(self, user: User, book: Book, wish: Wish) -> None:
        """Wish."""
        self.wire.put(user.wish(book, wish, self.wire.now))

    def legs(self) -> list[tuple[User, Book]]:
        """All that ever were."""
        return [(user, book) for user in self.users for book in user.books.values()]

    def ringing(self) -> list[tuple[User, Book]]:
        """Legs that wait for their session's answer."""
        return [(user, book) for user, book in self.legs() if book.state is CallState.INCOMING]

    def legs_in(self, *states: OfferState) -> list[tuple[User, Book]]:
        """Legs whose session knows of no end and whose offers stand so."""
        return [(user, book) for user, book in self.legs() if not book.ended and book.offer_state in states]

    def challengeable(self) -> list[Packet]:
        """Requests in flight of those who have credentials: who placed the call."""
        placed = {(book.side.address, book.call_id) for _, book in self.legs() if book.placed and self.credentials}
        fresh = self.wire.challengeable()
        return [packet for packet in fresh if (packet.source, packet.message.call_id) in placed]

    def talking(self) -> list[tuple[User, Book]]:
        """Legs whose side has a dialog and has not sent BYE."""
        states = {CallState.INCOMING, CallState.ANSWERED, CallState.CONFIRMED}
        return [(user, book) for user, book in self.legs() if book.state in states]

    def requests(self) -> list[Packet]:
        """Requests in flight."""
        return [packet for packet in self.wire.flying if not isinstance(packet.message, Response)]


TestCalls = Calls.TestCase
TestCalls.settings = settings(stateful_step_count=50, deadline=None)
