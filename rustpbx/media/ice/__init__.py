"""ICE (RFC 8445): an `IceAgent` finds a path to a peer and keeps it while the peer consents.

`agent.py` is the core, `tables.py` its machines. `gathering.py` finds our candidates (by `query.py`), `remotes.py` has
the peer's; `connectivity.py` has the checks, with `pair.py` for the list of them, `inquiry.py` for what we have asked,
`role.py` and `credentials.py` for who we are. `turn/` is the client of relays.
`candidates.py` has the rule for addresses, `stun.py` the messages. `rustpbx.media.sdp.ice` has the SDP.
"""

from rustpbx.media.ice.agent import IceAgent
from rustpbx.media.ice.facts import (
    Close,
    Connect,
    Connected,
    Datagram,
    Disconnected,
    Effect,
    Failed,
    Gather,
    Gathered,
    IceOptions,
    Input,
    Payload,
    Received,
    RelayLost,
    Remote,
    Restart,
    Returned,
    Selected,
    Send,
    Silent,
    Trickled,
    Write,
)
from rustpbx.media.ice.turn.server import Transport, TurnServer

__all__ = [
    "Close",
    "Connect",
    "Connected",
    "Datagram",
    "Disconnected",
    "Effect",
    "Failed",
    "Gather",
    "Gathered",
    "IceAgent",
    "IceOptions",
    "Input",
    "Payload",
    "Received",
    "RelayLost",
    "Remote",
    "Restart",
    "Returned",
    "Selected",
    "Send",
    "Silent",
    "Transport",
    "Trickled",
    "TurnServer",
    "Write",
]
