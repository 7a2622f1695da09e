"""What a wish must be like to be written as SIP: looked at before anything changes."""

from __future__ import annotations

import attrs

from rustpbx.errors import LocalError
from rustpbx.sip.encoder import encode_message, name_addr
from rustpbx.sip.events import (
    Answer,
    Credentials,
    HangUp,
    Refuse,
    RefuseOffer,
    ReportReferral,
    Ring,
    SendDigit,
    SendInvite,
    SendRefer,
    Wish,
)
from rustpbx.sip.headers import canonical, quote
from rustpbx.sip.message import CSeq, Lines, NameAddr, Request, Via
from rustpbx.sip.uri import Uri

_DIGITS = frozenset("0123456789*#ABCD")

_SPECIMEN = Request(
    method="BYE",
    uri=Uri("sip", None, None, "localhost"),
    vias=(Via("UDP", "localhost"),),
    from_=NameAddr(Uri("sip", None, None, "localhost")),
    to=NameAddr(Uri("sip", None, None, "localhost")),
    call_id="specimen",
    cseq=CSeq(1, "BYE"),
)


def check_wish(wish: Wish) -> None:
    """Raise LocalError for a wish that could not be sent."""
    match wish:
        case SendInvite() | Answer() | HangUp() | Refuse() | SendRefer():
            _check_lines(wish.headers)
    match wish:
        case SendInvite(credentials=Credentials() as credentials):
            _check_lines((("Authorization", f"{quote(credentials.username)} {quote(credentials.password)}"),))
        case Refuse(status=status) | RefuseOffer(status=status) if not 300 <= status <= 699:
            raise LocalError(f"{status} refuses nothing")
        case Ring(status=status) if not 101 <= status <= 199:
            raise LocalError(f"{status} is not a provisional response")
        case SendRefer():
            for address in (wish.target, wish.referred_by):
                _check_lines(() if address is None else (("Refer-To", name_addr(address)),))
        case ReportReferral(status=status) if not 100 <= status <= 699:
            raise LocalError(f"{status} is no SIP status")
        case SendDigit(digit=digit) if digit not in _DIGITS:
            raise LocalError(f"{digit[:8]!r} is no DTMF digit")


def _check_lines(lines: Lines) -> None:
    if any(canonical(name) == "Content-Type" for name, _ in lines):
        raise LocalError("the body has its Content-Type already")
    if lines:
        encode_message(attrs.evolve(_SPECIMEN, lines=lines))
