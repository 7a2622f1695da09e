"""Transfers: by a second call of ours or by REFER as the agent asks, and those that the far end asks of us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rustpbx.core import NEVER, Deadline
from rustpbx.errors import RemoteError
from rustpbx.media.events import Codec
from rustpbx.session import commands, effects
from rustpbx.session.dialling import MAX_TEXT, DialError, Dialling, header_lines
from rustpbx.session.effects import Input
from rustpbx.session.options import CallOption, ReferOption, SipOption
from rustpbx.session.params import ReferLeg
from rustpbx.session.playback import Output, ServerTrack
from rustpbx.session.reporting import Reporter
from rustpbx.session.transfer import Transfer
from rustpbx.sip import events as sip
from rustpbx.sip.message import NameAddr
from rustpbx.sip.parser import parse_aor, parse_name_addr
from rustpbx.sip.uri import parse_uri

if TYPE_CHECKING:
    from rustpbx.session.call import CallConfig

BRIDGED, BLIND = "bridged", "blind"
LIMIT = 180.0
"""Seconds for a blind transfer to come to an end, if the agent does not say."""

REFER_LEG = "~refer"
"""What stands between a session's id and the number of its transfer in the name of a refer leg."""

ReferFact = sip.ReferReceived | sip.ReferProgress | sip.ReferEnded


class Transfers:
    """The transfers of one call; one by a call of ours at a time. `sdp_id` is the SDP session id of the call's leg."""

    def __init__(self, report: Reporter, track: ServerTrack, config: CallConfig, sdp_id: int) -> None:
        self._report = report
        self._track = track
        self._config = config
        self._sdp_id = sdp_id
        self._transfer: Transfer | None = None
        self._count = 0
        self.codec: Codec | None = None
        """What the call's own leg speaks."""
        self._hang_up_after = True
        self.accepted = False
        """Whether the far end has taken a REFER of ours whose outcome is still open."""

    def refer(self, command: commands.Refer, now: float, *, ready: bool) -> list[Output]:
        """Take a `refer` command."""
        options = command.options or ReferOption()
        if options.mode not in (BRIDGED, BLIND):
            return self._mistake(f"options.mode: {options.mode[:40]!r} is none of {BRIDGED}, {BLIND}", now)
        if not ready:
            return self._mistake("refer is possible in answered calls only", now)
        if self.under_way:
            return self._mistake("a transfer is under way already", now)
        return (self._begin if options.mode == BRIDGED else self._ask)(command, options, now)

    def _ask(self, command: commands.Refer, options: ReferOption, now: float) -> list[Output]:
        """Have the far end place the call."""
        try:
            target = _target("callee", command.callee)
            by = _address("caller", command.caller) if command.caller else None
            headers = header_lines("options.sip.headers", (options.sip or SipOption()).headers or {})
        except DialError as problem:
            return self._mistake(str(problem), now)
        refused = self._config.admit_transfer(target.uri)
        if refused:
            return self._refused(403, refused, now, told=False)
        self._hang_up_after = options.auto_hangup
        limit = float(options.timeout or LIMIT)
        return [sip.SendRefer(self._report.session_id, target, by, headers, limit)]

    def _begin(self, command: commands.Refer, options: ReferOption, now: float) -> list[Output]:
        """Place the second call."""
        option = CallOption(caller=command.caller or None, callee=command.callee, sip=options.sip)
        try:
            dialling = Dialling.of(option, self._config.address, "")
        except DialError as problem:
            return self._mistake(str(problem), now)
        self._count += 1
        leg = f"{self._report.session_id}{REFER_LEG}{self._count}"
        refused = self._config.admit_leg(leg, dialling.callee)
        if refused:
            return self._refused(403, refused, now, told=False)
        self._transfer = Transfer(
            leg,
            dialling,
            options,
            config=self._config,
            report=Reporter(self._track.track_id, self._report.wall, now, refer=True),
            track=self._track,
            sdp_id=self._sdp_id + self._count,
            codec=self.codec,
        )
        return self._transfer.start(now)

    @property
    def under_way(self) -> bool:
        """Whether a second call has the server-side track."""
        return self._transfer is not None and self._transfer.alive

    @property
    def latest(self) -> ReferLeg | None:
        """The last transfer by a second call, over or not."""
        return None if self._transfer is None else self._transfer.summary

    @property
    def bridged(self) -> bool:
        """Whether the remote party talks to somebody else."""
        return self._transfer is not None and self._transfer.bridged

    @property
    def private(self) -> bool:
        """Whether what the remote party says is not transcribed for the agent."""
        return self._transfer is not None and self._transfer.private

    def of_leg(self, what: Input, now: float) -> list[Output]:
        """Take a fact of a refer leg, that of a transfer that is over included."""
        if isinstance(what, effects.Heard):
            return [effects.Tell(self._report.transcript(what.transcript, now, self._track.track_id))]
        transfer, leg = self._transfer, getattr(what, "leg", None)
        if transfer is not None and transfer.alive and transfer.leg == leg:
            return transfer.handle(what, now)
        if isinstance(what, effects.LegReady):
            return [effects.CloseLeg(leg)]  # it was opened too late
        return []

    def press(self, digit: str) -> list[Output]:
        """The remote party pressed a key."""
        return [] if self._transfer is None else self._transfer.press(digit)

    def tick(self, now: float) -> list[Output]:
        """Let time pass."""
        return [] if self._transfer is None else self._transfer.tick(now)

    def deadline(self) -> Deadline:
        """When to tick next."""
        return NEVER if self._transfer is None else self._transfer.deadline()

    def close(self, now: float) -> list[Output]:
        """The call ends."""
        return [] if self._transfer is None else self._transfer.abandon(now)

    def report(self, command: commands.Referred, now: float) -> list[Output]:
        """Take a `referred` command: the far end is told."""
        if not 100 <= command.code <= 699:
            return [*self._report.error(command.name, f"code: {command.code} is no SIP status", None, now)]
        return [sip.ReportReferral(self._report.session_id, command.code, command.reason or "")]

    def handle(self, fact: ReferFact, now: float) -> list[Output]:
        """Take what the far end asks, or tells of ours."""
        match fact:
            case sip.ReferReceived():
                return [effects.Tell(self._report.referred(fact.referral, now))]
            case sip.ReferProgress():
                self.accepted = True
                return [effects.Tell(self._report.transfer(fact.status, fact.reason, now))]
            case sip.ReferEnded(status=status) if 200 <= status < 300:
                return [effects.Tell(self._report.transfer(status, fact.reason, now))]
            case sip.ReferEnded():
                self.accepted = False
                return self._refused(fact.status, fact.reason, now, told=True)

    def ends_call(self, fact: sip.ReferEnded) -> bool:
        """Whether the call is over for us: the far end talks to somebody else now."""
        return 200 <= fact.status < 300 and self._hang_up_after

    def _refused(self, code: int, reason: str, now: float, *, told: bool) -> list[Output]:
        return [effects.Tell(self._report.transfer_refused(self._track.track_id, code, reason, now, told=told))]

    def _mistake(self, problem: str, now: float) -> list[Output]:
        return [*self._report.error("refer", problem, None, now)]


def _target(key: str, text: str) -> NameAddr:
    """Whom the far end shall call. It may carry header fields (`?Replaces=...`), so it is read as a URI first."""
    if "?" in text and "<" not in text and len(text) <= MAX_TEXT:
        try:
            return NameAddr(parse_uri(text))
        except RemoteError as problem:
            raise DialError(f"{key}: {problem}") from None
    return _address(key, text)


def _address(key: str, text: str) -> NameAddr:
    if len(text) > MAX_TEXT:
        raise DialError(f"{key}: longer than {MAX_TEXT} characters")
    try:
        return parse_name_addr(text) if "<" in text else NameAddr(parse_aor(text))
    except RemoteError as problem:
        raise DialError(f"{key}: {problem}") from None
