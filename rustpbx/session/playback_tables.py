"""The server-side track as data: a playback, the flow of its audio, and the wait for input after it."""

from __future__ import annotations

from enum import Enum, auto

from rustpbx.machine import Step, Table

# -- playback -------------------------------------------------------------------------------------------------------


class Playback(Enum):
    """One generation of the server-side track."""

    OPEN = auto()
    """Takes more text; what it has is playing or on its way."""
    DRAINING = auto()
    """Takes nothing more; ends when the last frame has been sent."""
    FADING = auto()
    """Interrupted gracefully, and said so; the entry being spoken may end."""
    STOPPING = auto()
    """Cut; the plane's counters are on their way."""
    DONE = auto()


class PlaybackTrigger(Enum):
    """What moves a playback."""

    START = auto()
    SAY = auto()
    FINISH = auto()
    STOP = auto()
    STOP_GRACEFULLY = auto()
    RETIRE = auto()
    FINISHING = auto()
    STOPPED = auto()
    FAILED = auto()
    PLAYED_OUT = auto()


class PlaybackAction(Enum):
    """What a playback does on the way."""

    START_TRACK = auto()
    TELL_START = auto()
    SAY = auto()
    CLOSE_FEED = auto()
    STOP_TRACK = auto()
    FINISH_ENTRY = auto()
    TELL_INTERRUPTION = auto()
    TELL_ERROR = auto()
    TELL_END = auto()


P, PT, PA = Playback, PlaybackTrigger, PlaybackAction

_CUT = Step(P.STOPPING, (PA.STOP_TRACK,))
_CUT_DONE = Step(P.DONE, (PA.TELL_INTERRUPTION, PA.TELL_END))
_OVER = Step(P.DONE, (PA.TELL_END,))
_DROPPED = Step(P.DONE, (PA.STOP_TRACK, PA.TELL_END))

PLAYBACK: Table[Playback, PlaybackTrigger, PlaybackAction] = Table(
    name="playback",
    spec="one generation of the server-side track",
    start=P.OPEN,
    ends=frozenset({P.DONE}),
    rows={
        (P.OPEN, PT.START): Step(P.OPEN, (PA.START_TRACK, PA.TELL_START)),
        (P.OPEN, PT.SAY): Step(P.OPEN, (PA.SAY,)),
        (P.OPEN, PT.FINISH): Step(P.DRAINING, (PA.CLOSE_FEED,)),
        **{(s, PT.STOP): _CUT for s in (P.OPEN, P.DRAINING)},
        **{(s, PT.STOP_GRACEFULLY): Step(s, (PA.FINISH_ENTRY,)) for s in (P.OPEN, P.DRAINING)},
        # What a graceful stop leaves depends on the plane: the rest of an entry, or nothing at all.
        **{(s, PT.FINISHING): Step(P.FADING, (PA.TELL_INTERRUPTION,)) for s in (P.OPEN, P.DRAINING)},
        # Its interruption has been told, so cutting the rest only ends it. A ringtone is never "interrupted".
        (P.FADING, PT.STOP): _DROPPED,
        **{(s, PT.RETIRE): _DROPPED for s in (P.OPEN, P.DRAINING, P.FADING)},
        **{(s, PT.STOPPED): _CUT_DONE for s in (P.OPEN, P.DRAINING, P.STOPPING)},
        **{(s, PT.FAILED): Step(P.DONE, (PA.TELL_ERROR, PA.TELL_END)) for s in (P.OPEN, P.DRAINING, P.FADING)},
        **{(s, PT.PLAYED_OUT): _OVER for s in (P.OPEN, P.DRAINING, P.FADING)},
    },
    # OPEN waits for the agent, which may never say more (the call's end stops it). DRAINING and FADING are moved by
    # the media clock, and each entry behind it has its own limit in the track. STOPPING is answered in the same step.
    patient=frozenset({P.OPEN, P.DRAINING, P.FADING, P.STOPPING}),
)

# -- the flow of its audio ------------------------------------------------------------------------------------------


class Flow(Enum):
    """Whether what a playback has is on its way to the phone. Only a streaming one tells that it has run dry."""

    SOUNDING = auto()
    """Playing, or nothing has been synthesised yet."""
    DRY = auto()
    """All that was synthesised has been heard, and no more text came since."""
    PAUSED = auto()
    PAUSED_DRY = auto()
    CLOSED = auto()


class FlowTrigger(Enum):
    """What moves the flow."""

    PAUSE = auto()
    RESUME = auto()
    RAN_DRY = auto()
    SOUND = auto()
    TEXT = auto()
    LULL = auto()
    CLOSE = auto()


class FlowAction(Enum):
    """What the flow does."""

    HOLD = auto()
    GO_ON = auto()
    RESTART_LULL = auto()
    FINISH = auto()


F, FT, FA = Flow, FlowTrigger, FlowAction

FLOW: Table[Flow, FlowTrigger, FlowAction] = Table(
    name="flow",
    spec="pause, resume, and the idle limit of a streaming playback",
    start=F.SOUNDING,
    ends=frozenset({F.CLOSED}),
    rows={
        (F.SOUNDING, FT.PAUSE): Step(F.PAUSED, (FA.HOLD,)),
        (F.DRY, FT.PAUSE): Step(F.PAUSED_DRY, (FA.HOLD,)),
        (F.PAUSED, FT.RESUME): Step(F.SOUNDING, (FA.GO_ON,)),
        (F.PAUSED_DRY, FT.RESUME): Step(F.DRY, (FA.GO_ON,)),
        (F.SOUNDING, FT.RAN_DRY): Step(F.DRY),
        (F.PAUSED, FT.RAN_DRY): Step(F.PAUSED_DRY),
        (F.DRY, FT.SOUND): Step(F.SOUNDING),
        (F.PAUSED_DRY, FT.SOUND): Step(F.PAUSED),
        # Text is not yet sound: a service that never says it must not keep the playback open.
        (F.DRY, FT.TEXT): Step(F.DRY, (FA.RESTART_LULL,)),
        # The playback drains from here on; late audio of it may still be paused.
        (F.DRY, FT.LULL): Step(F.SOUNDING, (FA.FINISH,)),
        **{(s, FT.CLOSE): Step(F.CLOSED) for s in (F.SOUNDING, F.DRY, F.PAUSED, F.PAUSED_DRY)},
    },
    timers={F.DRY: frozenset({FT.LULL})},
    # The playback's own table ends SOUNDING; the agent paused, and only the agent or the call's end goes on.
    patient=frozenset({F.SOUNDING, F.PAUSED, F.PAUSED_DRY}),
)

# -- the wait for input after a playback ----------------------------------------------------------------------------


class InputWait(Enum):
    """Whether the agent asked to be told that nobody reacted to a playback (`waitInputTimeout`)."""

    IDLE = auto()
    WAITING = auto()
    CLOSED = auto()


class InputWaitTrigger(Enum):
    """What moves the wait."""

    PLAYED = auto()
    HEARD = auto()
    TIMEOUT = auto()
    CLOSE = auto()


class InputWaitAction(Enum):
    """What the wait does."""

    TELL_SILENCE = auto()


W, WT = InputWait, InputWaitTrigger

INPUT_WAIT: Table[InputWait, InputWaitTrigger, InputWaitAction] = Table(
    name="input-wait",
    spec="waitInputTimeout of tts and play",
    start=W.IDLE,
    ends=frozenset({W.CLOSED}),
    rows={
        (W.IDLE, WT.PLAYED): Step(W.WAITING),
        (W.WAITING, WT.HEARD): Step(W.IDLE),
        (W.WAITING, WT.TIMEOUT): Step(W.IDLE, (InputWaitAction.TELL_SILENCE,)),
        **{(s, WT.CLOSE): Step(W.CLOSED) for s in (W.IDLE, W.WAITING)},
    },
    timers={W.WAITING: frozenset({WT.TIMEOUT})},
    # IDLE lasts until the next playback with a timeout.
    patient=frozenset({W.IDLE}),
)
