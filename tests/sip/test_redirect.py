"""3xx to our INVITE: which targets are called, in which order, how often, and what the call's owner is told."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import CallAnswered, CallProgress, CallRefused, Credentials, HangUp
from rustpbx.sip.message import Lines, NameAddr, Request, Response
from rustpbx.sip.redirect import Targets
from rustpbx.sip.uri import NO_PARAMS, Uri, parse_uri
from tests.kit.peers_sip import ANSWER, BOB, LEG, Lone, Packet, invite_wish, reply, titles

CHALLENGE: Lines = (("WWW-Authenticate", 'Digest realm="pbx.test", nonce="n1", qop="auth", algorithm=MD5'),)


def sent(packets: list[Packet]) -> Request:
    """The newest request of these."""
    message = packets[-1].message
    assert isinstance(message, Request)
    return message


def moved(to: Request, *contacts: str, status: int = 302) -> Response:
    """A 3xx with these Contacts; `sip:x;q=0.5` has the q outside its brackets."""
    split = [contact.partition(";q=") for contact in contacts]
    addresses = tuple(
        NameAddr(parse_uri(uri), params=NO_PARAMS.set("q", q) if equals else NO_PARAMS) for uri, equals, q in split
    )
    return attrs.evolve(reply(to, status), contacts=addresses)


def dialling(config: EndpointConfig | None = None, credentials: Credentials | None = None) -> tuple[Lone, Request]:
    """A call to Bob, and its INVITE."""
    lone = Lone(config or EndpointConfig(port=5060), peer=BOB)
    return lone, sent(lone.wish(invite_wish(credentials=credentials)))


@pytest.mark.rfc("3261", "8.1.3.4")
@pytest.mark.parametrize("status", [300, 301, 302])
def test_the_same_call_goes_to_the_new_target(status: int) -> None:
    """ACK, then an INVITE with a new branch, the next CSeq, and the same Call-ID, From and untagged To."""
    lone, invite = dialling()
    packets = lone.send(moved(invite, "sip:carol@192.0.2.9:5070", status=status))
    assert titles(packets) == ["ACK", "INVITE"]
    assert [packet.destination for packet in packets] == [BOB, ("192.0.2.9", 5070)]
    again = sent(packets)
    assert (str(again.uri), again.cseq.number) == ("sip:carol@192.0.2.9:5070", 2)
    assert again.via.branch != invite.via.branch
    assert attrs.evolve(again, uri=invite.uri, cseq=invite.cseq, vias=invite.vias) == invite
    lone.send(reply(again, 200, body=ANSWER))
    assert lone.facts == [CallAnswered(LEG, ANSWER)]


@pytest.mark.rfc("3261", "8.1.3.4")
def test_contacts_are_called_by_their_q_until_one_answers() -> None:
    """The best first; a busy one is followed by the next; without q it is 1."""
    lone, invite = dialling()
    contacts = ("sip:c@192.0.2.13;q=0.1", "sip:a@192.0.2.11", "sip:b@192.0.2.12;q=0.5")
    packets, targets = lone.send(moved(invite, *contacts)), []
    for _ in contacts:
        targets.append(packets[-1].destination[0])
        packets = lone.send(reply(sent(packets), 486))
    assert targets == ["192.0.2.11", "192.0.2.12", "192.0.2.13"]
    assert lone.facts == [CallRefused(LEG, 486, "Busy Here")]


@pytest.mark.rfc("3261", "16.7")
def test_a_global_failure_ends_the_search() -> None:
    """6xx: the callee wants no other phone to ring."""
    lone, invite = dialling()
    packets = lone.send(moved(invite, "sip:a@192.0.2.11", "sip:b@192.0.2.12"))
    assert titles(lone.send(reply(sent(packets), 603))) == ["ACK"]
    assert lone.facts == [CallRefused(LEG, 603, "Decline")]


@pytest.mark.rfc("3261", "16.5")
def test_a_loop_ends() -> None:
    """A target that was called already is not called again, however it is written; the 302 is the outcome."""
    lone, invite = dialling()
    packets = lone.send(moved(invite, "sip:a@192.0.2.11"))
    assert titles(lone.send(moved(sent(packets), "sip:bob@192.0.2.2", "sip:a@192.0.2.11?Subject=x"))) == ["ACK"]
    assert lone.facts == [CallRefused(LEG, 302, "Moved Temporarily")]


def test_at_most_five_targets_are_followed() -> None:
    """Each points to the next; the sixth is not called."""
    lone, invite = dialling()
    last, calls = invite, 0
    while not lone.facts:
        packets = lone.send(moved(last, f"sip:x@192.0.2.{100 + calls}"))
        calls += titles(packets).count("INVITE")
        last = sent(packets)
    assert (calls, lone.facts) == (5, [CallRefused(LEG, 302, "Moved Temporarily")])


@pytest.mark.parametrize(
    "contacts",
    [(), ("tel:+15550100",), ("mailto:bob@example.com",), ("http://example.com/",), ("sip:bob@192.0.2.2",)],
)
def test_what_cannot_be_called_is_the_outcome(contacts: tuple[str, ...]) -> None:
    """No Contact, no SIP address, or where we come from."""
    lone, invite = dialling()
    assert titles(lone.send(moved(invite, *contacts))) == ["ACK"]
    assert lone.facts == [CallRefused(LEG, 302, "Moved Temporarily")]


@pytest.mark.parametrize("status", [305, 380])
def test_use_proxy_and_alternative_service_are_told(status: int) -> None:
    """Nobody may choose our proxy, and the alternatives of a 380 are for people."""
    lone, invite = dialling()
    lone.send(moved(invite, "sip:carol@192.0.2.9", status=status))
    assert [fact.status for fact in lone.facts if isinstance(fact, CallRefused)] == [status]


def test_reporting_follows_nothing() -> None:
    """`redirect = "report"`: the owner decides, and no policy is asked."""
    config = EndpointConfig(port=5060, max_redirects=0, redirect_refusal=lambda _leg, _target: "no")
    lone, invite = dialling(config)
    assert titles(lone.send(moved(invite, "sip:carol@192.0.2.9"))) == ["ACK"]
    assert lone.facts == [CallRefused(LEG, 302, "Moved Temporarily")]


def test_the_policy_is_asked_for_each_new_target() -> None:
    """One that it forbids is left out; where none is left, its reason is told, as 403."""
    asked: list[tuple[str, str]] = []

    def refusal(leg: str, uri: Uri) -> str:
        asked.append((leg, str(uri)))
        return "dial policy: premium-rate" if "+1900" in str(uri) else ""

    lone, invite = dialling(EndpointConfig(port=5060, redirect_refusal=refusal))
    packets = lone.send(moved(invite, "sip:+19005551234@192.0.2.9", "sip:carol@192.0.2.9"))
    assert str(sent(packets).uri) == "sip:carol@192.0.2.9"
    assert titles(lone.send(moved(sent(packets), "sip:+19005550000@192.0.2.9"))) == ["ACK"]
    assert asked == [
        (LEG, "sip:+19005551234@192.0.2.9"),
        (LEG, "sip:carol@192.0.2.9"),
        (LEG, "sip:+19005550000@192.0.2.9"),
    ]
    assert lone.facts == [CallRefused(LEG, 403, "dial policy: premium-rate")]


def test_an_outbound_proxy_stays_the_way() -> None:
    """The new target is in the Request-URI; the message goes where all of this account's do."""
    lone = Lone(peer=BOB)
    packets = lone.wish(invite_wish(destination=("203.0.113.2", 5080)))
    again = lone.send(moved(sent(packets), "sip:carol@192.0.2.9"))
    assert (str(sent(again).uri), again[-1].destination) == ("sip:carol@192.0.2.9", ("203.0.113.2", 5080))


def test_credentials_are_shown_to_a_new_target_only_if_it_asks() -> None:
    """And are not refused because the first target asked for them too."""
    lone, invite = dialling(credentials=Credentials("bot", "secret", "pbx.test"))
    retry = sent(lone.send(reply(invite, 401, lines=CHALLENGE)))
    assert retry.header("Authorization") is not None
    again = sent(lone.send(moved(retry, "sip:carol@192.0.2.9")))
    assert (again.cseq.number, again.header("Authorization")) == (3, None)
    authorized = sent(lone.send(reply(again, 401, lines=CHALLENGE)))
    assert (authorized.cseq.number, authorized.header("Authorization") is not None) == (4, True)
    assert lone.facts == []


def test_early_dialogs_of_the_old_target_are_over() -> None:
    """It rang there, then it was forwarded: the ringing there is no dialog of the call any more."""
    lone, invite = dialling()
    lone.send(reply(invite, 180, tag="old"))
    again = sent(lone.send(moved(invite, "sip:carol@192.0.2.9")))
    lone.send(reply(again, 180, tag="new"))
    assert lone.facts == [CallProgress(LEG, 180, "Ringing", b"")] * 2
    lone.send(reply(again, 200, tag="new", body=ANSWER))
    assert lone.facts[-1] == CallAnswered(LEG, ANSWER)


def test_a_call_that_was_hung_up_is_not_forwarded() -> None:
    """The 302 crosses the CANCEL: nobody else rings."""
    lone, invite = dialling()
    lone.send(reply(invite, 180))
    lone.wish(HangUp(LEG))
    assert titles(lone.send(moved(invite, "sip:carol@192.0.2.9"))) == ["ACK"]


def test_a_silent_new_target_is_followed_by_the_next() -> None:
    """A timeout is a failure as any other."""
    lone, invite = dialling()
    lone.send(moved(invite, "sip:a@192.0.2.11", "sip:b@192.0.2.12;q=0.2"))
    assert [packet.destination[0] for at, packet in lone.wait(33) if at == 32.0] == ["192.0.2.12"]


@pytest.mark.rfc("3261", "8.1.3.4")
def test_from_sips_no_way_leads_back() -> None:
    """What was to be secure stays so (8.1.3.4)."""
    targets = Targets(parse_uri("sips:bob@192.0.2.2"), 5)
    targets.add([NameAddr(parse_uri(uri)) for uri in ("sip:a@192.0.2.3", "sips:b@192.0.2.4")], lambda _: "")
    assert (str(targets.take()), bool(targets)) == ("sips:b@192.0.2.4", False)


contacts = st.lists(
    st.tuples(
        st.sampled_from(["sip:a@h1", "sip:a@H1", "sip:a@h1?x=y", "sip:b@h1", "sip:a@h2:5070", "tel:1", "sips:a@h1"]),
        st.sampled_from(["", "0", "0.3", "1", "2", "x", "nan"]),
    ),
    max_size=8,
)


@given(st.lists(contacts, max_size=4), st.integers(0, 6))
def test_whatever_responses_name_the_search_ends(responses: list[list[tuple[str, str]]], most: int) -> None:
    """No target twice, the first never again, no more than allowed."""
    first = parse_uri("sip:bob@h0")
    targets, taken = Targets(first, most), []
    for response in responses:
        named = [NameAddr(parse_uri(uri), params=NO_PARAMS.set("q", q)) for uri, q in response]
        targets.add(named, lambda uri: "no" if uri.user == "b" else "")
        if targets:
            taken.append(targets.take())
    while targets:
        taken.append(targets.take())
    assert len(taken) <= most
    assert len({str(uri).lower() for uri in taken}) == len(taken)
    assert {uri.scheme for uri in taken} <= {"sip", "sips"}
    assert not {uri.user for uri in taken} & {"b", "bob"}
