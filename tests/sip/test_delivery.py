"""One request, several servers: who is asked next and when, what a late server may still do, what the owner is told."""

from __future__ import annotations

import random

import attrs
import pytest

from rustpbx.core import Tick
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.endpoint import Endpoint, EndpointConfig
from rustpbx.sip.events import (
    ByeReceived,
    CallAnswered,
    CallProgress,
    CallRefused,
    Credentials,
    Emit,
    Fact,
    HangUp,
    Input,
    Locate,
    Located,
    Received,
    Send,
    SendOffer,
    Undeliverable,
)
from rustpbx.sip.hop import Hop
from rustpbx.sip.message import Lines, Request, Response
from rustpbx.sip.outages import MOST, Outages, retry_after
from rustpbx.sip.parser import parse_message
from rustpbx.sip.uri import parse_uri
from tests.kit.peers_sip import ALICE, ANSWER, LEG, OFFER, invite_wish, reply, request, udp

ONE, TWO, THREE = (udp((f"203.0.113.{n}", 5060)) for n in (1, 2, 3))
CALLEE = "sip:bob@bob.test"
CREDENTIALS = Credentials("bot", "secret", "pbx.test")
CHALLENGE: Lines = (("WWW-Authenticate", 'Digest realm="pbx.test", nonce="n1", qop="auth", algorithm=MD5'),)
AFTER: Lines = (("Retry-After", "120;duration=60 (busy)"),)


@attrs.frozen
class Sent:
    """A message of ours, the server it went to and when."""

    at: float
    hop: Hop
    message: Request | Response

    def __str__(self) -> str:
        return f"{self.at:g} {self.message.cseq.method} .{self.hop.address[0][-1]}"


class Caller:
    """An endpoint that calls `bob.test`, whose servers the test knows."""

    def __init__(
        self,
        *,
        credentials: Credentials | None = None,
        hops: tuple[Hop, ...] = (ONE, TWO),
        problem: str = "",
        answers_dns: bool = True,
    ) -> None:
        self.now = 0.0
        self.hops = hops
        self.problem = problem
        self.answers_dns = answers_dns
        self.facts: list[Fact] = []
        self.asked: list[str] = []
        self.sent: list[Sent] = []
        self.endpoint = Endpoint(EndpointConfig(port=5060), random.Random(1))
        self.give(attrs.evolve(invite_wish(credentials=credentials), callee=parse_uri(CALLEE)))

    @property
    def last(self) -> Request:
        """The newest request."""
        return next(s.message for s in reversed(self.sent) if isinstance(s.message, Request))

    @property
    def story(self) -> list[str]:
        """What was sent since the last time: when, the method, the server's last digit."""
        sent, self.sent = self.sent, []
        return [str(one) for one in sent]

    def request(self, server: Hop, method: str = "INVITE") -> Request:
        """The newest request of that method to a server."""
        found = [s.message for s in self.sent if s.hop == server and s.message.cseq.method == method]
        assert isinstance(found[-1], Request)
        return found[-1]

    def give(self, what: Input | Tick) -> None:
        """Let the endpoint take something, and answer for DNS at once."""
        for effect in self.endpoint.handle(what, self.now):
            match effect:
                case Emit(fact=fact):
                    self.facts.append(fact)
                case Send(data=data, destination=hop):
                    self.sent.append(Sent(self.now, hop, parse_message(data)))
                case Locate(key=key, target=target):
                    self.asked.append(str(target))
                    if self.answers_dns:
                        self.give(Located(key, self.hops, self.problem))

    def hear(self, server: Hop, response: Response) -> None:
        """A server answers."""
        self.give(Received(encode_message(response), server, ALICE[0]))

    def fails(self, server: Hop) -> None:
        """The transport has no way to a server."""
        self.give(Undeliverable(self.request(server).via.branch or "", "connection refused"))

    def until(self, at: float) -> None:
        """Let time pass."""
        while self.endpoint.deadline().at <= at:
            self.now = max(self.now, self.endpoint.deadline().at)
            self.give(Tick())
        self.now = at


@pytest.mark.rfc("3263", "4.3")
def test_a_silent_server_costs_four_seconds() -> None:
    """Then the next one is asked, with a new branch and all else the same; the last has all of 64*T1."""
    caller = Caller()
    first = caller.last
    caller.until(4)
    second = caller.last
    assert caller.story == ["0 INVITE .1", "0.5 INVITE .1", "1.5 INVITE .1", "3.5 INVITE .1", "4 INVITE .2"]
    assert second.via.branch != first.via.branch
    assert attrs.evolve(second, vias=first.vias) == first
    caller.until(36)
    assert caller.facts == [CallRefused(LEG, 408, "Request Timeout")]
    assert caller.story[-1] == "35.5 INVITE .2"
    assert (caller.now, caller.endpoint.counters["failovers"]) == (36, 1)


@pytest.mark.rfc("3263", "4.3")
@pytest.mark.parametrize("how", ["503", "unreachable"])
def test_a_server_that_fails_is_left_at_once(how: str) -> None:
    """503 is acknowledged, a refused connection needs no answer; nobody is told of either."""
    caller = Caller(hops=(ONE, TWO, THREE))
    for server in (ONE, TWO):
        if how == "503":
            caller.hear(server, reply(caller.request(server), 503))
        else:
            caller.fails(server)
    invites = ["0 INVITE .1", "0 INVITE .2", "0 INVITE .3"]
    with_acks = ["0 INVITE .1", "0 ACK .1", "0 INVITE .2", "0 ACK .2", "0 INVITE .3"]
    assert (caller.story, caller.facts) == (with_acks if how == "503" else invites, [])


@pytest.mark.rfc("3261", "8.1.3.1")
def test_the_last_servers_failure_is_the_calls() -> None:
    """Its own words, whichever the others were."""
    caller = Caller()
    caller.fails(ONE)
    caller.hear(TWO, reply(caller.request(TWO), 503))
    assert caller.facts == [CallRefused(LEG, 503, "Service Unavailable")]


@pytest.mark.parametrize(
    ("status", "fact"),
    [(486, CallRefused(LEG, 486, "Busy Here")), (500, CallRefused(LEG, 500, "Server Internal Error"))],
)
def test_a_refusal_is_an_answer(status: int, fact: Fact) -> None:
    """Only 503 speaks of the server; any other refusal is the callee's."""
    caller = Caller()
    caller.hear(ONE, reply(caller.last, status))
    assert (caller.facts, [line for line in caller.story if ".2" in line]) == ([fact], [])


@pytest.mark.rfc("3261", "8.1.3.1")
def test_a_server_that_said_trying_may_take_its_time() -> None:
    """100: no other server is asked while it works; its 503 still sends us on."""
    caller = Caller()
    caller.hear(ONE, reply(caller.last, 100, tag=None))
    caller.until(30)
    assert caller.story == ["0 INVITE .1"]


RANG = CallProgress(LEG, 180, "Ringing", b"")


@pytest.mark.parametrize(
    ("status", "facts", "then"),
    [(100, [], "0 INVITE .2"), (180, [RANG, CallRefused(LEG, 503, "Service Unavailable")], "0 ACK .1")],
)
def test_a_503_behind_a_trying_goes_on_and_behind_a_ringing_does_not(status: int, facts: list[Fact], then: str) -> None:
    """What rings is the callee's own phone: to ring another would be a second call."""
    caller = Caller()
    invite = caller.last
    caller.hear(ONE, reply(invite, status, tag=None if status == 100 else "bob-tag"))
    caller.hear(ONE, reply(invite, 503))
    assert (caller.facts, caller.story[-1]) == (facts, then)


@pytest.mark.rfc("3261", "9.1")
def test_cancel_goes_to_the_very_server_of_its_invite() -> None:
    """9.1: the same branch, the same hop, not one that DNS would name now."""
    caller = Caller()
    caller.until(4)
    invite = caller.last
    caller.hear(TWO, reply(invite, 180))
    caller.hops = (ONE,)
    caller.give(HangUp(LEG))
    assert caller.story[-1] == "4 CANCEL .2"
    caller.hear(TWO, reply(invite, 487))
    assert caller.story == ["4 ACK .2"]


@pytest.mark.rfc("3261", "9.1")
def test_a_cancel_waits_for_the_server_that_is_asked_now() -> None:
    """One said 100 and then 503; the next has said nothing yet, so that there is nothing to cancel (9.1)."""
    caller = Caller()
    caller.hear(ONE, reply(caller.last, 100, tag=None))
    caller.hear(ONE, reply(caller.last, 503))
    caller.give(HangUp(LEG))
    assert caller.story == ["0 INVITE .1", "0 ACK .1", "0 INVITE .2"]
    caller.until(0.5)
    invite = caller.last
    caller.hear(TWO, reply(invite, 100, tag=None))
    caller.hear(TWO, reply(invite, 180))
    caller.hear(TWO, reply(invite, 487))
    assert caller.story == ["0.5 INVITE .2", "0.5 CANCEL .2", "0.5 ACK .2"]


def test_who_hangs_up_asks_no_further_server() -> None:
    """The server that is asked may still answer; it is not replaced by the next one."""
    caller = Caller()
    caller.give(HangUp(LEG))
    caller.until(31)
    assert {line.rpartition(" ")[2] for line in caller.story} == {".1"}
    caller.until(200)
    assert caller.endpoint.counters["calls"] == 0


def test_who_hangs_up_before_dns_has_answered_sends_nothing() -> None:
    """Nobody has got an INVITE, so nobody gets one later."""
    caller = Caller(answers_dns=False)
    assert (caller.asked, caller.endpoint.unanswered) == ([CALLEE], 1)
    caller.give(HangUp(LEG))
    caller.until(100)
    assert (caller.story, caller.facts, caller.endpoint.counters["calls"]) == ([], [], 0)


def test_dns_that_does_not_answer_is_given_up() -> None:
    """The shell has its own limits; this one holds whatever happens to it."""
    caller = Caller(answers_dns=False)
    caller.until(15)
    assert (caller.facts, caller.story) == ([CallRefused(LEG, 503, "no answer from DNS")], [])


def late_answer(status: int) -> Caller:
    """The first server wakes up while the second one is asked."""
    caller = Caller()
    first = caller.last
    caller.until(5)
    caller.sent = [one for one in caller.sent if one.hop == TWO]
    caller.hear(ONE, reply(first, status, body=ANSWER if status == 200 else b""))
    return caller


def test_a_late_ringing_is_cancelled_once() -> None:
    """The callee must not ring twice: the second server has the call now."""
    caller = late_answer(180)
    assert caller.story[-1] == "5 CANCEL .1"
    assert caller.facts == []


def test_a_late_answer_is_the_answer() -> None:
    """The call is up with the first server; what the second one begins is cancelled, and its answer hung up."""
    caller = late_answer(200)
    second = caller.request(TWO)
    assert caller.facts == [CallAnswered(LEG, ANSWER)]
    assert caller.story[-1].startswith("5 ACK")
    caller.hear(TWO, reply(second, 180, tag="other"))
    assert caller.story == ["5 CANCEL .2"]
    caller.hear(TWO, reply(second, 200, tag="other", contact="sip:bob@203.0.113.2:5060"))
    assert caller.story == ["5 ACK .2", "5 BYE .2"]
    assert len(caller.facts) == 1


def test_a_late_answer_to_a_call_that_failed_is_hung_up() -> None:
    """The second server was busy; then the first one's phone is picked up, and must not wait for nobody."""
    caller = Caller()
    first = caller.last
    caller.until(4)
    caller.hear(TWO, reply(caller.request(TWO), 486))
    assert caller.facts == [CallRefused(LEG, 486, "Busy Here")]
    caller.sent.clear()
    caller.hear(ONE, reply(first, 200, contact="sip:bob@203.0.113.1:5060"))
    assert caller.story == ["4 ACK .1", "4 BYE .1"]


def test_a_late_refusal_changes_nothing() -> None:
    """It is acknowledged; the second server is still asked."""
    caller = late_answer(486)
    second = caller.request(TWO)
    assert (caller.story[-1], caller.facts) == ("5 ACK .1", [])
    caller.hear(TWO, reply(second, 200, body=ANSWER))
    assert caller.facts == [CallAnswered(LEG, ANSWER)]


def test_credentials_answer_whichever_server_challenges() -> None:
    """The retry is one request with several attempts: refused once by any of them, it is refused."""
    caller = Caller(credentials=CREDENTIALS)
    caller.hear(ONE, reply(caller.last, 401, lines=CHALLENGE))
    retry = caller.last
    assert (retry.cseq.number, retry.header("Authorization") is not None) == (2, True)
    caller.fails(ONE)
    again = caller.last
    assert (again.cseq.number, again.header("Authorization")) == (2, retry.header("Authorization"))
    caller.hear(TWO, reply(again, 401, lines=CHALLENGE))
    assert caller.facts == [CallRefused(LEG, 401, "Unauthorized")]


def answered(contact: str = CALLEE) -> Caller:
    """A call that the second server answered with this Contact."""
    caller = Caller()
    caller.until(4)
    caller.hear(TWO, reply(caller.last, 200, contact=contact, body=ANSWER))
    caller.sent.clear()
    caller.asked.clear()
    return caller


def test_requests_of_the_dialog_stay_with_its_server() -> None:
    """The ACK and what follows go to the server that answered, as long as DNS names it."""
    caller = Caller()
    caller.until(4)
    invite = caller.last
    caller.sent.clear()
    response = reply(invite, 200, contact=CALLEE, body=ANSWER)
    caller.hear(TWO, response)
    caller.hear(TWO, response)
    assert caller.story == ["4 ACK .2", "4 ACK .2"]
    caller.give(SendOffer(LEG, OFFER))
    caller.give(HangUp(LEG))
    assert caller.story == ["4 INVITE .2", "4 BYE .2"]
    assert caller.asked == [CALLEE, CALLEE, CALLEE, CALLEE]


def test_a_bye_goes_on_to_another_server_of_the_target() -> None:
    """A server that died in mid-call is replaced by the next one."""
    caller = answered()
    caller.give(HangUp(LEG))
    caller.until(8)
    assert caller.story == ["4 BYE .2", "4.5 BYE .2", "5.5 BYE .2", "7.5 BYE .2", "8 BYE .1"]


def test_a_contact_that_no_name_server_knows_is_where_the_messages_come_from() -> None:
    """A phone that calls itself `phone.local` is reached by its address."""
    caller = Caller()
    caller.until(4)
    caller.hops, caller.problem = (), "cannot resolve phone.local"
    caller.hear(TWO, reply(caller.last, 200, contact="sip:bob@phone.local", body=ANSWER))
    caller.sent = caller.sent[-1:]
    caller.give(HangUp(LEG))
    assert caller.story == ["4 ACK .2", "4 BYE .2"]


def test_a_call_without_a_server_is_refused_with_the_reason() -> None:
    """What DNS said, by a 503 of our own."""
    caller = Caller(hops=(), problem="cannot resolve bob.test")
    assert caller.facts == [CallRefused(LEG, 503, "cannot resolve bob.test")]
    caller.until(100)
    assert caller.endpoint.counters["calls"] == 0


def test_a_server_that_failed_is_tried_last_for_a_while() -> None:
    """The second call begins with the other one; half a minute later all is forgotten."""
    caller = Caller()
    caller.fails(ONE)
    for leg, now, first in (("b", 1.0, TWO), ("c", 31.0, ONE)):
        caller.until(now)
        caller.sent.clear()
        caller.give(attrs.evolve(invite_wish(leg), callee=parse_uri(CALLEE)))
        assert [one.hop for one in caller.sent] == [first]


@pytest.mark.rfc("3261", "21.5.4")
def test_retry_after_says_how_long_a_server_rests() -> None:
    """Its comment and parameters aside, and at most five minutes."""
    caller = Caller()
    caller.hear(ONE, reply(caller.last, 503, lines=AFTER))
    for leg, now, first in (("b", 119.0, TWO), ("c", 121.0, ONE)):
        caller.until(now)
        caller.sent.clear()
        caller.give(attrs.evolve(invite_wish(leg), callee=parse_uri(CALLEE)))
        assert caller.sent[-1].hop == first


@pytest.mark.rfc("3261", "20.33")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("18000;duration=3600", 18000), ("5 (soon)", 5), ("soon", 0), ("-1", 0), ("", 0)],
)
def test_retry_after_values(value: str, seconds: float) -> None:
    """20.33: seconds, then perhaps a comment and parameters; what is none is none."""
    assert retry_after(reply(request(), 503, lines=(("Retry-After", value),))) == seconds
    assert retry_after(reply(request(), 503)) == 0


def test_outages_are_bounded_and_leave_nobody_out() -> None:
    """A thousand servers; those that are down come last, in their order."""
    outages = Outages()
    for number in range(MOST + 10):
        outages.note(udp((f"10.0.{number // 250}.{number % 250}", 5060)), 100.0, float(number))
    assert len(outages) == MOST
    outages = Outages()
    outages.note(ONE, 10.0, 0.0)
    assert outages.order((ONE, TWO, THREE), 9.0) == [TWO, THREE, ONE]
    assert outages.order((ONE, TWO), 10.0) == [ONE, TWO]
    outages.note(ONE, 10.0, 20.0)
    outages.clear(ONE)
    assert outages.order((ONE, TWO), 21.0) == [ONE, TWO]


def test_the_peer_that_hangs_up_is_heard_wherever_it_comes_from() -> None:
    """Its requests need no look-up."""
    caller = Caller()
    invite = caller.last
    caller.hear(ONE, reply(invite, 200, contact=CALLEE, body=ANSWER))
    bye = attrs.evolve(request("BYE", cseq=7, call_id=invite.call_id, from_tag="bob-tag"), to=invite.from_)
    caller.give(Received(encode_message(bye), THREE, ALICE[0]))
    assert caller.facts == [CallAnswered(LEG, ANSWER), ByeReceived(LEG)]
