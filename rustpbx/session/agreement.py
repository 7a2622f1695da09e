"""What a call and its phone have agreed to send: our side of SDP offer/answer (RFC 3264), in one place.

`sip` decides when an offer is pending, `media.sdp` what may be said; this keeps what was said, so that a re-INVITE
continues the same session (o= line: same id, rising version).
"""

from __future__ import annotations

from rustpbx.errors import MediaError
from rustpbx.media.events import MediaFormat
from rustpbx.media.sdp.encoder import encode_sdp
from rustpbx.media.sdp.model import SessionDescription
from rustpbx.media.sdp.negotiate import LocalMedia, accept_answer, answer, offer
from rustpbx.media.sdp.parser import parse_sdp


class Agreement:
    """The SDP state of one leg. Every method raises `MediaError` or `RemoteError` and then changes nothing."""

    def __init__(self, host: str, port: int, ssrc: int, session_id: int) -> None:
        self._local = LocalMedia(host=host, port=port, ssrc=ssrc, session_id=session_id, version=session_id)
        self._pending: SessionDescription | None = None
        self.format: MediaFormat | None = None
        """The last agreement; None before the first."""
        self.sdp = ""
        """Our last description, as sent."""
        self.theirs = ""
        """The peer's last answer, as it came; "" before the first."""

    def offer(self) -> bytes:
        """Make an offer; the answer to it goes to `accept`."""
        self._pending = offer(self._next_local())
        return self._said(self._pending)

    def accept(self, body: bytes) -> MediaFormat:
        """Take the peer's answer to our offer. A further one (early media, then the answer) may differ."""
        if self._pending is None:
            raise MediaError("an SDP answer without an offer")
        self.format = accept_answer(self._pending, parse_sdp(body))
        self.theirs = body.decode("utf-8", "replace")
        return self.format

    def answer(self, body: bytes) -> tuple[bytes, MediaFormat]:
        """Answer the peer's offer."""
        local = self._next_local()
        description, agreed = answer(parse_sdp(body), local)
        self._local, self.format = local, agreed
        return self._said(description), agreed

    def _next_local(self) -> LocalMedia:
        return self._local if not self.sdp else self._local.next()

    def _said(self, description: SessionDescription) -> bytes:
        body = encode_sdp(description)
        self.sdp = body.decode()
        return body


def check_offer(body: bytes) -> None:
    """Raise what answering `body` would raise, before anything is set up for it."""
    Agreement("127.0.0.1", 9, 1, 1).answer(body)
