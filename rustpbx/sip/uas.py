"""The called side of a call (RFC 3261 13.3): ringing, the answer and its ACK, refusals."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from rustpbx.core import Deadline
from rustpbx.errors import RemoteError
from rustpbx.sip.addressing import our_contact
from rustpbx.sip.call import Action, Call, Cause, Directory
from rustpbx.sip.cause import parse_reasons, sip_reason, with_cause
from rustpbx.sip.dialog import Dialog
from rustpbx.sip.encoder import header_lines
from rustpbx.sip.events import (
    Answer,
    CallCancelled,
    CallConfirmed,
    HangUp,
    IncomingCall,
    Refuse,
    Ring,
    Wish,
)
from rustpbx.sip.extensions import RELIABLE, option_tags, requires
from rustpbx.sip.identity import identity_of
from rustpbx.sip.layer import TransactionLayer
from rustpbx.sip.leg import Leg
from rustpbx.sip.message import Lines, NameAddr, Request, Response
from rustpbx.sip.reliable import ReliableResponses, parse_rack
from rustpbx.sip.tables import CallAction, CallState, CallTrigger, OfferState, OfferTrigger
from rustpbx.sip.transaction import ServerTransaction
from rustpbx.sip.uri import Uri


class UasCall(Call):
    """A call that a peer placed; its leg is named by the dialog's id. `contact` is ours where `local_host` is not."""

    def __init__(
        self,
        transaction: ServerTransaction,
        local_host: str,
        layer: TransactionLayer,
        directory: Directory,
        contact: Uri | None = None,
    ) -> None:
        request, source = transaction.request, transaction.source
        self._tag = layer.new_id()
        dialog = Dialog.of_request(request, self._tag, source)
        scheme = "sips" if request.uri.scheme == "sips" else "sip"  # 12.1.1
        user = request.uri.user or request.to.uri.user
        ours = our_contact(local_host, user, source.transport, layer.config.port_of, scheme)
        ours = NameAddr(contact) if contact is not None else ours
        leg = Leg(name=dialog.name, layer=layer, local_host=local_host, contact=ours, dialog=dialog)
        super().__init__(leg, directory)
        leg.learn(request)
        leg.theirs = request.body
        self._transaction = transaction
        self._described = False  # the session has been described in a reliable provisional response
        self._reliable = ReliableResponses(leg, transaction, self)
        transaction.serves(leg.name)
        self._enter_dialog(dialog)
        directory.invites[transaction] = self

    def ring(self, now: float) -> None:
        """Take the INVITE: 100 Trying, and tell the session."""
        with self._contained(now):
            self.step(CallTrigger.INVITE, self._transaction, now)
            self.offers.step(OfferTrigger.INVITED, None, now)

    def deadline(self) -> Deadline:
        """When the next of the call's timers runs out."""
        return min(super().deadline(), self._reliable.deadline())

    def _wake(self, now: float) -> None:
        self._reliable.wake(now)
        super()._wake(now)

    def _own_wish(self, wish: Wish, now: float) -> None:
        match wish:
            case Ring():
                self.step(CallTrigger.RING, wish, now)
            case Answer() if self.state is CallState.INCOMING:
                self._reliable.answer(wish, now)
            case Refuse():
                self.leg.over = self.state is CallState.INCOMING
                self.step(CallTrigger.REFUSE, wish, now)

    def _own_actions(self) -> Mapping[CallAction, Action]:
        return {
            CallAction.SEND_TRYING: self._send_trying,
            CallAction.SEND_PROVISIONAL: self._send_provisional,
            CallAction.SEND_SUCCESS: self._send_success,
            CallAction.SEND_REFUSAL: self._send_refusal,
            CallAction.SEND_DECLINE: self._send_decline,
            CallAction.SEND_UNAVAILABLE: self._send_unavailable,
            CallAction.SEND_TIMEOUT: self._send_timeout,
            CallAction.SEND_TERMINATED: self._send_terminated,
            CallAction.REPORT_INCOMING: self._report_incoming,
            CallAction.REPORT_CONFIRMED: self._report_confirmed,
            CallAction.REPORT_CANCELLED: self._report_cancelled,
        }

    def _is_expecting(self) -> bool:
        return self._reliable.expecting  # RFC 3262 3: also after the final response

    def _leave(self) -> None:
        self._directory.invites.pop(self._transaction, None)
        super()._leave()

    # -- actions ------------------------------------------------------------------------------------------------------

    def _send_trying(self, _cause: Cause, now: float) -> None:
        self._layer.respond(self._transaction, 100, now)

    def _send_provisional(self, cause: Cause, now: float) -> None:
        if not isinstance(cause, Ring):
            return
        if self._described:  # RFC 6337 3.1.1: nothing more is said of a session that is agreed
            cause = attrs.evolve(cause, body=b"")
        if self._is_reliable(cause):
            self._reliable.ring(cause, now)
            return
        if not self._transaction.request.body:  # an offer of ours must be reliable (13.2.1)
            cause = attrs.evolve(cause, body=b"")
        self._provisional(cause, (), now)

    def _is_reliable(self, ring: Ring) -> bool:
        """RFC 3262 3: whatever says something of the session, if the caller can do it; everything, if it asks so."""
        wish, invite = self._layer.config.extensions.prack, self._transaction.request
        if wish == "off" or ring.status == 100:
            return False
        every = wish == "required" or requires(invite, RELIABLE)
        return every or (bool(ring.body) and RELIABLE in option_tags(invite))

    def _provisional(self, ring: Ring, lines: Lines, now: float) -> Response:
        return self._layer.respond(
            self._transaction,
            ring.status,
            now,
            tag=self._tag,
            contact=self.leg.contact,
            lines=(*self.leg.abilities, *lines),
            body=ring.body,
        )

    def send_reliably(self, ring: Ring, lines: Lines, now: float) -> Response:
        """Send a provisional response that must be acknowledged."""
        if self._described:
            ring = attrs.evolve(ring, body=b"")
        if ring.body:
            self._described, self.leg.ours = True, ring.body
            offered = bool(self._transaction.request.body)
            self.offers.step(OfferTrigger.EARLY_ANSWERED if offered else OfferTrigger.ANSWERED, None, now)
        return self._provisional(ring, lines, now)

    def _open_dialog(self) -> Dialog | None:
        settled = self._described and not self._reliable.expecting  # RFC 3311 5.1
        return self.leg.dialog if self.state is CallState.INCOMING and settled else super()._open_dialog()

    def send_answer(self, answer: Answer, now: float) -> None:
        """Nothing holds the 2xx back any more."""
        self.step(CallTrigger.ANSWER, answer, now)

    def prack_lost(self, now: float) -> None:
        """The caller does not acknowledge what we say."""
        self.step(CallTrigger.PRACK_LOST, "no PRACK for our provisional response", now)

    def _prack(self, transaction: ServerTransaction, dialog: Dialog, now: float) -> None:
        """RFC 3262 3: 481 unless a response waits for it; SDP in it is our offer's answer, or an offer (section 5)."""
        try:
            matches = self._reliable.acknowledges(parse_rack(transaction.request))
        except RemoteError as error:
            self._layer.respond(transaction, error.reply, now)
            return
        if not matches:
            self._layer.respond(transaction, 481, now)
            return
        if transaction.request.body and self.state is CallState.INCOMING:
            self._take_description(transaction, dialog, now)
        else:
            self._layer.respond(transaction, 200, now)
        self._reliable.acknowledged(now)

    def _take_description(self, transaction: ServerTransaction, dialog: Dialog, now: float) -> None:
        if self.offers.state is OfferState.INITIAL:
            self._layer.respond(transaction, 200, now)
            self.offers.acked(transaction.request, now)
        else:
            self.offers.asked(OfferTrigger.REMOTE_UPDATE, transaction, dialog, now)

    def _send_success(self, cause: Cause, now: float) -> None:
        if isinstance(cause, Answer):
            body = b"" if self._described else cause.body
            self.leg.ours = self.leg.ours if self._described else cause.body
            self.leg.accept(self._transaction, body, cause.headers, now)
            self.offers.step(OfferTrigger.ANSWERED, None, now)

    def _send_refusal(self, cause: Cause, now: float) -> None:
        if isinstance(cause, Refuse):
            reason: Lines = () if cause.reason is None else (sip_reason(cause.status, cause.reason),)
            self._final(cause.status, now, (*reason, *with_cause(cause.headers, cause.cause)))

    def _send_decline(self, cause: Cause, now: float) -> None:
        self._final(603, now, self._bye_lines if isinstance(cause, HangUp) else ())

    def _send_unavailable(self, _cause: Cause, now: float) -> None:
        self._final(480, now)

    def _send_terminated(self, _cause: Cause, now: float) -> None:
        self._final(487, now)

    def _send_timeout(self, _cause: Cause, now: float) -> None:
        self._final(504, now)

    def _final(self, status: int, now: float, lines: Lines = ()) -> None:
        self._reliable.final(now)
        self._layer.respond(self._transaction, status, now, tag=self._tag, lines=lines)

    def _report_incoming(self, _cause: Cause, _now: float) -> None:
        request = self._transaction.request
        self.leg.emit(
            IncomingCall(
                leg=self.leg.name,
                caller=request.from_,
                callee=request.to,
                headers=header_lines(request),
                offer=request.body,
                source=self._transaction.source.address,
                local_host=self.leg.local_host,
                identity=identity_of(request),
                passed=self._layer.config.pass_headers.of(request),
            )
        )

    def _report_confirmed(self, cause: Cause, now: float) -> None:
        self.offers.step(OfferTrigger.ESTABLISHED, None, now)
        delayed = not self._transaction.request.body and not self._described
        answer = cause.body if isinstance(cause, Request) and delayed else b""
        self.leg.theirs = answer or self.leg.theirs
        self.leg.emit(CallConfirmed(self.leg.name, answer))

    def _report_cancelled(self, cause: Cause, _now: float) -> None:
        if isinstance(cause, Request):
            reasons, passed = parse_reasons(cause.all("Reason")), self._layer.config.pass_headers.of(cause)
            self.leg.emit(CallCancelled(self.leg.name, reasons, passed))
