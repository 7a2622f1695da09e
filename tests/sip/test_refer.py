"""Transfers by REFER, both roles (RFC 3515, 6665, 4488, 3892): what is asked, answered and told, and when it ends."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from rustpbx.errors import LocalError
from rustpbx.sip.events import (
    Answer,
    Fact,
    HangUp,
    ReferEnded,
    ReferProgress,
    ReferReceived,
    ReportReferral,
    Ring,
    SendRefer,
)
from rustpbx.sip.message import Lines, NameAddr, Request, Response
from rustpbx.sip.parser import parse_name_addr
from rustpbx.sip.refer import EXPIRES
from rustpbx.sip.sipfrag import Referral
from rustpbx.sip.uri import parse_uri
from tests.kit.peers_sip import ANSWER, LEG, Lone, Packet, Pair, invite, invite_wish, reply, request, titles
from tests.sip.test_endpoint_uac import CHALLENGE, CREDENTIALS, dialling
from tests.sip.test_endpoint_uas import in_dialog, new_facts, response
from tests.sip.test_endpoint_uas import talking as alone

CAROL = NameAddr(parse_uri("sip:carol@example.com"))
TO_CAROL = ("Refer-To", "<sip:carol@example.com>")
NOWHERE: Lines = ()


def refer(lone: Lone, *lines: tuple[str, str], cseq: int = 2) -> Request:
    """A REFER of Alice's within the call."""
    return in_dialog(lone, "REFER", cseq, lines=lines)


def notify(of: Packet) -> tuple[str, str, str]:
    """Event, subscription state and body of a NOTIFY of ours."""
    message = of.message
    assert isinstance(message, Request)
    assert message.method == "NOTIFY"
    assert message.content_type == "message/sipfrag"
    assert len(message.contacts) == 1
    return message.header("Event") or "", message.header("Subscription-State") or "", message.body.decode()


def answer_to(packet: Packet, status: int, lines: Lines = ()) -> Response:
    """Alice's answer to a request of ours."""
    assert isinstance(packet.message, Request)
    return reply(packet.message, status, contact=None, lines=lines)


# -- the peer refers us -----------------------------------------------------------------------------------------------


@pytest.mark.rfc("3515", "2.4.2", "2.4.4")
def test_a_refer_is_accepted_and_followed_by_a_notify_at_once() -> None:
    """202, a NOTIFY with 100 Trying, and the session is told everything."""
    lone = alone()
    sent = lone.send(refer(lone, TO_CAROL, ("Referred-By", '"Al" <sip:alice@192.0.2.1>')))
    assert titles(sent) == ["202 REFER", "NOTIFY"]
    assert notify(sent[1]) == ("refer", f"active;expires={EXPIRES:.0f}", "SIP/2.0 100 Trying\r\n")
    referral = Referral(target=CAROL, referred_by=parse_name_addr('"Al" <sip:alice@192.0.2.1>'))
    assert new_facts(lone) == [ReferReceived(lone.leg, referral)]


@pytest.mark.rfc("3515", "2.4.5", "2.4.7")
def test_what_became_of_it_is_told() -> None:
    """Progress, then the final status, and with it the subscription ends: later reports go nowhere."""
    lone = alone()
    lone.send(refer(lone, TO_CAROL))
    (ringing,) = lone.wish(ReportReferral(lone.leg, 180))
    assert notify(ringing) == ("refer", f"active;expires={EXPIRES:.0f}", "SIP/2.0 180 Ringing\r\n")
    lone.send(answer_to(ringing, 200))
    (done,) = lone.wish(ReportReferral(lone.leg, 486, "on\r\nanother line"))
    assert notify(done) == ("refer", "terminated;reason=noresource", "SIP/2.0 486 on  another line\r\n")
    lone.send(answer_to(done, 200))
    assert lone.wish(ReportReferral(lone.leg, 200)) == []


@pytest.mark.rfc("3515", "2.4.4")
@pytest.mark.rfc("6665", "4.2.2")
def test_nobody_says_what_became_of_it() -> None:
    """Then nothing did: declined, when the subscription's time is up."""
    lone = alone()
    (_, trying) = lone.send(refer(lone, TO_CAROL))
    lone.send(answer_to(trying, 200))
    told = [(at, notify(packet)) for at, packet in lone.wait(EXPIRES) if packet.title == "NOTIFY"]
    assert told == [(EXPIRES, ("refer", "terminated;reason=timeout", "SIP/2.0 603 Decline\r\n"))]


@pytest.mark.rfc("3515", "2.4.4")
def test_our_bye_declines_it() -> None:
    """The last word of the subscription is said before the call's."""
    lone = alone()
    (_, trying) = lone.send(refer(lone, TO_CAROL))
    lone.send(answer_to(trying, 200))
    sent = lone.wish(HangUp(lone.leg))
    assert titles(sent) == ["NOTIFY", "BYE"]
    assert notify(sent[0]) == ("refer", "terminated;reason=noresource", "SIP/2.0 603 Decline\r\n")


def test_their_bye_ends_it() -> None:
    """Who hangs up wants to hear nothing more."""
    lone = alone()
    (_, trying) = lone.send(refer(lone, TO_CAROL))
    lone.send(answer_to(trying, 200))
    assert titles(lone.send(in_dialog(lone, "BYE", 3))) == ["200 BYE"]
    assert [packet.title for _, packet in lone.wait(EXPIRES + 40)] == []


@pytest.mark.rfc("6665", "4.2.2")
@pytest.mark.parametrize("status", [481, 405, 500])
def test_who_refuses_a_notify_is_told_no_more(status: int) -> None:
    """The subscription is gone, the call is not."""
    lone = alone()
    (_, trying) = lone.send(refer(lone, TO_CAROL))
    lone.send(answer_to(trying, status))
    assert lone.wish(ReportReferral(lone.leg, 200)) == []
    assert lone.side.endpoint.counters["dialogs"] == 1


@pytest.mark.rfc("4488", "4")
def test_without_a_subscription_there_is_no_notify() -> None:
    """Refer-Sub: false is confirmed, and the session is told that nobody waits for its word."""
    lone = alone()
    lines = (TO_CAROL, ("Require", "norefersub"), ("Refer-Sub", "false"))
    answer = response(lone.send(refer(lone, *lines)))
    assert (answer.status, answer.header("Refer-Sub")) == (202, "false")
    assert new_facts(lone) == [ReferReceived(lone.leg, Referral(target=CAROL, subscribes=False))]
    assert lone.wish(ReportReferral(lone.leg, 200)) == []


def test_one_transfer_at_a_time() -> None:
    """491 for another; when the first is over the next one has an id."""
    lone = alone()
    (_, trying) = lone.send(refer(lone, TO_CAROL))
    lone.send(answer_to(trying, 200))
    assert titles(lone.send(refer(lone, TO_CAROL, cseq=3))) == ["491 REFER"]
    (done,) = lone.wish(ReportReferral(lone.leg, 603))
    lone.send(answer_to(done, 200))
    sent = lone.send(refer(lone, TO_CAROL, cseq=4))
    assert titles(sent) == ["202 REFER", "NOTIFY"]
    assert notify(sent[1])[0] == "refer;id=4"


@pytest.mark.rfc("5589", "7")
def test_an_attended_transfer_names_the_dialog_to_replace() -> None:
    """Its Replaces is told beside the target, which is clean of it."""
    lone = alone()
    lone.send(refer(lone, ("Refer-To", "<sip:carol@example.com?Replaces=abc%40h%3Bto-tag%3D1%3Bfrom-tag%3D2&X=y>")))
    assert new_facts(lone) == [
        ReferReceived(lone.leg, Referral(target=CAROL, replaces="abc@h;to-tag=1;from-tag=2")),
    ]


@pytest.mark.rfc("3515", "2.4.2")
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (NOWHERE, 400),
        ((TO_CAROL, TO_CAROL), 400),
        ((("Refer-To", "<sip:never closed"),), 400),
        ((("r", "garbage here"),), 400),
        ((TO_CAROL, ("Referred-By", "<<>>")), 400),
        ((("Refer-To", "<sip:carol@example.com;method=BYE>"),), 603),
        ((TO_CAROL, ("Require", "tdialog")), 420),
    ],
)
def test_a_bad_refer(lines: Lines, status: int) -> None:
    """Its own answer; nothing is told, and the call goes on."""
    lone = alone()
    assert titles(lone.send(refer(lone, *lines))) == [f"{status} REFER"]
    assert new_facts(lone) == []
    assert titles(lone.send(in_dialog(lone, "BYE", 9))) == ["200 BYE"]


@pytest.mark.rfc("3515", "2.4.2")
def test_a_refer_outside_a_call() -> None:
    """403: who is in no call with us has nobody to transfer. In an unknown dialog it is 481."""
    lone = Lone()
    assert titles(lone.send(request("REFER", lines=(TO_CAROL,)))) == ["403 REFER"]
    assert titles(lone.send(request("REFER", to_tag="nobody", branch="z9hG4bKx", lines=(TO_CAROL,)))) == ["481 REFER"]
    assert lone.facts == []


# -- we refer the peer ------------------------------------------------------------------------------------------------


class Referrer:
    """Bob in a call, who asks Alice to call Carol."""

    def __init__(self, **fields: Any) -> None:
        self.lone = alone()
        (self.refer,) = self.lone.wish(SendRefer(self.lone.leg, CAROL, **fields))
        self._cseq = count(2)

    @property
    def facts(self) -> list[Fact]:
        """What was told since the call was up."""
        return new_facts(self.lone)

    def answered(self, status: int = 202) -> list[Packet]:
        """Alice answers the REFER."""
        return self.lone.send(answer_to(self.refer, status))

    def notify(self, body: bytes, state: str = "active;expires=60", event: str = "refer", **changes: Any) -> Response:
        """Alice tells; our answer."""
        lines = (("Event", event), ("Subscription-State", state), ("Content-Type", "message/sipfrag;version=2.0"))
        told = in_dialog(self.lone, "NOTIFY", next(self._cseq), **{"lines": lines, "body": body, **changes})
        return response(self.lone.send(told))


@pytest.mark.rfc("3515", "2.4.1", "2.4.5")
def test_a_transfer_that_works() -> None:
    """REFER with its target and who wants it; accepted, rings, answered: each is told, the end once."""
    bob = Referrer(referred_by=parse_name_addr('"Bob" <sip:bob@192.0.2.2>'), headers=(("X-A", "1"),))
    message = bob.refer.message
    assert isinstance(message, Request)
    assert [message.header(name) for name in ("Refer-To", "Referred-By", "X-A")] == [
        "<sip:carol@example.com>",
        '"Bob" <sip:bob@192.0.2.2>',
        "1",
    ]
    assert len(message.contacts) == 1
    bob.answered()
    assert bob.notify(b"SIP/2.0 100 Trying\r\n").status == 200
    assert bob.notify(b"SIP/2.0 180 Ringing\r\n").status == 200
    assert bob.notify(b"SIP/2.0 200 OK\r\n", "terminated;reason=noresource").status == 200
    leg = bob.lone.leg
    assert bob.facts == [
        ReferProgress(leg, 202, "Accepted"),
        ReferProgress(leg, 100, "Trying"),
        ReferProgress(leg, 180, "Ringing"),
        ReferEnded(leg, 200, "OK"),
    ]
    assert titles(bob.lone.wish(HangUp(leg))) == ["BYE"]


@pytest.mark.rfc("3515", "2.4.5")
def test_a_transfer_that_fails_leaves_the_call() -> None:
    """The status is told; the call is as it was, and another try is possible."""
    bob = Referrer()
    bob.answered()
    bob.notify(b"SIP/2.0 486 Busy Here", "terminated;reason=noresource")
    assert bob.facts[1:] == [ReferEnded(bob.lone.leg, 486, "Busy Here")]
    assert titles(bob.lone.wish(SendRefer(bob.lone.leg, CAROL))) == ["REFER"]


@pytest.mark.rfc("6665", "4.4.1")
def test_a_notify_may_come_before_the_202() -> None:
    """The network reorders: the progress is told, and the response says nothing new."""
    bob = Referrer()
    assert bob.notify(b"SIP/2.0 100 Trying\r\n").status == 200
    bob.answered()
    bob.notify(b"SIP/2.0 200 OK\r\n")
    assert [fact.status for fact in bob.facts if isinstance(fact, ReferProgress | ReferEnded)] == [100, 200]


@pytest.mark.rfc("3515", "2.4.2")
@pytest.mark.parametrize("status", [405, 420, 501, 603])
def test_a_peer_that_does_not_refer(status: int) -> None:
    """What it answers is the outcome, and its NOTIFYs are not expected."""
    bob = Referrer()
    bob.answered(status)
    (ended,) = bob.facts
    assert isinstance(ended, ReferEnded)
    assert ended.status == status
    assert bob.notify(b"SIP/2.0 100 Trying\r\n").status == 481


def test_a_peer_that_never_answers() -> None:
    """408 after 64*T1; the call goes on, for the subscription is only a part of it (RFC 5057)."""
    bob = Referrer()
    bob.lone.wait(33)
    assert bob.facts == [ReferEnded(bob.lone.leg, 408, "Request Timeout")]
    assert bob.lone.side.endpoint.counters["dialogs"] == 1


@pytest.mark.rfc("6665", "4.1.2.4")
def test_no_notify_within_the_limit() -> None:
    """64*T1 after the 202 (timer N) nobody waits any more, and late NOTIFYs are told to stop."""
    bob = Referrer()
    bob.answered()
    assert bob.lone.wait(31.9) == []
    assert bob.facts == [ReferProgress(bob.lone.leg, 202, "Accepted")]
    bob.lone.wait(0.2)
    assert bob.facts[1:] == [ReferEnded(bob.lone.leg, 408, "the far end says nothing of it")]
    assert bob.notify(b"SIP/2.0 200 OK\r\n").status == 481


def test_no_outcome_within_the_limit() -> None:
    """The wish's own limit, however often it rings."""
    bob = Referrer(limit=50.0)
    bob.answered()
    bob.notify(b"SIP/2.0 180 Ringing\r\n")
    bob.lone.wait(50.1)
    assert bob.facts[-1] == ReferEnded(bob.lone.leg, 408, "the far end says nothing of it")


@pytest.mark.rfc("6665", "4.1.3")
def test_a_subscription_that_ends_without_an_outcome() -> None:
    """That is told as what it is."""
    bob = Referrer()
    bob.answered()
    assert bob.notify(b"", "terminated;reason=giveup", lines=(("Event", "refer"), ("Subscription-State", "terminated")))
    assert bob.facts[1:] == [ReferEnded(bob.lone.leg, 480, "the far end does not say what became of it")]


@pytest.mark.parametrize(
    ("body", "lines", "status"),
    [
        (b"SIP/2.0 200 OK", (("Event", "presence"), ("Subscription-State", "active")), 489),
        (b"SIP/2.0 200 OK", (("Subscription-State", "active"),), 489),
        (b"SIP/2.0 200 OK", (("Event", "refer"), ("Content-Type", "message/sipfrag")), 400),
        (b"hello", (("Event", "refer"), ("Subscription-State", "active"), ("Content-Type", "message/sipfrag")), 400),
        (b"hello", (("Event", "refer"), ("Subscription-State", "active"), ("Content-Type", "text/plain")), 415),
        (b"SIP/2.0 999 X", (("o", "refer"), ("Subscription-State", "a"), ("c", "message/sipfrag")), 400),
        (b"", (("Event", "refer;id=77"), ("Subscription-State", "active")), 481),
    ],
)
def test_a_notify_that_says_nothing(body: bytes, lines: Lines, status: int) -> None:
    """Its own answer; the transfer goes on."""
    bob = Referrer()
    bob.answered()
    assert bob.notify(body, lines=lines).status == status
    assert bob.facts == [ReferProgress(bob.lone.leg, 202, "Accepted")]
    bob.notify(b"SIP/2.0 200 OK\r\n")
    assert bob.facts[-1] == ReferEnded(bob.lone.leg, 200, "OK")


def test_the_id_of_a_subscription_is_the_refers_cseq() -> None:
    """RFC 3515 2.4.6: a NOTIFY may name it."""
    bob = Referrer()
    bob.answered()
    message = bob.refer.message
    assert bob.notify(b"SIP/2.0 200 OK\r\n", event=f"refer;id={message.cseq.number}").status == 200
    assert bob.facts[-1] == ReferEnded(bob.lone.leg, 200, "OK")


def test_a_notify_that_nobody_asked_for() -> None:
    """481, in a call and outside."""
    lone = alone()
    lines = (("Event", "refer"), ("Subscription-State", "active"))
    assert titles(lone.send(in_dialog(lone, "NOTIFY", 2, lines=lines))) == ["481 NOTIFY"]
    assert titles(Lone().send(request("NOTIFY", lines=lines))) == ["481 NOTIFY"]


def test_only_one_refer_of_ours_at_a_time() -> None:
    """The second one is refused at once."""
    bob = Referrer()
    assert bob.lone.wish(SendRefer(bob.lone.leg, CAROL)) == []
    assert bob.facts == [ReferEnded(bob.lone.leg, 491, "Request Pending")]


def test_a_refer_may_be_challenged() -> None:
    """It is sent again with credentials and the next CSeq; a NOTIFY may name either."""
    lone, invite = dialling(CREDENTIALS)
    lone.send(reply(invite, 200, body=ANSWER))
    (asked,) = lone.wish(SendRefer(LEG, CAROL))
    (again,) = lone.send(answer_to(asked, 401, CHALLENGE))
    assert isinstance(again.message, Request)
    assert (again.message.method, again.message.cseq.number) == ("REFER", asked.message.cseq.number + 1)
    assert again.message.header("Refer-To") == "<sip:carol@example.com>"
    assert (again.message.header("Authorization") or "").startswith("Digest ")
    lone.send(answer_to(again, 202))
    assert lone.facts[1:] == [ReferProgress(LEG, 202, "Accepted")]


def test_before_the_answer_there_is_nothing_to_transfer() -> None:
    """A call that rings is not referred."""
    lone, _ = dialling()
    assert lone.wish(SendRefer(LEG, CAROL)) == []
    assert lone.facts == [ReferEnded(LEG, 481, "the call is not answered")]


def test_a_peer_that_is_not_answered_cannot_refer() -> None:
    """403: there is no conversation yet."""
    lone = Lone()
    lone.send(invite())
    lone.wish(Ring(lone.leg))
    assert titles(lone.send(refer(lone, TO_CAROL))) == ["403 REFER"]


def test_what_cannot_be_written_is_no_wish() -> None:
    """Our own error, and nothing is sent."""
    lone = alone()
    for wish in (
        SendRefer(lone.leg, CAROL, headers=(("X", "a\r\nVia: b"),)),
        SendRefer(lone.leg, NameAddr(parse_uri("sip:a@h"), "line\nend")),
        ReportReferral(lone.leg, 99),
    ):
        with pytest.raises(LocalError):
            lone.wish(wish)


def test_hanging_up_in_the_middle() -> None:
    """The transfer is nobody's any more; a late NOTIFY is 481 and the BYE is the last word."""
    bob = Referrer()
    bob.answered()
    assert titles(bob.lone.wish(HangUp(bob.lone.leg))) == ["BYE"]
    assert bob.notify(b"SIP/2.0 200 OK\r\n").status == 481
    assert bob.facts == [ReferProgress(bob.lone.leg, 202, "Accepted")]


def test_both_ends_are_ours() -> None:
    """What one side reports is what the other is told."""
    pair = Pair()
    pair.wish(pair.alice, invite_wish())
    pair.settle()
    bob = pair.bob.facts[0].leg
    pair.wish(pair.bob, Answer(bob, b"v=0"))
    pair.settle()
    for side in (pair.alice, pair.bob):
        side.facts.clear()
    pair.wish(pair.alice, SendRefer(LEG, CAROL))
    pair.settle()
    pair.wish(pair.bob, ReportReferral(bob, 183))
    pair.settle()
    pair.wish(pair.bob, ReportReferral(bob, 200))
    pair.settle()
    assert pair.bob.facts == [ReferReceived(bob, Referral(target=CAROL))]
    assert pair.alice.facts == [
        ReferProgress(LEG, 202, "Accepted"),
        ReferProgress(LEG, 100, "Trying"),
        ReferProgress(LEG, 183, "Session Progress"),
        ReferEnded(LEG, 200, "OK"),
    ]
