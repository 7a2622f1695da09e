"""A call's media pass: a WebSocket service of the agent's that hears the remote party and is heard by it."""

from __future__ import annotations

from rustpbx.machine import Machine
from rustpbx.session import effects
from rustpbx.session.effects import Effect, Tell
from rustpbx.session.events import TrackEnd, TrackStart
from rustpbx.session.options import MediaPassOption
from rustpbx.session.passing_tables import PASSING, Passing, PassingAction, PassingTrigger
from rustpbx.session.playback import ServerTrack
from rustpbx.session.reporting import Reporter
from rustpbx.session.wording import cause as cause_words

LARGEST_PACKET = 64 * 1024
LONGEST_PTIME = 1000


class MediaPass:
    """The core of it: when it begins and ends, and what the agent is told. Its track is the server-side one."""

    def __init__(self, report: Reporter, track: ServerTrack) -> None:
        self._report = report
        self._track = track
        self._option: MediaPassOption | None = None
        self._started_at = 0.0
        self._machine = Machine(PASSING, lambda _: 0.0, "", call=report.session_id, words=cause_words)

    @property
    def on(self) -> bool:
        """Whether the service has the server-side track: nothing else plays on it."""
        return self._machine.state is Passing.ON

    def start(self, option: MediaPassOption, now: float) -> list[Effect]:
        """The call has a leg: pass its audio, once a call."""
        if self._machine.state is not Passing.NONE:
            return []
        problem = _problem(option)
        if problem:
            return [*self._report.error(f"media_pass: {option.url}", problem, None, now)]
        self._option, self._started_at = option, now
        return self._step(PassingTrigger.START, now)

    def handle(self, fact: effects.PassEnded, now: float) -> list[Effect]:
        """The service has gone."""
        if not self.on:
            return []
        return self._step(PassingTrigger.FAILED if fact.problem else PassingTrigger.LEFT, now, fact)

    def flush(self, now: float) -> list[Effect]:
        """Forget what has come from the service and was not sent yet."""
        return self._step(PassingTrigger.FLUSH, now) if self.on else []

    def close(self, now: float) -> list[Effect]:
        """The call ends."""
        return [] if self._machine.done else self._step(PassingTrigger.CLOSE, now)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _step(self, trigger: PassingTrigger, now: float, fact: effects.PassEnded | None = None) -> list[Effect]:
        actions = self._machine.step(trigger, now, fact)
        option = self._option
        return [] if option is None else [out for action in actions for out in self._act(action, option, fact, now)]

    def _act(
        self, action: PassingAction, option: MediaPassOption, fact: effects.PassEnded | None, now: float
    ) -> list[Effect]:
        at, track_id = self._report.wall(now), self._track.track_id
        match action:
            case PassingAction.PASS:
                return [effects.PassMedia(option)]
            case PassingAction.FLUSH:
                return [effects.FlushPass()]
            case PassingAction.STOP:
                return [effects.StopPass()]
            case PassingAction.TELL_START:
                return [Tell(TrackStart(track_id=track_id, timestamp=at))]
            case PassingAction.TELL_ERROR:
                problem, code = ((fact.problem or ""), fact.code) if fact is not None else ("", None)
                return [*self._report.error(f"media_pass: {option.url}", problem, code, now)]
            case PassingAction.TELL_END:
                duration = max(0, at - self._report.wall(self._started_at))
                return [Tell(TrackEnd(track_id=track_id, timestamp=at, duration=duration, ssrc=self._track.ssrc))]


def _problem(option: MediaPassOption) -> str:
    """Why audio cannot be passed so; "" if it can."""
    if not option.url.lower().startswith(("ws://", "wss://")):
        return "url must begin with ws:// or wss://"
    for key, rate in (("inputSampleRate", option.input_sample_rate), ("outputSampleRate", option.output_sample_rate)):
        if not 8000 <= rate <= 48000:
            return f"{key} must be 8000 to 48000, not {rate}"
    if not 2 <= option.packet_size <= LARGEST_PACKET or option.packet_size % 2:
        return f"packetSize must be an even number of bytes up to {LARGEST_PACKET}, not {option.packet_size}"
    if option.ptime is not None and not 0 <= option.ptime <= LONGEST_PTIME:
        return f"ptime must be 0 to {LONGEST_PTIME} ms, not {option.ptime}"
    return ""
