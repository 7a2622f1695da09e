"""SDP to values and back: real descriptions, tolerated sins, limits, any bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rustpbx.errors import LocalError
from rustpbx.media.events import Direction
from rustpbx.media.sdp import SdpError, SessionDescription, encode_sdp, parse_sdp
from rustpbx.media.sdp.model import (
    Attribute,
    Connection,
    Fmtp,
    Line,
    MediaDescription,
    Origin,
    RtcpPort,
    RtpMap,
    Ssrc,
)
from rustpbx.media.sdp.parser import Limits
from tests.kit.predicates import sdp
from tests.kit.strategies_media import DESCRIPTIONS

GOLDEN = sorted((Path(__file__).parent.parent / "golden" / "sdp").glob("*.sdp"))
HEAD = b"v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=-\r\n"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_goldens_round_trip(path: Path) -> None:
    """What real implementations write is read, and reading what we write of it gives the same."""
    description = parse_sdp(path.read_bytes())
    assert parse_sdp(encode_sdp(description)) == description


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_goldens_lose_no_line(path: Path) -> None:
    """Every line of the original is in what we write, in whatever order."""
    lines = path.read_text().split("\n")
    written = encode_sdp(parse_sdp(path.read_bytes())).decode().split("\r\n")
    assert {line.rstrip("\r") for line in lines} - set(written) <= {""}


def test_baresip_in_full() -> None:
    """One description value by value: IPv6, session attribute, rtcp, ssrc, typed and untyped attributes."""
    path = next(path for path in GOLDEN if path.stem == "baresip")
    address = Connection("2001:db8::5", "IP6")
    assert parse_sdp(path.read_bytes()) == SessionDescription(
        origin=Origin("3823710842", "2183941204", address),
        connection=address,
        attributes=(Attribute("tool", "baresip 1.0.0"),),
        media=(
            MediaDescription(
                kind="audio",
                port=20480,
                protocol="RTP/AVP",
                formats=("8", "0", "101"),
                rtpmaps=(RtpMap(8, "PCMA", 8000), RtpMap(0, "PCMU", 8000), RtpMap(101, "telephone-event", 8000)),
                fmtps=(Fmtp("101", "0-15"),),
                rtcp=RtcpPort(20481),
                rtcp_mux=True,
                ssrcs=(Ssrc(3823710842, "cname", "sip:alice@example.com"),),
                direction=Direction.SENDRECV,
                ptime=20,
                attributes=(Attribute("label", "1"), Attribute("rtcp-rsize")),
            ),
        ),
    )


def test_levels_and_static_types() -> None:
    """Media level wins over session level; static payload types need no rtpmap."""
    description = parse_sdp(
        HEAD + b"c=IN IP4 192.0.2.1\r\nt=0 0\r\na=sendonly\r\n"
        b"m=audio 4000 RTP/AVP 18 8\r\na=rtpmap:8 L8/8000\r\n"
        b"m=audio 5000/2 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\na=inactive\r\n"
    )
    first, second = description.media
    assert (description.connection_of(first), description.connection_of(second)) == (
        Connection("192.0.2.1"),
        Connection("192.0.2.2"),
    )
    assert (description.direction_of(first), description.direction_of(second)) == (
        Direction.SENDONLY,
        Direction.INACTIVE,
    )
    assert first.offered() == (RtpMap(18, "G729", 8000), RtpMap(8, "L8", 8000))
    assert (second.port, second.ports, second.offered()) == (5000, 2, (RtpMap(0, "PCMU", 8000),))


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n", b"\r"])
def test_line_ends(line_end: bytes) -> None:
    """CRLF, LF and CR end a line; the last one may be missing, empty lines are passed over."""
    text = line_end.join([b"v=0", b"o=- 1 2 IN IP4 192.0.2.1", b"s=-", b"t=0 0", b"", b"m=audio 4 RTP/AVP 0"])
    assert parse_sdp(text) == parse_sdp(text.replace(line_end, b"\r\n") + b"\r\n\r\n")


def test_what_is_unknown_is_kept() -> None:
    """Unknown lines, attributes whose value is nonsense, repeated attributes: text that comes back out."""
    data = HEAD + (
        b"t=0 0\r\nY=what\r\nm=audio 4 RTP/AVP 0\r\na=ptime:20\r\na=sendonly\r\na=ptime:fast\r\n"
        b"a=rtpmap:1000 x/8000\r\na=rtcp:0\r\na=ptime:30\r\na=recvonly\r\nb=AS:64\r\n"
    )
    description = parse_sdp(data)
    media = description.media[0]
    assert description.extra == (Line("Y", "what"),)
    assert (media.ptime, media.direction, media.rtpmaps, media.rtcp) == (20, Direction.SENDONLY, (), None)
    assert media.attributes == (
        Attribute("ptime", "fast"),
        Attribute("rtpmap", "1000 x/8000"),
        Attribute("rtcp", "0"),
        Attribute("ptime", "30"),
        Attribute("recvonly"),
    )
    assert media.extra == (Line("b", "AS:64"),)
    assert parse_sdp(encode_sdp(description)) == description


def test_latin_1_comes_through() -> None:
    """A subject that is not UTF-8 is neither refused nor changed."""
    data = b"v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=Gespr\xe4ch\r\nt=0 0\r\n"
    assert encode_sdp(parse_sdp(data)) == data


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "v=0"),
        (b"hello", "x="),
        (b"o=- 1 2 IN IP4 192.0.2.1\r\nv=0\r\n", "v=0"),
        (b"v=0\r\ns=-\r\n", "o="),
        (b"v=0\r\no=- 1 2 IN IP4\r\n", "too short"),
        (b"v=0\r\no=- 1 2 IN IP4 h\r\no=- 1 2 IN IP4 h\r\n", "twice"),
        (HEAD + b"c=IN IP4\r\n", "IN IP4 host"),
        (HEAD + b"m=audio 4000 RTP/AVP\r\n", "too short"),
        (HEAD + b"m=audio 99999 RTP/AVP 0\r\n", "not a number"),
        (HEAD + b"m=audio -1 RTP/AVP 0\r\n", "not a number"),
        (HEAD + b"a=x\0y\r\n", "NUL"),
    ],
)
def test_broken_descriptions(body: bytes, problem: str) -> None:
    """Each is `SdpError`, to be answered 400, saying what is wrong."""
    with pytest.raises(SdpError, match=problem) as caught:
        parse_sdp(body)
    assert caught.value.reply == 400


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"a=" + b"x" * 70_000,
        HEAD + b"a=x\r\n" * 3000,
        HEAD + b"m=audio 4 RTP/AVP 0\r\n" * 65,
        HEAD + b"m=audio 4 RTP/AVP" + b" 0" * 129,
    ],
)
def test_limits(body: bytes) -> None:
    """Bombs are refused as too large."""
    with pytest.raises(SdpError, match="too l") as caught:
        parse_sdp(body)
    assert caught.value.reply == 413


def test_limits_are_the_callers() -> None:
    """A smaller limit refuses what the default takes."""
    with pytest.raises(SdpError):
        parse_sdp(HEAD, Limits(size=10))


def test_a_value_cannot_break_out_of_its_line() -> None:
    """Our own values with line ends are our mistake, and nothing is written."""
    with pytest.raises(LocalError):
        encode_sdp(SessionDescription(origin=Origin("1", "1", Connection("192.0.2.1")), name="x\r\na=inactive"))


@given(DESCRIPTIONS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_round_trip(description: SessionDescription) -> None:
    """Every model comes back from its bytes."""
    assert parse_sdp(encode_sdp(description)) == description


@given(st.binary(max_size=300))
def test_any_bytes_give_a_description_or_our_error(data: bytes) -> None:
    """Nothing but `SdpError`; and what is read can be written, read again, and negotiated."""
    for body in (data, HEAD + data, HEAD + b"t=0 0\r\nm=audio 4 RTP/AVP 0\r\na=" + data):
        sdp(body)


@given(st.sampled_from(GOLDEN), st.data())
@settings(deadline=None)
def test_damaged_goldens(path: Path, data: st.DataObject) -> None:
    """Real descriptions with bytes cut out, put in or changed: the same promise."""
    body = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    sdp(bytes(body))


def test_the_first_rtpmap_of_a_type_counts() -> None:
    """A payload type mapped twice means what was said first, and numbers above 127 mean nothing."""
    media = parse_sdp(
        HEAD + b"m=audio 4 RTP/AVP 96 200 00 x\r\na=rtpmap:96 PCMU/8000\r\na=rtpmap:96 PCMA/8000\r\n"
    ).media[0]
    assert media.offered() == (RtpMap(96, "PCMU", 8000),)
