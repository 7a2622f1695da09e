"""The calling side of a call (RFC 3261 13.2): forks, credentials, CANCEL, and the ACK of every 2xx."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.addressing import our_contact
from rustpbx.sip.auth import DigestClient
from rustpbx.sip.call import Action, Call, Cause, Directory
from rustpbx.sip.cause import NOT_SELECTED, parse_reasons, q850_reason
from rustpbx.sip.delivery import Acknowledgement, Delivery
from rustpbx.sip.dialog import Dialog
from rustpbx.sip.early import Early
from rustpbx.sip.events import AcceptOffer, CallAnswered, CallProgress, CallRefused, HangUp, SendInvite
from rustpbx.sip.extensions import RELIABLE, requires
from rustpbx.sip.hop import Hop, Target, uri_hop
from rustpbx.sip.layer import TransactionLayer
from rustpbx.sip.leg import ALLOW, SDP, Leg
from rustpbx.sip.message import CSeq, NameAddr, Request, Response
from rustpbx.sip.offers import OfferAnswer
from rustpbx.sip.redirect import FOLLOWED, Targets
from rustpbx.sip.reliable import RAck, rseq_of
from rustpbx.sip.tables import CALL, CallAction, CallState, CallTrigger, OfferTrigger
from rustpbx.sip.transaction import Failed, Heard, Outcome, ServerTransaction

MOST_FORKS = 16
"""Branches of a forked call that are followed; answers of further ones are left to time out."""


def make_invite(wish: SendInvite, leg: Leg) -> Request:
    """The first INVITE (8.1.1); From gets a fresh tag, To none. One without a body asks the callee for an offer."""
    layer = leg.layer
    extensions = layer.config.extensions
    if not wish.body:  # an offer in a reliable response would have to be answered before anybody has answered
        extensions = attrs.evolve(extensions, prack="off")
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
        contacts=(leg.contact,),
        lines=(
            user_agent,
            ALLOW,
            *extensions.supported,
            *extensions.required,
            *leg.session.asked(),
            *((SDP,) if wish.body else ()),
            *wish.headers,
        ),
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
        self._invite = make_invite(wish, leg)
        leg.ours = wish.body
        self._target: Target = target
        self._by_proxy = target is not wish.callee
        self._targets = Targets(wish.callee, layer.config.max_redirects)
        self._plain = self._invite.lines
        self._delivery: Delivery | None = None
        self._early: dict[str, Early] = {}
        self._lost: dict[str, Dialog] = {}  # those of forks that another one has beaten to the answer
        self._told: Early | None = None  # the fork whose SDP the session was told last
        self._won: Early | None = None  # the fork whose 2xx it is
        self._acks: dict[str, Acknowledgement] = {}
        self._delayed = not wish.body  # the offer comes with the 2xx, and the answer goes with its ACK
        self._unanswered: str | None = None  # the To tag of the 2xx whose offer waits for the session
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
            CallAction.LENGTHEN: self._lengthen,
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
        if isinstance(outcome, Heard) and 100 < outcome.response.status < 200:
            self._provisional(outcome, now)
        else:
            self.step(self._classify(outcome), outcome, now)

    def _provisional(self, heard: Heard, now: float) -> None:
        """A provisional response; one that is reliable counts in its order only, and is acknowledged (RFC 3262 4)."""
        early = self._early.get(heard.response.to.tag or "")
        try:
            rseq = rseq_of(heard.response)
        except RemoteError:
            self._layer.counters["malformed"] += 1
            return
        if rseq is not None and early is not None and not early.is_next(rseq):
            self._layer.counters["provisionals_repeated"] += 1
            return
        self.step(CallTrigger.PROVISIONAL, heard, now)
        early = self._early.get(heard.response.to.tag or "")
        if rseq is not None and early is not None:
            early.rseq = rseq
            rack = RAck(rseq, heard.response.cseq)
            self.leg.request("PRACK", self, now, lines=(("RAck", str(rack)),), within=early.dialog)

    def _classify(self, outcome: Outcome) -> CallTrigger:
        if isinstance(outcome, Failed):
            return self._classify_failure()
        response = outcome.response
        if response.status == 100:
            return CallTrigger.TRYING
        if response.status < 300:
            return self._classify_success(response)
        if self.leg.challenged(response):
            return CallTrigger.CHALLENGE
        if (self.state, CallTrigger.TOO_BRIEF) in CALL.rows and self.leg.session.raised(response):
            return CallTrigger.TOO_BRIEF
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

    def _lengthen(self, _cause: Cause, now: float) -> None:
        """The same INVITE with the interval that the callee wants at least, and the next CSeq (RFC 4028 7.3)."""
        asked = self.leg.session.asked()
        others = (line for line in self._plain if line[0] not in {"Session-Expires", "Min-SE"})
        self._plain = (*others, *asked)
        self._authorize(None, now)

    def _leave_forks(self, now: float, *, but: Early | None = None) -> None:
        """The early dialogs are over, but for the one that was answered."""
        for early in self._early.values():
            if early is not but:
                self.offers.withdraw(early.dialog, now)
                self._leave_dialog(early.dialog)
                self._lost[early.dialog.remote.tag or ""] = early.dialog
        self._early.clear()

    def _follow(self, _cause: Cause, now: float) -> None:
        """The same INVITE to the next target, as a new transaction with the next CSeq (8.1.3.4).

        Credentials are shown to it only if it asks for them.
        """
        self._leave_forks(now)
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
        self._won = self._early.get(cause.response.to.tag or "")
        self._leave_forks(now, but=self._won)
        if self._won is not None:
            dialog = self._won.dialog.confirmed_as(dialog)
        self.leg.dialog = dialog
        self.leg.learn(cause.response)
        self.leg.theirs = cause.response.body or (self._won.sdp if self._won is not None else b"")
        self.leg.session.answered(cause.response)
        self._enter_dialog(dialog)
        self._unanswered = cause.response.to.tag or ""
        if not (self._delayed and cause.response.body):
            self._acknowledge(b"", now)

    def _acknowledge(self, body: bytes, now: float) -> None:
        """Send the ACK of the 2xx that has won, if it has not been sent."""
        tag, self._unanswered = self._unanswered, None
        if tag is not None and self.leg.dialog is not None:
            self._acks[tag] = self.leg.acknowledge(self._invite, self.leg.dialog, now, body)
            self.leg.ours = body or self.leg.ours
            self.offers.step(OfferTrigger.ESTABLISHED, None, now)

    def _decide(self, wish: OfferAnswer, now: float) -> None:
        """The session's word on a delayed offer. One that it cannot take is acknowledged, and hung up (13.2.2.4)."""
        if self._unanswered is None:
            super()._decide(wish, now)
        elif isinstance(wish, AcceptOffer):
            self._acknowledge(wish.body, now)
        else:
            self.wish(HangUp(self.leg.name), now)

    def _send_bye(self, cause: Cause, now: float) -> None:
        self._acknowledge(b"", now)
        super()._send_bye(cause, now)

    def _resend_ack(self, cause: Cause, _now: float) -> None:
        ack = self._acks.get(cause.response.to.tag or "") if isinstance(cause, Heard) else None
        if ack is not None:
            ack.again()

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
        dialog, early = Dialog.of_response(self._invite, cause.response, cause.source), self._lost.get(tag)
        fork = attrs.evolve(self.leg, dialog=dialog if early is None else early.confirmed_as(dialog))
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

    def _report_progress(self, cause: Cause, now: float) -> None:
        if not isinstance(cause, Heard):
            return
        response = cause.response
        tag = response.to.tag
        if tag is not None and tag not in self._early and len(self._early) < MOST_FORKS:
            self._early[tag] = Early(Dialog.of_response(self._invite, response, cause.source))
            self._enter_dialog(self._early[tag].dialog)
        body = self._early_description(self._early.get(tag or ""), response, now)
        self.leg.emit(CallProgress(self.leg.name, response.status, response.reason, body))

    def _early_description(self, early: Early | None, response: Response, now: float) -> bytes:
        """The SDP of a provisional response; b"" where the session with this fork is agreed already (RFC 3262 5)."""
        if early is None or not response.body:
            return response.body
        if early.agreed:
            return b""
        early.sdp, self._told = response.body, early
        if requires(response, RELIABLE):
            early.agreed = True
            self.offers.step(OfferTrigger.EARLY_ANSWERED, None, now)
        return response.body

    def _report_answered(self, cause: Cause, _now: float) -> None:
        if isinstance(cause, Heard):
            passed = self._layer.config.pass_headers.of(cause.response)
            body, early = self._answer_of(cause.response)
            offered = self._unanswered is not None
            self.leg.emit(CallAnswered(self.leg.name, body, passed, early, offered))

    def _answer_of(self, response: Response) -> tuple[bytes, bool]:
        """The answer that a 2xx means: its own, or the one that this fork gave before, reliably or without another."""
        won = self._won
        if won is None or not won.sdp or (response.body and not won.agreed):
            return response.body, False
        return (b"", True) if self._told is won else (won.sdp, False)

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

    def _dialog_of(self, request: Request) -> Dialog | None:
        early, dialog = self._early.get(request.to.tag or ""), self.leg.dialog
        if early is not None:
            return early.dialog
        return dialog if dialog is not None and dialog.remote.tag == request.to.tag else None

    def _open_dialog(self) -> Dialog | None:
        told = self._told
        if self.state is CallState.PROCEEDING and told is not None and told.agreed:
            return told.dialog
        return super()._open_dialog()

    def _update(self, transaction: ServerTransaction, dialog: Dialog, now: float) -> None:
        early = self._early.get(dialog.remote.tag or "")
        if early is not None and not early.agreed and transaction.request.body:
            self.offers.refuse_glare(transaction, now)  # RFC 3311 5.2: our offer to this fork has no answer yet
            return
        if early is not None and transaction.request.body:
            early.sdp, self._told = transaction.request.body, early
        super()._update(transaction, dialog, now)

    def _bye(self, transaction: ServerTransaction, _dialog: Dialog, now: float) -> None:
        if _dialog is not self.leg.dialog and len(self._early) > 1:  # one fork of several is gone
            self._early.pop(_dialog.remote.tag or "", None)
            self.offers.withdraw(_dialog, now)
            self._leave_dialog(_dialog)
            self._layer.respond(transaction, 200, now)
            return
        super()._bye(transaction, _dialog, now)
