"""A transfer by a second call of ours: the remote party hears music, then the target ring, then the target.

A sans-IO core below the call. It has a SIP leg and a media leg of its own, both under the name `leg`; on the wire it is
the server-side track. However it ends, its leg is hung up and closed. While it lasts nothing else is played.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from rustpbx.core import Deadline, Tick
from rustpbx.errors import MediaError, RemoteError
from rustpbx.machine import Machine
from rustpbx.media import events as media
from rustpbx.session import effects
from rustpbx.session.agreement import Agreement, answer_offer
from rustpbx.session.dialling import Dialling
from rustpbx.session.effects import Input, Tell
from rustpbx.session.ending import Ending
from rustpbx.session.options import ReferOption
from rustpbx.session.params import ReferLeg
from rustpbx.session.parting import parting_of
from rustpbx.session.playback import Output, ServerTrack, TransferOver
from rustpbx.session.reporting import Reporter
from rustpbx.session.tables import TRANSFER, TransferTrigger
from rustpbx.session.tables import Transfer as State
from rustpbx.session.wording import cause as cause_words
from rustpbx.sip import events as sip

if TYPE_CHECKING:
    from rustpbx.session.call import CallConfig

ANSWER_TIME = 30
"""Seconds that the target has to answer, unless the option says it."""
PASSED_KEY, PASSED_GAP = 160, 80
"""Milliseconds of a key that is passed on, and of the silence behind it."""

_UNREACHABLE, _FAILED, _TIMEOUT, _UNUSABLE = 503, 500, 408, 488


class Transfer:
    """One transfer. Inputs are the facts of its leg; outputs are effects, and `TransferOver` for the call.

    `codec` is what the call's own leg speaks: the target is offered it first, so that audio can pass as it is.
    """

    def __init__(
        self,
        leg: str,
        dialling: Dialling,
        options: ReferOption,
        *,
        config: CallConfig,
        report: Reporter,
        track: ServerTrack,
        sdp_id: int,
        codec: media.Codec | None,
    ) -> None:
        self.leg = leg
        self._dialling = dialling
        self._options = options
        self._config = config
        self._report = report
        self._track = track
        self._sdp_id = sdp_id
        self._codec = codec
        self._machine = Machine(TRANSFER, self._duration, "transfer", call=config.session_id, words=cause_words)
        self._agreement: Agreement | None = None
        self._delayed_answer = b""
        self._problem = ""
        self._joined = False  # the remote party hears the target
        self._out: list[Output] = []
        report.parties(dialling.caller.uri, dialling.callee)

    # -- the core's members -----------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it has the server-side track."""
        return not self._machine.done

    @property
    def summary(self) -> ReferLeg:
        """How far its leg has come."""
        report = self._report
        caller, callee = report.addresses
        return ReferLeg(
            leg=self.leg,
            caller=caller,
            callee=callee,
            started_at=report.started_at,
            rang_at=report.rang_at,
            answered_at=report.answered_at,
        )

    @property
    def bridged(self) -> bool:
        """Whether both parties hear each other."""
        return self._machine.state is State.BRIDGED

    @property
    def private(self) -> bool:
        """Whether what the remote party says is for the target alone."""
        return self.bridged and self._options.pause_parent_asr

    def start(self, now: float) -> list[Output]:
        """Begin."""
        return self._step(TransferTrigger.START, None, now)

    def handle(self, what: Input, now: float) -> list[Output]:
        """Take a fact of this leg; one that means nothing here changes nothing."""
        classify = self._CLASSIFIERS.get(type(what))
        if classify is not None:
            trigger = classify if isinstance(classify, TransferTrigger) else classify(self, what)
            return [] if trigger is None else self._step(trigger, what, now)
        if not self.alive:
            return []
        match what:
            case effects.KeyFailed() | effects.ListeningFailed() | media.DenoiseFailed():
                return self._trouble(what, now)
            case sip.ReferReceived():  # who is transferred to us by a transfer has no agent to decide it
                return [sip.ReportReferral(self.leg, 603, "Decline")]
        return []

    def abandon(self, now: float) -> list[Output]:
        """The call ends: hang up, and give the track back."""
        return self._step(TransferTrigger.ABANDON, None, now)

    def press(self, digit: str) -> list[Output]:
        """The remote party pressed a key: the target's phone gets it."""
        if not self.bridged or self._agreement is None or self._agreement.format is None:
            return []
        if self._agreement.format.send_dtmf_pt is None:
            return [sip.SendDigit(self.leg, digit, PASSED_KEY)]
        return [effects.PressKey(digit, PASSED_KEY, PASSED_GAP, leg=self.leg)]

    def tick(self, now: float) -> list[Output]:
        """Let time pass."""
        return [output for timer in list(self._machine.fired(now)) for output in self._step(timer, Tick(), now)]

    def deadline(self) -> Deadline:
        """When to tick next."""
        return self._machine.deadline()

    # -- classification ---------------------------------------------------------------------------------------------

    def _classify_answer(self, fact: sip.CallAnswered) -> TransferTrigger:
        if self._agreement is None:
            return TransferTrigger.ANSWERED_UNUSABLE
        kept = fact.early and self._agreement.format is not None
        fits = self._can_answer(fact.body) if fact.offered else kept or self._fits(fact.body)
        return TransferTrigger.ANSWERED if fits else TransferTrigger.ANSWERED_UNUSABLE

    def _classify_refresh(self, fact: sip.RefreshAnswered) -> TransferTrigger | None:
        return TransferTrigger.AGREED if self._fits(fact.body, refresh=True) else None

    def _fits(self, answer: bytes, *, refresh: bool = False) -> bool:
        """Take an SDP answer if it is one."""
        if self._agreement is None or not answer:
            return False
        try:
            _ = self._agreement.reaffirm(answer) if refresh else self._agreement.accept(answer)
        except (MediaError, RemoteError) as problem:
            self._problem = str(problem)
            return False
        return True

    def _can_answer(self, offer: bytes) -> bool:
        """Answer a delayed offer if that is possible."""
        assert self._agreement is not None  # noqa: S101 - made with our INVITE
        try:
            self._delayed_answer, _ = self._agreement.answer(offer)
        except (MediaError, RemoteError) as problem:
            self._problem = str(problem)
            return False
        return True

    # -- stepping ---------------------------------------------------------------------------------------------------

    def _duration(self, _: TransferTrigger) -> float:
        return float(self._options.timeout or ANSWER_TIME)

    def _step(self, trigger: TransferTrigger, cause: Input | Tick | None, now: float) -> list[Output]:
        for action in self._machine.step(trigger, now, cause):
            getattr(self, f"_{action.name.lower()}")(cause, now)
        if self._machine.done:
            self._config.release_leg(self.leg)
        out, self._out = self._out, []
        return out

    def _clear_track(self, _: None, now: float) -> None:
        if self._options.moh:
            self._out += self._track.ring(self._options.moh, now)
        else:
            self._out += self._track.clear(now)

    def _prepare_dial(self, _: None, __: float) -> None:
        self._out.append(effects.PrepareDial(self._dialling.caller.uri, self._dialling.callee, self.leg))

    def _send_invite(self, ready: effects.LegReady, _: float) -> None:
        config, dialling = self._config, self._dialling
        srtp = config.srtp.outgoing(dialling.caller.uri, dialling.callee, dialling.srtp)
        rules = config.codecs.preferring(self._codec)
        self._agreement = Agreement(
            ready.host, ready.port, ready.ssrc, self._sdp_id, srtp, sip_port=config.sip_port, codecs=rules
        )
        self._report.ssrc = ready.ssrc
        if self._options.denoise:
            self._out.append(effects.Denoise(self.leg))
        if self._options.asr is not None and not self._options.asr.start_when_answer:
            self._listen()
        offer = b"" if dialling.delayed_offer else self._agreement.offer()
        self._out.append(dialling.invite(self.leg, ready.host, offer))

    def _apply_early_sdp(self, cause: sip.CallProgress, now: float) -> None:
        if cause.body and self._fits(cause.body):
            self._apply_sdp(cause, now)
            if not self._joined:
                self._joined = True
                self._stop_music(cause, now)
                self._out.append(effects.JoinLeg(self.leg, both=False))

    def _apply_sdp(self, cause: Input, _: float) -> None:
        assert self._agreement is not None  # noqa: S101
        assert self._agreement.format is not None  # noqa: S101 - classification has found that it fits
        self._out.append(effects.SetRemote(self._agreement.format, self.leg))
        if isinstance(cause, sip.CallAnswered) and cause.offered:
            self._out.append(sip.AcceptOffer(self.leg, self._delayed_answer))

    def _answer_offer(self, cause: sip.OfferReceived, _: float) -> None:
        assert self._agreement is not None  # noqa: S101 - the INVITE is out
        wish, agreed = answer_offer(self._agreement, cause)
        if agreed is not None:
            self._out.append(effects.SetRemote(agreed, self.leg))
        self._out.append(wish)

    def _stop_music(self, _: Input | Tick, now: float) -> None:
        self._out += self._track.retire_ringtone(now)

    def _join(self, _: Input, __: float) -> None:
        self._joined = True
        self._out.append(effects.JoinLeg(self.leg, both=True))

    def _listen(self) -> None:
        if self._options.asr is not None:
            self._out.append(effects.Listen(self._options.asr, self.leg))

    def _hang_up(self, cause: Input | Tick | None, _: float) -> None:
        q850 = 19 if isinstance(cause, Tick) else 65 if isinstance(cause, sip.CallAnswered) else 16
        self._out.append(sip.HangUp(self.leg, cause=q850))

    def _close_leg(self, _: Input | Tick | None, __: float) -> None:
        self._out.append(effects.CloseLeg(self.leg))

    def _end_call(self, _: Input, __: float) -> None:
        if self._options.auto_hangup:
            self._out.append(TransferOver())

    # -- events -----------------------------------------------------------------------------------------------------

    def _tell_ringing(self, cause: sip.CallProgress, now: float) -> None:
        self._out.append(Tell(self._report.ringing(early_media=bool(cause.body), now=now)))

    def _tell_answer(self, cause: sip.CallAnswered, now: float) -> None:
        assert self._agreement is not None  # noqa: S101
        sdp = self._agreement.sdp if cause.offered else self._agreement.theirs
        self._out.append(Tell(self._report.track_start(self._report.ssrc, now)))
        self._out.extend(map(Tell, self._report.answer(sdp, now, cause.passed)))
        if self._options.asr is not None and self._options.asr.start_when_answer:
            self._listen()

    def _tell_reject(self, cause: Input | Tick, now: float) -> None:
        self._report.note_parting(parting_of(cause))
        code, reason = _TIMEOUT, "Request Timeout"
        match cause:
            case sip.CallRefused():
                code, reason = cause.status, cause.reason
            case sip.CallAnswered():
                code, reason = _UNUSABLE, self._problem or "No answer received"
            case effects.LegUnusable():
                code, reason = cause.status, cause.problem
            case effects.SetupFailed():
                code, reason = _UNREACHABLE, cause.problem
            case media.LegFailed():
                code, reason = _FAILED, "Server Internal Error"
            case sip.ByeReceived() | sip.CallLost():
                code, reason = 480, "Temporarily Unavailable"
        self._out.append(Tell(self._report.reject(code, reason, now)))

    def _tell_track_end(self, _: Input | None, now: float) -> None:
        self._out.append(Tell(self._report.track_end(now)))

    def _tell_end(self, cause: Input, now: float) -> None:
        self._report.note_parting(parting_of(cause))
        ending = Ending("failed", "system")
        if isinstance(cause, sip.ByeReceived):
            ending = Ending("callee", "callee")
        elif isinstance(cause, media.MediaSilent):
            ending = Ending("inactivityTimeout", "system")
        self._tell_track_end(cause, now)
        self._out.append(Tell(self._report.hangup(ending, now)))

    def _trouble(
        self, fact: effects.KeyFailed | effects.ListeningFailed | media.DenoiseFailed, now: float
    ) -> list[Output]:
        match fact:
            case effects.ListeningFailed():
                return [*self._report.error(fact.sender, fact.problem, fact.code, now)]
            case media.DenoiseFailed():
                return [*self._report.error("denoise", f"denoise is not available: {fact.problem}", None, now)]
            case effects.KeyFailed():
                return [*self._report.error("dtmf", fact.problem, None, now)]

    _CLASSIFIERS: ClassVar[Mapping[type, TransferTrigger | Callable[[Transfer, Any], TransferTrigger | None]]] = {
        effects.LegReady: TransferTrigger.LEG_READY,
        effects.LegUnusable: TransferTrigger.LEG_UNUSABLE,
        effects.SetupFailed: TransferTrigger.LEG_UNUSABLE,
        sip.CallProgress: TransferTrigger.PROGRESS,
        sip.CallAnswered: _classify_answer,
        sip.CallRefused: TransferTrigger.REFUSED,
        sip.OfferReceived: TransferTrigger.OFFERED,
        sip.RefreshAnswered: _classify_refresh,
        sip.ByeReceived: TransferTrigger.BYE,
        sip.CallLost: TransferTrigger.LOST,
        media.LegFailed: TransferTrigger.LEG_FAILED,
        media.MediaSilent: TransferTrigger.MEDIA_SILENT,
    }
