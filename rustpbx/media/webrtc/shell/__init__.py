"""Browsers' legs on sockets and the media plane: `PeerLeg`, and `WebRtc` with what all of them share."""

from rustpbx.media.webrtc.shell.leg import PeerLeg, PeerWish
from rustpbx.media.webrtc.shell.server import WebRtc, WebRtcConfig, stun_server

__all__ = ["PeerLeg", "PeerWish", "WebRtc", "WebRtcConfig", "stun_server"]
