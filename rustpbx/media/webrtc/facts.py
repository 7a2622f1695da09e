"""What a call learns of the far end of its leg, where that is a browser."""

from __future__ import annotations

import attrs

from rustpbx.media.events import SrtpKeys
from rustpbx.media.sdp.webrtc import OwnEnd


@attrs.frozen
class PeerReady:
    """Our end is known and can be told to the peer; `ssrc` is that of our stream. Told again after a restart of ICE."""

    leg: str
    end: OwnEnd
    ssrc: int


@attrs.frozen
class PeerSecured:
    """The peer is who its SDP says, and media goes with these keys."""

    leg: str
    keys: SrtpKeys


@attrs.frozen
class PeerLost:
    """There is no path, no DTLS, or no answer any more: `problem` says which."""

    leg: str
    problem: str


@attrs.frozen
class PeerGone:
    """The peer has said goodbye."""

    leg: str


PeerFact = PeerReady | PeerSecured | PeerLost | PeerGone
