"""The services of RFC 5359 that a user agent takes part in, message by message, between endpoints of ours.

Who answers an offer here says what the session would say; `tests/session/test_renegotiation.py` has that side.
"""

from __future__ import annotations

import attrs
import pytest

from rustpbx.core import Address
from rustpbx.sip.events import (
    AcceptOffer,
    Answer,
    ByeReceived,
    CallAnswered,
    CallConfirmed,
    CallProgress,
    CallRefused,
    HangUp,
    IncomingCall,
    OfferAnswered,
    OfferReceived,
    Refuse,
    Ring,
    SendInvite,
    SendOffer,
)
from rustpbx.sip.message import NameAddr, Request, Response
from rustpbx.sip.uri import parse_uri
from tests.kit.peers_sip import (
    ALICE,
    ANSWER,
    BOB,
    LEG,
    OFFER,
    SDP_LINES,
    Lone,
    Packet,
    invite,
    invite_wish,
    reply,
    request,
    titles,
    udp,
)
from tests.kit.town import Caller, Proxy, Town

PROXY: Address = ("192.0.2.11", 5060)
CAROL: Address = ("192.0.2.3", 5060)
SENDONLY, RECVONLY = b"a=sendonly\r\n", b"a=recvonly\r\n"


def call(callee: Address, leg: str = LEG, caller: Address = ALICE) -> SendInvite:
    """One calls the other, directly."""
    return SendInvite(
        leg=leg,
        caller=NameAddr(parse_uri(f"sip:someone@{caller[0]}")),
        callee=parse_uri(f"sip:someone@{callee[0]}"),
        body=OFFER,
        local_host=caller[0],
    )


def talking() -> tuple[Town, Caller, Caller, Caller]:
    """Alice and Bob in a call that Alice placed; Carol is free. What passed until then is forgotten."""
    alice, bob, carol = Caller(ALICE, 1), Caller(BOB, 2), Caller(CAROL, 3)
    town = Town(alice=(ALICE, alice), bob=(BOB, bob), carol=(CAROL, carol))
    town.wish(alice, call(BOB))
    town.wish(bob, Answer(bob.leg, ANSWER))
    town.passed.clear()
    return town, alice, bob, carol


End = tuple[Caller, str]
"""Somebody, and the name of his leg."""


def changed(town: Town, one: End, other: End, body: bytes, answer: bytes) -> None:
    """A re-INVITE and its answer."""
    (asker, asking), (asked, leg) = one, other
    town.wish(asker, SendOffer(asking, body))
    assert asked.facts[-1] == OfferReceived(leg, body)
    town.wish(asked, AcceptOffer(leg, answer))
    assert asker.facts[-1] == OfferAnswered(asking, answer)


def reinvite(one: str, other: str) -> list[str]:
    """What passes when one changes the session with the other."""
    return [
        f"{one}: INVITE -> {other}",
        f"{other}: 100 INVITE -> {one}",
        f"{other}: 200 INVITE -> {one}",
        f"{one}: ACK -> {other}",
    ]


@pytest.mark.rfc("5359", "2.1")
@pytest.mark.rfc("3264", "8.4")
def test_call_hold() -> None:
    """2.1: Bob holds Alice and takes her back: two re-INVITEs, each with its 200 and ACK, then her BYE."""
    town, alice, bob, _ = talking()
    changed(town, (bob, bob.leg), (alice, LEG), OFFER + SENDONLY, ANSWER + RECVONLY)
    changed(town, (bob, bob.leg), (alice, LEG), OFFER, ANSWER)
    town.wish(alice, HangUp(LEG))
    assert town.seen() == [
        *reinvite("bob", "alice"),
        *reinvite("bob", "alice"),
        "alice: BYE -> bob",
        "bob: 200 BYE -> alice",
    ]
    cseqs = [a.message.cseq.number for a in town.passed if a.source == "bob" and isinstance(a.message, Request)]
    assert cseqs == [1, 1, 2, 2]


@pytest.mark.rfc("5359", "2.2")
def test_consultation_hold() -> None:
    """2.2: Bob holds Alice, asks Carol, and comes back: two dialogs of one endpoint that know nothing of each other."""
    town, alice, bob, carol = talking()
    held = bob.leg
    changed(town, (bob, held), (alice, LEG), OFFER + SENDONLY, ANSWER + RECVONLY)
    town.wish(bob, call(CAROL, "asking", BOB))
    town.wish(carol, Answer(carol.leg, ANSWER))
    town.wish(bob, HangUp("asking"))
    changed(town, (bob, held), (alice, LEG), OFFER, ANSWER)
    town.wish(bob, HangUp(held))
    assert town.seen() == [
        *reinvite("bob", "alice"),
        "bob: INVITE -> carol",
        "carol: 100 INVITE -> bob",
        "carol: 200 INVITE -> bob",
        "bob: ACK -> carol",
        "bob: BYE -> carol",
        "carol: 200 BYE -> bob",
        *reinvite("bob", "alice"),
        "bob: BYE -> alice",
        "alice: 200 BYE -> bob",
    ]
    assert carol.facts[1:] == [CallConfirmed(carol.leg, b""), ByeReceived(carol.leg)]
    assert len({a.message.call_id for a in town.passed}) == 2


@pytest.mark.rfc("5359", "2.3")
@pytest.mark.rfc("3264", "8.3.1")
def test_music_on_hold_for_who_is_held() -> None:
    """2.3, Alice's side: the offer that holds her names the music's host; the one that takes her back Bob's again."""
    town, alice, bob, _ = talking()
    music = OFFER.replace(ALICE[0].encode(), CAROL[0].encode()) + SENDONLY
    changed(town, (bob, bob.leg), (alice, LEG), music, ANSWER + RECVONLY)
    changed(town, (bob, bob.leg), (alice, LEG), OFFER, ANSWER)
    assert town.seen() == [*reinvite("bob", "alice")] * 2
    assert [fact.body for fact in alice.facts if isinstance(fact, OfferReceived)] == [music, OFFER]


@pytest.mark.rfc("5359", "2.3")
@pytest.mark.rfc("3665", "3.6")
@pytest.mark.rfc("6337", "3.1.2")
def test_music_on_hold_for_who_plays() -> None:
    """2.3, the music's side: an INVITE without SDP gets our offer in the 200, and the ACK brings the answer."""
    lone = Lone()
    lone.send(request("INVITE"))
    packets = lone.wish(Answer(lone.leg, OFFER + SENDONLY))
    assert titles(packets) == ["200 INVITE"]
    assert packets[0].message.body == OFFER + SENDONLY
    ack = request("ACK", branch="z9hG4bKack", to_tag=lone.tag, body=ANSWER + RECVONLY, lines=SDP_LINES)
    assert lone.send(ack) == []
    assert lone.facts[1:] == [CallConfirmed(lone.leg, ANSWER + RECVONLY)]


@pytest.mark.rfc("5359", "2.7")
@pytest.mark.rfc("3261", "8.1.3.4")
def test_call_forwarding_unconditional() -> None:
    """2.7: Bob's phone says 302; the call goes on to Carol, and she alone is in the dialog."""
    alice, carol = Caller(ALICE, 1), Caller(CAROL, 3)
    bobs = Proxy(BOB, {}, moved={"someone": f"sip:carol@{CAROL[0]}"})
    town = Town(alice=(ALICE, alice), bob=(BOB, bobs), carol=(CAROL, carol))
    town.wish(alice, call(BOB))
    town.wish(carol, Answer(carol.leg, ANSWER))
    town.wish(alice, HangUp(LEG))
    assert [line for line in town.seen() if " 100 " not in line] == [
        "alice: INVITE -> bob",
        "bob: 302 INVITE -> alice",
        "alice: ACK -> bob",
        "alice: INVITE -> carol",
        "carol: 200 INVITE -> alice",
        "alice: ACK -> carol",
        "alice: BYE -> carol",
        "carol: 200 BYE -> alice",
    ]
    assert alice.facts == [CallAnswered(LEG, ANSWER)]


def dialling() -> tuple[Lone, Request]:
    """A call of ours to somebody behind a proxy, which speaks for all phones."""
    lone = Lone()
    (packet,) = lone.wish(invite_wish(destination=ALICE))
    assert isinstance(packet.message, Request)
    return lone, packet.message


def sent(packets: list[Packet]) -> list[Request]:
    """The requests among what was sent."""
    return [packet.message for packet in packets if isinstance(packet.message, Request)]


@pytest.mark.rfc("5359", "2.8", "2.9")
@pytest.mark.rfc("3261", "13.2.2.1", "21.1.3")
@pytest.mark.parametrize("first", [b"", ANSWER], ids=["rings", "early media"])
def test_call_forwarding_when_busy_or_without_an_answer(first: bytes) -> None:
    """2.8 and 2.9: 180 from Bob's phone, 181, then Carol's phone rings and answers with a tag of its own."""
    lone, ours = dialling()
    lone.send(reply(ours, 180, tag="bob-tag", body=first, lines=SDP_LINES if first else ()))
    lone.send(reply(ours, 181, tag="proxy-tag", contact=None))
    lone.send(reply(ours, 180, tag="carol-tag", contact=f"sip:carol@{CAROL[0]}"))
    (ack,) = sent(lone.send(reply(ours, 200, tag="carol-tag", contact=f"sip:carol@{CAROL[0]}", body=ANSWER)))
    assert (ack.method, str(ack.uri), ack.to.tag) == ("ACK", f"sip:carol@{CAROL[0]}", "carol-tag")
    assert lone.facts == [
        CallProgress(LEG, 180, "Ringing", first),
        CallProgress(LEG, 181, "Call Is Being Forwarded", b""),
        CallProgress(LEG, 180, "Ringing", b""),
        CallAnswered(LEG, ANSWER),
    ]
    (bye,) = sent(lone.wish(HangUp(LEG)))
    assert (bye.method, bye.to.tag) == ("BYE", "carol-tag")


@pytest.mark.rfc("5359", "2.12")
def test_find_me() -> None:
    """2.12: the proxy tries one place after the other; whatever rang before, the one that answers is talked to."""
    lone, ours = dialling()
    for tag in ("office", "car", "home"):
        lone.send(reply(ours, 180, tag=tag, contact=f"sip:bob@{tag}.example.com"))
    (ack,) = sent(lone.send(reply(ours, 200, tag="home", contact=f"sip:bob@{CAROL[0]}", body=ANSWER)))
    assert (str(ack.uri), ack.to.tag) == (f"sip:bob@{CAROL[0]}", "home")
    late = reply(ours, 200, tag="car", contact=f"sip:bob@{BOB[0]}", body=ANSWER)
    assert [(r.method, r.to.tag) for r in sent(lone.send(late))] == [("ACK", "car"), ("BYE", "car")]
    assert [type(fact) for fact in lone.facts] == [CallProgress] * 3 + [CallAnswered]


@pytest.mark.rfc("5359", "2.13")
@pytest.mark.parametrize("status", [403, 486, 603])
def test_incoming_call_screening(status: int) -> None:
    """2.13: who is unwelcome by his name hears so, before anything rings; who is not rings."""
    lone = Lone()
    lone.send(invite())
    (incoming,) = lone.facts
    assert isinstance(incoming, IncomingCall)
    assert str(incoming.caller.uri) == "sip:alice@192.0.2.1"
    (packet,) = lone.wish(Refuse(lone.leg, status))
    assert packet.title == f"{status} INVITE"
    lone.send(invite(call_id="other", branch="z9hG4bKother"))
    leg = lone.facts[-1].leg
    assert titles(lone.wish(Ring(leg))) == ["180 INVITE"]


@pytest.mark.rfc("5359", "2.14")
def test_outgoing_call_screening_by_a_proxy() -> None:
    """2.14: the proxy forbids the number: 403 is the call's end, with the words that came."""
    alice = Caller(ALICE, 1)
    town = Town(alice=(ALICE, alice), proxy=(PROXY, Proxy(PROXY, {}, refuses={"someone": 403})))
    town.wish(alice, attrs.evolve(call(BOB), destination=udp(PROXY)))
    assert [line for line in town.seen() if " 100 " not in line] == [
        "alice: INVITE -> proxy",
        "proxy: 403 INVITE -> alice",
        "alice: ACK -> proxy",
    ]
    assert alice.facts == [CallRefused(LEG, 403, "Forbidden")]


@pytest.mark.rfc("3261", "12.2.2")
def test_requests_of_the_held_dialog_reach_it_alone() -> None:
    """Two calls of one endpoint: a BYE with the tags of one and the Call-ID of the other belongs to neither."""
    lone = Lone()
    for name in ("one", "two"):
        lone.send(invite(call_id=name, branch=f"z9hG4bK{name}", from_tag=f"{name}-tag"))
    tags = {fact.leg.split("-")[0]: fact.leg for fact in lone.facts}
    assert len(tags) == 2
    (packet,) = lone.send(request("BYE", cseq=2, call_id="one", from_tag="two-tag", to_tag=lone.tag, branch="z9hG4bKx"))
    assert isinstance(packet.message, Response)
    assert packet.message.status == 481
