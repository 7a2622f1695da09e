"""The call and its agent's attachment as data."""

from __future__ import annotations

import logging
from enum import Enum, auto

from rustpbx.machine import Step, Table

# -- the call -------------------------------------------------------------------------------------------------------


class Call(Enum):
    """Where a call stands, seen from the agent."""

    NEW = auto()
    """An agent is here, but no call yet."""
    INCOMING = auto()
    """A phone rings us; nobody has claimed it."""
    RINGING = auto()
    """The agent told the caller that it rings."""
    ANSWERING = auto()
    """The agent accepted; our media is being set up."""
    DIALLING = auto()
    """Our INVITE is out."""
    EARLY = auto()
    """The callee rings, perhaps with early media."""
    CONNECTING = auto()
    """The agent brings the far end itself, a browser or a stream; our side of its media is being set up."""
    TALKING = auto()
    PARTING = auto()
    """The last words have left us; the phone's jitter buffer still holds them."""
    ENDING = auto()
    """Goodbye is said to the phone; playback reports what was heard."""
    ENDED = auto()


class CallTrigger(Enum):
    """What moves a call: commands, facts of SIP and media, the agent's presence, timers."""

    # commands
    INVITE = auto()
    INVITE_UNUSABLE = auto()
    INVITE_DENIED = auto()
    INVITE_STREAM = auto()
    INVITE_PEER = auto()
    RING = auto()
    RING_EARLY = auto()
    ACCEPT = auto()
    REJECT = auto()
    HANG_UP = auto()
    # SIP
    INCOMING = auto()
    INCOMING_UNUSABLE = auto()
    ANNOUNCE_FAILED = auto()
    CANCELLED = auto()
    PROGRESS = auto()
    ANSWERED = auto()
    ANSWERED_UNUSABLE = auto()
    REFUSED = auto()
    CONFIRMED = auto()
    CONFIRMED_UNUSABLE = auto()
    OFFERED = auto()
    TRANSFERRED = auto()
    TRANSFER_OVER = auto()
    BYE = auto()
    LOST = auto()
    # media
    LEG_READY = auto()
    LEG_UNUSABLE = auto()
    SETUP_FAILED = auto()
    LEG_FAILED = auto()
    MEDIA_SILENT = auto()
    PEER_SECURED = auto()
    PEER_DESCRIBED = auto()
    PEER_LOST = auto()
    PEER_GONE = auto()
    BROKEN = auto()
    # the agent and the server
    AGENT_GONE = auto()
    KILLED = auto()
    AUTO_HANG_UP = auto()
    DRAINED = auto()
    QUIET = auto()
    # timers
    ACCEPT_TIMEOUT = auto()
    RING_TIMEOUT = auto()
    CONNECT_TIMEOUT = auto()
    PARTED = auto()
    CLOSING_TIMEOUT = auto()


class CallAction(Enum):
    """What a call does on the way; each is one small method of `session.call`."""

    NOTE_INCOMING = auto()
    ANNOUNCE = auto()
    PREPARE_DIAL = auto()
    OPEN_STREAM = auto()
    OPEN_PEER = auto()
    CONNECT = auto()
    OPEN_LEG = auto()
    SEND_INVITE = auto()
    SEND_RINGING = auto()
    SEND_EARLY_MEDIA = auto()
    RESTART_ACCEPT_TIMER = auto()
    ANSWER = auto()
    APPLY_EARLY_SDP = auto()
    APPLY_SDP = auto()
    ANSWER_OFFER = auto()
    ANSWER_PEER = auto()
    SECURE = auto()
    TELL_RINGING = auto()
    TELL_ANSWER = auto()
    TELL_TRANSFER = auto()
    TELL_REJECT = auto()
    TELL_ERROR = auto()
    TELL_LOST = auto()
    RELEASE_HELD = auto()
    REFUSE = auto()
    HANG_UP = auto()
    STOP_PLAYBACK = auto()
    CLOSE_LEG = auto()
    TELL_END = auto()


C, T, A = Call, CallTrigger, CallAction

_UNANSWERED_IN = (C.INCOMING, C.RINGING, C.ANSWERING)
_UNANSWERED_OUT = (C.DIALLING, C.EARLY)
_UP = (C.TALKING, C.PARTING)

_SAY_GOODBYE = Step(C.ENDING, (A.HANG_UP, A.STOP_PLAYBACK))
_TURN_AWAY = Step(C.ENDING, (A.REFUSE, A.STOP_PLAYBACK))
_LET_GO = Step(C.ENDING, (A.STOP_PLAYBACK,))
_FINISH = Step(C.ENDED, (A.CLOSE_LEG, A.TELL_END))

CALL: Table[Call, CallTrigger, CallAction] = Table(
    name="call",
    spec="the life of a call, seen from its agent",
    start=C.NEW,
    ends=frozenset({C.ENDED}),
    level=logging.INFO,
    rows={
        # An agent's own call.
        (C.NEW, T.INVITE): Step(C.DIALLING, (A.PREPARE_DIAL,)),
        (C.NEW, T.INVITE_UNUSABLE): Step(C.ENDING, (A.TELL_ERROR, A.STOP_PLAYBACK)),
        # The dial policy forbids it.
        (C.NEW, T.INVITE_DENIED): Step(C.ENDING, (A.TELL_REJECT, A.STOP_PLAYBACK)),
        (C.DIALLING, T.LEG_READY): Step(C.DIALLING, (A.SEND_INVITE,)),
        **{(s, T.PROGRESS): Step(C.EARLY, (A.APPLY_EARLY_SDP, A.TELL_RINGING)) for s in _UNANSWERED_OUT},
        **{(s, T.ANSWERED): Step(C.TALKING, (A.APPLY_SDP, A.TELL_ANSWER, A.RELEASE_HELD)) for s in _UNANSWERED_OUT},
        **{
            (s, T.ANSWERED_UNUSABLE): Step(C.ENDING, (A.HANG_UP, A.TELL_REJECT, A.STOP_PLAYBACK))
            for s in _UNANSWERED_OUT
        },
        **{(s, T.REFUSED): Step(C.ENDING, (A.TELL_REJECT, A.STOP_PLAYBACK)) for s in _UNANSWERED_OUT},
        **{(s, T.RING_TIMEOUT): Step(C.ENDING, (A.HANG_UP, A.TELL_REJECT, A.STOP_PLAYBACK)) for s in _UNANSWERED_OUT},
        **{(s, T.SETUP_FAILED): Step(C.ENDING, (A.TELL_ERROR, A.STOP_PLAYBACK)) for s in _UNANSWERED_OUT},
        **{(s, T.LEG_UNUSABLE): Step(C.ENDING, (A.TELL_ERROR, A.STOP_PLAYBACK)) for s in _UNANSWERED_OUT},
        **{
            (s, t): _SAY_GOODBYE
            for s in _UNANSWERED_OUT
            for t in (T.HANG_UP, T.AGENT_GONE, T.KILLED, T.LEG_FAILED, T.BROKEN)
        },
        **{(s, t): _LET_GO for s in _UNANSWERED_OUT for t in (T.BYE, T.LOST)},
        # A call without SIP: the far end is in the agent's socket, or a browser whose offer came through it.
        (C.NEW, T.INVITE_STREAM): Step(C.CONNECTING, (A.OPEN_STREAM,)),
        (C.NEW, T.INVITE_PEER): Step(C.CONNECTING, (A.OPEN_PEER,)),
        (C.CONNECTING, T.LEG_READY): Step(C.TALKING, (A.CONNECT, A.TELL_ANSWER, A.RELEASE_HELD)),
        (C.CONNECTING, T.LEG_UNUSABLE): Step(C.ENDING, (A.TELL_ERROR, A.STOP_PLAYBACK)),
        **{
            (C.CONNECTING, t): _LET_GO
            for t in (T.HANG_UP, T.AGENT_GONE, T.KILLED, T.LEG_FAILED, T.BROKEN, T.CONNECT_TIMEOUT)
        },
        # A phone's call.
        (C.NEW, T.INCOMING): Step(C.INCOMING, (A.NOTE_INCOMING, A.ANNOUNCE)),
        (C.NEW, T.INCOMING_UNUSABLE): Step(C.ENDING, (A.NOTE_INCOMING, A.REFUSE)),
        (C.INCOMING, T.ANNOUNCE_FAILED): _TURN_AWAY,
        **{(s, T.RING): Step(C.RINGING, (A.RESTART_ACCEPT_TIMER, A.SEND_RINGING)) for s in (C.INCOMING, C.RINGING)},
        **{(s, T.RING_EARLY): Step(C.RINGING, (A.RESTART_ACCEPT_TIMER, A.OPEN_LEG)) for s in (C.INCOMING, C.RINGING)},
        (C.RINGING, T.LEG_READY): Step(C.RINGING, (A.SEND_EARLY_MEDIA, A.RELEASE_HELD)),
        **{(s, T.ACCEPT): Step(C.ANSWERING, (A.OPEN_LEG,)) for s in (C.INCOMING, C.RINGING)},
        (C.ANSWERING, T.LEG_READY): Step(C.TALKING, (A.ANSWER, A.TELL_ANSWER, A.RELEASE_HELD)),
        **{
            (s, T.LEG_UNUSABLE): Step(C.ENDING, (A.REFUSE, A.TELL_ERROR, A.STOP_PLAYBACK))
            for s in (C.RINGING, C.ANSWERING)
        },
        **{
            (s, t): _TURN_AWAY
            for s in _UNANSWERED_IN
            for t in (T.REJECT, T.HANG_UP, T.ACCEPT_TIMEOUT, T.KILLED, T.LEG_FAILED, T.BROKEN)
        },
        # A reliable 183 with our offer (the INVITE had none): the answer is in its PRACK.
        (C.RINGING, T.CONFIRMED): Step(C.RINGING, (A.APPLY_SDP,)),
        (C.RINGING, T.CONFIRMED_UNUSABLE): _TURN_AWAY,
        # Once a reliable response has settled the session, an UPDATE may change it before the answer.
        **{(s, T.OFFERED): Step(s, (A.ANSWER_OFFER,)) for s in (C.RINGING, C.EARLY)},
        # Early media with `autoHangup`: the words were all that the caller gets.
        (C.RINGING, T.AUTO_HANG_UP): _TURN_AWAY,
        # Nobody has claimed a call in INCOMING, so the loss of a socket leaves it to the next one.
        **{(s, T.AGENT_GONE): _TURN_AWAY for s in (C.RINGING, C.ANSWERING)},
        **{(s, t): _LET_GO for s in _UNANSWERED_IN for t in (T.CANCELLED, T.BYE, T.LOST)},
        # An answered call.
        **{(s, T.CONFIRMED): Step(s, (A.APPLY_SDP,)) for s in _UP},
        # The ACK for our delayed offer is the last chance to agree on anything.
        **{(s, T.CONFIRMED_UNUSABLE): _SAY_GOODBYE for s in _UP},
        **{(s, T.OFFERED): Step(s, (A.ANSWER_OFFER,)) for s in _UP},
        # The far end talks to whom we sent it to.
        **{(s, T.TRANSFERRED): Step(C.ENDING, (A.TELL_TRANSFER, A.HANG_UP, A.STOP_PLAYBACK)) for s in _UP},
        **{(s, t): _SAY_GOODBYE for s in _UP for t in (T.HANG_UP, T.AGENT_GONE, T.KILLED, T.LEG_FAILED, T.BROKEN)},
        **{(s, T.MEDIA_SILENT): _SAY_GOODBYE for s in _UP},
        # A browser: DTLS comes after the answer, and may come before it where there is early media.
        **{(s, T.PEER_SECURED): Step(s, (A.SECURE,)) for s in (C.RINGING, C.ANSWERING, *_UP)},
        **{(s, T.PEER_DESCRIBED): Step(s, (A.ANSWER_PEER,)) for s in (C.RINGING, *_UP)},
        **{(s, T.PEER_LOST): Step(C.ENDING, (A.TELL_LOST, A.HANG_UP, A.STOP_PLAYBACK)) for s in _UP},
        **{(s, T.PEER_GONE): _SAY_GOODBYE for s in _UP},
        **{(s, t): _TURN_AWAY for s in (C.RINGING, C.ANSWERING) for t in (T.PEER_LOST, T.PEER_GONE)},
        # Whom the far end talked to on a second call of ours has hung up, and that was to be the end.
        **{(s, T.TRANSFER_OVER): _SAY_GOODBYE for s in _UP},
        # CANCEL: it was answered with 487 before our 200 was handed to SIP, which sends no 200 then.
        **{(s, t): _LET_GO for s in _UP for t in (T.CANCELLED, T.BYE, T.LOST)},
        **{(C.TALKING, t): Step(C.PARTING) for t in (T.AUTO_HANG_UP, T.DRAINED)},
        (C.PARTING, T.PARTED): _SAY_GOODBYE,
        # The end.
        **{(C.NEW, t): _LET_GO for t in (T.HANG_UP, T.AGENT_GONE, T.KILLED, T.BROKEN)},
        # `accept` without a call: the client waits for an outcome, so it gets one.
        (C.NEW, T.ACCEPT): Step(C.ENDING, (A.TELL_REJECT, A.STOP_PLAYBACK)),
        (C.ENDING, T.QUIET): _FINISH,
        (C.ENDING, T.CLOSING_TIMEOUT): _FINISH,
    },
    timers={
        **{s: frozenset({T.ACCEPT_TIMEOUT}) for s in _UNANSWERED_IN},
        **{s: frozenset({T.RING_TIMEOUT}) for s in _UNANSWERED_OUT},
        C.CONNECTING: frozenset({T.CONNECT_TIMEOUT}),
        C.PARTING: frozenset({T.PARTED}),
        C.ENDING: frozenset({T.CLOSING_TIMEOUT}),
    },
    # NEW waits for the agent's first command: its pings end the wait. TALKING lasts as long as both sides want;
    # the agent's pings, and the phone's BYE or the session's limits, end it.
    patient=frozenset({C.NEW, C.TALKING}),
)

# -- the agent's attachment -----------------------------------------------------------------------------------------


class Attachment(Enum):
    """Whether an agent's socket holds the call."""

    ABSENT = auto()
    """None yet, or the one that was here left before it claimed the call."""
    RESERVED = auto()
    """The id is taken, the upgrade is under way."""
    ATTACHED = auto()
    PARKED = auto()
    """Its socket was dropped, not closed: the call waits for it to come back."""
    RESUMING = auto()
    """The agent of a parked call is coming back, the upgrade is under way."""
    GONE = auto()


class AttachmentTrigger(Enum):
    """What moves an attachment."""

    RESERVED = auto()
    UPGRADED = auto()
    LOST = auto()
    DROPPED = auto()
    """Lost without a word, in a call that may wait."""
    CALL_ENDED = auto()
    UPGRADE_TIMEOUT = auto()
    GRACE_TIMEOUT = auto()


class AttachmentAction(Enum):
    """What an attachment does to its call."""

    TELL_CALL_ATTACHED = auto()
    TELL_CALL_GONE = auto()


G, GT, GA = Attachment, AttachmentTrigger, AttachmentAction

ATTACHMENT: Table[Attachment, AttachmentTrigger, AttachmentAction] = Table(
    name="attachment",
    spec="an agent's socket on a call",
    start=G.ABSENT,
    ends=frozenset({G.GONE}),
    level=logging.INFO,
    rows={
        (G.ABSENT, GT.RESERVED): Step(G.RESERVED),
        (G.RESERVED, GT.UPGRADED): Step(G.ATTACHED, (GA.TELL_CALL_ATTACHED,)),
        **{(G.RESERVED, t): Step(G.ABSENT, (GA.TELL_CALL_GONE,)) for t in (GT.LOST, GT.UPGRADE_TIMEOUT)},
        (G.ATTACHED, GT.LOST): Step(G.ABSENT, (GA.TELL_CALL_GONE,)),
        (G.ATTACHED, GT.DROPPED): Step(G.PARKED),
        (G.PARKED, GT.RESERVED): Step(G.RESUMING),
        (G.PARKED, GT.GRACE_TIMEOUT): Step(G.ABSENT, (GA.TELL_CALL_GONE,)),
        (G.RESUMING, GT.UPGRADED): Step(G.ATTACHED),
        **{(G.RESUMING, t): Step(G.PARKED) for t in (GT.LOST, GT.UPGRADE_TIMEOUT)},
        **{(s, GT.CALL_ENDED): Step(G.GONE) for s in (G.ABSENT, G.RESERVED, G.ATTACHED, G.PARKED, G.RESUMING)},
    },
    timers={
        G.RESERVED: frozenset({GT.UPGRADE_TIMEOUT}),
        G.RESUMING: frozenset({GT.UPGRADE_TIMEOUT}),
        G.PARKED: frozenset({GT.GRACE_TIMEOUT}),
    },
    # ABSENT is timed by the call (it ends, or its accept timeout runs). The socket's pings and its write limit end
    # ATTACHED.
    patient=frozenset({G.ABSENT, G.ATTACHED}),
)
