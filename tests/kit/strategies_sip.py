"""Hypothesis strategies for SIP: any message that RFC 3261 lets us send, and ways to break one."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from rustpbx.sip.headers import quote
from rustpbx.sip.message import CSeq, Lines, NameAddr, Request, Response, Via
from rustpbx.sip.uri import Params, Uri

ALPHANUM = string.ascii_letters + string.digits
TOKEN_CHARS = ALPHANUM + "-.!%*_+`'~"
URI_CHARS = ALPHANUM + "-_.!~*'()&=+$,/"

NASTY = (
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\x00",
    b"\xff\xc3",
    b'"',
    b"\\",
    b"<",
    b">",
    b",",
    b";",
    b";;",
    b":",
    b"@",
    b"%",
    b"[",
    b" ",
    b"\t",
    b"\r\n ",
    b"Content-Length: 5\r\n",
    b"l: 99999999999999999999\r\n",
    b'Via: SIP/2.0/UDP a;b="c, d";e\r\n',
    b"Contact: *\r\n",
    b"t: <sip:x>\r\n",
    b"SIP/2.0",
)
"""Pieces that have broken parsers before."""

tokens = st.text(TOKEN_CHARS, min_size=1, max_size=12)
free_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=20)
plain_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map(lambda text: text.strip(" \t"))
hosts = st.sampled_from(["example.com", "a", "under_score.example", "192.0.2.1", "2001:db8::9:1", "::1"]) | st.text(
    ALPHANUM + "-.", min_size=1, max_size=12
)
ports = st.none() | st.integers(1, 65535)
escapes = st.integers(0, 255).map(lambda number: f"%{number:02X}")


def uri_text(extra: str = "") -> st.SearchStrategy[str]:
    """Text of unreserved and these characters, with escapes."""
    pieces = st.text(URI_CHARS + extra, min_size=1, max_size=6) | escapes
    return st.lists(pieces, min_size=1, max_size=4).map("".join)


def params(names: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[Params]:
    """Parameters whose names differ."""
    pairs = st.tuples(names, st.none() | values)
    return st.lists(pairs, max_size=4, unique_by=lambda item: item[0].lower()).map(lambda items: Params(tuple(items)))


uri_params = params(uri_text().map(lambda text: text.replace("=", "")).filter(bool), uri_text("[]:"))
header_params = params(tokens, tokens | free_text.map(quote) | st.just("[2001:db8::1]"))


@st.composite
def sip_uris(draw: st.DrawFn, *, headers: bool = True) -> Uri:
    """A sip or sips URI."""
    user = draw(st.none() | uri_text(";?"))
    password = draw(st.none() | uri_text()) if user is not None else None
    after = draw(st.just("") | uri_text(":?")) if headers else ""
    scheme = draw(st.sampled_from(["sip", "sips"]))
    return Uri(scheme, user, password, draw(hosts), draw(ports), draw(uri_params), after)


tel_uris = st.builds(lambda number, more: Uri("tel", number, None, "", None, more), uri_text(), uri_params)
other_uris = st.builds(lambda opaque: Uri("soap.beep", None, None, opaque), uri_text(";?@:[]"))
uris = sip_uris() | tel_uris | other_uris
name_addrs = st.builds(NameAddr, uris, free_text, header_params)
vias = st.builds(Via, tokens.map(str.upper), hosts, ports, header_params)
call_ids = st.text(ALPHANUM + "-.!%*_+`'~()<>:\\\"/[]?{}@", min_size=1, max_size=30)


@st.composite
def lines(draw: st.DrawFn) -> Lines:
    """Header fields the stack only carries."""
    known = st.sampled_from(["Subject", "Supported", "User-Agent", "Allow", "Reason", "P-Asserted-Identity"])
    names = known | tokens.map(lambda token: f"X-{token}")
    return tuple(draw(st.lists(st.tuples(names, plain_text), max_size=4)))


def _lists(of: st.SearchStrategy[NameAddr]) -> st.SearchStrategy[tuple[NameAddr, ...]]:
    return st.lists(of, max_size=2).map(tuple)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request of any method."""
    method = draw(st.sampled_from(["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS"]) | tokens)
    return Request(
        method=method,
        uri=draw(sip_uris(headers=False) | tel_uris | other_uris),
        vias=tuple(draw(st.lists(vias, min_size=1, max_size=3))),
        max_forwards=draw(st.integers(0, 255)),
        routes=draw(_lists(name_addrs)),
        record_routes=draw(_lists(name_addrs)),
        from_=draw(name_addrs),
        to=draw(name_addrs),
        call_id=draw(call_ids),
        cseq=CSeq(draw(st.integers(0, 2**31 - 1)), method),
        contacts=draw(_lists(name_addrs)),
        lines=draw(lines()),
        body=draw(st.binary(max_size=40)),
    )


@st.composite
def responses(draw: st.DrawFn) -> Response:
    """A response of any status."""
    return Response(
        status=draw(st.integers(100, 699)),
        reason=draw(plain_text),
        vias=tuple(draw(st.lists(vias, min_size=1, max_size=3))),
        from_=draw(name_addrs),
        to=draw(name_addrs),
        call_id=draw(call_ids),
        cseq=CSeq(draw(st.integers(0, 2**31 - 1)), draw(tokens)),
        record_routes=draw(_lists(name_addrs)),
        contacts=draw(_lists(name_addrs)),
        lines=draw(lines()),
        body=draw(st.binary(max_size=40)),
    )


messages = requests() | responses()


@st.composite
def mutated(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were a message before up to five edits: something removed, repeated, overwritten or put in."""
    data = draw(originals)
    for _ in range(draw(st.integers(1, 5))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 12)))
        put = draw(st.sampled_from(NASTY) | st.binary(max_size=4) | st.just(data[begin:end] * 2))
        data = data[:begin] + put + data[end:]
    return data
