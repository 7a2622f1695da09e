"""Who has answered, a person or a machine, as data."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class Detection(Enum):
    """What has been heard since the answer."""

    OFF = auto()  # nobody asked, or nobody has answered
    WAITING = auto()  # nothing yet
    GREETING = auto()  # they speak
    PAUSING = auto()  # they have spoken, and not for long
    TOLD = auto()


class DetectionTrigger(Enum):
    """What moves it."""

    ANSWERED = auto()
    SPEECH = auto()
    SILENCE = auto()
    BEEP = auto()
    WORDS = auto()  # what only a machine says
    LONG_GREETING = auto()
    SETTLED = auto()  # their silence has lasted: it is our turn
    TIMEOUT = auto()
    CALL_ENDED = auto()


class DetectionAction(Enum):
    """What is told, once."""

    TELL_HUMAN = auto()
    TELL_MACHINE = auto()
    TELL_UNSURE = auto()


_S, _T, _A = Detection, DetectionTrigger, DetectionAction
_HEARING = (_S.WAITING, _S.GREETING, _S.PAUSING)

DETECTION: Table[Detection, DetectionTrigger, DetectionAction] = Table(
    name="detection",
    spec="answering machine detection",
    start=_S.OFF,
    ends=frozenset({_S.TOLD}),
    rows={
        (_S.OFF, _T.ANSWERED): Step(_S.WAITING),
        (_S.OFF, _T.CALL_ENDED): Step(_S.TOLD),
        (_S.WAITING, _T.SPEECH): Step(_S.GREETING),
        (_S.GREETING, _T.SILENCE): Step(_S.PAUSING),
        (_S.GREETING, _T.LONG_GREETING): Step(_S.TOLD, (_A.TELL_MACHINE,)),
        (_S.PAUSING, _T.SPEECH): Step(_S.GREETING),
        (_S.PAUSING, _T.SETTLED): Step(_S.TOLD, (_A.TELL_HUMAN,)),
        **{
            (state, trigger): Step(_S.TOLD, (_A.TELL_MACHINE,)) for state in _HEARING for trigger in (_T.BEEP, _T.WORDS)
        },
        **{(state, _T.TIMEOUT): Step(_S.TOLD, (_A.TELL_UNSURE,)) for state in _HEARING},
        **{(state, _T.CALL_ENDED): Step(_S.TOLD) for state in _HEARING},  # too late to be of use to anybody
    },
    timers={
        _S.WAITING: frozenset({_T.TIMEOUT}),
        _S.GREETING: frozenset({_T.TIMEOUT, _T.LONG_GREETING}),
        _S.PAUSING: frozenset({_T.TIMEOUT, _T.SETTLED}),
    },
    # Most calls never ask.
    patient=frozenset({_S.OFF}),
)
