"""Offer and answer: real offers, the direction table, holds, payload types, and what is refused."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings

from rustpbx.media.events import Codec, Direction, MediaFormat, SrtpKeys
from rustpbx.media.sdp import (
    LocalMedia,
    NegotiationError,
    SessionDescription,
    accept_answer,
    answer,
    encode_sdp,
    offer,
    parse_sdp,
)
from rustpbx.media.sdp.crypto import SrtpMode
from tests.kit.predicates import sdp_offer
from tests.kit.strategies_media import LOCALS, OFFERS

GOLDEN = Path(__file__).parent.parent / "golden" / "sdp"
LOCAL = LocalMedia(host="192.0.2.10", port=12_000, ssrc=77, session_id=42)
SENDRECV, SENDONLY, RECVONLY, INACTIVE = Direction
HOLD = "0.0.0.0"  # noqa: S104 - an address in SDP, not one to bind


def golden(name: str) -> SessionDescription:
    """A description from the golden files."""
    return parse_sdp((GOLDEN / f"{name}.sdp").read_bytes())


def phone(*lines: str, host: str = "192.0.2.20") -> SessionDescription:
    """A description with one connection and these media lines."""
    head = ["v=0", f"o=- 9 1 IN IP4 {host}", "s=-", f"c=IN IP4 {host}", "t=0 0"]
    return parse_sdp("\r\n".join([*head, *lines]).encode())


def body(description: SessionDescription) -> list[str]:
    """A description as its lines."""
    return encode_sdp(description).decode().split("\r\n")[:-1]


def test_our_offer() -> None:
    """Exactly these lines."""
    assert body(offer(LOCAL)) == [
        "v=0",
        "o=- 42 1 IN IP4 192.0.2.10",
        "s=-",
        "c=IN IP4 192.0.2.10",
        "t=0 0",
        "m=audio 12000 RTP/AVP 0 8 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ssrc:77 cname:rustpbx-77",
        "a=rtcp-mux",
        "a=ptime:20",
        "a=sendrecv",
    ]


def test_the_answer_to_asterisk() -> None:
    """The offerer's first codec that we speak and telephone-event, nothing else; the next o= version on a re-INVITE."""
    description, agreed = answer(golden("asterisk"), LOCAL.next())
    assert body(description) == [
        "v=0",
        "o=- 42 2 IN IP4 192.0.2.10",
        "s=-",
        "c=IN IP4 192.0.2.10",
        "t=0 0",
        "m=audio 12000 RTP/AVP 8 101",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ssrc:77 cname:rustpbx-77",
        "a=ptime:20",
        "a=sendrecv",
    ]
    assert agreed == MediaFormat(
        codec=Codec.PCMA,
        receive_pt=8,
        send_pt=8,
        remote=("198.51.100.20", 14520),
        rtcp=("198.51.100.20", 14521),
        receive_dtmf_pt=101,
        send_dtmf_pt=101,
    )


PCMU = MediaFormat(codec=Codec.PCMU, receive_pt=0, send_pt=0, remote=("", 0))
V6 = attrs.evolve(LOCAL, host="2001:db8::10")


@pytest.mark.parametrize(
    ("name", "local", "agreed"),
    [
        (
            "freeswitch",
            LOCAL,
            attrs.evolve(
                PCMU,
                remote=("198.51.100.30", 27384),
                rtcp=("198.51.100.30", 27385),
                receive_dtmf_pt=101,
                send_dtmf_pt=101,
            ),
        ),
        (
            "baresip",
            V6,
            attrs.evolve(
                PCMU,
                codec=Codec.PCMA,
                receive_pt=8,
                send_pt=8,
                remote=("2001:db8::5", 20480),
                rtcp=("2001:db8::5", 20480),
                rtcp_mux=True,
                receive_dtmf_pt=101,
                send_dtmf_pt=101,
            ),
        ),
        ("sipp", LOCAL, attrs.evolve(PCMU, remote=("127.0.0.1", 6000), rtcp=("127.0.0.1", 6001))),
        (
            "linphone",
            LOCAL,
            attrs.evolve(
                PCMU, remote=("192.0.2.44", 7078), rtcp=("192.0.2.44", 7079), receive_dtmf_pt=101, send_dtmf_pt=101
            ),
        ),
        ("cisco", LOCAL, attrs.evolve(PCMU, remote=("203.0.113.10", 17344), rtcp=("203.0.113.10", 17345), ptime=30)),
        (
            "srtp_and_plain",
            LOCAL,
            attrs.evolve(
                PCMU,
                codec=Codec.PCMA,
                receive_pt=8,
                send_pt=8,
                remote=("198.51.100.77", 50002),
                rtcp=("198.51.100.77", 50003),
                direction=RECVONLY,
                receive_dtmf_pt=101,
                send_dtmf_pt=101,
            ),
        ),
        (
            "minimal",
            LOCAL,
            attrs.evolve(
                PCMU,
                codec=Codec.PCMA,
                receive_pt=8,
                send_pt=8,
                remote=("192.0.2.99", 4000),
                rtcp=("192.0.2.99", 4001),
                direction=RECVONLY,
            ),
        ),
        (
            "hold_rfc2543",
            LOCAL,
            attrs.evolve(PCMU, remote=(HOLD, 17344), direction=RECVONLY, receive_dtmf_pt=101, send_dtmf_pt=101),
        ),
    ],
)
def test_what_is_agreed_with_real_phones(name: str, local: LocalMedia, agreed: MediaFormat) -> None:
    """Codec, payload types, addresses, direction and ptime from offers as they are sent in the field."""
    assert answer(golden(name), local)[1] == agreed


def test_every_m_line_is_answered() -> None:
    """Video and T.38 get port 0 in their place, and the profile is the offered one."""
    media = answer(golden("linphone"), LOCAL)[0].media
    assert [(m.kind, m.port, m.protocol, m.formats) for m in media] == [
        ("audio", 12_000, "RTP/AVPF", ("0", "101")),
        ("video", 0, "RTP/AVPF", ("96", "97")),
    ]
    media = answer(golden("srtp_and_plain"), LOCAL)[0].media
    assert [(m.port, m.protocol) for m in media] == [(0, "RTP/SAVP"), (12_000, "RTP/AVP")]


def test_webrtc_is_refused_naming_what_was_offered() -> None:
    """An SRTP-only offer: 488, and the text says what there was."""
    with pytest.raises(NegotiationError, match=r"UDP/TLS/RTP/SAVPF opus/48000/2 \(111\)") as caught:
        answer(golden("chrome"), LOCAL)
    assert caught.value.reply == 488


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([], "no media at all"),
        (["m=video 4000 RTP/AVP 31"], "video 4000 RTP/AVP 31"),
        (["m=audio 4000 RTP/AVP 18 96", "a=rtpmap:96 iLBC/8000"], r"G729/8000 \(18\), iLBC/8000 \(96\)"),
        (["m=audio 4000 RTP/AVP 96", "a=rtpmap:96 PCMU/16000"], "PCMU/16000"),
        (["m=audio 4000 RTP/AVP 0", "a=rtpmap:0 PCMU/8000/2"], "PCMU/8000/2"),
        (["m=audio 4000 RTP/AVP 0", "c=IN IP4 phone.example.com"], "phone.example.com"),
        (["m=audio 4000 RTP/AVP 0", "c=IN IP4 224.2.1.1"], "224.2.1.1 is not possible, only to one host"),
        (["m=audio 4000 RTP/AVP 0", "c=IN IP4 255.255.255.255"], "255.255.255.255 is not possible, only to one host"),
        (["m=audio 4000 RTP/AVP 0", "c=IN IP4 224.2.1.1/127"], "224.2.1.1/127"),
        (["m=audio 4000 RTP/AVP 0", "c=IN IP6 2001:db8::9"], "2001:db8::9 is not possible from 192.0.2.10"),
    ],
)
def test_offers_without_anything_usable(lines: list[str], named: str) -> None:
    """`NegotiationError` naming what was offered."""
    with pytest.raises(NegotiationError, match=named):
        answer(phone(*lines), LOCAL)


def test_no_connection_at_all() -> None:
    """Neither level has c=."""
    with pytest.raises(NegotiationError, match="c="):
        answer(parse_sdp(b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\nm=audio 4 RTP/AVP 0\r\n"), LOCAL)


DIRECTIONS = {  # (the offer says, we are willing to) -> the answer, RFC 3264 section 6.1
    (SENDRECV, SENDRECV): SENDRECV,
    (SENDRECV, SENDONLY): SENDONLY,
    (SENDRECV, RECVONLY): RECVONLY,
    (SENDRECV, INACTIVE): INACTIVE,
    (SENDONLY, SENDRECV): RECVONLY,
    (SENDONLY, SENDONLY): INACTIVE,
    (SENDONLY, RECVONLY): RECVONLY,
    (SENDONLY, INACTIVE): INACTIVE,
    (RECVONLY, SENDRECV): SENDONLY,
    (RECVONLY, SENDONLY): SENDONLY,
    (RECVONLY, RECVONLY): INACTIVE,
    (RECVONLY, INACTIVE): INACTIVE,
    (INACTIVE, SENDRECV): INACTIVE,
    (INACTIVE, SENDONLY): INACTIVE,
    (INACTIVE, RECVONLY): INACTIVE,
    (INACTIVE, INACTIVE): INACTIVE,
}


@pytest.mark.rfc("3264", "6.1")
@pytest.mark.rfc("8866", "6.7")
@pytest.mark.parametrize(("theirs", "ours"), DIRECTIONS)
@pytest.mark.parametrize("level", ["session", "media"])
def test_the_direction_table(theirs: Direction, ours: Direction, level: str) -> None:
    """All sixteen pairs, with the attribute at either level; the format and the answer's line agree."""
    lines = ["m=audio 4000 RTP/AVP 0"]
    lines.insert(0 if level == "session" else 1, f"a={theirs.value}")
    description, agreed = answer(phone(*lines), attrs.evolve(LOCAL, direction=ours))
    assert (agreed.direction, description.media[0].direction) == (DIRECTIONS[theirs, ours],) * 2


def test_media_level_direction_wins() -> None:
    """As 5.1 of RFC 3264 and 6.7 of RFC 8866 have it."""
    assert answer(phone("a=inactive", "m=audio 4000 RTP/AVP 0", "a=sendrecv"), LOCAL)[1].direction == SENDRECV


@pytest.mark.rfc("3264", "8.4")
@pytest.mark.rfc("6337", "5.4")
@pytest.mark.parametrize(
    ("attribute", "direction"),
    [("a=sendrecv", RECVONLY), ("a=sendonly", RECVONLY), ("a=recvonly", INACTIVE), ("a=inactive", INACTIVE)],
)
def test_hold_by_address(attribute: str, direction: Direction) -> None:
    """c=0.0.0.0 forbids us to send, RTP and RTCP alike; it is never answered sendrecv."""
    description, agreed = answer(phone("m=audio 4000 RTP/AVP 0", attribute, host=HOLD), LOCAL)
    assert (agreed.direction, agreed.rtcp, description.media[0].port) == (direction, None, 12_000)


def test_hold_by_port() -> None:
    """A stream with port 0 stays, answered with port 0; a live one is preferred."""
    description, agreed = answer(phone("m=audio 0 RTP/AVP 8", "a=inactive"), LOCAL)
    assert (description.media[0].port, agreed.direction, agreed.rtcp) == (0, INACTIVE, None)
    description, agreed = answer(phone("m=audio 0 RTP/AVP 8", "m=audio 4000 RTP/AVP 0"), LOCAL)
    assert ([m.port for m in description.media], agreed.codec) == ([0, 12_000], Codec.PCMU)


def test_resume_restores_both_ways() -> None:
    """After a hold the same offer without it gives sendrecv and the real address again."""
    answer(phone("m=audio 4000 RTP/AVP 0", host=HOLD), LOCAL)
    agreed = answer(phone("m=audio 4000 RTP/AVP 0"), LOCAL.next())[1]
    assert (agreed.direction, agreed.remote) == (SENDRECV, ("192.0.2.20", 4000))


def test_dynamic_payload_types() -> None:
    """G.711 and telephone-event under dynamic numbers keep the offerer's numbers; event types match the clock."""
    remote = phone(
        "m=audio 4000 RTP/AVP 111 96 97 98",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:96 telephone-event/48000",
        "a=rtpmap:97 pcma/8000",
        "a=rtpmap:98 TELEPHONE-EVENT/8000",
    )
    description, agreed = answer(remote, LOCAL)
    assert description.media[0].formats == ("97", "98")
    assert (agreed.codec, agreed.receive_pt, agreed.send_pt) == (Codec.PCMA, 97, 97)
    assert (agreed.receive_dtmf_pt, agreed.send_dtmf_pt) == (98, 98)


def test_codec_order() -> None:
    """The offerer's order counts, unless we are told to prefer our own."""
    remote = phone("m=audio 4000 RTP/AVP 8 0")
    assert answer(remote, LOCAL)[1].codec == Codec.PCMA
    assert answer(remote, attrs.evolve(LOCAL, own_order=True))[1].codec == Codec.PCMU
    assert answer(remote, attrs.evolve(LOCAL, codecs=(Codec.PCMU,)))[1].codec == Codec.PCMU


@pytest.mark.parametrize(
    ("lines", "rtcp", "muxed"),
    [
        ([], ("192.0.2.20", 4001), False),
        (["a=rtcp-mux"], ("192.0.2.20", 4000), True),
        (["a=rtcp:5005"], ("192.0.2.20", 5005), False),
        (["a=rtcp:5005 IN IP4 192.0.2.21"], ("192.0.2.21", 5005), False),
        (["a=rtcp:5005 IN IP4 phone.example.com"], ("192.0.2.20", 5005), False),
        (["a=rtcp:4001", "a=rtcp-mux"], ("192.0.2.20", 4000), True),
    ],
)
def test_where_rtcp_goes(lines: list[str], rtcp: tuple[str, int], muxed: bool) -> None:
    """Muxed only if offered, else as a=rtcp says, else the next port."""
    description, agreed = answer(phone("m=audio 4000 RTP/AVP 0", *lines), LOCAL)
    assert (agreed.rtcp, agreed.rtcp_mux, description.media[0].rtcp_mux) == (rtcp, muxed, muxed)


@pytest.mark.parametrize(
    ("lines", "ptime"),
    [
        ([], 20),
        (["a=ptime:30"], 30),
        (["a=ptime:60", "a=maxptime:40"], 40),
        (["a=ptime:25"], 20),
        (["a=ptime:5"], 10),
        (["a=ptime:200"], 60),
        (["a=maxptime:10"], 10),
    ],
)
def test_ptime(lines: list[str], ptime: int) -> None:
    """What we send: their ptime within their maxptime, in steps of 10 from 10 to 60."""
    assert answer(phone("m=audio 4000 RTP/AVP 0", *lines), LOCAL)[1].ptime == ptime


def test_an_answer_with_other_payload_types() -> None:
    """We send what the answer numbers and receive what we numbered."""
    theirs = phone(
        "m=audio 4000 RTP/AVP 96 97 8", "a=rtpmap:96 PCMA/8000", "a=rtpmap:97 telephone-event/8000", "a=rtcp-mux"
    )
    assert accept_answer(offer(LOCAL), theirs) == MediaFormat(
        codec=Codec.PCMA,
        receive_pt=8,
        send_pt=96,
        remote=("192.0.2.20", 4000),
        rtcp=("192.0.2.20", 4000),
        rtcp_mux=True,
        receive_dtmf_pt=101,
        send_dtmf_pt=97,
    )


def test_a_plain_answer() -> None:
    """No mux, no events, another ptime, on hold from the start."""
    theirs = phone("m=audio 4000 RTP/AVP 8 0", "a=ptime:40", "a=sendonly")
    assert accept_answer(offer(LOCAL), theirs) == MediaFormat(
        codec=Codec.PCMA,
        receive_pt=8,
        send_pt=8,
        remote=("192.0.2.20", 4000),
        rtcp=("192.0.2.20", 4001),
        direction=RECVONLY,
        ptime=40,
    )


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["m=audio 0 RTP/AVP 0"], "refused"),
        ([], "refused"),
        (["m=video 4000 RTP/AVP 31"], "refused"),
        (["m=audio 4000 RTP/SAVP 0"], "without keys that belong to our offer"),
        (["m=audio 4000 RTP/AVP 18"], "nothing of our offer"),
        (["m=audio 4000 RTP/AVP 101", "a=rtpmap:101 telephone-event/8000"], "nothing of our offer"),
        (["m=audio 4000 RTP/AVP 0", "c=IN IP4 phone.example.com"], "phone.example.com"),
    ],
)
def test_bad_answers(lines: list[str], named: str) -> None:
    """Refused or useless answers are our own error."""
    with pytest.raises(NegotiationError, match=named):
        accept_answer(offer(LOCAL), phone(*lines))


def test_the_answer_spells_the_stream_as_the_offer_does() -> None:
    """`Audio` is audio, and a phone that writes it so looks for it so."""
    theirs = parse_sdp(b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.1\r\nm=Audio 4000 rtp/avp 0\r\n")
    description, _ = answer(theirs, LOCAL)
    assert [(media.kind, media.protocol) for media in description.media] == [("Audio", "rtp/avp")]


def test_a_refused_offer_is_quoted_briefly_and_printably() -> None:
    """One line, of a length that a log can hold, without bytes that are no text."""
    head = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\n"
    theirs = parse_sdp(head + b"m=vi\xffdeo 4 RTP/AVP " + b"9" * 90 + b"\r\n" + b"m=x 5 y z\r\n" * 5)
    with pytest.raises(NegotiationError) as error:
        answer(theirs, LOCAL)
    streams = f"vi\\udcffdeo 4 RTP/AVP {'9' * 40}; x 5 y z; x 5 y z; x 5 y z; and 2 more"
    assert str(error.value) == f"no audio that we speak in the offer of {streams}"


@given(OFFERS, LOCALS)
@settings(deadline=None)
def test_any_offer(remote: SessionDescription, local: LocalMedia) -> None:
    """The answer promises nothing that was not offered or that we ruled out; or there is a NegotiationError."""
    sdp_offer(remote, local)


@given(LOCALS, LOCALS)
def test_both_sides_agree(caller: LocalMedia, callee: LocalMedia) -> None:
    """Our answer to our offer: both ends hold mirrored formats and each other's keys, or do not agree on SRTP."""
    offered = offer(caller)
    if {caller.security.mode, callee.security.mode} == {SrtpMode.OFF, SrtpMode.REQUIRE}:
        with pytest.raises(NegotiationError, match="SRTP"):
            answer(offered, callee)
        return
    answered, there = answer(offered, callee)
    here = accept_answer(offered, answered)
    assert (here.codec, here.send_pt, here.receive_pt) == (there.codec, there.receive_pt, there.send_pt)
    assert here.receive_dtmf_pt == there.send_dtmf_pt
    assert (here.srtp is None) == (there.srtp is None)
    if here.srtp is not None and there.srtp is not None:
        assert here.srtp == SrtpKeys(send=there.srtp.receive, receive=there.srtp.send)
    mirror = {SENDRECV: SENDRECV, SENDONLY: RECVONLY, RECVONLY: SENDONLY, INACTIVE: INACTIVE}
    assert here.direction == mirror[there.direction]
