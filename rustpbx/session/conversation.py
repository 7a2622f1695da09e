"""What is said and heard on a call: everything between its two parties that does not change where the call stands."""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import attrs

from rustpbx.media import events as media
from rustpbx.session import commands, effects
from rustpbx.session.detection import Detector
from rustpbx.session.draining import Draining
from rustpbx.session.effects import Input
from rustpbx.session.hearing import Hearing
from rustpbx.session.keying import KeyFact, Keys
from rustpbx.session.options import CallOption, SynthesisOption, merge_synthesis, synthesis_problem
from rustpbx.session.passing import MediaPass
from rustpbx.session.playback import Measurement, Output, PlaybackFact, ServerTrack, Speech, Wanted
from rustpbx.session.pressing import Presses
from rustpbx.session.processing import instead
from rustpbx.session.referring import ReferFact, Transfers
from rustpbx.session.reporting import Reporter
from rustpbx.session.triggers import Internal
from rustpbx.sip import events as sip

MAX_HELD = 200
MAX_HELD_SIZE = 10 * 1024 * 1024
"""Playback commands, and characters of them, kept until media exists; an agent that sends more before the answer is
out of control.
"""


Holdable = commands.Tts | commands.Play | commands.Pause | commands.Resume | commands.Dtmf


class Conversation:
    """Playback commands down, what was heard up. `option` is what the agent asked of the call.

    `default_voice` says whether a text can be spoken where no option names a provider.
    """

    def __init__(
        self,
        track: ServerTrack,
        report: Reporter,
        transfers: Transfers,
        *,
        default_voice: bool = True,
    ) -> None:
        self.track = track
        self.transfers = transfers
        self.passing = MediaPass(report, track)
        self.keys = Keys(report)
        self.detector = Detector(report)
        self.option = CallOption()
        self._report = report
        self._default_voice = default_voice
        self._held: deque[Holdable] = deque()
        self._ready = False
        self.hearing = Hearing(report)
        self._muted: set[str] = set()
        self.draining = Draining(track, report)
        self._presses = Presses()
        self._targets_presses = Presses()

    def handle(self, what: Input | Internal, now: float, *, ready: bool) -> list[Output]:
        """Take one input; anything that is not its own is ignored. `ready` says whether playback may begin."""
        self._ready = ready
        handler = self._HANDLERS.get(type(what))
        return [] if handler is None else handler(self, what, now)

    def of_leg(self, what: Input, now: float) -> list[Output]:
        """Take a fact of a refer leg. The keys of who is talked to there are for the remote party alone."""
        if isinstance(what, media.DigitPressed | sip.DigitReceived):
            inband = isinstance(what, media.DigitPressed) and what.inband
            if inband or not self.transfers.bridged or not self._targets_presses.new(what, now):
                return []
            return [*self.keys.press(commands.Dtmf(digits=what.digit), now)]
        return self.transfers.of_leg(what, now)

    def release(self, now: float) -> list[Output]:
        """Media is there: play what was held, in the order it came."""
        held, self._held = self._held, deque()
        played = [output for command in held for output in self._play(command, now)]
        return [*played, *self.draining.released(now)]

    def drained(self) -> list[Output]:
        """What was to be done after the last word, if that has left us."""
        return self.draining.due(held=bool(self._held))

    def forget_held(self) -> None:
        """The agent that wanted it is gone."""
        self._held.clear()

    def mutes(self) -> list[Output]:
        """What is muted, for a leg that has just been opened."""
        return [self._mute()] if self._muted else []

    def close(self, now: float) -> list[Output]:
        """The call ends, and with it what was being said: each `speaking` has its `silence`."""
        self._held.clear()
        self.keys.close(now)
        self.detector.close(now)
        return [*self.hearing.close(now), *self.transfers.close(now), *self.passing.close(now), *self.track.close(now)]

    # -- playback ---------------------------------------------------------------------------------------------------

    def _on_playback(self, command: Holdable, now: float) -> list[Output]:
        if isinstance(command, commands.Tts | commands.Play):
            refusal = self.draining.refusal(command)
            if refusal is not None:
                return [*self._report.error(command.name, refusal, None, now)]
        if self._ready:
            return self._play(command, now)
        problem = self._too_much(command)
        if problem is None:
            self._held.append(command)
            return []
        return [*self._report.error(command.name, f"{problem} before the answer", None, now)]

    def _too_much(self, command: Holdable) -> str | None:
        if len(self._held) >= MAX_HELD:
            return f"more than {MAX_HELD} commands"
        if sum(map(_size, self._held)) + _size(command) > MAX_HELD_SIZE:
            return f"more than {MAX_HELD_SIZE // 1024 // 1024} MB of text and audio"
        return None

    def _play(self, command: Holdable, now: float) -> list[Output]:
        if isinstance(command, commands.Tts | commands.Play):
            self.hearing.turns.command(now)
        match command:
            case commands.Pause():
                return self.track.pause(now)
            case commands.Resume():
                return self.track.resume(now)
            case commands.Dtmf():
                return [*self.keys.press(command, now)]
            case commands.Tts() | commands.Play() if self._taken_by:
                problem = f"{command.name} is not possible during a {self._taken_by}: the server-side track is taken"
                return [*self._report.error(command.name, problem, None, now)]
            case commands.Tts():
                return self._speak(command, now)
            case commands.Play():
                return self.track.play(_wanted(command, command.play_id or command.url, None), command.url, now)

    @property
    def _taken_by(self) -> str:
        """What has the server-side track instead of playbacks; "" for nothing."""
        if self.transfers.under_way:
            return "transfer"
        return "media pass" if self.passing.on else ""

    def _speak(self, command: commands.Tts, now: float) -> list[Output]:
        option = self._synthesis(command)
        wanted = _wanted(command, command.play_id, option.wait_input_timeout)
        speech = Speech(
            text="" if command.base64 else command.text,
            option=option,
            streaming=command.streaming,
            finish=command.end_of_stream,
            cache_key=command.cache_key or option.cache_key,
        )
        problem = None
        if command.base64:
            try:
                speech = attrs.evolve(speech, pcm=base64.b64decode(command.text, validate=True))
            except (binascii.Error, ValueError):
                problem = "text is not valid base64"
        elif command.text and (problem := synthesis_problem(option)) is not None:
            speech = attrs.evolve(speech, text="")
        elif command.text and option.provider is None and not self._default_voice:
            problem = "no tts option available"
            if not self.track.accepts(command.play_id):
                return [*self._report.error("tts", problem, None, now)]
            speech = attrs.evolve(speech, text="")
        self.hearing.barge_in.says(speech.text, anew=not self.track.busy)
        errors = [] if problem is None else self._report.error("tts", problem, None, now)
        return [*errors, *self.track.speak(wanted, speech, now)]

    def _synthesis(self, command: commands.Tts) -> SynthesisOption:
        option = merge_synthesis(self.option.tts, command.option)
        return option if command.speaker is None else attrs.evolve(option, speaker=command.speaker)

    def _on_interrupt(self, command: commands.Interrupt, now: float) -> list[Output]:
        self._held.clear()
        return [*self.keys.stop(now), *self.passing.flush(now), *self.track.interrupt(now, graceful=command.graceful)]

    def _on_key_fact(self, fact: KeyFact, now: float) -> list[Output]:
        return [*self.keys.handle(fact, now)]

    def _on_playback_fact(self, fact: PlaybackFact, now: float) -> list[Output]:
        return self.track.handle(fact, now)

    def _on_measured(self, fact: Measurement, now: float) -> list[Output]:
        if isinstance(fact, effects.EntrySounding):
            self.hearing.turns.audio(now)
        return self.track.measured(fact, now)

    def _on_track_begun(self, fact: effects.TrackBegun, now: float) -> list[Output]:
        play_id = self.track.play_id(fact.generation)
        return [effects.Tell(metric) for metric in self.hearing.turns.heard(play_id, now)]

    # -- the other commands -----------------------------------------------------------------------------------------

    def _on_history(self, command: commands.History, now: float) -> list[Output]:
        return [effects.Tell(self._report.history(command.speaker, command.text, now))]

    def _on_mute(self, command: commands.Mute, _: float) -> list[Output]:
        """Named tracks stay muted until `unmute`; without a name only the tracks that exist now are meant."""
        known = {self._report.session_id, self.track.track_id}
        if command.track_id is None:
            known &= {self._report.session_id} | (
                {self.track.track_id} if self.track.busy or self.transfers.under_way else set()
            )
        else:
            known &= {command.track_id}
        return self._set_muted(self._muted | known)

    def _on_unmute(self, command: commands.Unmute, _: float) -> list[Output]:
        return self._set_muted(set() if command.track_id is None else self._muted - {command.track_id})

    def _set_muted(self, muted: set[str]) -> list[Output]:
        changed, self._muted = muted != self._muted, muted
        return [self._mute()] if changed and self._report.track_started_at is not None else []

    def _mute(self) -> effects.SetMute:
        return effects.SetMute(heard=self._report.session_id in self._muted, played=self.track.track_id in self._muted)

    def _on_refer(self, command: commands.Refer, now: float) -> list[Output]:
        outputs = self.transfers.refer(command, now, ready=self._ready and self._report.answered_at is not None)
        # A transfer by a call of ours takes the server-side track.
        return [*(self.passing.close(now) if self.transfers.under_way else []), *outputs]

    def _on_referred(self, command: commands.Referred, now: float) -> list[Output]:
        return [*self.transfers.report(command, now)]

    def _on_replaced(self, fact: sip.PeerReplaced, now: float) -> list[Output]:
        return [effects.Tell(self._report.replaced(fact.caller, now))]

    def _on_refer_fact(self, fact: ReferFact, now: float) -> list[Output]:
        return [*self.transfers.handle(fact, now)]

    def _on_bad_command(self, what: effects.BadCommand, now: float) -> list[Output]:
        return [*self._report.error("command", what.problem, None, now)]

    # -- what was heard ---------------------------------------------------------------------------------------------

    def _only_detects(self) -> bool:
        """Whether speech is watched for the detector alone, and nobody asked to be told of it."""
        return self.option.vad is None and self.option.amd is not None

    def _on_speech_started(self, fact: media.SpeechStarted, now: float) -> list[Output]:
        found: list[Output] = [*self.detector.handle(fact, now)]
        if self._only_detects():
            return found
        self.track.heard(now)
        return [*self.hearing.began(fact, now, speaking=self.track.busy), *found]

    def _on_speech_ended(self, fact: media.SpeechEnded, now: float) -> list[Output]:
        found: list[Output] = [*self.detector.handle(fact, now)]
        if self._only_detects():
            return found
        return [*self.hearing.ended(fact, now, speaking=self.track.busy), *found]

    def _on_silence(self, fact: media.SilenceContinues, now: float) -> list[Output]:
        return [*self.hearing.silent(fact, now)]

    def _on_watch_failed(self, fact: media.WatchFailed, now: float) -> list[Output]:
        problem, params = instead(self.option.vad, fact)
        return [*self._report.error("vad", problem, None, now), effects.WatchSpeech(params)]

    def _on_denoise_failed(self, fact: media.DenoiseFailed, now: float) -> list[Output]:
        return [*self._report.error("denoise", f"denoise is not available: {fact.problem}", None, now)]

    def _on_digit(self, fact: media.DigitPressed | sip.DigitReceived, now: float) -> list[Output]:
        if self._report.session_id in self._muted or not self._presses.new(fact, now):
            return []
        self.track.heard(now)
        # Tones in the audio reach a transfer's target with it.
        inband = isinstance(fact, media.DigitPressed) and fact.inband
        passed = [] if inband else self.transfers.press(fact.digit)
        return [effects.Tell(self._report.dtmf(fact.digit, now)), *passed]

    def _on_heard(self, fact: effects.Heard, now: float) -> list[Output]:
        if self.transfers.private:
            return []
        self.track.heard(now)
        told = self.hearing.heard(fact.transcript, now, speaking=self.track.busy)
        return [*told, *self.detector.handle(fact, now)]

    def _on_beep(self, fact: media.BeepHeard, now: float) -> list[Output]:
        return [*self.detector.handle(fact, now)]

    def _on_pass_ended(self, fact: effects.PassEnded, now: float) -> list[Output]:
        return [*self.passing.handle(fact, now)]

    def _on_listening_failed(self, fact: effects.ListeningFailed, now: float) -> list[Output]:
        return [*self._report.error(fact.sender, fact.problem, fact.code, now)]

    def _on_recording_failed(self, fact: effects.RecordingFailed, now: float) -> list[Output]:
        return [*self._report.error("recorder", fact.problem, None, now)]

    _HANDLERS: ClassVar[Mapping[type, Callable[[Conversation, Any, float], list[Output]]]] = {
        commands.Tts: _on_playback,
        commands.Play: _on_playback,
        commands.Interrupt: _on_interrupt,
        commands.History: _on_history,
        commands.Pause: _on_playback,
        commands.Resume: _on_playback,
        commands.Refer: _on_refer,
        commands.Referred: _on_referred,
        commands.Dtmf: _on_playback,
        commands.Mute: _on_mute,
        commands.Unmute: _on_unmute,
        effects.BadCommand: _on_bad_command,
        effects.TrackStopped: _on_playback_fact,
        effects.TrackFinishing: _on_playback_fact,
        effects.TrackPlayedOut: _on_playback_fact,
        effects.TrackDry: _on_playback_fact,
        effects.TrackSounding: _on_playback_fact,
        effects.TrackBegun: _on_track_begun,
        effects.TrackFailed: _on_playback_fact,
        effects.EntryWritten: _on_playback_fact,
        effects.EntrySounding: _on_measured,
        effects.EntrySynthesized: _on_measured,
        effects.EntryFailed: _on_playback_fact,
        effects.Heard: _on_heard,
        effects.ListeningFailed: _on_listening_failed,
        effects.PassEnded: _on_pass_ended,
        effects.RecordingFailed: _on_recording_failed,
        media.SpeechStarted: _on_speech_started,
        media.SpeechEnded: _on_speech_ended,
        media.SilenceContinues: _on_silence,
        media.WatchFailed: _on_watch_failed,
        media.DenoiseFailed: _on_denoise_failed,
        media.BeepHeard: _on_beep,
        media.KeyReleased: _on_key_fact,
        effects.KeyFailed: _on_key_fact,
        sip.DigitSent: _on_key_fact,
        sip.PeerReplaced: _on_replaced,
        sip.ReferReceived: _on_refer_fact,
        sip.ReferProgress: _on_refer_fact,
        sip.ReferEnded: _on_refer_fact,
        media.DigitPressed: _on_digit,
        sip.DigitReceived: _on_digit,
    }


def _wanted(command: commands.Tts | commands.Play, play_id: str | None, default_wait: int | None) -> Wanted:
    wait = command.wait_input_timeout if command.wait_input_timeout is not None else default_wait
    return Wanted(play_id=play_id, auto_hangup=command.auto_hangup, wait_input=wait / 1000 if wait else None)


def _size(command: Holdable) -> int:
    match command:
        case commands.Tts():
            return len(command.text)
        case commands.Play():
            return len(command.url)
    return 0
