"""What brought a step of a call about, in a few words for the log. What was said, and URLs, stay out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rustpbx.core import address_text
from rustpbx.media import events as media
from rustpbx.media.webrtc import PeerGone, PeerLost, PeerReady, PeerSecured
from rustpbx.session import effects
from rustpbx.sip import events as sip
from rustpbx.sip.uri import Uri

LONGEST_WORDS = 120
"""Characters of somebody else's words that a log line shows."""


def cause(what: object) -> str:
    """An input as the log names it: `command hangup`, `BYE from the phone`; "" where the trigger says it all."""
    words = _WORDS.get(type(what))
    if words is not None:
        return words(what)
    name = getattr(type(what), "name", None)  # commands have one
    return f"command {name}" if isinstance(name, str) else ""


def _who(uri: Uri) -> str:
    return f"sip:{uri.user}@{uri.host}" if uri.user else f"sip:{uri.host}"


def _incoming(call: sip.IncomingCall) -> str:
    return f"INVITE from {address_text(call.source)}, {_who(call.caller.uri)} calls {_who(call.callee.uri)}"


def _status(fact: sip.CallProgress | sip.CallRefused) -> str:
    return f"{fact.status} {fact.reason[:LONGEST_WORDS]} from the phone"


def _problem(fact: Any) -> str:
    return str(fact.problem)[:LONGEST_WORDS]


def _reason(fact: Any) -> str:
    return str(fact.cause)[:LONGEST_WORDS]


_WORDS: Mapping[type, Callable[[Any], str]] = {
    sip.IncomingCall: _incoming,
    sip.CallProgress: _status,
    sip.CallRefused: _status,
    sip.CallAnswered: lambda _: "200 from the phone",
    sip.CallConfirmed: lambda _: "ACK from the phone",
    sip.CallCancelled: lambda _: "CANCEL from the phone",
    sip.ByeReceived: lambda _: "BYE from the phone",
    sip.CallLost: _reason,
    sip.OfferReceived: lambda _: "new offer from the phone",
    media.LegFailed: _problem,
    PeerReady: lambda ready: f"{len(ready.end.ice.candidates)} candidates",
    PeerSecured: lambda secured: f"DTLS, {secured.keys.send.suite.value}",
    PeerLost: _problem,
    PeerGone: lambda _: "the browser said goodbye",
    media.MediaSilent: lambda silent: f"neither RTP nor RTCP for {silent.seconds:g} s",
    effects.AgentReserved: lambda _: "an agent's socket is being upgraded",
    effects.AgentAttached: lambda _: "the agent's socket is up",
    effects.AgentGone: lambda gone: f"agent lost: {_reason(gone)}",
    effects.Killed: _reason,
    effects.AnnounceFailed: _problem,
    effects.LegReady: lambda ready: f"RTP port {ready.port}",
    effects.LegUnusable: _problem,
    effects.SetupFailed: _problem,
    effects.Broken: _problem,
}
