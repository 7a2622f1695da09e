"""Reliable provisional responses (RFC 3262) on either side, and what may be offered and answered in them."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import (
    AcceptOffer,
    Answer,
    CallAnswered,
    CallCancelled,
    CallConfirmed,
    CallLost,
    CallProgress,
    Credentials,
    HangUp,
    OfferAnswered,
    OfferReceived,
    Refuse,
    RefuseOffer,
    Ring,
    SendInvite,
)
from rustpbx.sip.extensions import Extensions, PrackWish, option_tags
from rustpbx.sip.message import Lines, NameAddr, Request, Response
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
    Pair,
    invite,
    invite_wish,
    reply,
    request,
    schedule,
    titles,
)

SUPPORTS: Lines = (("Supported", "100rel"),)
REQUIRES: Lines = (("Require", "100rel"),)
OTHER = ANSWER.replace(b"2 2", b"3 3")


def config(prack: PrackWish) -> EndpointConfig:
    """An endpoint with this wish."""
    return EndpointConfig(port=5060, extensions=Extensions(prack=prack, session_timers="off"))


def called(lines: Lines = SUPPORTS, *, offer: bytes = OFFER, prack: PrackWish = "supported") -> Lone:
    """Bob is called by a peer with these header fields."""
    lone = Lone(config(prack))
    lone.send(invite(lines=(*(SDP_LINES if offer else ()), *lines), body=offer))
    return lone


def rung(lone: Lone, status: int = 183, body: bytes = ANSWER) -> Response:
    """Bob's provisional response."""
    (packet,) = lone.wish(Ring(lone.leg, status, body))
    assert isinstance(packet.message, Response)
    return packet.message


def rseq(response: Response) -> int:
    """Its number."""
    return int(response.header("RSeq") or "")


def prack(lone: Lone, rack: str, *, cseq: int = 2, body: bytes = b"") -> Request:
    """A PRACK of Alice's."""
    lines = (("RAck", rack), *(SDP_LINES if body else ()))
    return request("PRACK", branch=f"z9hG4bKprack{cseq}", cseq=cseq, to_tag=lone.tag, lines=lines, body=body)


def acknowledged(lone: Lone, response: Response, *, cseq: int = 2, body: bytes = b"") -> list[Packet]:
    """What Bob does when his response is acknowledged."""
    return lone.send(prack(lone, f"{rseq(response)} 1 INVITE", cseq=cseq, body=body))


# -- the called side --------------------------------------------------------------------------------------------------


@pytest.mark.rfc("3262", "3", "7.1")
@pytest.mark.parametrize(
    ("lines", "wish", "reliable"),
    [
        (SUPPORTS, Ring("", 183, ANSWER), True),
        (SUPPORTS, Ring("", 180), False),
        (REQUIRES, Ring("", 180), True),
        (REQUIRES, Ring("", 183, ANSWER), True),
        ((), Ring("", 183, ANSWER), False),
    ],
)
def test_what_is_sent_reliably(lines: Lines, wish: Ring, *, reliable: bool) -> None:
    """What says something of the session where the caller can do it, everything where it requires so."""
    lone = called(lines)
    response = rung(lone, wish.status, wish.body)
    assert (response.header("Require"), response.header("RSeq") is not None) == (
        "100rel" if reliable else None,
        reliable,
    )
    assert response.body == wish.body
    assert lone.wait(0.5) == [] or reliable


@pytest.mark.rfc("3262", "3")
def test_a_reliable_response_is_resent_until_its_prack() -> None:
    """After T1, and then after twice the time, without T2; the PRACK is 200 and ends it."""
    lone = called()
    response = rung(lone)
    assert schedule(lone.wait(20.0)) == [(at, "183 INVITE") for at in (0.5, 1.5, 3.5, 7.5, 15.5)]
    assert titles(acknowledged(lone, response)) == ["200 PRACK"]
    assert lone.wait(100.0) == []
    assert lone.side.endpoint.counters["pending"] == 1


@pytest.mark.rfc("3262", "3")
def test_without_a_prack_the_call_is_refused() -> None:
    """64*T1 after the response 504 goes out, and the session is told."""
    lone = called()
    rung(lone)
    sent = [(at, title) for at, title in schedule(lone.wait(33.0)) if title != "183 INVITE"]
    assert sent[0] == (32.0, "504 INVITE")
    assert lone.facts[1:] == [CallLost(lone.leg, "no PRACK for our provisional response")]


@pytest.mark.rfc("3262", "3", "7.2")
@pytest.mark.parametrize("rack", ["{} 2 INVITE", "{} 1 UPDATE", "77 1 INVITE", "4294967295 1 INVITE"])
def test_a_prack_for_nothing_is_481(rack: str) -> None:
    """All three parts of the RAck must match; the response goes on being resent."""
    lone = called()
    response = rung(lone)
    assert titles(lone.send(prack(lone, rack.format(rseq(response))))) == ["481 PRACK"]
    assert schedule(lone.wait(0.6)) == [(0.5, "183 INVITE")]


@pytest.mark.rfc("3262", "7.2")
@pytest.mark.parametrize("rack", ["", "1 INVITE", "x 1 INVITE", "1 1 INVITE more", "99999999999 1 INVITE"])
def test_a_prack_that_cannot_be_read_is_400(rack: str) -> None:
    """And changes nothing."""
    lone = called()
    rung(lone)
    assert titles(lone.send(prack(lone, rack))) == ["400 PRACK"]


@pytest.mark.rfc("3262", "3")
def test_a_second_prack_is_481() -> None:
    """A copy belongs to its transaction; a new one acknowledges nothing."""
    lone = called()
    response = rung(lone)
    assert titles(acknowledged(lone, response)) == ["200 PRACK"]
    assert titles(acknowledged(lone, response)) == ["200 PRACK"]
    assert titles(acknowledged(lone, response, cseq=3)) == ["481 PRACK"]


@pytest.mark.rfc("3262", "3")
def test_one_at_a_time_and_the_newest_waits() -> None:
    """The next one leaves at the PRACK, numbered one higher; those in between are skipped."""
    lone = called(REQUIRES)
    first = rung(lone, 180, b"")
    for wish in (Ring(lone.leg, 182), Ring(lone.leg, 183, ANSWER), Ring(lone.leg, 181)):
        assert lone.wish(wish) == []
    told, second = acknowledged(lone, first)
    assert titles([told, second]) == ["200 PRACK", "183 INVITE"]
    assert isinstance(second.message, Response)
    assert (rseq(second.message), second.message.body) == (rseq(first) + 1, ANSWER)


@pytest.mark.rfc("3262", "3", "5")
def test_the_200_waits_for_the_prack_of_a_session_description() -> None:
    """It follows the 200 to the PRACK, and repeats no SDP (RFC 6337 3.1.1)."""
    lone = called()
    response = rung(lone)
    assert lone.wish(Answer(lone.leg, ANSWER)) == []
    assert schedule(lone.wait(0.6)) == [(0.5, "183 INVITE")]
    sent = acknowledged(lone, response)
    assert titles(sent) == ["200 PRACK", "200 INVITE"]
    assert sent[1].message.body == b""
    lone.send(request("ACK", branch="z9hG4bKack", to_tag=lone.tag))
    assert lone.facts[1:] == [CallConfirmed(lone.leg, b"")]


@pytest.mark.rfc("3262", "3")
def test_a_200_may_overtake_what_has_no_session_description() -> None:
    """Nothing of the 180 is resent after it, but its PRACK is still answered."""
    lone = called(REQUIRES)
    response = rung(lone, 180, b"")
    assert titles(lone.wish(Answer(lone.leg, ANSWER))) == ["200 INVITE"]
    assert titles(acknowledged(lone, response)) == ["200 PRACK"]
    assert {title for _, title in schedule(lone.wait(5.0))} == {"200 INVITE"}


@pytest.mark.rfc("3262", "3")
@pytest.mark.parametrize("end", [Refuse("", 486), HangUp("")])
def test_a_refusal_waits_for_nothing(end: Refuse | HangUp) -> None:
    """It goes out at once, ends the copies of the 183, and the PRACK that it crossed is still 200."""
    lone = called()
    response = rung(lone)
    (refusal,) = lone.wish(attrs.evolve(end, leg=lone.leg))
    assert refusal.title in {"486 INVITE", "603 INVITE"}
    lone.send(request("ACK", to_tag=lone.tag))
    assert titles(acknowledged(lone, response)) == ["200 PRACK"]
    assert titles(acknowledged(lone, response, cseq=3)) == ["481 PRACK"]
    assert lone.wait(100.0) == []
    assert lone.side.endpoint.counters["calls"] == 0


@pytest.mark.rfc("3262", "3")
def test_a_cancel_while_the_200_waits() -> None:
    """487: nobody has been answered yet."""
    lone = called()
    rung(lone)
    lone.wish(Answer(lone.leg, ANSWER))
    assert titles(lone.send(request("CANCEL"))) == ["200 CANCEL", "487 INVITE"]
    assert [type(fact) for fact in lone.facts[1:]] == [CallCancelled]


@pytest.mark.rfc("3262", "5")
def test_our_offer_in_a_reliable_183_is_answered_by_its_prack() -> None:
    """An INVITE without SDP: the session hears of the answer before the call is up, and the 200 carries nothing."""
    lone = called(offer=b"")
    response = rung(lone, 183, OFFER)
    assert titles(acknowledged(lone, response, body=ANSWER)) == ["200 PRACK"]
    assert lone.facts[1:] == [OfferAnswered(lone.leg, ANSWER)]
    (ok,) = lone.wish(Answer(lone.leg, OFFER))
    assert ok.message.body == b""
    lone.send(request("ACK", branch="z9hG4bKack", to_tag=lone.tag, body=OTHER, lines=SDP_LINES))
    assert lone.facts[2:] == [CallConfirmed(lone.leg, b"")]


@pytest.mark.rfc("3261", "13.2.1")
def test_an_offer_of_ours_is_never_unreliable() -> None:
    """Without 100rel a caller that sent none gets it in the 200 only."""
    lone = called((), offer=b"")
    assert rung(lone, 183, OFFER).body == b""
    (ok,) = lone.wish(Answer(lone.leg, OFFER))
    assert ok.message.body == OFFER


@pytest.mark.rfc("3262", "5")
@pytest.mark.parametrize("accept", [True, False])
def test_a_prack_may_offer_another_session(*, accept: bool) -> None:
    """The session decides; what it says goes into the response to the PRACK."""
    lone = called()
    response = rung(lone)
    assert acknowledged(lone, response, body=OTHER) == []
    assert lone.facts[1:] == [OfferReceived(lone.leg, OTHER)]
    (packet,) = lone.wish(AcceptOffer(lone.leg, ANSWER) if accept else RefuseOffer(lone.leg))
    assert (packet.title, packet.message.body) == (("200 PRACK", ANSWER) if accept else ("488 PRACK", b""))
    assert packet.message.contacts == ()
    assert lone.wait(100.0) == []


@pytest.mark.rfc("3311", "5.2")
def test_an_update_before_the_answer() -> None:
    """Once our answer is out reliably the caller may change the session; before, that is 500 with a time to wait."""
    lone = called()
    early = request("UPDATE", branch="z9hG4bKu1", cseq=2, to_tag=lone.tag, body=OTHER, lines=SDP_LINES)
    (refusal,) = lone.send(early)
    assert (refusal.title, refusal.message.header("Retry-After") is not None) == ("500 UPDATE", True)
    acknowledged(lone, rung(lone), cseq=3)
    lone.send(request("UPDATE", branch="z9hG4bKu2", cseq=4, to_tag=lone.tag, body=OTHER, lines=SDP_LINES))
    assert lone.facts[1:] == [OfferReceived(lone.leg, OTHER)]
    assert titles(lone.wish(AcceptOffer(lone.leg, ANSWER))) == ["200 UPDATE"]
    assert titles(lone.wish(Answer(lone.leg, ANSWER))) == ["200 INVITE"]


@pytest.mark.rfc("3261", "14.2")
def test_a_reinvite_before_the_answer_is_refused() -> None:
    """500 even where the session is settled; the first INVITE goes on."""
    lone = called()
    acknowledged(lone, rung(lone))
    sent = lone.send(invite(branch="z9hG4bKre", cseq=3, to_tag=lone.tag))
    assert titles(sent) == ["100 INVITE", "500 INVITE"]
    assert titles(lone.wish(Answer(lone.leg, ANSWER))) == ["200 INVITE"]


@pytest.mark.rfc("3262", "3")
@pytest.mark.rfc("3261", "21.4.15", "21.4.16")
def test_wishes_that_differ() -> None:
    """Off: who requires it gets 420, who supports it no reliable response. Required: who cannot do it gets 421."""
    off = Lone(config("off"))
    (refusal,) = off.send(invite(lines=(*SDP_LINES, *REQUIRES)))
    assert (refusal.title, refusal.message.header("Unsupported")) == ("420 INVITE", "100rel")
    assert rung(called(prack="off")).header("RSeq") is None
    (refusal,) = Lone(config("required")).send(invite())
    assert (refusal.title, refusal.message.header("Require")) == ("421 INVITE", "100rel")
    assert rung(called(prack="required"), 180, b"").header("RSeq") is not None


# -- the calling side -------------------------------------------------------------------------------------------------


def calling(**wish: object) -> tuple[Lone, Request]:
    """Bob calls."""
    lone = Lone()
    (packet,) = lone.wish(attrs.evolve(invite_wish(), **wish))  # type: ignore[arg-type]
    assert isinstance(packet.message, Request)
    return lone, packet.message


def progress(to: Request, number: int, *, status: int = 183, tag: str = "one", body: bytes = b"") -> Response:
    """A reliable provisional response."""
    lines = (("Require", "100rel"), ("RSeq", str(number)), *(SDP_LINES if body else ()))
    return reply(to, status, tag=tag, lines=lines, body=body)


@pytest.mark.rfc("3262", "4", "7.2", "8")
@pytest.mark.parametrize(
    ("wish", "supported", "required"),
    [("supported", True, None), ("required", True, "100rel"), ("off", False, None)],
)
def test_what_an_invite_says(wish: PrackWish, required: str | None, *, supported: bool) -> None:
    """Supported as a rule; Require where the configuration insists."""
    (packet,) = Lone(config(wish)).wish(invite_wish())
    assert ("100rel" in option_tags(packet.message), packet.message.header("Require")) == (supported, required)


@pytest.mark.rfc("3262", "4", "7.2")
def test_each_reliable_response_is_acknowledged_once() -> None:
    """A PRACK in the early dialog, with its own CSeq; a copy of the response starts no second one."""
    lone, sent = calling()
    (packet,) = lone.send(progress(sent, 100, status=180))
    prack = packet.message
    assert isinstance(prack, Request)
    assert (prack.method, prack.header("RAck"), prack.cseq.number) == ("PRACK", "100 1 INVITE", 2)
    assert (prack.to.tag, str(prack.uri)) == ("one", "sip:bob@192.0.2.2:5060")
    assert lone.send(progress(sent, 100, status=180)) == []
    lone.send(reply(prack, 200))
    assert lone.send(progress(sent, 100, status=180)) == []
    assert lone.facts == [CallProgress(LEG, 180, "Ringing", b"")]


@pytest.mark.rfc("3262", "4")
def test_a_response_that_overtook_another_is_not_taken() -> None:
    """Neither told nor acknowledged, until those before it have come."""
    lone, sent = calling()
    lone.send(progress(sent, 5, status=180))
    assert lone.send(progress(sent, 7, body=ANSWER)) == []
    assert titles(lone.send(progress(sent, 6, status=182))) == ["PRACK"]
    assert titles(lone.send(progress(sent, 7, body=ANSWER))) == ["PRACK"]
    assert [fact.status for fact in lone.facts if isinstance(fact, CallProgress)] == [180, 182, 183]


@pytest.mark.rfc("3262", "4")
def test_each_fork_counts_by_itself() -> None:
    """Two phones have numbers of their own, and dialogs to be acknowledged in."""
    lone, sent = calling()
    pracks = [lone.send(progress(sent, number, tag=tag))[0].message for tag, number in (("a", 9), ("b", 3), ("a", 10))]
    assert [(prack.to.tag, prack.header("RAck"), prack.cseq.number) for prack in pracks] == [
        ("a", "9 1 INVITE", 2),
        ("b", "3 1 INVITE", 2),
        ("a", "10 1 INVITE", 3),
    ]


@pytest.mark.rfc("3262", "4", "7.1")
@pytest.mark.parametrize("number", ["", "0", "x", "4294967296"])
def test_a_number_that_cannot_be_read_is_no_response(number: str) -> None:
    """Dropped and counted."""
    lone, sent = calling()
    lines = (("Require", "100rel"), ("RSeq", number))
    assert lone.send(reply(sent, 180, lines=lines)) == []
    assert (lone.facts, lone.side.endpoint.counters["malformed"]) == ([], 1)


@pytest.mark.rfc("3262", "5")
@pytest.mark.rfc("6337", "3.1.1")
def test_an_answer_in_a_reliable_response_stands() -> None:
    """SDP of the same callee after it is ignored, in another 183 and in the 200."""
    lone, sent = calling()
    lone.send(progress(sent, 1, body=ANSWER))
    lone.send(progress(sent, 2, body=OTHER))
    lone.send(reply(sent, 200, tag="one", lines=SDP_LINES, body=OTHER))
    assert lone.facts == [
        CallProgress(LEG, 183, "Session Progress", ANSWER),
        CallProgress(LEG, 183, "Session Progress", b""),
        CallAnswered(LEG, b"", early=True),
    ]


@pytest.mark.rfc("3261", "13.2.1")
def test_a_200_without_sdp_takes_what_its_own_fork_said_before() -> None:
    """Also if another fork was the last to be heard; one that never said anything has no answer."""
    for tag, body, early in (("b", b"", True), ("a", ANSWER, False), ("c", b"", False)):
        lone, sent = calling()
        lone.send(reply(sent, 183, tag="a", lines=SDP_LINES, body=ANSWER))
        lone.send(reply(sent, 180, tag="c"))
        lone.send(reply(sent, 183, tag="b", lines=SDP_LINES, body=OTHER))
        lone.send(reply(sent, 200, tag=tag))
        assert lone.facts[-1] == CallAnswered(LEG, body, early=early)


@pytest.mark.rfc("3262", "4")
def test_requests_count_on_in_the_dialog_that_is_answered() -> None:
    """PRACKs have used numbers; the BYE has a higher one, the ACK the INVITE's."""
    lone, sent = calling()
    lone.send(progress(sent, 1))
    lone.send(progress(sent, 2))
    (ack,) = lone.send(reply(sent, 200, tag="one", lines=SDP_LINES, body=ANSWER))
    (bye,) = lone.wish(HangUp(LEG))
    assert (ack.message.cseq.number, bye.message.cseq.number) == (1, 4)


@pytest.mark.rfc("3261", "12.2.1.1")
def test_the_bye_of_a_lost_fork_counts_on_behind_its_pracks() -> None:
    """Two phones answer: in the dialog of the second, a PRACK has had the number that its BYE must not have again."""
    lone, sent = calling()
    (prack_b,) = lone.send(progress(sent, 1, tag="b"))
    lone.send(progress(sent, 1, tag="a"))
    lone.send(reply(sent, 200, tag="a", lines=SDP_LINES, body=ANSWER))
    ack, bye = lone.send(reply(sent, 200, tag="b", lines=SDP_LINES, body=ANSWER))
    assert [(p.title, p.message.to.tag, p.message.cseq.number) for p in (prack_b, ack, bye)] == [
        ("PRACK", "b", 2),
        ("ACK", "b", 1),
        ("BYE", "b", 3),
    ]


@pytest.mark.rfc("3262", "4")
@pytest.mark.parametrize("status", [481, 408, 500])
def test_a_prack_that_fails_ends_nothing(status: int) -> None:
    """Not even when the answer is in by then: what counts is the INVITE's own outcome."""
    lone, sent = calling()
    (packet,) = lone.send(progress(sent, 1))
    assert isinstance(packet.message, Request)
    lone.send(reply(sent, 200, tag="one", lines=SDP_LINES, body=ANSWER))
    lone.send(reply(packet.message, status))
    assert [type(fact) for fact in lone.facts] == [CallProgress, CallAnswered]


@pytest.mark.rfc("3262", "4")
@pytest.mark.rfc("3261", "22.2")
def test_a_prack_is_challenged_like_any_request() -> None:
    """It goes out again with credentials, in its own early dialog."""
    lone, sent = calling(credentials=Credentials("bob", "secret"))
    (packet,) = lone.send(progress(sent, 1))
    assert isinstance(packet.message, Request)
    challenge = (("WWW-Authenticate", 'Digest realm="r", nonce="n", algorithm=MD5'),)
    (again,) = lone.send(reply(packet.message, 401, lines=challenge))
    assert (again.title, again.message.to.tag, again.message.header("RAck")) == ("PRACK", "one", "1 1 INVITE")
    assert again.message.header("Authorization") is not None


@pytest.mark.rfc("3311", "5.2")
def test_an_update_of_a_fork_that_has_not_answered_our_offer_is_glare() -> None:
    """491; of one that has, the session is asked, and its answer goes where the request came from."""
    lone, sent = calling()
    lone.send(progress(sent, 1, tag="a", body=ANSWER))
    lone.send(progress(sent, 1, tag="b"))
    for tag, told in (("b", ["491 UPDATE"]), ("a", [])):
        update = attrs.evolve(
            request("UPDATE", branch=f"z9hG4bK{tag}", cseq=7, call_id=sent.call_id, body=OTHER, lines=SDP_LINES),
            from_=sent.to.tagged(tag),
            to=sent.from_,
        )
        assert titles(lone.send(update)) == told
    assert lone.facts[-1] == OfferReceived(LEG, OTHER)
    assert titles(lone.wish(AcceptOffer(LEG, ANSWER))) == ["200 UPDATE"]


def test_what_a_lost_fork_offers_is_void() -> None:
    """The other one answers first: 487 for the UPDATE, and the session's answer to it comes too late."""
    lone, sent = calling()
    lone.send(progress(sent, 1, tag="a", body=ANSWER))
    update = attrs.evolve(
        request("UPDATE", branch="z9hG4bKa", cseq=7, call_id=sent.call_id, body=OTHER, lines=SDP_LINES),
        from_=sent.to.tagged("a"),
        to=sent.from_,
    )
    lone.send(update)
    answered = lone.send(reply(sent, 200, tag="b", lines=SDP_LINES, body=ANSWER))
    assert titles(answered) == ["487 UPDATE", "ACK"]
    assert lone.wish(AcceptOffer(LEG, ANSWER)) == []
    assert titles(lone.wish(HangUp(LEG))) == ["BYE"]


# -- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("3262", "3", "4", "5")
def test_early_media_between_two_that_do_it() -> None:
    """183 with the answer, PRACK, 200 without, ACK: the session is agreed before the call is up."""
    pair = Pair()
    pair.wish(pair.alice, invite_wish())
    pair.settle()
    leg = pair.bob.facts[0].leg
    pair.wish(pair.bob, Ring(leg, 183, ANSWER))
    pair.wish(pair.bob, Answer(leg, ANSWER))
    pair.settle()
    assert pair.seen[2:] == ["< 183 INVITE", "> PRACK", "< 200 PRACK", "< 200 INVITE", "> ACK"]
    assert pair.alice.facts == [
        CallProgress(LEG, 183, "Session Progress", ANSWER),
        CallAnswered(LEG, b"", early=True),
    ]
    assert pair.bob.facts[1:] == [CallConfirmed(leg, b"")]


@given(st.lists(st.sampled_from([(180, b""), (183, ANSWER), (182, b"")]), max_size=6), st.integers(0, 2**20), st.data())
def test_whatever_rings_arrives_in_order(rings: list[tuple[int, bytes]], seed: int, data: st.DataObject) -> None:
    """Over a wire that loses at will: what the caller is told is a subsequence of what was said, SDP once, never late.

    Everything is acknowledged in the end, and nothing of it stays behind.
    """
    pair = Pair(seed, EndpointConfig(port=5060, extensions=Extensions(prack="required")))
    pair.wish(pair.alice, invite_wish())
    pair.settle()
    leg = pair.bob.facts[0].leg
    for status, body in rings:
        pair.wish(pair.bob, Ring(leg, status, body))
        if data.draw(st.booleans(), "lost"):
            pair.drop()
        pair.advance(data.draw(st.sampled_from([0.0, 0.3, 1.0]), "pause"))
        pair.settle()
    pair.advance(10.0)
    pair.wish(pair.bob, Answer(leg, ANSWER))
    pair.settle()
    told = [fact for fact in pair.alice.facts if isinstance(fact, CallProgress)]
    statuses = iter(status for status, _ in rings)
    assert all(fact.status in statuses for fact in told)
    assert sum(bool(fact.body) for fact in told) == int((183, ANSWER) in rings)
    answer = pair.alice.facts[-1]
    assert isinstance(answer, CallAnswered)
    assert answer.body or answer.early
    assert pair.bob.facts[-1] == CallConfirmed(leg, b"")
    pair.wish(pair.alice, HangUp(LEG))
    pair.settle()
    pair.advance(100.0)
    assert [side.endpoint.counters["calls"] for side in (pair.alice, pair.bob)] == [0, 0]


def test_a_caller_that_gives_up_among_pracks() -> None:
    """CANCEL while one is under way: both sides end, and nothing is left."""
    pair = Pair()
    wish = SendInvite(
        leg=LEG,
        caller=NameAddr(parse_uri(f"sip:alice@{ALICE[0]}")),
        callee=parse_uri(f"sip:bob@{BOB[0]}"),
        body=OFFER,
        local_host=ALICE[0],
    )
    pair.wish(pair.alice, wish)
    pair.settle()
    pair.wish(pair.bob, Ring(pair.bob.facts[0].leg, 183, ANSWER))
    pair.deliver(pair.wire.pop(0))
    pair.wish(pair.alice, HangUp(LEG))
    pair.settle()
    assert [type(fact) for fact in pair.bob.facts[1:]] == [CallCancelled]
    pair.advance(100.0)
    assert [side.endpoint.counters["calls"] for side in (pair.alice, pair.bob)] == [0, 0]
