"""The server-side track: what the agent lets the remote party hear, one playback at a time.

A sans-IO core below the call. It owns the playback's state; the shell plays and reports counters. Every playback has
a generation, so a fact about one that is gone is told by its number and dropped.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from rustpbx.core import Deadline
from rustpbx.machine import Machine
from rustpbx.session.effects import (
    Effect,
    Entry,
    EntryFailed,
    EntryWritten,
    FileTrack,
    FinishEntry,
    FinishTrack,
    Say,
    SpeakTrack,
    Spoken,
    StartTrack,
    StopTrack,
    Tell,
    TrackFailed,
    TrackFinishing,
    TrackPlayedOut,
    TrackStopped,
)
from rustpbx.session.events import ErrorEvent, Interruption, Silence, TrackEnd, TrackStart
from rustpbx.session.options import SynthesisOption
from rustpbx.session.tables import (
    INPUT_WAIT,
    PLAYBACK,
    InputWaitTrigger,
    Playback,
    PlaybackAction,
    PlaybackTrigger,
)

MAX_ENTRIES = 1000
"""Utterances that may wait in one playback; an agent that is further ahead is out of control."""
KEPT_TEXTS = 100
"""Texts remembered behind the last one written: one of them is being heard."""


@attrs.frozen
class AutoHangUp:
    """To the call: a playback that was to end it is over."""


Output = Effect | AutoHangUp
PlaybackFact = TrackStopped | TrackFinishing | TrackPlayedOut | TrackFailed | EntryWritten | EntryFailed


@attrs.frozen(kw_only=True)
class Wanted:
    """What a `tts` or `play` command asks of its playback besides the audio. `wait_input` is in seconds."""

    play_id: str | None
    auto_hangup: bool = False
    wait_input: float | None = None


@attrs.define
class _Run:
    """One generation."""

    generation: int
    content: SpeakTrack | FileTrack
    wanted: Wanted
    started_at: float
    machine: Machine[Playback, PlaybackTrigger, PlaybackAction]
    said: int = 0
    written: int = 0
    texts: dict[int, str] = attrs.field(factory=dict)
    """What is being heard, by the entry's number, and what waits."""
    replaced: bool = False
    waiting: list[tuple[PlaybackTrigger, Effect]] = attrs.field(factory=list)
    """What was added before the playback in front of it was cut."""


class ServerTrack:
    """All playbacks of one call. Methods take `now` and return effects, and `AutoHangUp` for the call."""

    def __init__(self, track_id: str, wall: Callable[[float], int]) -> None:
        self.track_id = track_id
        self._wall = wall
        self.ssrc = 0
        self._run: _Run | None = None
        self._next: _Run | None = None
        self._generations = 0
        self._out: list[Output] = []
        self._wait = Machine(INPUT_WAIT, lambda _: self._wait_for)
        self._wait_for = 0.0
        self._wait_since = 0.0

    @property
    def busy(self) -> bool:
        """Whether a playback is alive."""
        return self._run is not None

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

    def speak(
        self, wanted: Wanted, now: float, *, text: str, pcm: bytes | None, option: SynthesisOption, finish: bool
    ) -> list[Output]:
        """Append to the open playback of the same playId, or begin one; an empty `text` says nothing."""
        if not self.accepts(wanted.play_id):
            self._begin(SpeakTrack(option.max_concurrent_tasks or 1), wanted, now)
        run = self._next or self._run
        assert run is not None  # noqa: S101 - _begin has just made one
        run.wanted = wanted
        if text or pcm is not None:
            if run.said - run.written >= MAX_ENTRIES:
                self._tell_error("tts", f"more than {MAX_ENTRIES} texts wait in this playback", None, now)
            else:
                entry = Entry(run.said, text, option, pcm)
                run.texts[run.said] = text if pcm is None else ""
                run.said += 1
                self._add(run, PlaybackTrigger.SAY, Say(run.generation, entry), now)
        if finish:
            self._add(run, PlaybackTrigger.FINISH, FinishTrack(run.generation), now)
        return self._taken()

    def play(self, wanted: Wanted, url: str, now: float, *, loop: bool = False) -> list[Output]:
        """Play a file in place of whatever plays."""
        self._begin(FileTrack(url, loop), wanted, now)
        return self._taken()

    def interrupt(self, now: float, *, graceful: bool = False) -> list[Output]:
        """Cut what plays; silent if nothing does. Only utterances can be let finish."""
        if self._run is not None:
            gently = graceful and isinstance(self._run.content, SpeakTrack)
            self._step(self._run, PlaybackTrigger.STOP_GRACEFULLY if gently else PlaybackTrigger.STOP, now)
        return self._taken()

    def retire_ringtone(self, now: float) -> list[Output]:
        """The call is answered: a looping file has had its time."""
        if self._run is not None and isinstance(self._run.content, FileTrack) and self._run.content.loop:
            self._step(self._run, PlaybackTrigger.RETIRE, now)
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
            case TrackStopped():
                self._step(run, PlaybackTrigger.STOPPED, now, fact.spoken)
            case TrackFinishing():
                self._step(run, PlaybackTrigger.FINISHING, now, fact.spoken)
            case TrackPlayedOut():
                self._step(run, PlaybackTrigger.PLAYED_OUT, now)
            case TrackFailed():
                self._step(run, PlaybackTrigger.FAILED, now, fact)
            case EntryWritten():
                run.written = fact.number + 1
                run.texts.pop(fact.number - KEPT_TEXTS, None)
            case EntryFailed():
                self._tell_error(fact.sender, fact.problem, fact.code, now)
        return self._taken()

    def tick(self, now: float) -> list[Output]:
        """Let time pass."""
        for trigger in self._wait.fired(now):
            if self._wait.step(trigger, now):
                since, lasted = self._wall(self._wait_since), round(self._wait_for * 1000)
                self._tell(
                    Silence(track_id=self.track_id, timestamp=self._wall(now), start_time=since, duration=lasted)
                )
        return self._taken()

    def deadline(self) -> Deadline:
        """When to tick next."""
        return self._wait.deadline()

    # -- steps ------------------------------------------------------------------------------------------------------

    def _begin(self, content: SpeakTrack | FileTrack, wanted: Wanted, now: float) -> None:
        self._generations += 1
        label = f"playback {self._generations}"
        self._next = _Run(self._generations, content, wanted, now, Machine(PLAYBACK, label=label))
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
        for trigger, effect in self._run.waiting:
            self._add(self._run, trigger, effect, now)

    def _add(self, run: _Run, trigger: PlaybackTrigger, effect: Effect, now: float) -> None:
        if run is not self._run:
            run.waiting.append((trigger, effect))
        elif run.machine.step(trigger, now):
            self._out.append(effect)

    def _step(self, run: _Run, trigger: PlaybackTrigger, now: float, about: Spoken | TrackFailed | None = None) -> None:
        for action in run.machine.step(trigger, now):
            self._act(run, action, now, about)
        if run.machine.done and run is self._run:
            self._over(run, now)

    def _act(self, run: _Run, action: PlaybackAction, now: float, about: Spoken | TrackFailed | None) -> None:
        match action:
            case PlaybackAction.START_TRACK:
                self._out.append(StartTrack(run.generation, run.content))
            case PlaybackAction.STOP_TRACK:
                self._out.append(StopTrack(run.generation))
            case PlaybackAction.FINISH_ENTRY:
                self._out.append(FinishEntry(run.generation))
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
                subtitle=run.texts.get(spoken.entry if spoken else 0) or None,
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

    def _tell_error(self, sender: str, problem: str, code: int | None, now: float) -> None:
        self._tell(
            ErrorEvent(track_id=self.track_id, timestamp=self._wall(now), sender=sender, error=problem, code=code)
        )

    def _tell(self, event: TrackStart | TrackEnd | Interruption | Silence | ErrorEvent) -> None:
        self._out.append(Tell(event))

    def _taken(self) -> list[Output]:
        out, self._out = self._out, []
        return out
