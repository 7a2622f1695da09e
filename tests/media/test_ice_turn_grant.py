"""A grant of a TURN server that answers as Hypothesis likes, or not at all."""

from __future__ import annotations

import random
from typing import Any

from aioice.stun import Class, Message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rustpbx.media.ice.stun import read_stun
from rustpbx.media.ice.turn.grant import MOST_CHALLENGES, TIMEOUT, Grant, GrantKind
from rustpbx.media.ice.turn.server import Session
from rustpbx.media.ice.turn.tables import TURN_GRANT, GrantState, GrantTrigger

WANTED: dict[GrantKind, dict[str, Any]] = {
    GrantKind.ALLOCATION: {"REQUESTED-TRANSPORT": 17 << 24},
    GrantKind.PERMISSION: {"XOR-PEER-ADDRESS": ("192.0.2.2", 5000)},
    GrantKind.CHANNEL: {"CHANNEL-NUMBER": 0x4000, "XOR-PEER-ADDRESS": ("192.0.2.2", 5000)},
}


class Life(RuleBasedStateMachine):
    """However it goes, each wait has an end, timers are the table's, and after an end nothing is said."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.nonces = 0
        self.said: list[Message] = []

    @initialize(
        kind=st.sampled_from(GrantKind), seed=st.integers(0, 2**16), reliable=st.booleans(), silent=st.booleans()
    )
    def start(self, kind: GrantKind, seed: int, reliable: bool, silent: bool) -> None:
        """It is asked for; at the end the server will be silent or not."""
        self.silent = silent
        session = Session("alice", "wonderland")
        self.grant = Grant(kind, WANTED[kind], session, random.Random(seed).randbytes, reliable=reliable)
        self.grant.begin(self.now)
        self.grant.step(GrantTrigger.CONNECTED, self.now)
        self.look()

    def look(self) -> None:
        """What it says now; the latest question is the one to be answered."""
        assert len(self.grant.outgoing) <= 1
        self.said += map(read_stun, self.grant.outgoing)
        self.grant.outgoing.clear()

    def answer(self, kind: Class, **attributes: object) -> None:
        """An answer that is believed, to the latest question."""
        named = {name.replace("_", "-"): value for name, value in attributes.items()}
        asked = self.said[-1]
        assert asked.transaction_id == self.grant.transaction
        self.grant.take(Message(asked.message_method, kind, asked.transaction_id, named), self.now)
        self.look()

    @precondition(lambda self: not self.grant.machine.done)
    @rule(lifetime=st.integers(0, 2**32 - 1))
    def grants(self, lifetime: int) -> None:
        """Yes, for so long."""
        self.answer(Class.RESPONSE, XOR_RELAYED_ADDRESS=("203.0.113.9", 50_000), LIFETIME=lifetime)

    @precondition(lambda self: not self.grant.machine.done)
    @rule(code=st.sampled_from([401, 438, 437, 486, 508, 599]), told=st.booleans())
    def refuses(self, code: int, told: bool) -> None:
        """No, or other credentials."""
        self.nonces += 1
        challenge = {"REALM": "r", "NONCE": str(self.nonces).encode()} if told else {}
        before = len(self.said)
        self.answer(Class.ERROR, ERROR_CODE=(code, "reason"), **challenge)
        if len(self.said) > before:
            assert code in (401, 438)
            assert self.said[-1].attributes["NONCE"] == str(self.nonces).encode()

    @rule()
    def waits(self) -> None:
        """Time goes on to the next deadline."""
        at = self.grant.deadline().at
        if at < 2**33:
            assert at >= self.now
            self.now = at
            self.grant.tick(self.now)
            self.look()

    @rule()
    def releases(self) -> None:
        """It is not needed any more."""
        self.grant.step(GrantTrigger.RELEASE, self.now)
        self.look()

    @invariant()
    def timers_are_the_tables(self) -> None:
        """What runs is what the table lists."""
        machine = self.grant.machine
        assert set(machine.armed) == TURN_GRANT.timers.get(machine.state, frozenset())
        assert self.grant.granted == (machine.state in (GrantState.GRANTED, GrantState.RENEWING))
        assert self.grant.problem or machine.state is not GrantState.REFUSED

    def teardown(self) -> None:
        """Given back to a server that is silent, or wants ever other nonces, it is over soon."""
        if not hasattr(self, "grant"):
            return
        self.grant.step(GrantTrigger.RELEASE, self.now)
        self.look()
        begun = self.now
        for _ in range(MOST_CHALLENGES + 1):
            if not self.silent and not self.grant.machine.done:
                self.refuses(438, told=True)
        while not self.grant.machine.done:
            self.waits()
        assert self.now - begun <= TIMEOUT[GrantState.RELEASING]
        before = len(self.said)
        self.grant.step(GrantTrigger.RELEASE, self.now)
        self.grant.tick(self.now + 1e6)
        self.look()
        assert len(self.said) == before


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_release_while_a_renewal_is_under_way() -> None:
    """The renewal has 30 s; who waits for the release waits no longer than for any other."""
    grant = Grant(
        GrantKind.PERMISSION,
        WANTED[GrantKind.PERMISSION],
        Session("a", "b"),
        random.Random(1).randbytes,
        reliable=False,
    )
    grant.begin(0.0)
    grant.step(GrantTrigger.CONNECTED, 0.0)
    asked = read_stun(grant.outgoing[-1])
    grant.take(Message(asked.message_method, Class.RESPONSE, asked.transaction_id), 0.0)
    grant.tick(grant.deadline().at)
    assert grant.machine.state is GrantState.RENEWING
    grant.step(GrantTrigger.RELEASE, 240.0)
    while not grant.machine.done:
        now = grant.deadline().at
        grant.tick(now)
    assert now == 240.0 + TIMEOUT[GrantState.RELEASING]
