"""Offers of browsers and their like: audio whose path ICE finds and whose keys DTLS agrees on (RFC 8829, RFC 9143).

What is said of the audio itself is ordinary offer/answer (`negotiate.py`); what is said of the way to it is here. One
stream is answered, on one port with its RTCP; every other m= line, video and data channels among them, is refused.
Header extensions and RTCP feedback are not taken up, so nobody uses them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import attrs

from rustpbx.errors import one_line
from rustpbx.media.events import MediaFormat
from rustpbx.media.sdp.fingerprint import HASHES, Fingerprint, Setup, answering
from rustpbx.media.sdp.ice import LITE, Candidate, CandidateKind, IceDescription, ice_attributes, read_ice
from rustpbx.media.sdp.model import Attribute, Connection, MediaDescription, SessionDescription
from rustpbx.media.sdp.negotiate import PLAIN, LocalMedia, NegotiationError, answer, describe

PROTOCOLS = ("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "TCP/DTLS/RTP/SAVPF", "RTP/SAVPF", "RTP/SAVP")
"""Profiles of audio under DTLS (RFC 8829 5.1.2); the last two are what older ones say."""

NOWHERE = ("0.0.0.0", 9)  # noqa: S104 - an address in SDP, not one to bind
"""What stands for the peer's address where ICE finds it (RFC 8840 4.1.1)."""

STREAM = "rustpbx"
"""The id of our stream, and its one track's, for browsers that put it into an element of a page (RFC 8830)."""

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,64}")


@attrs.frozen(kw_only=True)
class PeerOffer:
    """What an offer says of the way to its audio. `active` is whether we begin the DTLS handshake."""

    description: SessionDescription
    media: MediaDescription
    mid: str | None
    ice: IceDescription
    fingerprints: tuple[Fingerprint, ...]
    setup: Setup

    @property
    def active(self) -> bool:
        """Whether we begin the handshake."""
        return self.setup is Setup.ACTIVE


@attrs.frozen(kw_only=True)
class OwnEnd:
    """Our end of the way: where we may be found, and the certificate that we show."""

    ice: IceDescription
    fingerprint: Fingerprint


def is_peer_offer(description: SessionDescription) -> bool:
    """Whether some audio of it goes by ICE and under DTLS."""
    ways = [_transport(description, media) for media in description.media if _is_audio(media)]
    return any(_says(description, way, "ice-ufrag") and description.fingerprints_of(way) for way in ways)


def read_peer_offer(description: SessionDescription, *, ipv6: bool = True) -> PeerOffer:
    """Read what must be known before anything is opened for it. Raises `NegotiationError` or `SdpError`, by name.

    Without `ipv6` the peer has no candidates of that family.
    """
    media = _audio_of(description)
    mid = _mid(description, media)
    if not (media.rtcp_mux or description.rtcp_mux):
        raise NegotiationError("the audio stream has no a=rtcp-mux: RTCP on a port of its own is not possible")
    way = _transport(description, media)
    ice = read_ice(description, way)
    if ice is None:
        raise NegotiationError("the audio stream has no a=ice-ufrag and a=ice-pwd")
    setup = answering(description.setup_of(way))
    if setup is Setup.HOLDCONN:
        raise NegotiationError("a=setup:holdconn: nobody would begin the DTLS handshake")
    return PeerOffer(
        description=description,
        media=media,
        mid=mid,
        ice=attrs.evolve(ice, candidates=without_ipv6(ice.candidates)) if not ipv6 else ice,
        fingerprints=_trustworthy(description.fingerprints_of(way), way),
        setup=setup,
    )


def without_ipv6(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Candidates but those that are IPv6 addresses."""
    return tuple(candidate for candidate in candidates if ":" not in candidate.address[0])


def answer_peer(offer: PeerOffer, local: LocalMedia, end: OwnEnd) -> tuple[SessionDescription, MediaFormat]:
    """Answer such an offer; the format has no keys yet, and the peer's address is `NOWHERE`.

    `local` need not say where we are: `end` does. Raises `NegotiationError`.
    """
    host, port = _default(end.ice.candidates)
    local = attrs.evolve(local, host=host, port=port)
    plain = attrs.evolve(
        offer.media, protocol=PLAIN[0], port=9, cryptos=(), connection=Connection.to(host), rtcp_mux=True
    )
    spoken, agreed = answer(attrs.evolve(offer.description, media=(plain,)), local)
    (audio,) = spoken.media
    accepted = attrs.evolve(
        audio,
        protocol=offer.media.protocol,
        connection=spoken.connection,
        fingerprints=(end.fingerprint,),
        setup=offer.setup,
        attributes=(*_mid_line(offer.mid), Attribute("msid", f"{STREAM} {STREAM}"), *ice_attributes(end.ice)),
    )
    grouped = offer.mid is not None and any(offer.mid in group for group in _groups(offer.description))
    lines = [Attribute("group", f"BUNDLE {offer.mid}")] if grouped else []
    description = attrs.evolve(
        spoken,
        media=tuple(accepted if m is offer.media else _refused(m) for m in offer.description.media),
        attributes=(*lines, *([LITE] if end.ice.lite else []), Attribute("msid-semantic", f"WMS {STREAM}")),
    )
    return description, attrs.evolve(agreed, remote=NOWHERE, rtcp=NOWHERE, rtcp_mux=True)


# -- the stream -----------------------------------------------------------------------------------------------------


def _is_audio(media: MediaDescription) -> bool:
    return media.kind.lower() == "audio" and media.protocol.upper() in PROTOCOLS


def _audio_of(description: SessionDescription) -> MediaDescription:
    """The first audio stream that is not switched off; port 0 is no sign of that where another's port serves it."""
    streams = [media for media in description.media if _is_audio(media)]
    live = next((m for m in streams if m.port or m.attribute("bundle-only")), None)
    if live is not None:
        return live
    if streams:
        raise NegotiationError("the audio stream has port 0: it is switched off")
    raise NegotiationError(f"no audio under DTLS in the offer of {describe(description)}")


def _mid(description: SessionDescription, media: MediaDescription) -> str | None:
    """The stream's name. One is needed where several share a path, and must be its own (RFC 5888 9.2, RFC 9143 7)."""
    found = media.attribute("mid")
    if found is None:
        if _groups(description):
            raise NegotiationError("the audio stream has no a=mid, though the offer bundles")
        return None
    mid = found.value or ""
    if not _TOKEN.fullmatch(mid):
        raise NegotiationError(f"a=mid:{one_line(mid, 40)} is no token")
    if Counter(m.value for other in description.media if (m := other.attribute("mid")))[mid] > 1:
        raise NegotiationError(f"a=mid:{mid} stands for two streams")
    return mid


def _groups(description: SessionDescription) -> list[list[str]]:
    """Which streams share a path, by their names."""
    values = [(a.value or "").split() for a in description.attributes if a.name == "group"]
    return [words[1:] for words in values if words[:1] == ["BUNDLE"]]


def _mid_line(mid: str | None) -> tuple[Attribute, ...]:
    return (Attribute("mid", mid),) if mid is not None else ()


def _refused(media: MediaDescription) -> MediaDescription:
    """Port 0, with its name (RFC 8829 5.3.1), and its formats since the grammar wants some."""
    found = media.attribute("mid")
    mid = found.value if found and found.value and _TOKEN.fullmatch(found.value) else None
    return MediaDescription(
        kind=media.kind, port=0, protocol=media.protocol, formats=media.formats, attributes=_mid_line(mid)
    )


# -- the way to it --------------------------------------------------------------------------------------------------


def _says(description: SessionDescription, media: MediaDescription, name: str) -> bool:
    return (media.attribute(name) or description.attribute(name)) is not None


def _transport(description: SessionDescription, media: MediaDescription) -> MediaDescription:
    """The stream whose lines describe the way: its own, or those of the first one that it shares a port with.

    A stream that cannot be had alone says nothing of a port of its own (RFC 9143 7.1.3).
    """
    if media.attribute("ice-ufrag") is not None or media.attribute("bundle-only") is None:
        return media
    name = media.attribute("mid")
    mates = next((group for group in _groups(description) if name and name.value in group), [])
    for other in description.media:
        mid = other.attribute("mid")
        if mid is not None and mid.value in mates and other.attribute("ice-ufrag") is not None:
            return other
    return media


def _trustworthy(fingerprints: tuple[Fingerprint, ...], media: MediaDescription) -> tuple[Fingerprint, ...]:
    """The fingerprints, if they say one thing that we can check: a browser has one certificate (RFC 8827 6.5)."""
    if not fingerprints:
        broken = media.attribute("fingerprint")
        if broken is not None:
            raise NegotiationError(f"a=fingerprint:{one_line(broken.value or '')} is not of the form")
        raise NegotiationError("the audio stream has no a=fingerprint: its certificate could not be checked")
    known = [one for one in fingerprints if one.algorithm in HASHES]
    if not known:
        names = ", ".join(sorted({one.algorithm for one in fingerprints}))
        raise NegotiationError(f"no a=fingerprint with a hash of {', '.join(HASHES)}, only {names}")
    twice = next((name for name in HASHES if len({one.digest for one in known if one.algorithm == name}) > 1), None)
    if twice is not None:
        raise NegotiationError(f"two a=fingerprint lines of {twice} that disagree")
    return fingerprints


_RANKS = (CandidateKind.SERVER_REFLEXIVE, CandidateKind.HOST, CandidateKind.RELAYED)


def _default(candidates: Iterable[Candidate]) -> tuple[str, int]:
    """What stands in m= and c= (RFC 8839 4.2.1.2): what most likely works for whoever does no ICE."""
    known = [one for one in candidates if one.kind in _RANKS and not one.is_name]
    best = min(known, key=lambda one: (_RANKS.index(one.kind), ":" in one.address[0]), default=None)
    return NOWHERE if best is None else best.address
