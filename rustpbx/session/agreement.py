"""What a call and its phone have agreed to send: our side of SDP offer/answer (RFC 3264), in one place.

`sip` decides when an offer is pending, `media.sdp` what may be said; this keeps what was said, so that a re-INVITE
continues the same session (o= line: same id, rising version).
"""

from __future__ import annotations

from typing import Protocol

import attrs

from rustpbx.core import address_text
from rustpbx.errors import MediaError, RemoteError
from rustpbx.media.events import MediaFormat, SrtpKey
from rustpbx.media.sdp.crypto import NO_SECURITY, PLAIN, Security, SrtpMode, SrtpPolicy
from rustpbx.media.sdp.encoder import encode_sdp
from rustpbx.media.sdp.formats import CodecRules
from rustpbx.media.sdp.model import SessionDescription
from rustpbx.media.sdp.negotiate import LocalMedia, NegotiationError, accept_answer, answer, offer
from rustpbx.media.sdp.parser import parse_sdp
from rustpbx.media.srtp import SUPPORTED
from rustpbx.sip.events import AcceptOffer, OfferReceived, RefuseOffer

G711 = CodecRules()


class Agreement:
    """The SDP state of one leg. Every method raises `MediaError` or `RemoteError` and then changes nothing.

    Keys for SRTP are made once per leg: a re-INVITE keeps them unless the peer changes its own. Then
    ours change too, because a peer that starts anew expects our stream to do so (RFC 4568 section 7.1.4).

    `sip_port` is where we speak SIP over UDP: no audio goes there, nor to our own end of the leg.
    """

    def __init__(
        self,
        host: str,
        port: int,
        ssrc: int,
        session_id: int,
        srtp: SrtpPolicy = PLAIN,
        *,
        sip_port: int = 0,
        codecs: CodecRules = G711,
    ) -> None:
        self._policy = srtp
        self._own = frozenset((host, own) for own in (port, port + 1, sip_port) if own > 1)
        self._local = LocalMedia(
            host=host,
            port=port,
            ssrc=ssrc,
            session_id=session_id,
            version=session_id,
            security=self._fresh_keys(),
            codecs=codecs.codecs,
            own_order=codecs.own_order,
        )
        self._last_peer_key: SrtpKey | None = None
        self._pending: SessionDescription | None = None
        self._last: SessionDescription | None = None
        self.format: MediaFormat | None = None
        """The last agreement; None before the first."""
        self.sdp = ""
        """Our last description, as sent."""
        self.theirs = ""
        """The peer's last answer, as it came; "" before the first."""

    def offer(self) -> bytes:
        """Make an offer; the answer to it goes to `accept`. One that repeats our last words has their version."""
        unchanged = offer(self._local)
        if encode_sdp(unchanged).decode() != self.sdp:
            self._local = self._next_local()
        self._pending = offer(self._local)
        return self._said(self._pending)

    def _fresh_keys(self) -> Security:
        if self._policy.mode is SrtpMode.OFF:
            return NO_SECURITY
        keys = tuple(SrtpKey(suite, self._policy.entropy(suite.key_size)) for suite in SUPPORTED)
        return Security(mode=self._policy.mode, keys=keys, offered=self._policy.suites)

    def accept(self, body: bytes) -> MediaFormat:
        """Take the peer's answer to our offer. A further one (early media, then the answer) may differ."""
        return self._take_answer(self._pending, body)

    def reaffirm(self, body: bytes) -> MediaFormat:
        """Take the peer's answer to what we said last, offered once more to refresh the session (RFC 4028 7.4)."""
        return self._take_answer(self._last, body)

    def _take_answer(self, ours: SessionDescription | None, body: bytes) -> MediaFormat:
        if ours is None:
            raise MediaError("an SDP answer without an offer")
        agreed = self._elsewhere(accept_answer(ours, parse_sdp(body)))
        self._note(agreed, ours)
        self.theirs = body.decode("utf-8", "replace")
        return agreed

    def answer(self, body: bytes) -> tuple[bytes, MediaFormat]:
        """Answer the peer's offer. An answer that repeats our last words has their version (RFC 3264 section 8)."""
        local, theirs = self._local, parse_sdp(body)
        description, agreed = answer(theirs, local)
        if self.sdp and encode_sdp(description).decode() != self.sdp:
            local = self._next_local()
            description, agreed = answer(theirs, local)
        self._elsewhere(agreed)
        if self._starts_anew(agreed):
            local = attrs.evolve(self._next_local(), security=self._fresh_keys())
            description, agreed = answer(theirs, local)
        self._local = local
        self._note(agreed, description)
        return self._said(description), agreed

    def _elsewhere(self, agreed: MediaFormat) -> MediaFormat:
        """The same, if it has us send to somebody else than ourselves."""
        for address in (agreed.remote, agreed.rtcp):
            if address in self._own:
                raise NegotiationError(f"media to {address_text(address)} would be to ourselves")
        return agreed

    def _next_local(self) -> LocalMedia:
        return self._local if not self.sdp else self._local.next()

    def _starts_anew(self, agreed: MediaFormat) -> bool:
        """Whether our keys have been used with another key of the peer's, or before a stretch of plain RTP."""
        if agreed.srtp is None or self._last_peer_key is None:
            return False
        plain = self.format is not None and self.format.srtp is None
        return plain or agreed.srtp.receive != self._last_peer_key

    def _note(self, agreed: MediaFormat, ours: SessionDescription) -> None:
        """Remember what is agreed; the suite in use and its profile are what we offer from now on."""
        self.format = agreed
        if agreed.srtp is None:
            return
        self._last_peer_key = agreed.srtp.receive
        profile = next(media.protocol for media in ours.media if media.cryptos)
        suite, security = agreed.srtp.send.suite, self._local.security
        offered = tuple(dict.fromkeys((suite, *security.offered)))
        self._local = attrs.evolve(self._local, profile=profile, security=attrs.evolve(security, offered=offered))

    def _said(self, description: SessionDescription) -> bytes:
        body = encode_sdp(description)
        self.sdp, self._last = body.decode(), description
        return body


def check_offer(
    body: bytes,
    srtp: SrtpPolicy = PLAIN,
    host: str = "127.0.0.1",
    sip_port: int = 0,
    codecs: CodecRules = G711,
) -> None:
    """Raise what answering `body` from `host` would raise, before anything is set up for it."""
    Agreement(host, 0, 1, 1, attrs.evolve(srtp, entropy=bytes), sip_port=sip_port, codecs=codecs).answer(body)


class Answering(Protocol):
    """The SDP state of any leg, as far as an offer needs it."""

    def offer(self) -> bytes:
        """Make an offer."""
        ...

    def answer(self, body: bytes) -> tuple[bytes, MediaFormat]:
        """Answer one."""
        ...


def answer_offer(agreement: Answering, fact: OfferReceived) -> tuple[AcceptOffer | RefuseOffer, MediaFormat | None]:
    """What to say to the peer's re-INVITE or UPDATE, and the agreement if there is a new one.

    One without SDP gets an offer of ours, whose answer comes later.
    """
    try:
        body, agreed = agreement.answer(fact.body) if fact.body else (agreement.offer(), None)
    except RemoteError as problem:
        return RefuseOffer(fact.leg, problem.reply), None
    except MediaError:
        return RefuseOffer(fact.leg, 488), None
    return AcceptOffer(fact.leg, body), agreed
