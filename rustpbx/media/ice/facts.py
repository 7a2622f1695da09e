"""What an `IceAgent` is told, and what it says."""

from __future__ import annotations

import attrs

from rustpbx.core import Address
from rustpbx.media.ice.turn.server import TurnServer
from rustpbx.media.sdp.ice import Candidate, IceDescription

# -- inputs ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Gather:
    """These addresses are bound, the best first; find out what they look like from outside."""

    bases: tuple[Address, ...]


@attrs.frozen
class Remote:
    """The peer's description, the first or, after a restart, another. One with the same credentials adds candidates."""

    description: IceDescription


@attrs.frozen
class Trickled:
    """One more candidate of the peer (RFC 8838)."""

    candidate: Candidate


@attrs.frozen
class Datagram:
    """What came to which of our bases, and from where."""

    data: bytes = attrs.field(repr=False)
    base: Address
    source: Address


@attrs.frozen
class Connected:
    """There is a stream to a TURN server, as `Connect` wanted it."""

    server: TurnServer


@attrs.frozen
class Received:
    """What came on it; cut anywhere."""

    data: bytes = attrs.field(repr=False)
    server: TurnServer


@attrs.frozen
class Disconnected:
    """There is none, or none any more."""

    server: TurnServer
    reason: str


@attrs.frozen
class Restart:
    """Begin anew, with other credentials (section 9); the path holds until there is another."""


@attrs.frozen
class Close:
    """The call is over."""


Input = Gather | Remote | Trickled | Datagram | Connected | Received | Disconnected | Restart | Close

# -- effects --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Send:
    """Send a datagram from one of the bases."""

    data: bytes = attrs.field(repr=False)
    base: Address
    destination: Address


@attrs.frozen
class Connect:
    """Open a stream to a TURN server, and tell by `Connected` or `Disconnected`."""

    server: TurnServer


@attrs.frozen
class Write:
    """Write on the stream to a TURN server."""

    data: bytes = attrs.field(repr=False)
    server: TurnServer


@attrs.frozen
class RelayLost:
    """There is no relay on this server, or none any more; the reason has the server's own code, if it gave one."""

    server: TurnServer
    reason: str


@attrs.frozen
class Gathered:
    """`local` is complete."""


@attrs.frozen
class Selected:
    """This is the path; a later one takes its place."""

    base: Address
    remote: Address


@attrs.frozen
class Silent:
    """The peer has not answered for `SILENCE`; the path is kept for now."""


@attrs.frozen
class Returned:
    """It has answered again."""


@attrs.frozen
class Failed:
    """There is no path (any more), and nothing may be sent; a restart may help."""

    reason: str


@attrs.frozen
class Payload:
    """DTLS, SRTP or SRTCP, from an address that the peer has proved to be its own."""

    data: bytes = attrs.field(repr=False)
    base: Address
    source: Address


Effect = Send | Connect | Write | RelayLost | Gathered | Selected | Silent | Returned | Failed | Payload


@attrs.frozen(kw_only=True)
class IceOptions:
    """`external_ips`: what a 1:1 NAT makes of our bases, at most one of each family. Servers by address.

    With `relay_only` the peer hears of relays alone, and nothing is sent to it but by them. A lite agent has none.
    """

    lite: bool = False
    stun_servers: tuple[Address, ...] = ()
    turn_servers: tuple[TurnServer, ...] = ()
    external_ips: tuple[str, ...] = ()
    relay_only: bool = False
    allow_loopback: bool = False
