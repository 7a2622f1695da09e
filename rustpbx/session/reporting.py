"""What a call remembers for its events: times, parties, and the errors that have to wait for the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rustpbx.masking import mask_media_keys
from rustpbx.media import events as media
from rustpbx.session import events
from rustpbx.session.effects import Tell
from rustpbx.session.ending import Ending
from rustpbx.session.parting import NOTHING_SAID, Parting, by_name
from rustpbx.sip import events as sip
from rustpbx.sip.cause import OF_STATUS
from rustpbx.sip.message import Lines, NameAddr
from rustpbx.sip.sipfrag import Referral
from rustpbx.sip.uri import Uri
from rustpbx.speech.base import Transcript

MAX_HELD_ERRORS = 20
"""Errors kept until the answer; the oldest say most, so later ones are dropped."""


class Reporter:
    """Makes the events of one call, or with `refer` those of a refer leg, whose id is then the server-side track's.

    Times it keeps are epoch milliseconds; methods take monotonic `now`.
    """

    def __init__(self, session_id: str, wall: Callable[[float], int], now: float, *, refer: bool = False) -> None:
        self._id = session_id
        self._refer = refer
        self._wall = wall
        self.started_at = wall(now)
        self.rang_at: int | None = None
        self.answered_at: int | None = None
        self.track_started_at: int | None = None
        self.extra: Mapping[str, str] | None = None
        self.problem = ""
        """Why the set-up failed, once it did."""
        self.status = 488
        """The SIP status that says so."""
        self.ssrc = 0
        """Of what we send on the leg."""
        self._parting = NOTHING_SAID
        self._from: events.Attendee | None = None
        self._to: events.Attendee | None = None
        self._held: list[events.ErrorEvent] = []

    @property
    def addresses(self) -> tuple[str, str]:
        """Caller and callee as SIP URIs, "" if unknown."""
        return (self._from.source if self._from else "", self._to.source if self._to else "")

    def parties(self, caller: Uri, callee: Uri) -> None:
        """Who talks to whom."""
        self._from, self._to = _attendee(caller), _attendee(callee)

    @property
    def session_id(self) -> str:
        """The session's id, which is also the session track's."""
        return self._id

    # -- the call ---------------------------------------------------------------------------------------------------

    def incoming(self, call: sip.IncomingCall, now: float) -> events.Incoming:
        """`incoming`, for an agent that has just attached."""
        caller, callee = self.addresses
        asserted = call.identity.asserted[0] if call.identity.asserted else None
        return events.Incoming(
            track_id=self._id,
            timestamp=self._wall(now),
            caller=caller,
            callee=callee,
            sdp=mask_media_keys(call.offer.decode("utf-8", "replace")),
            caller_name=call.caller.display_name or None,
            asserted_identity=str(asserted.uri.bare()) if asserted else None,
            asserted_name=(asserted.display_name or None) if asserted else None,
            privacy=";".join(call.identity.privacy) or None,
            headers=by_name(call.passed),
        )

    def ringing(self, *, early_media: bool, now: float) -> events.Ringing:
        """`ringing` of an outgoing call."""
        if self.rang_at is None:
            self.rang_at = self._wall(now)
        return events.Ringing(track_id=self._id, timestamp=self._wall(now), early_media=early_media, refer=self._refer)

    def answer(self, sdp: str, now: float, passed: Lines = ()) -> list[events.Answered | events.ErrorEvent]:
        """`answer`, then the errors that had to wait for it."""
        self.answered_at = self._wall(now)
        held, self._held = self._held, []
        answer = events.Answered(
            track_id=self._id,
            timestamp=self.answered_at,
            sdp=mask_media_keys(sdp),
            refer=self._refer,
            headers=by_name(passed),
        )
        return [answer, *held]

    def note_parting(self, parting: Parting) -> None:
        """What the far end said with the end of the call; it is in `reject` and `hangup`."""
        self._parting = parting

    def reject(self, code: int, reason: str, now: float) -> events.Rejected:
        """`reject`."""
        said = self._parting
        return events.Rejected(
            track_id=self._id,
            timestamp=self._wall(now),
            reason=reason,
            code=code,
            refer=self._refer,
            sip_code=said.code,
            sip_reason=said.reason,
            q850=said.q850,
            headers=said.headers,
        )

    def hangup(self, ending: Ending, now: float) -> events.HungUp:
        """`hangup`, the last event."""
        return events.HungUp(
            track_id=self._id,
            timestamp=self._wall(now),
            reason=ending.reason,
            initiator=ending.initiator,
            start_time=self.started_at,
            hangup_time=self._wall(now),
            ringing_time=self.rang_at,
            answer_time=self.answered_at,
            from_=self._from,
            to=self._to,
            extra=self.extra,
            refer=self._refer,
            sip_code=self._parting.code,
            sip_reason=self._parting.reason,
            q850=self._parting.q850,
            headers=self._parting.headers,
        )

    def track_start(self, ssrc: int, now: float) -> events.TrackStart:
        """The session track exists."""
        self.ssrc, self.track_started_at = ssrc, self._wall(now)
        return events.TrackStart(track_id=self._id, timestamp=self.track_started_at)

    def track_end(self, now: float) -> events.TrackEnd:
        """The session track is gone."""
        duration = max(0, self._wall(now) - (self.track_started_at or self._wall(now)))
        return events.TrackEnd(track_id=self._id, timestamp=self._wall(now), duration=duration, ssrc=self.ssrc)

    # -- transfers --------------------------------------------------------------------------------------------------

    def referred(self, referral: Referral, now: float) -> events.Other:
        """`other`: the far end wants us to call somebody else."""
        by, target = referral.referred_by, referral.target
        said = {
            "target": str(target.uri),
            "targetName": target.display_name,
            "referredBy": "" if by is None else str(by.uri),
            "replaces": referral.replaces,
        }
        return self._other({key: value for key, value in said.items() if value}, now)

    def transfer(self, status: int, reason: str, now: float) -> events.Other:
        """`other`: how far the transfer that we asked for has come."""
        return self._other({"status": str(status), "reason": reason}, now)

    def replaced(self, caller: NameAddr, now: float) -> events.Other:
        """`other`: somebody else has taken the far end's place."""
        said = {"caller": str(caller.uri.bare()), "callerName": caller.display_name}
        return self._other({key: value for key, value in said.items() if value}, now, "replaces")

    def _other(self, extra: Mapping[str, str], now: float, sender: str = "refer") -> events.Other:
        return events.Other(track_id=self._id, timestamp=self._wall(now), sender=sender, extra=extra)

    def transfer_refused(self, track_id: str, code: int, reason: str, now: float, *, told: bool) -> events.Rejected:
        """`reject` of a transfer: by the far end if it `told` so."""
        return events.Rejected(
            track_id=track_id,
            timestamp=self._wall(now),
            reason=reason,
            code=code,
            refer=True,
            sip_code=code if told else None,
            sip_reason=reason if told else None,
            q850=OF_STATUS.get(code) if told else None,
        )

    # -- errors -----------------------------------------------------------------------------------------------------

    def failure(self, sender: str, problem: str, now: float) -> events.ErrorEvent:
        """An `error` that goes out at once: the set-up itself failed."""
        return events.ErrorEvent(track_id=self._id, timestamp=self._wall(now), sender=sender, error=problem)

    def wall(self, now: float) -> int:
        """Epoch milliseconds of a moment."""
        return self._wall(now)

    def error(self, sender: str, problem: str, code: int | None, now: float) -> list[Tell]:
        """An `error` for an answered call; before the answer it is kept, because clients take it as the outcome."""
        return self.hold(
            events.ErrorEvent(track_id=self._id, timestamp=self._wall(now), sender=sender, error=problem, code=code)
        )

    def hold(self, event: events.ErrorEvent) -> list[Tell]:
        """Tell an `error` now, or after the answer."""
        if self.answered_at is not None:
            return [Tell(event)]
        if len(self._held) < MAX_HELD_ERRORS:
            self._held.append(event)
        return []

    # -- what was heard ---------------------------------------------------------------------------------------------

    def speaking(self, fact: media.SpeechStarted, now: float) -> events.Speaking:
        """`speaking`."""
        return events.Speaking(track_id=self._id, timestamp=self._wall(now), start_time=self._wall(fact.at))

    def silence(self, fact: media.SpeechEnded | media.SilenceContinues, now: float) -> events.Silence:
        """`silence`: when it began, and how long it has lasted."""
        since = fact.silence_at if isinstance(fact, media.SpeechEnded) else fact.since
        return events.Silence(
            track_id=self._id,
            timestamp=self._wall(now),
            start_time=self._wall(since),
            duration=max(0, round((fact.at - since) * 1000)),
        )

    def machine_detection(
        self, outcome: events.Outcome, began: float, ended: float, text: str, now: float
    ) -> events.AnswerMachineDetection:
        """`answerMachineDetection`."""
        return events.AnswerMachineDetection(
            track_id=self._id,
            timestamp=self._wall(now),
            start_time=self._wall(began),
            end_time=self._wall(ended),
            text=text,
            outcome=outcome,
        )

    def dtmf(self, digit: str, now: float) -> events.Dtmf:
        """`dtmf`."""
        return events.Dtmf(track_id=self._id, timestamp=self._wall(now), digit=digit)

    def transcript(
        self, heard: Transcript, now: float, track_id: str | None = None
    ) -> events.AsrDelta | events.AsrFinal:
        """`asrDelta` or `asrFinal`, of the session track or another."""
        kind = events.AsrFinal if heard.final else events.AsrDelta
        return kind(
            track_id=track_id or self._id,
            timestamp=self._wall(now),
            index=heard.index,
            start_time=self._wall(heard.started_at),
            end_time=self._wall(heard.ended_at),
            text=heard.text,
        )

    def asr_metric(self, key: str, provider: str, heard: Transcript, now: float) -> events.Metrics:
        """`ttfb.asr` or `completed.asr`: how long after the begin of an utterance its words came."""
        return events.Metrics(
            timestamp=self._wall(now),
            key=f"{key}.asr.{provider}",
            duration=max(0, round(1000 * (now - heard.started_at))),
            data={"index": heard.index},
        )

    def eou(self, now: float, *, complete: bool) -> events.Eou:
        """`eou`."""
        return events.Eou(track_id=self._id, timestamp=self._wall(now), completed=complete)

    # -- the rest ---------------------------------------------------------------------------------------------------

    def history(self, speaker: str, text: str, now: float) -> events.AddHistory:
        """`addHistory`."""
        return events.AddHistory(sender=self._id, timestamp=self._wall(now), speaker=speaker, text=text)

    def ping(self, payload: str, now: float) -> events.Ping:
        """`ping`."""
        return events.Ping(timestamp=self._wall(now), payload=payload)


def _attendee(uri: Uri) -> events.Attendee:
    return events.Attendee(username=uri.user or "", realm=uri.host, source=str(uri))
