"""A media pass as data: the call's audio goes to a service of the agent's, and comes from it, in place of playback."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class Passing(Enum):
    """Where a media pass stands."""

    NONE = auto()
    """The call has none, or not yet."""
    ON = auto()
    """The service has the server-side track, connected or about to be."""
    OVER = auto()


class PassingTrigger(Enum):
    """What moves it."""

    START = auto()
    FLUSH = auto()
    LEFT = auto()
    """The service has closed in peace."""
    FAILED = auto()
    CLOSE = auto()


class PassingAction(Enum):
    """What it does on the way."""

    PASS = auto()
    FLUSH = auto()
    STOP = auto()
    TELL_START = auto()
    TELL_ERROR = auto()
    TELL_END = auto()


P, T, A = Passing, PassingTrigger, PassingAction

PASSING: Table[Passing, PassingTrigger, PassingAction] = Table(
    name="passing",
    spec="a media pass: the server-side track in the hands of the agent's own service",
    start=P.NONE,
    ends=frozenset({P.OVER}),
    rows={
        (P.NONE, T.START): Step(P.ON, (A.TELL_START, A.PASS)),
        (P.NONE, T.CLOSE): Step(P.OVER),
        (P.ON, T.FLUSH): Step(P.ON, (A.FLUSH,)),
        (P.ON, T.LEFT): Step(P.OVER, (A.TELL_END,)),
        (P.ON, T.FAILED): Step(P.OVER, (A.TELL_ERROR, A.TELL_END)),
        (P.ON, T.CLOSE): Step(P.OVER, (A.STOP, A.TELL_END)),
    },
    # The service may be silent for as long as it likes; the shell gives up on one that does not read.
    patient=frozenset({P.NONE, P.ON}),
)
