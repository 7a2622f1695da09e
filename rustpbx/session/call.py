"""The call: one sans-IO core that decides everything about one session.

Inputs are commands of the agent, facts of SIP, media and speech, and ticks; effects are wishes and events. `handle`
turns an input into a trigger (all guards are there), looks the step up in `tables.CALL`, and runs one small method
per action. What changes no state (transcripts, key presses, playback commands) is the `Conversation`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeGuard

import attrs

from rustpbx.core import Deadline, Tick
from rustpbx.errors import MediaError, RemoteError
from rustpbx.machine import Machine
from rustpbx.media.events import MediaFormat
from rustpbx.media.sdp.crypto import SrtpPolicy
from rustpbx.media.sdp.formats import CodecRules
from rustpbx.media.sdp.parser import parse_sdp
from rustpbx.media.sdp.webrtc import PeerOffer, is_peer_offer
from rustpbx.media.webrtc import PeerLost, PeerReady, PeerSecured
from rustpbx.session import commands, effects, events
from rustpbx.session.agreement import G711, Agreement, answer_offer, check_offer
from rustpbx.session.conversation import Conversation
from rustpbx.session.dialling import DialError, Dialling, header_lines
from rustpbx.session.effects import Effect, Input
from rustpbx.session.ending import ENDINGS, SYSTEM, Ending, of_bye, of_hangup
from rustpbx.session.options import CallOption, CallType, RecorderOption, VadOption
from rustpbx.session.parting import parting_of
from rustpbx.session.peering import PEER_CODECS, PeerAgreement, late_candidates, read_offer
from rustpbx.session.playback import Drained, Output, ServerTrack
from rustpbx.session.processing import unavailable, vad_params
from rustpbx.session.protection import NO_SRTP, SrtpRules
from rustpbx.session.referring import Transfers
from rustpbx.session.refusing import refusal, rejection
from rustpbx.session.reporting import Reporter
from rustpbx.session.tables import (
    ATTACHMENT,
    CALL,
    Attachment,
    AttachmentAction,
    AttachmentTrigger,
    Call,
    CallTrigger,
)
from rustpbx.session.triggers import AGENT_TRIGGERS, TRIGGERS, AgentFact, Cause, Internal
from rustpbx.session.wording import cause as cause_words
from rustpbx.sip import events as sip
from rustpbx.sip.message import Lines
from rustpbx.sip.uri import Uri

PARTING_TIME = 0.2
"""Seconds between the last frame sent and our BYE: what a phone's jitter buffer may still hold."""
UPGRADE_TIME = 10.0
"""Seconds from the reservation of an id to the socket's upgrade."""
HANDSHAKE_TIME = 15
"""Seconds that the media of a browser or a stream may take, unless the option says it."""
PEER_MARGIN = 5.0
"""Seconds on top of those for a browser's leg, which knows best what takes too long."""
CLOSING_TIME = 1.0
"""Seconds that the counters of a cut playback may take."""
FLUSH_TIME = 2.0
"""Seconds that the words that were said last may take."""
_DEAF = frozenset({CallTrigger.AGENT_GONE, CallTrigger.KILLED, CallTrigger.BROKEN, CallTrigger.LEG_FAILED})
"""Ends in which nobody waits for them."""

_UP, _OVER = (Call.TALKING, Call.PARTING), (Call.ENDING, Call.ENDED)


@attrs.frozen(kw_only=True)
class CallConfig:
    """What a call takes from the server. Times in seconds; `address` is our own SIP address for calls without one.

    `default_voice` says whether a text can be spoken where no option names a provider. `admit` asks the dial policy
    for a call that the agent places: "" if it may be, else why not; `admit_transfer` for a blind transfer, `admit_leg`
    for one by a call of ours, named by its leg, which counts until `release_leg`. `srtp` says which calls are
    protected, `codecs` what they may be spoken in, `peer_codecs` those with browsers. `sip_port` is our own UDP port
    for SIP. `dtmf_inband` looks for keys in the audio of calls whose option does not say. `recorder` records those
    whose agent does not ask for it. `resume_grace` is how long the call waits for an agent whose socket was dropped;
    0: it does not.
    """

    session_id: str
    server_side_track: str
    call_type: CallType = CallType.SIP
    address: str
    accept_timeout: float = 60.0
    ring_timeout: float = 120.0
    default_voice: bool = True
    admit: Callable[[Uri], str] = lambda _: ""
    admit_transfer: Callable[[Uri], str] = lambda _: ""
    admit_leg: Callable[[str, Uri], str] = lambda _leg, _callee: ""
    release_leg: Callable[[str], None] = lambda _leg: None
    dtmf_inband: bool = False
    recorder: RecorderOption | None = None
    srtp: SrtpRules = NO_SRTP
    codecs: CodecRules = G711
    peer_codecs: CodecRules = PEER_CODECS
    sip_port: int = 0
    resume_grace: float = 0.0


class CallCore:
    """One call. `wall` turns monotonic seconds into epoch milliseconds; `sdp_id` is the SDP session id of its leg."""

    def __init__(self, config: CallConfig, wall: Callable[[float], int], sdp_id: int, now: float) -> None:
        self.config = config
        self.id = config.session_id
        self._wall = wall
        self._sdp_id = sdp_id
        self._machine = Machine(CALL, self._duration, "", call=self.id, words=cause_words)
        self.report = Reporter(self.id, wall, now)
        track = ServerTrack(config.server_side_track, wall, self.report.hold, call=self.id)
        transfers = Transfers(self.report, track, config, sdp_id)
        self.talk = Conversation(track, self.report, transfers, default_voice=config.default_voice)
        self.talk.keys.signalled = config.call_type is CallType.SIP
        self._incoming: sip.IncomingCall | None = None
        self._dialling: Dialling | None = None
        self._agreement: Agreement | PeerAgreement | None = None
        self._peer_offer: PeerOffer | None = None
        self._pending_offer = b""
        self._agent = Machine(ATTACHMENT, self._agent_duration, "agent", call=self.id, words=cause_words)
        self._listened = False  # once a call, whatever becomes of it
        self._listening = False
        self._leg_closed = False
        self._flushing = False  # the leg is closed, and what was said last is being transcribed
        self._wanted_ringtone: str | None = None
        self._recorder: RecorderOption | None = None
        self._recording = False
        self._status = 500
        self._answer_headers: Lines = ()
        self._delayed_answer = b""
        self._ending: Ending = SYSTEM
        self._goodbye: commands.Hangup | None = None  # what PARTING leads to, if the agent said so
        self._out: list[Effect] = []

    # -- the core's three members -----------------------------------------------------------------------------------

    def handle(self, what: Input | Tick, now: float) -> list[Effect]:
        """Take one input and return its effects, in order."""
        self.talk.track.cause = what
        if isinstance(what, Tick):
            for timer in list(self._machine.fired(now)):
                self._step(timer, what, now)
            for upgrade_timeout in list(self._agent.fired(now)):
                self._attach(upgrade_timeout, what, now)
            self._play(self.talk.track.tick(now), now)
            self._play(self.talk.keys.tick(now), now)
            self._play(self.talk.hearing.tick(now), now)
            self._play(self.talk.detector.tick(now), now)
            self._play(self.talk.transfers.tick(now), now)
        else:
            self._take(what, now)
        self._play(self.talk.drained(), now)
        if self._machine.state is Call.ENDING and not self.talk.track.busy and not self._flushing:
            self._step(CallTrigger.QUIET, what, now)
        out, self._out = self._out, []
        return out

    def deadline(self) -> Deadline:
        """The earliest timer of the call or its playback."""
        talk = self.talk
        parts = (talk.track, talk.keys, talk.hearing, talk.detector, talk.transfers)
        return min(self._machine.deadline(), self._agent.deadline(), *(part.deadline() for part in parts))

    @property
    def done(self) -> bool:
        """True once the last event has been told."""
        return self._machine.done

    @property
    def state(self) -> Call:
        """For listings and tests."""
        return self._machine.state

    @property
    def pending(self) -> bool:
        """Whether this is an incoming call that an agent may still claim."""
        return self._machine.state is Call.INCOMING

    @property
    def parked(self) -> bool:
        """Whether it waits for its agent to come back."""
        return self._agent.state is Attachment.PARKED

    @property
    def status(self) -> int:
        """The SIP status that a call which is over ended with; 500 for one that was neither answered nor refused."""
        return 200 if self.report.answered_at is not None else self._status

    @property
    def call_failed(self) -> bool:
        """Whether it ended for a reason that the server counts as a failure."""
        return self.done and self._ending.reason in ("failed", "serverUnavailable")

    def last_words(self, now: float) -> list[events.Event]:
        """What the agent must still be told if the core itself is at fault and cannot be asked any more."""
        if self.done:
            return []
        ends: list[events.Event] = [] if self.report.track_started_at is None else [self.report.track_end(now)]
        return [*ends, self.report.hangup(ENDINGS[CallTrigger.BROKEN], now)]

    def serve_as(self, server_side_track: str) -> None:
        """An agent claims the call and names its server-side track."""
        self.talk.track.track_id = server_side_track

    # -- classification ---------------------------------------------------------------------------------------------

    def _take(self, what: Input | Internal, now: float) -> None:
        if isinstance(what, effects.Killed | effects.AgentGone):
            self._flushing = False  # nobody waits for last words
        if self._take_aside(what, now):
            return
        trigger = self._classify(what)
        if trigger is not None and (self._machine.state, trigger) in CALL.rows:
            self._step(trigger, what, now)
        elif isinstance(what, AgentFact):
            self._attach(self._agent_trigger(what), what, now)
        elif isinstance(what, effects.PingSent):
            self._out.append(effects.Tell(self.report.ping(what.payload, now)))
        elif isinstance(what, commands.Candidate):
            self._trickle(what)
        elif isinstance(what, effects.ListeningEnded):
            self._listening = self._flushing = False
        elif self._is_misplaced(what):
            self._refuse_command(what, now)
        elif self._machine.state not in _OVER or isinstance(what, effects.TrackStopped | effects.Heard):
            self._play(self.talk.handle(what, now, ready=self._media_is_ready()), now)

    def _trickle(self, command: commands.Candidate) -> None:
        """Candidates that come after the offer; before it, or in a call of another kind, nobody waits for them."""
        known = self.config.call_type is CallType.WEBRTC and self._peer_offer is not None
        if known and self._machine.state not in _OVER:
            found = late_candidates(command.candidates, ipv6=self.talk.option.enable_ipv6)
            self._out.append(effects.TricklePeer(found))

    def _take_aside(self, what: Input | Internal, now: float) -> bool:
        """Take what is not for the call itself, or not yet: facts of refer legs, commands that wait."""
        if isinstance(what, Drained):
            self._go_on(what.command, now)
        elif not isinstance(what, Internal) and getattr(what, "leg", None) not in (None, self.id):
            self._play(self.talk.of_leg(what, now), now)
        elif isinstance(what, commands.Hangup | commands.Refer) and self._machine.state not in _OVER:
            waits = self.talk.draining.take(what, now)
            self._play(waits or (), now)
            return waits is not None
        else:
            return False
        return True

    def _go_on(self, command: commands.Hangup | commands.Refer, now: float) -> None:
        """The last word has left us: do what waited for it, a goodbye once the phone has played that word."""
        if isinstance(command, commands.Hangup) and self._machine.state in _UP:
            self._goodbye = command
            self._step(CallTrigger.DRAINED, command, now)
        else:
            self._take(attrs.evolve(command, after=None), now)

    def _is_misplaced(self, what: Input | Internal) -> TypeGuard[commands.Command]:
        """A command that is not possible here and whose agent should know; what the protocol ignores is not."""
        if self._machine.state in _OVER:
            return False
        late = self._machine.state is Call.PARTING and isinstance(what, commands.Tts | commands.Play)
        return late or isinstance(what, commands.Invite | commands.Accept | commands.Ring)

    def _media_is_ready(self) -> bool:
        """Whether playback may begin: answered, or early media for a caller that rings."""
        if self._machine.state is Call.RINGING:
            return self._agreement is not None
        return self._machine.state is Call.TALKING

    def _classify(self, what: Input | Internal) -> CallTrigger | None:
        classifier = self._CLASSIFIERS.get(type(what))
        return TRIGGERS.get(type(what)) if classifier is None else classifier(self, what)

    def _classify_ring(self, command: commands.Ring) -> CallTrigger:
        early = command.early_media or command.ringtone is not None
        return CallTrigger.RING_EARLY if early else CallTrigger.RING

    def _classify_answer(self, fact: sip.CallAnswered) -> CallTrigger:
        assert self._agreement is not None  # noqa: S101 - an answer needs our offer
        kept = fact.early and self._agreement.format is not None
        fits = self._can_answer(fact.body) if fact.offered else kept or self._fits(fact.body)
        return CallTrigger.ANSWERED if fits else CallTrigger.ANSWERED_UNUSABLE

    def _classify_confirmation(self, fact: sip.CallConfirmed | sip.OfferAnswered) -> CallTrigger | None:
        """The ACK of a 200 with our offer: the first answer must fit, a later one that does not changes nothing."""
        if fact.body and self._fits(fact.body):
            return CallTrigger.CONFIRMED
        agreed = self._agreement is not None and self._agreement.format is not None
        return None if agreed else CallTrigger.CONFIRMED_UNUSABLE

    def _classify_refresh(self, fact: sip.RefreshAnswered) -> CallTrigger | None:
        """The peer has changed its mind about what is agreed already; what does not fit changes nothing."""
        return CallTrigger.CONFIRMED if self._fits(fact.body, refresh=True) else None

    def _classify_transfer(self, fact: sip.ReferEnded) -> CallTrigger | None:
        return CallTrigger.TRANSFERRED if self.talk.transfers.ends_call(fact) else None

    def _classify_unannounced(self, _: effects.AnnounceFailed) -> CallTrigger | None:
        """The webhook's answer may come after the agent that it called."""
        return CallTrigger.ANNOUNCE_FAILED if self._agent.state is Attachment.ABSENT else None

    def _classify_invite(self, command: commands.Invite) -> CallTrigger:
        if self._machine.state is not Call.NEW:
            return CallTrigger.INVITE
        if self.config.call_type is CallType.WEBSOCKET:
            return CallTrigger.INVITE_STREAM
        if self.config.call_type is CallType.WEBRTC:
            return self._classify_offer(command.option)
        try:
            self._dialling = Dialling.of(command.option, self.config.address)
        except DialError as problem:
            self.report.problem = str(problem)
            return CallTrigger.INVITE_UNUSABLE
        self.report.problem = self.config.admit(self._dialling.callee)
        return CallTrigger.INVITE_DENIED if self.report.problem else CallTrigger.INVITE

    def _classify_offer(self, option: CallOption) -> CallTrigger:
        """A browser's offer must be one that can be answered, before anything is opened for it."""
        if not option.offer:
            self.report.problem = "option.offer is missing"
            return CallTrigger.INVITE_UNUSABLE
        try:
            self._peer_offer = read_offer(option.offer.encode(), self.config.peer_codecs, ipv6=option.enable_ipv6)
        except (MediaError, RemoteError) as problem:
            self.report.problem = f"option.offer: {problem}"
            return CallTrigger.INVITE_UNUSABLE
        return CallTrigger.INVITE_PEER

    def _classify_incoming(self, call: sip.IncomingCall) -> CallTrigger:
        try:
            if call.offer and is_peer_offer(parse_sdp(call.offer)):
                self._peer_offer = read_offer(call.offer, self.config.peer_codecs, ipv6=True)
            elif call.offer:
                srtp = self.config.srtp.incoming(call.callee.uri)
                check_offer(call.offer, srtp, call.local_host, self.config.sip_port, self.config.codecs)
        except (MediaError, RemoteError) as problem:
            self.report.problem = str(problem)
            self.report.status = getattr(problem, "reply", 488)
            return CallTrigger.INCOMING_UNUSABLE
        return CallTrigger.INCOMING

    def _fits(self, answer: bytes, *, refresh: bool = False) -> bool:
        """Take an SDP answer if it is one."""
        assert self._agreement is not None  # noqa: S101 - an answer needs our offer
        if not answer:
            return False
        try:
            _ = self._agreement.reaffirm(answer) if refresh else self._agreement.accept(answer)
        except (MediaError, RemoteError) as problem:
            self.report.problem = str(problem)
            return False
        return True

    def _can_answer(self, offer: bytes) -> bool:
        """Answer a delayed offer if that is possible."""
        assert self._agreement is not None  # noqa: S101 - made with our INVITE
        try:
            self._delayed_answer, _ = self._agreement.answer(offer)
        except (MediaError, RemoteError) as problem:
            self.report.problem = str(problem)
            return False
        return True

    # -- stepping ---------------------------------------------------------------------------------------------------

    def _duration(self, timer: CallTrigger) -> float:
        return {
            CallTrigger.ACCEPT_TIMEOUT: self.config.accept_timeout,
            CallTrigger.RING_TIMEOUT: self.config.ring_timeout,
            # A browser's leg has its own time for each step, and says what was wrong.
            CallTrigger.CONNECT_TIMEOUT: self._patience() + (PEER_MARGIN if self._peer_offer is not None else 0.0),
            CallTrigger.PARTED: PARTING_TIME,
            CallTrigger.CLOSING_TIMEOUT: FLUSH_TIME if self._flushes else CLOSING_TIME,
        }[timer]

    def _step(self, trigger: CallTrigger, cause: Cause, now: float) -> None:
        before = self._machine.state
        actions = self._machine.step(trigger, now, None if trigger is CallTrigger.QUIET else cause)
        if self._machine.state is Call.ENDING and before is not Call.ENDING:
            self._note_ending(trigger, cause)
        for action in actions:
            getattr(self, f"_{action.name.lower()}")(cause, now)
        if self._machine.state is Call.ENDING and before is not Call.ENDING and trigger not in _DEAF:
            self._flush()

    @property
    def _flushes(self) -> bool:
        """Whether last words may still be on their way when the call ends."""
        return self._listening and self.report.answered_at is not None

    def _flush(self) -> None:
        """The far end is gone: let what it said last be transcribed."""
        if self._flushes:
            self._flushing = self._leg_closed = True
            self._out.append(effects.CloseLeg())

    def _note_ending(self, trigger: CallTrigger, cause: Cause) -> None:
        self.report.note_parting(parting_of(cause))
        if isinstance(cause, sip.CallRefused):
            self._status = cause.status
        elif isinstance(cause, sip.CallCancelled):
            self._status = 487
        if trigger is CallTrigger.BYE:
            self._ending = of_bye(incoming=self._incoming is not None, transferred=self.talk.transfers.accepted)
        elif isinstance(cause, commands.Hangup):
            self._ending = of_hangup(cause)
        elif trigger is CallTrigger.PARTED and self._goodbye is not None:
            self._ending = of_hangup(self._goodbye)
        else:
            self._ending = ENDINGS[trigger]

    def _play(self, outputs: Iterable[Output], now: float) -> None:
        for output in outputs:
            if isinstance(output, Internal):
                self._take(output, now)
            else:
                self._out.append(output)

    # -- actions: a phone's call ------------------------------------------------------------------------------------

    def _note_incoming(self, cause: sip.IncomingCall, now: float) -> None:
        self._incoming = cause
        self.report.parties(cause.caller.uri, cause.callee.uri)
        self.report.rang_at = self._wall(now)

    def _announce(self, cause: sip.IncomingCall, _: float) -> None:
        self._out.append(effects.Announce(cause))

    def _open_leg(self, cause: commands.Ring | commands.Accept, now: float) -> None:
        assert self._incoming is not None  # noqa: S101 - only rows of incoming calls open a leg so
        if isinstance(cause, commands.Accept):
            self._take_option(cause.option)
            self._answer_headers = self._lines(cause.headers, now)
            self._play(self.talk.track.retire_ringtone(now), now)
        else:
            self._recorder = self._recorder or cause.recorder
        self._wanted_ringtone = cause.ringtone if isinstance(cause, commands.Ring) else None
        if self._peer_offer is None:
            self._out.append(effects.OpenLeg(self._incoming.local_host))
        else:
            source = self._incoming.source[0]
            self._out.append(effects.OpenPeer(self._peer_offer, source, ipv6=True, patience=self._patience()))

    def _patience(self) -> float:
        return float(self.talk.option.handshake_timeout or HANDSHAKE_TIME)

    def _new_agreement(self, ready: effects.LegReady, srtp: SrtpPolicy) -> Agreement:
        config = self.config
        return Agreement(
            ready.host,
            ready.port,
            ready.ssrc,
            self._sdp_id,
            srtp,
            sip_port=config.sip_port,
            codecs=config.codecs,
        )

    def _agree(self, ready: effects.LegReady | PeerReady) -> None:
        """Answer the phone's offer, or make one where it sent none; once per call."""
        assert self._incoming is not None  # noqa: S101
        if self._agreement is not None:
            return
        if isinstance(ready, PeerReady):
            self._answer_first(ready, self._incoming.offer)
            return
        srtp = self.config.srtp.incoming(self._incoming.callee.uri)
        self._agreement = self._new_agreement(ready, srtp)
        if self._incoming.offer:
            self._set_remote(self._agreement.answer(self._incoming.offer)[1])
        else:
            self._agreement.offer()

    def _answer_first(self, ready: PeerReady, offer: bytes) -> None:
        """Answer a browser."""
        assert self._peer_offer is not None  # noqa: S101 - the leg is that offer's
        self._agreement = PeerAgreement(self._peer_offer, ready, self._sdp_id, self.config.peer_codecs)
        self._set_remote(self._agreement.answer(offer)[1])

    def _send_early_media(self, cause: effects.LegReady | PeerReady, now: float) -> None:
        self._agree(cause)
        assert self._agreement is not None  # noqa: S101
        self._start_session_track(cause, now)
        self._out.append(sip.Ring(self.id, 183, self._agreement.sdp.encode()))
        if self._wanted_ringtone is not None:
            self._play(self.talk.track.ring(self._wanted_ringtone, now), now)

    def _send_ringing(self, cause: commands.Ring, _: float) -> None:
        self._recorder = self._recorder or cause.recorder
        self._record()
        self._out.append(sip.Ring(self.id, 180))

    def _restart_accept_timer(self, _: Input, now: float) -> None:
        self._machine.restart(CallTrigger.ACCEPT_TIMEOUT, now)

    def _answer(self, cause: effects.LegReady | PeerReady, now: float) -> None:
        self._agree(cause)
        assert self._agreement is not None  # noqa: S101
        self._start_session_track(cause, now)
        self._process_audio(now)
        self._out.append(sip.Answer(self.id, self._agreement.sdp.encode(), self._answer_headers))

    def _refuse(self, cause: Cause, now: float) -> None:
        headers = cause.headers if isinstance(cause, commands.Reject | commands.Hangup) else None
        refuse = refusal(self.id, cause, self.report)
        self._status = refuse.status
        self._out.append(attrs.evolve(refuse, headers=(*refuse.headers, *self._lines(headers, now))))

    # -- actions: an agent's call -----------------------------------------------------------------------------------

    def _prepare_dial(self, cause: commands.Invite, _: float) -> None:
        assert self._dialling is not None  # noqa: S101 - classification made it
        self._take_option(cause.option)
        self.report.parties(self._dialling.caller.uri, self._dialling.callee)
        self._out.append(effects.PrepareDial(self._dialling.caller.uri, self._dialling.callee))

    def _send_invite(self, cause: effects.LegReady, now: float) -> None:
        assert self._dialling is not None  # noqa: S101
        dialling = self._dialling
        srtp = self.config.srtp.outgoing(dialling.caller.uri, dialling.callee, dialling.srtp)
        self._agreement = self._new_agreement(cause, srtp)
        self._start_session_track(cause, now)
        self._process_audio(now)
        offer = b"" if dialling.delayed_offer else self._agreement.offer()
        self._out.append(dialling.invite(self.id, cause.host, offer))

    # -- actions: a call without SIP --------------------------------------------------------------------------------

    def _open_stream(self, cause: commands.Invite, _: float) -> None:
        self._take_option(cause.option)
        self._out.append(effects.OpenStream(cause.option.codec))

    def _open_peer(self, cause: commands.Invite, _: float) -> None:
        assert self._peer_offer is not None  # noqa: S101 - classification read it
        self._take_option(cause.option)
        ipv6, patience = cause.option.enable_ipv6, self._patience()
        self._out.append(effects.OpenPeer(self._peer_offer, "", ipv6=ipv6, patience=patience))

    def _connect(self, cause: effects.LegReady | PeerReady, now: float) -> None:
        if isinstance(cause, PeerReady):
            self._answer_first(cause, (self.talk.option.offer or "").encode())
        self._start_session_track(cause, now)
        self._process_audio(now)

    # -- actions: what the far end says -----------------------------------------------------------------------------

    def _apply_early_sdp(self, cause: sip.CallProgress, now: float) -> None:
        if cause.body and self._fits(cause.body):
            self._apply_sdp(cause, now)

    def _apply_sdp(self, cause: Input, _: float) -> None:
        assert self._agreement is not None  # noqa: S101
        assert self._agreement.format is not None  # noqa: S101
        self._set_remote(self._agreement.format)
        if isinstance(cause, sip.CallAnswered) and cause.offered:
            self._out.append(sip.AcceptOffer(self.id, self._delayed_answer))

    def _set_remote(self, agreed: MediaFormat) -> None:
        self.talk.transfers.codec = agreed.codec
        self.talk.keys.events_agreed = agreed.send_dtmf_pt is not None
        if not isinstance(self._agreement, PeerAgreement) or agreed.srtp is not None:
            self._out.append(effects.SetRemote(agreed))

    def _secure(self, cause: PeerSecured, _: float) -> None:
        """A browser's media has its keys: from now on there is some."""
        if isinstance(self._agreement, PeerAgreement):
            self._set_remote(self._agreement.secure(cause.keys))

    def _answer_peer(self, cause: effects.PeerDescribed, _: float) -> None:
        """Our end has taken a browser's further offer: answer it."""
        assert isinstance(self._agreement, PeerAgreement)  # noqa: S101 - only one of those is described
        self._agreement.move(cause.end)
        self._answer_with(self._agreement, self._pending_offer)

    def _answer_offer(self, cause: sip.OfferReceived, _: float) -> None:
        assert self._agreement is not None  # noqa: S101 - the call is up
        if isinstance(self._agreement, PeerAgreement) and cause.body:
            self._describe(self._agreement, cause.body)
        else:
            self._answer_with(self._agreement, cause.body)

    def _describe(self, agreement: PeerAgreement, body: bytes) -> None:
        """ICE must take a browser's offer before it can be answered: it may begin anew."""
        try:
            offer = agreement.read(body)
        except (MediaError, RemoteError) as problem:
            self._out.append(sip.RefuseOffer(self.id, getattr(problem, "reply", 488)))
        else:
            self._pending_offer = body
            self._out.append(effects.DescribePeer(offer))

    def _answer_with(self, agreement: Agreement | PeerAgreement, offer: bytes) -> None:
        wish, agreed = answer_offer(agreement, sip.OfferReceived(self.id, offer))
        if agreed is not None:
            self._set_remote(agreed)
        self._out.append(wish)

    # -- actions: both ----------------------------------------------------------------------------------------------

    def _take_option(self, option: CallOption) -> None:
        self.talk.option = option
        self.talk.hearing.take_option(option)
        self.report.extra = option.extra

    def _start_session_track(self, ready: effects.LegReady | PeerReady, now: float) -> None:
        if self.report.track_started_at is None:
            self.talk.track.ssrc = ready.ssrc
            self._out.append(effects.Tell(self.report.track_start(ready.ssrc, now)))
            self._play(self.talk.mutes(), now)
        self._record()

    def _record(self) -> None:
        """Record as soon as there is a leg; the first one to ask for it says how."""
        option = self._recorder or self.talk.option.recorder or self.config.recorder
        if option is not None and self.report.track_started_at is not None and not self._recording:
            self._recording = True
            self._out.append(effects.Record(option))

    def _process_audio(self, now: float) -> None:
        """VAD and ASR as the option wants them; what cannot be had is one error each and disables nothing else."""
        for sender, problem in unavailable(self.talk.option):
            self._out.extend(self.report.error(sender, problem, None, now))
        if self.talk.option.denoise:  # before whoever listens: times of what is heard never go back
            self._out.append(effects.Denoise())
        if self.talk.option.vad is not None or self.talk.option.amd is not None:
            self._out.append(effects.WatchSpeech(vad_params(self.talk.option.vad or VadOption())))
        if self.talk.option.amd is not None:
            self._out.append(effects.SeekBeeps())
        dtmf = self.talk.option.dtmf
        if self.config.dtmf_inband if dtmf is None or dtmf.inband is None else dtmf.inband:
            self._out.append(effects.SeekTones())
        if self.talk.option.inactivity_timeout:
            self._out.append(effects.LimitSilence(float(self.talk.option.inactivity_timeout)))
        if self.talk.option.subscribe and self.config.call_type is not CallType.WEBSOCKET:
            self._out.append(effects.CopyAudio())
        if self.talk.option.media_pass is not None:
            self._play(self.talk.passing.start(self.talk.option.media_pass, now), now)
        if self.talk.option.asr is not None and not self.talk.option.asr.start_when_answer:
            self._listen()

    def _listen(self) -> None:
        if self.talk.option.asr is not None and not self._listened:
            self._listened = self._listening = True
            self._out.append(effects.Listen(self.talk.option.asr))

    def _tell_ringing(self, cause: sip.CallProgress, now: float) -> None:
        self._out.append(effects.Tell(self.report.ringing(early_media=bool(cause.body), now=now)))

    def _tell_answer(self, cause: Input, now: float) -> None:
        sdp = ""
        if self._agreement is not None:
            answered = isinstance(cause, sip.CallAnswered) and not cause.offered
            sdp = self._agreement.theirs if answered else self._agreement.sdp
        passed = cause.passed if isinstance(cause, sip.CallAnswered) else ()
        self._out.extend(map(effects.Tell, self.report.answer(sdp, now, passed)))
        self._listen()
        if self.talk.option.amd is not None:
            self._play(self.talk.detector.start(self.talk.option.amd, now), now)

    def _tell_reject(self, cause: Cause, now: float) -> None:
        code, reason = rejection(cause, self.report)
        self._out.append(effects.Tell(self.report.reject(code, reason, now)))

    def _tell_error(self, cause: Input, now: float) -> None:
        problem = getattr(cause, "problem", None) or self.report.problem or "call set-up failed"
        sender = "accept" if self._incoming is not None else "invite"
        self._out.append(effects.Tell(self.report.failure(sender, problem, now)))

    def _tell_lost(self, cause: PeerLost, now: float) -> None:
        self._out.extend(self.report.error("webrtc", cause.problem, None, now))

    def _tell_transfer(self, cause: sip.ReferEnded, now: float) -> None:
        self._play(self.talk.transfers.handle(cause, now), now)

    def _release_held(self, _: Input, now: float) -> None:
        self._play(self.talk.release(now), now)

    def _hang_up(self, cause: Input | Tick, now: float) -> None:
        if self.config.call_type is not CallType.SIP:
            return
        command = self._goodbye if isinstance(cause, Tick) else cause
        headers = self._lines(command.headers, now) if isinstance(command, commands.Hangup) else ()
        self._status = 487  # what an INVITE that we cancel ends with; a call that was answered has its own
        self._out.append(sip.HangUp(self.id, headers, self._ending.q850))

    def _lines(self, headers: Mapping[str, str] | None, now: float) -> Lines:
        """An agent's header fields; none of them, and an `error`, if one of them is not for it to set."""
        try:
            return header_lines("headers", headers or {})
        except DialError as problem:
            self._out.extend(self.report.error("command", str(problem), None, now))
            return ()

    def _stop_playback(self, _: Input, now: float) -> None:
        self._play(self.talk.close(now), now)

    def _close_leg(self, _: Input, now: float) -> None:
        if self.report.track_started_at is not None:
            if not self._leg_closed:
                self._out.append(effects.CloseLeg())
            self._out.append(effects.Tell(self.report.track_end(now)))

    def _tell_end(self, _: Input, now: float) -> None:
        self._agent.step(AttachmentTrigger.CALL_ENDED, now)
        self._out.append(effects.Tell(self.report.hangup(self._ending, now)))

    # -- what changes no state --------------------------------------------------------------------------------------

    def _refuse_command(self, command: commands.Command, now: float) -> None:
        sender = command.name if isinstance(command, commands.Invite | commands.Accept | commands.Ring) else "command"
        problem = f"{command.name} is not possible while the call is {self._machine.state.name.lower()}"
        self._out.extend(self.report.error(sender, problem, None, now))

    def _agent_duration(self, timer: AttachmentTrigger) -> float:
        return self.config.resume_grace if timer is AttachmentTrigger.GRACE_TIMEOUT else UPGRADE_TIME

    def _agent_trigger(self, fact: AgentFact) -> AttachmentTrigger:
        """A socket that is dropped in the middle of a conversation may come back, unless the far end was in it."""
        dropped = isinstance(fact, effects.AgentGone) and fact.dropped and self._agent.state is Attachment.ATTACHED
        waits = self.config.resume_grace > 0 and self.config.call_type is not CallType.WEBSOCKET
        if dropped and waits and self._machine.state is Call.TALKING:
            return AttachmentTrigger.DROPPED
        return AGENT_TRIGGERS[type(fact)]

    def _attach(self, trigger: AttachmentTrigger, cause: AgentFact | Tick, now: float) -> None:
        for action in self._agent.step(trigger, now, cause):
            if action is AttachmentAction.TELL_CALL_GONE:
                self.talk.forget_held()
                self._step(CallTrigger.AGENT_GONE, cause, now)
            elif self._incoming is not None:
                self._out.append(effects.Tell(self.report.incoming(self._incoming, now)))

    _CLASSIFIERS: ClassVar[Mapping[type, Callable[[CallCore, Any], CallTrigger | None]]] = {
        commands.Invite: _classify_invite,
        commands.Ring: _classify_ring,
        sip.IncomingCall: _classify_incoming,
        sip.CallAnswered: _classify_answer,
        sip.CallConfirmed: _classify_confirmation,
        sip.OfferAnswered: _classify_confirmation,
        sip.RefreshAnswered: _classify_refresh,
        effects.AnnounceFailed: _classify_unannounced,
        sip.ReferEnded: _classify_transfer,
    }
    """The guards: inputs that mean different things by what they carry or where the call stands."""
