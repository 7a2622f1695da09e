"""Offers within a call (RFC 3261 14, RFC 3311): one at a time, glare refused, the session asked."""

from __future__ import annotations

from rustpbx.core import Deadline
from rustpbx.errors import IllegalStepError
from rustpbx.machine import Machine
from rustpbx.sip.delivery import Delivery, Owner
from rustpbx.sip.events import AcceptOffer, OfferAnswered, OfferReceived, OfferRefused, RefuseOffer, SendOffer
from rustpbx.sip.leg import ALLOW, SDP, Leg
from rustpbx.sip.message import Request, Response
from rustpbx.sip.tables import OFFER, OfferAction, OfferState, OfferTrigger
from rustpbx.sip.transaction import Failed, Heard, Outcome, ServerTransaction
from rustpbx.sip.wording import cause as cause_words

MOST_GLARES = 3
"""How often an offer of ours may be answered with 491 and made again; after that it is refused."""

GLARE_WAITS = {True: (2.1, 4.0), False: (0.01, 2.0)}
"""Seconds before an offer that met another is made again (14.1), by whether the Call-ID is ours."""

OfferWish = SendOffer | AcceptOffer | RefuseOffer
Cause = ServerTransaction | Heard | Failed | OfferWish | Request | None


class Offers:
    """The offer machine of one call. `owner` is told the outcome of our re-INVITEs and hands it back to `heard`."""

    def __init__(self, leg: Leg, owner: Owner) -> None:
        self._leg = leg
        self._owner = owner
        self._pending: ServerTransaction | None = None  # the peer's re-INVITE or UPDATE that waits for the session
        self._ours: Delivery | None = None
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

    def wish(self, wish: OfferWish, now: float) -> None:
        """Take a wish of the session's; one that comes too late is ignored."""
        match wish:
            case SendOffer():
                self.step(OfferTrigger.LOCAL_OFFER, wish, now)
            case RefuseOffer():
                self.step(OfferTrigger.LOCAL_REFUSE, wish, now)
            case AcceptOffer():
                self.step(OfferTrigger.LOCAL_ACCEPT, wish, now)

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
                self._leg.emit(OfferAnswered(self._leg.name, _body(cause)))
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
            self._ours = self._leg.request("INVITE", self._owner, now, contact=True, lines=(ALLOW, SDP), body=body)

    def _authorize(self, now: float) -> None:
        if self._ours is not None:
            self._ours = self._leg.again(self._ours.request, self._owner, now)

    def _cancel(self, now: float) -> None:
        if self._ours is not None:
            self._ours.cancel((), now)

    def _report_offer(self, cause: Cause) -> None:
        if isinstance(cause, ServerTransaction):
            self._pending = cause
            self._leg.emit(OfferReceived(self._leg.name, cause.request.body))

    def _accept(self, cause: Cause, now: float) -> None:
        pending = self._take_pending()
        self._refresh(pending)
        self._leg.accept(pending, cause.body if isinstance(cause, AcceptOffer) else b"", (), now)

    def _accept_update(self, cause: Cause, now: float) -> None:
        pending = self._take_pending()
        self._refresh(pending)
        body = cause.body if isinstance(cause, AcceptOffer) else b""
        self._leg.layer.respond(pending, 200, now, contact=self._leg.contact, lines=(ALLOW,), body=body)

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

    def _refresh(self, pending: ServerTransaction) -> None:
        if self._leg.dialog is not None:
            self._leg.dialog.refresh(pending.request, pending.source)

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
