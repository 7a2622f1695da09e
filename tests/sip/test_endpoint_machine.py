"""Two endpoints, a wire that loses, doubles and swaps, and any order of wishes: the facts stay legal, nothing leaks."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rustpbx.sip.events import (
    AcceptOffer,
    Answer,
    ByeReceived,
    CallAnswered,
    CallCancelled,
    CallConfirmed,
    CallLost,
    CallRefused,
    Fact,
    HangUp,
    IncomingCall,
    Refuse,
    RefuseOffer,
    Ring,
    SendDigit,
    SendOffer,
    Wish,
)
from rustpbx.sip.tables import CALL
from tests.kit.peers_sip import ANSWER, LEG, OFFER, Pair, Side, invite_wish

ENDINGS = (CallRefused, CallCancelled, ByeReceived, CallLost)
BOTH = [HangUp(LEG), SendOffer(LEG, OFFER), AcceptOffer(LEG, ANSWER), RefuseOffer(LEG), SendDigit(LEG, "5")]


class Duel(RuleBasedStateMachine):
    """Alice calls Bob; anything may happen on the way."""

    @initialize(seed=st.integers(0, 2**16))
    def start(self, seed: int) -> None:
        """The INVITE is on the wire."""
        self.pair = Pair(seed)
        self.over: dict[int, int] = {}
        self.pair.wish(self.pair.alice, invite_wish())

    @rule(wish=st.sampled_from([*BOTH, HangUp(LEG)]))
    def alice(self, wish: Wish) -> None:
        """The calling side wishes."""
        self.ask(self.pair.alice, wish)

    @precondition(lambda self: self.pair.bob.facts)
    @rule(data=st.data())
    def bob(self, data: st.DataObject) -> None:
        """The called side wishes."""
        leg = self.pair.bob.facts[0].leg
        answers: list[Wish] = [Ring(leg), Answer(leg, ANSWER), Answer(leg, ANSWER), Refuse(leg, 486)]
        both: list[Wish] = [HangUp(leg), SendOffer(leg, OFFER), AcceptOffer(leg, ANSWER), RefuseOffer(leg)]
        self.ask(self.pair.bob, data.draw(st.sampled_from(answers + both)))

    def ask(self, side: Side, wish: Wish) -> None:
        """Wish; after HangUp, and Refuse of a call that rings, nothing more may be told."""
        side_before = len(side.facts)
        self.pair.wish(side, wish)
        answered = any(isinstance(fact, CallConfirmed | CallAnswered) for fact in side.facts)
        if isinstance(wish, HangUp) or (isinstance(wish, Refuse) and self.unanswered(side) and not answered):
            self.over.setdefault(id(side), side_before)

    @staticmethod
    def unanswered(side: Side) -> bool:
        """Refuse counts only before our own Answer."""
        return side.endpoint.counters["dialogs"] == 0

    @precondition(lambda self: self.pair.wire)
    @rule(data=st.data(), fate=st.sampled_from(["deliver", "deliver", "deliver", "drop", "twice", "later"]))
    def carry(self, data: st.DataObject, fate: str) -> None:
        """One datagram's fate; any of the first four may be the next, so they also swap."""
        index = data.draw(st.integers(0, min(3, len(self.pair.wire) - 1)))
        packet = self.pair.wire.pop(index)
        if fate in {"twice", "later"}:
            self.pair.wire.append(packet)
        if fate in {"deliver", "twice"}:
            self.pair.deliver(packet)

    @rule()
    def wait(self) -> None:
        """Time passes to the next deadline; no datagram lives longer than T4."""
        self.pair.jump()
        self.pair.expire(5.0)

    @invariant()
    def facts_are_legal(self) -> None:
        """One beginning, one ending, nothing after it."""
        for side in self.sides():
            facts = side.facts
            endings = [index for index, fact in enumerate(facts) if isinstance(fact, ENDINGS)]
            assert len(endings) <= 1, facts
            assert not endings or endings[0] == len(facts) - 1, facts
            assert len(facts) <= self.over.get(id(side), len(facts)), facts
            for once in (CallAnswered, CallConfirmed, IncomingCall):
                assert sum(isinstance(fact, once) for fact in facts) <= 1, facts
        self.begins_with_incoming(self.pair.bob.facts if hasattr(self, "pair") else [])

    @staticmethod
    def begins_with_incoming(facts: list[Fact]) -> None:
        """The called side learns of the call first."""
        assert not facts or isinstance(facts[0], IncomingCall)

    @invariant()
    def timers_are_the_tables(self) -> None:
        """Armed is what the table lists for the state, and no deadline lies in the past."""
        for side in self.sides():
            assert side.endpoint.deadline().at >= self.pair.now
            for call in side.endpoint._directory.calls.values():
                assert call._machine.armed.keys() == CALL.timers.get(call.state, frozenset())

    def sides(self) -> list[Side]:
        """Both, once there are any."""
        return [self.pair.alice, self.pair.bob] if hasattr(self, "pair") else []

    def teardown(self) -> None:
        """Heal the wire, hang up, let everything run out: nothing is left on either side."""
        if not self.sides():
            return
        self.pair.settle()
        self.pair.wish(self.pair.alice, HangUp(LEG))
        if self.pair.bob.facts:
            self.pair.wish(self.pair.bob, HangUp(self.pair.bob.facts[0].leg))
        self.pair.settle()
        self.pair.advance(300)
        for side in self.sides():
            directory, layer = side.endpoint._directory, side.endpoint._layer
            held = (directory.calls, directory.dialogs, directory.invites, directory.live, layer._merged)
            assert [len(one) for one in held] == [0] * 5
            assert (layer.running, len(layer.schedule)) == (0, 0)


TestDuel = Duel.TestCase
TestDuel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
