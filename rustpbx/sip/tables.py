"""The machines of SIP as data, in one place; five modules write them.

Read each row as: in this state, on this trigger, go there and do that. Section numbers are RFC 3261's unless
another RFC is named.
"""

from rustpbx.sip.admission_tables import SOURCE, SourceAction, SourceState, SourceTrigger
from rustpbx.sip.call_tables import (
    CALL,
    OFFER,
    CallAction,
    CallState,
    CallTrigger,
    OfferAction,
    OfferState,
    OfferTrigger,
)
from rustpbx.sip.delivery_tables import DELIVERY, DeliveryAction, DeliveryState, DeliveryTrigger
from rustpbx.sip.refer_tables import (
    REFERRED,
    REFERRING,
    Referred,
    ReferredAction,
    ReferredTrigger,
    Referring,
    ReferringAction,
    ReferringTrigger,
)
from rustpbx.sip.registration_tables import (
    REGISTRATION,
    RegistrationAction,
    RegistrationState,
    RegistrationTrigger,
)
from rustpbx.sip.reliable_tables import RELIABLE, ReliableAction, ReliableState, ReliableTrigger
from rustpbx.sip.session_timer_tables import (
    SESSION_TIMER,
    SessionTimerAction,
    SessionTimerState,
    SessionTimerTrigger,
)
from rustpbx.sip.transaction_tables import (
    INVITE_CLIENT,
    INVITE_SERVER,
    PENDING_ACK,
    REQUEST_CLIENT,
    REQUEST_SERVER,
    ClientAction,
    ClientTrigger,
    InviteClient,
    InviteServer,
    PendingAck,
    PendingAckAction,
    PendingAckTrigger,
    RequestClient,
    RequestServer,
    ServerAction,
    ServerTrigger,
)

__all__ = [
    "CALL",
    "DELIVERY",
    "INVITE_CLIENT",
    "INVITE_SERVER",
    "OFFER",
    "PENDING_ACK",
    "REFERRED",
    "REFERRING",
    "REGISTRATION",
    "RELIABLE",
    "REQUEST_CLIENT",
    "REQUEST_SERVER",
    "SESSION_TIMER",
    "SOURCE",
    "CallAction",
    "CallState",
    "CallTrigger",
    "ClientAction",
    "ClientTrigger",
    "DeliveryAction",
    "DeliveryState",
    "DeliveryTrigger",
    "InviteClient",
    "InviteServer",
    "OfferAction",
    "OfferState",
    "OfferTrigger",
    "PendingAck",
    "PendingAckAction",
    "PendingAckTrigger",
    "Referred",
    "ReferredAction",
    "ReferredTrigger",
    "Referring",
    "ReferringAction",
    "ReferringTrigger",
    "RegistrationAction",
    "RegistrationState",
    "RegistrationTrigger",
    "ReliableAction",
    "ReliableState",
    "ReliableTrigger",
    "RequestClient",
    "RequestServer",
    "ServerAction",
    "ServerTrigger",
    "SessionTimerAction",
    "SessionTimerState",
    "SessionTimerTrigger",
    "SourceAction",
    "SourceState",
    "SourceTrigger",
]
