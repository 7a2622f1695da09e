"""What a REFER and its NOTIFYs carry: Refer-To, Referred-By, and a `message/sipfrag` that says what became of it."""

from __future__ import annotations

import re
from urllib.parse import unquote

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.headers import parse_name_addr, parse_params
from rustpbx.sip.message import REASONS, NameAddr, Request

SIPFRAG = "message/sipfrag"
SIPFRAG_TYPE: tuple[str, str] = ("Content-Type", "message/sipfrag;version=2.0")
LONGEST = 8192
"""Bytes of a fragment that are looked at."""

_STATUS = re.compile(rb"SIP/2\.0[ \t]+([1-6][0-9]{2})(?:[ \t]+([^\r\n]*))?(?:\r?\n|\Z)")


@attrs.frozen(kw_only=True)
class Referral:
    """Where a REFER wants us to call. `replaces` is the dialog that the call there is to replace, "" for none."""

    target: NameAddr
    referred_by: NameAddr | None = None
    replaces: str = ""
    subscribes: bool = True


def parse_refer(request: Request) -> Referral:
    """Read a REFER (RFC 3515 2.4.2, RFC 3892, RFC 4488 4).

    Raises RemoteError: 400 for none or several Refer-To, or an unreadable one; 603 for another method than INVITE.
    """
    targets = list(request.all("Refer-To"))
    if len(targets) != 1:
        raise RemoteError(f"{len(targets)} Refer-To header fields")
    target = parse_name_addr(targets[0])
    if (target.uri.params.get("method") or "INVITE").upper() != "INVITE":
        raise RemoteError("a REFER for another method than INVITE", 603)
    sender = request.header("Referred-By")
    subscription = (request.header("Refer-Sub") or "true").partition(";")[0].strip(" \t").lower()
    return Referral(
        target=attrs.evolve(target, uri=attrs.evolve(target.uri, headers="")),
        referred_by=None if sender is None else parse_name_addr(sender),
        replaces=_replaces(target.uri.headers),
        subscribes=subscription != "false",
    )


def _replaces(headers: str) -> str:
    """The Replaces among the `?name=value&...` of a URI (RFC 3261 19.1.1, RFC 5589 7)."""
    for field in headers.split("&"):
        name, _, value = field.partition("=")
        if unquote(name).lower() == "replaces":
            text = unquote(value)
            return text if text.isprintable() else ""
    return ""


@attrs.frozen
class Notice:
    """What a NOTIFY says: the status of the call that the REFER asked for, if any, and whether more will follow."""

    status: int | None
    reason: str
    last: bool
    number: int | None = None
    """The CSeq of the REFER that it is about, if it says so."""


def parse_notice(request: Request) -> Notice:
    """Read a NOTIFY about a REFER (RFC 3515 2.4.5, RFC 6665 4.1.3).

    Raises RemoteError: 489 for another event, 415 for another body than a fragment, 400 for what cannot be read.
    """
    event, _, rest = (request.header("Event") or "").partition(";")
    if event.strip(" \t").lower() != "refer":
        raise RemoteError("a NOTIFY about another event than refer", 489)
    number = parse_params(f";{rest}").get("id") if rest else None
    state = (request.header("Subscription-State") or "").partition(";")[0].strip(" \t").lower()
    if not state:
        raise RemoteError("a NOTIFY without Subscription-State")
    status, reason = _status(request)
    about = int(number) if number and number.isascii() and number.isdigit() and len(number) < 11 else None
    return Notice(status, reason, state == "terminated", about)


def _status(request: Request) -> tuple[int | None, str]:
    if not request.body:
        return None, ""
    if request.content_type != SIPFRAG:
        raise RemoteError(f"a NOTIFY about a REFER with {(request.content_type or 'untyped data')[:80]}", 415)
    found = _STATUS.match(request.body[:LONGEST])
    if found is None:
        raise RemoteError("a fragment without a status line")
    status = int(found[1])
    words = (found[2] or b"").decode("utf-8", "replace").strip()[:200]
    return status, "".join(c if c.isprintable() else " " for c in words) or REASONS.get(status, "")


def fragment(status: int, reason: str = "") -> bytes:
    """A status line as a fragment (RFC 3420)."""
    printable = "".join(c if c.isprintable() else " " for c in reason or REASONS.get(status, ""))
    return f"SIP/2.0 {status} {printable}\r\n".encode("utf-8", "replace")
