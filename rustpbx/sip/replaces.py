"""An INVITE that takes the place of a call that is up (RFC 3891): the same session goes on with another peer.

For the session it is a new offer on its leg: once that is accepted, the newcomer has the leg's name, and the peer that
it replaces gets our BYE. Refused, cancelled or too late, it leaves the call as it was.
"""

from __future__ import annotations

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.call import Call, Cause, Directory
from rustpbx.sip.dialog import DialogKey
from rustpbx.sip.events import AcceptOffer, Answer, HangUp, OfferReceived, PeerReplaced, Refuse, RefuseOffer
from rustpbx.sip.headers import CALL_ID, parse_params
from rustpbx.sip.layer import TransactionLayer
from rustpbx.sip.message import Request
from rustpbx.sip.offers import OfferAnswer
from rustpbx.sip.tables import CallState, OfferState
from rustpbx.sip.transaction import ServerTransaction
from rustpbx.sip.uas import UasCall
from rustpbx.sip.uri import Uri

NORMAL = 16
"""The Q.850 cause of our BYE to who is replaced."""


@attrs.frozen
class Replaces:
    """The dialog that an INVITE wants to replace, as we know it; with `early_only` unless it is answered."""

    key: DialogKey
    early_only: bool = False


def parse_replaces(request: Request) -> Replaces | None:
    """Read the Replaces header field (RFC 3891 6.1); None if there is none.

    Raises RemoteError (400) for several, for one that cannot be read, or one beside Join.
    """
    values = list(request.all("Replaces"))
    if not values:
        return None
    if len(values) > 1 or request.header("Join") is not None:
        raise RemoteError("more than one call to replace or join")
    call_id, _, rest = values[0].partition(";")
    params = parse_params(f";{rest}" if rest else "")
    to_tag, from_tag = params.get("to-tag"), params.get("from-tag")
    call_id = call_id.strip(" \t")
    if not to_tag or not from_tag or not CALL_ID.fullmatch(call_id):
        raise RemoteError("a Replaces without Call-ID or tags")
    return Replaces((call_id, to_tag, from_tag), "early-only" in params)


def refusal(call: Call | None, replaces: Replaces) -> int:
    """The status that answers an INVITE which cannot replace this call (RFC 3891 3); 0 if it can."""
    match call.state if call is not None else None:
        case CallState.CONFIRMED if call is not None:
            if replaces.early_only:
                return 486
            return 0 if call.successor is None and call.offers.state is OfferState.STABLE else 491
        case CallState.ANSWERED:
            return 486 if replaces.early_only else 491
        case None | CallState.INCOMING:  # unknown, or an early dialog that is not of our making
            return 481
        case _:  # over, or still ringing elsewhere for us: nobody to take over from
            return 603


class Successor(UasCall):
    """A call that a peer placed to replace another. Nothing is told of it until it has."""

    def __init__(  # noqa: PLR0917 - what a call of a peer's is made of, and whom it replaces
        self,
        transaction: ServerTransaction,
        local_host: str,
        layer: TransactionLayer,
        directory: Directory,
        contact: Uri | None,
        replaced: Call,
    ) -> None:
        super().__init__(transaction, local_host, layer, directory, contact)
        self._replaced = replaced
        self.leg.over = True

    def decide(self, wish: OfferAnswer, now: float) -> None:
        """The session has decided about the newcomer's offer."""
        self._replaced.successor = None
        match wish:
            case AcceptOffer(body=body):
                self._take_over(body, now)
            case RefuseOffer(status=status):
                self.wish(Refuse(self.leg.name, status), now)

    def orphaned(self, now: float) -> None:
        """The call that was to be replaced is over."""
        self.wish(Refuse(self.leg.name, 603), now)

    def _take_over(self, body: bytes, now: float) -> None:
        old = self._replaced
        self._directory.swap(old, self)
        old.leg.over, self.leg.over = True, False
        self.leg.emit(PeerReplaced(self.leg.name, self._transaction.request.from_))
        self.wish(Answer(self.leg.name, body), now)
        old.wish(HangUp(old.leg.name, cause=NORMAL), now)

    def _leave(self) -> None:
        if self._replaced.successor is self:
            self._replaced.successor = None
        super()._leave()

    def _report_incoming(self, _cause: Cause, _now: float) -> None:
        self._replaced.successor = self
        self._replaced.leg.emit(OfferReceived(self._replaced.leg.name, self._transaction.request.body))
