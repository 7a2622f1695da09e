"""A call: the machine both sides share, and what happens in it once there is a dialog (RFC 3261 12.2, 14, 15).

`rustpbx.sip.uac` and `rustpbx.sip.uas` add what only the calling or the called side does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from typing import Protocol

from rustpbx.core import Deadline
from rustpbx.errors import RemoteError
from rustpbx.machine import Machine
from rustpbx.sip.cause import RECOVERY, parse_reasons, q850_reason, sip_reason, with_cause
from rustpbx.sip.dialog import Dialog, DialogKey
from rustpbx.sip.events import (
    AcceptOffer,
    ByeReceived,
    CallLost,
    DigitReceived,
    DigitSent,
    HangUp,
    ReferEnded,
    RefuseOffer,
    ReportReferral,
    Send,
    SendDigit,
    SendOffer,
    SendRefer,
    Wish,
)
from rustpbx.sip.info import DTMF, DTMF_RELAY, encode_digit, parse_digit
from rustpbx.sip.leg import Leg
from rustpbx.sip.message import Lines, Request
from rustpbx.sip.offers import OfferAnswer, Offers
from rustpbx.sip.refer import Referrals
from rustpbx.sip.session_timer import SessionTimer
from rustpbx.sip.tables import (
    CALL,
    CallAction,
    CallState,
    CallTrigger,
    OfferTrigger,
    PendingAckAction,
    PendingAckTrigger,
)
from rustpbx.sip.transaction import Heard, Outcome, ServerTransaction, status_of
from rustpbx.sip.wording import cause as cause_words

Cause = Wish | Heard | Outcome | ServerTransaction | Request | str | None
"""What brought a step about: a wish, a response, a request of the peer's, or words for `CallLost`."""

Action = Callable[[Cause, float], None]

_AT = attrgetter("at")

_OVER = frozenset(
    {
        CallState.GIVING_UP,
        CallState.CANCELLING,
        CallState.HANGING_UP,
        CallState.ENDING,
        CallState.ENDED,
        CallState.TERMINATED,
    }
)
"""The session has been told the end, or has wished for it: of the peer's requests only BYE is still served."""


class Directory:
    """Every call by its leg's name, and every dialog by its key. An ended call stays for 64*T1, out of `live`."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        self.dialogs: dict[DialogKey, tuple[Call, Dialog]] = {}
        self.invites: dict[ServerTransaction, Call] = {}
        self.live: set[str] = set()

    def enter(self, call: Call) -> None:
        """A call begins."""
        self.calls[call.leg.name] = call
        self.live.add(call.leg.name)

    def retire(self, call: Call) -> None:
        """The call is over; another may have its name from now on."""
        if self.calls.get(call.leg.name) is call:
            self.live.discard(call.leg.name)

    def forget(self, call: Call) -> None:
        """Nothing of the call is left."""
        if self.calls.get(call.leg.name) is call:
            del self.calls[call.leg.name]
            self.live.discard(call.leg.name)

    def swap(self, one: Call, other: Call) -> None:
        """Two calls change names, in the log too."""
        one.leg.name, other.leg.name = other.leg.name, one.leg.name
        for call in (one, other):
            self.calls[call.leg.name] = call
            call.renamed()


class Heir(Protocol):
    """A call that waits to take another's place (RFC 3891)."""

    @property
    def call_id(self) -> str:
        """Its Call-ID."""
        ...

    def decide(self, wish: OfferAnswer, now: float) -> None:
        """The session has decided."""
        ...

    def orphaned(self, now: float) -> None:
        """There is nothing to take over any more."""
        ...


class Call:
    """One INVITE usage of a dialog, stepped by the `call` table."""

    def __init__(self, leg: Leg, directory: Directory) -> None:
        self.leg = leg
        self.offers = Offers(leg, self)
        self.timer = SessionTimer(leg, self.offers, self)
        self.referrals = Referrals(leg, self)
        self.successor: Heir | None = None
        self._layer = leg.layer
        self._directory = directory
        self._keys: set[DialogKey] = set()
        self._bye_lines: Lines = ()
        self._machine = Machine[CallState, CallTrigger, CallAction](
            CALL, self._duration, "dialog", call=leg.name, words=cause_words
        )
        self._actions: Mapping[CallAction, Action] = {**self._shared_actions(), **self._own_actions()}

    @property
    def tag(self) -> str | None:
        """Our tag in the call's dialog, if there is one yet."""
        return self.leg.dialog.local.tag if self.leg.dialog is not None else None

    @property
    def call_id(self) -> str:
        """The SIP Call-ID."""
        return self.leg.dialog.call_id if self.leg.dialog is not None else ""

    def renamed(self) -> None:
        """The leg has another name."""
        self._machine.call = self.leg.name

    @property
    def state(self) -> CallState:
        """Where the call stands."""
        return self._machine.state

    def deadline(self) -> Deadline:
        """When the next of the call's timers runs out."""
        wait = self.leg.ack_wait
        deadlines = [self._machine.deadline(), self.offers.deadline(), self.timer.deadline(), self.referrals.deadline()]
        if wait is not None:
            deadlines.append(wait.deadline())
        return min(deadlines, key=_AT)

    def wake(self, now: float) -> None:
        """Take the timers that have run out."""
        with self._contained(now):
            self._wake(now)

    def _wake(self, now: float) -> None:
        wait = self.leg.ack_wait
        if wait is not None:
            self._ack_effects(wait.tick(now), None, now)
        self.offers.wake(now)
        self.timer.wake(now)
        self.referrals.wake(now)
        for trigger in self._machine.fired(now):
            lingered = trigger is CallTrigger.LINGER  # expected: nobody has to answer any more
            self.step(trigger, None if lingered else "no answer within the time limit", now)

    # -- what comes in ------------------------------------------------------------------------------------------------

    def wish(self, wish: Wish, now: float) -> None:
        """Take a wish of the session's; one that the state does not allow any more is ignored."""
        if self.state in _OVER:
            self._layer.counters["late_wishes"] += 1
            return
        with self._contained(now):
            match wish:
                case HangUp(headers=headers, cause=cause):
                    self.leg.over = True
                    self._bye_lines = with_cause(headers, cause)
                    self.step(CallTrigger.HANG_UP, wish, now)
                case SendOffer():
                    self.offers.offer(wish, self._open_dialog(), now)
                case AcceptOffer() | RefuseOffer() if self.successor is not None:
                    self.successor.decide(wish, now)
                case AcceptOffer() | RefuseOffer():
                    self._decide(wish, now)
                case SendDigit():
                    self._send_digit(wish, now)
                case SendRefer() | ReportReferral():
                    self._refer(wish, now)
                case _:
                    self._own_wish(wish, now)

    def request(self, transaction: ServerTransaction, dialog: Dialog, now: float) -> None:
        """Take a request of the peer's within a dialog of this call; its CSeq is in order."""
        with self._contained(now):
            self._serve(transaction, dialog, now)

    def _serve(self, transaction: ServerTransaction, dialog: Dialog, now: float) -> None:
        method = transaction.request.method
        self.leg.learn(transaction.request)
        if method not in {"BYE", "PRACK"} and self.state in _OVER:
            self._layer.respond(transaction, 481, now)
        elif method == "BYE":
            self._bye(transaction, dialog, now)
        elif method == "INVITE":
            self._reinvite(transaction, dialog, now)
        elif method == "UPDATE":
            self._update(transaction, dialog, now)
        elif method in {"REFER", "NOTIFY"}:
            self._referral(transaction, dialog, now)
        elif method == "PRACK":
            self._prack(transaction, dialog, now)
        else:
            self._info(transaction, now)

    def acked(self, ack: Request, now: float) -> None:
        """Take the ACK of a 2xx of ours."""
        wait = self.leg.ack_wait
        if wait is not None and wait.cseq == ack.cseq.number:
            with self._contained(now):
                self._ack_effects(wait.step(PendingAckTrigger.ACK, now), ack, now)

    def cancelled(self, transaction: ServerTransaction, cancel: Request, now: float) -> None:
        """The peer cancelled an INVITE of this call; the CANCEL itself has been answered."""
        with self._contained(now):
            if transaction.request.to.tag is None:
                self.step(CallTrigger.CANCEL, cancel, now)
            else:
                self.offers.cancelled(transaction, now)

    def outcome(self, request: Request, outcome: Outcome, now: float) -> None:
        """What became of a request of ours."""
        with self._contained(now):
            if request.method == "INVITE" and self._is_first(request):
                self._invited(outcome, now)
            elif request.method == "INVITE":
                self._reinvited(request, outcome, now)
            elif not (isinstance(outcome, Heard) and outcome.response.status < 200):
                self._requested(request, outcome, now)

    # -- bugs ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _contained(self, now: float) -> Iterator[None]:
        """Every way into the call: a bug of ours in here ends this call, and no other."""
        try:
            yield
            self.timer.follow(now)
            self._book()
        except Exception:  # noqa: BLE001 - reported in full, and contained
            self._layer.report_bug(f"call {self.leg.name}")
            self._fail(now)

    def _fail(self, now: float) -> None:
        """End the call as the protocol wants it; if that fails as well, forget it."""
        try:
            self._layer.fail_requests(self._keys, now)
            self.step(CallTrigger.FAULT, "internal error", now)
            self._book()
        except Exception:  # noqa: BLE001 - reported in full, and contained
            self._layer.report_bug(f"the end of call {self.leg.name}")
            self._drop()
        if self._machine.done:
            self._drop()
        self.leg.emit(CallLost(self.leg.name, "internal error"))

    def _drop(self) -> None:
        self._leave()
        self._directory.forget(self)
        self._layer.schedule.cancel(self)

    def _leave(self) -> None:
        """Nothing of the peer's reaches the call any more."""
        for key in self._keys:
            self._directory.dialogs.pop(key, None)
        self._keys.clear()

    # -- steps --------------------------------------------------------------------------------------------------------

    def step(self, trigger: CallTrigger, cause: Cause, now: float) -> None:
        """Take one step and do what its row says."""
        for action in self._machine.step(trigger, now, cause):
            self._actions[action](cause, now)

    def _decide(self, wish: OfferAnswer, now: float) -> None:
        """Take the session's word on an offer of the peer's."""
        self.offers.wish(wish, now)

    def _own_wish(self, wish: Wish, now: float) -> None:
        """Take a wish that only one side knows."""

    def _own_actions(self) -> Mapping[CallAction, Action]:
        return {}

    def _is_first(self, _request: Request) -> bool:
        """Whether an INVITE of ours makes the call. Its To tag does not tell: an RFC 2543 peer may have none."""
        return False

    def _invited(self, outcome: Outcome, now: float) -> None:
        """What became of the first INVITE."""

    def _shared_actions(self) -> Mapping[CallAction, Action]:
        return {
            CallAction.SEND_BYE: self._send_bye,
            CallAction.ANSWER_BYE: self._answer_bye,
            CallAction.CLOSE: self._close,
            CallAction.FORGET: self._forget,
            CallAction.REPORT_BYE: self._report_bye,
            CallAction.REPORT_LOST: self._report_lost,
        }

    def _send_bye(self, cause: Cause, now: float) -> None:
        self.referrals.ending(now)
        self._end_exchanges(now)
        if isinstance(cause, str) and not self._bye_lines:  # nobody wished for it
            self._bye_lines = (q850_reason(RECOVERY), sip_reason(408, cause))
        if self.leg.request("BYE", self, now, lines=self._bye_lines) is None:
            self.step(CallTrigger.BYE_ANSWERED, None, now)

    def _answer_bye(self, cause: Cause, now: float) -> None:
        if isinstance(cause, ServerTransaction):
            self._layer.respond(cause, 200, now)

    def _close(self, _cause: Cause, now: float) -> None:
        self._end_exchanges(now)
        if not self._is_expecting():
            self._leave()

    def _is_expecting(self) -> bool:
        """Whether a request of the peer's may still come that is owed more than 481."""
        return False

    def _forget(self, _cause: Cause, _now: float) -> None:
        self._leave()
        self._directory.forget(self)
        self._layer.schedule.cancel(self)

    def _report_bye(self, cause: Cause, _now: float) -> None:
        if isinstance(cause, ServerTransaction):
            bye = cause.request
            reasons, passed = parse_reasons(bye.all("Reason")), self._layer.config.pass_headers.of(bye)
            self.leg.emit(ByeReceived(self.leg.name, reasons, passed))

    def _report_lost(self, cause: Cause, _now: float) -> None:
        self.leg.emit(CallLost(self.leg.name, cause if isinstance(cause, str) else "the dialog is gone"))

    def _end_exchanges(self, now: float) -> None:
        """The conversation is over: no more offers, no more copies of a 2xx."""
        self._directory.retire(self)
        self.referrals.gone(now)
        heir, self.successor = self.successor, None
        if heir is not None:
            heir.orphaned(now)
        self.offers.step(OfferTrigger.CALL_ENDED, None, now)
        self.timer.stop(now)
        if self.leg.ack_wait is not None:
            self.leg.ack_wait.step(PendingAckTrigger.CALL_ENDED, now)

    def _enter_dialog(self, dialog: Dialog) -> None:
        self._directory.dialogs[dialog.key] = (self, dialog)
        self._keys.add(dialog.key)

    def _leave_dialog(self, dialog: Dialog) -> None:
        self._directory.dialogs.pop(dialog.key, None)
        self._keys.discard(dialog.key)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _bye(self, transaction: ServerTransaction, _dialog: Dialog, now: float) -> None:
        self.step(CallTrigger.BYE, transaction, now)
        if transaction.final is None:  # no row: the call is over already
            self._layer.respond(transaction, 481, now)

    def _reinvite(self, transaction: ServerTransaction, dialog: Dialog, now: float) -> None:
        self._layer.respond(transaction, 100, now)
        if self.state is CallState.CONFIRMED:
            self.offers.asked(OfferTrigger.REMOTE_OFFER, transaction, dialog, now)
        else:
            self.offers.untimely(transaction, now)

    def _update(self, transaction: ServerTransaction, dialog: Dialog, now: float) -> None:
        if transaction.request.body:
            self.offers.asked(OfferTrigger.REMOTE_UPDATE, transaction, dialog, now)
            return
        dialog.refresh(transaction.request, transaction.source)
        lines = self.leg.refreshed(transaction.request)
        self._layer.respond(transaction, 200, now, contact=self.leg.contact, lines=lines)

    def _prack(self, transaction: ServerTransaction, _dialog: Dialog, now: float) -> None:
        """A PRACK; only the called side has anything to be acknowledged (RFC 3262 3)."""
        self._layer.respond(transaction, 481, now)

    def _info(self, transaction: ServerTransaction, now: float) -> None:
        request = transaction.request
        if not request.body:  # RFC 2976 2.2: says only that the peer is alive
            self._layer.respond(transaction, 200, now)
            return
        try:
            digit = parse_digit(request.content_type or "", request.body)
        except RemoteError as error:
            lines = (("Accept", f"{DTMF_RELAY}, {DTMF}"),) if error.reply == 415 else ()
            self._layer.respond(transaction, error.reply, now, lines=lines)
            return
        self._layer.respond(transaction, 200, now)
        self.leg.emit(DigitReceived(self.leg.name, digit))

    def _referral(self, transaction: ServerTransaction, dialog: Dialog, now: float) -> None:
        """A REFER or NOTIFY: both refresh the target (RFC 3515 2.2, RFC 6665 4.4.1), and live in answered calls."""
        if self.state not in {CallState.ANSWERED, CallState.CONFIRMED}:
            self._layer.respond(transaction, 403 if transaction.request.method == "REFER" else 481, now)
            return
        dialog.refresh(transaction.request, transaction.source)
        self.referrals.serve(transaction, now)

    def _refer(self, wish: SendRefer | ReportReferral, now: float) -> None:
        if self.state in {CallState.ANSWERED, CallState.CONFIRMED}:
            self.referrals.wish(wish, now)
        elif isinstance(wish, SendRefer):
            self.leg.emit(ReferEnded(self.leg.name, 481, "the call is not answered"))

    def _send_digit(self, wish: SendDigit, now: float) -> None:
        if self.state in {CallState.ANSWERED, CallState.CONFIRMED}:
            body = encode_digit(wish.digit, wish.duration)
            self.leg.request("INFO", self, now, lines=(("Content-Type", DTMF_RELAY),), body=body)
        else:
            self.leg.emit(DigitSent(self.leg.name, wish.digit, 481, "the call is not answered"))

    def _reinvited(self, request: Request, outcome: Outcome, now: float) -> None:
        status, _ = status_of(outcome)
        dialog = self.leg.dialog
        if isinstance(outcome, Heard) and 200 <= status < 300 and dialog is not None:
            dialog.refresh(outcome.response, outcome.source)
            self.leg.acknowledge(request, dialog, now)
        self.offers.heard(request, outcome, now)
        self.timer.heard(request, outcome, now)
        self._check_lost(status, "re-INVITE", now)

    def _requested(self, request: Request, outcome: Outcome, now: float) -> None:
        """The final outcome of a request of ours that is no INVITE."""
        if request.method in {"REFER", "NOTIFY"}:
            self.referrals.heard(request, outcome, now)
        elif isinstance(outcome, Heard) and self.leg.challenged(outcome.response):
            self.leg.again(request, self, now, within=self._dialog_of(request))
        elif request.method == "PRACK":
            return  # one that failed ends nothing: the INVITE's own outcome is what counts
        elif request.method == "BYE":
            self.step(CallTrigger.BYE_ANSWERED, outcome, now)
        else:
            status, reason = status_of(outcome)
            if request.method == "UPDATE":
                self._updated(request, outcome, now)
            if request.method == "INFO":
                digit = parse_digit(DTMF_RELAY, request.body)
                self.leg.emit(DigitSent(self.leg.name, digit, status, reason))
            if self._dialog_of(request) is self.leg.dialog:
                self._check_lost(status, request.method, now)

    def _updated(self, request: Request, outcome: Outcome, now: float) -> None:
        """What an UPDATE of ours came to; a 2xx may move the peer (RFC 3311 5.3)."""
        dialog = self._dialog_of(request)
        if isinstance(outcome, Heard) and outcome.response.status < 300 and dialog is not None:
            dialog.refresh(outcome.response, outcome.source)
        self.timer.heard(request, outcome, now)
        self.offers.heard(request, outcome, now)

    def session_expired(self, now: float) -> None:
        """End the call: nobody has refreshed the session in time."""
        self.step(CallTrigger.DIALOG_LOST, "the session expired without a refresh", now)

    def _open_dialog(self) -> Dialog | None:
        """The dialog that we may offer another session in; None while we may not."""
        return self.leg.dialog if self.state is CallState.CONFIRMED else None

    def _dialog_of(self, _request: Request) -> Dialog | None:
        """The dialog that a request of ours is in."""
        return self.leg.dialog

    def _check_lost(self, status: int, method: str, now: float) -> None:
        if status in {408, 481}:  # 12.2.1.2
            self.step(CallTrigger.DIALOG_LOST, f"{status} to our {method}", now)

    def _ack_effects(self, effects: list[Send | PendingAckAction], ack: Request | None, now: float) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._layer.send(effect)
            elif effect is PendingAckAction.REPORT_ACK and ack is not None:
                self.step(CallTrigger.ACK, ack, now)
                self.offers.acked(ack, now)
            else:
                self.step(CallTrigger.ACK_LOST, "no ACK for our 200", now)
                self.step(CallTrigger.DIALOG_LOST, "no ACK for our 200 to a re-INVITE", now)

    def _book(self) -> None:
        if not self._machine.done:
            self._layer.schedule.book(self, self)

    def _duration(self, trigger: CallTrigger) -> float:
        return self._layer.config.timing.fixed[trigger.name]
