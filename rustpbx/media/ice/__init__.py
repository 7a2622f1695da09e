"""ICE (RFC 8445): an `IceAgent` finds a path to a peer and keeps it while the peer consents.

`agent.py` is the core, `tables.py` its machines. `gathering.py` finds our candidates (by `query.py`), `remotes.py` has
the peer's, `pair.py` is the checklist, `inquiry.py` what we have asked, `role.py` and `credentials.py` say who we are.
`candidates.py` has the rule for addresses, `stun.py` the messages. `rustpbx.media.sdp.ice` has the SDP.
"""

from rustpbx.media.ice.agent import IceAgent
from rustpbx.media.ice.facts import (
    Close,
    Datagram,
    Effect,
    Failed,
    Gather,
    Gathered,
    IceOptions,
    Input,
    Payload,
    Remote,
    Restart,
    Returned,
    Selected,
    Send,
    Silent,
    Trickled,
)

__all__ = [
    "Close",
    "Datagram",
    "Effect",
    "Failed",
    "Gather",
    "Gathered",
    "IceAgent",
    "IceOptions",
    "Input",
    "Payload",
    "Remote",
    "Restart",
    "Returned",
    "Selected",
    "Send",
    "Silent",
    "Trickled",
]
