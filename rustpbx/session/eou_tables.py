"""The end of the far end's utterance as data: silence, and the words that were said before it."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class Utterance(Enum):
    """Where what the far end says stands."""

    IDLE = auto()
    SPEAKING = auto()
    WORDED = auto()
    """It speaks on, and words are there already."""
    SILENT = auto()
    """It has stopped; the words are still to come."""
    CLOSED = auto()


class UtteranceTrigger(Enum):
    """What moves it. WORDS are final ones; WORDS_ALONE are those of a call whose speech nobody watches."""

    SPEECH = auto()
    SILENCE = auto()
    SILENCE_ALONE = auto()
    WORDS = auto()
    WORDS_ALONE = auto()
    WORDS_LATE = auto()
    CLOSE = auto()


class UtteranceAction(Enum):
    """What it tells: an end that is one, or one that is only silence."""

    TELL_COMPLETE = auto()
    TELL_INCOMPLETE = auto()


U, T, A = Utterance, UtteranceTrigger, UtteranceAction

UTTERANCE: Table[Utterance, UtteranceTrigger, UtteranceAction] = Table(
    name="utterance",
    spec="the end of what the far end says: silence, and its words",
    start=U.IDLE,
    ends=frozenset({U.CLOSED}),
    rows={
        **{(s, T.SPEECH): Step(U.SPEAKING) for s in (U.IDLE, U.SILENT)},
        (U.SPEAKING, T.WORDS): Step(U.WORDED),
        (U.SPEAKING, T.SILENCE): Step(U.SILENT),
        (U.WORDED, T.SILENCE): Step(U.IDLE, (A.TELL_COMPLETE,)),
        (U.SILENT, T.WORDS): Step(U.IDLE, (A.TELL_COMPLETE,)),
        (U.SILENT, T.WORDS_LATE): Step(U.IDLE, (A.TELL_INCOMPLETE,)),
        # Nobody transcribes: silence is all that there is to know.
        **{(s, T.SILENCE_ALONE): Step(U.IDLE, (A.TELL_COMPLETE,)) for s in (U.SPEAKING, U.WORDED)},
        # Nobody watches for speech: the service's own end of an utterance is all that there is.
        (U.IDLE, T.WORDS_ALONE): Step(U.IDLE, (A.TELL_COMPLETE,)),
        **{(s, T.CLOSE): Step(U.CLOSED) for s in (U.IDLE, U.SPEAKING, U.WORDED, U.SILENT)},
    },
    timers={U.SILENT: frozenset({T.WORDS_LATE})},
    # The far end may be silent, or speak, for as long as it likes: what is said ends with SILENCE, or with the call.
    patient=frozenset({U.IDLE, U.SPEAKING, U.WORDED}),
)
