"""A call core in a world that keeps the contracts of SIP, plane and speech, and otherwise does what it likes.

`World` performs every effect as the shell does and knows what may happen next; an effect that is not possible where the
world stands fails at once. `Story` is the agent's side: the events, and the order they must have.
"""

from __future__ import annotations

import math
from collections import deque

import attrs

from rustpbx.core import Tick
from rustpbx.session import effects, events
from rustpbx.session.call import CallConfig, CallCore
from rustpbx.session.effects import Effect, FileTrack, Input, SpeakTrack
from rustpbx.sip import events as sip
from tests.kit.hostile_leg import ReferLeg
from tests.kit.rounds import while_it_lasts
from tests.kit.session import wall

SESSION = "s1"
TRACK = "T"
READY = effects.LegReady("192.0.2.1", 12000, 77)
UNUSABLE = effects.LegUnusable("no port is free")


class Story:
    """What the agent was told."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []
        self._open: list[tuple[str, str | None]] = []
        self._at = 0
        self._interrupted = False
        self._speaking = False

    @property
    def names(self) -> list[str]:
        """The events by name."""
        return [event.name for event in self.events]

    def told(self, kind: type[events.Event]) -> bool:
        """Whether there was such an event of the call's own."""
        return any(isinstance(event, kind) and not getattr(event, "refer", False) for event in self.events)

    def tell(self, event: events.Event) -> None:  # noqa: C901, PLR0912 - one case an event
        """One more event: legal here, and not earlier than the one before."""
        assert not self.told(events.HungUp), f"{event.name} after hangup"
        if not isinstance(event, events.ErrorEvent):  # one that waited for the answer keeps its own time
            assert event.timestamp >= self._at
            self._at = event.timestamp
        match event:
            case events.TrackStart(track_id=track, play_id=play):
                assert track not in [known for known, _ in self._open], "a track starts twice"
                assert track == SESSION or (SESSION, None) in self._open, "a playback without a session track"
                assert track != SESSION or not self.told(events.TrackStart), "a second session track"
                self._open.append((track, play))
                self._interrupted = False
            case events.Interruption(track_id=track, play_id=play):
                assert (track, play) in self._open, "an interruption of nothing"
                assert not self._interrupted, "interrupted twice"
                self._interrupted = True
            case events.TrackEnd(track_id=track, play_id=play):
                self._open.remove((track, play))
                assert track != SESSION or not self._open, "the session track ends before a playback"
            case events.Ringing(refer=True) | events.Answered(refer=True) | events.Rejected(refer=True):
                assert self.told(events.Answered), "a transfer before the answer"
            case events.HungUp(refer=True):
                assert self.told(events.Answered), "a transfer before the answer"
            case events.Answered():
                early = (events.Answered, events.Rejected, events.ErrorEvent)
                assert not any(map(self.told, early)), self.names
            case events.Rejected():
                assert not self.told(events.Answered), self.names
                assert not self.told(events.Rejected), self.names
            case events.Ringing():
                assert not self.told(events.Answered), self.names
            case events.Speaking():
                assert not self._speaking, "speaking twice"
                self._speaking = True
            case events.Silence(track_id=track) if track == SESSION:
                self._speaking = False
            case events.HungUp():
                assert not self._open, f"{self._open} without trackEnd"
                assert not self._speaking, "speaking without silence"
            case _:
                pass
        self.events.append(event)

    def check_failure(self) -> None:
        """An `error` before the answer, or a `reject`, is the outcome: only ends come after it."""
        kinds = [type(event) for event in self.events if not getattr(event, "refer", False)]
        if events.Answered in kinds:
            kinds = kinds[: kinds.index(events.Answered)]
            assert events.ErrorEvent not in kinds, self.names
            return
        outcomes = [at for at, kind in enumerate(kinds) if kind in {events.ErrorEvent, events.Rejected}]
        assert len(outcomes) <= 1, self.names
        ends = {events.TrackEnd, events.Interruption, events.Silence, events.HungUp}
        assert not outcomes or set(kinds[outcomes[0] + 1 :]) <= ends, self.names


@attrs.define
class Played:
    """One generation as the shell sees it."""

    generation: int
    content: SpeakTrack | FileTrack
    entries: list[int] = attrs.field(factory=list)
    finished: bool = False
    fading: bool = False
    paused: bool = False
    stopped: bool = False
    ended: bool = False

    @property
    def alive(self) -> bool:
        """Whether it may still make a sound."""
        return not self.stopped and not self.ended

    @property
    def may_end(self) -> bool:
        """Whether it can have been played out."""
        whole = isinstance(self.content, FileTrack) and not self.content.loop
        return self.alive and not self.paused and (self.finished or self.fading or whole)


@attrs.define
class Phone:
    """The leg's SIP side, as far as its facts were emitted and its wishes performed."""

    incoming: bool
    offered: bool = False
    invited: bool = False
    answered: bool = False
    confirmed: bool = False
    over: bool = False
    let_go: int = 0
    """How often we have said goodbye: Refuse or HangUp."""
    offers: int = 0
    """Offers of the phone's that wait for us."""


class World:
    """Shell, plane, SIP and agent around one core."""

    def __init__(self, *, incoming: bool, default_voice: bool) -> None:
        self.now = 10.0
        self.failed = False
        """Whether something was wrong: then nothing more can be said of the end."""
        config = CallConfig(
            session_id=SESSION,
            server_side_track=TRACK,
            address="sip:rustpbx@192.0.2.1:5060",
            default_voice=default_voice,
        )
        self.voice = default_voice
        self.core = CallCore(config, wall, 42, self.now)
        self.story = Story()
        self.phone = Phone(incoming)
        self.tracks: list[Played] = []
        self.inbox: deque[Input] = deque()
        self.spoken: effects.Spoken | None = effects.Spoken(0, 200, 900, 2)
        self.full = False
        self.attached = False
        self.announced = False
        self.preparing = False
        self.leg: effects.LegReady | None = None
        self.closed = False
        self.watching = False
        self.recording = False
        self.listening = False
        self.passing = False
        self.speaking = False
        self.refer_legs: list[ReferLeg] = []

    # -- inputs -------------------------------------------------------------------------------------------------------

    def post(self, what: Input, *, late: bool = False) -> None:
        """Put an input behind the others; unless it is `late`, all of them are taken now."""
        self.inbox.append(what)
        if not late:
            self.drain()

    def drain(self) -> None:
        """Let the call take what waits for it; one that is over takes nothing more."""
        while self.inbox and not self.core.done:
            self._settle(self.inbox.popleft())

    def wait_until(self, when: float) -> None:
        """Time passes, stopping at every deadline on the way."""
        self.drain()
        for _ in while_it_lasts(lambda: not self.core.done and self.core.deadline().at <= when):
            self.now = max(self.now, self.core.deadline().at)
            self._settle(Tick())
        self.now = max(self.now, when) if when < math.inf else self.now

    def _settle(self, first: Input | Tick) -> None:
        self.failed = True
        pending: deque[Input | Tick] = deque([first])
        for _ in while_it_lasts(lambda: pending):
            for effect in self.core.handle(pending.popleft(), self.now):
                answer = self._perform(effect)
                if answer is not None:
                    pending.append(answer)
        assert self.core.deadline().at >= self.now
        self.failed = False

    # -- effects ------------------------------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> Input | None:  # noqa: C901, PLR0912 - one case an effect
        name = getattr(effect, "leg", None)
        if name not in (None, SESSION):
            return self._refer_leg(effect, str(name)).perform(effect)
        match effect:
            case effects.Tell(event=event):
                self.story.tell(event)
            case effects.Announce():
                assert self.phone.incoming
                assert not self.announced
                self.announced = True
            case effects.PrepareDial():
                assert not self.phone.incoming
                assert not self.preparing
                self.preparing = True
            case effects.OpenLeg():
                return self.open_leg()
            case effects.CloseLeg():
                assert self.leg is not None
                assert not self.closed
                assert not any(track.alive for track in self.tracks)
                self.closed = True
            case (
                effects.SetRemote()
                | effects.SetMute()
                | effects.SeekTones()
                | effects.Denoise()
                | effects.CopyAudio()
                | effects.LimitSilence()
            ):
                assert self.has_leg
            case effects.PassMedia():
                assert self.has_leg
                assert not self.passing
                self.passing = True
            case effects.FlushPass():
                assert self.passing
            case effects.StopPass():
                assert self.passing
                self.passing = False
            case effects.WatchSpeech():
                assert self.has_leg
                assert not self.watching
                self.watching = True
            case effects.Record():
                assert self.has_leg
                assert not self.recording
                self.recording = True
            case effects.Listen():
                assert self.has_leg
                assert not self.listening
                self.listening = True
            case effects.StartTrack():
                self._start(effect)
            case effects.Say():
                track = self._alive(effect.generation)
                assert isinstance(track.content, SpeakTrack)
                assert not track.finished
                assert not track.fading
                assert effect.entry.number == len(track.entries)
                track.entries.append(effect.entry.number)
            case effects.FinishTrack():
                track = self._alive(effect.generation)
                assert isinstance(track.content, SpeakTrack)
                assert not track.finished
                track.finished = True
            case effects.PauseTrack():
                track = self._known(effect.generation)
                assert not track.paused
                track.paused = True
            case effects.ResumeTrack():
                track = self._known(effect.generation)
                assert track.paused
                track.paused = False
            case effects.StopTrack():
                track = self._known(effect.generation)
                track.stopped = True
                return effects.TrackStopped(track.generation, self.spoken)
            case effects.FinishEntry():
                return self._fade(self._known(effect.generation))
            case _:
                self._wish(effect)
        return None

    def _refer_leg(self, effect: Effect, name: str) -> ReferLeg:
        if isinstance(effect, effects.PrepareDial):
            assert all(leg.closed or not leg.ready for leg in self.refer_legs), "two transfers at once"
            self.refer_legs.append(ReferLeg(name))
        (leg,) = [leg for leg in self.refer_legs if leg.name == name]
        return leg

    @property
    def has_leg(self) -> bool:
        """Whether media flows, or could."""
        return self.leg is not None and not self.closed

    def open_leg(self) -> effects.LegReady | effects.LegUnusable:
        """Open it, unless the plane is full."""
        assert not self.closed
        if self.leg is None and self.full:
            return UNUSABLE
        self.leg = READY
        return READY

    def _start(self, effect: effects.StartTrack) -> None:
        assert self.has_leg
        assert not self.tracks or effect.generation > self.tracks[-1].generation
        assert not any(track.alive for track in self.tracks), "the playback before it was not stopped"
        self.tracks.append(Played(effect.generation, effect.content))

    def _known(self, generation: int) -> Played:
        """The newest playback, which alone may be spoken of, and which was not stopped before."""
        assert self.has_leg
        track = self.tracks[-1]
        assert generation == track.generation
        assert not track.stopped
        return track

    def _alive(self, generation: int) -> Played:
        track = self._known(generation)
        assert not track.fading
        return track

    def _fade(self, track: Played) -> effects.TrackFinishing | effects.TrackStopped:
        assert not track.fading
        if self.spoken is None or track.ended:
            track.stopped = True
            return effects.TrackStopped(track.generation, None)
        track.fading = True
        return effects.TrackFinishing(track.generation, self.spoken)

    def _wish(self, wish: Effect) -> None:
        phone = self.phone
        match wish:
            case sip.SendInvite():
                assert self.has_leg
                assert not phone.incoming
                assert not phone.invited
                phone.invited = True
            case sip.Ring():
                assert phone.incoming
                assert not phone.answered
                assert not phone.let_go
            case sip.Answer():
                assert self.has_leg
                assert phone.incoming
                assert not phone.answered
                assert not phone.let_go
                phone.answered = True
            case sip.Refuse():
                assert phone.incoming
                assert not phone.answered
                phone.let_go += 1
            case sip.HangUp():
                assert phone.answered or not phone.incoming
                phone.let_go += 1
            case effects.PressKey() | effects.ReleaseKeys() | sip.SendDigit():
                assert self.has_leg
            case sip.AcceptOffer() | sip.RefuseOffer():
                assert phone.offers == 1
                phone.offers = 0
            case _:
                raise AssertionError(f"an unexpected {wish}")
        assert phone.let_go <= 1, "goodbye said twice"

    # -- the end ------------------------------------------------------------------------------------------------------

    def check_end(self, *, told: bool) -> None:
        """The call is over: all ends told, the leg given back, goodbye said if it was owed. `told`: by the phone."""
        assert self.core.done
        assert self.core.deadline().at == math.inf
        assert [event.refer for event in self.story.events if isinstance(event, events.HungUp)].count(False) == 1
        assert self.story.names[-1] == "hangup"
        for leg in self.refer_legs:
            leg.check_end()
        assert not any(track.alive for track in self.tracks)
        assert self.closed == (self.story.told(events.TrackStart))
        owed = self.phone.incoming or self.phone.invited
        if owed:
            assert self.phone.let_go == (0 if told else 1)
