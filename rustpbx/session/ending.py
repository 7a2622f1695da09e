"""Why a call ended and who ended it, in the words of the `hangup` event (protocol: "who hung up")."""

from __future__ import annotations

import attrs

from rustpbx.session.commands import Hangup
from rustpbx.session.tables import CallTrigger as T

REASONS = (
    "caller",
    "callee",
    "refer",
    "system",
    "autohangup",
    "canceled",
    "rejected",
    "noAnswer",
    "noBalance",
    "answerMachine",
    "serverUnavailable",
    "failed",
    "inactivityTimeout",
)
"""The words a client's `hangup.reason` may name in any case; any other text is echoed as it is."""

_BY_WORD = {word.lower(): word for word in REASONS}
_BY_INITIATOR = {"caller": "caller", "callee": "callee", "system": "autohangup"}


@attrs.frozen
class Ending:
    """`reason` and `initiator` of the `hangup` event; `q850` is the cause that our own BYE or CANCEL names."""

    reason: str
    initiator: str
    q850: int = 16  # the normal end


SYSTEM = Ending("system", "system")
_FAILED = Ending("failed", "system", 41)  # temporary failure
_UNUSABLE = Ending("failed", "system", 65)  # bearer capability not implemented
_NO_ANSWER = Ending("noAnswer", "system", 19)  # no answer from the user, who has been alerted

ENDINGS: dict[T, Ending] = {
    T.REFUSED: Ending("callee", "callee"),
    T.REJECT: Ending("rejected", "callee"),
    T.CANCELLED: Ending("canceled", "caller"),
    T.ACCEPT_TIMEOUT: _NO_ANSWER,
    T.RING_TIMEOUT: _NO_ANSWER,
    T.ANNOUNCE_FAILED: Ending("serverUnavailable", "system"),
    T.ANSWERED_UNUSABLE: _UNUSABLE,
    T.INCOMING_UNUSABLE: _UNUSABLE,
    T.INVITE_UNUSABLE: _FAILED,
    T.INVITE_DENIED: Ending("rejected", "system"),
    T.SETUP_FAILED: _FAILED,
    T.LEG_UNUSABLE: _FAILED,
    T.LEG_FAILED: _FAILED,
    T.MEDIA_SILENT: Ending("inactivityTimeout", "system"),
    T.PEER_LOST: Ending("caller", "caller", 41),
    T.PEER_GONE: Ending("caller", "caller"),
    T.BROKEN: _FAILED,
    T.CONFIRMED_UNUSABLE: _UNUSABLE,
    T.LOST: _FAILED,
    T.ACCEPT: _FAILED,
    T.AGENT_GONE: Ending("system", "system", 41),
    T.KILLED: SYSTEM,
    T.AUTO_HANG_UP: SYSTEM,
    T.TRANSFERRED: Ending("refer", "system"),
    T.TRANSFER_OVER: Ending("refer", "system"),
    T.PARTED: SYSTEM,
}
"""What each ending trigger means; `BYE` and `HANG_UP` depend on more (`of_bye`, `of_hangup`)."""


def of_bye(*, incoming: bool, transferred: bool = False) -> Ending:
    """The far end hung up: the caller of an incoming call, the callee of ours; perhaps because we `transferred` it."""
    side = "caller" if incoming else "callee"
    return Ending("refer" if transferred else side, side)


def of_hangup(command: Hangup) -> Ending:
    """The agent hung up: its `initiator` decides, then its `reason`, else it is the system."""
    initiator = command.initiator or "system"
    if command.initiator in _BY_INITIATOR:
        return Ending(_BY_INITIATOR[command.initiator], initiator)
    if not command.reason:
        return Ending("system", initiator)
    return Ending(_BY_WORD.get(command.reason.lower(), command.reason), initiator)
