"""A registration against a registrar with moods, over a wire that loses, doubles and delays, by a NAT that moves."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rustpbx.sip.events import FlowLost
from rustpbx.sip.registration import LONGEST_PAUSE, LONGEST_RETRY_AFTER
from rustpbx.testing.registrar import Registrar
from tests.kit.office import DESK, FOREVER, HOST, Office, by_tcp

PORTS = st.sampled_from([(HOST, 5060), ("203.0.113.7", 40000), ("203.0.113.7", 40001), ("198.51.100.1", 1024)])
MOODS = st.sampled_from(
    [
        {"status": None},
        {"status": 403},
        {"status": 500},
        {"status": 503, "lines": (("Retry-After", "300"),)},
        {"status": 423, "lines": (("Min-Expires", "7200"),)},
        {"status": 200},  # without a Contact
        {"status": 401},  # without a challenge
        {"silent": True},
        {"silent": False},
        {"forgets": True},
        {"forgets": False},
        {"grant": 60},
        {"grant": 3600},
        {"realm": "elsewhere"},
        {"realm": "registrar"},
    ]
)
MOST_AT_ONCE = 12
"""REGISTERs in 25 s that are not resent ones: a challenge, a 423 and three addresses, each challenged, and no more."""


class Account(RuleBasedStateMachine):
    """One account, and everything that can happen to it."""

    @initialize(seed=st.integers(0, 2**16), tcp=st.booleans())
    def open(self, seed: int, tcp: bool) -> None:
        """It begins to register."""
        self.office = Office(Registrar(users={"1001": "secret"}), account=by_tcp(DESK) if tcp else DESK, seed=seed)
        self.office.begin()

    @precondition(lambda self: self.office.wire)
    @rule(data=st.data(), twice=st.booleans())
    def carry(self, data: st.DataObject, twice: bool) -> None:
        """A message arrives, or a copy of it."""
        self.office.deliver(data.draw(st.integers(0, len(self.office.wire) - 1)), keep=twice)

    @precondition(lambda self: self.office.wire)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """A message is lost."""
        self.office.wire.pop(data.draw(st.integers(0, len(self.office.wire) - 1)))

    @rule()
    def wait(self) -> None:
        """Until something is due."""
        self.office.jump()

    @rule(minutes=st.sampled_from([0, 1, 10, 60]))
    def live(self, minutes: int) -> None:
        """Nothing is lost for a while."""
        self.office.advance(60 * minutes)

    @rule(mood=MOODS)
    def change(self, mood: dict[str, Any]) -> None:
        """The registrar is of another mind."""
        for name, value in mood.items():
            setattr(self.office.registrar, name, value)

    @rule()
    def forget_nonces(self) -> None:
        """What was proven counts no more."""
        self.office.registrar.forget_nonces()

    @rule(seen=PORTS)
    def move(self, seen: tuple[str, int]) -> None:
        """The NAT has another idea of who we are."""
        self.office.seen = seen

    @precondition(lambda self: self.office.kept)
    @rule()
    def lose(self) -> None:
        """The way to the registrar is gone, and what was on it."""
        hop = self.office.kept.pop()
        self.office.wire.clear()
        self.office.flow += 1
        self.office.feed(FlowLost(hop, "closed"))

    @invariant()
    def one_call_id_and_a_rising_cseq(self) -> None:
        """Whatever happens (10.2)."""
        sent = self.office.sent
        assert len({request.call_id for request in sent}) == 1
        numbers = [request.cseq.number for request in sent]
        assert numbers == list(range(1, len(numbers) + 1))

    @invariant()
    def nobody_is_hammered(self) -> None:
        """A registrar that is of a bad mind has rest."""
        times = self.office.times
        assert all(later - times[at] > 25 for at, later in enumerate(times[MOST_AT_ONCE:]))

    @invariant()
    def the_password_is_for_one_realm(self) -> None:
        """Nobody else sees what it has made."""
        assert all('realm="elsewhere"' not in (request.header("Authorization") or "") for request in self.office.sent)

    @invariant()
    def registered_means_a_way_is_kept(self) -> None:
        """One at most, and one unless there was none left to be kept."""
        assert len(self.office.kept) <= 1
        if self.office.state in {"failed", "unregistered"}:
            assert self.office.kept == []

    def teardown(self) -> None:
        """Heal it all: we are registered again, at the address that is seen, and nowhere once we leave."""
        if not hasattr(self, "office"):
            return
        office = self.office
        registrar = office.registrar
        registrar.status, registrar.silent, registrar.forgets, registrar.realm = None, False, False, "registrar"
        registrar.lines, registrar.grant = (), 3600
        office.advance(LONGEST_PAUSE + LONGEST_RETRY_AFTER + 3600)
        assert office.state == "registered"
        known = registrar.contacts("1001", office.now)
        tcp_without_a_nat = office.account is not DESK and office.seen[0] == HOST
        expected = (HOST, 5060) if tcp_without_a_nat else office.seen
        assert [(uri.host, uri.port) for uri in known] == [expected]
        office.stop()
        office.settle()
        assert (office.state, registrar.contacts("1001", office.now), office.kept) == ("unregistered", [], [])
        for _ in range(100):
            if not office.jump():
                break
        assert office.endpoint.deadline().at == FOREVER


TestAccount = Account.TestCase
TestAccount.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAccount.__doc__ = "Whatever befalls an account, it comes back, hammers nobody, and leaves nothing behind."
