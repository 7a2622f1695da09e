"""What inputs mean to a call, where that needs no look at the call; `CallCore` classifies the others."""

from __future__ import annotations

from rustpbx.core import Tick
from rustpbx.media import events as media
from rustpbx.media.webrtc import PeerGone, PeerLost, PeerReady, PeerSecured
from rustpbx.session import commands, effects
from rustpbx.session.effects import Input
from rustpbx.session.playback import AutoHangUp, Drained, TransferOver
from rustpbx.session.tables import AttachmentTrigger, CallTrigger
from rustpbx.sip import events as sip

Internal = AutoHangUp | TransferOver | Drained
"""What the parts of a call tell it."""
Cause = Input | Internal | Tick

TRIGGERS: dict[type, CallTrigger] = {
    commands.Reject: CallTrigger.REJECT,
    commands.Accept: CallTrigger.ACCEPT,
    commands.Hangup: CallTrigger.HANG_UP,
    sip.CallCancelled: CallTrigger.CANCELLED,
    sip.CallProgress: CallTrigger.PROGRESS,
    sip.CallRefused: CallTrigger.REFUSED,
    sip.OfferReceived: CallTrigger.OFFERED,
    sip.ByeReceived: CallTrigger.BYE,
    sip.CallLost: CallTrigger.LOST,
    media.LegFailed: CallTrigger.LEG_FAILED,
    media.MediaSilent: CallTrigger.MEDIA_SILENT,
    effects.LegUnusable: CallTrigger.LEG_UNUSABLE,
    effects.LegReady: CallTrigger.LEG_READY,
    PeerReady: CallTrigger.LEG_READY,
    PeerSecured: CallTrigger.PEER_SECURED,
    PeerLost: CallTrigger.PEER_LOST,
    PeerGone: CallTrigger.PEER_GONE,
    effects.PeerDescribed: CallTrigger.PEER_DESCRIBED,
    effects.SetupFailed: CallTrigger.SETUP_FAILED,
    effects.Broken: CallTrigger.BROKEN,
    effects.Killed: CallTrigger.KILLED,
    AutoHangUp: CallTrigger.AUTO_HANG_UP,
    TransferOver: CallTrigger.TRANSFER_OVER,
}

AgentFact = effects.AgentReserved | effects.AgentAttached | effects.AgentGone
AGENT_TRIGGERS: dict[type, AttachmentTrigger] = {
    effects.AgentReserved: AttachmentTrigger.RESERVED,
    effects.AgentAttached: AttachmentTrigger.UPGRADED,
    effects.AgentGone: AttachmentTrigger.LOST,
}
