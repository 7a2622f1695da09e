"""URIs: what they say, what is refused, and that nothing gets lost between reading and writing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import RemoteError
from rustpbx.sip.uri import Params, Uri, host_port, parse_aor, parse_uri
from tests.kit.predicates import sip_address
from tests.kit.strategies_sip import uris

READ = [
    ("sip:bob@example.com", Uri("sip", "bob", None, "example.com")),
    ("SIPS:bob@example.com:5061", Uri("sips", "bob", None, "example.com", 5061)),
    ("sip:example.com;lr", Uri("sip", None, None, "example.com", None, Params((("lr", None),)))),
    ("sip:a:secret@h;x=1?Subject=hi", Uri("sip", "a", "secret", "h", None, Params((("x", "1"),)), "Subject=hi")),
    ("sip:[2001:db8::10]:5070", Uri("sip", None, None, "2001:db8::10", 5070)),
    ("sip:[2001:db8::10:5070]", Uri("sip", None, None, "2001:db8::10:5070")),
    ("sip:user;par=u%40example.net@example.com", Uri("sip", "user;par=u%40example.net", None, "example.com")),
    ("sip:*#21#@gw", Uri("sip", "*#21#", None, "gw")),
    (
        "tel:+358-555-1234567;phone-context=+358",
        Uri("tel", "+358-555-1234567", None, "", None, Params((("phone-context", "+358"),))),
    ),
    ("nobodyKnowsThisScheme:totallyopaquecontent", Uri("nobodyknowsthisscheme", None, None, "totallyopaquecontent")),
    ("soap.beep://192.0.2.103:3002", Uri("soap.beep", None, None, "//192.0.2.103:3002")),
]

REFUSED = [
    "",
    "sip:",
    "sip",
    "bob@example.com",
    "sip:@example.com",
    "sip:bob@",
    "sip:a@b@c",
    "sip:bob@example.com:0",
    "sip:bob@example.com:65536",
    "sip:bob@example.com:99999999",
    "sip:bob@exa mple.com",
    "sip:bob@example.com;",
    "sip:bob@example.com;;lr",
    "sip:bob@example.com;lr;LR",
    "sip:b%4@example.com",
    "sip:b%zz@example.com",
    "sip:2001:db8::10",
    "sip:[2001:db8::g]",
    "sip:[::1",
    "sip:bob@example.com\r\nX: y",
    "sip:b\x00b@example.com",
    "sip:b\u00f6b@example.com",
    "<sip:bob@example.com>",
    'sip:"bob"@example.com',
    "tel:",
    "tel:12%3",
    "sip:bob@example.com" + ";p" * 65,
]


@pytest.mark.parametrize(("text", "uri"), READ)
def test_a_uri_is_read_into_its_parts(text: str, uri: Uri) -> None:
    """Every part lands in its field, and a written scheme's case is the only thing that changes."""
    assert parse_uri(text) == uri
    assert str(uri).partition(":")[2] == text.partition(":")[2]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_uri_is_answered_with_400(text: str) -> None:
    """Broken URIs are refused with the reply they deserve."""
    with pytest.raises(RemoteError) as caught:
        parse_uri(text)
    assert caught.value.reply == 400


@given(uris)
def test_a_written_uri_reads_the_same(uri: Uri) -> None:
    """parse(str(uri)) == uri for every URI that can be built of legal parts."""
    assert parse_uri(str(uri)) == uri


@given(st.text() | st.text('sip:@;?=[]%<>"\\,0a').map(lambda text: "sip:" + text))
def test_any_text_is_a_uri_or_refused(text: str) -> None:
    """No text raises anything but RemoteError, and what is accepted survives a round trip."""
    sip_address(text.encode())


def test_parameters_compare_their_names_without_case() -> None:
    """get, set, without and `in` ignore case; set keeps the place and the order."""
    params = Params((("Transport", "udp"), ("lr", None)))
    assert (params.get("transport"), params.get("LR"), params.get("maddr")) == ("udp", "", None)
    assert params.set("TRANSPORT", "tcp") == Params((("Transport", "tcp"), ("lr", None)))
    assert params.set("ob", None) == Params((("Transport", "udp"), ("lr", None), ("ob", None)))
    assert params.without("LR") == Params((("Transport", "udp"),))
    assert "lr" in params
    assert "x" not in params
    assert (str(params), str(Params()), bool(Params())) == (";Transport=udp;lr", "", False)


def test_equal_uris_are_one_key() -> None:
    """URIs and parameters are hashable values."""
    assert len({parse_uri("sip:a@b;lr"), parse_uri("sip:a@b;lr")}) == 1


def test_an_address_needs_no_scheme_in_a_configuration() -> None:
    """`bob@host` means `sip:bob@host`; a URI stays what it is; a web address is refused."""
    assert parse_aor(" bob@example.com ") == parse_uri("sip:bob@example.com")
    assert parse_aor("localhost:5060") == Uri("sip", None, None, "localhost", 5060)
    assert parse_aor("tel:+123") == parse_uri("tel:+123")
    with pytest.raises(RemoteError):
        parse_aor("https://example.com")


def test_ipv6_hosts_are_bracketed_only_in_text() -> None:
    """The host field is what a socket wants, the text what SIP wants."""
    assert host_port("::1", 5060) == "[::1]:5060"
    assert host_port("example.com", None) == "example.com"
