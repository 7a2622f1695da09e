"""Reading messages: the torture messages of RFC 4475 and RFC 5118, and any bytes at all.

The golden files are written after the RFCs' messages (bodies and some long values are our own); the tables below
say what each must come to.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import RemoteError
from rustpbx.sip.encoder import encode_message, encode_refusal
from rustpbx.sip.headers import list_tokens, split_list
from rustpbx.sip.message import CSeq, NameAddr, Request, Response, Via
from rustpbx.sip.parser import Limits, MalformedRequest, PartialRequest, parse_message
from rustpbx.sip.uri import Params, Uri, parse_uri
from tests.kit.predicates import sip_address, sip_message
from tests.kit.strategies_sip import messages, mutated

GOLDEN = Path(__file__).parent.parent / "golden" / "sip"

READABLE = [
    *("wsinv", "intmeth", "esc01", "escnull", "esc02", "lwsdisp", "longreq", "dblreq", "semiuri", "transports"),
    *("mpart01", "unreason", "noreason"),  # RFC 4475 3.1.1
    *(
        "baddate",
        "badbranch",
        "unkscm",
        "novelsc",
        "unksm2",
        "bext01",
        "invut",
        "regaut01",
        "bcast",
        "zeromf",
        "cparam01",
    ),
    *("cparam02", "regescrt", "sdp01", "inv2543"),  # 3.1.2.12, 3.2 to 3.4: for the layers above to judge
    *("ipv6-good", "port-ambiguous", "port-unambiguous", "mult-ip-in-header", "mult-ip-in-sdp"),
    *("ipv4-mapped-ipv6", "ipv6-in-sdp", "ipv6-bug-abnf-3-colons", "ipv6-correct-abnf-2-colons"),
    *("via-received-param-with-delim", "via-received-param-no-delim"),  # RFC 5118
    *("flow-f1-invite", "flow-f2-ringing", "flow-f3-ok", "flow-f4-ack", "flow-f5-bye", "flow-f6-ok"),
    "flow-unauthorized",  # RFC 3665
]

REFUSED = [  # name, reply, what is wrong
    ("badinv01", 400, "an empty value in a list"),
    ("clerr", 400, "the body is shorter than Content-Length"),
    ("ncl", 400, "not a Content-Length: '-999'"),
    ("scalar02", 400, "not a CSeq: '36893488147419103232 REGISTER'"),
    ("quotbal", 400, "not an address: '\"Mr. J. User <sip:j.user@example.com>'"),
    ("ltgtruri", 400, "not a URI: '<sip:user@example.com>'"),
    ("lwsruri", 400, "not a request line: 'INVITE sip:user@example.com; lr SIP/2.0'"),
    ("lwsstart", 400, "not a request line: 'INVITE  sip:user@example.com  SIP/2.0'"),
    ("trws", 400, "not a request line: 'OPTIONS sip:remote-target@example.com SIP/2.0  '"),
    ("escruri", 400, "a Request-URI with headers"),
    ("regbadct", 400, "not a parameter: '?Route=%3Csip:sip.example.com%3E'"),
    ("badaspec", 400, "not a URI: ' t.watson@example.org '"),
    ("baddn", 400, "a URI without a scheme: 'Bell'"),
    ("badvers", 505, "SIP version 7.0"),
    ("mismatch01", 400, "the method is OPTIONS, CSeq says INVITE"),
    ("mismatch02", 400, "the method is NEWMETHOD, CSeq says INVITE"),
    ("insuf", 400, "no From"),
    ("multi01", 400, "more than one CSeq"),
    ("mcl01", 400, "more than one Content-Length"),
    ("ipv6-bad", 400, "not a sip URI: 'sip:2001:db8::10'"),
]

HEAD = (
    b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"
    b"From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c1\r\nCSeq: 1 OPTIONS\r\n"
)
OPTIONS = b"OPTIONS sip:b@h SIP/2.0\r\n" + HEAD
ANSWERABLE = PartialRequest(
    "OPTIONS",
    (Via("UDP", "192.0.2.1", None, Params((("branch", "z9hG4bK1"),))),),
    (("From", "<sip:a@h>;tag=1"), ("To", "<sip:b@h>"), ("Call-ID", "c1"), ("CSeq", "1 OPTIONS")),
)


def golden(name: str) -> bytes:
    """The bytes of one golden message."""
    return (GOLDEN / f"{name}.sip").read_bytes()


def read(data: bytes) -> Request:
    """Parse what must be a request."""
    message = parse_message(data)
    assert isinstance(message, Request)
    return message


def refusal(data: bytes, limits: Limits = Limits()) -> RemoteError:  # noqa: B008 - a frozen value
    """The error that these bytes raise."""
    with pytest.raises(RemoteError) as caught:
        parse_message(data, limits)
    return caught.value


def facts(error: RemoteError) -> tuple[int, str, PartialRequest | None]:
    """What an endpoint learns of a refused request."""
    assert isinstance(error, MalformedRequest)
    return error.reply, error.message, error.partial


@pytest.mark.parametrize("name", READABLE)
def test_a_valid_message_is_read_and_keeps_its_meaning(name: str) -> None:
    """Every readable golden parses, and reads the same after it was encoded again."""
    message = parse_message(golden(name))
    assert parse_message(encode_message(message)) == message


@pytest.mark.parametrize(("name", "reply", "problem"), REFUSED)
def test_an_invalid_request_is_refused_and_can_be_answered(name: str, reply: int, problem: str) -> None:
    """Every broken golden gives its status and reason, and enough of it is left to send the answer."""
    error = refusal(golden(name))
    assert isinstance(error, MalformedRequest)
    assert (error.reply, str(error)) == (reply, problem)
    assert error.partial is not None
    assert encode_refusal(error.partial, error.reply).startswith(b"SIP/2.0 %d " % reply)


@pytest.mark.parametrize("name", ["scalarlg", "bigcode"])
def test_an_invalid_response_is_never_answerable(name: str) -> None:
    """A broken response is a plain RemoteError: there is nothing to answer."""
    assert type(refusal(golden(name))) is RemoteError


def test_every_golden_has_an_outcome() -> None:
    """No file in the folder is forgotten by the tables."""
    listed = {*READABLE, *(name for name, _, _ in REFUSED), "scalarlg", "bigcode"}
    assert {path.stem for path in GOLDEN.glob("*.sip")} == listed


@pytest.mark.rfc("4475", "3.1.1.1")
def test_white_space_and_folding_do_not_hide_anything() -> None:
    """RFC 4475 3.1.1.1: folded lines, spaces around separators, compact names, odd cases."""
    message = read(golden("wsinv"))
    assert message.from_ == NameAddr(Uri("sip", "jdrosen", None, "example.com"), 'J Rosenberg \\"').tagged("98asjd8")
    assert message.to == NameAddr(
        Uri("sip", "vivekg", None, "chair-dnrc.example.com"), "", Params((("tag", "1918181833n"),))
    )
    assert (message.max_forwards, message.cseq) == (68, CSeq(9, "INVITE"))
    assert [(via.transport, via.host, via.branch) for via in message.vias] == [
        ("UDP", "192.0.2.2", "390skdjuw"),
        ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
        ("UDP", "192.168.255.111", "z9hG4bK30239"),
    ]
    assert message.contacts == (
        NameAddr(
            Uri("sip", "jdrosen", None, "example.com"),
            'Quoted string ""',
            Params((("newparam", "newvalue"), ("secondparam", None), ("q", "0.33"))),
        ),
    )
    assert message.routes[0].uri == parse_uri("sip:services.example.com;lr;unknownwith=value;unknown-no-value")
    assert message.lines == (
        ("Subject", ""),
        ("NewFangledHeader", "newfangled value continued newfangled value"),
        ("UnknownHeaderWithUnusualValue", ";;,,;;,;"),
        ("Content-Type", "application/sdp"),
    )
    assert len(message.body) == 150


@pytest.mark.rfc("4475", "3.1.1.2")
def test_every_character_the_grammar_allows_is_read() -> None:
    """RFC 4475 3.1.1.2: odd tokens, escaped control characters in a name, UTF-8 in a parameter."""
    message = read(golden("intmeth"))
    assert message.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert message.uri.password == "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert message.to.display_name == "BEL:\x07 NUL:\x00 DEL:\x7f"
    assert message.from_.display_name == "token1~` token2'+_ token3*%!.-"
    assert message.from_.tag == "_token~1'+`*%!-."
    assert (
        message.from_.params.get("fromParam''~+*_!.-%")
        == '"\u0440\u0430\u0431\u043e\u0442\u0430\u044e\u0449\u0438\u0439"'
    )
    assert message.call_id == "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"


@pytest.mark.rfc("4475", "3.1.1.3")
def test_escapes_are_kept_and_names_are_not_unescaped() -> None:
    """RFC 4475 3.1.1.3 to 3.1.1.5: `%40` is no `@`, `%6C%72` is no `lr`, `C%6Fntact` is no Contact."""
    message = read(golden("esc01"))
    assert message.uri == Uri("sip", "sips%3Auser%40example.com", None, "example.net")
    assert "lr" not in message.contacts[0].uri.params
    assert [str(contact.uri) for contact in read(golden("escnull")).contacts] == [
        "sip:%00@host5.example.com",
        "sip:%00%00@host5.example.com",
    ]
    message = read(golden("esc02"))
    assert (message.method, message.to.display_name) == ("RE%47IST%45R", "%Z%45")
    assert len(message.contacts) == 2
    assert message.header("c%6fntact") == "<sip:alias2@host2.example.com>"


@pytest.mark.rfc("4475", "3.1.1.8")
def test_a_datagram_holds_one_message() -> None:
    """RFC 4475 3.1.1.8: what follows the body that Content-Length announces is ignored."""
    message = read(golden("dblreq"))
    assert (message.method, message.body) == ("REGISTER", b"")


@pytest.mark.rfc("4475", "3.1.1.7")
def test_a_long_request_is_read_whole() -> None:
    """RFC 4475 3.1.1.7: 33 Vias one by one and in a list, long names and values."""
    message = read(golden("longreq"))
    assert [via.host for via in message.vias] == [f"sip{number}.example.com" for number in range(33, 0, -1)]
    assert len(message.via.params.items) == 0
    assert message.vias[-1].branch == "z9hG4bK" + "long" * 40


@pytest.mark.rfc("4475", "3.1.1.12")
def test_responses_keep_any_reason() -> None:
    """RFC 4475 3.1.1.12 and 3.1.1.13: UTF-8 with digits and signs, and none at all."""
    message = parse_message(golden("unreason"))
    assert isinstance(message, Response)
    reason = "= 2**3 * 5**2 "
    reason += "\u043d\u043e \u0441\u0442\u043e "
    reason += "\u0434\u0435\u0432\u044f\u043d\u043e\u0441\u0442\u043e \u0434\u0435\u0432\u044f\u0442\u044c - "
    reason += "\u043f\u0440\u043e\u0441\u0442\u043e\u0435"
    assert (message.status, message.reason) == (200, reason)
    message = parse_message(golden("noreason"))
    assert isinstance(message, Response)
    assert (message.status, message.reason) == (100, "")


@pytest.mark.rfc("4475", "3.4.1")
def test_an_rfc_2543_invite_is_still_read() -> None:
    """RFC 4475 3.4.1: no branch, no tag, no Max-Forwards, no Content-Length."""
    message = read(golden("inv2543"))
    assert (message.via.branch, message.from_.tag, message.max_forwards) == (None, None, 70)
    assert len(message.body) == 150


@pytest.mark.rfc("4475", "3.3.2")
def test_unknown_schemes_are_left_for_416() -> None:
    """RFC 4475 3.3.2 to 3.3.4: the message is read, the scheme says what it is."""
    assert read(golden("unkscm")).uri.scheme == "nobodyknowsthisscheme"
    assert read(golden("novelsc")).uri.scheme == "soap.beep"
    assert [address.uri.scheme for address in (*read(golden("unksm2")).contacts,)] == ["name"]


def test_ipv6_references_lose_their_brackets_in_values() -> None:
    """RFC 5118: hosts are addresses as a socket wants them; `received` stays as written, with or without brackets."""
    assert read(golden("port-unambiguous")).uri == Uri("sip", None, None, "2001:db8::10", 5070)
    assert [(via.host, via.port) for via in read(golden("mult-ip-in-header")).vias] == [
        ("2001:db8::9:1", 6050),
        ("192.0.2.1", None),
        ("2001:db8::9:255", None),
    ]
    assert read(golden("via-received-param-with-delim")).via.params.get("received") == "[2001:db8::9:255]"
    assert read(golden("via-received-param-no-delim")).via.params.get("received") == "2001:db8::9:255"
    assert read(golden("ipv4-mapped-ipv6")).contacts[0].uri.host == "::ffff:192.0.2.2"


def test_a_call_of_rfc_3665_is_read_into_one_dialog() -> None:
    """Session establishment, 3.1: the six messages agree on the identifiers a dialog is made of."""
    flow = [
        parse_message(golden(f"flow-{name}"))
        for name in ("f1-invite", "f2-ringing", "f3-ok", "f4-ack", "f5-bye", "f6-ok")
    ]
    assert {message.call_id for message in flow} == {"3848276298220188511@atlanta.example.com"}
    assert [(message.from_.tag, message.to.tag) for message in flow] == [
        ("9fxced76sl", None),
        *[("9fxced76sl", "8321234356")] * 3,
        *[("8321234356", "9fxced76sl")] * 2,
    ]
    assert [message.content_type for message in flow] == ["application/sdp", None, "application/sdp", None, None, None]


@pytest.mark.rfc("3261", "18.3")
def test_content_length_decides_where_the_body_ends() -> None:
    """Shorter cuts, absent takes the rest, longer or unreadable is 400 (18.3)."""
    assert read(OPTIONS + b"Content-Length: 2\r\n\r\nabcd").body == b"ab"
    assert read(OPTIONS + b"\r\nabcd").body == b"abcd"
    for value in (b"5", b"+4", b"-1", b"4 4", b"4,4", b"", b"0x4", b"4" * 5000):
        assert facts(refusal(OPTIONS + b"Content-Length: " + value + b"\r\n\r\nabcd"))[::2] == (400, ANSWERABLE)


@pytest.mark.rfc("3261", "7.5")
def test_line_ends_before_the_start_line_are_ignored() -> None:
    """Section 7.5."""
    assert read(b"\r\n\r\n\r\n" + OPTIONS + b"\r\n") == read(OPTIONS + b"\r\n")


@pytest.mark.rfc("3261", "7.3.1")
def test_repeated_and_combined_values_are_the_same() -> None:
    """Section 7.3.1: Via, Contact, Route and Record-Route, in order."""
    one = (
        b'Via: SIP/2.0/UDP a, SIP/2.0/TCP b\r\nContact: <sip:c>, "d, e" <sip:d,e@h>\r\nRoute: <sip:f;lr>,<sip:g;lr>\r\n'
    )
    two = (
        b'v: SIP/2.0/UDP a\r\nv: SIP/2.0/TCP b\r\nm: <sip:c>\r\nm: "d, e" <sip:d,e@h>\r\n'
        b"Route: <sip:f;lr>\r\nROUTE: <sip:g;lr>\r\n"
    )
    assert read(OPTIONS + one + b"\r\n") == read(OPTIONS + two + b"\r\n")
    assert [str(route.uri) for route in read(OPTIONS + one + b"\r\n").routes] == ["sip:f;lr", "sip:g;lr"]


@pytest.mark.parametrize("name", [b"From", b"f", b"TO", b"i", b"cseq", b"Max-Forwards", b"c"])
def test_a_second_copy_is_400(name: bytes) -> None:
    """What two readers could read differently is refused, whatever name it hides behind."""
    value = {b"cseq": b"1 OPTIONS", b"i": b"c1", b"Max-Forwards": b"70", b"c": b"a/b"}.get(name, b"<sip:a@h>;tag=1")
    data = OPTIONS + b"Max-Forwards: 70\r\nContent-Type: a/b\r\n" + name + b": " + value + b"\r\n\r\n"
    assert facts(refusal(data))[::2] == (400, ANSWERABLE)


@pytest.mark.parametrize("missing", [b"Via", b"From", b"To", b"Call-ID", b"CSeq"])
def test_a_missing_mandatory_header_is_400(missing: bytes) -> None:
    """The rest is there to answer with; without a Via there is nobody to answer."""
    lines = [line for line in HEAD.split(b"\r\n") if not line.startswith(missing + b":")]
    reply, problem, partial = facts(refusal(b"OPTIONS sip:b@h SIP/2.0\r\n" + b"\r\n".join(lines) + b"\r\n"))
    name = missing.decode()
    left = attrs.evolve(ANSWERABLE, lines=tuple(line for line in ANSWERABLE.lines if line[0] != name))
    assert (reply, problem) == (400, f"no {name}")
    assert partial == (None if name == "Via" else left)


@pytest.mark.parametrize(
    "line",
    [
        b"X\n-A: b",
        b"X-A: b\nFrom: <sip:evil>",
        b"X-A: b\rFrom: <sip:evil>",
        b"X-A: b\x00c",
        b"X-A: b\x1b[2J",
        b"X-A: b\x7f",
        b"no colon",
        b": no name",
        b"X A: space in the name",
        b"X(A): no token",
        b"X\xc3\xa4: no token",
        b"CSeq : 4294967296 OPTIONS",
        b"Max-Forwards: 256",
        b"Max-Forwards: 7O",
        b"Max-Forwards:",
        b"Contact: *, <sip:a>",
        b"Contact: <sip:a",
        b"Contact: <sip:a>;expires=",
        b"Contact:",
        b"Route: sip:a;lr",
        b"Record-Route: <>",
    ],
)
def test_a_broken_line_is_400_and_answered(line: bytes) -> None:
    """Controls, bare CR or LF, names that are no tokens, and typed values that are none."""
    assert facts(refusal(OPTIONS + line + b"\r\n\r\n"))[::2] == (400, ANSWERABLE)


@pytest.mark.parametrize(
    "value", ["", "h", "SIP/3.0/UDP h", "SIP/2.0/UDP h:0", "SIP/2.0/UDP h;branch=a;branch=b", "SIP/2.0/UDP h,"]
)
def test_a_broken_via_below_the_top_is_400_and_answered(value: str) -> None:
    """The answer goes to the top Via; of the others as much comes along as can be read."""
    reply, _, partial = facts(refusal(OPTIONS + f"Via: {value}\r\n\r\n".encode()))
    assert (reply, partial and (partial.vias[0], partial.lines)) == (400, (ANSWERABLE.vias[0], ANSWERABLE.lines))


def test_the_highest_numbers_are_read() -> None:
    """CSeq 2**31-1 and Max-Forwards 255, with any number of zeros in front."""
    data = OPTIONS.replace(b"CSeq: 1", b"CSeq: " + b"0" * 5000 + b"2147483647") + b"Max-Forwards: 0255\r\n\r\n"
    message = read(data)
    assert (message.cseq, message.max_forwards) == (CSeq(2**31 - 1, "OPTIONS"), 255)


def test_an_ack_is_never_answered() -> None:
    """A malformed ACK has no partial (17.1.1.3: nobody answers an ACK)."""
    data = b"ACK sip:b@h SIP/2.0\r\n" + HEAD + b"\r\n"
    assert facts(refusal(data)) == (400, "the method is ACK, CSeq says OPTIONS", None)


@pytest.mark.parametrize(
    "data",
    [b"", b"\r\n\r\n", b"\x00" * 20, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n", b"\x80\x00" * 90],
)
def test_what_is_no_request_is_not_answerable(data: bytes) -> None:
    """Noise, other protocols and bad responses are plain RemoteErrors."""
    assert type(refusal(data)) is RemoteError


def test_a_head_without_its_end_is_refused() -> None:
    """The empty line is mandatory; what was read still makes an answer."""
    assert facts(refusal(OPTIONS)) == (400, "no empty line after the header", ANSWERABLE)


def test_text_that_is_not_utf_8_is_taken_for_latin_1() -> None:
    """An old phone's umlaut is a name, not an error; it leaves as UTF-8."""
    data = OPTIONS.replace(b"From: ", b'From: "J\xfcrgen" ') + b"\r\n"
    assert read(data).from_.display_name == "J\u00fcrgen"
    assert b'From: "J\xc3\xbcrgen" <sip:a@h>;tag=1' in encode_message(read(data))
    assert read(data.replace(b"\xfc", b"\xc3\xbc")) == read(data)


def test_a_star_contact_stays_a_line() -> None:
    """`Contact: *` of a REGISTER is no address, and survives."""
    message = read(OPTIONS + b"Contact: *\r\n\r\n")
    assert (message.contacts, message.lines) == ((), (("Contact", "*"),))
    assert parse_message(encode_message(message)) == message


BOMBS = [
    (OPTIONS + b"X: y\r\n" * 10000 + b"\r\n", 513),
    (OPTIONS + b"X: " + b"y" * 9000 + b"\r\n\r\n", 513),
    (OPTIONS + b"X: y\r\n" + b" \r\n y\r\n" * 3000 + b"\r\n", 513),
    (OPTIONS + b"Via: " + b", ".join([b"SIP/2.0/UDP h"] * 80) + b"\r\n\r\n", 513),
    (OPTIONS + b"Contact: " + b",".join([b"<sip:h>"] * 80) + b"\r\n\r\n", 513),
    (OPTIONS + b"Contact: <sip:h>" + b";p" * 2000 + b"\r\n\r\n", 400),
    (OPTIONS + b"Contact: " + b'"' * 8000 + b"\r\n\r\n", 400),
    (OPTIONS + b"Contact: " + b"<" * 8000 + b"\r\n\r\n", 400),
    (OPTIONS + b"Contact: " + b"\\" * 8000 + b"\r\n\r\n", 400),
    (OPTIONS + b"Contact: " + b" \t" * 4000 + b"x\r\n\r\n", 400),
    (OPTIONS + b"Contact: <sip:" + b"a:" * 4000 + b">\r\n\r\n", 400),
    (OPTIONS + b"Contact: <sip:" + b"a;" * 4000 + b">\r\n\r\n", 400),
    (OPTIONS + b"Via: SIP/2.0/UDP h" + b" ;" * 4000 + b"\r\n\r\n", 400),
    (OPTIONS + b"CSeq: " + b"0" * 8000 + b"\r\n\r\n", 400),
    (OPTIONS + b"\r\n" + b"x" * 65536, 513),
    (b"OPTIONS sip:" + b"a" * 9000 + b" SIP/2.0\r\n" + HEAD + b"\r\n", 414),
]


@pytest.mark.parametrize(("data", "reply"), BOMBS)
def test_a_header_bomb_is_refused(data: bytes, reply: int) -> None:
    """Too much of anything, and text made to send a matcher back and forth, gets its status."""
    assert refusal(data).reply == reply


def test_limits_are_the_callers() -> None:
    """Every limit is a number that can be set, and exactly that much is allowed."""
    data = OPTIONS + b"\r\n"
    exact = Limits(message=len(data), line=42, headers=5, vias=1, addresses=0)
    assert parse_message(data, exact) == parse_message(data)
    for name in ("message", "line", "headers", "vias"):
        smaller = attrs.evolve(exact, **{name: getattr(exact, name) - 1})
        assert refusal(data, smaller).reply == 513


@given(st.binary(max_size=200) | mutated(messages.map(encode_message)))
def test_any_bytes_give_a_message_or_our_error(data: bytes) -> None:
    """Nothing but RemoteError is raised; what is read can be sent on, what is not can be answered."""
    sip_message(data)


GOLDENS = sorted(path.stem for path in GOLDEN.glob("*.sip"))


@given(mutated(st.sampled_from(GOLDENS).map(golden)))
def test_a_broken_golden_gives_a_message_or_our_error(data: bytes) -> None:
    """The same for what is left of the torture messages after a few edits."""
    sip_message(data)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    """URIs, addresses, Vias, CSeqs and lists: RemoteError, or what is written and reads the same."""
    sip_address(text.encode())


def test_lists_split_at_their_own_commas_only() -> None:
    """Commas in quotes and brackets belong to the value; empty values are refused."""
    assert split_list('"a, b" <sip:c,d>;e="f,\\"g" , <sip:h>') == ['"a, b" <sip:c,d>;e="f,\\"g"', "<sip:h>"]
    for broken in ("a,", ",a", "a,,b", 'a,"b', "a,<b"):
        with pytest.raises(RemoteError):
            split_list(broken)


def test_token_lists_come_out_in_order() -> None:
    """Allow and Require as the endpoint needs them, over several fields, noise left out."""
    assert list_tokens(["INVITE, ACK,BYE", " timer ", 'a b,,"c"']) == ("INVITE", "ACK", "BYE", "timer")
