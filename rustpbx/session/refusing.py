"""What a call that does not come about tells its phone, and its agent."""

from __future__ import annotations

from rustpbx.media import events as media
from rustpbx.session import commands, effects
from rustpbx.session.dialling import one_line
from rustpbx.session.playback import AutoHangUp
from rustpbx.session.reporting import Reporter
from rustpbx.session.triggers import Cause
from rustpbx.sip import events as sip
from rustpbx.sip.cause import OF_STATUS


def refusal(leg: str, cause: Cause, report: Reporter) -> sip.Refuse:
    """The final response for a phone whose call is not answered."""
    status, reason = 480, None
    match cause:
        case commands.Reject():
            status, reason = cause.code, one_line(cause.reason)
        case commands.Hangup():
            status = 486 if (cause.reason or "").lower() == "busy" else 603
        case sip.IncomingCall():
            status, reason = report.status, report.problem
        case sip.OfferAnswered():
            status, reason = 488, report.problem
        case effects.AnnounceFailed():
            status, reason = 503, cause.problem
        case effects.LegUnusable():
            status, reason = cause.status, cause.problem
        case media.LegFailed() | effects.Broken():
            status = 500
        case AutoHangUp():
            status = 603
    return sip.Refuse(leg, status, reason, cause=OF_STATUS.get(status))


def rejection(cause: Cause, report: Reporter) -> tuple[int, str]:
    """Code and reason of the `reject` event."""
    match cause:
        case sip.CallRefused():
            return cause.status, cause.reason
        case sip.CallAnswered():
            return 488, report.problem or "No answer received"
        case commands.Accept():
            return 481, "no pending call"
        case commands.Invite():
            return 403, report.problem
        case _:
            return 408, "Request Timeout"
