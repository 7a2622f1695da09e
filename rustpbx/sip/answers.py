"""What a UAS refuses before it looks any further (RFC 3261 8.2), and what it says of itself."""

from __future__ import annotations

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.extensions import LEAST_INTERVAL, RELIABLE, TIMER, Extensions, option_tags
from rustpbx.sip.headers import list_tokens
from rustpbx.sip.leg import ALLOW, ALLOWED
from rustpbx.sip.message import Lines, Request
from rustpbx.sip.session_interval import min_se_of, session_expires_of

KNOWN = frozenset({*ALLOWED, "REGISTER", "PRACK", "SUBSCRIBE", "NOTIFY", "PUBLISH", "REFER", "MESSAGE"})

ACCEPT: tuple[str, str] = ("Accept", "application/sdp")

_SDP_RANGES = frozenset({"application/sdp", "application/*", "*/*"})
_OFFERS = frozenset({"INVITE", "UPDATE", "PRACK"})
_REFRESHES = frozenset({"INVITE", "UPDATE"})


@attrs.frozen
class Refusal:
    """A final response, mostly no success, and the header fields that explain it."""

    status: int
    lines: Lines = ()


def capabilities(extensions: Extensions) -> Lines:
    """The header fields of a 200 to OPTIONS (11.2); an empty Supported says that there are no extensions."""
    supported = extensions.supported or (("Supported", ""),)
    return (ALLOW, ACCEPT, ("Accept-Encoding", "identity"), *supported)


def refusal(request: Request, extensions: Extensions) -> Refusal | None:
    """Why a request cannot be served whatever it is about, in the order of section 8.2; None if it can."""
    if request.method not in ALLOWED:
        return Refusal(405 if request.method in KNOWN else 501, (ALLOW,))
    if request.uri.scheme not in {"sip", "sips"}:
        return Refusal(416)
    missing = [tag for tag in list_tokens(request.all("Require")) if tag.lower() not in extensions.tags]
    if missing:
        return Refusal(420, (("Unsupported", ", ".join(missing)),))
    if request.method == "INVITE" and extensions.prack == "required" and RELIABLE not in option_tags(request):
        return Refusal(421, extensions.required)  # 21.4.15
    return _interval_refusal(request, extensions) or _content_refusal(request)


def _interval_refusal(request: Request, extensions: Extensions) -> Refusal | None:
    """RFC 4028 9: 422 for a session interval below our least, if the caller knows what that means."""
    if request.method not in _REFRESHES or TIMER not in extensions.tags:
        return None
    try:
        theirs, _ = session_expires_of(request), min_se_of(request)
    except RemoteError as error:
        return Refusal(error.reply)
    least = max(LEAST_INTERVAL, extensions.min_se)
    if theirs is None or theirs.seconds >= least or TIMER not in option_tags(request):
        return None
    return Refusal(422, (("Min-SE", str(least)),))


def _content_refusal(request: Request) -> Refusal | None:
    """Sections 8.2.3 and 21.4.7: what the body is, and what ours may be."""
    if request.body and any(coding.lower() != "identity" for coding in list_tokens(request.all("Content-Encoding"))):
        return Refusal(415, (ACCEPT, ("Accept-Encoding", "identity")))
    if request.method in _OFFERS and request.body and request.content_type != "application/sdp":
        return Refusal(415, (ACCEPT,))
    if request.method == "INVITE" and not _takes_sdp(request):
        return Refusal(406)
    return None


def _takes_sdp(request: Request) -> bool:
    """Whether the answer may have a session description (20.1, 21.4.7); without an Accept it may."""
    values = (value for line in request.all("Accept") for value in line.split(","))
    ranges = {value.partition(";")[0].strip().lower() for value in values}
    return not ranges or not ranges.isdisjoint(_SDP_RANGES)
