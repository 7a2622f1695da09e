"""What brought a step of a call about, in a few words for the log. Bodies, header fields and credentials stay out."""

from __future__ import annotations

from rustpbx.core import address_text
from rustpbx.sip.events import SendInvite
from rustpbx.sip.message import Request
from rustpbx.sip.transaction import LONGEST_WORDS, Failed, Heard, ServerTransaction, words_of


def cause(what: object) -> str:
    """A message, an outcome or a wish as the log names it; "" for what says nothing that the trigger does not."""
    match what:
        case None | str():
            return what or ""
        case ServerTransaction(request=request, source=source):
            return f"{request.method} from {address_text(source.address)}"
        case Heard() | Request():
            return words_of(what)
        case Failed(status=status, reason=reason):
            return f"{status} {reason[:LONGEST_WORDS]}, by ourselves"
        case SendInvite(callee=callee):
            return f"wish SendInvite to {callee.host}"
        case _:
            return f"wish {type(what).__name__}"
