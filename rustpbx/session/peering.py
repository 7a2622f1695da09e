"""A call whose far end is a browser: its offer, our answers, and the candidates that come late."""

from __future__ import annotations

import attrs

from rustpbx.errors import MediaError
from rustpbx.media.events import Codec, MediaFormat, SrtpKeys
from rustpbx.media.sdp.encoder import encode_sdp
from rustpbx.media.sdp.fingerprint import Fingerprint
from rustpbx.media.sdp.formats import CodecRules
from rustpbx.media.sdp.ice import Candidate, CandidateKind, IceDescription, parse_candidate
from rustpbx.media.sdp.negotiate import LocalMedia, NegotiationError
from rustpbx.media.sdp.parser import parse_sdp
from rustpbx.media.sdp.webrtc import OwnEnd, PeerOffer, answer_peer, read_peer_offer, without_ipv6
from rustpbx.media.webrtc import PeerReady

PEER_CODECS = CodecRules((Codec.OPUS, Codec.G722, Codec.PCMA, Codec.PCMU), own_order=True)
"""What browsers are spoken to in, the best that they offer."""

_ANYBODY = OwnEnd(
    ice=IceDescription("ufrag", "p" * 22, (Candidate("1", 1, ("192.0.2.1", 9), CandidateKind.HOST),)),
    fingerprint=Fingerprint("sha-256", bytes(32)),
)


class PeerAgreement:
    """The SDP state of one leg to a browser, as `Agreement` is that of others. The browser offers, we answer.

    Every method raises `MediaError` or `RemoteError` and then changes nothing.
    """

    def __init__(self, offer: PeerOffer, ready: PeerReady, session_id: int, codecs: CodecRules) -> None:
        self._first = offer
        self._end = ready.end
        self._local = LocalMedia(
            host="",
            port=0,
            ssrc=ready.ssrc,
            session_id=session_id,
            version=session_id,
            codecs=codecs.codecs,
            own_order=codecs.own_order,
        )
        self._keys: SrtpKeys | None = None
        self.format: MediaFormat | None = None
        """The last agreement, without keys before `secure`; None before the first."""
        self.sdp = ""
        """Our last description, as sent."""
        self.theirs = ""

    def read(self, body: bytes) -> PeerOffer:
        """A further offer. The certificate, and who begins, were settled by the first one."""
        found = read_peer_offer(parse_sdp(body), ipv6=True)
        if (set(found.fingerprints), found.active) != (set(self._first.fingerprints), self._first.active):
            raise NegotiationError("another certificate, or another DTLS role, within a call is not possible")
        return found

    def move(self, end: OwnEnd) -> None:
        """Where we are now; the next answer says so."""
        self._end = end

    def answer(self, body: bytes) -> tuple[bytes, MediaFormat]:
        """Answer an offer. An answer that repeats our last words has their version (RFC 3264 section 8)."""
        offer, local = self.read(body), self._local
        description, agreed = answer_peer(offer, local, self._end)
        if self.sdp and encode_sdp(description).decode() != self.sdp:
            local = local.next()
            description, agreed = answer_peer(offer, local, self._end)
        self._local = local
        self.format = attrs.evolve(agreed, srtp=self._keys)
        said = encode_sdp(description)
        self.sdp = said.decode()
        return said, self.format

    def secure(self, keys: SrtpKeys) -> MediaFormat:
        """The keys of the media are agreed on."""
        if self.format is None:
            raise MediaError("keys without an agreement")
        self._keys = keys
        self.format = attrs.evolve(self.format, srtp=keys)
        return self.format

    def offer(self) -> bytes:
        """We make no offers: a browser's page would have to wait for one."""
        raise NegotiationError("an offer to a browser is not possible")

    def accept(self, body: bytes) -> MediaFormat:
        """See `offer`."""
        raise NegotiationError(f"an answer of {len(body)} bytes without an offer")

    reaffirm = accept


def read_offer(body: bytes, codecs: CodecRules, *, ipv6: bool) -> PeerOffer:
    """A browser's offer that can be answered. Raises `MediaError` or `RemoteError` for one that cannot."""
    offer = read_peer_offer(parse_sdp(body), ipv6=ipv6)
    local = LocalMedia(host="", port=0, ssrc=1, session_id=1, codecs=codecs.codecs, own_order=codecs.own_order)
    answer_peer(offer, local, _ANYBODY)
    return offer


def late_candidates(texts: tuple[str, ...], *, ipv6: bool) -> tuple[Candidate, ...]:
    """What candidates that came after the offer name, as SDP or a browser's script writes them; others are left out."""
    found = (parse_candidate(text.strip().removeprefix("a=")) for text in texts)
    known = tuple(candidate for candidate in found if candidate is not None)
    return known if ipv6 else without_ipv6(known)
