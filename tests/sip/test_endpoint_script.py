"""The SIP endpoint under scripts: calls of all kinds, step by step, taken apart and put together wrongly."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.targets import TARGETS
from tests.kit.predicates import sip_endpoint
from tests.kit.script_sip import SEPARATOR, Player
from tests.kit.strategies_sip import mutated

SCRIPTS = {path.name: path.read_bytes() for path in TARGETS["sip_endpoint"].inputs()}
STEPS = sorted({step for script in SCRIPTS.values() for step in script.split(SEPARATOR)})


@given(st.lists(st.sampled_from(STEPS), max_size=12).map(SEPARATOR.join))
def test_steps_of_calls_in_any_order(script: bytes) -> None:
    """Every datagram is counted or answered, every leg ends once, and an hour later nothing is left."""
    sip_endpoint(script)


@given(mutated(st.sampled_from(sorted(SCRIPTS.values()))))
def test_scripts_with_bytes_changed(script: bytes) -> None:
    """The same for calls whose messages are broken."""
    sip_endpoint(script)


@given(st.sampled_from(sorted(SCRIPTS.values())), st.randoms(use_true_random=False))
def test_steps_lost_doubled_and_swapped(script: bytes, rng: random.Random) -> None:
    """The same for calls on a bad wire and with an impatient session."""
    steps = script.split(SEPARATOR)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(steps))
        steps[at : at + 1] = rng.choice(([], [steps[at]] * 2, [rng.choice(steps), steps[at]], [b"!wait 3", steps[at]]))
        if not steps:
            break
    sip_endpoint(SEPARATOR.join(steps))


def test_a_script_reaches_what_it_names() -> None:
    """`$TAG` and its like make a call of steps that were written before the endpoint chose its tags."""
    facts = {name: [type(fact).__name__ for fact in Player.of(script).facts] for name, script in SCRIPTS.items()}
    assert facts["call_answered_bye"] == ["IncomingCall", "CallConfirmed", "ByeReceived"]
    assert facts["reinvite"] == ["IncomingCall", "CallConfirmed", "OfferReceived", "OfferReceived", "ByeReceived"]
    assert facts["dial_challenged"] == ["CallAnswered"]
    assert facts["peer_reinvite_on_dialled"] == ["CallAnswered", "OfferReceived", "ByeReceived"]
    assert facts["dial_cancelled"] == ["CallProgress"]


def test_a_leg_that_is_told_of_after_its_end_is_noticed() -> None:
    """The watch itself: a fact after the end fails."""
    player = Player.of(SCRIPTS["call_answered_bye"])
    player.side.facts.append(player.facts[0])
    with pytest.raises(AssertionError, match="after the end"):
        player.wish("ring")
