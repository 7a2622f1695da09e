"""Every datagram of a call overtaken by every other, and each lost once: what must hold, holds.

The scripts have the races of the field in them: CANCEL and 200, BYE before ACK, offers that meet, forks that both
answer. Each is played some hundreds of times, in virtual time.
"""

from __future__ import annotations

import pytest

from rustpbx.sip.events import (
    Answer,
    CallAnswered,
    CallConfirmed,
    CallProgress,
    HangUp,
    IncomingCall,
    OfferAnswered,
    OfferReceived,
    Refuse,
    Ring,
    SendDigit,
    SendOffer,
)
from tests.kit.interleavings import Make, Part, Play, Script, performances
from tests.kit.peers_sip import ANSWER, OFFER

HOLD = OFFER + b"a=sendonly\r\n"
BACK = OFFER + b"a=sendrecv\r\n"


def ring(leg: str) -> Ring:
    """180."""
    return Ring(leg)


def answer(leg: str) -> Answer:
    """200."""
    return Answer(leg, ANSWER)


def busy(leg: str) -> Refuse:
    """486."""
    return Refuse(leg, 486)


def hang_up(leg: str) -> HangUp:
    """CANCEL or BYE."""
    return HangUp(leg)


def digit(leg: str) -> SendDigit:
    """INFO."""
    return SendDigit(leg, "5")


def offer(body: bytes) -> Make:
    """A re-INVITE."""
    return lambda leg: SendOffer(leg, body)


ANSWERS: Part = {IncomingCall: ((0.05, ring), (1.0, answer))}
REFUSES: Part = {IncomingCall: ((0.05, ring), (1.0, busy))}


def answers(*then: tuple[float, Make], when: type = CallConfirmed) -> Part:
    """Bob rings, answers after a second, and does more."""
    return {**ANSWERS, when: then}


SCRIPTS = [
    Script(name="basic", alice={CallAnswered: ((1.0, hang_up),)}, bob=ANSWERS),
    Script(name="bob hangs up", bob=answers((1.0, hang_up))),
    Script(name="both hang up", alice={CallAnswered: ((1.0, hang_up),)}, bob=answers((0.99, hang_up))),
    Script(name="busy", bob=REFUSES),
    Script(name="cancel", alice={CallProgress: ((0.5, hang_up),)}, bob=ANSWERS),
    Script(name="cancel at once", after=((0.0, hang_up),), bob=ANSWERS),
    Script(name="cancel meets 200", after=((1.01, hang_up),), bob={IncomingCall: ((1.0, answer),)}),
    Script(name="cancel meets 486", after=((1.01, hang_up),), bob={IncomingCall: ((1.0, busy),)}),
    Script(name="bye before ack", bob={IncomingCall: ((0.05, answer), (0.055, hang_up))}),
    Script(name="alice offers", alice={CallAnswered: ((1.0, offer(HOLD)),)}, bob=ANSWERS),
    Script(name="bob offers", bob=answers((1.0, offer(HOLD)))),
    Script(
        name="hold and back",
        alice={CallAnswered: ((1.0, offer(HOLD)),), OfferAnswered: ((1.0, offer(BACK)),)},
        bob=ANSWERS,
    ),
    Script(name="glare", alice={CallAnswered: ((1.0, offer(HOLD)),)}, bob=answers((0.99, offer(BACK)))),
    Script(name="bye meets offer", alice={CallAnswered: ((1.0, hang_up),)}, bob=answers((0.99, offer(HOLD)))),
    Script(
        name="bye within an offer",
        alice={CallAnswered: ((1.0, offer(HOLD)),)},
        bob=answers((0.0, hang_up), when=OfferReceived),
    ),
    Script(
        name="digits", alice={CallAnswered: ((0.5, digit), (0.5, digit), (1.0, hang_up))}, bob=answers((0.5, digit))
    ),
    Script(name="a fork answers", alice={CallAnswered: ((1.0, hang_up),)}, bob=ANSWERS, carol=REFUSES),
    Script(name="both forks answer", bob=ANSWERS, carol=ANSWERS),
    Script(name="forks are cancelled", alice={CallProgress: ((0.5, hang_up),)}, bob=ANSWERS, carol=ANSWERS),
    Script(name="cancel meets forks", after=((1.02, hang_up),), bob={IncomingCall: ((1.0, answer),)}, carol=REFUSES),
]


@pytest.mark.rfc("3261", "9.1", "9.2", "13.2.2.4", "14.1", "14.2", "15.1.1", "15.1.2", "17.1.1", "17.2.1")
@pytest.mark.rfc("6026", "7.1", "7.2")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_whatever_overtakes_what(script: Script) -> None:
    """One final response a request, CSeq in order, legal facts, the same end on both sides, nothing left behind."""
    for held in performances(script):
        try:
            Play(script, held).run().check_all()
        except AssertionError as problem:
            raise AssertionError(f"{script.name}, {held}: {problem}") from problem


def told(script: Script) -> list[list[str]]:
    """What each side's sessions were told in the plain run: Alice, Bob, Carol."""
    play = Play(script).run()
    play.check_all()
    return [[type(fact).__name__ for fact in book.facts] for _, book in play.legs()]


UP = ["CallProgress", "CallAnswered"]
TAKEN = ["IncomingCall", "CallConfirmed"]
PLAIN = {
    "basic": [UP, [*TAKEN, "ByeReceived"]],
    "both hang up": [UP, TAKEN],
    "busy": [["CallProgress", "CallRefused"], ["IncomingCall"]],
    "cancel": [["CallProgress"], ["IncomingCall", "CallCancelled"]],
    "cancel meets 200": [[], [*TAKEN, "ByeReceived"]],
    "bye before ack": [["CallAnswered", "ByeReceived"], ["IncomingCall"]],
    "hold and back": [
        [*UP, "OfferAnswered", "OfferAnswered"],
        [*TAKEN, "OfferReceived", "OfferReceived"],
    ],
    "glare": [[*UP, "OfferRefused", "OfferReceived"], [*TAKEN, "OfferAnswered"]],
    "a fork answers": [["CallProgress", *UP], [*TAKEN, "ByeReceived"], ["IncomingCall"]],
    "both forks answer": [["CallProgress", *UP], TAKEN, [*TAKEN, "ByeReceived"]],
    "forks are cancelled": [["CallProgress"] * 2, *[["IncomingCall", "CallCancelled"]] * 2],
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_the_sessions_are_told(name: str) -> None:
    """Without mishap each script comes out as it is meant, so that the mishaps happen to something."""
    assert told(next(script for script in SCRIPTS if script.name == name)) == PLAIN[name]
