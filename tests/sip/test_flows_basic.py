"""The call flows of RFC 3665 section 3, each between two endpoints of ours, with proxies of the test's own between.

Every message on the wire is asserted, in its order.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from rustpbx.core import Address
from rustpbx.sip.events import (
    AcceptOffer,
    Answer,
    ByeReceived,
    CallAnswered,
    CallCancelled,
    CallConfirmed,
    CallProgress,
    CallRefused,
    Credentials,
    HangUp,
    OfferAnswered,
    OfferReceived,
    Refuse,
    Ring,
    SendInvite,
    SendOffer,
)
from rustpbx.sip.hop import Hop
from rustpbx.sip.message import NameAddr, Request
from rustpbx.sip.uri import parse_uri
from tests.kit.peers_sip import ALICE, ANSWER, BOB, LEG, OFFER, udp
from tests.kit.town import Caller, Proxy, Town

ATLANTA: Address = ("192.0.2.11", 5060)
BILOXI: Address = ("192.0.2.12", 5060)
CHICAGO: Address = ("192.0.2.13", 5060)

BOBS = "sip:bob@biloxi.example.com"
MOVED = OFFER.replace(b"192.0.2.1", b"192.0.2.99")

Cast = tuple[Town, Caller, Caller]


def dial(
    callee: str, via: Address | None = None, body: bytes = OFFER, credentials: Credentials | None = None
) -> SendInvite:
    """Alice calls; `via` is her outbound proxy."""
    destination: Hop | None = udp(via) if via else None
    caller = NameAddr(parse_uri("sip:alice@atlanta.example.com"), "Alice")
    return SendInvite(
        leg=LEG,
        caller=caller,
        callee=parse_uri(callee),
        body=body,
        local_host=ALICE[0],
        credentials=credentials,
        destination=destination,
    )


def neighbours() -> Cast:
    """Alice and Bob with nothing between them."""
    alice, bob = Caller(ALICE, 1), Caller(BOB, 2)
    return Town(alice=(ALICE, alice), bob=(BOB, bob)), alice, bob


def trapezoid(*, realms: tuple[str, str] = ("", ""), loose: tuple[bool, bool] = (True, True)) -> Cast:
    """Two proxies that record the route between them: Alice's and Bob's."""
    alice, bob = Caller(ALICE, 1), Caller(BOB, 2)
    first = Proxy(ATLANTA, {"biloxi.example.com": BILOXI}, realm=realms[0], loose=loose[0])
    second = Proxy(BILOXI, {"biloxi.example.com": BOB}, realm=realms[1], loose=loose[1])
    town = Town(alice=(ALICE, alice), atlanta=(ATLANTA, first), biloxi=(BILOXI, second), bob=(BOB, bob))
    return town, alice, bob


def across(title: str, *path: str) -> list[str]:
    """One message along a path."""
    return [f"{here}: {title} -> {there}" for here, there in pairwise(path)]


THERE = ("alice", "atlanta", "biloxi", "bob")
BACK = THERE[::-1]

INVITE_OVER_TWO = [
    *across("INVITE", "alice", "atlanta"),
    *across("100 INVITE", "atlanta", "alice"),
    *across("INVITE", "atlanta", "biloxi"),
    *across("100 INVITE", "biloxi", "atlanta"),
    *across("INVITE", "biloxi", "bob"),
    *across("100 INVITE", "bob", "biloxi"),
]
"""An INVITE through both proxies; what each of them says by itself may pass what it sends on."""


def setting_up(town: Town) -> list[str]:
    """What passed so far, without the 100s: they go hop by hop, and their order means nothing."""
    return [line for line in town.seen() if " 100 " not in line]


@pytest.mark.rfc("3665", "3.1")
@pytest.mark.rfc("3261", "13.2.1", "13.2.2.4", "13.3.1.4", "15.1.1", "15.1.2")
def test_successful_session_establishment() -> None:
    """3.1: INVITE, 180, 200, ACK; Bob hangs up: BYE, 200."""
    town, alice, bob = neighbours()
    town.wish(alice, dial("sip:bob@192.0.2.2"))
    town.wish(bob, Ring(bob.leg))
    town.wish(bob, Answer(bob.leg, ANSWER))
    town.wish(bob, HangUp(bob.leg))
    assert town.seen() == [
        "alice: INVITE -> bob",
        "bob: 100 INVITE -> alice",
        "bob: 180 INVITE -> alice",
        "bob: 200 INVITE -> alice",
        "alice: ACK -> bob",
        "bob: BYE -> alice",
        "alice: 200 BYE -> bob",
    ]
    assert alice.facts == [CallProgress(LEG, 180, "Ringing", b""), CallAnswered(LEG, ANSWER), ByeReceived(LEG)]
    assert bob.facts[1:] == [CallConfirmed(bob.leg, b"")]


@pytest.mark.rfc("3665", "3.2")
@pytest.mark.rfc("3261", "12.1.1", "12.1.2", "12.2.1.1", "16.12.1.1")
def test_session_establishment_through_two_proxies() -> None:
    """3.2: both record the route; ACK and BYE follow it, in both directions, with the Contact as Request-URI."""
    town, alice, bob = trapezoid()
    town.wish(alice, dial(BOBS, ATLANTA))
    town.wish(bob, Ring(bob.leg))
    town.wish(bob, Answer(bob.leg, ANSWER))
    town.wish(bob, HangUp(bob.leg))
    assert setting_up(town) == [
        *across("INVITE", *THERE),
        *across("180 INVITE", *BACK),
        *across("200 INVITE", *BACK),
        *across("ACK", *THERE),
        *across("BYE", *BACK),
        *across("200 BYE", *THERE),
    ]
    ack = town.last("alice", "ACK")
    assert isinstance(ack, Request)
    assert str(ack.uri) == "sip:bob@192.0.2.2:5060"
    assert [str(route.uri) for route in ack.routes] == ["sip:192.0.2.11:5060;lr", "sip:192.0.2.12:5060;lr"]
    bye = town.last("bob", "BYE")
    assert isinstance(bye, Request)
    assert str(bye.uri) == "sip:alice@192.0.2.1:5060"
    assert [str(route.uri) for route in bye.routes] == ["sip:192.0.2.12:5060;lr", "sip:192.0.2.11:5060;lr"]


@pytest.mark.rfc("3665", "3.3")
@pytest.mark.rfc("3261", "22.3")
def test_session_with_proxy_authentication() -> None:
    """3.3: the proxy challenges, the second INVITE answers, and so do the ACK and the BYE of the call."""
    town, alice, bob = trapezoid(realms=("atlanta", ""))
    town.wish(alice, dial(BOBS, ATLANTA, credentials=Credentials("alice", "secret")))
    town.wish(bob, Answer(bob.leg, ANSWER))
    town.wish(alice, HangUp(LEG))
    assert setting_up(town) == [
        *across("INVITE", "alice", "atlanta"),
        *across("407 INVITE", "atlanta", "alice"),
        *across("ACK", "alice", "atlanta"),
        *across("INVITE", *THERE),
        *across("200 INVITE", *BACK),
        *across("ACK", *THERE),
        *across("BYE", *THERE),
        *across("200 BYE", *BACK),
    ]
    invites = [a.message for a in town.passed if str(a) == "alice: INVITE -> atlanta"]
    assert [message.cseq.number for message in invites] == [1, 2]
    assert len({(message.call_id, message.from_.tag) for message in invites}) == 1
    for message in (invites[-1], town.last("alice", "ACK"), town.last("alice", "BYE")):
        assert len(list(message.all("Proxy-Authorization"))) == 1


@pytest.mark.rfc("3665", "3.3")
def test_credentials_are_for_one_realm() -> None:
    """3.3 with a second proxy that asks in its own name: it is not shown what the first was; its 407 is the end."""
    town, alice, bob = trapezoid(realms=("atlanta", "biloxi"))
    town.wish(alice, dial(BOBS, ATLANTA, credentials=Credentials("alice", "secret")))
    assert setting_up(town)[3:] == [
        *across("INVITE", "alice", "atlanta", "biloxi"),
        *across("407 INVITE", "biloxi", "atlanta", "alice"),
        *across("ACK", "alice", "atlanta", "biloxi"),
    ]
    assert alice.facts == [CallRefused(LEG, 407, "Proxy Authentication Required")]
    assert bob.facts == []


@pytest.mark.rfc("3665", "3.4")
def test_successful_session_with_proxy_failure() -> None:
    """3.4: the first proxy is silent, the second takes the call; what the first had still to say changes nothing."""
    zone = {"atlanta.example.com": (CHICAGO, BILOXI)}
    alice, bob = Caller(ALICE, 1, zone=zone), Caller(BOB, 2)
    proxy = Proxy(BILOXI, {"atlanta.example.com": BOB})
    town = Town(alice=(ALICE, alice), biloxi=(BILOXI, proxy), bob=(BOB, bob))
    town.wish(alice, dial("sip:bob@atlanta.example.com"))
    assert set(town.seen()) == {"alice: INVITE -x 192.0.2.13"}
    town.advance(40)
    town.wish(bob, Answer(bob.leg, ANSWER))
    town.wish(alice, HangUp(LEG))
    path = ("alice", "biloxi", "bob")
    assert [line for line in setting_up(town) if "192.0.2.13" not in line] == [
        *across("INVITE", *path),
        *across("200 INVITE", *path[::-1]),
        *across("ACK", *path),
        *across("BYE", *path),
        *across("200 BYE", *path[::-1]),
    ]
    assert alice.facts == [CallAnswered(LEG, ANSWER)]


@pytest.mark.rfc("3665", "3.5")
def test_session_through_an_alg() -> None:
    """3.5: the box in the middle is Alice's peer for everything: it is in the route, and media goes where it says."""
    alice, bob = Caller(ALICE, 1), Caller(BOB, 2)
    alg = Proxy(CHICAGO, {"biloxi.example.com": BOB})
    town = Town(alice=(ALICE, alice), alg=(CHICAGO, alg), bob=(BOB, bob))
    town.wish(alice, dial(BOBS, CHICAGO))
    town.wish(bob, Ring(bob.leg))
    town.wish(bob, Answer(bob.leg, MOVED))
    town.wish(bob, HangUp(bob.leg))
    path = ("alice", "alg", "bob")
    assert setting_up(town) == [
        *across("INVITE", *path),
        *across("180 INVITE", *path[::-1]),
        *across("200 INVITE", *path[::-1]),
        *across("ACK", *path),
        *across("BYE", *path[::-1]),
        *across("200 BYE", *path),
    ]
    assert CallAnswered(LEG, MOVED) in alice.facts


@pytest.mark.rfc("3665", "3.6")
@pytest.mark.rfc("3261", "8.1.3.4", "13.2.2.2")
def test_session_by_a_redirect() -> None:
    """3.6: the first server knows only where else Bob is; the second INVITE goes there, with the same Call-ID."""
    alice, bob = Caller(ALICE, 1), Caller(BOB, 2)
    redirect = Proxy(CHICAGO, {}, moved={"bob": "sip:bob@192.0.2.12"})
    proxy = Proxy(BILOXI, {"192.0.2.12": BOB})
    town = Town(alice=(ALICE, alice), redirect=(CHICAGO, redirect), biloxi=(BILOXI, proxy), bob=(BOB, bob))
    town.wish(alice, dial("sip:bob@192.0.2.13"))
    town.wish(bob, Answer(bob.leg, ANSWER))
    town.wish(alice, HangUp(LEG))
    path = ("alice", "biloxi", "bob")
    assert setting_up(town) == [
        *across("INVITE", "alice", "redirect"),
        *across("302 INVITE", "redirect", "alice"),
        *across("ACK", "alice", "redirect"),
        *across("INVITE", *path),
        *across("200 INVITE", *path[::-1]),
        *across("ACK", *path),
        *across("BYE", *path),
        *across("200 BYE", *path[::-1]),
    ]
    first, second = (a.message for a in town.passed if a.source == "alice" and str(a).startswith("alice: INVITE"))
    assert (first.call_id, first.to, first.cseq.number + 1) == (second.call_id, second.to, second.cseq.number)


@pytest.mark.rfc("3665", "3.7")
@pytest.mark.rfc("3261", "14.1", "14.2")
@pytest.mark.rfc("3264", "8.3.1")
def test_session_with_a_reinvite() -> None:
    """3.7: Bob's address changes under way; his re-INVITE says so, is answered, and the session goes on."""
    town, alice, bob = neighbours()
    town.wish(alice, dial("sip:bob@192.0.2.2"))
    town.wish(bob, Ring(bob.leg))
    town.wish(bob, Answer(bob.leg, ANSWER))
    town.wish(bob, SendOffer(bob.leg, MOVED))
    town.wish(alice, AcceptOffer(LEG, OFFER))
    town.wish(bob, HangUp(bob.leg))
    assert setting_up(town) == [
        "alice: INVITE -> bob",
        "bob: 180 INVITE -> alice",
        "bob: 200 INVITE -> alice",
        "alice: ACK -> bob",
        "bob: INVITE -> alice",
        "alice: 200 INVITE -> bob",
        "bob: ACK -> alice",
        "bob: BYE -> alice",
        "alice: 200 BYE -> bob",
    ]
    assert alice.facts[1:] == [CallAnswered(LEG, ANSWER), OfferReceived(LEG, MOVED), ByeReceived(LEG)]
    assert bob.facts[1:] == [CallConfirmed(bob.leg, b""), OfferAnswered(bob.leg, OFFER)]


@pytest.mark.rfc("3665", "3.8")
@pytest.mark.rfc("3261", "9.1", "9.2")
def test_unsuccessful_no_answer() -> None:
    """3.8: nobody answers, Alice gives up: CANCEL and its 200, 487 and its ACK, each on the INVITE's own way."""
    town, alice, bob = trapezoid()
    town.wish(alice, dial(BOBS, ATLANTA))
    town.wish(bob, Ring(bob.leg))
    before = len(town.passed)
    town.wish(alice, HangUp(LEG))
    assert town.seen("bob", since=before) == [
        "biloxi: CANCEL -> bob",
        "bob: 200 CANCEL -> biloxi",
        "bob: 487 INVITE -> biloxi",
        "biloxi: ACK -> bob",
    ]
    assert town.seen("alice", since=before) == [
        "alice: CANCEL -> atlanta",
        "atlanta: 200 CANCEL -> alice",
        "atlanta: 487 INVITE -> alice",
        "alice: ACK -> atlanta",
    ]
    assert bob.facts[1:] == [CallCancelled(bob.leg)]
    assert alice.facts == [CallProgress(LEG, 180, "Ringing", b"")]


@pytest.mark.rfc("3665", "3.9", "3.11")
@pytest.mark.rfc("3261", "13.2.2.3", "13.3.1.3", "17.1.1.3")
@pytest.mark.parametrize(("status", "reason"), [(486, "Busy Here"), (480, "Temporarily Unavailable")])
def test_unsuccessful_because_bob_refuses(status: int, reason: str) -> None:
    """3.9 and 3.11: Bob is busy, or cannot be reached just now; the ACK goes to the next hop, not by the route set."""
    town, alice, bob = trapezoid()
    town.wish(alice, dial(BOBS, ATLANTA))
    town.wish(bob, Ring(bob.leg))
    town.wish(bob, Refuse(bob.leg, status))
    assert setting_up(town) == [
        *across("INVITE", *THERE),
        *across("180 INVITE", *BACK),
        *across(f"{status} INVITE", *BACK),
        *across("ACK", *THERE),
    ]
    ack = town.last("alice", "ACK")
    assert isinstance(ack, Request)
    assert (str(ack.uri), ack.routes) == (BOBS, ())
    assert alice.facts[1:] == [CallRefused(LEG, status, reason)]


@pytest.mark.rfc("3665", "3.10")
@pytest.mark.rfc("3261", "17.1.1.2")
@pytest.mark.parametrize("says", [408, 480])
def test_unsuccessful_because_the_proxy_reaches_nobody(says: int) -> None:
    """3.10: Bob's phone is off; what his proxy says of it is the call's end, and is acknowledged."""
    alice = Caller(ALICE, 1)
    biloxi = Proxy(BILOXI, {}, refuses={"bob": says})
    town = Town(
        alice=(ALICE, alice),
        atlanta=(ATLANTA, Proxy(ATLANTA, {"biloxi.example.com": BILOXI})),
        biloxi=(BILOXI, biloxi),
    )
    town.wish(alice, dial(BOBS, ATLANTA))
    path = ("alice", "atlanta", "biloxi")
    assert setting_up(town) == [
        *across("INVITE", *path),
        *across(f"{says} INVITE", *path[::-1]),
        *across("ACK", *path),
    ]
    assert [type(fact) for fact in alice.facts] == [CallRefused]


@pytest.mark.rfc("3665", "3.10")
@pytest.mark.rfc("3261", "17.1.1.2")
def test_unsuccessful_because_nobody_is_there() -> None:
    """3.10 without a proxy: copies at 0.5, 1.5, 3.5 ... s, and after 64*T1 it is over."""
    alice = Caller(ALICE, 1)
    town = Town(alice=(ALICE, alice))
    town.wish(alice, dial("sip:bob@192.0.2.2"))
    town.advance(70)
    assert [arrow.at for arrow in town.passed] == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert alice.facts == [CallRefused(LEG, 408, "Request Timeout")]
    assert alice.counters["calls"] == 0


# -- routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("3261", "12.2.1.1", "16.12.1.2")
@pytest.mark.parametrize("loose", [(True, False), (False, True), (False, False)], ids=str)
def test_strict_routers_on_the_way(loose: tuple[bool, bool]) -> None:
    """Routers of RFC 2543, first, last or both: requests of both sides arrive with the Contact as Request-URI."""
    town, alice, bob = trapezoid(loose=loose)
    town.wish(alice, dial(BOBS, ATLANTA))
    town.wish(bob, Answer(bob.leg, ANSWER))
    town.wish(bob, SendOffer(bob.leg, MOVED))
    town.wish(alice, AcceptOffer(LEG, OFFER))
    town.wish(alice, HangUp(LEG))
    assert setting_up(town) == [
        *across("INVITE", *THERE),
        *across("200 INVITE", *BACK),
        *across("ACK", *THERE),
        *across("INVITE", *BACK),
        *across("200 INVITE", *THERE),
        *across("ACK", *BACK),
        *across("BYE", *THERE),
        *across("200 BYE", *BACK),
    ]
    arrived = [a.message for a in town.passed if str(a) in {"biloxi: BYE -> bob", "atlanta: INVITE -> alice"}]
    assert [str(m.uri) for m in arrived if isinstance(m, Request)] == [
        "sip:alice@192.0.2.1:5060",
        "sip:bob@192.0.2.2:5060",
    ]


@pytest.mark.rfc("3261", "16.12.1.3")
def test_a_proxy_that_records_itself_twice() -> None:
    """One proxy with two addresses (two networks, two transports) stands in the route twice; both are followed."""
    alice, bob = Caller(ALICE, 1), Caller(BOB, 2)
    inner, outer = Proxy(ATLANTA, {"biloxi.example.com": BILOXI}), Proxy(BILOXI, {"biloxi.example.com": BOB})
    town = Town(alice=(ALICE, alice), inner=(ATLANTA, inner), outer=(BILOXI, outer), bob=(BOB, bob))
    town.wish(alice, dial(BOBS, ATLANTA))
    town.wish(bob, Answer(bob.leg, ANSWER))
    town.wish(bob, HangUp(bob.leg))
    assert town.seen()[-6:] == [
        *across("BYE", "bob", "outer", "inner", "alice"),
        *across("200 BYE", "alice", "inner", "outer", "bob"),
    ]
    bye = town.last("bob", "BYE")
    assert isinstance(bye, Request)
    assert len(bye.routes) == 2


@pytest.mark.rfc("3261", "12.1.2")
def test_a_proxy_that_does_not_record_is_left_out() -> None:
    """Only who asked for it by Record-Route sees the rest of the call; the others are passed by."""
    alice, bob = Caller(ALICE, 1), Caller(BOB, 2)
    proxy = Proxy(CHICAGO, {"biloxi.example.com": BOB}, records=False)
    town = Town(alice=(ALICE, alice), proxy=(CHICAGO, proxy), bob=(BOB, bob))
    town.wish(alice, dial(BOBS, CHICAGO))
    town.wish(bob, Answer(bob.leg, ANSWER))
    before = len(town.passed) - 1
    town.wish(alice, HangUp(LEG))
    assert town.seen(since=before) == ["alice: ACK -> bob", "alice: BYE -> bob", "bob: 200 BYE -> alice"]
