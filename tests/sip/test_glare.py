"""Two offers that meet within a call (RFC 3261 14.1, 14.2): both are 491, and one of them is made again in time."""

from __future__ import annotations

import pytest

from rustpbx.sip.events import AcceptOffer, Answer, HangUp, OfferAnswered, OfferReceived, OfferRefused, SendOffer
from rustpbx.sip.message import Request
from rustpbx.sip.offers import GLARE_WAITS, MOST_GLARES
from tests.kit.peers_sip import ANSWER, LEG, OFFER, SDP_LINES, Lone, Pair, invite, invite_wish, reply, request, titles

SEEDS = range(40)


def talking(seed: int = 0) -> tuple[Pair, str]:
    """Alice and Bob in a call that Alice placed, and the name of Bob's leg."""
    pair = Pair(seed)
    pair.wish(pair.alice, invite_wish())
    pair.settle()
    leg = pair.bob.facts[0].leg
    pair.wish(pair.bob, Answer(leg, ANSWER))
    pair.settle()
    for side in (pair.alice, pair.bob):
        side.facts.clear()
    pair.seen.clear()
    return pair, leg


def crossing(seed: int = 0) -> tuple[Pair, str]:
    """Both have sent a re-INVITE before either arrived, and both have got 491."""
    pair, leg = talking(seed)
    pair.wish(pair.alice, SendOffer(LEG, OFFER))
    pair.wish(pair.bob, SendOffer(leg, ANSWER))
    pair.settle()
    assert sorted(line for line in pair.seen if "491" in line) == ["< 491 INVITE", "> 491 INVITE"]
    assert (pair.alice.facts, pair.bob.facts) == ([], [])
    return pair, leg


@pytest.mark.rfc("3261", "14.1", "14.2")
def test_who_did_not_choose_the_call_id_is_first_and_the_other_is_told() -> None:
    """Bob's second try comes within 2 s, when Alice still waits: she hears of it, and that hers came to nothing."""
    pair, leg = crossing()
    pair.advance(2.0)
    assert pair.alice.facts == [OfferRefused(LEG, 491), OfferReceived(LEG, ANSWER)]
    pair.wish(pair.alice, AcceptOffer(LEG, OFFER))
    pair.settle()
    pair.advance(10.0)
    assert pair.bob.facts == [OfferAnswered(leg, OFFER)]
    assert [line for line in pair.seen if line.endswith(" INVITE") and line[2].isalpha()].count("> INVITE") == 1


def retry_time(lone: Lone, refused: Request) -> float:
    """When an offer that gets 491 is made again."""
    began = lone.now
    assert titles(lone.send(reply(refused, 491))) == ["ACK"]
    at, packet = next((at, packet) for at, packet in lone.wait(4.0) if packet.title == "INVITE")
    again = packet.message
    assert (again.cseq.number, again.body) == (refused.cseq.number + 1, refused.body)
    return at - began


def called(seed: int) -> tuple[Lone, Request]:
    """A call that we were called in, and our re-INVITE."""
    lone = Lone(seed=seed)
    lone.send(invite())
    lone.wish(Answer(lone.leg, ANSWER))
    lone.send(request("ACK", branch="z9hG4bKack", to_tag=lone.tag))
    return lone, offered(lone, lone.leg)


def calling(seed: int) -> tuple[Lone, Request]:
    """A call that we placed, and our re-INVITE."""
    lone = Lone(seed=seed)
    (packet,) = lone.wish(invite_wish())
    assert isinstance(packet.message, Request)
    lone.send(reply(packet.message, 200, body=ANSWER, lines=SDP_LINES))
    return lone, offered(lone, LEG)


def offered(lone: Lone, leg: str) -> Request:
    """Our re-INVITE."""
    (packet,) = lone.wish(SendOffer(leg, OFFER))
    assert isinstance(packet.message, Request)
    return packet.message


@pytest.mark.rfc("3261", "14.1")
@pytest.mark.parametrize(("begin", "ours"), [(calling, True), (called, False)])
def test_the_waits_are_those_of_the_rfc(begin: object, *, ours: bool) -> None:
    """2.1 to 4.0 s for who chose the Call-ID, 0 to 2 s for the other; at random, in units of 10 ms."""
    assert callable(begin)
    waits = [retry_time(*begin(seed)) for seed in SEEDS]
    least, most = GLARE_WAITS[ours]
    assert least <= min(waits) < max(waits) <= most
    assert max(waits) - min(waits) > (most - least) / 2
    assert [round(wait, 2) for wait in waits] == pytest.approx(waits)


def test_a_peer_that_is_always_in_the_middle_of_something_is_asked_four_times() -> None:
    """After that the session hears of it, may offer again, and the count begins anew."""
    lone, refused = calling(7)
    for _ in range(MOST_GLARES):
        lone.send(reply(refused, 491))
        again = next(packet.message for _, packet in lone.wait(4.0) if packet.title == "INVITE")
        assert isinstance(again, Request)
        refused = again
    lone.send(reply(refused, 491))
    assert lone.facts[-1] == OfferRefused(LEG, 491)
    assert lone.wait(30.0) == []
    assert retry_time(lone, offered(lone, LEG)) >= 2.1


def test_a_second_offer_while_one_waits_is_refused() -> None:
    """One at a time; the first is still made."""
    lone, refused = calling(1)
    lone.send(reply(refused, 491))
    assert lone.wish(SendOffer(LEG, ANSWER)) == []
    assert lone.facts[-1] == OfferRefused(LEG, 491)
    assert {packet.message.body for _, packet in lone.wait(4.0) if packet.title == "INVITE"} == {OFFER}


def test_a_call_that_ends_offers_nothing_more() -> None:
    """BYE while the offer waits: no re-INVITE follows."""
    lone, refused = calling(1)
    lone.send(reply(refused, 491))
    lone.wish(HangUp(LEG))
    assert {packet.title for _, packet in lone.wait(100.0)} == {"BYE"}
    assert lone.side.endpoint.counters["calls"] == 0


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_the_peers_offer_may_come_while_ours_waits(method: str) -> None:
    """It is served, and ours is the session's to make again."""
    lone, refused = called(3)
    lone.send(reply(refused, 491))
    offer = request(method, branch="z9hG4bKtheirs", cseq=2, to_tag=lone.tag, body=OFFER, lines=SDP_LINES)
    lone.send(offer)
    assert lone.facts[-2:] == [OfferRefused(lone.leg, 491), OfferReceived(lone.leg, OFFER)]
    assert titles(lone.wish(AcceptOffer(lone.leg, ANSWER))) == [f"200 {method}"]
    assert [packet.title for _, packet in lone.wait(1.0) if not packet.title.startswith("200")] == []
