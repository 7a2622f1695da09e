"""The torture messages of RFC 4475 and RFC 5118: what the endpoint makes of each, as the RFC wants it.

The table has all of them. `tests/sip/test_parser.py` looks closer at what is read.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet  # what pytest.param returns; it has no public name

from rustpbx.core import Address
from rustpbx.media.events import Direction
from rustpbx.media.sdp.encoder import encode_sdp
from rustpbx.media.sdp.negotiate import LocalMedia, NegotiationError, answer
from rustpbx.media.sdp.parser import parse_sdp
from rustpbx.sip.events import IncomingCall
from rustpbx.sip.message import Request, Response
from rustpbx.sip.parser import parse_message
from tests.kit.peers_sip import Lone, invite, titles

GOLDEN = Path(__file__).parent.parent / "golden" / "sip"
PEER6: Address = ("2001:db8::20", 5060)

CALL, STRAY, DROPPED = "a call", "a stray", "dropped"
"""A call comes in; a response that nobody asked for; bytes that are no message and cannot be answered."""


def row(rfc: str, section: str, name: str, outcome: int | str) -> ParameterSet:
    """One message: where it stands, its file, and the status that we answer or what else becomes of it."""
    return pytest.param(name, outcome, id=name, marks=pytest.mark.rfc(rfc, section))


MESSAGES = [
    # Syntax: valid.
    row("4475", "3.1.1.1", "wsinv", 481),  # its To has a tag, of no dialog of ours
    row("4475", "3.1.1.2", "intmeth", 501),
    row("4475", "3.1.1.3", "esc01", CALL),
    row("4475", "3.1.1.4", "escnull", 405),  # a REGISTER, and we are no registrar
    row("4475", "3.1.1.5", "esc02", 501),  # not REGISTER: a method is not unescaped
    row("4475", "3.1.1.6", "lwsdisp", 200),
    row("4475", "3.1.1.7", "longreq", CALL),
    row("4475", "3.1.1.8", "dblreq", 405),  # the INVITE behind it is no message
    row("4475", "3.1.1.9", "semiuri", 200),
    row("4475", "3.1.1.10", "transports", 200),
    row("4475", "3.1.1.11", "mpart01", 405),
    row("4475", "3.1.1.12", "unreason", STRAY),
    row("4475", "3.1.1.13", "noreason", STRAY),
    # Syntax: invalid.
    row("4475", "3.1.2.1", "badinv01", 400),
    row("4475", "3.1.2.2", "clerr", 400),
    row("4475", "3.1.2.3", "ncl", 400),
    row("4475", "3.1.2.4", "scalar02", 400),
    row("4475", "3.1.2.5", "scalarlg", DROPPED),
    row("4475", "3.1.2.6", "quotbal", 400),
    row("4475", "3.1.2.7", "ltgtruri", 400),
    row("4475", "3.1.2.8", "lwsruri", 400),
    row("4475", "3.1.2.9", "lwsstart", 400),
    row("4475", "3.1.2.10", "trws", 400),
    row("4475", "3.1.2.11", "escruri", 400),
    row("4475", "3.1.2.12", "baddate", CALL),  # we read no dates
    row("4475", "3.1.2.13", "regbadct", 400),
    row("4475", "3.1.2.14", "badaspec", 400),
    row("4475", "3.1.2.15", "baddn", 400),
    row("4475", "3.1.2.16", "badvers", 505),
    row("4475", "3.1.2.17", "mismatch01", 400),
    row("4475", "3.1.2.18", "mismatch02", 400),
    row("4475", "3.1.2.19", "bigcode", DROPPED),
    # Transactions.
    row("4475", "3.2.1", "badbranch", 200),  # matched as RFC 2543 did
    # What a user agent makes of it.
    row("4475", "3.3.1", "insuf", 400),
    row("4475", "3.3.2", "unkscm", 416),
    row("4475", "3.3.3", "novelsc", 416),
    row("4475", "3.3.4", "unksm2", 405),
    row("4475", "3.3.5", "bext01", 420),
    row("4475", "3.3.6", "invut", 415),
    row("4475", "3.3.7", "regaut01", 405),
    row("4475", "3.3.8", "multi01", 400),
    row("4475", "3.3.9", "mcl01", 400),
    row("4475", "3.3.10", "bcast", STRAY),  # never sent on to 255.255.255.255
    row("4475", "3.3.11", "zeromf", 200),  # for us; only who passes a request on counts its hops
    row("4475", "3.3.12", "cparam01", 405),
    row("4475", "3.3.13", "cparam02", 405),
    row("4475", "3.3.14", "regescrt", 405),
    row("4475", "3.3.15", "sdp01", 406),
    row("4475", "3.4.1", "inv2543", CALL),
    # IPv6.
    row("5118", "4.1", "ipv6-good", 405),
    row("5118", "4.2", "ipv6-bad", 400),
    row("5118", "4.3", "port-ambiguous", 405),
    row("5118", "4.4", "port-unambiguous", 405),
    row("5118", "4.5", "via-received-param-with-delim", 481),
    row("5118", "4.5", "via-received-param-no-delim", 200),
    row("5118", "4.6", "ipv6-in-sdp", CALL),
    row("5118", "4.7", "mult-ip-in-header", 481),
    row("5118", "4.8", "mult-ip-in-sdp", CALL),
    row("5118", "4.9", "ipv4-mapped-ipv6", CALL),
    row("5118", "4.10", "ipv6-bug-abnf-3-colons", 200),
    row("5118", "4.10", "ipv6-correct-abnf-2-colons", 200),
]


def golden(name: str) -> bytes:
    """The bytes of one message."""
    return (GOLDEN / f"{name}.sip").read_bytes()


@pytest.mark.parametrize(("name", "outcome"), MESSAGES)
def test_each_message_meets_its_fate(name: str, outcome: int | str) -> None:
    """Exactly one answer with the right status and the request's own Vias, or none; nothing else happens."""
    lone = Lone()
    packets = lone.send(golden(name))
    calls = [fact for fact in lone.facts if isinstance(fact, IncomingCall)]
    counters = lone.side.endpoint.counters
    expected = {
        CALL: (["100 INVITE"], 1, (0, 0)),
        STRAY: ([], 0, (1, 0)),
        DROPPED: ([], 0, (0, 1)),
    }
    statuses = [packet.data.split(b" ", 2)[1].decode() for packet in packets]
    seen = ([f"{status} INVITE" for status in statuses] if calls else statuses, len(calls))
    broken = int(outcome in {400, 505})
    assert (*seen, (counters["strays"], counters["malformed"])) == expected.get(
        str(outcome), ([str(outcome)], 0, (0, broken))
    )
    assert (len(lone.facts), counters["bugs"], counters["unanswerable"]) == (len(calls), 0, 0)


@pytest.mark.rfc("3261", "8.2.6.2")
@pytest.mark.parametrize(
    "name", [param.values[0] for param in MESSAGES if param.values[1] in {CALL, 200, 405, 481, 501}]
)
def test_answers_go_back_with_what_identifies_them(name: str) -> None:
    """8.2.6.2: every Via in its order, From, Call-ID and CSeq as they came; escapes and UTF-8 too."""
    request = parse_message(golden(name))
    (packet,) = Lone().send(golden(name))
    response = packet.message
    assert isinstance(request, Request)
    assert isinstance(response, Response)
    assert [(via.transport, via.host, via.port, via.branch) for via in response.vias] == [
        (via.transport, via.host, via.port, via.branch) for via in request.vias
    ]
    assert (response.from_, response.call_id, response.cseq) == (request.from_, request.call_id, request.cseq)
    assert response.to.uri == request.to.uri


def test_refusals_say_what_would_do() -> None:
    """420 names what it does not know, 415 what it takes, 405 and 501 the methods."""
    answers = {}
    for name in ("bext01", "invut", "escnull", "intmeth"):
        (packet,) = Lone().send(golden(name))
        assert isinstance(packet.message, Response)
        answers[name] = packet.message
    assert answers["bext01"].header("Unsupported") == "nothingSupportsThis, nothingSupportsThisEither"
    assert answers["invut"].header("Accept") == "application/sdp"
    for name in ("escnull", "intmeth"):
        assert "INVITE" in (answers[name].header("Allow") or "")


@pytest.mark.rfc("4475", "3.1.1.8")
def test_octets_after_a_request_change_nothing_of_it() -> None:
    """The REGISTER is answered once, the INVITE behind its end is not looked at."""
    lone = Lone()
    assert (titles(lone.send(golden("dblreq"))), lone.facts) == (["405 REGISTER"], [])


@pytest.mark.rfc("4475", "3.2.1")
def test_branches_without_an_identifier_do_not_collide() -> None:
    """A peer whose branches are all `z9hG4bK`: its requests are told apart by Call-ID, CSeq and From tag."""
    lone = Lone()
    first, second = invite(branch="z9hG4bK"), invite(branch="z9hG4bK", call_id="another")
    assert [titles(lone.send(message)) for message in (first, second, first)] == [["100 INVITE"]] * 3
    counters = lone.side.endpoint.counters
    assert (len(lone.facts), counters["retransmissions_received"]) == (2, 1)


@pytest.mark.rfc("3261", "20.1")
@pytest.mark.parametrize(
    ("accept", "title"),
    [
        ("application/sdp", "100 INVITE"),
        ("text/html, Application/SDP;level=1", "100 INVITE"),
        ("application/*", "100 INVITE"),
        ("*/*;q=0.1", "100 INVITE"),
        ("text/html, application/pidf+xml", "406 INVITE"),
        ("", "406 INVITE"),
    ],
)
def test_accept_must_leave_room_for_sdp(accept: str, title: str) -> None:
    """An INVITE whose answer may not be SDP is 406; ranges and parameters are understood."""
    data = golden("sdp01").replace(b"text/nobodyKnowsThis", accept.encode())
    assert titles(Lone().send(data)) == [title]


@pytest.mark.rfc("5118", "4.5")
def test_received_is_ours_to_say() -> None:
    """Whatever `received` a request brings, with brackets or without, the answer goes to where it came from."""
    for name in ("via-received-param-with-delim", "via-received-param-no-delim"):
        lone = Lone(peer=PEER6)
        (packet,) = lone.send(golden(name))
        assert packet.destination == PEER6
        assert packet.message.via.params.get("received") == PEER6[0]


LOCAL4 = LocalMedia(host="192.0.2.2", port=4000, ssrc=1, session_id=1)


def body(name: str) -> bytes:
    """The SDP of one message."""
    return parse_message(golden(name)).body


@pytest.mark.rfc("5118", "4.8")
def test_streams_may_have_addresses_of_both_families() -> None:
    """The audio is on IPv4, by its own c= line; the video on IPv6 is refused at its place."""
    description, agreed = answer(parse_sdp(body("mult-ip-in-sdp")), LOCAL4)
    assert (agreed.remote, agreed.direction) == (("192.0.2.1", 22334), Direction.SENDRECV)
    assert [(media.kind, media.port) for media in description.media] == [("audio", 4000), ("video", 0)]
    assert parse_sdp(encode_sdp(description)) == description


@pytest.mark.rfc("5118", "4.6", "4.9")
@pytest.mark.parametrize("name", ["ipv6-in-sdp", "ipv4-mapped-ipv6"])
def test_ipv6_in_sdp_is_read(name: str) -> None:
    """The description is understood; what it offers is G.726, which we do not speak."""
    description = parse_sdp(body(name))
    assert description.connection is not None
    assert description.connection.address_type == "IP6"
    with pytest.raises(NegotiationError, match="G726-32/8000"):
        answer(description, LOCAL4)


def test_the_table_is_complete() -> None:
    """Forty-nine messages of RFC 4475, twelve of RFC 5118; each file is there, and no other of theirs."""
    names = [param.values[0] for param in MESSAGES]
    assert len(names) == len(set(names)) == 49 + 12
    flows = {path.stem for path in GOLDEN.glob("flow-*.sip")}
    assert {path.stem for path in GOLDEN.glob("*.sip")} - flows == set(names)
