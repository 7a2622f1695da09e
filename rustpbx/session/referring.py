"""Transfers by REFER: those that the agent asks for (`refer` in blind mode), and those that the far end asks of us."""

from __future__ import annotations

from collections.abc import Callable

from rustpbx.errors import RemoteError
from rustpbx.session import commands, effects
from rustpbx.session.dialling import MAX_TEXT, DialError, header_lines
from rustpbx.session.options import ReferOption, SipOption
from rustpbx.session.playback import ServerTrack
from rustpbx.session.reporting import Reporter
from rustpbx.sip import events as sip
from rustpbx.sip.message import NameAddr
from rustpbx.sip.parser import parse_aor, parse_name_addr
from rustpbx.sip.uri import Uri, parse_uri

BRIDGED, BLIND = "bridged", "blind"
LIMIT = 180.0
"""Seconds for a blind transfer to come to an end, if the agent does not say."""

Output = effects.Effect
ReferFact = sip.ReferReceived | sip.ReferProgress | sip.ReferEnded


class Transfers:
    """The transfers of one call. `admit` asks the dial policy: "" if that address may be called, else why not."""

    def __init__(self, report: Reporter, track: ServerTrack, admit: Callable[[Uri], str]) -> None:
        self._report = report
        self._track = track
        self._admit = admit
        self._hang_up_after = True
        self.accepted = False
        """Whether the far end has taken a REFER of ours whose outcome is still open."""

    def refer(self, command: commands.Refer, now: float, *, ready: bool) -> list[Output]:
        """Take a `refer` command."""
        options = command.options or ReferOption()
        if options.mode not in (BRIDGED, BLIND):
            return self._mistake(f"options.mode: {options.mode[:40]!r} is none of {BRIDGED}, {BLIND}", now)
        if options.mode == BRIDGED:
            return self._mistake("refer is not available in this version, but for options.mode blind", now)
        if not ready:
            return self._mistake("refer is possible in answered calls only", now)
        try:
            target = _target("callee", command.callee)
            by = _address("caller", command.caller) if command.caller else None
            headers = header_lines("options.sip.headers", (options.sip or SipOption()).headers or {})
        except DialError as problem:
            return self._mistake(str(problem), now)
        refused = self._admit(target.uri)
        if refused:
            return self._refused(403, refused, now, told=False)
        self._hang_up_after = options.auto_hangup
        limit = float(options.timeout or LIMIT)
        return [sip.SendRefer(self._report.session_id, target, by, headers, limit)]

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
