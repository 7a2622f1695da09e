"""Bugs of our own, planted: each ends the call it is in, as the protocol wants it, and touches nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rustpbx.sip import endpoint as endpoint_module
from rustpbx.sip import transaction as transaction_module
from rustpbx.sip import uas as uas_module
from rustpbx.sip.call import Call
from rustpbx.sip.dialog import Dialog
from rustpbx.sip.events import (
    Answer,
    CallCancelled,
    CallConfirmed,
    CallLost,
    CallProgress,
    CallRefused,
    HangUp,
    IncomingCall,
    RefuseOffer,
)
from rustpbx.sip.layer import TransactionLayer
from rustpbx.sip.leg import Leg
from rustpbx.sip.message import Request
from rustpbx.sip.offers import Offers
from rustpbx.sip.transaction import AckWait
from tests.kit.peers_sip import (
    ANSWER,
    BOB,
    LEG,
    OFFER,
    SDP_LINES,
    Lone,
    invite,
    invite_wish,
    reply,
    request,
    schedule,
    titles,
)


@contextmanager
def planted(*places: tuple[object, str]) -> Iterator[None]:
    """Let functions of ours raise."""

    def bug(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in places:
            patch.setattr(owner, name, bug)
        yield


def talking() -> Lone:
    """Bob in an answered call."""
    lone = Lone()
    lone.send(invite())
    lone.wish(Answer(lone.leg, ANSWER))
    lone.send(request("ACK", to_tag=lone.tag, branch="z9hG4bKack"))
    assert lone.facts[1:] == [CallConfirmed(lone.leg, b"")]
    return lone


def nothing_is_left(lone: Lone) -> bool:
    """Two minutes later, no map holds anything."""
    lone.wait(120)
    directory, layer = lone.side.endpoint._directory, lone.side.endpoint._layer
    held = (directory.calls, directory.dialogs, directory.invites, directory.live, layer._merged, layer.schedule)
    return [len(one) for one in held] == [0] * 6 and layer.running == 0


def bugs(lone: Lone) -> int:
    """How many were counted."""
    return lone.side.endpoint.counters["bugs"]


def test_in_a_reinvite_it_is_500_and_bye() -> None:
    """The request is answered, the call hung up and told as lost; the call beside it hears nothing of it."""
    lone = talking()
    leg, tag = lone.leg, lone.tag
    lone.send(invite(call_id="beside", branch="z9hG4bKbeside"))
    beside = lone.facts[-1].leg
    with planted((Offers, "_report_offer")):
        reinvite = invite(cseq=2, branch="z9hG4bKre", to_tag=tag)
        assert titles(lone.send(reinvite)) == ["100 INVITE", "500 INVITE", "BYE"]
    assert lone.facts[3:] == [CallLost(leg, "internal error")]
    assert titles(lone.wish(Answer(beside, ANSWER))) == ["200 INVITE"]
    assert bugs(lone) == 1


def test_in_a_new_call_it_is_500() -> None:
    """An INVITE that we cannot even announce."""
    lone = Lone()
    with planted((uas_module, "header_lines")):
        assert titles(lone.send(invite())) == ["100 INVITE", "500 INVITE"]
    assert [type(fact) for fact in lone.facts] == [CallLost]
    lone.send(request("ACK"))
    assert (nothing_is_left(lone), bugs(lone)) == (True, 1)


def test_in_the_answer_it_is_500() -> None:
    """A wish that fails half-way never leaves the INVITE without an answer."""
    lone = Lone()
    lone.send(invite())
    with planted((Leg, "accept")):
        assert titles(lone.wish(Answer(lone.leg, ANSWER))) == ["500 INVITE"]
    assert lone.facts[1:] == [CallLost(lone.leg, "internal error")]
    assert nothing_is_left(lone)


def test_in_a_timer_it_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tick goes on to the next call; the one with the bug ends, its 200 waiting for an ACK as 13.3.1.4 wants it."""
    lone = Lone()
    lone.send(invite())
    first = lone.leg
    lone.wish(Answer(first, ANSWER))
    lone.send(invite(call_id="beside", branch="z9hG4bKbeside"))
    lone.wish(Answer(lone.facts[-1].leg, ANSWER))
    tick, failures = AckWait.tick, iter([True])

    def once(self: AckWait, now: float) -> object:
        if next(failures, False):
            raise ZeroDivisionError
        return tick(self, now)

    monkeypatch.setattr(AckWait, "tick", once)
    assert [what for _, what in schedule(lone.wait(0.5))] == ["200 INVITE"] * 2
    assert lone.facts[2:] == [CallLost(first, "internal error")]
    assert nothing_is_left(lone)


def test_in_a_response_the_call_is_cancelled() -> None:
    """The calling side, while it rings."""
    lone = Lone(peer=BOB)
    (packet,) = lone.wish(invite_wish())
    assert isinstance(packet.message, Request)
    with planted((Dialog, "of_response")):
        assert titles(lone.send(reply(packet.message, 180))) == ["CANCEL"]
    assert lone.facts == [CallLost(LEG, "internal error")]
    assert titles(lone.send(reply(packet.message, 487))) == ["ACK"]
    assert nothing_is_left(lone)


def test_a_hang_up_that_fails_still_ends_the_call() -> None:
    """Nothing is told: the session has wished for the end."""
    lone = talking()
    with planted((Leg, "request")):
        assert lone.wish(HangUp(lone.leg)) == []
    assert (len(lone.facts), nothing_is_left(lone)) == (2, True)


@pytest.mark.parametrize("method", ["BYE", "INFO"])
def test_a_call_that_cannot_even_end_is_forgotten(method: str) -> None:
    """Nothing can be stepped or sent any more: it is dropped at once, and told as lost."""
    lone = talking()
    leg, tag = lone.leg, lone.tag
    with planted((Call, "step"), (Call, "_info"), (TransactionLayer, "respond")):
        assert lone.send(request(method, cseq=2, branch="z9hG4bKlast", to_tag=tag)) == []
    assert lone.facts[2:] == [CallLost(leg, "internal error")]
    assert lone.side.endpoint.counters["calls"] == 0
    assert nothing_is_left(lone)


def test_in_our_transaction_the_call_is_refused() -> None:
    """500, as if the peer had said so."""
    lone = Lone(peer=BOB)
    (packet,) = lone.wish(invite_wish())
    assert isinstance(packet.message, Request)
    with planted((transaction_module, "ack_for")):
        assert lone.send(reply(packet.message, 486)) == []
    assert lone.facts == [CallRefused(LEG, 500, "internal error")]
    assert nothing_is_left(lone)


def test_in_a_peers_transaction_it_is_forgotten() -> None:
    """A timer that fails does not run for ever."""
    lone = Lone()
    lone.send(invite(lines=(*SDP_LINES, ("Require", "x"))))
    with planted((transaction_module.ServerTransaction, "_act")):
        assert lone.wait(0.5) == []
    assert (bugs(lone), nothing_is_left(lone)) == (1, True)


def test_outside_calls_the_request_is_answered_500() -> None:
    """No transaction waits for an answer that never comes."""
    lone = Lone()
    with planted((endpoint_module, "refusal")):
        assert titles(lone.send(request("OPTIONS"))) == ["500 OPTIONS"]
    assert nothing_is_left(lone)


def test_no_bug_no_count() -> None:
    """An ordinary call with all its parts counts none, and its end is told once."""
    lone = Lone()
    lone.send(invite())
    assert titles(lone.send(request("CANCEL", contact=None))) == ["200 CANCEL", "487 INVITE"]
    assert [type(fact) for fact in lone.facts] == [IncomingCall, CallCancelled]
    other = Lone(peer=BOB)
    (packet,) = other.wish(invite_wish())
    assert isinstance(packet.message, Request)
    other.send(reply(packet.message, 180))
    assert other.facts == [CallProgress(LEG, 180, "Ringing", b"")]
    assert (bugs(lone), bugs(other)) == (0, 0)


def test_late_refusals_of_offers_do_nothing() -> None:
    """RefuseOffer without an offer is ignored, and no bug."""
    lone = talking()
    assert lone.wish(RefuseOffer(lone.leg)) == []
    lone.send(request("UPDATE", cseq=2, branch="z9hG4bKu", to_tag=lone.tag, body=OFFER, lines=SDP_LINES))
    assert titles(lone.wish(RefuseOffer(lone.leg))) == ["488 UPDATE"]
    assert bugs(lone) == 0
