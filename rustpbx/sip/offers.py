"""Offers within a call (RFC 3261 14, RFC 3311): one at a time, glare refused, the session asked."""

from __future__ import annotations

from rustpbx.core import Deadline
from rustpbx.errors import IllegalStepError
from rustpbx.machine import Machine
from rustpbx.sip.delivery import Delivery, Owner
from rustpbx.sip.dialog import Dialog
from rustpbx.sip.events import (
    AcceptOffer,
    OfferAnswered,
    OfferReceived,
    OfferRefused,
    RefreshAnswered,
    RefuseOffer,
    SendOffer,
)
from rustpbx.sip.leg import SDP, Leg
from rustpbx.sip.message import Request, Response
from rustpbx.sip.tables import OFFER, OfferAction, OfferState, OfferTrigger
from rustpbx.sip.transaction import Failed, Heard, Outcome, ServerTransaction
from rustpbx.sip.wording import cause as cause_words

MOST_GLARES = 3
"""How often an offer of ours may be answered with 491 and made again; after that it is refused."""

GLARE_WAITS = {True: (2.1, 4.0), False: (0.01, 2.0)}
"""Seconds before an offer that met another is made again (14.1), by whether the Call-ID is ours."""

OfferAnswer = AcceptOffer | RefuseOffer
Cause = ServerTransaction | Heard | Failed | SendOffer | OfferAnswer | Request | None


class Offers:
    """The offer machine of one call. `owner` is told the outcome of our re-INVITEs and hands it back to `heard`."""

    def __init__(self, leg: Leg, owner: Owner) -> None:
        self._leg = leg
        self._owner = owner
        self._pending: ServerTransaction | None = None  # the peer's re-INVITE or UPDATE that waits for the session
        self._within: Dialog | None = None  # the dialog that it came in
        self._ours: Delivery | None = None
        self._by = "INVITE"  # the method of our offer
        self._to: Dialog | None = None  # the dialog that it goes to
        self._again: SendOffer | None = None  # our offer, as long as it may have to be made once more
        self._glares = 0
        self._machine = Machine[OfferState, OfferTrigger, OfferAction](
            OFFER, self._duration, call=leg.name, words=cause_words
        )

    @property
    def state(self) -> OfferState:
        """Who has an offer under way."""
        return self._machine.state

    def deadline(self) -> Deadline:
        """When the next timer runs out."""
        return self._machine.deadline()

    def wake(self, now: float) -> None:
        """Take the timers that have run out."""
        for trigger in self._machine.fired(now):
            self.step(trigger, None, now)

    def wish(self, wish: OfferAnswer, now: float) -> None:
        """Take a wish of the session's; one that comes too late is ignored."""
        match wish:
            case RefuseOffer():
                self.step(OfferTrigger.LOCAL_REFUSE, wish, now)
            case AcceptOffer():
                self.step(OfferTrigger.LOCAL_ACCEPT, wish, now)

    def offer(self, wish: SendOffer, dialog: Dialog | None, now: float) -> None:
        """Offer another session in a dialog; before the answer, and if so wished, by UPDATE."""
        update = wish.update or dialog is not self._leg.dialog or not self._leg.established
        if dialog is None:
            self._leg.emit(OfferRefused(self._leg.name, 491))
        elif update and "UPDATE" not in self._leg.allows:
            self._leg.emit(OfferRefused(self._leg.name, 405))
        else:
            if self.state is OfferState.STABLE:
                self._by, self._to = "UPDATE" if update else "INVITE", dialog
            self.step(OfferTrigger.LOCAL_OFFER, wish, now)

    def refresh(self, now: float) -> bool:
        """Offer what is agreed once more; False if another exchange is under way, or nothing is agreed."""
        if self.state is not OfferState.STABLE or not self._leg.ours:
            return False
        self._by, self._to = "INVITE", self._leg.dialog
        self.step(OfferTrigger.LOCAL_REFRESH, None, now)
        return True

    def asked(self, trigger: OfferTrigger, transaction: ServerTransaction, dialog: Dialog, now: float) -> None:
        """Take an offer of the peer's within a dialog, which may be an early one of several."""
        asked = self._within
        self._within = dialog
        self.step(trigger, transaction, now)
        if self._pending is not transaction:
            self._within = asked

    def untimely(self, transaction: ServerTransaction, now: float) -> None:
        """Refuse a re-INVITE that came before the first INVITE is over: 491 if that is ours, else 500 (14.2)."""
        self._turn_down(transaction, 491 if self._leg.calling or self._leg.ack_wait is not None else 500, now)

    def refuse_glare(self, transaction: ServerTransaction, now: float) -> None:
        """Refuse an offer that met one of ours."""
        self._turn_down(transaction, 491, now)

    def withdraw(self, dialog: Dialog, now: float) -> None:
        """Another fork than this one has answered: what this one offers is void."""
        if self._pending is not None and self._within is dialog:
            self.step(OfferTrigger.REMOTE_CANCEL, None, now)

    def cancelled(self, transaction: ServerTransaction, now: float) -> None:
        """The peer cancelled its re-INVITE (9.2)."""
        if transaction is self._pending:
            self.step(OfferTrigger.REMOTE_CANCEL, None, now)

    def acked(self, ack: Request, now: float) -> None:
        """The ACK of our 2xx to a re-INVITE."""
        self.step(OfferTrigger.ACK_WITH_ANSWER if ack.body else OfferTrigger.ACK, ack, now)

    def heard(self, request: Request, outcome: Outcome, now: float) -> None:
        """What became of our re-INVITE; a 2xx has been acknowledged."""
        if self._ours is None or request.cseq != self._ours.request.cseq:
            return
        match outcome:
            case Heard(response=response) if response.status < 200:
                return
            case Heard(response=response) if response.status < 300:
                trigger = OfferTrigger.REMOTE_ACCEPT
            case Heard(response=response) if self._leg.challenged(response):
                trigger = OfferTrigger.CHALLENGE
            case Heard(response=response) if self._leg.session.raised(response):
                trigger = OfferTrigger.TOO_BRIEF
            case Heard(response=Response(status=491)) if self._glares < MOST_GLARES:
                trigger = OfferTrigger.REMOTE_GLARE
                self._glares += 1
            case _:
                trigger = OfferTrigger.REMOTE_REFUSE
        self.step(trigger, outcome, now)

    def step(self, trigger: OfferTrigger, cause: Cause, now: float) -> None:
        """Take one step and do what its row says."""
        for action in self._machine.step(trigger, now, cause):
            self._act(action, cause, now)

    def _act(self, action: OfferAction, cause: Cause, now: float) -> None:  # noqa: C901, PLR0912 - one line an action
        match action:
            case OfferAction.SEND_OFFER:
                self._send_offer(cause, now)
            case OfferAction.SEND_REFRESH:
                self._again, self._glares = SendOffer(self._leg.name, self._leg.ours), 0
                self._offer(now)
            case OfferAction.OFFER_AGAIN:
                self._offer(now)
            case OfferAction.AUTHORIZE:
                self._authorize(now)
            case OfferAction.SEND_CANCEL:
                self._cancel(now)
            case OfferAction.SEND_ACCEPTANCE:
                self._accept(cause, now)
            case OfferAction.SEND_UPDATE_ACCEPTANCE:
                self._accept_update(cause, now)
            case OfferAction.SEND_REFUSAL:
                self._refuse(cause.status if isinstance(cause, RefuseOffer) else 488, now)
            case OfferAction.SEND_FAILURE:
                self._refuse(500, now)
            case OfferAction.SEND_TIMEOUT:
                self._refuse(504, now)
            case OfferAction.SEND_TERMINATED:
                self._refuse(487, now)
            case OfferAction.REFUSE_GLARE:
                self._turn_down(cause, 491, now)
            case OfferAction.REFUSE_PENDING:
                self._turn_down(cause, 500, now)
            case OfferAction.REPORT_OFFER:
                self._report_offer(cause)
            case OfferAction.REPORT_ANSWERED:
                self._report_answered(cause)
            case OfferAction.REPORT_REFRESHED:
                self._report_refreshed(_body(cause))
            case OfferAction.REPORT_REFUSED:
                self._leg.emit(OfferRefused(self._leg.name, _status(cause)))
            case OfferAction.REPORT_GLARE:
                self._leg.emit(OfferRefused(self._leg.name, 491))
            case OfferAction.REPORT_TIMEOUT:
                self._leg.emit(OfferRefused(self._leg.name, 408))

    def _send_offer(self, cause: Cause, now: float) -> None:
        if isinstance(cause, SendOffer):
            self._again, self._glares = cause, 0
            self._offer(now)

    def _offer(self, now: float) -> None:
        if self._again is not None:
            body = self._again.body
            lines = (*self._leg.abilities, *self._leg.session.asked(), SDP)
            self._ours = self._leg.request(
                self._by, self._owner, now, contact=True, lines=lines, body=body, within=self._to
            )

    def _authorize(self, now: float) -> None:
        if self._ours is not None:
            self._ours = self._leg.again(self._ours.request, self._owner, now, within=self._to)

    def _cancel(self, now: float) -> None:
        if self._ours is not None and self._by == "INVITE":
            self._ours.cancel((), now)

    def _report_answered(self, cause: Cause) -> None:
        if isinstance(cause, Heard) and self._again is not None:  # else it answers an offer in a response of ours
            self._leg.ours = self._again.body
        self._leg.theirs = _body(cause)
        self._leg.emit(OfferAnswered(self._leg.name, self._leg.theirs))

    def _report_refreshed(self, body: bytes) -> None:
        """Nobody need know of an answer that says what is agreed already."""
        if body and body != self._leg.theirs:
            self._leg.theirs = body
            self._leg.emit(RefreshAnswered(self._leg.name, body))

    def _report_offer(self, cause: Cause) -> None:
        if isinstance(cause, ServerTransaction):
            self._pending = cause
            self._leg.emit(OfferReceived(self._leg.name, cause.request.body))

    def _accept(self, cause: Cause, now: float) -> None:
        pending, body = self._take_pending(), cause.body if isinstance(cause, AcceptOffer) else b""
        self._agree(pending, body)
        self._leg.accept(pending, body, (), now)

    def _accept_update(self, cause: Cause, now: float) -> None:
        pending, body = self._take_pending(), cause.body if isinstance(cause, AcceptOffer) else b""
        self._agree(pending, body)
        if pending.request.method == "PRACK":  # no target refresh, so no Contact either
            self._leg.layer.respond(pending, 200, now, body=body)
        else:
            lines = self._leg.refreshed(pending.request)
            self._leg.layer.respond(pending, 200, now, contact=self._leg.contact, lines=lines, body=body)

    def _refuse(self, status: int, now: float) -> None:
        if self._pending is not None:
            self._leg.layer.respond(self._take_pending(), status, now)

    def _turn_down(self, cause: Cause, status: int, now: float) -> None:
        """Refuse an offer that came at the wrong time; 500 says when to try again (14.2: 0 to 10 s)."""
        if isinstance(cause, ServerTransaction):
            lines = (("Retry-After", str(self._leg.layer.random_seconds(10))),) if status == 500 else ()
            self._leg.layer.respond(cause, status, now, lines=lines)

    def _take_pending(self) -> ServerTransaction:
        pending, self._pending = self._pending, None
        if pending is None:
            raise IllegalStepError("an offer is answered that is not pending")
        return pending

    def _agree(self, pending: ServerTransaction, body: bytes) -> None:
        """Both descriptions are in force; the answer to an offer of ours is still to come."""
        self._leg.ours, self._leg.theirs = body, pending.request.body
        dialog = self._within or self._leg.dialog
        if dialog is not None and pending.request.method != "PRACK":
            dialog.refresh(pending.request, pending.source)

    def _duration(self, trigger: OfferTrigger) -> float:
        if trigger is OfferTrigger.GLARE_WAIT:
            return self._leg.layer.random_between(*GLARE_WAITS[self._leg.calling])
        return self._leg.layer.config.timing.fixed[trigger.name]


def _body(cause: Cause) -> bytes:
    return cause.response.body if isinstance(cause, Heard) else cause.body if isinstance(cause, Request) else b""


def _status(cause: Cause) -> int:
    match cause:
        case Heard(response=response):
            return response.status
        case Failed(status=status):
            return status
        case _:
            return 500
