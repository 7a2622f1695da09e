"""Encoding: canonical text, the right length, and no way to smuggle a line into it."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import given

from rustpbx.errors import LocalError
from rustpbx.sip.encoder import encode_message, encode_refusal, header_lines
from rustpbx.sip.message import CSeq, Message, NameAddr, Request, Response, Via
from rustpbx.sip.parser import PartialRequest, parse_message
from rustpbx.sip.uri import Params, Uri
from tests.kit.strategies_sip import messages

BOB = NameAddr(Uri("sip", "bob", None, "example.com"))
INVITE = Request(
    method="INVITE",
    uri=BOB.uri,
    vias=(Via("UDP", "192.0.2.1", 5060, Params((("branch", "z9hG4bK1"), ("rport", None)))),),
    routes=(NameAddr(Uri("sip", None, None, "proxy", None, Params((("lr", None),)))),),
    from_=NameAddr(Uri("sip", "alice", None, "example.com"), 'Al "x" \\ ice').tagged("a1"),
    to=BOB,
    call_id="c1@192.0.2.1",
    cseq=CSeq(1, "INVITE"),
    contacts=(NameAddr(Uri("sip", "alice", None, "::1", 5060)),),
    lines=(("s", "hello"),),
    body=b"v=0\r\n",
)
OK = Response(status=200, reason="OK", vias=INVITE.vias, from_=INVITE.from_, to=BOB, call_id="c1", cseq=INVITE.cseq)


def test_a_request_is_written_in_canonical_form() -> None:
    """The whole text: order, quoting, brackets, expanded compact names, Content-Length."""
    assert encode_message(INVITE) == (
        b"INVITE sip:bob@example.com SIP/2.0\r\n"
        b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\n"
        b"Max-Forwards: 70\r\n"
        b"Route: <sip:proxy;lr>\r\n"
        b'From: "Al \\"x\\" \\\\ ice" <sip:alice@example.com>;tag=a1\r\n'
        b"To: <sip:bob@example.com>\r\n"
        b"Call-ID: c1@192.0.2.1\r\n"
        b"CSeq: 1 INVITE\r\n"
        b"Contact: <sip:alice@[::1]:5060>\r\n"
        b"Subject: hello\r\n"
        b"Content-Length: 5\r\n"
        b"\r\n"
        b"v=0\r\n"
    )


def test_header_lines_are_the_fields_without_the_start_line() -> None:
    """What a webhook shows is what was in the message."""
    assert header_lines(OK) == (
        "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport",
        'From: "Al \\"x\\" \\\\ ice" <sip:alice@example.com>;tag=a1',
        "To: <sip:bob@example.com>",
        "Call-ID: c1",
        "CSeq: 1 INVITE",
        "Content-Length: 0",
    )


@given(messages)
def test_an_encoded_message_reads_the_same(message: Request | Response) -> None:
    """parse(encode(m)) == m, and encoding it again gives the same bytes."""
    data = encode_message(message)
    assert parse_message(data) == message
    assert encode_message(parse_message(data)) == data


SMUGGLES: list[Callable[[str], Message]] = [
    lambda evil: attrs.evolve(INVITE, method="INVITE" + evil),
    lambda evil: attrs.evolve(INVITE, uri=Uri("sip", "bob" + evil, None, "h")),
    lambda evil: attrs.evolve(INVITE, uri=Uri("sip", None, None, "h" + evil)),
    lambda evil: attrs.evolve(INVITE, uri=Uri("sip", None, None, "h", None, Params((("a", evil),)))),
    lambda evil: attrs.evolve(INVITE, uri=Uri("sip", None, None, "h", None, Params(), evil)),
    lambda evil: attrs.evolve(INVITE, uri=Uri("x" + evil, None, None, "h")),
    lambda evil: attrs.evolve(INVITE, call_id="c" + evil),
    lambda evil: attrs.evolve(INVITE, cseq=CSeq(1, "INVITE" + evil)),
    lambda evil: attrs.evolve(INVITE, from_=NameAddr(BOB.uri, "Al" + evil + "ice")),
    lambda evil: attrs.evolve(INVITE, from_=BOB.tagged("t" + evil)),
    lambda evil: attrs.evolve(INVITE, to=attrs.evolve(BOB, params=Params(((evil, "x"),)))),
    lambda evil: attrs.evolve(INVITE, vias=(Via("UDP" + evil, "h"),)),
    lambda evil: attrs.evolve(INVITE, vias=(Via("UDP", "h" + evil),)),
    lambda evil: attrs.evolve(INVITE, vias=(Via("UDP", "h", None, Params((("branch", evil),))),)),
    lambda evil: attrs.evolve(INVITE, lines=(("X-A", "a" + evil + "b"),)),
    lambda evil: attrs.evolve(INVITE, lines=(("X-A" + evil, "b"),)),
    lambda evil: attrs.evolve(OK, reason="OK" + evil),
]


@pytest.mark.parametrize("evil", ["\r\nX-Evil: 1", "\n", "\r", "\r\n\r\n", "\x00", "\r\n folded"])
@pytest.mark.parametrize("smuggle", SMUGGLES)
def test_no_field_carries_a_line_end_out(smuggle: Callable[[str], Message], evil: str) -> None:
    """A line end or NUL in any field is a LocalError; only a display name may hold a control, escaped."""
    message = smuggle(evil)
    if evil == "\x00" and message.from_.display_name == "Al\x00ice":
        assert b'"Al\\\x00ice"' in encode_message(message)
        return
    with pytest.raises(LocalError):
        encode_message(message)


@pytest.mark.parametrize(
    "message",
    [
        attrs.evolve(INVITE, lines=(("Content-Length", "0"),)),
        attrs.evolve(INVITE, lines=(("l", "0"),)),
        attrs.evolve(INVITE, lines=(("i", "other"),)),
        attrs.evolve(INVITE, lines=(("From", "<sip:x>"),)),
        attrs.evolve(INVITE, lines=(("Route", "<sip:x>"),)),
        attrs.evolve(INVITE, lines=(("Contact", "<sip:x>"),)),
        attrs.evolve(INVITE, lines=(("", "x"),)),
        attrs.evolve(INVITE, lines=(("X Y", "x"),)),
        attrs.evolve(INVITE, lines=(("X-A", "lone \ud800 surrogate"),)),
        attrs.evolve(INVITE, call_id=""),
        attrs.evolve(INVITE, call_id="a b"),
        attrs.evolve(INVITE, max_forwards=256),
        attrs.evolve(INVITE, cseq=CSeq(2**31, "INVITE")),
        attrs.evolve(INVITE, to=BOB.tagged("a;b=c")),
        attrs.evolve(INVITE, to=BOB.tagged('a"')),
        attrs.evolve(INVITE, to=NameAddr(Uri("sip", "a>;tag=x,<sip:b", None, "h"))),
        attrs.evolve(OK, status=99),
        attrs.evolve(OK, status=700),
    ],
)
def test_what_would_mean_something_else_is_not_sent(message: Message) -> None:
    """A second copy of a field of ours, and text that breaks out of its place, are LocalErrors."""
    with pytest.raises(LocalError):
        encode_message(message)


def test_a_refusal_gives_back_what_was_read() -> None:
    """The answer to a malformed request: Via and the fields as they came, a tag where To can have one."""
    partial = PartialRequest(
        method="INVITE",
        vias=INVITE.vias,
        lines=(("From", "sip:a@h;tag=1"), ("To", "sip:b@h"), ("Call-ID", "c"), ("CSeq", "1 BYE")),
    )
    assert encode_refusal(partial, 400, tag="t1", lines=(("Server", "x"),)) == (
        b"SIP/2.0 400 Bad Request\r\n"
        b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\n"
        b"From: sip:a@h;tag=1\r\n"
        b"To: sip:b@h;tag=t1\r\n"
        b"Call-ID: c\r\n"
        b"CSeq: 1 BYE\r\n"
        b"Server: x\r\n"
        b"Content-Length: 0\r\n"
        b"\r\n"
    )


def test_a_refusal_leaves_an_unreadable_to_as_it_came() -> None:
    """No tag is pasted to what is no address, nor a second one to what has one."""
    partial = PartialRequest("INVITE", INVITE.vias, (("To", '"open <sip:b@h>'),))
    assert b'\r\nTo: "open <sip:b@h>\r\n' in encode_refusal(partial, 400, "Why", tag="t1")
    tagged = PartialRequest("INVITE", INVITE.vias, (("To", "<sip:b@h>;tag=x"),))
    assert b"\r\nTo: <sip:b@h>;tag=x\r\n" in encode_refusal(tagged, 400, tag="t1")
