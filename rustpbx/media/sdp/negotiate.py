"""Offer and answer for one audio stream as pure functions (RFC 3264, with RFC 3551, 4733, 5761, 3605 and 4568).

We speak G.711 in both laws, G.722, Opus, and telephone-event, over RTP or SRTP. One codec is answered, so that a
stream never changes its codec under way. Opus is answered with one channel, whatever was offered (RFC 7587 7.1). Names
are not resolved: media goes to IP literals only.

SRTP where it is preferred is offered as RTP/AVP with keys, not as RTP/SAVP: whoever cannot do it answers without keys,
in the same INVITE. Where it is required it is offered as RTP/SAVP, the only way that RFC 4568 knows.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

import attrs

from rustpbx.core import Address
from rustpbx.errors import MediaError, one_line
from rustpbx.media.events import Codec, Direction, MediaFormat, SrtpKeys
from rustpbx.media.sdp.crypto import NO_SECURITY, Crypto, Security, SrtpMode, choose, match
from rustpbx.media.sdp.formats import DTMF, OFFERED, codec_of, dtmf_for, key, odd_rate, opus_params, parameters
from rustpbx.media.sdp.model import (
    Connection,
    MediaDescription,
    Origin,
    RtpMap,
    SessionDescription,
    Ssrc,
)

PLAIN = ("RTP/AVP", "RTP/AVPF")
SECURE = ("RTP/SAVP", "RTP/SAVPF")
PROTOCOLS = (*PLAIN, *SECURE)
"""Profiles we accept; the answer repeats the one offered. We offer the first of either kind."""

_BROADCAST = ipaddress.ip_address("255.255.255.255")


class NegotiationError(MediaError):
    """No audio both sides speak. The text says what was offered; `reply` is the SIP status to answer with."""

    reply = 488


@attrs.frozen(kw_only=True)
class LocalMedia:
    """Our side of one call.

    `host` is the advertised IP literal, `port` the even RTP port. `session_id` stays for the whole dialog, `version`
    rises with each description sent (`next`). `codecs` are those we accept, best first; their order decides an answer
    only with `own_order`, else the offerer's does. `direction` is what we are willing to do, `ptime` (ms) what we want
    to receive. `cname` "" becomes `rustpbx-<ssrc>`. `profile` is what is offered, where the mode of `security` does not
    say it.
    """

    host: str
    port: int
    ssrc: int
    session_id: int
    version: int = 1
    codecs: tuple[Codec, ...] = (Codec.PCMU, Codec.PCMA)
    own_order: bool = False
    dtmf: bool = True
    direction: Direction = Direction.SENDRECV
    ptime: int = 20
    cname: str = ""
    security: Security = NO_SECURITY
    profile: str = ""

    def next(self) -> LocalMedia:
        """The same with the next version, for the next description of the dialog."""
        return attrs.evolve(self, version=self.version + 1)


# -- the three functions --------------------------------------------------------------------------------------------


def offer(local: LocalMedia) -> SessionDescription:
    """What we offer: our codecs, telephone-event at their clock rates, rtcp-mux, our keys for SRTP."""
    rtpmaps = [OFFERED[codec] for codec in local.codecs]
    if local.dtmf:
        rates = sorted({rtpmap.clock_rate for rtpmap in rtpmaps})
        rtpmaps += [DTMF[rate] for rate in rates]
    profile = local.profile or (SECURE[0] if local.security.mode is SrtpMode.REQUIRE else PLAIN[0])
    keys = () if local.security.mode is SrtpMode.OFF else local.security.lines()
    return _description(local, [_audio(local, rtpmaps, profile, local.direction, rtcp_mux=True, cryptos=keys)])


def answer(remote: SessionDescription, local: LocalMedia) -> tuple[SessionDescription, MediaFormat]:
    """Answer an offer: the first audio stream we can use, every other m= line refused with port 0 (section 6).

    A stream on hold (inactive or sendonly, c=0.0.0.0, or port 0 if there is no better one) is a good answer, with the
    direction that is left to us. Raises `NegotiationError`.
    """
    theirs, codec, dtmf = _choose(remote, local)
    crypto, srtp = _protection(theirs, local.security)
    connection = _connection(remote, theirs, local)
    wanted = _direction(remote.direction_of(theirs), local.direction, silent=_silent(connection, theirs))
    ours = _audio(
        local,
        [codec, dtmf] if dtmf else [codec],
        theirs.protocol,
        wanted,
        rtcp_mux=_muxed(remote, theirs),
        cryptos=(crypto,) if crypto else (),
    )
    ours = attrs.evolve(ours, kind=theirs.kind, port=ours.port if theirs.port else 0)  # as they spell it: Audio
    media = [ours if m is theirs else _refused(m) for m in remote.media]
    dtmf_type = dtmf.payload_type if dtmf else None
    agreed = MediaFormat(
        codec=_codec(codec),
        receive_pt=codec.payload_type,
        send_pt=codec.payload_type,
        remote=(connection.host, theirs.port),
        rtcp=_rtcp(theirs, connection, muxed=ours.rtcp_mux),
        rtcp_mux=ours.rtcp_mux,
        direction=wanted,
        receive_dtmf_pt=dtmf_type,
        send_dtmf_pt=dtmf_type,
        dtmf_rate=odd_rate(codec, dtmf),
        ptime=_ptime(remote, theirs),
        srtp=srtp,
        opus=opus_params(theirs, codec.payload_type),
    )
    return _description(local, media), agreed


def accept_answer(ours: SessionDescription, theirs: SessionDescription) -> MediaFormat:
    """What an answer to our offer means. We send with the answer's payload types and receive with those we offered.

    The first codec of the answer that we offered is used. Raises `NegotiationError` where the stream was refused or
    answered with nothing we offered.
    """
    at, offered = next((at, m) for at, m in enumerate(ours.media) if m.kind == "audio")
    answered = theirs.media[at] if at < len(theirs.media) else None
    if answered is None or not _is_audio(answered) or answered.port == 0:
        raise NegotiationError(f"our audio was refused with an answer of {describe(theirs)}")
    codec = next((pair for pair in _common(offered, answered) if codec_of(pair[0])), None)
    if codec is None:
        raise NegotiationError(f"nothing of our offer in the answer of {describe(theirs)}")
    srtp = _agreed_protection(offered, answered)
    events = dict(_common(offered, answered))
    ours_dtmf = dtmf_for(codec[0], events)
    local_host = (ours.connection_of(offered) or ours.origin.connection).host
    connection = _usable(theirs.connection_of(answered), local_host, describe(theirs))
    muxed = _muxed(ours, offered) and _muxed(theirs, answered)
    return MediaFormat(
        codec=_codec(codec[0]),
        receive_pt=codec[0].payload_type,
        send_pt=codec[1].payload_type,
        remote=(connection.host, answered.port),
        rtcp=_rtcp(answered, connection, muxed=muxed),
        rtcp_mux=muxed,
        direction=_direction(
            theirs.direction_of(answered), ours.direction_of(offered), silent=_silent(connection, answered)
        ),
        receive_dtmf_pt=ours_dtmf.payload_type if ours_dtmf else None,
        send_dtmf_pt=events[ours_dtmf].payload_type if ours_dtmf else None,
        dtmf_rate=odd_rate(codec[0], ours_dtmf),
        ptime=_ptime(theirs, answered),
        srtp=srtp,
        opus=opus_params(answered, codec[1].payload_type),
    )


_MOST_SHOWN = 4


def describe(description: SessionDescription) -> str:
    """One line for logs and errors: each stream with profile and formats."""
    shown = [_describe(media) for media in description.media[:_MOST_SHOWN]]
    if len(description.media) > _MOST_SHOWN:
        shown.append(f"and {len(description.media) - _MOST_SHOWN} more")
    return "; ".join(shown) or "no media at all"


def _describe(media: MediaDescription) -> str:
    known = {str(rtpmap.payload_type): f"{rtpmap} ({rtpmap.payload_type})" for rtpmap in media.offered()}
    formats = ", ".join(one_line(known.get(name, name), 40) for name in media.formats[:12])
    return f"{one_line(media.kind, 20)} {media.port} {one_line(media.protocol, 20)} {formats}"[:200]


# -- choosing -------------------------------------------------------------------------------------------------------


def _choose(remote: SessionDescription, local: LocalMedia) -> tuple[MediaDescription, RtpMap, RtpMap | None]:
    """The stream to use with its codec and telephone-event.

    A live one before one with port 0, a protected one before a plain one, and else the first. Raises
    `NegotiationError`.
    """
    unprotected = False
    for media in sorted(remote.media, key=lambda m: (m.port == 0, _protection(m, local.security)[1] is None)):
        if not _is_audio(media):
            continue
        codecs = [rtpmap for rtpmap in media.offered() if codec_of(rtpmap) in local.codecs]
        if local.own_order:
            codecs.sort(key=lambda rtpmap: local.codecs.index(_codec(rtpmap)))
        if codecs and not _may_be_used(media, local.security):
            unprotected = True
        elif codecs:
            return media, codecs[0], dtmf_for(codecs[0], media.offered()) if local.dtmf else None
    if unprotected:
        what = "SRTP is off here" if local.security.mode is SrtpMode.OFF else "no SRTP with keys that we can use"
        raise NegotiationError(f"{what}, in the offer of {describe(remote)}")
    raise NegotiationError(f"no audio that we speak in the offer of {describe(remote)}")


def _is_audio(media: MediaDescription) -> bool:
    return media.kind.lower() == "audio" and media.protocol.upper() in PROTOCOLS


# -- protection -----------------------------------------------------------------------------------------------------


def _protection(media: MediaDescription, security: Security) -> tuple[Crypto, SrtpKeys] | tuple[None, None]:
    """Our a=crypto line for the answer to an offered stream, and what it agrees on; nothing for plain RTP.

    Keys in an RTP/AVP stream are the same offer with less insistence, as many phones make it.
    """
    chosen = None if security.mode is SrtpMode.OFF else choose(media.cryptos, security)
    if chosen is None:
        return None, None
    line, ours, theirs = chosen
    return line, SrtpKeys(send=ours, receive=theirs)


def _may_be_used(media: MediaDescription, security: Security) -> bool:
    """Whether an offered stream is protected as it says it is, and as we say it must be."""
    if _protection(media, security)[1] is not None:
        return True
    return media.protocol.upper() in PLAIN and security.mode is not SrtpMode.REQUIRE


def _agreed_protection(offered: MediaDescription, answered: MediaDescription) -> SrtpKeys | None:
    """The keys by an answer to our offer; None for plain RTP. Raises `NegotiationError` if it is neither."""
    found = match(offered.cryptos, answered.cryptos)
    if found is not None:
        return SrtpKeys(send=found[0], receive=found[1])
    if offered.protocol.upper() in SECURE or answered.protocol.upper() in SECURE:
        raise NegotiationError("an answer without keys that belong to our offer of SRTP")
    if offered.cryptos and (answered.cryptos or answered.attribute("crypto")):
        raise NegotiationError("an answer with keys that do not belong to our offer")
    return None


def _codec(rtpmap: RtpMap) -> Codec:
    """The codec of a format that was chosen because it is one."""
    codec = codec_of(rtpmap)
    assert codec is not None  # noqa: S101 - see above
    return codec


def _common(offered: MediaDescription, answered: MediaDescription) -> Iterator[tuple[RtpMap, RtpMap]]:
    """Formats in both, as (ours, theirs), in the answer's order; the payload types may differ (section 5.1)."""
    ours = {key(rtpmap): rtpmap for rtpmap in reversed(offered.offered())}
    return ((ours[key(theirs)], theirs) for theirs in answered.offered() if key(theirs) in ours)


# -- addresses ------------------------------------------------------------------------------------------------------


def _connection(remote: SessionDescription, media: MediaDescription, local: LocalMedia) -> Connection:
    return _usable(remote.connection_of(media), local.host, describe(remote))


def _usable(connection: Connection | None, local_host: str, what: str) -> Connection:
    """The connection with its IP literal in normal form; NegotiationError if we cannot send there."""
    if connection is None:
        raise NegotiationError(f"no c= line for {what}")
    try:
        address = ipaddress.ip_address(connection.host)
    except ValueError:
        raise NegotiationError(f"media to {connection.host[:80]!r} is not possible, only to an IP address") from None
    if address.is_multicast or address == _BROADCAST:
        raise NegotiationError(f"media to {address} is not possible, only to one host")
    if address.version != ipaddress.ip_address(local_host).version and not address.is_unspecified:
        raise NegotiationError(f"media to {address} is not possible from {local_host}")
    return Connection.to(str(address))


def _silent(connection: Connection, media: MediaDescription) -> bool:
    """On hold by address: 0.0.0.0 of RFC 2543 phones (RFC 3264 section 8.4), or port 0."""
    return media.port == 0 or ipaddress.ip_address(connection.host).is_unspecified


def _muxed(description: SessionDescription, media: MediaDescription) -> bool:
    return media.rtcp_mux or description.rtcp_mux


def _rtcp(media: MediaDescription, connection: Connection, *, muxed: bool) -> Address | None:
    """Where the peer wants RTCP: muxed, as its a=rtcp says (RFC 3605), or on the next port; None while on hold."""
    if _silent(connection, media):
        return None
    if muxed:
        return connection.host, media.port
    if media.rtcp is None:
        return (connection.host, media.port + 1) if media.port < 65_535 else None
    elsewhere = media.rtcp.connection
    try:
        host = str(ipaddress.ip_address(elsewhere.host)) if elsewhere else connection.host
    except ValueError:  # a name; its media address is one of its own as well
        host = connection.host
    return host, media.rtcp.port


# -- parts ----------------------------------------------------------------------------------------------------------

_SENDS = {Direction.SENDRECV, Direction.SENDONLY}
_RECEIVES = {Direction.SENDRECV, Direction.RECVONLY}
_FLAGS = {
    (True, True): Direction.SENDRECV,
    (True, False): Direction.SENDONLY,
    (False, True): Direction.RECVONLY,
    (False, False): Direction.INACTIVE,
}


def _direction(theirs: Direction, ours: Direction, *, silent: bool) -> Direction:
    """Our direction (section 6.1): we send if they receive and we are willing, and the other way round."""
    sends = ours in _SENDS and theirs in _RECEIVES and not silent
    receives = ours in _RECEIVES and theirs in _SENDS
    return _FLAGS[sends, receives]


def _ptime(description: SessionDescription, media: MediaDescription) -> int:
    """What the peer wants to be sent, in ms: its ptime within its maxptime, a multiple of 10 from 10 to 60."""
    wanted = media.ptime or description.ptime or 20
    most = media.maxptime or description.maxptime or 60
    return max(10, min(wanted, most, 60) // 10 * 10)


def _audio(
    local: LocalMedia,
    rtpmaps: Sequence[RtpMap],
    protocol: str,
    direction: Direction,
    *,
    rtcp_mux: bool,
    cryptos: tuple[Crypto, ...] = (),
) -> MediaDescription:
    return MediaDescription(
        kind="audio",
        port=local.port,
        protocol=protocol,
        formats=tuple(str(rtpmap.payload_type) for rtpmap in rtpmaps),
        rtpmaps=tuple(rtpmaps),
        fmtps=tuple(fmtp for rtpmap in rtpmaps if (fmtp := parameters(rtpmap)) is not None),
        ssrcs=(Ssrc(local.ssrc, "cname", local.cname or f"rustpbx-{local.ssrc}"),),
        cryptos=cryptos,
        rtcp_mux=rtcp_mux,
        ptime=local.ptime,
        direction=direction,
    )


def _refused(media: MediaDescription) -> MediaDescription:
    """Section 6: port 0, with the formats of the offer since the grammar wants some."""
    return MediaDescription(kind=media.kind, port=0, protocol=media.protocol, formats=media.formats)


def _description(local: LocalMedia, media: Sequence[MediaDescription]) -> SessionDescription:
    connection = Connection.to(local.host)
    origin = Origin(str(local.session_id), str(local.version), connection)
    return SessionDescription(origin=origin, connection=connection, media=tuple(media))
