"""A call as a task: its nursery, its inbox, and the performer that turns effects into deeds.

Whatever happens inside, `CallTask.run` returns normally after the call has let go of its leg and its phone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from rustpbx.errors import LocalError, MediaError, OverloadedError, RustpbxError
from rustpbx.journal import Journal
from rustpbx.media.recording.shell.recorder import Recording
from rustpbx.media.webrtc.shell import PeerLeg, PeerWish
from rustpbx.session import effects
from rustpbx.session.call import CallCore
from rustpbx.session.commands import Command
from rustpbx.session.effects import Effect, Input
from rustpbx.session.events import Event
from rustpbx.session.options import CallType, MediaPassOption, RecorderOption
from rustpbx.session.params import Ended, SessionParams
from rustpbx.session.shell.attachment import Attachment
from rustpbx.session.shell.chronicle import Chronicle
from rustpbx.session.shell.copying import copy_audio
from rustpbx.session.shell.listening import listen
from rustpbx.session.shell.passing import PassTrack
from rustpbx.session.shell.services import Services, UnclaimedError
from rustpbx.session.shell.speaking import SpokenPlayback
from rustpbx.session.shell.streaming import StreamedPlayback
from rustpbx.session.shell.track import FilePlayback, Track
from rustpbx.session.tables import Call
from rustpbx.shell.drive import drive
from rustpbx.shell.nurseries import sole_error
from rustpbx.sip.events import HangUp, IncomingCall, Refuse, SendInvite, Wish
from rustpbx.sip.locate import Unlocated

log = Journal(__name__)

HEARING = (Call.TALKING, Call.PARTING)

INBOX = 1000
"""Inputs that may wait for a call. Full means that it is stuck or flooded, so it ends."""


class CallTask:
    """One call. Its methods are synchronous and never wait; only `run` is a task."""

    def __init__(self, core: CallCore, params: SessionParams, services: Services) -> None:
        self.core = core
        self.params = params
        self.attachment: Attachment | None = None
        clock = services.clock
        self._told = 0  # events that were told when the agent was lost
        self.chronicle = Chronicle(core.id, lambda: clock.wall(clock.now()))
        self._services = services
        self._send, self._inbox = trio.open_memory_channel[Input](INBOX)
        self._scope = trio.CancelScope()
        self.broken = False
        self.refer_legs: set[str] = set()
        """The legs of its transfers that are open."""
        self.recording: Recording | None = None
        self._page = None if services.ledger is None else services.ledger.open(core.id)

    @property
    def id(self) -> str:
        """The session id, which is also the leg's."""
        return self.core.id

    @property
    def claimable(self) -> bool:
        """Whether an agent may attach to this incoming call."""
        return self.core.pending and self.attachment is None

    def deliver(self, what: Input) -> None:
        """Hand the call an input. A call that is over ignores it; one whose inbox is full ends."""
        if self._page is not None and isinstance(what, Command):
            self._page.note_command(what)
        try:
            self._send.send_nowait(what)
        except trio.WouldBlock:
            self._break("its inbox is full")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def hear(self, audio: bytes) -> bool:
        """Take audio from the agent's socket, if the call has its far end there; whether it has."""
        if self.params.call_type is not CallType.WEBSOCKET or self.core.state not in HEARING:
            return False
        try:
            self._services.plane.feed(self.id, audio)
        except MediaError as problem:
            self.deliver(effects.BadCommand(str(problem)))
        return True

    def play(self, audio: bytes) -> None:
        """Send audio into the agent's socket."""
        if self.attachment is not None:
            self.attachment.play(audio)

    def tell(self, event: Event) -> None:
        """Tell the agent, and whoever reads along."""
        self._services.watch(event)
        self.chronicle.tell(event)
        if self._page is not None:
            self._page.note_event(event)
        if self.attachment is not None:
            self.attachment.tell(event)

    def _break(self, why: str) -> None:
        log.error("ending it: %s", why, call=self.id)
        self.broken = True
        self._scope.cancel()

    def attach(self) -> Attachment:
        """Reserve the call for an agent."""
        if self._page is not None and self.params.dump:
            self._page.dump()
        self.attachment = Attachment(self.id, self.deliver, self._detached, self.hear)
        if self.core.config.resume_grace:
            self.attachment.first = self.chronicle.count + 1
        self.deliver(effects.AgentReserved())
        return self.attachment

    def resumable(self, params: SessionParams) -> bool:
        """Whether this call waits for its agent, and this is it: with the same token, by the same door."""
        same = (params.token, params.call_type) == (self.params.token, self.params.call_type)
        return same and self.core.parked and self.attachment is None

    def resume(self, after: int | None) -> Attachment:
        """Reserve the call for the agent that it waits for, with what it missed: from behind event `after` on."""
        missed = self.chronicle.since(self._told if after is None else after)
        attachment = self.attach()
        attachment.first = missed[0].seq if missed else self.chronicle.count + 1
        for told in missed:
            attachment.tell(told.event)
        return attachment

    def _detached(self) -> None:
        self.attachment, self._told = None, self.chronicle.count

    async def run(self) -> None:
        """Live until the call is over. A bug of ours ends this call and no other."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    performer = _Performer(self, nursery, self._send, self._services)
                    await drive(self.core, self._inbox, performer.perform)
                    nursery.cancel_scope.cancel()
        except Exception:
            self.broken = True
            log.exception("failed, ending it", call=self.id)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """The shielded end, all of it synchronous: nothing of the call is left anywhere."""
        self._inbox.close()
        self._send.close()
        if not self.core.done:
            self._abandon()
        for leg in self.refer_legs:
            self._hang_up(leg)
            self._services.plane.close_leg(leg)
            self.core.config.release_leg(leg)
        self._services.plane.close_leg(self.id)
        for event in self.core.last_words(trio.current_time()):
            self.tell(event)
        self.chronicle.end()
        if self._page is not None:
            self._page.close(self._ended(), self.recording)
        if self.attachment is not None:
            self.attachment.call_ended()

    def _ended(self) -> Ended:
        """What it knows of itself at its end."""
        return Ended(
            session_id=self.id,
            call_type=self.params.call_type,
            option=self.core.talk.option,
            status=self.core.status,
            refer=self.core.talk.transfers.latest,
        )

    def _hang_up(self, leg: str) -> None:
        """End a leg of a transfer that the core did not."""
        if self._services.stack is not None:
            with suppress(LocalError):  # the stack has stopped before us
                self._services.stack.wish(HangUp(leg))

    def _abandon(self) -> None:
        """End a leg that the core did not: 500 before the answer, else BYE or CANCEL."""
        if self._services.stack is None:
            return
        with suppress(LocalError):  # the stack has stopped before us
            self._services.stack.wish(Refuse(self.id, 500))
            self._services.stack.wish(HangUp(self.id))


class _Performer:
    """Effects become wishes, plane calls and child tasks of the call's nursery."""

    def __init__(
        self, task: CallTask, nursery: trio.Nursery, facts: trio.MemorySendChannel[Input], services: Services
    ) -> None:
        self._task = task
        self._nursery = nursery
        self._facts = facts
        self._services = services
        self._tracks: dict[int, Track] = {}
        self._passing: PassTrack | None = None
        self._ready: dict[str, effects.LegReady] = {}
        self._peer: PeerLeg | None = None

    def perform(self, effect: Effect) -> Input | None:  # noqa: C901, PLR0911, PLR0912, PLR0915 - one case an effect
        """Do one effect; what it returns is the call's next input."""
        leg = self._task.id
        match effect:
            case effects.Tell():
                self._task.tell(effect.event)
            case effects.Announce():
                self._start(lambda: self._announce(effect.call))
            case effects.PrepareDial():
                self._start(lambda: self._prepare_dial(effect))
            case effects.OpenLeg():
                return self._open_leg(effect.host, None)
            case effects.OpenStream():
                return self._open_stream(effect.codec)
            case effects.OpenPeer() | effects.DescribePeer() | effects.TricklePeer():
                return self._to_peer(effect)
            case effects.SetRemote():
                self._services.plane.set_remote(effect.leg or leg, effect.media)
            case effects.JoinLeg():
                self._services.plane.bridge(leg, effect.leg)
                if effect.both:
                    self._services.plane.bridge(effect.leg, leg)
            case effects.CloseLeg():
                self._close_leg(effect.leg)
            case effects.WatchSpeech():
                self._services.plane.watch_speech(leg, effect.params)
            case effects.Denoise():
                self._services.plane.denoise(effect.leg or leg)
            case effects.SeekBeeps():
                self._services.plane.seek_beeps(leg)
            case effects.SeekTones():
                self._services.plane.seek_tones(leg)
            case effects.SetMute():
                self._services.plane.mute(leg, heard=effect.heard, played=effect.played)
            case effects.PressKey():
                return self._press(effect)
            case effects.ReleaseKeys():
                self._services.plane.release(leg)
            case effects.Listen():
                self._start(lambda: self._listen(effect))
            case effects.LimitSilence():
                self._services.plane.limit_silence(leg, effect.seconds)
            case effects.CopyAudio():
                self._start(lambda: copy_audio(leg, self._services, self._task.play))
            case effects.PassMedia():
                self._pass_media(effect.option)
            case effects.FlushPass():
                self._passed().flush()
            case effects.StopPass():
                self._passed().stop()
            case effects.Record():
                return self._record(effect.option)
            case effects.StartTrack():
                self._start_track(effect)
            case effects.Say():
                self._tracks[effect.generation].say(effect.entry)
            case effects.FinishTrack():
                self._tracks[effect.generation].finish()
            case effects.PauseTrack():
                self._tracks[effect.generation].pause()
            case effects.ResumeTrack():
                self._tracks[effect.generation].resume()
            case effects.FinishEntry():
                return self._tracks[effect.generation].finish_entry()
            case effects.StopTrack():
                return self._tracks[effect.generation].stop()
            case _:
                return self._wish(effect)
        return None

    def _wish(self, wish: Wish) -> Input | None:
        """Hand a wish to SIP. One that cannot be written is the agent's mistake in an INVITE, and ours elsewhere."""
        if self._services.stack is None:
            return None
        try:
            self._services.stack.wish(wish)
        except LocalError as problem:
            log.warning("%s cannot be sent: %s", type(wish).__name__, problem, call=self._task.id)
            if isinstance(wish, SendInvite):
                return effects.SetupFailed(str(problem), wish.leg)
            return effects.Broken(str(problem))
        return None

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._guard, work)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """A bug in a child task ends the call, in the order in which calls end."""
        try:
            await work()
        except Exception as problem:
            log.exception("a task failed, ending it", call=self._task.id)
            self._task.deliver(effects.Broken(f"{type(problem).__name__}: {problem}"))

    async def _listen(self, wanted: effects.Listen) -> None:
        await listen(wanted, self._task.id, self._services, self._task.deliver)
        self._task.deliver(effects.ListeningEnded(wanted.leg))

    def _record(self, option: RecorderOption) -> effects.RecordingFailed | None:
        recordings, task = self._services.recordings, self._task
        if recordings is None:
            return effects.RecordingFailed("nothing is recorded here")
        try:
            task.recording = recordings.begin(task.id, option, lambda why: task.deliver(effects.RecordingFailed(why)))
        except MediaError as problem:
            return effects.RecordingFailed(str(problem))
        return None

    async def _announce(self, call: IncomingCall) -> None:
        clock = self._services.clock
        try:
            await self._services.announcer.announce(call, clock.wall(clock.now()))
        except UnclaimedError as problem:
            self._task.deliver(effects.AnnounceFailed(str(problem)))
        except RustpbxError as problem:
            log.warning("nobody took it: %s", problem, call=self._task.id)
            self._task.deliver(effects.AnnounceFailed("webhook failed"))

    async def _prepare_dial(self, dial: effects.PrepareDial) -> None:
        stack = self._services.stack
        if stack is None:
            self._task.deliver(effects.SetupFailed("no SIP user agent is configured", dial.leg))
            return
        found = await stack.locate(stack.first_stop(dial.caller, dial.callee))
        if isinstance(found, Unlocated):
            self._task.deliver(effects.SetupFailed(found.problem, dial.leg))
        else:
            self._task.deliver(self._open_leg(stack.local_host(found[0].address[0]), dial.leg))

    def _open_leg(self, host: str, refer_leg: str | None) -> effects.LegReady | effects.LegUnusable:
        leg = refer_leg or self._task.id
        if leg not in self._ready:
            try:
                opened = self._services.plane.open_leg(leg, self._facts)
            except OverloadedError as problem:
                return effects.LegUnusable(str(problem), leg=refer_leg)
            self._ready[leg] = effects.LegReady(host, opened.port, opened.ssrc, refer_leg)
            if refer_leg is not None:
                self._task.refer_legs.add(refer_leg)
        return self._ready[leg]

    def _open_stream(self, codec: str) -> effects.LegReady | effects.LegUnusable:
        try:
            self._services.plane.open_stream(self._task.id, codec, self._task.play, self._facts)
        except (OverloadedError, MediaError) as problem:
            return effects.LegUnusable(str(problem))
        return effects.LegReady("", 0, 0)

    def _to_peer(self, effect: effects.OpenPeer | effects.DescribePeer | effects.TricklePeer) -> Input | None:
        if isinstance(effect, effects.OpenPeer):
            return self._open_peer(effect)
        assert self._peer is not None  # noqa: S101 - opened before anything else was said of it
        if isinstance(effect, effects.DescribePeer):
            return effects.PeerDescribed(self._peer.describe(effect.offer).end)
        for candidate in effect.candidates:
            self._peer.trickle(candidate)
        return None

    def _close_leg(self, refer_leg: str | None) -> None:
        self._services.plane.close_leg(refer_leg or self._task.id)
        if refer_leg is not None:
            self._task.refer_legs.discard(refer_leg)
        elif self._peer is not None:
            self._peer.close()

    def _open_peer(self, effect: effects.OpenPeer) -> Input | None:
        """Begin with a browser's leg; it says itself when it is ready."""
        if self._peer is not None:
            return self._peer.ready
        if self._services.webrtc is None:
            return effects.LegUnusable("calls with browsers are not possible here")
        wish = PeerWish(
            leg=self._task.id,
            offer=effect.offer,
            signalled_from=effect.signalled_from or self._task.params.remote,
            ipv6=effect.ipv6,
            patience=effect.patience,
        )
        try:
            self._peer = PeerLeg(wish, self._services.webrtc, self._facts, self._task.deliver)
        except OverloadedError as problem:
            return effects.LegUnusable(str(problem))
        peer = self._peer
        self._start(lambda: self._run_peer(peer))
        return None

    async def _run_peer(self, peer: PeerLeg) -> None:
        try:
            with sole_error():
                await peer.run()
        except OverloadedError as problem:
            self._task.deliver(effects.LegUnusable(str(problem)))

    def _press(self, key: effects.PressKey) -> effects.KeyFailed | None:
        leg = key.leg or self._task.id
        try:
            self._services.plane.press(leg, key.digit, duration=key.duration, gap=key.gap, inband=key.inband)
        except MediaError as problem:
            return effects.KeyFailed(str(problem), key.leg)
        return None

    def _pass_media(self, option: MediaPassOption) -> None:
        self._passing = PassTrack(option, self._task.id, self._services, self._task.deliver)
        self._start(self._passing.run)

    def _passed(self) -> PassTrack:
        assert self._passing is not None  # noqa: S101 - it was started before anything else is said of it
        return self._passing

    def _start_track(self, effect: effects.StartTrack) -> None:
        leg, generation = self._task.id, effect.generation
        track: Track
        match effect.content:
            case effects.SpeakTrack(streaming=True):
                track = StreamedPlayback(leg, generation, self._services, self._task.deliver)
            case effects.SpeakTrack() as content:
                track = SpokenPlayback(leg, generation, content, self._services, self._task.deliver)
            case effects.FileTrack() as content:
                track = FilePlayback(leg, generation, content, self._services, self._task.deliver)
        # Only the newest playback is ever spoken of, so the older ones can be forgotten.
        self._tracks = {generation: track}
        self._start(track.run)
