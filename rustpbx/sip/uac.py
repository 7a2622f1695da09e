"""The calling side of a call (RFC 3261 13.2): forks, credentials, CANCEL, and the ACK of every 2xx."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import attrs

from rustpbx.sip.addressing import our_contact
from rustpbx.sip.auth import DigestClient
from rustpbx.sip.call import Action, Call, Cause, Directory
from rustpbx.sip.cause import NOT_SELECTED, parse_reasons, q850_reason
from rustpbx.sip.delivery import Acknowledgement, Delivery
from rustpbx.sip.dialog import Dialog
from rustpbx.sip.events import CallAnswered, CallProgress, CallRefused, SendInvite
from rustpbx.sip.hop import Hop, Target, uri_hop
from rustpbx.sip.layer import TransactionLayer
from rustpbx.sip.leg import ALLOW, SDP, Leg
from rustpbx.sip.message import CSeq, NameAddr, Request, Response
from rustpbx.sip.redirect import FOLLOWED, Targets
from rustpbx.sip.tables import CALL, CallAction, CallTrigger, OfferTrigger
from rustpbx.sip.transaction import Failed, Heard, Outcome, ServerTransaction

MOST_FORKS = 16
"""Branches of a forked call that are followed; answers of further ones are left to time out."""


def make_invite(wish: SendInvite, layer: TransactionLayer, contact: NameAddr) -> Request:
    """The first INVITE (8.1.1); From gets a fresh tag, To none."""
    user_agent = ("User-Agent", layer.config.user_agent)
    return Request(
        method="INVITE",
        uri=attrs.evolve(wish.callee, headers=""),
        vias=(layer.new_via(wish.local_host),),
        routes=wish.routes,
        from_=attrs.evolve(wish.caller, params=wish.caller.params.without("tag")).tagged(layer.new_id()),
        to=NameAddr(attrs.evolve(wish.callee, headers="")),
        call_id=f"{layer.new_id()}{layer.new_id()}@{layer.config.callid_suffix}",
        cseq=CSeq(1, "INVITE"),
        contacts=(contact,),
        lines=(user_agent, ALLOW, *((SDP,) if wish.body else ()), *wish.headers),
        body=wish.body,
    )


def _contact(wish: SendInvite, layer: TransactionLayer, hop: Hop) -> NameAddr:
    scheme = "sips" if wish.callee.scheme == "sips" else "sip"  # 8.1.1.8
    return our_contact(wish.local_host, wish.caller.uri.user, hop.transport, layer.config.port_of, scheme)


class UacCall(Call):
    """A call that we placed. Until its 2xx it may have an early dialog for each fork."""

    def __init__(self, wish: SendInvite, layer: TransactionLayer, directory: Directory) -> None:
        target = wish.destination or (wish.routes[0].uri if wish.routes else wish.callee)
        likely = target if isinstance(target, Hop) else uri_hop(target)  # the Contact follows where it really goes
        contact = NameAddr(wish.contact) if wish.contact else _contact(wish, layer, likely)
        digest = DigestClient(wish.credentials) if wish.credentials and wish.credentials.username else None
        leg = Leg(name=wish.leg, layer=layer, local_host=wish.local_host, contact=contact, digest=digest, calling=True)
        super().__init__(leg, directory)
        self._invite = make_invite(wish, layer, contact)
        self._target: Target = target
        self._by_proxy = target is not wish.callee
        self._targets = Targets(wish.callee, layer.config.max_redirects)
        self._plain = self._invite.lines
        self._delivery: Delivery | None = None
        self._early: dict[str, Dialog] = {}
        self._acks: dict[str, Acknowledgement] = {}
        self._forks: dict[str, Leg] = {}

    @property
    def call_id(self) -> str:
        """That of the INVITE; it stays when the call is challenged."""
        return self._invite.call_id

    def dial(self, wish: SendInvite, now: float) -> None:
        """Send the INVITE. Raises LocalError, with nothing sent, if a header field of the wish is not one."""
        self.step(CallTrigger.DIAL, wish, now)
        self._book()

    def _own_actions(self) -> Mapping[CallAction, Action]:
        return {
            CallAction.SEND_INVITE: self._send_invite,
            CallAction.AUTHORIZE: self._authorize,
            CallAction.FOLLOW: self._follow,
            CallAction.CONFIRM: self._confirm,
            CallAction.RESEND_ACK: self._resend_ack,
            CallAction.END_FORK: self._end_fork,
            CallAction.SEND_CANCEL: self._send_cancel,
            CallAction.STAY: self._stay,
            CallAction.REPORT_PROGRESS: self._report_progress,
            CallAction.REPORT_ANSWERED: self._report_answered,
            CallAction.REPORT_REFUSED: self._report_refused,
            CallAction.REPORT_NO_ANSWER: self._report_no_answer,
        }

    def _is_first(self, request: Request) -> bool:
        return request.cseq.number <= self._invite.cseq.number  # each try after a challenge counts on

    def _invited(self, outcome: Outcome, now: float) -> None:
        self.step(self._classify(outcome), outcome, now)

    def _classify(self, outcome: Outcome) -> CallTrigger:
        if isinstance(outcome, Failed):
            return self._classify_failure()
        response = outcome.response
        if response.status == 100:
            return CallTrigger.TRYING
        if response.status < 200:
            return CallTrigger.PROVISIONAL
        if response.status < 300:
            return self._classify_success(response)
        if self.leg.challenged(response):
            return CallTrigger.CHALLENGE
        return self._classify_failure(response)

    def _classify_failure(self, response: Response | None = None) -> CallTrigger:
        """Whether there is another target to call: one that this 3xx names, or an earlier one (8.1.3.4)."""
        if (self.state, CallTrigger.REDIRECT) not in CALL.rows:
            return CallTrigger.FAILURE
        if response is not None and response.status in FOLLOWED:
            self._targets.add(response.contacts, partial(self._layer.config.redirect_refusal, self.leg.name))
        elif response is not None and response.status >= 600:
            self._targets.drop()
        return CallTrigger.REDIRECT if self._targets else CallTrigger.FAILURE

    def _classify_success(self, response: Response) -> CallTrigger:
        if self.leg.dialog is None:
            return CallTrigger.SUCCESS
        same = response.to.tag == self.leg.dialog.remote.tag
        return CallTrigger.SUCCESS_AGAIN if same else CallTrigger.SUCCESS_ELSEWHERE

    # -- actions ------------------------------------------------------------------------------------------------------

    def _send_invite(self, _cause: Cause, now: float) -> None:
        self._start_invite(now)

    def _start_invite(self, now: float) -> None:
        self._delivery = self._layer.start(self._invite, self._target, self, now, call=self.leg.name)

    def _authorize(self, _cause: Cause, now: float) -> None:
        """The same INVITE with credentials, as a new transaction with the next CSeq (22.2)."""
        repeated = attrs.evolve(
            self._invite,
            vias=(self._layer.new_via(self.leg.local_host),),
            cseq=CSeq(self._invite.cseq.number + 1, "INVITE"),
            lines=self._plain,
        )
        self._invite = self.leg.authorized(repeated, self._invite)
        self._start_invite(now)

    def _follow(self, _cause: Cause, now: float) -> None:
        """The same INVITE to the next target, as a new transaction with the next CSeq (8.1.3.4).

        Credentials are shown to it only if it asks for them.
        """
        for early in self._early.values():
            self._leave_dialog(early)
        self._early.clear()
        target = self._targets.take()
        self._target = self._target if self._by_proxy else target
        self._invite = attrs.evolve(
            self._invite,
            uri=target,
            vias=(self._layer.new_via(self.leg.local_host),),
            cseq=CSeq(self._invite.cseq.number + 1, "INVITE"),
            lines=self._plain,
        )
        self._start_invite(now)

    def _confirm(self, cause: Cause, now: float) -> None:
        """The first 2xx wins: its dialog is the call's, and it is acknowledged."""
        if not isinstance(cause, Heard):
            return
        dialog = Dialog.of_response(self._invite, cause.response, cause.source)
        early = self._early.get(cause.response.to.tag or "")
        if early is not None:  # 12.2: requests of the early dialog count on
            dialog.remote_seq = early.remote_seq
            dialog.local_seq = max(early.local_seq, dialog.local_seq)
        for other in self._early.values():
            self._leave_dialog(other)
        self._early.clear()
        self.leg.dialog = dialog
        self._enter_dialog(dialog)
        self._acks[cause.response.to.tag or ""] = self.leg.acknowledge(self._invite, dialog, now)
        self.offers.step(OfferTrigger.ESTABLISHED, None, now)

    def _resend_ack(self, cause: Cause, _now: float) -> None:
        if isinstance(cause, Heard):
            self._acks[cause.response.to.tag or ""].again()

    def _end_fork(self, cause: Cause, now: float) -> None:
        """Another fork answered as well: acknowledge it and hang it up (13.2.2.4)."""
        if not isinstance(cause, Heard):
            return
        tag = cause.response.to.tag or ""
        known = self._acks.get(tag)
        if known is not None:
            known.again()
            return
        if len(self._acks) == MOST_FORKS:
            self._layer.counters["forks_ignored"] += 1
            return
        fork = attrs.evolve(self.leg, dialog=Dialog.of_response(self._invite, cause.response, cause.source))
        if fork.dialog is not None:
            self._forks[tag] = fork
            self._acks[tag] = fork.acknowledge(self._invite, fork.dialog, now)
            fork.request("BYE", self, now, lines=(q850_reason(NOT_SELECTED),))

    def _requested(self, request: Request, outcome: Outcome, now: float) -> None:
        """The BYE of a lost fork concerns nobody, but a proxy may want credentials for it too."""
        fork = self._forks.get(request.to.tag or "")
        if fork is None:
            super()._requested(request, outcome, now)
        elif isinstance(outcome, Heard) and fork.challenged(outcome.response):
            fork.again(request, self, now)

    def _send_cancel(self, _cause: Cause, now: float) -> None:
        if self._delivery is not None:
            self._delivery.cancel(self._bye_lines, now)

    def _stay(self, _cause: Cause, now: float) -> None:
        """Nobody waits for an answer any more: ask no other server."""
        if self._delivery is not None:
            self._delivery.stay(now)

    def _report_progress(self, cause: Cause, _now: float) -> None:
        if not isinstance(cause, Heard):
            return
        response = cause.response
        tag = response.to.tag
        if tag is not None and tag not in self._early and len(self._early) < MOST_FORKS:
            self._early[tag] = Dialog.of_response(self._invite, response, cause.source)
            self._enter_dialog(self._early[tag])
        self.leg.emit(CallProgress(self.leg.name, response.status, response.reason, response.body))

    def _report_answered(self, cause: Cause, _now: float) -> None:
        if isinstance(cause, Heard):
            passed = self._layer.config.pass_headers.of(cause.response)
            self.leg.emit(CallAnswered(self.leg.name, cause.response.body, passed))

    def _report_refused(self, cause: Cause, _now: float) -> None:
        match cause:
            case Heard(response=response) if response.status in FOLLOWED and self._targets.refusal:
                self.leg.emit(CallRefused(self.leg.name, 403, self._targets.refusal))
            case Heard(response=response):
                reasons, passed = parse_reasons(response.all("Reason")), self._layer.config.pass_headers.of(response)
                self.leg.emit(CallRefused(self.leg.name, response.status, response.reason, reasons, passed))
            case Failed(status=status, reason=reason):
                self.leg.emit(CallRefused(self.leg.name, status, reason))

    def _report_no_answer(self, _cause: Cause, _now: float) -> None:
        self.leg.emit(CallRefused(self.leg.name, 408, "Request Timeout"))

    def _bye(self, transaction: ServerTransaction, _dialog: Dialog, now: float) -> None:
        if _dialog is not self.leg.dialog and len(self._early) > 1:  # one fork of several is gone
            self._early.pop(_dialog.remote.tag or "", None)
            self._leave_dialog(_dialog)
            self._layer.respond(transaction, 200, now)
            return
        super()._bye(transaction, _dialog, now)
