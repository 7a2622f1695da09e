"""A leg whose far end is a browser: ICE finds the path, DTLS agrees on the keys, the plane does the rest.

`peer.py` is the core that says how far it is, `tables.py` its machine, `facts.py` what a call learns of it. `shell/`
puts one on sockets and joins it to the plane.
"""

from rustpbx.media.webrtc.facts import PeerFact, PeerGone, PeerLost, PeerReady, PeerSecured
from rustpbx.media.webrtc.peer import Described, Peer, Send

__all__ = ["Described", "Peer", "PeerFact", "PeerGone", "PeerLost", "PeerReady", "PeerSecured", "Send"]
