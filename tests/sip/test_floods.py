"""Floods, loops and strange requests: what an endpoint keeps of them is counted in objects, and it is bounded."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from rustpbx.core import Address
from rustpbx.sip.admission import Admission, AdmissionRules, Refused
from rustpbx.sip.auth_server import Realm, User, secret
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import Answer, ByeReceived, HangUp, IncomingCall, Refuse, SendOffer
from rustpbx.sip.message import Message, Request, Response, Via
from rustpbx.sip.uri import parse_uri
from tests.kit.peers_sip import (
    ALICE,
    ANSWER,
    BOB,
    OFFER,
    Lone,
    Packet,
    invite,
    invite_wish,
    reply,
    request,
    titles,
)

KEY = bytes(range(32))
REALM = Realm(name="rustpbx", users={"alice": User({"SHA-256": secret("SHA-256", "alice", "rustpbx", "wonder")})})
ATTACKER: Address = ("198.51.100.7", 5060)


def spoofed(number: int) -> Address:
    """One of very many sources."""
    return str(ipaddress.IPv4Address(0x0B000000 + number)), 5060


def talking(config: EndpointConfig | None = None) -> Lone:
    """Bob in an answered call with Alice."""
    lone = Lone(config)
    lone.send(invite(call_id="honest"))
    lone.wish(Answer(lone.leg, ANSWER))
    lone.send(request("ACK", call_id="honest", to_tag=lone.tag))
    return lone


def sent_by(lone: Lone, source: Address, message: Message | str) -> list[Packet]:
    """What the endpoint sends when this comes from there."""
    peer, lone.peer = lone.peer, source
    try:
        return lone.send(message)
    finally:
        lone.peer = peer


def still_talking(lone: Lone) -> bool:
    """Both sides of the honest call can still ask for something, and it ends as it should."""
    offers = titles(lone.wish(SendOffer(lone.leg, OFFER)))
    lone.send(request("OPTIONS", call_id="honest", to_tag=lone.tag, cseq=2, branch="z9hG4bKo"))
    bye = titles(lone.send(request("BYE", call_id="honest", to_tag=lone.tag, cseq=3, branch="z9hG4bKb")))
    return offers == ["INVITE"] and bye[0] == "200 BYE" and lone.facts[-1] == ByeReceived(lone.leg)


def held(lone: Lone) -> dict[str, int]:
    """How many objects there are."""
    endpoint = lone.side.endpoint
    layer, directory = endpoint._layer, endpoint._directory
    return {
        "servers": len(layer._servers),
        "clients": len(layer._clients),
        "merged": len(layer._merged),
        "calls": len(directory.calls),
        "dialogs": len(directory.dialogs),
        "invites": len(directory.invites),
    }


def flood_request(number: int, method: str) -> Request:
    """One of a flood, no two the same."""
    make = invite if method == "INVITE" else request
    extra: dict[str, Any] = {} if method == "INVITE" else {"method": method}
    return make(call_id=f"flood-{number}", branch=f"z9hG4bKf{number}", from_tag=f"f{number}", **extra)


# -- bounded ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["REGISTER", "OPTIONS", "SUBSCRIBE", "MESSAGE", "BYE", "CANCEL", "DANCE"])
def test_what_begins_nothing_leaves_nothing(method: str) -> None:
    """Thousands of requests from as many sources are answered, and not one object is kept of them."""
    lone = talking()
    before = held(lone)
    answers = {title for n in range(2000) for title in titles(sent_by(lone, spoofed(n), flood_request(n, method)))}
    status = {"OPTIONS": 200, "BYE": 481, "CANCEL": 481, "DANCE": 501}.get(method, 405)
    assert answers == {f"{status} {method}"}
    assert held(lone) == before
    assert still_talking(lone)


@pytest.mark.rfc("3261", "8.2.7")
def test_an_answer_that_nothing_is_kept_of_is_the_same_again() -> None:
    """A REGISTER sent twice gets one answer twice, the tag included, and the methods that we know."""
    lone = Lone()
    first, again = lone.send(request("REGISTER")), lone.send(request("REGISTER"))
    assert first == again
    assert first[0].message.header("Allow") is not None


def test_calls_from_everywhere_are_bounded() -> None:
    """INVITEs of very many sources get 503 above `max_calls`, without a trace in memory; who talks, talks on."""
    lone = talking(EndpointConfig(port=5060, max_calls=50, max_transactions=100))
    answers = [titles(sent_by(lone, spoofed(n), flood_request(n, "INVITE"))) for n in range(2000)]
    assert answers == [["100 INVITE"]] * 49 + [["503 INVITE"]] * 1951
    assert held(lone) == {"servers": 50, "clients": 0, "merged": 50, "calls": 50, "dialogs": 50, "invites": 50}
    assert lone.side.endpoint.counters["overloaded"] == 1951
    assert still_talking(lone)


def test_calls_that_nobody_acknowledges_are_bounded() -> None:
    """Refused, and never ACKed: at most `max_transactions` wait for the ACK, and none after 64*T1."""
    lone = talking(EndpointConfig(port=5060, max_calls=50, max_transactions=100))
    for n in range(500):
        sent_by(lone, spoofed(n), flood_request(n, "INVITE"))
        newest = lone.facts[-1]
        if isinstance(newest, IncomingCall):
            lone.wish(Refuse(newest.leg, 486))
        assert held(lone)["servers"] <= 101
    assert lone.side.endpoint.counters["overloaded"] >= 300
    lone.wait(40)
    assert held(lone) == {"servers": 0, "clients": 0, "merged": 0, "calls": 1, "dialogs": 1, "invites": 1}
    assert still_talking(lone)


def test_answered_calls_that_nobody_acknowledges_end() -> None:
    """A 200 without an ACK ends by BYE after 64*T1, for all of a flood, and nothing of it is left."""
    lone = Lone(EndpointConfig(port=5060, max_calls=50))
    for n in range(200):
        sent_by(lone, spoofed(n), flood_request(n, "INVITE"))
        newest = lone.facts[-1]
        if isinstance(newest, IncomingCall):
            lone.wish(Answer(newest.leg, ANSWER))
    lone.wait(100)
    assert set(held(lone).values()) == {0}


def test_one_source_is_served_at_its_rate() -> None:
    """A flood from one address is dropped above its rate, without an answer; others are served as before."""
    rules = AdmissionRules(requests=10.0, invites=2.0, burst=2.0)
    lone = talking(EndpointConfig(port=5060, admission=rules))
    before = held(lone)
    answers = [title for n in range(1000) for title in titles(sent_by(lone, ATTACKER, flood_request(n, "REGISTER")))]
    assert answers == ["405 REGISTER"] * 20
    assert held(lone) == before
    assert lone.side.endpoint.counters["refused_rate"] == 980
    assert titles(sent_by(lone, spoofed(1), invite(call_id="other", branch="z9hG4bKother"))) == ["100 INVITE"]
    assert still_talking(lone)


def test_what_cannot_be_read_has_a_rate_too() -> None:
    """400 as often as a source may ask, then nothing; a silenced source gets none at all."""
    lone = Lone(EndpointConfig(port=5060, admission=AdmissionRules(requests=10.0, burst=1.0)), peer=ATTACKER)
    garbage = "INVITE sip:a@b SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKx\nCSeq: bad\n\n"
    assert [len(lone.send(garbage)) for _ in range(15)] == [1] * 10 + [0] * 5
    counters = lone.side.endpoint.counters
    assert (counters["malformed"], counters["refused_rate"]) == (15, 5)


def test_a_hundred_thousand_sources_cost_a_fixed_number_of_entries() -> None:
    """Each is challenged; remembered are `sources`, and no nonce of theirs."""
    admission = Admission(AdmissionRules(realm=REALM, sources=1000), KEY)
    message = invite()
    for n in range(100_000):
        verdict = admission.judge(message, spoofed(n)[0], 0, n / 10_000)
        assert isinstance(verdict, Refused)
    assert admission.counters == {"refused_no_credentials": 100_000}
    assert (admission.sources, admission.failing, len(admission._refusals)) == (1000, 0, 1000)


def test_responses_that_nobody_asked_for_are_counted() -> None:
    """Success, challenge, redirection, for branches that are not ours: no effect at all."""
    lone = talking()
    before = held(lone)
    for n, status in enumerate((100, 180, 200, 302, 401, 503) * 100):
        stray: Response = reply(flood_request(n, "INVITE"), status, body=ANSWER)
        assert sent_by(lone, ATTACKER, stray) == []
    assert lone.side.endpoint.counters["strays"] == 600
    assert held(lone) == before
    assert still_talking(lone)


# -- who says that he is in a call -----------------------------------------------------------------------------------


@pytest.mark.rfc("3261", "12.2.2")
@pytest.mark.parametrize("method", ["BYE", "INFO", "UPDATE", "INVITE", "CANCEL"])
@pytest.mark.parametrize("wrong", ["call_id", "from_tag", "to_tag"])
def test_a_call_is_reached_by_its_whole_name_only(method: str, wrong: str) -> None:
    """With one part of it guessed wrong a request is nobody's: judged as a stranger's, and the call goes on."""
    lone = talking()
    name: dict[str, Any] = {"call_id": "honest", "from_tag": "alice-tag", "to_tag": lone.tag, wrong: "guessed"}
    facts = len(lone.facts)
    sent = sent_by(lone, ATTACKER, request(method, cseq=9, branch="z9hG4bKspoof", **name))
    assert titles(sent) == [f"481 {method}"]
    assert len(lone.facts) == facts
    assert still_talking(lone)


def test_in_calls_nobody_is_challenged_or_counted() -> None:
    """Who was let in asks what he likes in his call, from whatever address, though strangers there are silenced."""
    trusted = (ipaddress.ip_network(f"{ALICE[0]}/32"),)
    rules = AdmissionRules(realm=REALM, trusted=trusted, requests=1.0, burst=1.0, unknown="drop")
    lone = talking(EndpointConfig(port=5060, admission=rules, nonce_key=KEY))
    for n in range(50):
        ask = request("OPTIONS", call_id="honest", to_tag=lone.tag, cseq=2 + n, branch=f"z9hG4bKo{n}")
        assert titles(sent_by(lone, ATTACKER, ask)) == ["200 OPTIONS"]
    assert sent_by(lone, ATTACKER, request("OPTIONS", call_id="x", branch="z9hG4bKx")) == []
    bye = request("BYE", call_id="honest", to_tag=lone.tag, cseq=99, branch="z9hG4bKbye")
    assert titles(sent_by(lone, ATTACKER, bye)) == ["200 BYE"]


# -- loops -----------------------------------------------------------------------------------------------------------


def returned(number: int = 1) -> tuple[Lone, Request]:
    """An INVITE of ours, and the endpoint that placed it, to which it comes back over so many proxies."""
    lone = Lone()
    (packet,) = lone.wish(invite_wish())
    ours = packet.message
    assert isinstance(ours, Request)
    proxies = tuple(Via("UDP", f"203.0.113.{n}") for n in range(1, number + 1))
    stamped = tuple(attrs.evolve(via, params=via.params.set("branch", f"z9hG4bKp{n}")) for n, via in enumerate(proxies))
    return lone, attrs.evolve(ours, vias=(*stamped, *ours.vias))


@pytest.mark.rfc("3261", "8.2.2.2")
@pytest.mark.parametrize("proxies", [0, 1, 60])
def test_a_request_of_ours_that_comes_back_is_a_loop(proxies: int) -> None:
    """482, nothing kept, nobody told; the call itself hears of it as of any refusal."""
    lone, looped = returned(proxies)
    assert titles(sent_by(lone, ATTACKER, looped)) == ["482 INVITE"]
    assert (lone.facts, lone.side.endpoint.counters["looped"], held(lone)["servers"]) == ([], 1, 0)
    lone.wish(HangUp("call-1"))


@pytest.mark.rfc("3261", "16.3")
def test_a_call_to_ourselves_through_a_proxy_is_none() -> None:
    """The proxy has put another of our addresses into the Request-URI: a spiral, and a call like any other."""
    lone, looped = returned()
    spiral = attrs.evolve(looped, uri=parse_uri(f"sip:other@{BOB[0]}"))
    assert titles(sent_by(lone, ATTACKER, spiral)) == ["100 INVITE"]


def test_a_forged_tower_of_vias_is_too_much() -> None:
    """More than 70 Via values are 513, whatever they say."""
    _, looped = returned(80)
    assert titles(Lone(peer=ATTACKER).send(looped)) == ["513 INVITE"]


# -- strange, and right ----------------------------------------------------------------------------------------------

COMPACT = """INVITE sip:bob@192.0.2.2 SIP/2.0
v: SIP/2.0/UDP 192.0.2.1:5060
  ;branch=z9hG4bKcompact
f:
\t<sip:alice@192.0.2.1>
 ;tag=a
t: <sip:bob@192.0.2.2>
i: compact
CSeq: 1
  INVITE
m: <sip:alice@192.0.2.1>
k: timer
c: application/sdp
l: 5

v=0
"""


@pytest.mark.rfc("3261", "7.3.1")
@pytest.mark.rfc("3261", "7.3.3")
def test_compact_forms_and_folded_lines_are_read() -> None:
    """The shortest names there are, and lines folded where they may be."""
    lone = Lone()
    assert titles(lone.send(COMPACT)) == ["100 INVITE"]
    (call,) = lone.facts
    assert isinstance(call, IncomingCall)
    assert (str(call.caller.uri), call.offer) == ("sip:alice@192.0.2.1", b"v=0\r\n")


@pytest.mark.parametrize(
    ("spoil", "title"),
    [
        (lambda text: text.replace("l: 5", "l: 6"), "400 INVITE"),
        (lambda text: text.replace("l: 5", "l: -1"), "400 INVITE"),
        (lambda text: text.replace("l: 5", "l: 99999999999999999999"), "400 INVITE"),
        (lambda text: text.replace("l: 5", "l: 5\nContent-Length: 5"), "400 INVITE"),
        (lambda text: text.replace("k: timer", "k: " + "x" * 60_000), "513 INVITE"),
        (lambda text: text.replace("k: timer", "Require: levitation, flight"), "420 INVITE"),
        (lambda text: text.replace("c: application/sdp", "c: multipart/mixed"), "415 INVITE"),
        (lambda text: text.replace("c: application/sdp", "Proxy-Require: x"), "415 INVITE"),
    ],
)
def test_what_is_wrong_has_its_own_answer(spoil: Callable[[str], str], title: str) -> None:
    """Lengths that lie, headers of 60 kB, extensions that must be understood, bodies that cannot be."""
    assert titles(Lone().send(spoil(COMPACT))) == [title]


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_is_bounded(seed: int) -> None:
    """Whatever comes in whatever order from wherever: the honest call ends well, and after that nothing is left."""
    rng = random.Random(seed)
    lone = talking(EndpointConfig(port=5060, max_calls=20, max_transactions=40, admission=AdmissionRules(sources=50)))
    for n in range(300):
        method = rng.choice(["INVITE", "REGISTER", "OPTIONS", "BYE", "CANCEL", "ACK", "SUBSCRIBE", "INFO"])
        asked = flood_request(rng.randrange(n + 1), method)
        message: Message = reply(asked, rng.choice([180, 200, 486])) if rng.random() < 0.2 else asked
        sent_by(lone, spoofed(rng.randrange(100)), message)
        lone.wait(rng.random() / 10)
        assert held(lone)["servers"] <= 81
    assert lone.side.endpoint.counters["sources"] <= 50
    assert lone.side.endpoint.counters["bugs"] == 0
    for fact in list(lone.facts):
        if isinstance(fact, IncomingCall) and fact.leg != lone.leg:
            lone.wish(HangUp(fact.leg))
    assert still_talking(lone)
    lone.wait(200)
    assert set(held(lone).values()) == {0}
