"""Session timers (RFC 4028): what both sides say, who refreshes, how, and what ends a call that nobody refreshes."""

from __future__ import annotations

import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import RemoteError
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import (
    AcceptOffer,
    Answer,
    CallAnswered,
    CallConfirmed,
    CallLost,
    CallRefused,
    Credentials,
    HangUp,
    OfferAnswered,
    OfferReceived,
    OfferRefused,
    RefreshAnswered,
    Ring,
    SendOffer,
)
from rustpbx.sip.extensions import Extensions, TimerWish
from rustpbx.sip.message import Lines, Request, Response
from rustpbx.sip.session_interval import (
    MOST_RAISES,
    Refresher,
    SessionExpires,
    SessionInterval,
    min_se_of,
    session_expires_of,
)
from rustpbx.sip.session_timer import LEAST_PAUSE
from tests.kit.peers_sip import (
    ANSWER,
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
    titles,
)

KNOWS: Lines = (("Supported", "timer"),)
UPDATES: Lines = (("Allow", "INVITE, ACK, BYE, CANCEL, UPDATE"),)
OTHER = ANSWER.replace(b"2 2", b"3 3")
LOST = "the session expired without a refresh"


def config(wish: TimerWish = "on", expires: int = 600, least: int = 90) -> EndpointConfig:
    """An endpoint with these wishes."""
    extensions = Extensions(session_timers=wish, session_expires=expires, min_se=least)
    return EndpointConfig(port=5060, extensions=extensions)


def expires(message: Request | Response) -> tuple[str | None, str | None]:
    """Session-Expires and Require of a message."""
    return message.header("Session-Expires"), message.header("Require")


def called(*lines: tuple[str, str], settings: EndpointConfig | None = None) -> tuple[Lone, Response]:
    """Bob is called with these header fields, answers, and is acknowledged: the call, and his 200."""
    lone = Lone(settings or config())
    lone.send(invite(lines=(*SDP_LINES, *lines)))
    (packet,) = lone.wish(Answer(lone.leg, ANSWER))
    lone.send(request("ACK", branch="z9hG4bKack", to_tag=lone.tag))
    assert isinstance(packet.message, Response)
    return lone, packet.message


def calling(*lines: tuple[str, str], settings: EndpointConfig | None = None) -> tuple[Lone, Request]:
    """Bob calls, and is answered with these header fields: the call, and his INVITE."""
    lone = Lone(settings or config())
    sent = asked(lone.wish(invite_wish()))
    lone.send(reply(sent, 200, lines=(*SDP_LINES, *lines), body=ANSWER))
    return lone, sent


def asked(packets: list[Packet]) -> Request:
    """The one request that was sent."""
    (packet,) = packets
    assert isinstance(packet.message, Request)
    return packet.message


def next_request(lone: Lone, within: float) -> tuple[float, Request]:
    """When the next request leaves, and which; copies do not count."""
    end = lone.now + within
    while lone.now < end:
        for at, packet in lone.wait(min(end, lone.side.endpoint.deadline().at) - lone.now):
            assert isinstance(packet.message, Request)
            return at, packet.message
    raise AssertionError(f"no request within {within} s")


def of_peer(lone: Lone, sent: Request, method: str, *lines: tuple[str, str], cseq: int = 70, **more: object) -> Request:
    """A request of the callee's in the call that Bob placed."""
    made = request(method, branch=f"z9hG4bK{cseq}", cseq=cseq, call_id=sent.call_id, lines=lines, **more)  # type: ignore[arg-type]
    return attrs.evolve(made, from_=sent.to.tagged("bob-tag"), to=sent.from_)


# -- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.rfc("4028", "4", "5")
@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ("1800", SessionExpires(1800)),
        ("90;refresher=uac", SessionExpires(90, "uac")),
        ("90 ; foo=bar ;Refresher=UAS", SessionExpires(90, "uas")),
        ("90;refresher=me", SessionExpires(90)),
        ("", None),
        ("x", None),
        ("-1", None),
        ("2147483648", None),
        ("90;refresher=uac;refresher=uas", None),
    ],
)
def test_session_expires_is_read(value: str, becomes: SessionExpires | None) -> None:
    """Seconds and perhaps a role; what cannot be read is 400."""
    message = request(lines=(("Session-Expires", value),))
    if becomes is not None:
        assert session_expires_of(message) == becomes
        return
    with pytest.raises(RemoteError):
        session_expires_of(message)
    assert titles(Lone(config()).send(message)) == ["400 INVITE"]


@pytest.mark.rfc("4028", "5")
def test_min_se_is_read() -> None:
    """90 without one, and never less."""
    values = (None, "60", "90", "120;x=y")
    messages = (request(lines=() if value is None else (("Min-SE", value),)) for value in values)
    assert [min_se_of(message) for message in messages] == [90, 90, 90, 120]


@pytest.mark.rfc("4028", "7.1")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (config(), ("timer", "600", None)),
        (config(least=300), ("timer", "600", "300")),
        (config(expires=90, least=200), ("timer", "200", "200")),
        (config("accept"), ("timer", None, None)),
        (config("off"), ("", None, None)),
    ],
)
def test_what_an_invite_asks(settings: EndpointConfig, said: tuple[str, str | None, str | None]) -> None:
    """Roles are left open; a least interval is named where it is not the RFC's."""
    sent = asked(Lone(settings).wish(invite_wish()))
    supported = "timer" if "timer" in (sent.header("Supported") or "") else ""
    assert (supported, sent.header("Session-Expires"), sent.header("Min-SE")) == said


@pytest.mark.rfc("4028", "9")
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((*KNOWS, ("Session-Expires", "400;refresher=uac")), ("400;refresher=uac", "timer")),
        ((*KNOWS, ("Session-Expires", "400;refresher=uas")), ("400;refresher=uas", "timer")),
        ((*KNOWS, ("Session-Expires", "400")), ("400;refresher=uas", "timer")),
        ((*KNOWS, ("Session-Expires", "4000")), ("600;refresher=uas", "timer")),
        ((*KNOWS, ("Session-Expires", "4000"), ("Min-SE", "900")), ("900;refresher=uas", "timer")),
        (KNOWS, ("600;refresher=uas", "timer")),
        ((), ("600;refresher=uas", None)),
        ((("Session-Expires", "400"),), ("400;refresher=uas", None)),
        ((("Session-Expires", "20"),), ("90;refresher=uas", None)),
    ],
)
def test_what_a_200_says(lines: Lines, said: tuple[str, str | None]) -> None:
    """Never longer than asked, never below the caller's least; who does not know timers is not made to refresh."""
    _, answer = called(*lines)
    assert expires(answer) == said


@pytest.mark.rfc("4028", "9")
@pytest.mark.parametrize("wish", ["accept", "off"])
def test_who_does_not_ask_gets_no_timer_where_we_only_accept(wish: TimerWish) -> None:
    """And an hour of silence ends nothing. With "off" nobody gets one, and who requires it is refused."""
    lone, answer = called(*KNOWS, settings=config(wish))
    assert expires(answer) == (None, None)
    assert lone.wait(3600) == []
    if wish == "off":
        (refusal,) = Lone(config(wish)).send(invite(lines=(*SDP_LINES, ("Require", "timer"))))
        assert refusal.message.header("Unsupported") == "timer"
        _, answer = called(*KNOWS, ("Session-Expires", "400"), settings=config(wish))
        assert expires(answer) == (None, None)


@pytest.mark.rfc("4028", "6", "9")
def test_an_interval_that_is_too_small_for_us() -> None:
    """422 with our least, in a call and outside, for who knows what it means."""
    lone = Lone(config(least=200))
    brief = (*KNOWS, ("Session-Expires", "199"))
    (packet,) = lone.send(invite(lines=(*SDP_LINES, *brief)))
    assert (packet.title, packet.message.header("Min-SE"), lone.facts) == ("422 INVITE", "200", [])
    lone, _ = called(settings=config(least=200))
    (packet,) = lone.send(request("UPDATE", branch="z9hG4bKu", cseq=2, to_tag=lone.tag, lines=brief))
    assert (packet.title, packet.message.header("Min-SE")) == ("422 UPDATE", "200")


@pytest.mark.rfc("4028", "7.3")
def test_a_422_is_met_with_a_longer_interval() -> None:
    """The same call with the next CSeq, the interval that is wanted, and Min-SE; the answer's is then in force."""
    lone = Lone(config())
    first = asked(lone.wish(invite_wish()))
    sent = lone.send(reply(first, 422, lines=(("Min-SE", "2000"),)))
    assert titles(sent) == ["ACK", "INVITE"]
    second = sent[1].message
    assert (second.header("Session-Expires"), second.header("Min-SE")) == ("2000", "2000")
    assert (second.call_id, second.from_, second.cseq.number) == (first.call_id, first.from_, 2)
    assert isinstance(second, Request)
    lone.send(reply(second, 200, lines=(*SDP_LINES, *UPDATES, ("Session-Expires", "2000;refresher=uac")), body=ANSWER))
    at, refresh = next_request(lone, 1001)
    assert (at, refresh.method, refresh.header("Min-SE")) == (1000.0, "UPDATE", "2000")


@pytest.mark.rfc("4028", "7.3")
@pytest.mark.parametrize("wanted", [("600",), ("90",), ("x",), (), ("700", "800", "900", "1000")])
def test_a_422_that_cannot_be_met(wanted: tuple[str, ...]) -> None:
    """Nothing greater than was asked, or again and again: the call is refused."""
    lone = Lone(config())
    sent = asked(lone.wish(invite_wish()))
    for value in wanted:
        out = lone.send(reply(sent, 422, lines=(("Min-SE", value),)))
        if len(out) == 2:
            assert isinstance(out[1].message, Request)
            sent = out[1].message
    if not wanted:
        lone.send(reply(sent, 422))
    assert lone.facts == [CallRefused(LEG, 422, "Session Interval Too Small")]
    assert sent.cseq.number == 1 + min(len(wanted), MOST_RAISES) * (len(wanted) > 1)


# -- refreshes --------------------------------------------------------------------------------------------------------


@pytest.mark.rfc("4028", "10", "7.4")
def test_we_refresh_by_update_at_half_time() -> None:
    """Without SDP, with the roles as they are; the 2xx sets the next time, and so on."""
    lone, _ = calling(*UPDATES, ("Session-Expires", "400;refresher=uac"))
    for n in range(1, 4):
        at, refresh = next_request(lone, 200.0)
        assert (at, refresh.method, refresh.body) == (200.0 * n, "UPDATE", b"")
        assert refresh.header("Session-Expires") == "400;refresher=uac"
        assert refresh.contacts != ()
        assert "timer" in (refresh.header("Supported") or "")
        lone.send(reply(refresh, 200, lines=(("Session-Expires", "400;refresher=uac"),)))
    assert lone.facts == [CallAnswered(LEG, ANSWER)]


@pytest.mark.rfc("4028", "7.4", "10")
@pytest.mark.rfc("3264", "8")
def test_we_refresh_by_re_invite_where_the_peer_takes_no_update() -> None:
    """What is offered is what was said last, to the byte; an answer that is as it was is nobody's news."""
    lone, _ = called(*KNOWS, ("Session-Expires", "400;refresher=uas"))
    at, refresh = next_request(lone, 200.0)
    assert (at, refresh.method, refresh.body) == (200.0, "INVITE", ANSWER)
    assert refresh.header("Session-Expires") == "400;refresher=uac"
    assert titles(lone.send(reply(refresh, 200, lines=SDP_LINES, body=OFFER))) == ["ACK"]
    _, again = next_request(lone, 400.0)
    lone.send(reply(again, 200, lines=SDP_LINES, body=OTHER))
    assert lone.facts[1:] == [CallConfirmed(lone.leg, b""), RefreshAnswered(lone.leg, OTHER)]


@pytest.mark.rfc("4028", "7.2", "10")
@pytest.mark.parametrize(("interval", "ends"), [(90, 60.0), (96, 64.0), (400, 368.0), (1800, 1768.0)])
def test_a_peer_that_does_not_refresh_is_hung_up_on(interval: int, ends: float) -> None:
    """By BYE, 32 s or a third of the interval before it ends, with a reason; the session is told."""
    lone, _ = calling(("Session-Expires", f"{interval};refresher=uas"), ("Require", "timer"))
    at, bye = next_request(lone, 2000)
    assert (at, bye.method, bye.header("Reason") is not None) == (ends, "BYE", True)
    assert lone.facts[1:] == [CallLost(LEG, LOST)]


@pytest.mark.rfc("4028", "9", "10")
@pytest.mark.parametrize("method", ["UPDATE", "INVITE"])
def test_the_peer_refreshes(method: str) -> None:
    """Each refresh, by either method, sets the time anew; without the next one the call ends."""
    lone, sent = calling(("Session-Expires", "400;refresher=uas"))
    body, content = (OFFER, SDP_LINES) if method == "INVITE" else (b"", ())
    for n in range(1, 4):
        lone.wait(300.0 * n - lone.now)
        lines = (*KNOWS, *content, ("Session-Expires", "400;refresher=uac"))
        out = lone.send(of_peer(lone, sent, method, *lines, cseq=70 + n, body=body))
        if method == "INVITE":
            assert lone.facts[-1] == OfferReceived(LEG, OFFER)
            out = lone.wish(AcceptOffer(LEG, ANSWER))
            lone.send(of_peer(lone, sent, "ACK", cseq=70 + n))
        assert isinstance(out[-1].message, Response)
        assert expires(out[-1].message) == ("400;refresher=uac", "timer")
    at, bye = next_request(lone, 500)
    assert (at, bye.method) == (900.0 + 368.0, "BYE")


@pytest.mark.rfc("4028", "7.4", "9")
def test_roles_may_change_at_a_refresh() -> None:
    """The peer that refreshes asks us to, from now on; and by its answer to ours we are relieved of it."""
    lone, sent = calling(*UPDATES, ("Session-Expires", "400;refresher=uas"))
    lone.send(of_peer(lone, sent, "UPDATE", *KNOWS, ("Session-Expires", "400;refresher=uas")))
    at, refresh = next_request(lone, 200.0)
    assert (at, refresh.method, refresh.header("Session-Expires")) == (200.0, "UPDATE", "400;refresher=uac")
    lone.send(reply(refresh, 200, lines=(("Session-Expires", "300;refresher=uas"),)))
    at, bye = next_request(lone, 400.0)
    assert (at, bye.method) == (200.0 + 268.0, "BYE")


@pytest.mark.rfc("4028", "9")
def test_a_request_that_leaves_the_roles_open_changes_none() -> None:
    """A re-INVITE without Session-Expires, or without a role: who refreshes goes on refreshing."""
    for theirs, role in (("uas", "uac"), ("uac", "uas")):
        for lines in (KNOWS, (*KNOWS, ("Session-Expires", "400"))):
            lone, sent = calling(("Session-Expires", f"400;refresher={theirs}"))
            (packet,) = lone.send(of_peer(lone, sent, "UPDATE", *lines))
            assert (packet.message.header("Session-Expires") or "").endswith(f";refresher={role}")


@pytest.mark.rfc("4028", "7.2")
@pytest.mark.parametrize("wish", ["on", "accept"])
def test_an_answer_without_an_interval(wish: TimerWish) -> None:
    """No session timer: what we only accept is off. Otherwise we look after the peer by ourselves, and any answer
    of its is a sign of life.
    """
    lone, _ = calling(*UPDATES, settings=config(wish))
    if wish == "accept":
        assert lone.wait(7200) == []
        return
    for n in range(1, 4):
        at, refresh = next_request(lone, 300.0)
        assert (at, refresh.method) == (300.0 * n, "UPDATE")
        lone.send(reply(refresh, 488))
    assert [type(fact) for fact in lone.facts] == [CallAnswered]


@pytest.mark.rfc("4028", "7.2")
def test_a_session_timer_may_be_turned_off_in_mid_call() -> None:
    """A 2xx to a refresh that has no interval ends it."""
    lone, _ = calling(*UPDATES, ("Session-Expires", "400;refresher=uac"), settings=config("accept"))
    _, refresh = next_request(lone, 200.0)
    lone.send(reply(refresh, 200))
    assert lone.wait(7200) == []


# -- refreshes that fail ----------------------------------------------------------------------------------------------


@pytest.mark.rfc("4028", "10")
@pytest.mark.rfc("3261", "12.2.1.2")
@pytest.mark.parametrize("status", [408, 481])
@pytest.mark.parametrize("update", [True, False])
def test_a_refresh_that_finds_nobody_ends_the_call(status: int, *, update: bool) -> None:
    """BYE at once."""
    lone, _ = calling(*(UPDATES if update else ()), ("Session-Expires", "400;refresher=uac"))
    _, refresh = next_request(lone, 200.0)
    assert refresh.method == ("UPDATE" if update else "INVITE")
    assert titles(lone.send(reply(refresh, status)))[-1] == "BYE"
    assert [type(fact) for fact in lone.facts] == [CallAnswered, CallLost]


@pytest.mark.rfc("4028", "10")
def test_a_phone_that_has_vanished_ends_the_call() -> None:
    """The refresh is resent for 32 s; then the call is over, also if the BYE is never answered."""
    for lines in (UPDATES, ()):
        lone, _ = calling(*lines, ("Session-Expires", "400;refresher=uac"))
        sent = lone.wait(200.0 + 41.0)
        assert sent[-1][1].title in {"BYE", "CANCEL"}
        lone.wait(200.0)
        assert [type(fact) for fact in lone.facts] == [CallAnswered, CallLost]
        assert lone.side.endpoint.counters["calls"] == 0


@pytest.mark.rfc("4028", "10")
def test_a_refresh_that_is_refused_is_tried_again_until_the_session_expires() -> None:
    """After half of the time that is left, each time; at the end BYE."""
    lone, _ = calling(*UPDATES, ("Session-Expires", "400;refresher=uac"))
    times = []
    at, refresh = next_request(lone, 200.0)
    while refresh.method == "UPDATE":
        times.append(at)
        lone.send(reply(refresh, 500))
        at, refresh = next_request(lone, 200.0)
    assert (refresh.method, at) == ("BYE", 400.0)
    assert times[:4] == [200.0, 300.0, 350.0, 375.0]
    assert min(b - a for a, b in zip(times, [*times[1:], math.inf], strict=True)) >= LEAST_PAUSE
    assert lone.facts[-1] == CallLost(LEG, LOST)


@pytest.mark.rfc("4028", "10")
def test_a_refresh_waits_as_long_as_the_peer_says() -> None:
    """Retry-After, and credentials where they are asked for."""
    lone = Lone(config())
    sent = asked(lone.wish(invite_wish(credentials=Credentials("bob", "secret"))))
    lone.send(reply(sent, 200, lines=(*SDP_LINES, *UPDATES, ("Session-Expires", "400;refresher=uac")), body=ANSWER))
    _, refresh = next_request(lone, 200.0)
    lone.send(reply(refresh, 503, lines=(("Retry-After", "30"),)))
    at, refresh = next_request(lone, 100.0)
    assert at == 230.0
    challenge = (("WWW-Authenticate", 'Digest realm="r", nonce="n", algorithm=MD5'),)
    again = asked(lone.send(reply(refresh, 401, lines=challenge)))
    assert (again.header("Session-Expires"), again.header("Authorization") is None) == ("400;refresher=uac", False)
    lone.send(reply(again, 200, lines=(("Session-Expires", "400;refresher=uac"),)))
    assert next_request(lone, 300.0)[0] == 430.0


@pytest.mark.rfc("4028", "7.3", "7.4")
@pytest.mark.parametrize("update", [True, False])
def test_a_refresh_may_be_too_brief(*, update: bool) -> None:
    """422 to an UPDATE, or to a re-INVITE: the interval grows, at once."""
    lone, _ = calling(*(UPDATES if update else ()), ("Session-Expires", "400;refresher=uac"))
    _, refresh = next_request(lone, 200.0)
    out = lone.send(reply(refresh, 422, lines=(("Min-SE", "500"),)))
    again = out[-1].message
    assert isinstance(again, Request)
    assert (again.method, again.header("Session-Expires")) == (refresh.method, "500;refresher=uac")
    lone.send(
        reply(
            again,
            200,
            lines=(*(() if update else SDP_LINES), ("Session-Expires", "500;refresher=uac")),
            body=b"" if update else ANSWER,
        )
    )
    assert next_request(lone, 260.0)[0] == 450.0
    assert [type(fact) for fact in lone.facts] == [CallAnswered]


@pytest.mark.rfc("4028", "10")
@pytest.mark.rfc("3261", "14.1")
def test_a_refresh_meets_an_offer() -> None:
    """Ours waits while one of the peer's is under way, whose 200 refreshes the session as well; 491 is soon retried."""
    lone, sent = calling(("Session-Expires", "400;refresher=uac"))
    lone.wait(199.0)
    lone.send(of_peer(lone, sent, "INVITE", *SDP_LINES, *KNOWS, body=OTHER))
    assert lone.wait(2.0) == []
    lone.wish(AcceptOffer(LEG, OFFER))
    lone.send(of_peer(lone, sent, "ACK"))
    at, refresh = next_request(lone, 200.0)
    assert (at, refresh.method, refresh.body) == (401.0, "INVITE", OFFER)
    assert titles(lone.send(reply(refresh, 491))) == ["ACK"]
    at, again = next_request(lone, 10.0)
    assert 403.1 <= at <= 405.0
    assert again.method == "INVITE"


@pytest.mark.rfc("4028", "10")
def test_offers_during_a_refresh_are_refused_for_the_moment() -> None:
    """491 to the peer's and to our own."""
    lone, sent = calling(("Session-Expires", "400;refresher=uac"))
    _, refresh = next_request(lone, 200.0)
    out = lone.send(of_peer(lone, sent, "INVITE", *SDP_LINES, body=OTHER))
    assert titles(out) == ["100 INVITE", "491 INVITE"]
    lone.wish(SendOffer(LEG, OTHER))
    assert lone.facts[1:] == [OfferRefused(LEG, 491)]
    lone.send(reply(refresh, 200, lines=SDP_LINES, body=ANSWER))
    assert titles(lone.wish(SendOffer(LEG, OTHER))) == ["INVITE"]


@pytest.mark.rfc("4028", "7.4")
def test_an_offer_of_ours_refreshes_too() -> None:
    """It carries the interval, its 200 sets the time, a 422 makes it longer, and what it agreed is offered later."""
    lone, _ = calling(("Session-Expires", "400;refresher=uac"))
    lone.wait(100.0)
    offer = asked(lone.wish(SendOffer(LEG, OTHER)))
    assert offer.header("Session-Expires") == "400;refresher=uac"
    again = lone.send(reply(offer, 422, lines=(("Min-SE", "500"),)))[-1].message
    assert isinstance(again, Request)
    assert (again.body, again.header("Session-Expires")) == (OTHER, "500;refresher=uac")
    lone.send(reply(again, 200, lines=(*SDP_LINES, ("Session-Expires", "500;refresher=uac")), body=ANSWER))
    assert lone.facts[1:] == [OfferAnswered(LEG, ANSWER)]
    at, refresh = next_request(lone, 300.0)
    assert (at, refresh.body) == (350.0, OTHER)


@pytest.mark.rfc("3311", "5.1", "5.3")
@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, OfferAnswered(LEG, OTHER)), (488, OfferRefused(LEG, 488)), (504, OfferRefused(LEG, 504))],
)
def test_an_offer_by_update(status: int, outcome: object) -> None:
    """As the session wishes, if the peer takes UPDATE; no ACK, and nothing to cancel."""
    lone, _ = calling(*UPDATES)
    update = asked(lone.wish(SendOffer(LEG, OFFER, update=True)))
    assert (update.method, update.body) == ("UPDATE", OFFER)
    assert lone.send(reply(update, status, lines=SDP_LINES, body=OTHER if status == 200 else b"")) == []
    assert lone.facts[1:] == [outcome]


@pytest.mark.rfc("3311", "5.1")
def test_no_update_to_who_does_not_take_it() -> None:
    """405 without a word on the wire."""
    lone, _ = calling()
    assert lone.wish(SendOffer(LEG, OFFER, update=True)) == []
    assert lone.facts[1:] == [OfferRefused(LEG, 405)]


@pytest.mark.rfc("3311", "5.1", "5.2")
def test_either_side_may_change_the_session_before_the_answer() -> None:
    """UPDATE in the early dialog, both ways, once the reliable 183 is acknowledged; not before."""
    pair = Pair()
    pair.wish(pair.alice, invite_wish())
    pair.settle()
    leg = pair.bob.facts[0].leg
    pair.wish(pair.alice, SendOffer(LEG, OTHER))
    assert pair.alice.facts == [OfferRefused(LEG, 491)]
    pair.wish(pair.bob, Ring(leg, 183, ANSWER))
    pair.wish(pair.bob, SendOffer(leg, OTHER))
    assert pair.bob.facts[1:] == [OfferRefused(leg, 491)]
    pair.settle()
    pair.seen.clear()
    pair.wish(pair.bob, SendOffer(leg, OTHER))
    pair.settle()
    assert pair.alice.facts[-1] == OfferReceived(LEG, OTHER)
    pair.wish(pair.alice, AcceptOffer(LEG, OFFER))
    pair.settle()
    assert pair.bob.facts[-1] == OfferAnswered(leg, OFFER)
    pair.wish(pair.alice, SendOffer(LEG, ANSWER))
    pair.settle()
    pair.wish(pair.bob, AcceptOffer(leg, OTHER))
    pair.wish(pair.bob, Answer(leg, ANSWER))
    pair.settle()
    assert pair.seen == ["< UPDATE", "> 200 UPDATE", "> UPDATE", "< 200 UPDATE", "< 200 INVITE", "> ACK"]
    assert pair.alice.facts[-2:] == [OfferAnswered(LEG, OTHER), CallAnswered(LEG, b"", early=True)]


# -- what is agreed ---------------------------------------------------------------------------------------------------

SETTINGS = st.builds(
    Extensions,
    session_timers=st.sampled_from(["on", "accept"]),
    session_expires=st.integers(90, 4000),
    min_se=st.integers(90, 400),
)


@pytest.mark.rfc("4028", "7.1", "7.2", "7.3", "9")
@given(SETTINGS, SETTINGS, st.lists(st.booleans(), max_size=5))
def test_both_sides_agree(ours: Extensions, theirs: Extensions, asking: list[bool]) -> None:
    """Whoever asks, first and later: the interval is the same for both, above both leasts, and one of them acts."""
    sides = SessionInterval(ours), SessionInterval(theirs)
    for swapped in (False, *asking):
        asker, answerer = sides[::-1] if swapped else sides
        for _ in range(2):
            asked = request(lines=(*KNOWS, *asker.asked()))
            said = session_expires_of(asked)
            if said is None or said.seconds >= answerer.extensions.min_se:
                break
            refusal = reply(asked, 422, lines=(("Min-SE", str(answerer.extensions.min_se)),))
            assert asker.raised(refusal)
        asker.answered(reply(asked, 200, lines=answerer.answer(asked)))
        roles = {asker.refresher, answerer.refresher}
        if Refresher.NOBODY in roles:  # who only accepts is not asked by who only accepts
            assert roles <= {Refresher.NOBODY, Refresher.OURS}
            continue
        assert roles == {Refresher.OURS, Refresher.THEIRS}
        assert asker.seconds == answerer.seconds >= max(90, asker.least)
        assert max(asker.ends, answerer.ends) == asker.seconds


@pytest.mark.parametrize("loss", [0, 1, 2])
def test_an_hour_of_refreshes_between_two(loss: int) -> None:
    """One side refreshes, the other watches; losses of some datagrams harm nothing; after the end nothing is left."""
    pair = Pair(config=config(expires=120))
    pair.wish(pair.alice, invite_wish())
    pair.settle()
    leg = pair.bob.facts[0].leg
    pair.wish(pair.bob, Answer(leg, ANSWER))
    pair.settle()
    pair.seen.clear()
    for _ in range(60):
        pair.advance(60.0, settle=False)
        for _ in range(loss):
            pair.drop()
            pair.advance(0.5, settle=False)
        pair.advance(5.0)
    kinds = {line for line in pair.seen if "UPDATE" in line}
    assert len(kinds) == 2
    assert [type(fact) for fact in pair.alice.facts] == [CallAnswered]
    pair.wish(pair.alice, HangUp(LEG))
    pair.settle()
    pair.advance(100.0)
    assert [side.endpoint.counters["calls"] for side in (pair.alice, pair.bob)] == [0, 0]


def test_a_call_whose_byes_are_all_lost_ends_on_the_other_side_too() -> None:
    """Alice has gone without a word: Bob finds out at his next refresh, or when hers does not come."""
    for dead in ("alice", "bob"):
        pair = Pair(config=config(expires=300))
        pair.wish(pair.alice, invite_wish())
        pair.settle()
        pair.wish(pair.bob, Answer(pair.bob.facts[0].leg, ANSWER))
        pair.settle()
        alive = pair.bob if dead == "alice" else pair.alice
        for _ in range(3000):
            pair.advance(0.2, settle=False)
            pair.drop()
        assert isinstance(alive.facts[-1], CallLost)
