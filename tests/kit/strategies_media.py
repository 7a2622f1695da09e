"""Hypothesis strategies for descriptions and packets."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from rustpbx.media.events import Codec, Direction, SrtpKey, SrtpSuite
from rustpbx.media.rtcp import Bye, ReceiverReport, ReportBlock, RtcpPacket, SenderReport, SourceDescription
from rustpbx.media.rtp import Extension, RtpPacket
from rustpbx.media.sdp.crypto import Crypto, Security, SrtpMode
from rustpbx.media.sdp.fingerprint import Fingerprint, Setup
from rustpbx.media.sdp.model import (
    Attribute,
    Connection,
    Fmtp,
    Line,
    MediaDescription,
    Origin,
    RtcpPort,
    RtpMap,
    SessionDescription,
    Ssrc,
)
from rustpbx.media.sdp.negotiate import LocalMedia

U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
PORTS = st.integers(1, 65535)

# -- SDP ------------------------------------------------------------------------------------------------------------

TOKENS = st.text(string.ascii_letters + string.digits + "-._", min_size=1, max_size=12)
TEXTS = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=30)
IPV4 = st.ip_addresses(v=4).filter(lambda a: not a.is_multicast).map(str)
IPV6 = st.ip_addresses(v=6).filter(lambda a: not a.is_multicast).map(str)

CONNECTIONS = st.one_of(IPV4, IPV6, TOKENS).map(Connection.to)
DIRECTIONS = st.sampled_from(Direction)
ATTRIBUTES = st.builds(Attribute, TOKENS.map(lambda name: f"x-{name}"), st.none() | TEXTS)
RTPMAPS = st.builds(RtpMap, st.integers(0, 127), TOKENS, st.integers(1, 192_000), st.integers(1, 8))
FMTPS = st.builds(Fmtp, st.integers(0, 127).map(str), TOKENS)
CRYPTOS = st.builds(
    Crypto,
    st.integers(0, 999_999_999),
    st.sampled_from([suite.value for suite in SrtpSuite]) | st.text(string.ascii_uppercase + "_128", min_size=1),
    st.sampled_from([28, 30, 44, 46, 16]).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    st.none() | st.integers(0, 2**48),
    st.none() | st.tuples(st.integers(0, 2**64), st.integers(0, 128)),
    st.lists(st.sampled_from(["WSH=64", "KDR=3", "UNENCRYPTED_SRTP", "-X=1", "NEW"]), max_size=2).map(tuple),
)
FINGERPRINTS = st.builds(
    Fingerprint, st.sampled_from(["sha-256", "sha-1", "whirlpool"]), st.binary(min_size=1, max_size=64)
)
SECTION = {
    "connection": st.none() | CONNECTIONS,
    "direction": st.none() | DIRECTIONS,
    "ptime": st.none() | st.integers(1, 200),
    "maxptime": st.none() | st.integers(1, 200),
    "rtcp_mux": st.booleans(),
    "fingerprints": st.lists(FINGERPRINTS, max_size=2).map(tuple),
    "setup": st.none() | st.sampled_from(Setup),
    "attributes": st.lists(ATTRIBUTES, max_size=4).map(tuple),
}


def lines(letters: str) -> st.SearchStrategy[tuple[Line, ...]]:
    """Untyped lines of these letters."""
    return st.lists(st.builds(Line, st.sampled_from(letters), TEXTS), max_size=4).map(tuple)


MEDIA = st.builds(
    MediaDescription,
    kind=st.sampled_from(["audio", "video", "image", "application"]),
    port=st.integers(0, 65535),
    protocol=st.sampled_from(["RTP/AVP", "RTP/AVPF", "RTP/SAVP", "UDP/TLS/RTP/SAVPF", "UDPTL"]),
    formats=st.lists(st.integers(0, 140).map(str), min_size=1, max_size=8).map(tuple),
    ports=st.integers(1, 9),
    rtpmaps=st.lists(RTPMAPS, max_size=5).map(tuple),
    fmtps=st.lists(FMTPS, max_size=3).map(tuple),
    rtcp=st.none() | st.builds(RtcpPort, PORTS, st.none() | CONNECTIONS),
    ssrcs=st.lists(st.builds(Ssrc, U32, TOKENS, st.none() | TEXTS), max_size=2).map(tuple),
    cryptos=st.lists(CRYPTOS, max_size=3).map(tuple),
    extra=lines("ibkyX"),
    **SECTION,
)

DESCRIPTIONS = st.builds(
    SessionDescription,
    origin=st.builds(Origin, TOKENS, TOKENS, CONNECTIONS, TOKENS),
    name=TEXTS,
    times=st.lists(TEXTS, min_size=1, max_size=2).map(tuple),
    media=st.lists(MEDIA, max_size=4).map(tuple),
    extra=lines("iuepbrzkyX"),
    **SECTION,
)

# Formats of which many are ours, so that negotiation often succeeds.
SPOKEN = st.sampled_from(
    [
        RtpMap(0, "PCMU", 8000),
        RtpMap(8, "pcma", 8000),
        RtpMap(97, "PCMU", 8000),
        RtpMap(98, "PCMA", 16000),
        RtpMap(99, "PCMU", 8000, 2),
        RtpMap(101, "telephone-event", 8000),
        RtpMap(102, "Telephone-Event", 48000),
        RtpMap(111, "opus", 48000, 2),
        RtpMap(9, "G722", 8000),
    ]
)


@st.composite
def audio(draw: st.DrawFn) -> MediaDescription:
    """An m= line as a phone might offer it, with or without the rtpmap of static types."""
    spoken = draw(st.lists(SPOKEN, min_size=1, max_size=6, unique_by=lambda rtpmap: rtpmap.payload_type))
    static = draw(st.booleans())
    return MediaDescription(
        kind=draw(st.sampled_from(["audio", "audio", "audio", "video"])),
        port=draw(st.sampled_from([0, 4000, 40_000, 65_535])),
        protocol=draw(st.sampled_from(["RTP/AVP", "RTP/AVP", "RTP/AVPF", "RTP/SAVP"])),
        formats=tuple(str(rtpmap.payload_type) for rtpmap in spoken),
        rtpmaps=tuple(rtpmap for rtpmap in spoken if static or rtpmap.payload_type > 95),
        connection=draw(st.none() | IPV4.map(Connection.to)),
        direction=draw(st.none() | DIRECTIONS),
        ptime=draw(st.none() | st.integers(1, 200)),
        maxptime=draw(st.none() | st.integers(1, 200)),
        rtcp_mux=draw(st.booleans()),
        rtcp=draw(st.none() | st.builds(RtcpPort, PORTS)),
        cryptos=draw(st.just(()) | st.lists(CRYPTOS, max_size=3).map(tuple)),
    )


OFFERS = st.builds(
    SessionDescription,
    origin=st.builds(Origin, TOKENS, TOKENS, IPV4.map(Connection.to)),
    connection=st.one_of(st.none(), IPV4.map(Connection.to), st.just(Connection("0.0.0.0"))),  # noqa: S104 - hold
    direction=st.none() | DIRECTIONS,
    media=st.lists(audio(), max_size=4).map(tuple),
)

SECURITIES = st.builds(
    Security,
    mode=st.sampled_from(SrtpMode),
    keys=st.just(tuple(SrtpKey(suite, b"\1" * suite.key_size) for suite in SrtpSuite)),
    offered=st.permutations(list(SrtpSuite)).map(tuple),
)

LOCALS = st.builds(
    LocalMedia,
    host=st.just("192.0.2.10"),
    port=st.just(12_000),
    ssrc=U32,
    session_id=U32,
    version=U32,
    codecs=st.permutations(list(Codec)).map(tuple),
    own_order=st.booleans(),
    dtmf=st.booleans(),
    direction=DIRECTIONS,
    security=SECURITIES,
)

# -- packets --------------------------------------------------------------------------------------------------------

EXTENSIONS = st.builds(
    Extension, profile=U16, body=st.integers(0, 8).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))
)
RTP = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    sequence=U16,
    timestamp=U32,
    ssrc=U32,
    payload=st.binary(max_size=200),
    marker=st.booleans(),
    csrcs=st.lists(U32, max_size=15).map(tuple),
    extension=st.none() | EXTENSIONS,
)

BLOCKS = st.lists(
    st.builds(
        ReportBlock,
        ssrc=U32,
        fraction_lost=st.integers(0, 255),
        lost=st.integers(-(2**23), 2**23 - 1),
        highest=U32,
        jitter=U32,
        last_sr=U32,
        delay=U32,
    ),
    max_size=31,
).map(tuple)
CNAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
RTCP: st.SearchStrategy[RtcpPacket] = st.one_of(
    st.builds(
        SenderReport, ssrc=U32, ntp=st.integers(0, 2**64 - 1), rtp_time=U32, packets=U32, octets=U32, reports=BLOCKS
    ),
    st.builds(ReceiverReport, ssrc=U32, reports=BLOCKS),
    st.builds(SourceDescription, ssrc=U32, cname=CNAMES),
    st.builds(Bye, ssrcs=st.lists(U32, max_size=31).map(tuple), reason=CNAMES),
)
