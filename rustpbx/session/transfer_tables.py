"""A transfer by a second call of ours as data: the refer leg, from `refer` to its end."""

from __future__ import annotations

import logging
from enum import Enum, auto

from rustpbx.machine import Step, Table


class Transfer(Enum):
    """Where a transfer stands."""

    NEW = auto()
    PREPARING = auto()
    """The way to the target is being found, and a leg opened for it."""
    DIALLING = auto()
    """The second INVITE is out."""
    RINGING = auto()
    """The target rings, perhaps with early media, which the remote party hears."""
    BRIDGED = auto()
    """The remote party and the target hear each other."""
    OVER = auto()
    """The remote party is the agent's again, or the call is ending."""


class TransferTrigger(Enum):
    """What moves a transfer: facts of its leg, the end of the call, a timer."""

    START = auto()
    LEG_READY = auto()
    LEG_UNUSABLE = auto()
    PROGRESS = auto()
    ANSWERED = auto()
    ANSWERED_UNUSABLE = auto()
    REFUSED = auto()
    OFFERED = auto()
    AGREED = auto()
    BYE = auto()
    LOST = auto()
    LEG_FAILED = auto()
    MEDIA_SILENT = auto()
    ABANDON = auto()
    ANSWER_TIMEOUT = auto()


class TransferAction(Enum):
    """What a transfer does on the way; each is one small method of `session.transfer`."""

    CLEAR_TRACK = auto()
    PREPARE_DIAL = auto()
    SEND_INVITE = auto()
    APPLY_EARLY_SDP = auto()
    APPLY_SDP = auto()
    ANSWER_OFFER = auto()
    STOP_MUSIC = auto()
    JOIN = auto()
    TELL_RINGING = auto()
    TELL_ANSWER = auto()
    TELL_REJECT = auto()
    TELL_TRACK_END = auto()
    TELL_END = auto()
    HANG_UP = auto()
    CLOSE_LEG = auto()
    END_CALL = auto()


R, T, A = Transfer, TransferTrigger, TransferAction

_UNANSWERED = (R.DIALLING, R.RINGING)

_FAILED = Step(R.OVER, (A.CLOSE_LEG, A.TELL_REJECT, A.STOP_MUSIC))
_GIVEN_UP = Step(R.OVER, (A.HANG_UP, A.CLOSE_LEG, A.TELL_REJECT, A.STOP_MUSIC))

TRANSFER: Table[Transfer, TransferTrigger, TransferAction] = Table(
    name="transfer",
    spec="`refer` by a second call: music, ringing, a bridge, and back",
    start=R.NEW,
    ends=frozenset({R.OVER}),
    level=logging.INFO,
    rows={
        (R.NEW, T.START): Step(R.PREPARING, (A.CLEAR_TRACK, A.PREPARE_DIAL)),
        (R.PREPARING, T.LEG_READY): Step(R.DIALLING, (A.SEND_INVITE,)),
        # No leg is open yet: one that comes too late is closed by whoever gets it.
        **{(R.PREPARING, t): Step(R.OVER, (A.TELL_REJECT, A.STOP_MUSIC)) for t in (T.LEG_UNUSABLE, T.ANSWER_TIMEOUT)},
        (R.PREPARING, T.ABANDON): Step(R.OVER),
        **{(s, T.PROGRESS): Step(R.RINGING, (A.APPLY_EARLY_SDP, A.TELL_RINGING)) for s in _UNANSWERED},
        **{(s, T.ANSWERED): Step(R.BRIDGED, (A.APPLY_SDP, A.STOP_MUSIC, A.JOIN, A.TELL_ANSWER)) for s in _UNANSWERED},
        # Refused, or it cannot be called: the INVITE could not be written.
        **{(s, t): _FAILED for s in _UNANSWERED for t in (T.REFUSED, T.LEG_UNUSABLE, T.BYE, T.LOST)},
        **{(s, t): _GIVEN_UP for s in _UNANSWERED for t in (T.ANSWERED_UNUSABLE, T.LEG_FAILED, T.ANSWER_TIMEOUT)},
        **{(s, T.ABANDON): Step(R.OVER, (A.HANG_UP, A.CLOSE_LEG)) for s in _UNANSWERED},
        **{(s, T.OFFERED): Step(s, (A.ANSWER_OFFER,)) for s in (R.RINGING, R.BRIDGED)},
        (R.BRIDGED, T.AGREED): Step(R.BRIDGED, (A.APPLY_SDP,)),
        **{(R.BRIDGED, t): Step(R.OVER, (A.CLOSE_LEG, A.TELL_END, A.END_CALL)) for t in (T.BYE, T.LOST)},
        **{
            (R.BRIDGED, t): Step(R.OVER, (A.HANG_UP, A.CLOSE_LEG, A.TELL_END, A.END_CALL))
            for t in (T.LEG_FAILED, T.MEDIA_SILENT)
        },
        # The call ends, and says so itself.
        (R.BRIDGED, T.ABANDON): Step(R.OVER, (A.HANG_UP, A.CLOSE_LEG, A.TELL_TRACK_END)),
    },
    timers={s: frozenset({T.ANSWER_TIMEOUT}) for s in (R.PREPARING, R.DIALLING, R.RINGING)},
    # NEW is left at once. BRIDGED lasts as long as both parties want; the end of the call ends it, and the leg's
    # silence where that is limited.
    patient=frozenset({R.NEW, R.BRIDGED}),
)
