"""The server-side track: what the agent lets the remote party hear, one playback at a time.

A sans-IO core below the call. It owns the playback's state; the shell plays and reports counters. Every playback has
a generation, so a fact about one that is gone is told by its number and dropped.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rustpbx.core import Deadline
from rustpbx.machine import Machine
from rustpbx.session import effects
from rustpbx.session.backlog import Backlog
from rustpbx.session.commands import Hangup, Refer
from rustpbx.session.effects import Effect, FileTrack, SpeakTrack, Spoken, Tell, TrackFailed
from rustpbx.session.events import ErrorEvent, Interruption, Metrics, Silence, TrackEnd, TrackStart
from rustpbx.session.options import SynthesisOption
from rustpbx.session.tables import (
    FLOW,
    INPUT_WAIT,
    PLAYBACK,
    Flow,
    FlowAction,
    FlowTrigger,
    InputWaitTrigger,
    Playback,
    PlaybackAction,
    PlaybackTrigger,
)
from rustpbx.session.wording import cause as cause_words

LULL = 10.0
"""Seconds without new text after which a streaming playback that has been heard to its end is over."""


@attrs.frozen
class AutoHangUp:
    """To the call: a playback that was to end it is over."""


@attrs.frozen
class TransferOver:
    """To the call: the refer leg has ended, and the call was to end with it."""


@attrs.frozen
class Drained:
    """To the call: all that was to be said before this command has left us."""

    command: Hangup | Refer


Output = Effect | AutoHangUp | TransferOver | Drained
PlaybackFact = (
    effects.TrackStopped
    | effects.TrackFinishing
    | effects.TrackPlayedOut
    | effects.TrackDry
    | effects.TrackSounding
    | effects.TrackFailed
    | effects.EntryWritten
    | effects.EntryFailed
)
Measurement = effects.EntrySounding | effects.EntrySynthesized


@attrs.frozen(kw_only=True)
class Wanted:
    """What a `tts` or `play` command asks of its playback besides the audio. `wait_input` is in seconds."""

    play_id: str | None
    auto_hangup: bool = False
    wait_input: float | None = None


@attrs.frozen(kw_only=True)
class Speech:
    """What a `tts` command adds to its playback: a text, or `pcm` (s16le mono 16 kHz); "" and None add nothing.

    `streaming` counts for the command that begins a playback. With `finish` nothing will follow.
    """

    text: str = ""
    pcm: bytes | None = None
    option: SynthesisOption
    streaming: bool = False
    finish: bool = False
    cache_key: str | None = None


def _duration_of_lull(_: FlowTrigger) -> float:
    return LULL


@attrs.define
class _Run:
    """One generation."""

    generation: int
    content: SpeakTrack | FileTrack
    wanted: Wanted
    started_at: float
    machine: Machine[Playback, PlaybackTrigger, PlaybackAction]
    flow: Machine[Flow, FlowTrigger, FlowAction]
    backlog: Backlog = attrs.field(factory=Backlog)
    replaced: bool = False
    waiting: list[tuple[PlaybackTrigger, Effect]] = attrs.field(factory=list)
    """What was added before the playback in front of it was cut."""

    @property
    def streaming(self) -> bool:
        """Whether it speaks one text that comes in pieces."""
        return isinstance(self.content, SpeakTrack) and self.content.streaming

    @property
    def may_fade(self) -> bool:
        """Whether a graceful stop can let something finish: only whole utterances, and not what is silent now."""
        spoken = isinstance(self.content, SpeakTrack) and not self.content.streaming
        return spoken and self.flow.state is Flow.SOUNDING


class ServerTrack:
    """All playbacks of one call. Methods take `now` and return effects, and `AutoHangUp` for the call.

    `hold_error` passes an `error` event on, now or after the answer.
    """

    def __init__(
        self,
        track_id: str,
        wall: Callable[[float], int],
        hold_error: Callable[[ErrorEvent], list[Tell]],
        *,
        call: str = "",
    ) -> None:
        self.track_id = track_id
        self.cause: object = None
        """What the call is being told just now; for the log."""
        self._wall = wall
        self._hold_error = hold_error
        self._call = call
        self.ssrc = 0
        self._run: _Run | None = None
        self._next: _Run | None = None
        self._generations = 0
        self._out: list[Output] = []
        self._wait = Machine(INPUT_WAIT, lambda _: self._wait_for, call=call, words=cause_words)
        self._wait_for = 0.0
        self._wait_since = 0.0

    @property
    def busy(self) -> bool:
        """Whether a playback is alive."""
        return self._run is not None

    def play_id(self, generation: int) -> str | None:
        """What the agent calls the playback of that generation, if it is the one that plays."""
        run = self._run
        return run.wanted.play_id if run is not None and run.generation == generation else None

    def accepts(self, play_id: str | None) -> bool:
        """Whether a `tts` with this playId would be appended to what plays (protocol: track reuse)."""
        run = self._next or self._run
        return (
            run is not None
            and isinstance(run.content, SpeakTrack)
            and run.machine.state is Playback.OPEN
            and run.wanted.play_id == play_id
            and all(trigger is not PlaybackTrigger.FINISH for trigger, _ in run.waiting)
        )

    # -- commands ---------------------------------------------------------------------------------------------------

    def speak(self, wanted: Wanted, speech: Speech, now: float) -> list[Output]:
        """Append to the open playback of the same playId, or begin one."""
        if not self.accepts(wanted.play_id):
            content = SpeakTrack(speech.option.max_concurrent_tasks or 1, speech.streaming)
            self._begin(content, wanted, now)
        run = self._next or self._run
        assert run is not None  # noqa: S101 - _begin has just made one
        run.wanted = wanted
        self._flow(run, FlowTrigger.RESUME, now)
        if speech.text or speech.pcm:
            self._append(run, speech, now)
        if speech.finish:
            self._add(run, PlaybackTrigger.FINISH, effects.FinishTrack(run.generation), now)
        return self._taken()

    def _append(self, run: _Run, speech: Speech, now: float) -> None:
        if speech.pcm and run.streaming:
            problem: str | None = "base64 audio cannot be part of a streaming text"
        else:
            problem = run.backlog.refusal(speech.text, speech.pcm)
        if problem is not None:
            self._tell_error("tts", problem, None, now)
            return
        number = run.backlog.add(speech.text, speech.pcm)
        entry = effects.Entry(number, speech.text, speech.option, speech.pcm, speech.cache_key, now)
        self._add(run, PlaybackTrigger.SAY, effects.Say(run.generation, entry), now)
        self._flow(run, FlowTrigger.TEXT, now)

    def play(self, wanted: Wanted, url: str, now: float) -> list[Output]:
        """Play a file in place of whatever plays."""
        self._begin(FileTrack(url), wanted, now)
        return self._taken()

    def ring(self, url: str, now: float) -> list[Output]:
        """Play a file again and again, in place of whatever plays but the same ringtone."""
        ringtone = FileTrack(url, loop=True)
        if self._run is None or self._run.content != ringtone:
            self._begin(ringtone, Wanted(play_id=url), now)
        return self._taken()

    def interrupt(self, now: float, *, graceful: bool = False) -> list[Output]:
        """Cut what plays; silent if nothing does. What is paused is not being said, so nothing of it is let finish."""
        if self._run is not None:
            gently = graceful and self._run.may_fade
            self._step(self._run, PlaybackTrigger.STOP_GRACEFULLY if gently else PlaybackTrigger.STOP, now)
        return self._taken()

    def pause(self, now: float) -> list[Output]:
        """Hold what plays where it is, or what will in a moment."""
        run = self._next or self._run
        if run is not None:
            self._flow(run, FlowTrigger.PAUSE, now)
        return self._taken()

    def resume(self, now: float) -> list[Output]:
        """Go on from there."""
        run = self._next or self._run
        if run is not None:
            self._flow(run, FlowTrigger.RESUME, now)
        return self._taken()

    def finish(self, now: float) -> list[Output]:
        """Let what plays come to its end: no more text will be added, a pause is over, a loop has had its time."""
        run = self._next or self._run
        if run is None:
            return []
        self._flow(run, FlowTrigger.RESUME, now)
        if isinstance(run.content, SpeakTrack):
            if run.machine.state is Playback.OPEN and all(t is not PlaybackTrigger.FINISH for t, _ in run.waiting):
                self._add(run, PlaybackTrigger.FINISH, effects.FinishTrack(run.generation), now)
        elif run.content.loop and run is self._run:
            self._step(run, PlaybackTrigger.RETIRE, now)
        return self._taken()

    def retire_ringtone(self, now: float) -> list[Output]:
        """The call is answered: a looping file has had its time."""
        if self._run is not None and isinstance(self._run.content, FileTrack) and self._run.content.loop:
            self._step(self._run, PlaybackTrigger.RETIRE, now)
        return self._taken()

    def clear(self, now: float) -> list[Output]:
        """Cut what plays, for something that is no playback; it counts as replaced by it."""
        if self._run is not None:
            self._run.replaced, self._next = True, None
            self._step(self._run, PlaybackTrigger.STOP, now)
        self._wait.step(InputWaitTrigger.HEARD, now)
        return self._taken()

    def close(self, now: float) -> list[Output]:
        """The call ends: cut what plays, and forget everything else."""
        self._next = None
        self._wait.step(InputWaitTrigger.CLOSE, now)
        if self._run is not None:
            self._run.replaced = True
            self._step(self._run, PlaybackTrigger.STOP, now)
        return self._taken()

    def heard(self, now: float) -> None:
        """The remote party spoke or pressed a key: nobody has to be told of silence."""
        self._wait.step(InputWaitTrigger.HEARD, now)

    # -- facts and time ---------------------------------------------------------------------------------------------

    def handle(self, fact: PlaybackFact, now: float) -> list[Output]:
        """Take a fact of the shell; one about a generation that is gone changes nothing."""
        run = self._run
        if run is None or run.generation != fact.generation:
            return []
        match fact:
            case effects.TrackStopped():
                self._step(run, PlaybackTrigger.STOPPED, now, fact.spoken)
            case effects.TrackFinishing():
                self._step(run, PlaybackTrigger.FINISHING, now, fact.spoken)
            case effects.TrackPlayedOut():
                self._step(run, PlaybackTrigger.PLAYED_OUT, now)
            case effects.TrackFailed():
                self._step(run, PlaybackTrigger.FAILED, now, fact)
            case effects.TrackDry():
                self._flow(run, FlowTrigger.RAN_DRY, now)
            case effects.TrackSounding():
                self._flow(run, FlowTrigger.SOUND, now)
            case effects.EntryWritten():
                run.backlog.written(fact.number)
            case effects.EntryFailed():
                self._tell_error(fact.sender, fact.problem, fact.code, now)
        return self._taken()

    def measured(self, fact: Measurement, now: float) -> list[Output]:
        """Audio has come from a speech service: tell how long it took."""
        if self._run is not None and self._run.generation == fact.generation:
            self._tell_metric(self._run, fact, now)
        return self._taken()

    def tick(self, now: float) -> list[Output]:
        """Let time pass."""
        for trigger in self._wait.fired(now):
            if self._wait.step(trigger, now):
                since, lasted = self._wall(self._wait_since), round(self._wait_for * 1000)
                self._tell(
                    Silence(track_id=self.track_id, timestamp=self._wall(now), start_time=since, duration=lasted)
                )
        if self._run is not None:
            for lull in self._run.flow.fired(now):
                self._flow(self._run, lull, now)
        return self._taken()

    def deadline(self) -> Deadline:
        """When to tick next."""
        return self._wait.deadline() if self._run is None else min(self._wait.deadline(), self._run.flow.deadline())

    # -- steps ------------------------------------------------------------------------------------------------------

    def _begin(self, content: SpeakTrack | FileTrack, wanted: Wanted, now: float) -> None:
        self._generations += 1
        label = f"playback {self._generations}"
        machine = Machine(PLAYBACK, label=label, call=self._call, words=cause_words)
        flow = Machine(FLOW, _duration_of_lull, label, call=self._call, words=cause_words)
        self._next = _Run(self._generations, content, wanted, now, machine, flow)
        if self._run is None:
            self._start_next(now)
        else:
            self._run.replaced = True
            self._step(self._run, PlaybackTrigger.STOP, now)

    def _start_next(self, now: float) -> None:
        if self._next is None:
            return
        self._run, self._next = self._next, None
        self._run.started_at = now
        self._step(self._run, PlaybackTrigger.START, now)
        if self._run.flow.state is Flow.PAUSED:
            self._out.append(effects.PauseTrack(self._run.generation))
        for trigger, effect in self._run.waiting:
            self._add(self._run, trigger, effect, now)

    def _add(self, run: _Run, trigger: PlaybackTrigger, effect: Effect, now: float) -> None:
        if run is not self._run:
            run.waiting.append((trigger, effect))
        elif run.machine.step(trigger, now, self.cause):
            self._out.append(effect)

    def _flow(self, run: _Run, trigger: FlowTrigger, now: float) -> None:
        for action in run.flow.step(trigger, now, self.cause):
            match action:
                case FlowAction.HOLD | FlowAction.GO_ON if run is not self._run:
                    pass  # it has not begun
                case FlowAction.HOLD:
                    self._out.append(effects.PauseTrack(run.generation))
                case FlowAction.GO_ON:
                    self._out.append(effects.ResumeTrack(run.generation))
                case FlowAction.RESTART_LULL:
                    run.flow.restart(FlowTrigger.LULL, now)
                case FlowAction.FINISH:
                    self._add(run, PlaybackTrigger.FINISH, effects.FinishTrack(run.generation), now)

    def _step(self, run: _Run, trigger: PlaybackTrigger, now: float, about: Spoken | TrackFailed | None = None) -> None:
        for action in run.machine.step(trigger, now, self.cause):
            self._act(run, action, now, about)
        if run.machine.done and run is self._run:
            self._over(run, now)

    def _act(self, run: _Run, action: PlaybackAction, now: float, about: Spoken | TrackFailed | None) -> None:
        match action:
            case PlaybackAction.START_TRACK:
                self._out.append(effects.StartTrack(run.generation, run.content))
            case PlaybackAction.STOP_TRACK:
                self._out.append(effects.StopTrack(run.generation))
            case PlaybackAction.FINISH_ENTRY:
                self._out.append(effects.FinishEntry(run.generation))
            case PlaybackAction.TELL_START:
                self._wait.step(InputWaitTrigger.HEARD, now)
                self._tell(TrackStart(track_id=self.track_id, timestamp=self._wall(now), play_id=run.wanted.play_id))
            case PlaybackAction.TELL_INTERRUPTION:
                self._tell_interruption(run, about if isinstance(about, Spoken) else None, now)
            case PlaybackAction.TELL_ERROR if isinstance(about, TrackFailed) and isinstance(run.content, FileTrack):
                self._tell_error(f"filetrack: {run.content.url}", about.problem, None, now)
            case PlaybackAction.TELL_END:
                self._tell_end(run, now)
            case _:
                pass

    def _over(self, run: _Run, now: float) -> None:
        self._run = None
        run.flow.step(FlowTrigger.CLOSE, now)
        if run.replaced:
            self._start_next(now)
            return
        if run.wanted.wait_input:
            self._wait_for, self._wait_since = run.wanted.wait_input, now
            self._wait.step(InputWaitTrigger.PLAYED, now)
        if run.wanted.auto_hangup:
            self._out.append(AutoHangUp())

    # -- events -----------------------------------------------------------------------------------------------------

    def _tell_interruption(self, run: _Run, spoken: Spoken | None, now: float) -> None:
        self._tell(
            Interruption(
                track_id=self.track_id,
                timestamp=self._wall(now),
                play_id=run.wanted.play_id,
                subtitle=run.backlog.text(spoken.entry if spoken else 0),
                position=spoken.position if spoken else None,
                total_duration=spoken.total if spoken else 0,
                current=spoken.current if spoken else 0,
            )
        )

    def _tell_end(self, run: _Run, now: float) -> None:
        self._tell(
            TrackEnd(
                track_id=self.track_id,
                timestamp=self._wall(now),
                duration=max(0, self._wall(now) - self._wall(run.started_at)),
                ssrc=self.ssrc,
                play_id=run.wanted.play_id,
            )
        )

    def _tell_metric(self, run: _Run, fact: Measurement, now: float) -> None:
        number = None if run.streaming else fact.number
        data: dict[str, object] = {"playId": run.wanted.play_id, "cmdSeq": number}
        key, taken = "ttfb", round(1000 * (now - fact.said_at))
        if isinstance(fact, effects.EntrySynthesized):
            data |= {"length": fact.size, "cached": fact.cached}
            data |= {"speaker": fact.speaker} if fact.cached else {}
            key, taken = "completed", 0 if fact.cached else taken
        name = f"{key}.tts.{fact.provider}"
        self._tell(Metrics(timestamp=self._wall(now), key=name, duration=taken, data=data))

    def _tell_error(self, sender: str, problem: str, code: int | None, now: float) -> None:
        event = ErrorEvent(track_id=self.track_id, timestamp=self._wall(now), sender=sender, error=problem, code=code)
        self._out.extend(self._hold_error(event))

    def _tell(self, event: TrackStart | TrackEnd | Interruption | Silence | Metrics) -> None:
        self._out.append(Tell(event))

    def _taken(self) -> list[Output]:
        out, self._out = self._out, []
        return out
