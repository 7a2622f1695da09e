"""Browsers' offers: what is answered, line by line, and what is refused, each with its reason."""

from __future__ import annotations

import random
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustpbx.media.events import Codec, Direction, MediaFormat, OpusParams
from rustpbx.media.sdp import LocalMedia, NegotiationError, SdpError, encode_sdp, parse_sdp
from rustpbx.media.sdp.fingerprint import Fingerprint, Setup
from rustpbx.media.sdp.ice import Candidate, CandidateKind, IceDescription
from rustpbx.media.sdp.webrtc import NOWHERE, OwnEnd, answer_peer, is_peer_offer, read_peer_offer
from tests.kit.predicates import sdp

GOLDEN = Path(__file__).parent.parent / "golden" / "sdp"
HOST = Candidate("h", 2130706431, ("192.0.2.10", 12000), CandidateKind.HOST)
OUTSIDE = Candidate(
    "s", 1694498815, ("203.0.113.10", 12000), CandidateKind.SERVER_REFLEXIVE, related=("192.0.2.10", 12000)
)
END = OwnEnd(
    ice=IceDescription("OURS", "o" * 24, (HOST, OUTSIDE), ended=True),
    fingerprint=Fingerprint("sha-256", bytes(range(32))),
)
LOCAL = LocalMedia(
    host="",
    port=0,
    ssrc=77,
    session_id=42,
    codecs=(Codec.OPUS, Codec.G722, Codec.PCMA, Codec.PCMU),
    own_order=True,
)
BROWSERS = ("chrome", "chrome_bundle", "firefox", "pion")


def text(name: str) -> str:
    """A golden offer, with one kind of line end."""
    return (GOLDEN / f"{name}.sdp").read_text().replace("\r\n", "\n")


def answered(offer: str, end: OwnEnd = END, local: LocalMedia = LOCAL) -> tuple[list[str], MediaFormat]:
    """The answer's lines, and what is agreed."""
    description, agreed = answer_peer(read_peer_offer(parse_sdp(offer.encode())), local, end)
    return encode_sdp(description).decode().split("\r\n")[:-1], agreed


def refusal(offer: str) -> str:
    """Why an offer is not answered."""
    with pytest.raises((NegotiationError, SdpError)) as refused:
        answered(offer)
    return str(refused.value)


def altered(*changes: tuple[str, str], name: str = "chrome") -> str:
    """A golden offer with some of its text replaced."""
    offer = text(name)
    for old, new in changes:
        assert old in offer
        offer = offer.replace(old, new)
    return offer


@pytest.mark.rfc("8829", "5.3")
def test_the_answer_to_chromium() -> None:
    """Exactly these lines: Opus, its telephone-event, our whole way; its extensions and feedback are not taken up."""
    lines, agreed = answered(text("chrome"))
    assert lines == [
        "v=0",
        "o=- 42 1 IN IP4 203.0.113.10",
        "s=-",
        "c=IN IP4 203.0.113.10",
        "t=0 0",
        "a=group:BUNDLE 0",
        "a=msid-semantic:WMS rustpbx",
        "m=audio 12000 UDP/TLS/RTP/SAVPF 111 110",
        "c=IN IP4 203.0.113.10",
        "a=rtpmap:111 opus/48000/2",
        "a=rtpmap:110 telephone-event/48000",
        "a=fmtp:111 maxplaybackrate=16000;sprop-maxcapturerate=16000;useinbandfec=1",
        "a=fmtp:110 0-16",
        "a=ssrc:77 cname:rustpbx-77",
        "a=rtcp-mux",
        "a=ptime:20",
        "a=sendrecv",
        "a=fingerprint:sha-256 " + bytes(range(32)).hex(":").upper(),
        "a=setup:passive",
        "a=mid:0",
        "a=msid:rustpbx rustpbx",
        "a=ice-ufrag:OURS",
        "a=ice-pwd:" + "o" * 24,
        "a=candidate:h 1 udp 2130706431 192.0.2.10 12000 typ host",
        "a=candidate:s 1 udp 1694498815 203.0.113.10 12000 typ srflx raddr 192.0.2.10 rport 12000",
        "a=end-of-candidates",
    ]
    assert agreed == MediaFormat(
        codec=Codec.OPUS,
        receive_pt=111,
        send_pt=111,
        remote=NOWHERE,
        rtcp=NOWHERE,
        rtcp_mux=True,
        receive_dtmf_pt=110,
        send_dtmf_pt=110,
        opus=OpusParams(fec=True),
    )


@pytest.mark.rfc("9143", "7.3")
def test_video_and_data_beside_the_audio_are_refused_by_name() -> None:
    """Port 0 and their mids, the bundle is the audio's alone; the audio's way was said with the stream before it."""
    offer = read_peer_offer(parse_sdp(text("chrome_bundle").encode()))
    assert (offer.ice.ufrag, offer.mid, offer.active) == ("4ZcD", "a", False)
    assert [one.algorithm for one in offer.fingerprints] == ["sha-256"]
    lines, agreed = answered(text("chrome_bundle"))
    assert [line for line in lines if line.startswith(("m=", "a=mid", "a=group"))] == [
        "a=group:BUNDLE a",
        "m=video 0 UDP/TLS/RTP/SAVPF 96 97",
        "a=mid:v",
        "m=audio 12000 UDP/TLS/RTP/SAVPF 111 110",
        "a=mid:a",
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
        "a=mid:d",
    ]
    assert agreed.opus == OpusParams(fec=True, bitrate=20_000)


def test_the_answer_to_firefox() -> None:
    """The session's fingerprint holds for the stream; candidates that nobody can use are read and left to ICE."""
    offer = read_peer_offer(parse_sdp(text("firefox").encode()))
    assert [(c.transport, c.component, c.address[0]) for c in offer.ice.candidates] == [
        ("udp", 1, "192.168.178.31"),
        ("udp", 1, "fd00:1::31"),
        ("tcp", 1, "192.168.178.31"),
        ("udp", 2, "192.168.178.31"),
        ("udp", 1, "203.0.113.31"),
    ]
    assert len(offer.fingerprints) == 1
    _, agreed = answered(text("firefox"))
    assert (agreed.codec, agreed.receive_pt, agreed.receive_dtmf_pt, agreed.dtmf_rate) == (Codec.OPUS, 109, 101, 8000)


def test_the_answer_to_a_go_client() -> None:
    """One codec, no telephone-event: that codec is answered, and no keys are promised."""
    lines, agreed = answered(text("pion"))
    assert "m=audio 12000 UDP/TLS/RTP/SAVPF 9" in lines
    assert (agreed.codec, agreed.send_dtmf_pt) == (Codec.G722, None)


def test_ipv6_is_left_out_unless_wanted() -> None:
    """Without it the peer has no such candidates."""
    offer = read_peer_offer(parse_sdp(text("pion").encode()), ipv6=False)
    assert {candidate.address[0] for candidate in offer.ice.candidates} == {"10.0.0.4"}


@pytest.mark.parametrize(
    ("order", "codec"),
    [
        ((Codec.OPUS, Codec.G722, Codec.PCMA, Codec.PCMU), Codec.OPUS),
        ((Codec.G722, Codec.OPUS), Codec.G722),
        ((Codec.PCMU,), Codec.PCMU),
    ],
)
def test_our_order_decides_the_codec(order: tuple[Codec, ...], codec: Codec) -> None:
    """The best that is offered, by our list."""
    _, agreed = answered(text("chrome"), local=attrs.evolve(LOCAL, codecs=order))
    assert agreed.codec is codec


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"),
    [
        ("sendrecv", "sendrecv", Direction.SENDRECV),
        ("recvonly", "sendonly", Direction.SENDONLY),
        ("sendonly", "recvonly", Direction.RECVONLY),
        ("inactive", "inactive", Direction.INACTIVE),
    ],
)
def test_directions(theirs: str, ours: str, agreed: Direction) -> None:
    """A browser without a microphone only receives; the address 0.0.0.0 of a browser is no hold."""
    lines, found = answered(altered(("a=sendrecv", f"a={theirs}")))
    assert f"a={ours}" in lines
    assert found.direction is agreed


@pytest.mark.rfc("8842", "5.3")
@pytest.mark.parametrize(
    ("offered", "answer", "active"),
    [("actpass", "passive", False), ("active", "passive", False), ("passive", "active", True)],
)
def test_who_begins_the_handshake(offered: str, answer: str, *, active: bool) -> None:
    """The peer, unless it wants us to."""
    offer = altered(("a=setup:actpass", f"a=setup:{offered}"))
    assert f"a=setup:{answer}" in answered(offer)[0]
    assert read_peer_offer(parse_sdp(offer.encode())).active is active
    assert read_peer_offer(parse_sdp(offer.encode())).setup is Setup(answer)


def test_a_lite_side_says_so() -> None:
    """At the session's level (RFC 8839 5.3)."""
    lite = attrs.evolve(END, ice=attrs.evolve(END.ice, lite=True))
    assert "a=ice-lite" in answered(text("chrome"), lite)[0][:8]


def test_an_address_of_ipv6_alone() -> None:
    """The default destination is what there is."""
    only = attrs.evolve(HOST, address=("2001:db8::10", 12000))
    lines, _ = answered(text("pion"), attrs.evolve(END, ice=attrs.evolve(END.ice, candidates=(only,))))
    assert lines.count("c=IN IP6 2001:db8::10") == 2


def test_what_is_a_browser_s_offer() -> None:
    """Those with ICE and a fingerprint; not a phone's, with or without SRTP."""
    assert [is_peer_offer(parse_sdp(text(name).encode())) for name in BROWSERS] == [True] * 4
    phones = ("asterisk", "srtp_and_plain", "linphone", "minimal")
    assert [is_peer_offer(parse_sdp((GOLDEN / f"{name}.sdp").read_bytes())) for name in phones] == [False] * 4


SHA = next(line for line in text("chrome").splitlines() if line.startswith("a=fingerprint:"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ([("a=ice-ufrag:ECFW\n", "")], "a=ice-ufrag is missing or not 4 to 256 characters of ICE"),
        ([("a=ice-ufrag:ECFW", "a=ice-ufrag:E W")], "a=ice-ufrag is missing or not 4 to 256 characters of ICE"),
        ([("a=ice-pwd:Y2f0hMUsVmA0cQg4bC7Jx6lz\n", "")], "a=ice-pwd is missing or not 22 to 256 characters of ICE"),
        (
            [("a=ice-ufrag:ECFW\n", ""), ("a=ice-pwd:Y2f0hMUsVmA0cQg4bC7Jx6lz\n", "")],
            "the audio stream has no a=ice-ufrag and a=ice-pwd",
        ),
        (
            [(SHA, SHA + "\n" + SHA.replace("2A:90", "2B:90"))],
            "two a=fingerprint lines of sha-256 that disagree",
        ),
        (
            [(SHA, SHA.replace("sha-256", "md9"))],
            "no a=fingerprint with a hash of sha-512, sha-384, sha-256, only md9",
        ),
        ([(SHA, SHA.replace("2A:90", "2A.90"))], "a=fingerprint:sha-256 2A.90:CB:58:0E:76:2C:DC:19:31:60:2D"),
        ([(SHA + "\n", "")], "the audio stream has no a=fingerprint: its certificate could not be checked"),
        ([("a=mid:0\n", "")], "the audio stream has no a=mid, though the offer bundles"),
        ([("a=mid:0", "a=mid:")], "a=mid: is no token"),
        ([("a=mid:0", "a=mid:0 1")], "a=mid:0 1 is no token"),
        ([("a=mid:0", "a=mid:0\u2028a=x")], "is no token"),
        ([("m=audio 9", "m=audio 0")], "the audio stream has port 0: it is switched off"),
        ([("a=rtcp-mux\n", "")], "the audio stream has no a=rtcp-mux: RTCP on a port of its own is not possible"),
        ([("a=setup:actpass", "a=setup:holdconn")], "a=setup:holdconn: nobody would begin the DTLS handshake"),
        ([("m=audio", "m=video")], "no audio under DTLS in the offer of video 9"),
        ([("UDP/TLS/RTP/SAVPF", "RTP/AVP")], "no audio under DTLS in the offer of audio 9 RTP/AVP"),
        ([("111 63 9 0 8 13 110 126", "63 13")], "no audio that we speak in the offer of audio 9"),
        ([("a=mid:0\n", "a=mid:0\nm=audio 9 UDP/TLS/RTP/SAVPF 0\na=mid:0\n")], "a=mid:0 stands for two streams"),
        ([("v=0", "v=1")], "SDP does not begin with v=0"),
        ([("a=mid:0", "a=mid:0\0")], "SDP with a NUL byte"),
    ],
)
def test_offers_from_hell(changes: list[tuple[str, str]], reason: str) -> None:
    """Each is refused, and the reason says what is wrong with it, in one line."""
    found = refusal(altered(*changes))
    assert reason in found
    assert found.isprintable()


def test_lines_cannot_be_smuggled_into_the_answer() -> None:
    """A CR, LF, NUL or another separator in what is echoed ends the line, or the offer; none is in our answer."""
    for separator in ("\r", "\n", "\x0b", "\x85", "\u2028"):
        offer = altered(("a=group:BUNDLE 0", f"a=group:BUNDLE 0{separator}a=ice-lite"))
        lines, _ = answered(offer)
        assert "a=ice-lite" not in lines
    video = "m=video 9 UDP/TLS/RTP/SAVPF 96\x0ba=ice-lite\na=mid:1\ra=setup:active\n"
    lines, _ = answered(text("chrome") + video)
    assert lines[-2:] == ["m=video 0 UDP/TLS/RTP/SAVPF 96 a=ice-lite", "a=mid:1"]


def test_a_hundred_candidates_are_enough() -> None:
    """More are left out, whatever they name; those that are not of the form as well."""
    many = "".join(f"a=candidate:{n} 1 udp {n + 1} 198.51.100.{n % 256} 4000 typ host\n" for n in range(900))
    offer = altered(("a=mid:0\n", "a=mid:0\na=candidate:x\n" + many))
    assert len(read_peer_offer(parse_sdp(offer.encode())).ice.candidates) == 99


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(BROWSERS), st.integers(0, 2**32), st.integers(1, 6))
def test_whatever_becomes_of_an_offer(name: str, seed: int, edits: int) -> None:
    """Lines lost, doubled, moved, cut and mixed with another browser's: a good answer, or a refusal in one line."""
    luck = random.Random(seed)
    lines = text(name).splitlines()
    others = text(luck.choice(BROWSERS)).splitlines()
    for _ in range(edits):
        at = luck.randrange(1, len(lines))
        lines[at : at + 1] = luck.choice(
            [
                [],
                [lines[at], lines[at]],
                [luck.choice(others), lines[at]],
                [lines[at][: luck.randrange(len(lines[at]) + 1)]],
                [lines[at].replace("0", luck.choice(["", "00", "65536", "\r"]))],
            ]
        )
    sdp("\r\n".join(lines).encode())
