"""What the SIP endpoint is told and what it tells: read this file to know the layer.

Inputs are messages, wishes of the session and ticks; effects are messages to send and facts to emit. Every wish
and fact of a call carries `leg`, the name under which both sides know the dialog: chosen by the caller of
`SendInvite`, and equal to `dialog_id` for incoming calls.

A leg ends once: by one ending fact (`CallCancelled`, `CallRefused`, `ByeReceived`, `CallLost`), or by the wish `HangUp`
or `Refuse`. Nothing is told of it afterwards, whatever the network still does; wishes for it are then ignored.
"""

from __future__ import annotations

import attrs

from rustpbx.core import Address
from rustpbx.errors import RemoteError
from rustpbx.sip.cause import NO_REASONS, Reasons
from rustpbx.sip.hop import Hop, Target
from rustpbx.sip.identity import NOBODY, Identity
from rustpbx.sip.message import Lines, NameAddr
from rustpbx.sip.sipfrag import Referral
from rustpbx.sip.uri import Uri

# -- inputs ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Received:
    """One message. `local_host` is our own address as this peer should know it (Via, Contact, SDP)."""

    data: bytes
    source: Hop
    local_host: str


@attrs.frozen
class Garbled:
    """A stream whose next message cannot be told from what follows it; the connection closes after our answer."""

    error: RemoteError
    source: Hop


@attrs.frozen
class Undeliverable:
    """The transport could not send for the client transaction with this branch (no such host, no route)."""

    branch: str
    problem: str


@attrs.frozen
class Located:
    """The servers for the target of a `Locate`, the best first; none where there are none, and why."""

    key: str
    hops: tuple[Hop, ...]
    problem: str = ""


@attrs.frozen
class FlowLost:
    """The way to a peer that was to be kept open (`Keep`) is gone, or our address on it has changed."""

    hop: Hop
    problem: str


@attrs.frozen
class Credentials:
    """Digest credentials; an empty `realm` answers any one realm (the first that challenges)."""

    username: str
    password: str = attrs.field(repr=False)
    realm: str = ""


@attrs.frozen(kw_only=True)
class SendInvite:
    """Place a call. `destination` is where the INVITE goes; None means what the callee URI names.

    `routes` are proxies that it goes through first (8.1.1.1), `destination` or not.
    """

    leg: str
    caller: NameAddr
    callee: Uri
    body: bytes
    local_host: str
    credentials: Credentials | None = None
    contact: Uri | None = None
    headers: Lines = ()
    destination: Target | None = None
    routes: tuple[NameAddr, ...] = ()


@attrs.frozen(kw_only=True)
class Account:
    """An address of ours at a registrar. `name` is ours alone, for logs and health.

    `aor` is the address-of-record with its display name, `registrar` the server's URI, `expires` the seconds asked for.
    With `nat`, the address that the registrar sees us at is believed (RFC 3581). `q` and `instance` (`urn:uuid:...`,
    RFC 5626 4.1) are told with the Contact if they are there.
    """

    name: str
    aor: NameAddr
    registrar: Uri
    credentials: Credentials | None = None
    outbound_proxy: Uri | None = None
    expires: int = 3600
    nat: bool = True
    q: float | None = None
    instance: str = ""


@attrs.frozen(kw_only=True)
class Register:
    """Register an account, and keep it so; `local_host` is our address as the registrar should know it."""

    account: Account
    local_host: str


@attrs.frozen
class Unregister:
    """Take an account's registration back."""

    name: str


@attrs.frozen
class Ring:
    """Send a provisional response (180, 183) on an incoming call; `body` is SDP for early media."""

    leg: str
    status: int = 180
    body: bytes = b""


@attrs.frozen
class Answer:
    """Send 200 with SDP on an incoming call."""

    leg: str
    body: bytes
    headers: Lines = ()


@attrs.frozen
class Refuse:
    """Send a final response 3xx-6xx on an unanswered incoming call. `reason` becomes a Reason header's text.

    `cause` is the Q.850 cause that it carries (RFC 6432).
    """

    leg: str
    status: int
    reason: str | None = None
    headers: Lines = ()
    cause: int | None = None


@attrs.frozen
class HangUp:
    """End the call however its state demands: CANCEL, BYE (after the ACK, or at 64*T1, for our own 200), 603.

    `cause` is the Q.850 cause in its Reason header field (RFC 3326), if `headers` has none.
    """

    leg: str
    headers: Lines = ()
    cause: int | None = None


@attrs.frozen
class AcceptOffer:
    """Answer the peer's re-INVITE or UPDATE (`OfferReceived`) with 200 and this SDP."""

    leg: str
    body: bytes


@attrs.frozen
class RefuseOffer:
    """Refuse the peer's re-INVITE or UPDATE; the session stays as it was."""

    leg: str
    status: int = 488


@attrs.frozen
class SendOffer:
    """Send a re-INVITE with this SDP on an answered call; `OfferAnswered` or `OfferRefused` tells the outcome.

    With `update` it is an UPDATE (RFC 3311), as always before the answer: possible there once a reliable provisional
    response has settled the session.
    """

    leg: str
    body: bytes
    update: bool = False


@attrs.frozen
class SendDigit:
    """Send one DTMF digit by SIP INFO (`application/dtmf-relay`) on an answered call; `duration` in milliseconds."""

    leg: str
    digit: str
    duration: int = 160


@attrs.frozen
class SendRefer:
    """Ask the peer of an answered call to call `target` itself (RFC 3515).

    `ReferProgress` and one `ReferEnded` tell what became of it, within `limit` seconds. `headers` go with the REFER.
    """

    leg: str
    target: NameAddr
    referred_by: NameAddr | None = None
    headers: Lines = ()
    limit: float = 180.0


@attrs.frozen
class ReportReferral:
    """What has become of the call that the peer's REFER asked for, as a SIP status: a final one ends the matter."""

    leg: str
    status: int
    reason: str = ""


Wish = (
    SendInvite
    | Ring
    | Answer
    | Refuse
    | HangUp
    | AcceptOffer
    | RefuseOffer
    | SendOffer
    | SendDigit
    | SendRefer
    | ReportReferral
)
Input = Received | Garbled | Undeliverable | Located | FlowLost | Register | Unregister | Wish

# -- effects --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Send:
    """Send a message. The host is an IP literal; `branch` is for `Undeliverable` ("" for responses)."""

    data: bytes
    destination: Hop
    branch: str = ""


@attrs.frozen
class Locate:
    """Find the servers for a target (`rustpbx.sip.locate`); `Located` with the same key comes back."""

    key: str
    target: Uri


@attrs.frozen(kw_only=True)
class IncomingCall:
    """A new INVITE outside a dialog. 100 Trying has been sent. `headers` are all of its `Name: value` lines.

    `offer` is b"" for a delayed offer. `local_host` is the address of ours that the peer can reach. `identity` is who
    the caller is said to be, and `passed`, here and below, the header fields that are passed on
    (`EndpointConfig.pass_headers`).
    """

    leg: str
    caller: NameAddr
    callee: NameAddr
    headers: tuple[str, ...]
    offer: bytes
    source: Address
    local_host: str
    identity: Identity = NOBODY
    passed: Lines = ()


@attrs.frozen
class CallCancelled:
    """The caller gave up before the answer; 487 has been sent."""

    leg: str
    reasons: Reasons = NO_REASONS
    passed: Lines = ()


@attrs.frozen
class CallProgress:
    """A provisional response above 100 to our INVITE; `body` is its SDP or b""."""

    leg: str
    status: int
    reason: str
    body: bytes


@attrs.frozen
class CallAnswered:
    """A 2xx to our INVITE; it has been acknowledged. `body` is the SDP answer, b"" if there was none.

    With `early` there is none because the last SDP told (`CallProgress`, `OfferReceived`) is this callee's, and holds.
    With `offered` our INVITE had no SDP and `body` is the callee's offer: the ACK waits for `AcceptOffer`, and a
    `RefuseOffer` ends the call.
    """

    leg: str
    body: bytes
    passed: Lines = ()
    early: bool = False
    offered: bool = False


@attrs.frozen
class CallConfirmed:
    """The ACK for our 200 arrived; `body` is the SDP answer of a delayed offer, else b""."""

    leg: str
    body: bytes


@attrs.frozen
class CallRefused:
    """A final response >= 300 to our INVITE, or 408 when nobody answered, or 503 when it could not be sent."""

    leg: str
    status: int
    reason: str
    reasons: Reasons = NO_REASONS
    passed: Lines = ()


@attrs.frozen
class OfferReceived:
    """A re-INVITE or UPDATE with an SDP offer; b"" wants an offer of ours in the 200. Answer it by a wish."""

    leg: str
    body: bytes


@attrs.frozen
class OfferAnswered:
    """The peer took our re-INVITE; it has been acknowledged. `body` is its SDP answer."""

    leg: str
    body: bytes


@attrs.frozen
class RefreshAnswered:
    """The peer answered a refresh of ours with another description than before; `body` is that SDP answer."""

    leg: str
    body: bytes


@attrs.frozen
class OfferRefused:
    """Our offer was not taken (491 if an offer is under way already); the session stays as it was."""

    leg: str
    status: int


@attrs.frozen
class DigitReceived:
    """A DTMF digit by SIP INFO (`application/dtmf-relay`, `application/dtmf`); `digit` is one of 0-9*#A-D."""

    leg: str
    digit: str


@attrs.frozen
class DigitSent:
    """The final response to our `SendDigit`: 2xx, or why the digit was not taken (408 for no response)."""

    leg: str
    digit: str
    status: int
    reason: str


@attrs.frozen
class ReferReceived:
    """The peer wants us to call somebody else; it has been accepted (202). Say by `ReportReferral` what became of it.

    Without that, the peer is told after a while, or with our BYE, that it was declined.
    """

    leg: str
    referral: Referral


@attrs.frozen
class ReferProgress:
    """Our REFER was accepted (2xx), or the call that it asked for goes on (1xx)."""

    leg: str
    status: int
    reason: str


@attrs.frozen
class ReferEnded:
    """What became of our REFER: 2xx if the call that it asked for was answered, else why not, or that nobody says."""

    leg: str
    status: int
    reason: str


@attrs.frozen
class PeerReplaced:
    """Another peer has taken the place of this leg's (RFC 3891), by the offer that has just been accepted."""

    leg: str
    caller: NameAddr


@attrs.frozen
class ByeReceived:
    """The peer hung up; 200 has been sent."""

    leg: str
    reasons: Reasons = NO_REASONS
    passed: Lines = ()


@attrs.frozen
class CallLost:
    """The dialog is gone without the peer's BYE: no ACK within 64*T1, 408/481 to a request of ours, a bug of ours."""

    leg: str
    cause: str


Fact = (
    IncomingCall
    | CallCancelled
    | CallProgress
    | CallAnswered
    | CallConfirmed
    | CallRefused
    | OfferReceived
    | OfferAnswered
    | RefreshAnswered
    | OfferRefused
    | DigitReceived
    | DigitSent
    | ReferReceived
    | ReferProgress
    | ReferEnded
    | PeerReplaced
    | ByeReceived
    | CallLost
)
ENDINGS = (CallCancelled, CallRefused, ByeReceived, CallLost)
"""The facts that end a leg."""


@attrs.frozen
class Emit:
    """Tell the session a fact."""

    fact: Fact


@attrs.frozen
class Alias:
    """The peer at the other end of this connection can be reached at this port by it (RFC 5923 8.1)."""

    flow: int
    port: int


@attrs.frozen
class Keep:
    """Keep the way to this peer open by keep-alives (RFC 5626 4.4) until `LetGo`, or `FlowLost` comes back."""

    hop: Hop


@attrs.frozen
class LetGo:
    """The way to this peer need not be kept open any more."""

    hop: Hop


@attrs.frozen
class RegistrationChanged:
    """How an account stands: `registering`, `registered` (for `expires` seconds), `failed` or `unregistered`.

    `status` and `reason` are the registrar's last answer; 0, or 408 and 503, where there was none.
    """

    name: str
    state: str
    expires: int
    status: int
    reason: str


Effect = Send | Emit | Locate | Alias | Keep | LetGo | RegistrationChanged
