"""Opus and G.722 in offers and answers: what is said, what is understood, and whose order decides."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from rustpbx.media.events import Codec, OpusParams
from rustpbx.media.sdp import LocalMedia, NegotiationError, SessionDescription, accept_answer, answer, offer, parse_sdp
from rustpbx.media.sdp.formats import opus_params

GOLDEN = Path(__file__).parent.parent / "golden" / "sdp"
ALL = (Codec.OPUS, Codec.G722, Codec.PCMU, Codec.PCMA)
LOCAL = LocalMedia(host="192.0.2.10", port=12_000, ssrc=77, session_id=42, codecs=ALL)
OURS = "maxplaybackrate=16000;sprop-maxcapturerate=16000;useinbandfec=1"


def phone(formats: str, *lines: str) -> SessionDescription:
    """A description with one audio stream."""
    head = [
        "v=0",
        "o=- 9 1 IN IP4 192.0.2.20",
        "s=-",
        "c=IN IP4 192.0.2.20",
        "t=0 0",
        f"m=audio 4000 RTP/AVP {formats}",
    ]
    return parse_sdp("\r\n".join([*head, *lines]).encode())


def formats(description: SessionDescription) -> list[str]:
    """The lines about formats."""
    media = description.media[0]
    maps = [f"{rtpmap.payload_type} {rtpmap}" for rtpmap in media.rtpmaps]
    return [*maps, *(f"{fmtp.format} {fmtp.parameters}" for fmtp in media.fmtps)]


@pytest.mark.rfc("7587", "7")
def test_our_offer() -> None:
    """Each codec with its name as the RFCs have it, telephone-event for both clocks, and what we want of Opus."""
    assert formats(offer(LOCAL)) == [
        *("111 opus/48000/2", "9 G722/8000", "0 PCMU/8000", "8 PCMA/8000"),
        *("101 telephone-event/8000", "97 telephone-event/48000"),
        *(f"111 {OURS}", "101 0-16", "97 0-16"),
    ]


@pytest.mark.rfc("7587", "7.1")
def test_the_answer_to_a_browser() -> None:
    """Opus with the browser's number, telephone-event at its clock; its wishes are noted, stereo is not promised."""
    lines = [
        *(
            "a=rtpmap:109 opus/48000/2",
            "a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1;maxaveragebitrate=20000",
        ),
        *("a=rtpmap:126 telephone-event/8000", "a=rtpmap:110 telephone-event/48000"),
    ]
    description, agreed = answer(phone("109 0 126 110", *lines), LOCAL)
    assert formats(description) == ["109 opus/48000/2", "110 telephone-event/48000", f"109 {OURS}", "110 0-16"]
    assert (agreed.codec, agreed.send_pt, agreed.receive_pt) == (Codec.OPUS, 109, 109)
    assert (agreed.send_dtmf_pt, agreed.dtmf_rate) == (110, None)
    assert agreed.opus == OpusParams(fec=True, bitrate=20_000)


def test_events_of_8_khz_beside_opus() -> None:
    """Phones offer no others: they are taken, with durations by the clock that they say."""
    lines = ("a=rtpmap:96 opus/48000/2", "a=rtpmap:101 telephone-event/8000")
    _, agreed = answer(phone("96 101", *lines), LOCAL)
    assert (agreed.send_dtmf_pt, agreed.dtmf_rate) == (101, 8000)
    agreed = accept_answer(offer(LOCAL), phone("96 101", *lines))
    assert (agreed.codec, agreed.receive_pt, agreed.send_pt) == (Codec.OPUS, 111, 96)
    assert (agreed.receive_dtmf_pt, agreed.send_dtmf_pt, agreed.dtmf_rate) == (101, 101, 8000)


def test_events_of_48_khz_are_not_for_telephone_codecs() -> None:
    """They share the RTP time of the audio (RFC 4733 2.1), so a stream at 8 kHz cannot have them."""
    lines = ("a=rtpmap:97 telephone-event/48000",)
    _, agreed = answer(phone("0 97", *lines), LOCAL)
    assert (agreed.codec, agreed.send_dtmf_pt) == (Codec.PCMU, None)


def test_the_answer_to_our_offer() -> None:
    """Its first codec is used, with the numbers of each side and the wishes that it states."""
    lines = ("a=rtpmap:120 OPUS/48000/2", "a=fmtp:120 usedtx=1; cbr=1", "a=rtpmap:99 telephone-event/48000")
    agreed = accept_answer(offer(LOCAL), phone("120 99", *lines))
    assert (agreed.codec, agreed.receive_pt, agreed.send_pt) == (Codec.OPUS, 111, 120)
    assert (agreed.receive_dtmf_pt, agreed.send_dtmf_pt, agreed.dtmf_rate) == (97, 99, None)
    assert agreed.opus == OpusParams(dtx=True, cbr=True)
    assert accept_answer(offer(LOCAL), phone("9 101")).codec is Codec.G722


@pytest.mark.parametrize(
    ("own_order", "codecs", "first"),
    [
        (False, ALL, Codec.G722),
        (True, ALL, Codec.OPUS),
        (True, (Codec.PCMA, Codec.OPUS), Codec.PCMA),
        (False, (Codec.OPUS, Codec.PCMA), Codec.PCMA),
    ],
)
def test_whose_order_decides(own_order: bool, codecs: tuple[Codec, ...], first: Codec) -> None:
    """The offerer's, unless we are told otherwise; never one that we do not have."""
    local = attrs.evolve(LOCAL, own_order=own_order, codecs=codecs)
    _, agreed = answer(phone("9 8 111", "a=rtpmap:111 opus/48000/2"), local)
    assert agreed.codec is first


def test_wide_codecs_are_not_taken_unasked() -> None:
    """A server with telephone codecs only refuses a phone that has none of them."""
    local = attrs.evolve(LOCAL, codecs=(Codec.PCMU, Codec.PCMA))
    with pytest.raises(NegotiationError, match="no audio that we speak"):
        answer(phone("111 9", "a=rtpmap:111 opus/48000/2"), local)


@pytest.mark.rfc("7587", "6.1")
@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("", OpusParams()),
        ("maxplaybackrate=8000", OpusParams(playback_rate=8000)),
        ("MaxAverageBitrate=16000 ; UseInbandFec=1;usedtx=0", OpusParams(bitrate=16_000, fec=True)),
        ("maxaveragebitrate=5;maxplaybackrate=-1;cbr=yes;useinbandfec", OpusParams()),
        ("maxaveragebitrate=99999999999;;=;a=b=c", OpusParams()),
    ],
)
def test_wishes(text: str, params: OpusParams) -> None:
    """Those that make sense count, the others are as if they were not there."""
    lines = ("a=rtpmap:96 opus/48000/2", *([f"a=fmtp:96 {text}"] if text else []))
    assert opus_params(phone("96", *lines).media[0], 96) == params


@pytest.mark.parametrize(("name", "codec"), [("linphone", Codec.OPUS), ("freeswitch", Codec.OPUS)])
def test_real_offers(name: str, codec: Codec) -> None:
    """Phones that prefer Opus get it, once we have it."""
    description = parse_sdp((GOLDEN / f"{name}.sdp").read_bytes())
    assert answer(description, LOCAL)[1].codec is codec
