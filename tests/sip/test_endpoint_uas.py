"""The called side: every answer code, ringing, the 200 and its ACK, hanging up, requests within the dialog."""

from __future__ import annotations

import attrs
import pytest

from rustpbx.errors import LocalError
from rustpbx.sip.cause import Reasons
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import (
    AcceptOffer,
    Answer,
    ByeReceived,
    CallCancelled,
    CallConfirmed,
    CallLost,
    DigitReceived,
    Fact,
    HangUp,
    IncomingCall,
    OfferAnswered,
    OfferReceived,
    Refuse,
    RefuseOffer,
    Ring,
)
from rustpbx.sip.message import Request, Response, Via
from rustpbx.sip.timing import Timing
from rustpbx.sip.uri import Params
from tests.kit.peers_sip import ALICE, ANSWER, BOB, OFFER, SDP_LINES, Lone, Packet, invite, request, schedule, titles

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, REFER, NOTIFY"
NO_CALLS = {"transactions_running": 0, "transactions_waiting_ack": 0, "pending": 0, "dialogs": 0, "calls": 0}


def response(packets: list[Packet]) -> Response:
    """The one response that was sent."""
    (packet,) = packets
    assert isinstance(packet.message, Response)
    return packet.message


def ringing() -> Lone:
    """Bob after an INVITE."""
    lone = Lone()
    assert titles(lone.send(invite())) == ["100 INVITE"]
    return lone


def in_dialog(lone: Lone, method: str, cseq: int, **changes: object) -> Request:
    """A request of Alice's within the first call."""
    branch = f"z9hG4bK{method}{cseq}"
    made = request(method, cseq=cseq, branch=branch, to_tag=lone.tag)
    return attrs.evolve(made, **changes)  # type: ignore[arg-type] # fields by name


def talking() -> Lone:
    """Bob in an answered call."""
    lone = ringing()
    assert titles(lone.wish(Answer(lone.leg, ANSWER))) == ["200 INVITE"]
    assert lone.send(in_dialog(lone, "ACK", 1)) == []
    assert lone.facts[1:] == [CallConfirmed(lone.leg, b"")]
    return lone


def new_facts(lone: Lone) -> list[Fact]:
    """What was told after the call was up."""
    return lone.facts[2:]


# -- the first INVITE -------------------------------------------------------------------------------------------------


def test_invite_is_told_with_everything_the_webhook_wants() -> None:
    """100 at once without a To tag; the leg is the dialog's id; headers are lines."""
    lone = Lone()
    trying = response(lone.send(invite()))
    assert (trying.status, trying.to.tag) == (100, None)
    (fact,) = lone.facts
    assert isinstance(fact, IncomingCall)
    larger, smaller = sorted(("alice-tag", lone.tag), reverse=True)
    assert fact.leg == f"call@192.0.2.1-{larger}-{smaller}"
    assert (str(fact.caller.uri), str(fact.callee.uri)) == ("sip:alice@192.0.2.1", "sip:bob@192.0.2.2")
    assert (fact.offer, fact.source, fact.local_host) == (OFFER, ALICE, BOB[0])
    assert "CSeq: 1 INVITE" in fact.headers
    assert "Content-Type: application/sdp" in fact.headers


def test_retransmitted_invite_does_not_ring_twice() -> None:
    """A copy gets the last provisional response again."""
    lone = ringing()
    lone.wish(Ring(lone.leg))
    assert titles(lone.send(invite())) == ["180 INVITE"]
    assert len(lone.facts) == 1
    assert lone.side.endpoint.counters["retransmissions_received"] == 1


@pytest.mark.rfc("3261", "12.1.1")
def test_ringing_and_answer_carry_tag_contact_and_record_route() -> None:
    """12.1.1: what forms a dialog says where we are and repeats the recorded route."""
    lone = Lone()
    lone.send(invite(record_routes=("sip:proxy.example.com;lr",)))
    ring = response(lone.wish(Ring(lone.leg, 183, ANSWER)))
    answer = response(lone.wish(Answer(lone.leg, ANSWER, (("X-Agent", "seven"),))))
    for message in (ring, answer):
        assert message.to.tag == lone.tag
        assert [str(contact.uri) for contact in message.contacts] == ["sip:bob@192.0.2.2:5060"]
        assert [str(route.uri) for route in message.record_routes] == ["sip:proxy.example.com;lr"]
        assert (message.content_type, message.body) == ("application/sdp", ANSWER)
    assert (ring.status, answer.header("X-Agent")) == (183, "seven")


@pytest.mark.rfc("3261", "13.3.1.4")
def test_answer_is_resent_until_the_ack() -> None:
    """13.3.1.4: T1, doubling to T2; the ACK stops it."""
    lone = ringing()
    lone.wish(Answer(lone.leg, ANSWER))
    assert schedule(lone.wait(8.0)) == [(at, "200 INVITE") for at in (0.5, 1.5, 3.5, 7.5)]
    lone.send(in_dialog(lone, "ACK", 1))
    assert (lone.wait(40), lone.facts[1:]) == ([], [CallConfirmed(lone.leg, b"")])


@pytest.mark.rfc("3261", "13.3.1.4")
def test_answer_without_an_ack_is_hung_up_and_lost() -> None:
    """13.3.1.4: BYE after 64*T1."""
    lone = ringing()
    lone.wish(Answer(lone.leg, ANSWER))
    sent = schedule(lone.wait(32.0))
    assert sent[-1] == (32.0, "BYE")
    assert lone.facts[1:] == [CallLost(lone.leg, "no ACK for our 200")]


def test_a_delayed_offer_brings_the_answer_in_the_ack() -> None:
    """IncomingCall without an offer, our offer in the 200, CallConfirmed with the answer."""
    lone = Lone()
    lone.send(request("INVITE"))
    assert isinstance(lone.facts[0], IncomingCall)
    assert lone.facts[0].offer == b""
    lone.wish(Answer(lone.leg, OFFER))
    lone.send(in_dialog(lone, "ACK", 1, body=ANSWER, lines=SDP_LINES))
    assert lone.facts[1:] == [CallConfirmed(lone.leg, ANSWER)]


def test_refusal_has_a_reason_and_is_resent_until_its_ack() -> None:
    """Refuse: the status, and the words in a Reason header; nothing is told afterwards."""
    lone = ringing()
    refused = response(lone.wish(Refuse(lone.leg, 486, 'in a "meeting"\r\nX: y', (("X-Why", "so"),))))
    assert (refused.status, refused.to.tag) == (486, lone.tag)
    assert refused.header("Reason") == 'SIP;cause=486;text="in a \\"meeting\\"  X: y"'
    assert refused.header("X-Why") == "so"
    assert schedule(lone.wait(2.0)) == [(0.5, "486 INVITE"), (1.5, "486 INVITE")]
    assert lone.send(request("ACK", to_tag=lone.tag)) == []
    assert (lone.wait(40), len(lone.facts)) == ([], 1)


def test_hanging_up_an_unanswered_call_declines_it() -> None:
    """603, with the wish's headers."""
    lone = ringing()
    declined = response(lone.wish(HangUp(lone.leg, (("X-Bye", "1"),))))
    assert (declined.status, declined.header("X-Bye")) == (603, "1")


def test_nobody_answers_for_ten_minutes() -> None:
    """The answer limit: 480, and the leg is lost."""
    lone = ringing()
    assert schedule(lone.wait(600.0)) == [(600.0, "480 INVITE")]
    assert lone.facts[1:] == [CallLost(lone.leg, "no answer within the time limit")]


# -- CANCEL and BYE races ---------------------------------------------------------------------------------------------


@pytest.mark.rfc("3261", "9.2")
def test_cancel_ends_an_unanswered_call() -> None:
    """9.2: 200 to the CANCEL, 487 to the INVITE, both with the same tag."""
    lone = ringing()
    packets = lone.send(request("CANCEL", contact=None))
    assert titles(packets) == ["200 CANCEL", "487 INVITE"]
    assert {packet.message.to.tag for packet in packets} == {lone.tag}
    assert lone.facts[1:] == [CallCancelled(lone.leg)]
    assert lone.wish(Answer(lone.leg, ANSWER)) == []


@pytest.mark.rfc("3261", "9.2")
def test_cancel_that_races_the_answer_changes_nothing() -> None:
    """9.2: after a final response CANCEL only gets its own 200."""
    lone = ringing()
    lone.wish(Answer(lone.leg, ANSWER))
    assert titles(lone.send(request("CANCEL", contact=None))) == ["200 CANCEL"]
    lone.send(in_dialog(lone, "ACK", 1))
    assert lone.facts[1:] == [CallConfirmed(lone.leg, b"")]


@pytest.mark.rfc("3261", "9.2")
def test_cancel_for_nothing_is_481() -> None:
    """9.2."""
    assert titles(Lone().send(request("CANCEL", contact=None))) == ["481 CANCEL"]


@pytest.mark.rfc("3261", "15.1.2")
def test_bye_on_an_unanswered_call_ends_the_invite_too() -> None:
    """15.1.2: the pending INVITE gets 487."""
    lone = ringing()
    lone.wish(Ring(lone.leg))
    assert titles(lone.send(in_dialog(lone, "BYE", 2))) == ["200 BYE", "487 INVITE"]
    assert lone.facts[1:] == [ByeReceived(lone.leg)]


def test_bye_before_the_ack_ends_the_call_and_the_resending() -> None:
    """The ACK was lost, the BYE was not; the late ACK is ignored."""
    lone = ringing()
    lone.wish(Answer(lone.leg, ANSWER))
    bye = in_dialog(lone, "BYE", 2, lines=(("Reason", "Q.850;cause=16"),))
    assert titles(lone.send(bye)) == ["200 BYE"]
    assert lone.send(in_dialog(lone, "ACK", 1)) == []
    assert (lone.wait(40), lone.facts[1:]) == ([], [ByeReceived(lone.leg, Reasons(q850=16))])


@pytest.mark.rfc("3261", "15")
@pytest.mark.parametrize("acked", [True, False])
def test_hang_up_before_the_ack_waits_for_it_or_for_64_t1(*, acked: bool) -> None:
    """15: the called side sends no BYE before the ACK; afterwards nothing is told."""
    lone = ringing()
    lone.wish(Answer(lone.leg, ANSWER))
    assert lone.wish(HangUp(lone.leg, (("X-Bye", "1"),))) == []
    if acked:
        packets = lone.send(in_dialog(lone, "ACK", 1))
    else:
        packets = [packet for at, packet in lone.wait(32.0) if at == 32.0]
    assert titles(packets) == ["BYE"]
    assert packets[0].message.header("X-Bye") == "1"
    assert len(lone.facts) == 1


def test_byes_that_cross_are_both_answered() -> None:
    """Our BYE is out when theirs arrives: 200, and nothing is told after the wish."""
    lone = talking()
    assert titles(lone.wish(HangUp(lone.leg))) == ["BYE"]
    assert titles(lone.send(in_dialog(lone, "BYE", 2))) == ["200 BYE"]
    assert new_facts(lone) == []


def test_late_requests_of_an_ended_call_are_481_and_its_bye_is_answered_again() -> None:
    """A copy of the BYE belongs to its transaction, anything new to nothing."""
    lone = talking()
    bye = in_dialog(lone, "BYE", 2)
    info = in_dialog(lone, "INFO", 3)
    assert titles(lone.send(bye)) == ["200 BYE"]
    assert titles(lone.send(bye)) == ["200 BYE"]
    assert titles(lone.send(info)) == ["481 INFO"]
    assert new_facts(lone) == [ByeReceived(lone.leg)]


# -- what we refuse ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status", "header"),
    [
        (request("REGISTER"), 405, ("Allow", ALLOW)),
        (request("SUBSCRIBE"), 405, ("Allow", ALLOW)),
        (request("REFER", to_tag="nobody"), 481, None),
        (request("JUGGLE"), 501, ("Allow", ALLOW)),
        (invite(uri="tel:+4930123"), 416, None),
        (invite(uri="nobodyKnowsThisScheme:totally"), 416, None),
        (invite(lines=(*SDP_LINES, ("Require", "100rel, gruu, Path"))), 420, ("Unsupported", "gruu, Path")),
        (invite(lines=(("Content-Type", "text/plain"),)), 415, ("Accept", "application/sdp")),
        (invite(lines=(*SDP_LINES, ("Content-Encoding", "gzip"))), 415, ("Accept-Encoding", "identity")),
        (request("BYE"), 481, None),
        (request("INFO"), 481, None),
        (request("BYE", to_tag="nobody"), 481, None),
        (invite(to_tag="nobody"), 481, None),
    ],
)
def test_refused_at_the_door(sent: Request, status: int, header: tuple[str, str] | None) -> None:
    """Section 8.2: each with the header field that explains it; no call is told."""
    lone = Lone()
    refused = response(lone.send(sent))
    assert (refused.status, refused.to.tag is not None) == (status, True)
    if header is not None:
        assert refused.header(header[0]) == header[1]
    assert lone.facts == []


@pytest.mark.rfc("3261", "17")
def test_ack_for_nothing_is_ignored() -> None:
    """17: an ACK is never answered."""
    lone = Lone()
    assert lone.send(request("ACK", to_tag="nobody")) == []
    assert lone.side.endpoint.counters["strays"] == 1


@pytest.mark.rfc("3261", "11.2")
@pytest.mark.parametrize("to_tag", [None, "own"])
def test_options_says_what_we_can(to_tag: str | None) -> None:
    """11.2, in and out of a dialog."""
    lone = talking() if to_tag else Lone()
    sent = in_dialog(lone, "OPTIONS", 2) if to_tag else request("OPTIONS")
    options = response(lone.send(sent))
    fields = [options.header(name) for name in ("Allow", "Accept", "Supported")]
    assert (options.status, fields) == (200, [ALLOW, "application/sdp", "100rel, norefersub, replaces, timer"])


@pytest.mark.rfc("3261", "8.2.2.2")
def test_merged_request_is_482() -> None:
    """8.2.2.2: the same request by another path."""
    lone = ringing()
    assert titles(lone.send(invite(branch="z9hG4bKother"))) == ["482 INVITE"]
    assert len(lone.facts) == 1


def test_malformed_request_gets_what_the_parser_says() -> None:
    """400 and 505, to the source, with what could be read."""
    head = "Via: SIP/2.0/UDP 10.9.9.9:5060;rport;branch=z9hG4bKx\nFrom: <sip:a@b>;tag=1\nTo: <sip:c@d>\nCall-ID: q\n"
    lone = Lone()
    bad = lone.send(f"INVITE sip:c@d SIP/2.0\n{head}CSeq: nonsense\n\n")
    assert (bad[0].data.split(b"\r\n")[0], bad[0].destination) == (b"SIP/2.0 400 Bad Request", ALICE)
    old = lone.send(f"INVITE sip:c@d SIP/7.0\n{head}CSeq: 1 INVITE\n\n")
    assert old[0].data.startswith(b"SIP/2.0 505 ")
    assert lone.send(b"\x00\x01junk") == []
    assert lone.side.endpoint.counters["malformed"] == 3


def test_keep_alives_are_no_messages() -> None:
    """CRLF and zero bytes open NAT bindings."""
    lone = Lone()
    for data in (b"\r\n\r\n", b"\x00", b"", b"\r\n"):
        assert lone.send(data) == []
    assert lone.side.endpoint.counters == {"keep_alives": 4}


@pytest.mark.rfc("3581", "4")
@pytest.mark.rfc("3261", "18.2.1")
@pytest.mark.parametrize(
    ("via", "params", "destination"),
    [
        (Via("UDP", "10.0.0.9", 5070, Params((("rport", None),))), ("198.51.100.7", "4444"), ("198.51.100.7", 4444)),
        (Via("UDP", "10.0.0.9", 5070), ("198.51.100.7", None), ("198.51.100.7", 5070)),
        (Via("UDP", "198.51.100.7", 5070), (None, None), ("198.51.100.7", 5070)),
        (
            Via("UDP", "198.51.100.7", 5070, Params((("received", "203.0.113.1"),))),
            (None, None),
            ("198.51.100.7", 5070),
        ),
    ],
)
def test_responses_go_where_via_says(
    via: Via, params: tuple[str | None, str | None], destination: tuple[str, int]
) -> None:
    """18.2.1, RFC 3581 4: `received` and `rport` are ours to fill; a forged `received` is dropped."""
    lone = Lone(peer=("198.51.100.7", 4444))
    (packet,) = lone.send(request("OPTIONS", via=via))
    seen = packet.message.via.params
    assert (seen.get("received"), seen.get("rport"), packet.destination) == (*params, destination)


# -- within the dialog ------------------------------------------------------------------------------------------------


@pytest.mark.rfc("3261", "14.2")
def test_reinvite_is_told_answered_and_acknowledged() -> None:
    """14.2: OfferReceived, 200 with our answer, resent until the ACK, which is not told."""
    lone = talking()
    leg = lone.leg
    reinvite = in_dialog(lone, "INVITE", 2, body=OFFER, lines=SDP_LINES)
    assert titles(lone.send(reinvite)) == ["100 INVITE"]
    answered = response(lone.wish(AcceptOffer(leg, ANSWER)))
    assert (answered.status, answered.body, len(answered.contacts)) == (200, ANSWER, 1)
    assert schedule(lone.wait(1.0)) == [(0.5, "200 INVITE")]
    lone.send(in_dialog(lone, "ACK", 2))
    assert (lone.wait(40), new_facts(lone)) == ([], [OfferReceived(leg, OFFER)])


def test_reinvite_without_an_offer_gets_ours_and_brings_the_answer() -> None:
    """A delayed offer within the dialog: the ACK's body is the answer."""
    lone = talking()
    leg = lone.leg
    lone.send(in_dialog(lone, "INVITE", 2))
    lone.wish(AcceptOffer(leg, OFFER))
    lone.send(in_dialog(lone, "ACK", 2, body=ANSWER, lines=SDP_LINES))
    assert new_facts(lone) == [OfferReceived(leg, b""), OfferAnswered(leg, ANSWER)]


@pytest.mark.rfc("3261", "14.2")
def test_refused_reinvite_leaves_the_call_up() -> None:
    """14.2: 488, and the next offer is welcome."""
    lone = talking()
    leg = lone.leg
    lone.send(in_dialog(lone, "INVITE", 2, body=OFFER, lines=SDP_LINES))
    assert titles(lone.wish(RefuseOffer(leg))) == ["488 INVITE"]
    assert titles(lone.send(in_dialog(lone, "UPDATE", 3, body=OFFER, lines=SDP_LINES))) == []
    assert titles(lone.wish(AcceptOffer(leg, ANSWER))) == ["200 UPDATE"]


@pytest.mark.rfc("3261", "14.2")
def test_second_reinvite_is_told_to_come_later_and_an_unacknowledged_one_makes_glare() -> None:
    """14.2: 500 with Retry-After while one is pending; 491 until the ACK of the last."""
    lone = talking()
    leg = lone.leg
    lone.send(in_dialog(lone, "INVITE", 2, body=OFFER, lines=SDP_LINES))
    trying, second = lone.send(in_dialog(lone, "INVITE", 3, body=OFFER, lines=SDP_LINES))
    assert titles([trying, second]) == ["100 INVITE", "500 INVITE"]
    assert 0 <= int(second.message.header("Retry-After") or "-1") <= 10
    lone.send(in_dialog(lone, "ACK", 3, vias=second.message.vias))
    lone.wish(AcceptOffer(leg, ANSWER))
    third = lone.send(in_dialog(lone, "INVITE", 4, body=OFFER, lines=SDP_LINES))
    assert titles(third) == ["100 INVITE", "491 INVITE"]


def test_cancelled_reinvite_is_487_and_the_call_lives() -> None:
    """9.2 within a dialog."""
    lone = talking()
    reinvite = in_dialog(lone, "INVITE", 2, body=OFFER, lines=SDP_LINES)
    lone.send(reinvite)
    cancel = in_dialog(lone, "CANCEL", 2, vias=reinvite.vias)
    assert titles(lone.send(cancel)) == ["200 CANCEL", "487 INVITE"]
    assert lone.wish(AcceptOffer(lone.leg, ANSWER)) == []
    assert titles(lone.send(in_dialog(lone, "BYE", 3))) == ["200 BYE"]


@pytest.mark.rfc("3261", "15.1.2")
def test_bye_ends_a_pending_reinvite() -> None:
    """15.1.2."""
    lone = talking()
    lone.send(in_dialog(lone, "INVITE", 2, body=OFFER, lines=SDP_LINES))
    assert titles(lone.send(in_dialog(lone, "BYE", 3))) == ["200 BYE", "487 INVITE"]


def test_reinvite_our_side_never_answers_is_500() -> None:
    """The offer limit frees the dialog again."""
    lone = talking()
    lone.send(in_dialog(lone, "INVITE", 2, body=OFFER, lines=SDP_LINES))
    assert schedule(lone.wait(40.0)) == [(40.0, "500 INVITE")]


@pytest.mark.rfc("3311", "5.2")
def test_update_our_side_does_not_answer_at_once_is_504() -> None:
    """RFC 3311 5.2: nobody can be asked; its sender gives up at 32 s, and would take the call for lost."""
    lone = talking()
    assert lone.send(in_dialog(lone, "UPDATE", 2, body=OFFER, lines=SDP_LINES)) == []
    assert schedule(lone.wait(40.0)) == [(4.0, "504 UPDATE")]
    assert titles(lone.send(in_dialog(lone, "UPDATE", 3))) == ["200 UPDATE"]
    assert new_facts(lone) == [OfferReceived(lone.leg, OFFER)]


@pytest.mark.rfc("3261", "15.1.2")
def test_bye_ends_a_pending_update() -> None:
    """15.1.2."""
    lone = talking()
    lone.send(in_dialog(lone, "UPDATE", 2, body=OFFER, lines=SDP_LINES))
    assert titles(lone.send(in_dialog(lone, "BYE", 3))) == ["200 BYE", "487 UPDATE"]


@pytest.mark.rfc("3261", "14.2")
def test_reinvite_without_an_ack_ends_the_call() -> None:
    """14.2: no ACK within 64*T1 is a lost call."""
    lone = talking()
    lone.send(in_dialog(lone, "INVITE", 2, body=OFFER, lines=SDP_LINES))
    lone.wish(AcceptOffer(lone.leg, ANSWER))
    assert schedule(lone.wait(32.0))[-1] == (32.0, "BYE")
    assert new_facts(lone)[1:] == [CallLost(lone.leg, "no ACK for our 200 to a re-INVITE")]


@pytest.mark.rfc("3311", "5.2")
@pytest.mark.rfc("3261", "14.2")
def test_offers_during_the_first_invite_are_turned_down() -> None:
    """14.2, RFC 3311 5.2: 500 before our answer, 491 before its ACK."""
    lone = ringing()
    lone.wish(Ring(lone.leg))
    early = lone.send(in_dialog(lone, "UPDATE", 2, body=OFFER, lines=SDP_LINES))
    assert titles(early) == ["500 UPDATE"]
    lone.wish(Answer(lone.leg, ANSWER))
    unacked = lone.send(in_dialog(lone, "INVITE", 3, body=OFFER, lines=SDP_LINES))
    assert titles(unacked) == ["100 INVITE", "491 INVITE"]
    assert len(lone.facts) == 1


def test_update_without_an_offer_refreshes_the_target() -> None:
    """RFC 3311: 200 at once; our next request goes to the new Contact."""
    lone = talking()
    moved = request("OPTIONS", contact="sip:alice@203.0.113.5:5099").contacts
    assert titles(lone.send(in_dialog(lone, "UPDATE", 2, contacts=moved))) == ["200 UPDATE"]
    (bye,) = lone.wish(HangUp(lone.leg))
    assert bye.destination == ("203.0.113.5", 5099)


def test_info_digits_are_told_and_other_info_is_415() -> None:
    """DTMF by INFO; an empty INFO is a sign of life."""
    lone = talking()
    relay = (("Content-Type", "application/dtmf-relay"),)
    assert titles(lone.send(in_dialog(lone, "INFO", 2, lines=relay, body=b"Signal= 5\r\nDuration= 160"))) == [
        "200 INFO"
    ]
    assert titles(lone.send(in_dialog(lone, "INFO", 3, lines=relay, body=b"Duration=160"))) == ["400 INFO"]
    assert titles(lone.send(in_dialog(lone, "INFO", 4))) == ["200 INFO"]
    other = response(lone.send(in_dialog(lone, "INFO", 5, lines=(("Content-Type", "text/plain"),), body=b"hi")))
    assert (other.status, other.header("Accept")) == (415, "application/dtmf-relay, application/dtmf")
    assert new_facts(lone) == [DigitReceived(lone.leg, "5")]


@pytest.mark.rfc("3261", "12.2.2")
def test_lower_cseq_is_500_and_the_call_lives() -> None:
    """12.2.2."""
    lone = talking()
    assert titles(lone.send(in_dialog(lone, "OPTIONS", 9))) == ["200 OPTIONS"]
    assert titles(lone.send(in_dialog(lone, "OPTIONS", 8))) == ["500 OPTIONS"]
    assert titles(lone.send(in_dialog(lone, "BYE", 10))) == ["200 BYE"]


def test_in_dialog_requests_reach_a_phone_behind_nat() -> None:
    """Lesson of the field: a private Contact, and the BYE goes to the observed source."""
    lone = Lone(peer=("198.51.100.7", 40001))
    lone.send(invite(contact="sip:alice@192.168.1.50:5060"))
    lone.wish(Answer(lone.leg, ANSWER))
    lone.send(in_dialog(lone, "ACK", 1))
    (bye,) = lone.wish(HangUp(lone.leg))
    assert bye.destination == ("198.51.100.7", 40001)
    assert isinstance(bye.message, Request)
    assert str(bye.message.uri) == "sip:alice@192.168.1.50:5060"


def test_a_phone_whose_nat_forgets_is_followed() -> None:
    """Its latest request within the dialog says where it is; one out of order says nothing."""
    lone = Lone(peer=("198.51.100.7", 40001))
    lone.send(invite(contact="sip:alice@192.168.1.50:5060"))
    lone.wish(Answer(lone.leg, ANSWER))
    lone.send(in_dialog(lone, "ACK", 1))
    lone.peer = ("198.51.100.7", 40777)
    assert titles(lone.send(in_dialog(lone, "INFO", 3))) == ["200 INFO"]
    lone.peer = ("203.0.113.66", 5060)
    assert titles(lone.send(in_dialog(lone, "INFO", 2))) == ["500 INFO"]
    (bye,) = lone.wish(HangUp(lone.leg))
    assert bye.destination == ("198.51.100.7", 40777)


def test_a_bye_without_a_body_needs_no_coding() -> None:
    """Content-Encoding means the body; a call is not kept up for its sake."""
    lone = talking()
    assert titles(lone.send(in_dialog(lone, "BYE", 2, lines=(("Content-Encoding", "gzip"),)))) == ["200 BYE"]


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_calls_above_the_cap_are_503() -> None:
    """Retry-After says when to come back, nothing is kept and so nothing resent; the first call is unharmed."""
    lone = Lone(EndpointConfig(port=5060, max_calls=1))
    lone.send(invite())
    busy = response(lone.send(invite(branch="z9hG4bKtwo", call_id="two", from_tag="t2")))
    assert (busy.status, busy.header("Retry-After")) == (503, "5")
    assert lone.side.endpoint.counters["overloaded"] == 1
    assert lone.side.endpoint.counters["transactions_running"] == 1
    assert titles(lone.wish(Answer(lone.leg, ANSWER))) == ["200 INVITE"]


@pytest.mark.rfc("3261", "8.2.7")
def test_transactions_above_the_cap_are_answered_without_state() -> None:
    """8.2.7: copies of the refused request get the same tag."""
    lone = Lone(EndpointConfig(port=5060, max_transactions=1))
    lone.send(invite())
    other = request("OPTIONS", branch="z9hG4bKtwo", call_id="two")
    first, again = response(lone.send(other)), response(lone.send(other))
    assert (first, first.status) == (again, 503)
    assert lone.side.endpoint.counters["transactions_running"] == 1


def test_a_flood_of_strangers_ends_no_call() -> None:
    """Who calls may still cancel, and hang up; but not flood either."""
    lone = Lone(EndpointConfig(port=5060, max_transactions=2))
    lone.send(invite())
    lone.send(invite(branch="z9hG4bKflood", call_id="flood"))
    assert titles(lone.send(request("BYE", branch="z9hG4bKb", to_tag="nobody"))) == ["503 BYE"]
    assert titles(lone.send(in_dialog(lone, "OPTIONS", 2))) == ["200 OPTIONS"]
    assert titles(lone.send(request("CANCEL", contact=None))) == ["200 CANCEL", "487 INVITE"]
    assert lone.side.endpoint.counters["transactions_running"] == 4
    assert titles(lone.send(in_dialog(lone, "OPTIONS", 3))) == ["503 OPTIONS"]


@pytest.mark.parametrize(
    ("wishes", "waits"),
    [
        ([Refuse("", 486)], 33),
        ([HangUp("")], 33),
        ([Answer("", ANSWER), HangUp("")], 32 + 33),
        ([Answer("", ANSWER)], 32 + 33),
    ],
)
def test_an_ended_call_leaves_nothing_behind(wishes: list[Refuse | HangUp | Answer], waits: float) -> None:
    """After 64*T1 (twice, when 64*T1 had to pass before the end) no map holds anything."""
    lone = ringing()
    leg = lone.leg
    for wish in wishes:
        lone.wish(attrs.evolve(wish, leg=leg))
    lone.wait(waits)
    assert {name: lone.side.endpoint.counters[name] for name in NO_CALLS} == NO_CALLS
    endpoint = lone.side.endpoint
    directory, layer = endpoint._directory, endpoint._layer
    held = (directory.calls, directory.dialogs, directory.invites, directory.live, layer._merged, layer.schedule)
    assert [len(one) for one in held] == [0] * 6


def test_wishes_that_cannot_be_sent_change_nothing() -> None:
    """LocalError, and the call can still be answered; wishes for unknown legs are counted."""
    lone = ringing()
    leg = lone.leg
    broken = Answer(leg, ANSWER, (("X", "a\r\nb"),))
    smuggled = Refuse(leg, 486, None, (("Via", "x"),))
    typed = Answer(leg, ANSWER, (("c", "text/plain"),))
    routed = HangUp(leg, (("Route", "<sip:192.0.2.99;lr>"),))
    for wish in (broken, smuggled, typed, routed, Refuse(leg, 200), RefuseOffer(leg, 200), Ring(leg, 200)):
        with pytest.raises(LocalError):
            lone.wish(wish)
    assert titles(lone.wish(Answer(leg, ANSWER))) == ["200 INVITE"]
    lone.wish(HangUp("unknown"))
    assert lone.side.endpoint.counters["late_wishes"] == 1


def test_shorter_timers_are_a_value() -> None:
    """Timing is configuration: T1 of 100 ms."""
    lone = Lone(EndpointConfig(port=5060, timing=Timing(t1=0.1, t2=0.4)))
    lone.send(invite())
    lone.wish(Answer(lone.leg, ANSWER))
    times = [round(at, 3) for at, _ in schedule(lone.wait(1.6))]
    assert times == [0.1, 0.3, 0.7, 1.1, 1.5]
