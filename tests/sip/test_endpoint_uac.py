"""The calling side: progress, forks, credentials, CANCEL and its races, the ACK of every 2xx."""

from __future__ import annotations

import random
import re

import attrs
import pytest

from rustpbx.errors import LocalError
from rustpbx.sip.cause import Reasons
from rustpbx.sip.endpoint import Endpoint, EndpointConfig
from rustpbx.sip.events import (
    AcceptOffer,
    Answer,
    ByeReceived,
    CallAnswered,
    CallConfirmed,
    CallLost,
    CallProgress,
    CallRefused,
    Credentials,
    DigitReceived,
    Emit,
    HangUp,
    IncomingCall,
    OfferAnswered,
    OfferReceived,
    OfferRefused,
    Refuse,
    RefuseOffer,
    Ring,
    Send,
    SendDigit,
    SendOffer,
    Undeliverable,
)
from rustpbx.sip.message import Lines, Request
from rustpbx.sip.uri import parse_uri
from tests.kit.peers_sip import (
    ALICE,
    ANSWER,
    BOB,
    LEG,
    OFFER,
    Lone,
    Packet,
    Pair,
    invite_wish,
    reply,
    request,
    schedule,
    titles,
)

CREDENTIALS = Credentials("bot", "secret", "pbx.test")
CHALLENGE: Lines = (("WWW-Authenticate", 'Digest realm="pbx.test", nonce="n1", qop="auth", algorithm=MD5'),)
STALE: Lines = (("WWW-Authenticate", 'Digest realm="pbx.test", nonce="n2", qop="auth", algorithm=MD5, stale=true'),)
PROXY: Lines = (("Proxy-Authenticate", 'Digest realm="pbx.test", nonce="p1", qop="auth", algorithm=MD5'),)


def sent(packets: list[Packet]) -> Request:
    """The one request that was sent."""
    (packet,) = packets
    assert isinstance(packet.message, Request)
    return packet.message


def dialling(credentials: Credentials | None = None) -> tuple[Lone, Request]:
    """Our endpoint after SendInvite, and the INVITE."""
    lone = Lone(peer=BOB)
    return lone, sent(lone.wish(invite_wish(credentials=credentials)))


def test_invite_carries_what_the_wish_says() -> None:
    """8.1.1: From with tag, To without, Contact, extra headers, our SDP; it goes to the callee's host."""
    lone = Lone()
    (packet,) = lone.wish(invite_wish(headers=(("X-Id", "7"),)))
    message = packet.message
    assert isinstance(message, Request)
    assert (packet.destination, str(message.uri), message.body) == (BOB, "sip:bob@192.0.2.2", OFFER)
    assert (message.from_.tag is not None, message.to.tag, message.max_forwards) == (True, None, 70)
    assert [str(contact.uri) for contact in message.contacts] == ["sip:alice@192.0.2.1:5060"]
    assert message.call_id.endswith("@rustpbx.com")
    assert (message.header("X-Id"), message.content_type) == ("7", "application/sdp")
    assert (message.via.host, message.via.port, "rport" in message.via.params) == ("192.0.2.1", 5060, True)


def test_contact_and_destination_of_the_wish_win() -> None:
    """SipOption.contact; an outbound proxy's address."""
    lone = Lone()
    wish = invite_wish(contact=parse_uri("sip:bot@203.0.113.1:6000"), destination=("203.0.113.2", 5080))
    (packet,) = lone.wish(wish)
    assert (str(packet.message.contacts[0].uri), packet.destination) == (
        "sip:bot@203.0.113.1:6000",
        ("203.0.113.2", 5080),
    )


def test_a_whole_call() -> None:
    """Ring, answer, ACK outside the transaction, BYE, 200: both sides told once each."""
    pair = Pair()
    pair.wish(pair.alice, invite_wish())
    pair.settle()
    (incoming,) = pair.bob.facts
    assert isinstance(incoming, IncomingCall)
    for wish in (Ring(incoming.leg), Answer(incoming.leg, ANSWER)):
        pair.wish(pair.bob, wish)
        pair.settle()
    pair.wish(pair.alice, HangUp(LEG, (("Reason", 'SIP;cause=200;text="done"'),)))
    pair.settle()
    assert pair.seen == [
        *("> INVITE", "< 100 INVITE", "< 180 INVITE", "< 200 INVITE", "> ACK"),
        *("> BYE", "< 200 BYE"),
    ]
    assert pair.alice.facts == [CallProgress(LEG, 180, "Ringing", b""), CallAnswered(LEG, ANSWER)]
    assert pair.bob.facts[1:] == [
        CallConfirmed(incoming.leg, b""),
        ByeReceived(incoming.leg, Reasons(sip=200, sip_text="done")),
    ]
    pair.advance(33)
    for side in (pair.alice, pair.bob):
        assert (side.endpoint.counters["transactions_running"], side.endpoint.counters["calls"]) == (0, 0)


def test_nobody_there_is_408_after_32_seconds() -> None:
    """Timer B, after six copies."""
    lone, _ = dialling()
    assert [at for at, _ in lone.wait(40)] == [0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert lone.facts == [CallRefused(LEG, 408, "Request Timeout")]


def test_a_phone_that_rings_for_ever_is_cancelled_and_408() -> None:
    """The ring limit: 180 s."""
    lone, invite = dialling()
    lone.send(reply(invite, 180))
    assert schedule(lone.wait(180.0)) == [(180.0, "CANCEL")]
    assert lone.facts[1:] == [CallRefused(LEG, 408, "Request Timeout")]


@pytest.mark.rfc("3261", "17.1.1.3")
@pytest.mark.parametrize(("status", "reason"), [(486, "Busy Here"), (603, "Decline"), (305, "Use Proxy")])
def test_refusal_is_acknowledged_and_told(status: int, reason: str) -> None:
    """17.1.1.3."""
    lone, invite = dialling()
    refused = reply(invite, status)
    assert titles(lone.send(refused)) == ["ACK"]
    assert titles(lone.send(refused)) == ["ACK"]
    assert lone.facts == [CallRefused(LEG, status, reason)]


def test_undeliverable_is_503() -> None:
    """The shell found no address."""
    lone, invite = dialling()
    lone.side.handle(Undeliverable(invite.via.branch or "", "no such host"), lone.now)
    assert lone.facts == [CallRefused(LEG, 503, "no such host")]


def test_early_media_is_told_with_its_sdp() -> None:
    """183 with a body; 100 is not told."""
    lone, invite = dialling()
    lone.send(reply(invite, 100, tag=None))
    lone.send(reply(invite, 183, body=ANSWER))
    assert lone.facts == [CallProgress(LEG, 183, "Session Progress", ANSWER)]


# -- the 2xx ----------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("3261", "13.2.2.4")
def test_each_copy_of_the_200_is_acknowledged_again_even_after_the_end() -> None:
    """13.2.2.4: the same ACK, to the dialog's route; told once."""
    lone, invite = dialling()
    answered = reply(invite, 200, body=ANSWER, record_routes=("sip:192.0.2.77:5070;lr",))
    (ack,) = lone.send(answered)
    assert (ack.title, ack.destination) == ("ACK", ("192.0.2.77", 5070))
    assert (ack.message.cseq.number, ack.message.via.branch == invite.via.branch) == (1, False)
    assert lone.send(answered) == [ack]
    lone.wish(HangUp(LEG))
    assert lone.send(answered) == [ack]
    assert lone.facts == [CallAnswered(LEG, ANSWER)]


@pytest.mark.rfc("3261", "13.2.2.4")
def test_the_first_fork_wins_and_the_others_are_acknowledged_and_hung_up() -> None:
    """13.2.2.4; progress of every fork is told, the losers' 200 is not."""
    lone, invite = dialling()
    for tag in ("one", "two", "three"):
        lone.send(reply(invite, 180, tag=tag))
    assert titles(lone.send(reply(invite, 200, tag="two", body=ANSWER))) == ["ACK"]
    late = reply(invite, 200, tag="one", contact="sip:one@192.0.2.9")
    ack, bye = lone.send(late)
    assert titles([ack, bye]) == ["ACK", "BYE"]
    assert (bye.message.to.tag, bye.destination) == ("one", ("192.0.2.9", 5060))
    assert lone.send(late) == [ack]
    assert [type(fact) for fact in lone.facts] == [CallProgress] * 3 + [CallAnswered]
    (ours,) = lone.wish(HangUp(LEG))
    assert ours.message.to.tag == "two"


def test_the_challenged_bye_of_a_lost_fork_is_repeated_with_credentials() -> None:
    """22.2 holds for every request: else the fork's callee would stay connected to nobody."""
    lone, invite = dialling(Credentials("alice", "secret"))
    lone.send(reply(invite, 200, tag="one", body=ANSWER))
    _, bye = lone.send(reply(invite, 200, tag="two", contact="sip:two@192.0.2.9"))
    asked = bye.message
    assert isinstance(asked, Request)
    challenge = reply(asked, 407, contact=None, lines=(("Proxy-Authenticate", 'Digest realm="r", nonce="n"'),))
    again = sent(lone.send(challenge))
    assert (again.method, again.to.tag, again.cseq.number) == ("BYE", "two", asked.cseq.number + 1)
    assert (again.header("Proxy-Authorization") or "").startswith('Digest username="alice"')
    assert lone.send(reply(again, 200, contact=None)) == []
    assert [type(fact) for fact in lone.facts] == [CallAnswered]


def test_a_bye_on_one_early_fork_of_several_only_ends_that_fork() -> None:
    """The others ring on."""
    lone, invite = dialling()
    for tag in ("one", "two"):
        lone.send(reply(invite, 180, tag=tag))
    bye = request(
        "BYE", call_id=invite.call_id, from_tag="one", to_tag=invite.from_.tag, branch="z9hG4bKbye1", contact=None
    )
    assert titles(lone.send(bye)) == ["200 BYE"]
    assert titles(lone.send(reply(invite, 200, tag="two"))) == ["ACK"]
    assert [type(fact) for fact in lone.facts] == [CallProgress, CallProgress, CallAnswered]


def test_a_bye_on_the_only_early_dialog_ends_the_call() -> None:
    """The 200 was lost, the callee gave up waiting for our ACK."""
    lone, invite = dialling()
    lone.send(reply(invite, 180))
    bye = request(
        "BYE", call_id=invite.call_id, from_tag="bob-tag", to_tag=invite.from_.tag, branch="z9hG4bKbye1", contact=None
    )
    assert titles(lone.send(bye)) == ["200 BYE", "CANCEL"]
    assert lone.facts[1:] == [ByeReceived(LEG)]
    assert titles(lone.send(reply(invite, 487))) == ["ACK"]
    assert len(lone.facts) == 2


# -- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("3261", "22.2")
def test_a_challenge_is_answered_once() -> None:
    """22.2: new CSeq and branch, same Call-ID and From tag, no To tag; a second refusal is final."""
    lone, invite = dialling(CREDENTIALS)
    ack, again = lone.send(reply(invite, 401, lines=CHALLENGE))
    second = again.message
    assert (titles([ack, again]), second.cseq.number, second.call_id) == (["ACK", "INVITE"], 2, invite.call_id)
    assert (second.from_, second.to, second.body) == (invite.from_, invite.to, OFFER)
    assert second.via.branch != invite.via.branch
    value = second.header("Authorization") or ""
    assert re.search(r'username="bot", realm="pbx.test", nonce="n1", uri="sip:bob@192.0.2.2"', value)
    assert isinstance(second, Request)
    assert titles(lone.send(reply(second, 401, lines=CHALLENGE))) == ["ACK"]
    assert lone.facts == [CallRefused(LEG, 401, "Unauthorized")]


@pytest.mark.rfc("3261", "13.2.2.4")
def test_a_stale_nonce_is_replaced() -> None:
    """stale=true says that the password was right; and the ACK of the 2xx has the credentials (13.2.2.4)."""
    lone, invite = dialling(CREDENTIALS)
    second = lone.send(reply(invite, 401, lines=CHALLENGE))[1].message
    assert isinstance(second, Request)
    third = lone.send(reply(second, 401, lines=STALE))[1].message
    assert isinstance(third, Request)
    assert 'nonce="n2"' in (third.header("Authorization") or "")
    (ack,) = lone.send(reply(third, 200, body=ANSWER))
    assert (ack.message.cseq.number, ack.message.header("Authorization")) == (3, third.header("Authorization"))


def test_a_server_that_is_stale_for_ever_is_not_followed() -> None:
    """Four repetitions in a row are enough for anybody."""
    lone, invite = dialling(CREDENTIALS)
    repetitions = 0
    while not lone.facts:
        nonce = (("WWW-Authenticate", f'Digest realm="pbx.test", nonce="n{repetitions}", stale=true'),)
        packets = lone.send(reply(invite, 401, lines=nonce))
        if len(packets) == 2:
            assert isinstance(packets[1].message, Request)
            invite = packets[1].message
            repetitions += 1
    assert (repetitions, lone.facts) == (4, [CallRefused(LEG, 401, "Unauthorized")])


@pytest.mark.rfc("3261", "22.3")
def test_proxy_and_server_may_both_ask() -> None:
    """22.3: each realm and kind once; both credentials stay."""
    lone, invite = dialling(CREDENTIALS)
    second = lone.send(reply(invite, 407, lines=PROXY))[1].message
    assert isinstance(second, Request)
    third = lone.send(reply(second, 401, lines=CHALLENGE))[1].message
    assert 'nonce="p1"' in (third.header("Proxy-Authorization") or "")
    assert 'nonce="n1"' in (third.header("Authorization") or "")


@pytest.mark.parametrize("credentials", [None, Credentials("bot", "secret", "other.test"), Credentials("", "")])
def test_a_foreign_realm_gets_no_password(credentials: Credentials | None) -> None:
    """Credentials belong to one realm; without any, 401 is the answer."""
    lone, invite = dialling(credentials)
    assert titles(lone.send(reply(invite, 401, lines=CHALLENGE))) == ["ACK"]
    assert lone.facts == [CallRefused(LEG, 401, "Unauthorized")]


def test_a_digit_and_a_bye_that_are_challenged_together_are_both_repeated() -> None:
    """Else the peer of a quick hang-up would stay connected to nobody."""
    lone, invite = dialling(CREDENTIALS)
    lone.send(reply(invite, 200))
    info, bye = (sent(lone.wish(wish)) for wish in (SendDigit(LEG, "5"), HangUp(LEG)))
    again = [sent(lone.send(reply(one, 401, contact=None, lines=CHALLENGE))) for one in (info, bye)]
    assert [(one.method, one.cseq.number) for one in again] == [("INFO", 4), ("BYE", 5)]
    assert [(one.header("Authorization") or "").partition("nc=")[2] for one in again] == ["00000001", "00000002"]


def test_a_challenged_bye_is_repeated_with_credentials() -> None:
    """In-dialog requests use the same credentials, with the next CSeq."""
    lone, invite = dialling(CREDENTIALS)
    lone.send(reply(invite, 200))
    bye = sent(lone.wish(HangUp(LEG, (("X-Bye", "1"),))))
    again = sent(lone.send(reply(bye, 407, lines=PROXY)))
    assert (again.cseq.number, again.header("X-Bye"), again.method) == (3, "1", "BYE")
    assert 'uri="sip:bob@192.0.2.2:5060"' in (again.header("Proxy-Authorization") or "")


# -- hanging up -------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("3261", "9.1")
def test_cancel_waits_for_a_provisional() -> None:
    """9.1: CANCEL has the INVITE's branch; nothing is told after the wish."""
    lone, invite = dialling()
    assert lone.wish(HangUp(LEG)) == []
    cancel = sent(lone.send(reply(invite, 100, tag=None)))
    assert (cancel.method, cancel.via, cancel.cseq.number, cancel.to) == ("CANCEL", invite.via, 1, invite.to)
    assert lone.send(reply(cancel, 200)) == []
    assert titles(lone.send(reply(invite, 487))) == ["ACK"]
    assert (lone.wait(40), lone.facts) == ([], [])


@pytest.mark.parametrize("provisional", [True, False])
def test_a_200_that_races_the_cancel_is_acknowledged_and_hung_up(*, provisional: bool) -> None:
    """The call was answered all the same: ACK, then BYE, and nothing is told."""
    lone, invite = dialling()
    if provisional:
        lone.send(reply(invite, 180))
        lone.facts.clear()
    lone.wish(HangUp(LEG))
    assert titles(lone.send(reply(invite, 200))) == ["ACK", "BYE"]
    assert lone.facts == []


@pytest.mark.rfc("3261", "9.1")
def test_a_cancelled_call_nobody_answers_is_forgotten() -> None:
    """9.1: 64*T1 after the CANCEL; and as long again for late copies."""
    lone, invite = dialling()
    lone.send(reply(invite, 180))
    lone.wish(HangUp(LEG))
    lone.wait(65)
    counters = lone.side.endpoint.counters
    assert (counters["transactions_running"], counters["calls"], len(lone.facts)) == (0, 0, 1)


def test_a_call_given_up_during_a_challenge_is_not_repeated() -> None:
    """HangUp beats the credentials."""
    lone, invite = dialling(CREDENTIALS)
    lone.wish(HangUp(LEG))
    assert titles(lone.send(reply(invite, 401, lines=CHALLENGE))) == ["ACK"]
    assert lone.facts == []


# -- offers and digits ------------------------------------------------------------------------------------------------


def talking() -> tuple[Pair, str]:
    """Alice and Bob in a call, and the name of Bob's leg."""
    pair = Pair()
    pair.wish(pair.alice, invite_wish())
    pair.settle()
    leg = pair.bob.facts[0].leg
    pair.wish(pair.bob, Answer(leg, ANSWER))
    pair.settle()
    for side in (pair.alice, pair.bob):
        side.facts.clear()
    return pair, leg


@pytest.mark.rfc("3261", "14.1")
def test_an_offer_of_ours_is_answered() -> None:
    """14.1: re-INVITE, 200, ACK."""
    pair, leg = talking()
    pair.wish(pair.alice, SendOffer(LEG, OFFER))
    pair.settle()
    pair.wish(pair.bob, AcceptOffer(leg, ANSWER))
    pair.settle()
    assert (pair.bob.facts, pair.alice.facts) == ([OfferReceived(leg, OFFER)], [OfferAnswered(LEG, ANSWER)])
    assert pair.seen[-4:] == ["> INVITE", "< 100 INVITE", "< 200 INVITE", "> ACK"]


def test_a_second_offer_of_ours_is_refused_at_once() -> None:
    """One at a time, said by the same fact."""
    pair, _ = talking()
    pair.wish(pair.alice, SendOffer(LEG, OFFER))
    pair.wish(pair.alice, SendOffer(LEG, OFFER))
    assert pair.alice.facts == [OfferRefused(LEG, 491)]


@pytest.mark.rfc("3261", "12.2.1.2")
@pytest.mark.parametrize("status", [408, 481])
def test_a_peer_that_lost_the_dialog_ends_the_call(status: int) -> None:
    """12.2.1.2: 408 or 481 to a request within the dialog."""
    lone, invite = dialling()
    lone.send(reply(invite, 200))
    reinvite = sent(lone.wish(SendOffer(LEG, OFFER)))
    assert titles(lone.send(reply(reinvite, status))) == ["ACK", "BYE"]
    assert lone.facts[1:] == [OfferRefused(LEG, status), CallLost(LEG, f"{status} to our re-INVITE")]


def offer_taken_back() -> tuple[Lone, Request]:
    """A call with an offer of ours that the peer got and did not decide on: its CANCEL is sent."""
    lone, invite = dialling()
    lone.send(reply(invite, 200))
    reinvite = sent(lone.wish(SendOffer(LEG, OFFER)))
    lone.send(reply(reinvite, 100))
    assert schedule(lone.wait(40.0)) == [(40.0, "CANCEL")]
    assert lone.facts[1:] == []
    return lone, reinvite


def test_an_offer_nobody_decides_on_is_cancelled() -> None:
    """The offer limit; the next offer has to wait until the fate of this one is certain."""
    lone, reinvite = offer_taken_back()
    assert lone.wish(SendOffer(LEG, OFFER)) == []
    assert titles(lone.send(reply(reinvite, 487))) == ["ACK"]
    assert lone.facts[1:] == [OfferRefused(LEG, 491), OfferRefused(LEG, 408)]
    assert titles(lone.wish(SendOffer(LEG, OFFER))) == ["INVITE"]


@pytest.mark.rfc("3261", "9.1")
def test_an_acceptance_that_crosses_the_cancel_of_our_offer_stands() -> None:
    """9.1: the peer has the new session, so we have it too."""
    lone, reinvite = offer_taken_back()
    assert titles(lone.send(reply(reinvite, 200, body=ANSWER))) == ["ACK"]
    assert lone.facts[1:] == [OfferAnswered(LEG, ANSWER)]


@pytest.mark.rfc("3261", "9.1", "12.2.1.2")
def test_an_offer_whose_cancel_is_not_answered_either_is_lost_with_its_call() -> None:
    """9.1 and 12.2.1.2: 64*T1 after the CANCEL."""
    lone, _ = offer_taken_back()
    assert schedule(lone.wait(32.0))[-1] == (72.0, "BYE")
    assert lone.facts[1:] == [OfferRefused(LEG, 408), CallLost(LEG, "408 to our re-INVITE")]


@pytest.mark.rfc("3261", "12.1.2")
def test_a_peer_without_to_tags_takes_part_in_everything() -> None:
    """12.1.2: the tag of an RFC 2543 peer is null, and its dialog is one: re-INVITE, INFO, BYE."""
    lone, invite = dialling()
    lone.send(reply(invite, 180, tag=None))
    success = reply(invite, 200, tag=None, body=ANSWER)
    ack = sent(lone.send(success))
    assert (ack.to.tag, [packet.message for packet in lone.send(success)]) == (None, [ack])
    reinvite = sent(lone.wish(SendOffer(LEG, OFFER)))
    assert (reinvite.to.tag, reinvite.cseq.number) == (None, 2)
    assert sent(lone.send(reply(reinvite, 200, tag=None, body=ANSWER))).cseq.number == 2
    digit = request("INFO", call_id=invite.call_id, to_tag=invite.from_.tag, branch="z9hG4bKinfo", contact=None)
    digit = attrs.evolve(digit, from_=invite.to, lines=(("Content-Type", "application/dtmf"),), body=b"5")
    assert titles(lone.send(digit)) == ["200 INFO"]
    bye = request("BYE", call_id=invite.call_id, to_tag=invite.from_.tag, branch="z9hG4bKbye", cseq=2, contact=None)
    assert titles(lone.send(attrs.evolve(bye, from_=invite.to))) == ["200 BYE"]
    assert lone.facts == [
        CallProgress(LEG, 180, "Ringing", b""),
        CallAnswered(LEG, ANSWER),
        OfferAnswered(LEG, ANSWER),
        DigitReceived(LEG, "5"),
        ByeReceived(LEG),
    ]


def test_a_digit_travels_by_info() -> None:
    """SendDigit here, DigitReceived there."""
    pair, leg = talking()
    pair.wish(pair.alice, SendDigit(LEG, "#"))
    pair.settle()
    assert pair.bob.facts == [DigitReceived(leg, "#")]


# -- bounds and mistakes ----------------------------------------------------------------------------------------------


def test_a_leg_is_placed_once_and_wishes_must_be_sendable() -> None:
    """LocalError, with nothing sent and nothing kept."""
    lone, _ = dialling()
    with pytest.raises(LocalError):
        lone.wish(invite_wish())
    with pytest.raises(LocalError):
        lone.wish(invite_wish("other", headers=(("X-A", "b\r\nVia: c"),)))
    for credentials in (Credentials("a\r\nVia: b", "c"), Credentials("a", "\udc80")):
        with pytest.raises(LocalError):
            lone.wish(invite_wish("other", credentials=credentials))
    with pytest.raises(LocalError):
        lone.wish(SendDigit(LEG, "99"))
    assert lone.side.endpoint.counters["calls"] == 1


def test_what_we_cannot_dial_is_refused() -> None:
    """Another scheme is 416, one call too many 503."""
    lone = Lone(EndpointConfig(port=5060, max_calls=1))
    lone.wish(invite_wish())
    lone.wish(invite_wish("second"))
    tel = Lone()
    tel.wish(attrs.evolve(invite_wish(), callee=parse_uri("tel:+4930")))
    assert lone.facts == [CallRefused("second", 503, "Too many calls")]
    assert tel.facts == [CallRefused(LEG, 416, "Unsupported URI Scheme")]


@pytest.mark.rfc("3261", "17.1.3")
def test_stray_responses_are_counted() -> None:
    """17.1.3: unknown branch, wrong method, two Vias."""
    lone, _ = dialling()
    foreign = reply(request("INVITE", branch="z9hG4bKnever"), 200)
    assert lone.send(foreign) == []
    assert lone.side.endpoint.counters["strays"] == 1
    assert lone.facts == []


def test_thousands_of_calls_keep_the_deadline_cheap() -> None:
    """Every step of 500 calls looks at few entries: the schedule is a heap."""
    endpoint = Endpoint(EndpointConfig(port=5060, max_calls=5000), random.Random(1))
    for number in range(500):
        endpoint.handle(invite_wish(f"leg-{number}"), number / 1000)
    assert endpoint.deadline().at == 0.5
    assert len(endpoint._layer.schedule._heap) <= 2 * 1000 + 64


def test_the_source_of_a_200_is_remembered_for_nat() -> None:
    """A callee behind NAT: ACK and BYE go where its 200 came from."""
    lone, invite = dialling()
    lone.peer = ("198.51.100.9", 31000)
    (ack,) = lone.send(reply(invite, 200, contact="sip:bob@10.0.0.7:5060"))
    (bye,) = lone.wish(HangUp(LEG))
    assert (ack.destination, bye.destination) == (lone.peer, lone.peer)


def test_ids_differ_from_call_to_call_and_repeat_with_the_seed() -> None:
    """Randomness is injected."""

    def ids(seed: int) -> list[str]:
        endpoint = Endpoint(EndpointConfig(port=5060), random.Random(seed))
        effects = [*endpoint.handle(invite_wish("a"), 0), *endpoint.handle(invite_wish("b"), 0)]
        packets = [Packet(e.data, ALICE, e.destination.address) for e in effects if isinstance(e, Send)]
        assert not any(isinstance(effect, Emit) for effect in effects)
        return [packet.message.call_id for packet in packets]

    assert ids(1) == ids(1)
    assert len({*ids(1), *ids(2)}) == 4


def test_refused_by_a_phone_of_ours() -> None:
    """Both sides of a 486."""
    pair = Pair()
    pair.wish(pair.alice, invite_wish())
    pair.settle()
    pair.wish(pair.bob, Refuse(pair.bob.facts[0].leg, 486, "in a meeting"))
    pair.settle()
    told = Reasons(sip=486, sip_text="in a meeting")
    assert pair.alice.facts == [CallRefused(LEG, 486, "Busy Here", told)]
    pair.advance(33)
    assert [side.endpoint.counters["transactions_running"] for side in (pair.alice, pair.bob)] == [0, 0]


# -- delayed offers ---------------------------------------------------------------------------------------------------


def asked_for_an_offer(body: bytes = OFFER) -> tuple[Pair, CallAnswered]:
    """Alice's INVITE had no SDP, and Bob has answered with an offer."""
    pair = Pair()
    pair.wish(pair.alice, attrs.evolve(invite_wish(), body=b""))
    pair.settle()
    incoming = pair.bob.facts[0]
    assert isinstance(incoming, IncomingCall)
    assert incoming.offer == b""
    pair.wish(pair.bob, Answer(incoming.leg, body))
    pair.settle()
    answered = pair.alice.facts[-1]
    assert isinstance(answered, CallAnswered)
    return pair, answered


@pytest.mark.rfc("3261", "13.2.2.4")
def test_the_ack_of_a_delayed_offer_waits_for_the_answer() -> None:
    """The 2xx is told as an offer, its copies get no ACK; the answer goes with the ACK, and with each copy after it."""
    pair, answered = asked_for_an_offer()
    assert (answered.body, answered.offered) == (OFFER, True)
    assert "> ACK" not in pair.seen
    pair.advance(0.6)
    assert "> ACK" not in pair.seen
    pair.wish(pair.alice, AcceptOffer(LEG, ANSWER))
    assert pair.drop() == ["ACK"]
    pair.advance(1.1)
    assert pair.seen.count("> ACK") == 2
    assert pair.bob.facts[-1] == CallConfirmed(pair.bob.facts[0].leg, ANSWER)


@pytest.mark.rfc("3262", "5")
def test_an_invite_without_an_offer_wants_no_reliable_responses() -> None:
    """100rel is not supported by it, since the PRACK would have to answer an offer before anybody has answered."""
    pair = Pair()
    pair.wish(pair.alice, attrs.evolve(invite_wish(), body=b""))
    invite = pair.wire[0].message
    assert "100rel" not in (invite.header("Supported") or "")
    assert invite.header("Content-Type") is None


@pytest.mark.parametrize("wish", [RefuseOffer(LEG), HangUp(LEG)])
def test_a_delayed_offer_that_is_not_taken_is_acknowledged_and_hung_up(wish: RefuseOffer | HangUp) -> None:
    """ACK, then BYE; nothing is left of the call."""
    pair, _ = asked_for_an_offer()
    pair.wish(pair.alice, wish)
    assert [packet.title for packet in pair.wire] == ["ACK", "BYE"]
    pair.advance(40.0)
    assert isinstance(pair.bob.facts[-1], ByeReceived)
    assert pair.alice.endpoint.counters["calls"] == 0


def test_a_delayed_offer_without_any_sdp_is_acknowledged_at_once() -> None:
    """There is nothing to answer: the call is up, and its session has to make something of it."""
    pair, answered = asked_for_an_offer(b"")
    assert (answered.body, answered.offered) == (b"", False)
    assert "> ACK" in pair.seen


def test_a_cancelled_delayed_offer_that_was_answered_all_the_same_is_ended() -> None:
    """CANCEL crosses the 200: ACK and BYE."""
    pair = Pair()
    pair.wish(pair.alice, attrs.evolve(invite_wish(), body=b""))
    pair.settle()
    pair.wish(pair.bob, Ring(pair.bob.facts[0].leg, 180))
    pair.settle()
    pair.wish(pair.alice, HangUp(LEG))
    pair.wish(pair.bob, Answer(pair.bob.facts[0].leg, OFFER))
    pair.settle()
    assert pair.seen.index("> ACK") < pair.seen.index("> BYE")
    pair.advance(40.0)
    assert pair.alice.endpoint.counters["calls"] == pair.bob.endpoint.counters["calls"] == 0
