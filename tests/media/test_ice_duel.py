"""Two agents on a wire that loses, repeats and reorders as Hypothesis likes, with restarts and strangers."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rustpbx.core import Address, Tick
from rustpbx.media.ice import Close, Datagram, Gather, IceAgent, Input, Remote, Restart, Selected, Send
from rustpbx.media.ice.pair import MOST_PAIRS
from rustpbx.media.ice.tables import ICE_AGENT, ICE_PAIR, AgentState

ALICE: tuple[Address, ...] = (("192.0.2.1", 4000), ("192.0.2.9", 4000))
BOB: tuple[Address, ...] = (("198.51.100.2", 5000), ("2001:db8::2", 5000))
STRANGER: Address = ("203.0.113.66", 6666)
MOST_FLYING = 60

Flying = tuple[bytes, Address, Address]


class Duel(RuleBasedStateMachine):
    """Both may want any role. At the end the wire is healed, and after a restart there is one path."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.flying: list[Flying] = []
        self.home: dict[Address, IceAgent] = {}

    @initialize(seed=st.integers(0, 2**32), roles=st.tuples(st.booleans(), st.booleans()))
    def start(self, seed: int, roles: tuple[bool, bool]) -> None:
        """Both know their addresses."""
        rng = random.Random(seed)
        self.alice, self.bob = (IceAgent(controlling=role, entropy=rng.randbytes) for role in roles)
        for agent, bases in ((self.alice, ALICE), (self.bob, BOB)):
            self.home.update(dict.fromkeys(bases, agent))
            self.give(agent, Gather(bases))

    def give(self, agent: IceAgent, what: Input | Tick) -> None:
        """One input; what is sent flies."""
        for effect in agent.handle(what, self.now):
            if isinstance(effect, Send):
                assert effect.base in (ALICE if agent is self.alice else BOB)
                self.flying.append((effect.data, effect.base, effect.destination))
            elif isinstance(effect, Selected):
                assert self.home[effect.base] is agent
                assert self.home[effect.remote] is not agent
        del self.flying[:-MOST_FLYING]

    def deliver(self, flying: Flying) -> None:
        """It arrives, if somebody is there."""
        data, source, destination = flying
        if destination in self.home:
            self.give(self.home[destination], Datagram(data, destination, source))

    @rule(which=st.booleans())
    def describe(self, which: bool) -> None:
        """One side gets the other's description as it is now."""
        one, other = (self.alice, self.bob) if which else (self.bob, self.alice)
        self.give(one, Remote(other.local))

    @rule(which=st.booleans())
    def restart(self, which: bool) -> None:
        """One side begins anew."""
        self.give(self.alice if which else self.bob, Restart())

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), fate=st.sampled_from(["deliver", "deliver", "lose", "repeat", "forge"]))
    def carry(self, data: st.DataObject, fate: str) -> None:
        """Any datagram under way arrives, is lost, arrives and stays, or arrives from a stranger."""
        place = data.draw(st.integers(0, len(self.flying) - 1))
        flying = self.flying[place] if fate == "repeat" else self.flying.pop(place)
        if fate in ("deliver", "repeat"):
            self.deliver(flying)
        elif fate == "forge":
            data_, _, destination = flying
            self.deliver((data_[:-1] + bytes([data_[-1] ^ 1]), STRANGER, destination))

    @rule()
    def wait(self) -> None:
        """Time goes on to the next deadline."""
        agent = min((self.alice, self.bob), key=lambda one: one.deadline())
        if agent.deadline().at < 1e9:
            self.now = max(self.now, agent.deadline().at)
            self.give(agent, Tick())

    @invariant()
    def timers_are_the_tables(self) -> None:
        """What runs is what the tables list, and memory is bounded."""
        for agent in set(self.home.values()):
            assert agent.deadline().at > self.now - 60
            assert set(agent.armed) == ICE_AGENT.timers.get(agent.state, frozenset())
            assert len(agent.checks.pairs) <= MOST_PAIRS
            for pair in agent.checks.pairs:
                assert set(pair.machine.armed) == ICE_PAIR.timers.get(pair.state, frozenset())

    def agrees(self) -> bool:
        """Whether both are connected by the same path."""
        one, other = self.alice.path, self.bob.path
        if one is None or other is None or {self.alice.state, self.bob.state} != {AgentState.CONNECTED}:
            return False
        return (one.base, one.remote.address) == (other.remote.address, other.base)

    def teardown(self) -> None:
        """On a wire that is healed, a restart brings both to the same path; and an end is an end."""
        if not self.home:
            return
        self.flying.clear()
        self.give(self.alice, Restart())
        self.give(self.bob, Restart())
        self.give(self.alice, Remote(self.bob.local))
        self.give(self.bob, Remote(self.alice.local))
        for _ in range(600):
            while self.flying:
                self.deliver(self.flying.pop(0))
            if self.agrees():
                break
            self.wait()
        assert self.agrees()
        assert self.alice.controlling != self.bob.controlling
        for agent in (self.alice, self.bob):
            self.give(agent, Close())
            assert agent.done


TestDuel = Duel.TestCase
TestDuel.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
