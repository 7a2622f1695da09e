"""The keys that the agent presses, as data."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class Keying(Enum):
    """Whether a key of ours is on its way."""

    IDLE = auto()
    PRESSING = auto()
    """The plane presses it."""
    ASKING = auto()
    """Its INFO has no answer yet."""
    PAUSING = auto()
    """It was taken; its own time and the gap behind it pass."""
    CLOSED = auto()


class KeyingTrigger(Enum):
    """What moves it. STOP is the agent's `interrupt`."""

    PRESS = auto()
    ASK = auto()
    RELEASED = auto()
    TAKEN = auto()
    FAILED = auto()
    STOP = auto()
    CALL_ENDED = auto()
    PRESS_LIMIT = auto()
    ANSWER_LIMIT = auto()
    PAUSED = auto()


class KeyingAction(Enum):
    """What it does."""

    PRESS_KEY = auto()
    SEND_INFO = auto()
    RELEASE_KEYS = auto()
    TELL_FAILURE = auto()
    NEXT = auto()


K, T, A = Keying, KeyingTrigger, KeyingAction

KEYING: Table[Keying, KeyingTrigger, KeyingAction] = Table(
    name="keying",
    spec="DTMF out: one key after the other",
    start=K.IDLE,
    ends=frozenset({K.CLOSED}),
    rows={
        (K.IDLE, T.PRESS): Step(K.PRESSING, (A.PRESS_KEY,)),
        (K.IDLE, T.ASK): Step(K.ASKING, (A.SEND_INFO,)),
        (K.PRESSING, T.RELEASED): Step(K.IDLE, (A.NEXT,)),
        (K.PRESSING, T.FAILED): Step(K.IDLE, (A.TELL_FAILURE,)),
        (K.PRESSING, T.PRESS_LIMIT): Step(K.IDLE, (A.RELEASE_KEYS, A.TELL_FAILURE)),
        (K.PRESSING, T.STOP): Step(K.IDLE, (A.RELEASE_KEYS,)),
        # A digit that is on its way cannot be taken back: STOP leaves it its answer, and none follows.
        (K.ASKING, T.TAKEN): Step(K.PAUSING),
        (K.ASKING, T.FAILED): Step(K.IDLE, (A.TELL_FAILURE,)),
        (K.ASKING, T.ANSWER_LIMIT): Step(K.IDLE, (A.TELL_FAILURE,)),
        (K.PAUSING, T.PAUSED): Step(K.IDLE, (A.NEXT,)),
        **{(s, T.CALL_ENDED): Step(K.CLOSED) for s in (K.IDLE, K.PRESSING, K.ASKING, K.PAUSING)},
    },
    timers={
        K.PRESSING: frozenset({T.PRESS_LIMIT}),
        K.ASKING: frozenset({T.ANSWER_LIMIT}),
        K.PAUSING: frozenset({T.PAUSED}),
    },
    # Nobody presses anything.
    patient=frozenset({K.IDLE}),
)
