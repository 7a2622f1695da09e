"""The called side of a call (RFC 3261 13.3): ringing, the answer and its ACK, refusals."""

from __future__ import annotations

from collections.abc import Mapping

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
from rustpbx.sip.identity import identity_of
from rustpbx.sip.layer import TransactionLayer
from rustpbx.sip.leg import ALLOW, Leg
from rustpbx.sip.message import Lines, NameAddr, Request
from rustpbx.sip.tables import CallAction, CallState, CallTrigger, OfferTrigger
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
        self._transaction = transaction
        transaction.serves(leg.name)
        self._enter_dialog(dialog)
        directory.invites[transaction] = self

    def ring(self, now: float) -> None:
        """Take the INVITE: 100 Trying, and tell the session."""
        with self._contained(now):
            self.step(CallTrigger.INVITE, self._transaction, now)
            self.offers.step(OfferTrigger.INVITED, None, now)

    def _own_wish(self, wish: Wish, now: float) -> None:
        match wish:
            case Ring():
                self.step(CallTrigger.RING, wish, now)
            case Answer():
                self.step(CallTrigger.ANSWER, wish, now)
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
            CallAction.SEND_TERMINATED: self._send_terminated,
            CallAction.REPORT_INCOMING: self._report_incoming,
            CallAction.REPORT_CONFIRMED: self._report_confirmed,
            CallAction.REPORT_CANCELLED: self._report_cancelled,
        }

    def _leave(self) -> None:
        self._directory.invites.pop(self._transaction, None)
        super()._leave()

    # -- actions ------------------------------------------------------------------------------------------------------

    def _send_trying(self, _cause: Cause, now: float) -> None:
        self._layer.respond(self._transaction, 100, now)

    def _send_provisional(self, cause: Cause, now: float) -> None:
        if isinstance(cause, Ring):
            self._layer.respond(
                self._transaction,
                cause.status,
                now,
                tag=self._tag,
                contact=self.leg.contact,
                lines=(ALLOW,),
                body=cause.body,
            )

    def _send_success(self, cause: Cause, now: float) -> None:
        if isinstance(cause, Answer):
            self.leg.accept(self._transaction, cause.body, cause.headers, now)
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

    def _final(self, status: int, now: float, lines: Lines = ()) -> None:
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
        self.leg.emit(CallConfirmed(self.leg.name, cause.body if isinstance(cause, Request) else b""))

    def _report_cancelled(self, cause: Cause, _now: float) -> None:
        if isinstance(cause, Request):
            reasons, passed = parse_reasons(cause.all("Reason")), self._layer.config.pass_headers.of(cause)
            self.leg.emit(CallCancelled(self.leg.name, reasons, passed))
