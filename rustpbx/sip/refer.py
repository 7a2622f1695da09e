"""Transfers within a call: the peer's REFER, of which we tell what became (RFC 3515), and our own."""

from __future__ import annotations

from operator import attrgetter

from rustpbx.core import NEVER, Deadline
from rustpbx.errors import RemoteError
from rustpbx.machine import Machine
from rustpbx.sip.delivery import Delivery, Owner
from rustpbx.sip.encoder import name_addr
from rustpbx.sip.events import ReferEnded, ReferProgress, ReferReceived, ReportReferral, SendRefer
from rustpbx.sip.leg import Leg
from rustpbx.sip.message import Lines, Request
from rustpbx.sip.sipfrag import SIPFRAG, SIPFRAG_TYPE, Notice, Referral, fragment, parse_notice, parse_refer
from rustpbx.sip.tables import (
    REFERRED,
    REFERRING,
    Referred,
    ReferredAction,
    ReferredTrigger,
    Referring,
    ReferringAction,
    ReferringTrigger,
)
from rustpbx.sip.transaction import Failed, Heard, Outcome, ServerTransaction, status_of
from rustpbx.sip.wording import cause as cause_words

EXPIRES = 120.0
"""Seconds for which the peer is told what becomes of its REFER; then it is declined."""

Cause = ServerTransaction | ReportReferral | SendRefer | Notice | Heard | Failed | None

_AT = attrgetter("at")


class Referrals:
    """The transfers of one call. `owner` is told the outcome of our REFER and NOTIFYs and hands them to `heard`."""

    def __init__(self, leg: Leg, owner: Owner) -> None:
        self._referred: _Referred | None = None
        self._referring: _Referring | None = None
        self._count = 0
        self._leg = leg
        self._owner = owner

    def deadline(self) -> Deadline:
        """When the next timer runs out."""
        return min((part.machine.deadline() for part in self._parts()), key=_AT, default=NEVER)

    def wake(self, now: float) -> None:
        """Take the timers that have run out."""
        for part in self._parts():
            part.wake(now)

    def _parts(self) -> list[_Referred | _Referring]:
        return [part for part in (self._referred, self._referring) if part is not None]

    def serve(self, transaction: ServerTransaction, now: float) -> None:
        """Take a REFER or a NOTIFY of the peer's, in a dialog that is up."""
        try:
            if transaction.request.method == "REFER":
                self._refer(transaction, parse_refer(transaction.request), now)
            else:
                self._notify(transaction, parse_notice(transaction.request), now)
        except RemoteError as error:
            lines = {489: (("Allow-Events", "refer"),), 415: (("Accept", SIPFRAG),)}.get(error.reply, ())
            self._leg.layer.respond(transaction, error.reply, now, lines=lines)

    def _refer(self, transaction: ServerTransaction, referral: Referral, now: float) -> None:
        """One transfer at a time: 491 until the one before is over."""
        if self._referred is not None and self._referred.machine.state is Referred.ACTIVE:
            self._leg.layer.respond(transaction, 491, now)
            return
        if not referral.subscribes:  # RFC 4488 4: nobody wants to know
            lines = (("Refer-Sub", "false"),)
            self._leg.layer.respond(transaction, 202, now, contact=self._leg.contact, lines=lines)
            self._leg.emit(ReferReceived(self._leg.name, referral))
            return
        self._count += 1
        event = "refer" if self._count == 1 else f"refer;id={transaction.request.cseq.number}"  # RFC 3515 2.4.6
        self._referred = _Referred(self._leg, self._owner, referral, event)
        self._referred.step(ReferredTrigger.TAKE, transaction, now)

    def _notify(self, transaction: ServerTransaction, notice: Notice, now: float) -> None:
        referring = self._referring
        if referring is None or not referring.concerns(notice):
            self._leg.layer.respond(transaction, 481, now)  # RFC 6665 4.1.3
            return
        self._leg.layer.respond(transaction, 200, now)
        referring.step(classify(notice), notice, now)

    def wish(self, wish: SendRefer | ReportReferral, now: float) -> None:
        """Take a wish of the session's."""
        if isinstance(wish, ReportReferral):
            if self._referred is not None:
                final = wish.status >= 200
                self._referred.step(ReferredTrigger.RESULT if final else ReferredTrigger.PROGRESS, wish, now)
        elif self._referring is not None and not self._referring.machine.done:
            self._leg.emit(ReferEnded(self._leg.name, 491, "Request Pending"))
        else:
            self._referring = _Referring(self._leg, self._owner, wish)
            self._referring.step(ReferringTrigger.ASK, wish, now)

    def heard(self, request: Request, outcome: Outcome, now: float) -> None:
        """What became of a REFER or NOTIFY of ours; it is final."""
        part = self._referring if request.method == "REFER" else self._referred
        if part is not None and part.sent(request):
            part.heard(outcome, now)

    def ending(self, now: float) -> None:
        """Our BYE follows."""
        if self._referred is not None:
            self._referred.step(ReferredTrigger.CALL_ENDING, None, now)
        self._end(now)

    def gone(self, now: float) -> None:
        """The call is over."""
        if self._referred is not None:
            self._referred.step(ReferredTrigger.CALL_GONE, None, now)
        self._end(now)

    def _end(self, now: float) -> None:
        if self._referring is not None:
            self._referring.step(ReferringTrigger.CALL_GONE, None, now)


class _Referred:
    """One REFER of the peer's."""

    def __init__(self, leg: Leg, owner: Owner, referral: Referral, event: str) -> None:
        self._leg = leg
        self._owner = owner
        self._referral = referral
        self._event = event
        self._last: Delivery | None = None
        self._begun = 0.0
        self.machine = Machine[Referred, ReferredTrigger, ReferredAction](
            REFERRED, self._duration, call=leg.name, words=cause_words
        )

    def step(self, trigger: ReferredTrigger, cause: Cause, now: float) -> None:
        for action in self.machine.step(trigger, now, cause):
            self._act(action, cause, now)

    def wake(self, now: float) -> None:
        for trigger in self.machine.fired(now):
            self.step(trigger, None, now)

    def sent(self, request: Request) -> bool:
        """Whether this is the newest NOTIFY; what becomes of earlier ones says nothing any more."""
        return self._last is not None and request.cseq == self._last.request.cseq

    def heard(self, outcome: Outcome, now: float) -> None:
        if isinstance(outcome, Heard) and self._last is not None and self._leg.challenged(outcome.response):
            self._last = self._leg.again(self._last.request, self._owner, now)
            return
        taken = 200 <= status_of(outcome)[0] < 300
        self.step(ReferredTrigger.NOTIFIED if taken else ReferredTrigger.REFUSED, outcome, now)

    def _act(self, action: ReferredAction, cause: Cause, now: float) -> None:
        match action:
            case ReferredAction.ACCEPT:
                self._begun = now
                if isinstance(cause, ServerTransaction):
                    self._leg.layer.respond(cause, 202, now, contact=self._leg.contact)
            case ReferredAction.REPORT_REFER:
                self._leg.emit(ReferReceived(self._leg.name, self._referral))
            case ReferredAction.TELL_TRYING:
                self._tell(100, "", self._active(now), now)
            case ReferredAction.TELL_PROGRESS if isinstance(cause, ReportReferral):
                self._tell(cause.status, cause.reason, self._active(now), now)
            case ReferredAction.TELL_RESULT if isinstance(cause, ReportReferral):
                self._tell(cause.status, cause.reason, "terminated;reason=noresource", now)
            case ReferredAction.TELL_DECLINED:
                self._tell(603, "", "terminated;reason=noresource", now)
            case _:
                self._tell(603, "", "terminated;reason=timeout", now)

    def _active(self, now: float) -> str:
        return f"active;expires={max(1, round(self._begun + EXPIRES - now))}"

    def _tell(self, status: int, reason: str, state: str, now: float) -> None:
        lines = (("Event", self._event), ("Subscription-State", state), SIPFRAG_TYPE)
        body = fragment(status, reason)
        self._last = self._leg.request("NOTIFY", self._owner, now, contact=True, lines=lines, body=body)

    def _duration(self, timer: ReferredTrigger) -> float:
        return EXPIRES if timer is ReferredTrigger.EXPIRES else self._leg.layer.config.timing.limit


class _Referring:
    """One REFER of ours."""

    def __init__(self, leg: Leg, owner: Owner, wish: SendRefer) -> None:
        self._leg = leg
        self._owner = owner
        self._wish = wish
        self._refer: Delivery | None = None
        self._numbers: set[int] = set()
        self.machine = Machine[Referring, ReferringTrigger, ReferringAction](
            REFERRING, self._duration, call=leg.name, words=cause_words
        )

    def step(self, trigger: ReferringTrigger, cause: Cause, now: float) -> None:
        for action in self.machine.step(trigger, now, cause):
            self._act(action, cause, now)

    def wake(self, now: float) -> None:
        for trigger in self.machine.fired(now):
            self.step(trigger, None, now)

    def sent(self, request: Request) -> bool:
        return self._refer is not None and request.cseq == self._refer.request.cseq

    def concerns(self, notice: Notice) -> bool:
        """Whether a NOTIFY is about this REFER, and still wanted."""
        return self.machine.state is not Referring.GIVEN_UP and notice.number in {None, *self._numbers}

    def heard(self, outcome: Outcome, now: float) -> None:
        status = status_of(outcome)[0]
        if isinstance(outcome, Heard) and self._leg.challenged(outcome.response):
            trigger = ReferringTrigger.CHALLENGE
        else:
            trigger = ReferringTrigger.ACCEPTED if 200 <= status < 300 else ReferringTrigger.REFUSED
        self.step(trigger, outcome, now)

    def _act(self, action: ReferringAction, cause: Cause, now: float) -> None:
        match action:
            case ReferringAction.SEND_REFER:
                self._sent(self._leg.request("REFER", self._owner, now, contact=True, lines=self._lines()))
            case ReferringAction.AUTHORIZE if self._refer is not None:
                self._sent(self._leg.again(self._refer.request, self._owner, now))
            case ReferringAction.REPORT_ACCEPTED if isinstance(cause, Heard):
                self._leg.emit(ReferProgress(self._leg.name, *status_of(cause)))
            case ReferringAction.REPORT_REFUSED if isinstance(cause, Heard | Failed):
                self._leg.emit(ReferEnded(self._leg.name, *status_of(cause)))
            case ReferringAction.REPORT_PROGRESS if isinstance(cause, Notice):
                self._leg.emit(ReferProgress(self._leg.name, cause.status or 100, cause.reason))
            case ReferringAction.REPORT_RESULT if isinstance(cause, Notice):
                self._leg.emit(ReferEnded(self._leg.name, cause.status or 500, cause.reason))
            case ReferringAction.REPORT_UNKNOWN:
                self._leg.emit(ReferEnded(self._leg.name, 480, "the far end does not say what became of it"))
            case _:
                self._leg.emit(ReferEnded(self._leg.name, 408, "the far end says nothing of it"))

    def _sent(self, refer: Delivery | None) -> None:
        self._refer = refer
        if refer is not None:
            self._numbers.add(refer.request.cseq.number)

    def _lines(self) -> Lines:
        wish = self._wish
        by: Lines = () if wish.referred_by is None else (("Referred-By", name_addr(wish.referred_by)),)
        return (("Refer-To", name_addr(wish.target)), *by, *wish.headers)

    def _duration(self, timer: ReferringTrigger) -> float:
        return self._wish.limit if timer is ReferringTrigger.RESULT_LIMIT else self._leg.layer.config.timing.limit


def classify(notice: Notice) -> ReferringTrigger:
    """What a NOTIFY means for the REFER that it is about."""
    match notice:
        case Notice(status=int(status)) if 200 <= status < 300:
            return ReferringTrigger.SUCCESS
        case Notice(status=int(status)) if status >= 300:
            return ReferringTrigger.FAILURE
        case Notice(last=True):
            return ReferringTrigger.SUBSCRIPTION_ENDED
        case _:
            return ReferringTrigger.PROGRESS
