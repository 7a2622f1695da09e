"""The session's machines as data, in one place; the modules beside this one write them."""

from rustpbx.session.call_tables import (
    ATTACHMENT,
    CALL,
    Attachment,
    AttachmentAction,
    AttachmentTrigger,
    Call,
    CallAction,
    CallTrigger,
)
from rustpbx.session.detection_tables import DETECTION, Detection, DetectionAction, DetectionTrigger
from rustpbx.session.eou_tables import UTTERANCE, Utterance, UtteranceAction, UtteranceTrigger
from rustpbx.session.keying_tables import KEYING, Keying, KeyingAction, KeyingTrigger
from rustpbx.session.passing_tables import PASSING, Passing, PassingAction, PassingTrigger
from rustpbx.session.playback_tables import (
    FLOW,
    INPUT_WAIT,
    PLAYBACK,
    Flow,
    FlowAction,
    FlowTrigger,
    InputWait,
    InputWaitAction,
    InputWaitTrigger,
    Playback,
    PlaybackAction,
    PlaybackTrigger,
)
from rustpbx.session.transfer_tables import TRANSFER, Transfer, TransferAction, TransferTrigger

__all__ = [
    "ATTACHMENT",
    "CALL",
    "DETECTION",
    "FLOW",
    "INPUT_WAIT",
    "KEYING",
    "PASSING",
    "PLAYBACK",
    "TRANSFER",
    "UTTERANCE",
    "Attachment",
    "AttachmentAction",
    "AttachmentTrigger",
    "Call",
    "CallAction",
    "CallTrigger",
    "Detection",
    "DetectionAction",
    "DetectionTrigger",
    "Flow",
    "FlowAction",
    "FlowTrigger",
    "InputWait",
    "InputWaitAction",
    "InputWaitTrigger",
    "Keying",
    "KeyingAction",
    "KeyingTrigger",
    "Passing",
    "PassingAction",
    "PassingTrigger",
    "Playback",
    "PlaybackAction",
    "PlaybackTrigger",
    "Transfer",
    "TransferAction",
    "TransferTrigger",
    "Utterance",
    "UtteranceAction",
    "UtteranceTrigger",
]
