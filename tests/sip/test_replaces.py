"""INVITEs with Replaces (RFC 3891): who may take a call over, and that the session goes on as one."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from rustpbx.sip.events import (
    AcceptOffer,
    ByeReceived,
    CallConfirmed,
    HangUp,
    OfferReceived,
    PeerReplaced,
    RefuseOffer,
    SendDigit,
)
from rustpbx.sip.message import NameAddr, Request
from rustpbx.sip.parser import parse_name_addr
from rustpbx.sip.uri import parse_uri
from tests.kit.peers_sip import ANSWER, LEG, OFFER, SDP_LINES, Lone, invite, reply, request, titles
from tests.sip.test_endpoint_uac import dialling
from tests.sip.test_endpoint_uas import in_dialog, new_facts, response, ringing
from tests.sip.test_endpoint_uas import talking as alone

CAROL = parse_name_addr('"Carol" <sip:carol@192.0.2.1>')


def replacing(lone: Lone, value: str | None = None, **changes: Any) -> Request:
    """Carol's INVITE for the call that Alice has with us."""
    line = ("Replaces", value or f"call@192.0.2.1;to-tag={lone.tag};from-tag=alice-tag")
    fields: dict[str, Any] = {"lines": (*SDP_LINES, line), "branch": "z9hG4bKcarol", "call_id": "carols", **changes}
    made = invite(from_tag="carol-tag", contact="sip:carol@192.0.2.1:5070", **fields)
    return attrs.evolve(made, from_=CAROL.tagged("carol-tag"))


def carols(lone: Lone, method: str, cseq: int, to_tag: str, **changes: Any) -> Request:
    """A request in Carol's dialog."""
    return request(
        method, call_id="carols", from_tag="carol-tag", to_tag=to_tag, cseq=cseq, branch=f"z9hG4bKc{cseq}", **changes
    )


@pytest.mark.rfc("3891", "3")
def test_the_call_goes_on_with_somebody_else() -> None:
    """The session gets an offer on its leg; accepted, Carol has the call, Alice our BYE, and the leg its old name."""
    lone = alone()
    leg = lone.leg
    assert titles(lone.send(replacing(lone))) == ["100 INVITE"]
    assert new_facts(lone) == [OfferReceived(leg, OFFER)]
    sent = lone.wish(AcceptOffer(leg, ANSWER))
    assert titles(sent) == ["200 INVITE", "BYE"]
    answer, bye = (packet.message for packet in sent)
    assert (answer.call_id, answer.body, answer.to.tag != lone.tag) == ("carols", ANSWER, True)
    assert (bye.call_id, bye.header("Reason")) == ("call@192.0.2.1", 'Q.850;cause=16;text="Normal call clearing"')
    assert lone.send(carols(lone, "ACK", 1, answer.to.tag or "")) == []
    assert new_facts(lone)[1:] == [PeerReplaced(leg, CAROL.tagged("carol-tag")), CallConfirmed(leg, b"")]
    assert isinstance(bye, Request)
    assert titles(lone.send(in_dialog(lone, "BYE", 5))) == ["200 BYE"]  # Alice's own crosses ours
    lone.send(reply(bye, 200, contact=None))

    (digit,) = lone.wish(SendDigit(leg, "5"))  # what the session wishes reaches Carol
    assert (digit.message.call_id, digit.message.to.tag) == ("carols", "carol-tag")
    assert titles(lone.send(carols(lone, "BYE", 2, answer.to.tag or ""))) == ["200 BYE"]
    assert new_facts(lone)[3:] == [ByeReceived(leg)]
    lone.wait(100)
    assert lone.side.endpoint.counters["calls"] == 0


@pytest.mark.rfc("3891", "3")
def test_a_call_of_ours_can_be_taken_over_too() -> None:
    """The tags are as the callee sees them: ours is To's."""
    lone, first = dialling()
    lone.send(reply(first, 200, body=ANSWER))
    value = f"{first.call_id};to-tag={first.from_.tag};from-tag=bob-tag"
    assert titles(lone.send(replacing(lone, value))) == ["100 INVITE"]
    assert titles(lone.wish(AcceptOffer(LEG, ANSWER))) == ["200 INVITE", "BYE"]


def test_a_newcomer_without_an_offer() -> None:
    """It gets ours in the 200, and its answer is in the ACK."""
    lone = alone()
    leg = lone.leg
    lone.send(replacing(lone, body=b""))
    assert new_facts(lone) == [OfferReceived(leg, b"")]
    answer = lone.wish(AcceptOffer(leg, OFFER))[0].message
    ack = carols(lone, "ACK", 1, answer.to.tag or "", body=ANSWER, lines=SDP_LINES)
    lone.send(ack)
    assert new_facts(lone)[-1] == CallConfirmed(leg, ANSWER)


def test_what_does_not_fit_changes_nothing() -> None:
    """Refused with 488; Alice's call is as it was, and another may try."""
    lone = alone()
    lone.send(replacing(lone))
    assert titles(lone.wish(RefuseOffer(lone.leg))) == ["488 INVITE"]
    assert titles(lone.wish(SendDigit(lone.leg, "5"))) == ["INFO"]
    again = replacing(lone, branch="z9hG4bKagain", call_id="again")
    assert titles(lone.send(again)) == ["100 INVITE"]


def test_a_newcomer_that_gives_up() -> None:
    """Its CANCEL is answered, the session's answer comes too late, and the call is as it was."""
    lone = alone()
    made = replacing(lone)
    lone.send(made)
    cancel = attrs.evolve(made, method="CANCEL", cseq=attrs.evolve(made.cseq, method="CANCEL"), lines=(), body=b"")
    assert titles(lone.send(cancel)) == ["200 CANCEL", "487 INVITE"]
    assert lone.wish(AcceptOffer(lone.leg, ANSWER)) == []
    assert titles(lone.wish(HangUp(lone.leg))) == ["BYE"]


@pytest.mark.parametrize("who", ["us", "alice"])
def test_the_call_ends_before_it_is_taken_over(who: str) -> None:
    """603: there is nothing left to take over."""
    lone = alone()
    lone.send(replacing(lone))
    sent = lone.wish(HangUp(lone.leg)) if who == "us" else lone.send(in_dialog(lone, "BYE", 2))
    assert sorted(titles(sent)) == sorted(["603 INVITE", "BYE" if who == "us" else "200 BYE"])
    lone.wait(100)
    assert lone.side.endpoint.counters["calls"] == 0


@pytest.mark.rfc("3891", "3")
@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("call@192.0.2.1;to-tag={tag};from-tag=alice-tag;early-only", 486),
        ("call@192.0.2.1;to-tag={tag};from-tag=nobody", 481),
        ("call@192.0.2.1;to-tag=alice-tag;from-tag={tag}", 481),
        ("another;to-tag={tag};from-tag=alice-tag", 481),
        ("call@192.0.2.1;to-tag={tag}", 400),
        ("call@192.0.2.1", 400),
        (";to-tag={tag};from-tag=alice-tag", 400),
        ("call@192.0.2.1;to-tag={tag};;from-tag", 400),
    ],
)
def test_calls_that_cannot_be_taken_over(value: str, status: int) -> None:
    """Answered by their rule; nothing is told, and the call is as it was."""
    lone = alone()
    assert titles(lone.send(replacing(lone, value.format(tag=lone.tag)))) == [f"{status} INVITE"]
    assert new_facts(lone) == []
    assert lone.side.endpoint.counters["dialogs"] == 1


@pytest.mark.rfc("3891", "3")
def test_more_than_one_call_to_replace() -> None:
    """400, and so is a Join beside it."""
    lone = alone()
    value = f"call@192.0.2.1;to-tag={lone.tag};from-tag=alice-tag"
    for number, lines in enumerate([(("Replaces", value),) * 2, (("Replaces", value), ("Join", value))]):
        made = replacing(lone, branch=f"z9hG4bK{number}", call_id=f"c{number}", lines=(*SDP_LINES, *lines))
        assert response(lone.send(made)).status == 400


@pytest.mark.rfc("3891", "3")
def test_a_call_that_rings_here_cannot_be_taken_over() -> None:
    """481: an early dialog that is not of our making. One that we are ringing for us is declined."""
    lone = ringing()
    assert titles(lone.send(replacing(lone))) == ["481 INVITE"]
    ours, first = dialling()
    ours.send(reply(first, 180))
    value = f"{first.call_id};to-tag={first.from_.tag};from-tag=bob-tag"
    assert titles(ours.send(replacing(ours, value))) == ["603 INVITE"]


@pytest.mark.rfc("3891", "3")
def test_a_call_that_is_over_is_declined() -> None:
    """603, as long as it is remembered."""
    lone = alone()
    leg = lone.leg
    made = replacing(lone)
    lone.wish(HangUp(leg))
    assert titles(lone.send(made)) == ["603 INVITE"]


def test_one_newcomer_at_a_time() -> None:
    """491 for another, and while an offer is under way."""
    lone = alone()
    lone.send(replacing(lone))
    assert titles(lone.send(replacing(lone, branch="z9hG4bK2", call_id="other"))) == ["491 INVITE"]
    busy = alone()
    busy.send(in_dialog(busy, "INVITE", 2, body=OFFER, lines=SDP_LINES))
    assert titles(busy.send(replacing(busy))) == ["491 INVITE"]


def test_replaces_is_known() -> None:
    """An INVITE may require it."""
    lone = alone()
    value = f"call@192.0.2.1;to-tag={lone.tag};from-tag=alice-tag"
    made = replacing(lone, lines=(*SDP_LINES, ("Require", "replaces"), ("Replaces", value)))
    assert titles(lone.send(made)) == ["100 INVITE"]
    assert NameAddr(parse_uri("sip:carol@192.0.2.1")).uri == CAROL.uri
