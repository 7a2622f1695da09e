"""One call under everything that agent, phone, plane and speech can do: legal events, one end, nothing left."""

from __future__ import annotations

import base64

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rustpbx.media import events as media
from rustpbx.session import commands, effects
from rustpbx.session.effects import FileTrack, Input
from rustpbx.session.options import (
    CallOption,
    MediaPassOption,
    RecorderOption,
    ReferOption,
    SynthesisOption,
    TranscriptionOption,
    VadOption,
)
from rustpbx.session.tables import Call
from rustpbx.sip import events as sip
from rustpbx.sip.message import NameAddr
from rustpbx.sip.uri import parse_uri
from rustpbx.speech.base import Transcript
from tests.kit.hostile_session import SESSION, TRACK, Played, World
from tests.kit.session import NO_AUDIO, OFFER

UP = ("up", "dialling", "bridged")
"""Stages of a call that has been answered: without a transfer, and with one."""
BODIES = [OFFER, OFFER, OFFER, b"", NO_AUDIO, b"v=0 nonsense"]
OPTIONS = [
    CallOption(callee="sip:bob@192.0.2.9"),
    CallOption(
        callee="sip:bob@192.0.2.9",
        vad=VadOption(),
        asr=TranscriptionOption(),
        tts=SynthesisOption(wait_input_timeout=3000),
    ),
    CallOption(callee="bob@192.0.2.9", asr=TranscriptionOption(start_when_answer=True), denoise=True),
    CallOption(callee="sip:bob@192.0.2.9", media_pass=MediaPassOption(url="ws://192.0.2.8/")),
    CallOption(callee="not an address"),
    CallOption(),
]

play_ids = st.sampled_from([None, "a", "b"])
waits = st.sampled_from([None, 0, 2000])
track_ids = st.sampled_from([None, SESSION, TRACK, "unknown"])
texts = st.sampled_from(["Hello", "", "How are you?", base64.b64encode(bytes(64)).decode()])
tts = st.builds(
    commands.Tts,
    text=texts,
    play_id=play_ids,
    auto_hangup=st.booleans(),
    streaming=st.booleans(),
    end_of_stream=st.booleans(),
    option=st.sampled_from([None, SynthesisOption(provider="p"), SynthesisOption(max_concurrent_tasks=3)]),
    wait_input_timeout=waits,
    base64=st.sampled_from([False, False, True]),
)
play = st.builds(
    commands.Play,
    url=st.sampled_from(["http://a/x.wav", "http://b/y.mp3"]),
    play_id=play_ids,
    auto_hangup=st.booleans(),
    wait_input_timeout=waits,
)
ring = st.builds(
    commands.Ring,
    ringtone=st.sampled_from([None, "http://a/ring.wav"]),
    early_media=st.booleans(),
    recorder=st.sampled_from([None, RecorderOption()]),
)
hang_up = st.builds(
    commands.Hangup,
    reason=st.sampled_from([None, "busy", "done"]),
    initiator=st.sampled_from([None, "caller", "me"]),
    headers=st.sampled_from([None, {"X-Why": "because"}, {"Via": "forged"}, {"X": "a\r\nb"}]),
    after=st.sampled_from([None, None, "drained", "lunch"]),
)
reject = st.builds(commands.Reject, reason=st.sampled_from(["no", "a\r\nb"]), code=st.sampled_from([486, 603]))
interrupt = st.builds(commands.Interrupt, graceful=st.booleans())
refer = st.builds(
    commands.Refer,
    caller=st.just("sip:a@b"),
    callee=st.sampled_from(["sip:c@d", "sip:c@d", "not an address"]),
    options=st.builds(
        ReferOption,
        moh=st.sampled_from([None, "http://a/moh.wav"]),
        timeout=st.sampled_from([None, 5]),
        auto_hangup=st.booleans(),
        asr=st.sampled_from([None, TranscriptionOption()]),
        denoise=st.booleans(),
    ),
    after=st.sampled_from([None, None, "drained"]),
)
others = st.one_of(
    st.builds(commands.Accept, option=st.sampled_from(OPTIONS)),
    st.builds(commands.Invite, option=st.sampled_from(OPTIONS)),
    ring,
    st.builds(commands.Mute, track_id=track_ids),
    st.builds(commands.Unmute, track_id=track_ids),
    refer,
    st.just(commands.History(speaker="user", text="hi")),
    st.just(commands.Candidate()),
)
seldom = st.sampled_from([False] * 19 + [True])
lags = st.sampled_from([False, False, False, True])
"""Whether an input stays in the inbox for a while, with all that come after it."""


class Session(RuleBasedStateMachine):
    """A session from its birth to its end."""

    @initialize(
        incoming=st.booleans(),
        stage=st.sampled_from(["new", "claimed", "up", "up", *UP[1:]]),
        music=st.sampled_from([None, "http://a/moh.wav"]),
        body=st.sampled_from(BODIES),
        option=st.sampled_from(OPTIONS[:4]),
        voice=st.booleans(),
    )
    def start(
        self, *, incoming: bool, stage: str, body: bytes, option: CallOption, voice: bool, music: str | None
    ) -> None:
        """A phone rings, or an agent connects; often the call is well on its way before anything goes wrong."""
        self.world = World(incoming=incoming, default_voice=voice)
        if incoming:
            self.be_called(body if stage == "new" else OFFER)
        if not incoming or stage != "new":
            self.world.post(effects.AgentReserved())
            self.world.post(effects.AgentAttached())
            self.world.attached = True
        if incoming and stage in UP:
            self.accept(option)
        elif not incoming and stage != "new":
            self.invite(option)
            self.prepared(late=False, how="open")
        if not incoming and stage in UP:
            self.world.phone.answered = self.world.phone.confirmed = True
            self.world.post(sip.CallAnswered(SESSION, OFFER))
        if stage in UP[1:]:
            self.begin_transfer(music, answered=stage == "bridged")

    def begin_transfer(self, music: str | None, *, answered: bool) -> None:
        """The agent transfers its caller, and the target rings, or has answered."""
        options = ReferOption(moh=music, asr=TranscriptionOption(), auto_hangup=False)
        self.world.post(commands.Refer(caller="sip:a@b", callee="sip:c@d", options=options))
        (leg,) = self.world.refer_legs
        self.world.post(leg.open())
        if answered:
            self.world.post(leg.tell(sip.CallAnswered(leg.name, OFFER)))

    def be_called(self, body: bytes) -> None:
        """A phone calls."""
        self.world.phone.offered = bool(body)
        self.world.post(
            sip.IncomingCall(
                leg=SESSION,
                caller=NameAddr(parse_uri("sip:phone@192.0.2.9")),
                callee=NameAddr(parse_uri("sip:800@192.0.2.1")),
                headers=(),
                offer=body,
                source=("192.0.2.9", 5060),
                local_host="192.0.2.1",
            )
        )

    # -- the agent ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.alive and not self.world.attached and self.world.core.pending)
    @rule(there=st.sampled_from([True, True, True, False]), late=lags)
    def attach(self, there: bool, late: bool) -> None:
        """An agent claims the call, or fails to."""
        self.world.post(effects.AgentReserved(), late=late)
        if there:
            self.world.post(effects.AgentAttached(), late=late)
            self.world.attached = True
        else:
            self.world.post(effects.AgentGone("the upgrade failed"), late=late)

    @precondition(lambda self: self.alive and self.world.attached)
    @rule(command=tts)
    def say(self, command: commands.Tts) -> None:
        """The agent speaks, at once or to what it said before."""
        self.speak(command, late=False)

    @precondition(lambda self: self.alive and self.world.attached)
    @rule(command=interrupt | st.just(commands.Pause()) | st.just(commands.Resume()), late=lags)
    def hold(self, command: Input, late: bool) -> None:
        """The agent cuts, holds or resumes what plays."""
        self.speak(command, late=late)

    @precondition(lambda self: self.alive and self.world.attached)
    @rule(command=tts | play | play, late=lags)
    def speak(self, command: Input, late: bool) -> None:
        """The agent speaks; what may be spoken at once begins at once."""
        before = list(self.world.tracks)
        talk = self.world.core.talk
        taken = talk.transfers.under_way or talk.passing.on or talk.draining.waits
        at_once = not late and not self.world.inbox and self.world.core.state is Call.TALKING
        known = len(before[-1].entries) if before else 0
        self.world.post(command, late=late)
        if taken and at_once and isinstance(command, commands.Tts | commands.Play):
            assert self.world.tracks == before
        elif at_once and self.world.core.state is Call.TALKING:
            self.check_spoken(command, before, known)

    @precondition(lambda self: self.alive and self.world.attached)
    @rule(command=others, late=lags)
    def command(self, command: Input, late: bool) -> None:
        """The agent wants something, possible or not."""
        self.world.post(command, late=late)

    @precondition(lambda self: self.alive and self.world.attached and self.world.core.pending)
    @rule(option=st.sampled_from(OPTIONS))
    def accept(self, option: CallOption) -> None:
        """The agent takes the call: conversations are reached."""
        self.world.post(commands.Accept(option=option))

    @precondition(lambda self: self.alive and not self.world.phone.incoming and not self.world.preparing)
    @rule(option=st.sampled_from(OPTIONS[:4]))
    def invite(self, option: CallOption) -> None:
        """The agent calls."""
        self.world.post(commands.Invite(option=option))

    @precondition(lambda self: self.alive and self.world.attached)
    @rule(what=st.sampled_from([effects.BadCommand("no such command"), effects.PingSent("1")]), late=lags)
    def babble(self, what: Input, late: bool) -> None:
        """What comes over the socket besides."""
        self.world.post(what, late=late)

    @precondition(lambda self: self.alive and self.world.attached)
    @rule(late=lags, luck=seldom, how=reject | hang_up | st.just(effects.AgentGone("reset")))
    def end(self, late: bool, luck: bool, how: Input) -> None:
        """The agent has enough, or its socket is lost."""
        if luck:
            self.world.attached = not isinstance(how, effects.AgentGone)
            self.world.post(how, late=late)

    # -- the phone ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.phone_facts())
    @rule(data=st.data(), body=st.sampled_from(BODIES), late=lags)
    def phone(self, data: st.DataObject, body: bytes, late: bool) -> None:
        """SIP tells something that it may tell here."""
        kind = data.draw(st.sampled_from(self.phone_facts()))
        phone = self.world.phone
        match kind:
            case "progress":
                self.world.post(sip.CallProgress(SESSION, 183, "Session Progress", body), late=late)
            case "answered":
                phone.answered = phone.confirmed = True
                self.world.post(sip.CallAnswered(SESSION, body), late=late)
            case "confirmed":
                phone.confirmed = True
                self.world.post(sip.CallConfirmed(SESSION, b"" if phone.offered else body), late=late)
            case "offer":
                phone.offers = 1
                self.world.post(sip.OfferReceived(SESSION, body), late=late)
            case "digit":
                self.world.post(sip.DigitReceived(SESSION, "5"), late=late)

    @precondition(lambda self: self.phone_is_up())
    @rule(data=st.data(), late=lags, luck=seldom)
    def phone_ends(self, data: st.DataObject, late: bool, luck: bool) -> None:
        """The phone, or the way to it, ends the call."""
        if not luck:
            return
        phone = self.world.phone
        endings: list[sip.Fact] = [sip.ByeReceived(SESSION), sip.CallLost(SESSION, "no ACK")]
        if phone.incoming and not phone.answered:
            endings.append(sip.CallCancelled(SESSION))
        if not phone.incoming and not phone.answered:
            endings.append(sip.CallRefused(SESSION, 486, "Busy Here"))
        phone.over = True
        self.world.post(data.draw(st.sampled_from(endings)), late=late)

    # -- the target of a transfer -------------------------------------------------------------------------------------

    @precondition(lambda self: self.alive and self.world.attached and self.world.core.state is Call.TALKING)
    @rule(command=refer, late=lags)
    def transfer(self, command: Input, late: bool) -> None:
        """The agent transfers its caller."""
        self.world.post(command, late=late)

    @precondition(lambda self: self.alive and any(leg.preparing for leg in self.world.refer_legs))
    @rule(late=lags, well=st.sampled_from([True, True, True, False]))
    def find_target(self, late: bool, well: bool) -> None:
        """The way to the target is found, in time or not, or it is not."""
        leg = next(leg for leg in self.world.refer_legs if leg.preparing)
        self.world.post(leg.open() if well else leg.lose(), late=late)

    @precondition(lambda self: self.alive and any(leg.is_up for leg in self.world.refer_legs))
    @rule(data=st.data(), late=lags, body=st.sampled_from(BODIES))
    def target(self, data: st.DataObject, late: bool, body: bytes) -> None:
        """It rings, answers, presses keys, wants another codec."""
        leg = next(leg for leg in self.world.refer_legs if leg.is_up)
        self.world.post(leg.tell(data.draw(st.sampled_from(leg.facts(body)))), late=late)

    @precondition(lambda self: self.alive and any(leg.is_up for leg in self.world.refer_legs))
    @rule(data=st.data(), late=lags, luck=st.sampled_from([True, False, False]))
    def target_ends(self, data: st.DataObject, late: bool, luck: bool) -> None:
        """It refuses, hangs up, is lost, or its leg breaks."""
        leg = next(leg for leg in self.world.refer_legs if leg.is_up)
        if luck:
            self.world.post(leg.tell(data.draw(st.sampled_from(leg.endings()))), late=late)

    # -- the plane, speech, the server --------------------------------------------------------------------------------

    @precondition(lambda self: self.alive and self.world.preparing and self.world.leg is None)
    @rule(late=lags, how=st.sampled_from(["open", "open", "open", "lost"]))
    def prepared(self, late: bool, how: str) -> None:
        """The way to the callee is found, or not."""
        self.world.post(self.world.open_leg() if how == "open" else effects.SetupFailed("no such host"), late=late)
        self.world.preparing = False

    @precondition(lambda self: self.alive and self.world.has_leg)
    @rule(data=st.data(), late=lags, kind=st.sampled_from(["speech", "speech", "speech", "quiet", "digit", "failed"]))
    def plane(self, data: st.DataObject, late: bool, kind: str) -> None:
        """The remote party speaks, is silent, presses a key; rarely the leg breaks."""
        world, now = self.world, self.world.now
        if kind == "speech" and world.watching:
            speech = media.SpeechEnded(SESSION, now, now, now) if world.speaking else media.SpeechStarted(SESSION, now)
            world.speaking = not world.speaking
            world.post(speech, late=late)
        elif kind == "quiet" and world.watching and not world.speaking:
            world.post(media.SilenceContinues(SESSION, now - 1, now), late=late)
        elif kind == "digit":
            world.post(media.DigitPressed(SESSION, "7", now), late=late)
        elif kind == "failed" and data.draw(seldom):
            world.post(media.LegFailed(SESSION, "a stage raised"), late=late)

    @precondition(lambda self: self.alive and self.world.passing)
    @rule(problem=st.sampled_from([None, "dropped"]), late=lags)
    def pass_ended(self, *, problem: str | None, late: bool) -> None:
        """The agent's own service leaves, or fails."""
        self.world.post(effects.PassEnded(problem), late=late)

    @precondition(lambda self: self.alive and self.world.listening)
    @rule(late=lags, final=st.booleans(), well=st.booleans())
    def hear(self, late: bool, final: bool, well: bool) -> None:
        """A transcript comes, or the service fails."""
        now = self.world.now
        heard = effects.Heard(Transcript(index=0, text="hi", final=final, started_at=now, ended_at=now))
        self.world.post(heard if well else effects.ListeningFailed("asr", "refused", 401), late=late)

    @precondition(lambda self: self.alive and self.world.listening)
    @rule(late=lags)
    def hear_no_more(self, late: bool) -> None:
        """The service has told its last words."""
        self.world.post(effects.ListeningEnded(), late=late)

    @rule(spoken=st.sampled_from([None, effects.Spoken(0, 300, 900, 3), effects.Spoken(None, 100, 100)]))
    def speaks(self, spoken: effects.Spoken | None) -> None:
        """How far the playback has come when it is next cut."""
        self.world.spoken = spoken

    @precondition(lambda self: self.alive and self.world.tracks)
    @rule(data=st.data(), late=lags)
    def playback(self, data: st.DataObject, late: bool) -> None:
        """A fact of the newest playback, or a late one of those before it."""
        track = data.draw(st.sampled_from([self.world.tracks[-1], *self.world.tracks[-3:]]))
        fact = data.draw(st.sampled_from(self.track_facts(track)))
        if isinstance(fact, effects.TrackPlayedOut | effects.TrackFailed) and track.alive:
            track.ended = True
        self.world.post(fact, late=late)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), luck=seldom, late=lags)
    def mishap(self, data: st.DataObject, luck: bool, late: bool) -> None:
        """Seldom: nobody took the call, a bug, the server's end."""
        facts: list[Input] = [effects.Broken("a bug"), effects.Killed("shutdown")]
        if self.world.announced:
            facts.append(effects.AnnounceFailed("webhook failed"))
        if luck:
            self.world.post(data.draw(st.sampled_from(facts)), late=late)

    # -- time ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.alive)
    @rule(seconds=st.sampled_from([0.1, 0.3, 1.0, 5.0, 12.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.wait_until(self.world.now + seconds)

    @precondition(lambda self: self.alive and self.world.core.deadline().at < self.world.now + 1e6)
    @rule(luck=seldom)
    def wait_for_a_deadline(self, luck: bool) -> None:
        """Time passes to the next limit."""
        if luck:
            self.world.wait_until(self.world.core.deadline().at)

    @precondition(lambda self: self.alive and self.world.leg is None)
    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        """The plane has no place for a leg, or has one again."""
        self.world.full = full

    @rule()
    def drain(self) -> None:
        """The call catches up with its inbox."""
        self.world.drain()

    # -- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def outcomes_are_legal(self) -> None:
        """No `error` before the answer but for a failed set-up, which is the end."""
        if hasattr(self, "world"):
            self.world.story.check_failure()
            if self.world.core.done:
                self.world.check_end(told=self.world.phone.over and self.world.phone.let_go == 0)

    def teardown(self) -> None:
        """Whatever has happened, a kill ends it within seconds."""
        if not hasattr(self, "world") or self.world.failed:
            return
        self.world.post(effects.Killed("shutdown"))
        self.world.wait_until(self.world.now + 1.0)
        self.world.check_end(told=self.world.phone.over and self.world.phone.let_go == 0)
        self.outcomes_are_legal()

    # -- helpers ------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether the call still takes inputs."""
        return not self.world.core.done

    def phone_is_up(self) -> bool:
        """Whether SIP may still tell the leg's end: there is one, and neither side has ended it."""
        phone = self.world.phone
        return self.alive and not phone.over and not phone.let_go and (phone.incoming or phone.invited)

    def phone_facts(self) -> list[str]:
        """What SIP may tell of a leg that goes on."""
        phone = self.world.phone
        if not self.phone_is_up():
            return []
        if not phone.incoming and not phone.answered:
            return ["progress", "answered", "answered"]
        facts = ["digit"]
        if phone.answered and not phone.confirmed:
            facts.append("confirmed")
        if phone.confirmed and not phone.offers:
            facts.append("offer")
        return facts

    def check_spoken(self, command: Input, before: list[Played], known: int) -> None:
        """What a playback command comes to while the call is up."""
        tracks = self.world.tracks
        match command:
            case commands.Play(url=url):
                assert tracks[-1].content == FileTrack(url)
                assert tracks[-1].alive
                assert len(tracks) == len(before) + 1
            case commands.Tts(text=text, base64=False, option=option) if text:
                if self.world.voice or (option is not None and option.provider is not None):
                    assert tracks[-1].alive
                    assert not tracks[-1].paused
                    assert len(tracks[-1].entries) == (known if len(tracks) == len(before) else 0) + 1
                    assert tracks[-1].finished == command.end_of_stream
            case commands.Interrupt(graceful=graceful) if tracks:
                assert not tracks[-1].alive or (graceful and (tracks[-1].fading or tracks[-1].ended))
            case commands.Pause() | commands.Resume() if tracks and tracks[-1].alive:
                assert tracks[-1].paused == isinstance(command, commands.Pause)

    @staticmethod
    def track_facts(track: Played) -> list[Input]:
        """What the shell may tell of a playback; of one that is gone all of it, for it may have been on its way."""
        number = track.generation
        facts: list[Input] = [effects.EntryFailed(number, "tts", "refused", 429), effects.TrackFailed(number, "gone")]
        facts += [effects.EntryWritten(number, entry) for entry in track.entries[-2:]]
        facts += [effects.EntrySounding(number, entry, "scripted", 0.0) for entry in track.entries[-1:]]
        facts += [effects.EntrySynthesized(number, entry, "scripted", 0.0, 320) for entry in track.entries[-1:]]
        if not isinstance(track.content, FileTrack) and track.content.streaming:
            facts += [effects.TrackDry(number), effects.TrackDry(number), effects.TrackSounding(number)]
        if track.may_end or not track.alive:
            facts += [effects.TrackPlayedOut(number)] * 3
        return facts


TestSession = Session.TestCase
TestSession.settings = settings(stateful_step_count=50, deadline=None)
