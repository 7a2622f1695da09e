"""What the HTTP side and the session tell each other besides commands and events.

How a session was opened, and what the listings say about it. Times are epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from rustpbx.errors import RustpbxError
from rustpbx.session.options import CallOption, CallType

DEFAULT_PING_INTERVAL = 20
DEFAULT_SERVER_SIDE_TRACK = "server-side-track"


class SessionExistsError(RustpbxError):
    """A session of this id has an agent already; two never steer one call."""


class NoSuchSessionError(RustpbxError):
    """There is no session of this id, or it is another client's."""


@attrs.frozen(kw_only=True)
class Asking:
    """Who wants to touch a running session: `token` names the token that was shown; an `admin` may touch any."""

    token: str
    admin: bool


@attrs.frozen(kw_only=True)
class SessionParams:
    """How an agent opened its socket (the path and the query).

    `session_id` None asks for a new one; that of an incoming call is the dialog id from the webhook.
    `server_side_track` names the track of tts, play, media pass, music on hold and refer leg. `dump` asks for the
    event file. `ping_interval` is in seconds, 0 for no pings. `remote` is the agent's address, for logs. `token` names
    the token that it showed (`Access.check`), "" for none. `after` is the number of the last event that an agent had
    which comes back to its call; None: the last one before its socket was lost.
    """

    session_id: str | None
    call_type: CallType
    dump: bool = True
    ping_interval: int = DEFAULT_PING_INTERVAL
    server_side_track: str = DEFAULT_SERVER_SIDE_TRACK
    remote: str = ""
    token: str = ""
    after: int | None = None


@attrs.frozen(kw_only=True)
class ReferLeg:
    """The second call of a transfer: its leg, caller and callee as SIP URIs, and when it began, rang, was answered."""

    leg: str
    caller: str
    callee: str
    started_at: int
    rang_at: int | None = None
    answered_at: int | None = None


@attrs.frozen(kw_only=True)
class Ended:
    """What a session knows of itself when it is over, besides its events. `status` is the SIP status it ended with:
    200 if it was answered. `refer` is its last transfer by a second call.
    """

    session_id: str
    call_type: CallType
    option: CallOption | None
    status: int
    refer: ReferLeg | None = None


@attrs.frozen(kw_only=True)
class CallSummary:
    """One running session in `/call/lists`. `duration` is whole seconds since the answer; None before it.

    `option` is the option of `invite` or `accept`; the listing leaves its credentials out.
    """

    session_id: str
    call_type: CallType
    started_at: int
    ringing_at: int | None = None
    answered_at: int | None = None
    duration: int | None = None
    option: CallOption | None = None


@attrs.frozen(kw_only=True)
class AccountHealth:
    """How one registration stands, since `since` (epoch ms): its registrar's last answer, and what it grants (s)."""

    name: str
    registrar: str
    state: str
    since: int
    expires: int
    status: int
    reason: str


@attrs.frozen(kw_only=True)
class Health:
    """The numbers behind `/health`.

    `status` is `running` or `draining`. `total` and `failed` count sessions since `started_at`, `runnings` are those
    running now. The rest is the SIP side's: transactions running, finished and waiting for an ACK, unanswered
    incoming dialogs (`pending`), dialogs, and accounts.
    """

    status: str = "running"
    started_at: int
    version: str
    total: int = 0
    failed: int = 0
    runnings: int = 0
    transactions_running: int = 0
    transactions_finished: int = 0
    transactions_waiting_ack: int = 0
    pending: int = 0
    dialogs: int = 0
    accounts: tuple[AccountHealth, ...] = ()
    refused: Mapping[str, int] = attrs.field(factory=dict)
    """Requests that were not served, by the reason."""
