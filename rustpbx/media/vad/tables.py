"""The speech machine of one leg as a table."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table


class Hearing(Enum):
    """What the recent frames amount to."""

    QUIET = auto()  # no speech reported, none in the air
    STIRRING = auto()  # voiced, but not yet for `speech_padding`
    WAVERING = auto()  # was stirring, unvoiced now, but not yet for `silence_padding`
    SPEAKING = auto()  # speech reported
    FALTERING = auto()  # speech reported, unvoiced now, but not yet for `silence_padding`
    OVER = auto()  # the stream has ended


class Frame(Enum):
    """A frame, judged together with how long its kind has lasted."""

    VOICED = auto()
    VOICED_ENOUGH = auto()  # `speech_padding` and more since speech began
    UNVOICED = auto()
    UNVOICED_ENOUGH = auto()  # unvoiced for `silence_padding` and more
    END = auto()  # no more frames


class Do(Enum):
    """What a step causes."""

    MARK_SPEECH = auto()  # speech may have begun with this frame
    MARK_SILENCE = auto()  # silence may have begun with this frame
    REPORT_SPEECH = auto()
    REPORT_SILENCE = auto()


_Q, _S, _W, _T, _F = Hearing.QUIET, Hearing.STIRRING, Hearing.WAVERING, Hearing.SPEAKING, Hearing.FALTERING
_X = Hearing.OVER

SPEECH = Table[Hearing, Frame, Do](
    name="speech",
    spec="speaking and silence",
    start=Hearing.QUIET,
    ends=frozenset({_X}),
    rows={
        (_Q, Frame.VOICED): Step(_S, (Do.MARK_SPEECH,)),
        (_Q, Frame.VOICED_ENOUGH): Step(_T, (Do.MARK_SPEECH, Do.REPORT_SPEECH)),  # a padding of one frame or less
        (_Q, Frame.END): Step(_X),
        (_S, Frame.VOICED_ENOUGH): Step(_T, (Do.REPORT_SPEECH,)),
        (_S, Frame.UNVOICED): Step(_W, (Do.MARK_SILENCE,)),
        (_S, Frame.UNVOICED_ENOUGH): Step(_Q),  # a click, a cough: nothing was reported, so nothing ends
        (_S, Frame.END): Step(_X),
        (_W, Frame.VOICED): Step(_S),
        (_W, Frame.VOICED_ENOUGH): Step(_T, (Do.REPORT_SPEECH,)),
        (_W, Frame.UNVOICED_ENOUGH): Step(_Q),
        (_W, Frame.END): Step(_X),
        (_T, Frame.UNVOICED): Step(_F, (Do.MARK_SILENCE,)),
        (_T, Frame.UNVOICED_ENOUGH): Step(_Q, (Do.MARK_SILENCE, Do.REPORT_SILENCE)),
        (_T, Frame.END): Step(_X, (Do.MARK_SILENCE, Do.REPORT_SILENCE)),
        (_F, Frame.VOICED): Step(_T),  # a breath within the sentence
        (_F, Frame.VOICED_ENOUGH): Step(_T),
        (_F, Frame.UNVOICED_ENOUGH): Step(_Q, (Do.REPORT_SILENCE,)),
        (_F, Frame.END): Step(_X, (Do.REPORT_SILENCE,)),
    },
    # Frames come from our own clock, never from a peer, so every state may last as long as the audio does.
    patient=frozenset(Hearing) - {_X},
)
