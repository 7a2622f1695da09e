"""Browsers' legs on sockets and the media plane: `PeerLeg`, and `WebRtc` with what all of them share."""

from rustpbx.media.webrtc.shell.leg import PeerLeg, PeerWish
from rustpbx.media.webrtc.shell.server import OurServer, WebRtc, WebRtcConfig

__all__ = ["OurServer", "PeerLeg", "PeerWish", "WebRtc", "WebRtcConfig"]
