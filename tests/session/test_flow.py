"""The server-side track: streaming texts, pause and resume, mute."""

from __future__ import annotations

import pytest

from rustpbx.media import events as media
from rustpbx.session import commands, effects, events
from rustpbx.session.effects import Effect, Spoken
from rustpbx.session.options import CallOption
from rustpbx.session.playback import LULL
from rustpbx.sip import events as sip
from tests.kit.session import Bench, errors, names, talking, told, track_work, wall

# -- streaming ------------------------------------------------------------------------------------------------------


def stream(bench: Bench, text: str, **fields: object) -> list[Effect]:
    """One piece of a streaming text."""
    return bench.give(commands.Tts(text=text, play_id="p", streaming=True, **fields))  # type: ignore[arg-type]  # named right


def test_streaming_is_decided_by_the_first_command_of_a_track() -> None:
    """A later value changes nothing, in neither direction; a new track decides anew."""
    for first in (True, False):
        bench = talking()
        out = bench.give(commands.Tts(text="a", play_id="p", streaming=first))
        assert effects.StartTrack(1, effects.SpeakTrack(1, first)) in out
        assert track_work(bench.give(commands.Tts(text="b", play_id="p", streaming=not first))) == ["Say"]
        out = bench.give(commands.Tts(text="c", play_id="q", streaming=not first))
        assert effects.StartTrack(2, effects.SpeakTrack(1, not first)) in out


def test_a_streaming_playback_that_had_audio_ends_after_ten_quiet_seconds() -> None:
    """No `endOfStream` ever came: it is finished all the same, ends, and the wait for input begins."""
    bench = talking()
    stream(bench, "hello", wait_input_timeout=2000)
    assert bench.wait(60) == []
    bench.give(effects.TrackDry(1))
    assert bench.wait(LULL - 0.1) == []
    assert track_work(bench.wait(0.1)) == ["FinishTrack"]
    assert names(bench.give(effects.TrackPlayedOut(1))) == ["trackEnd"]
    assert names(bench.wait(2)) == ["silence"]


def test_new_text_and_new_audio_put_the_end_off() -> None:
    """Text starts the ten seconds again, audio stops them until it has been heard."""
    bench = talking()
    stream(bench, "one")
    bench.give(effects.TrackDry(1))
    bench.wait(9)
    stream(bench, "two")
    assert bench.wait(9) == []
    bench.give(effects.TrackSounding(1))
    assert bench.wait(60) == []
    bench.give(effects.TrackDry(1))
    assert track_work(bench.wait(10)) == ["FinishTrack"]


def test_a_text_that_is_never_spoken_does_not_keep_the_playback_open() -> None:
    """Once dry, ten seconds after the last text are enough, whatever the service does with it."""
    bench = talking()
    stream(bench, "one")
    bench.give(effects.TrackDry(1))
    stream(bench, "two")
    assert track_work(bench.wait(LULL)) == ["FinishTrack"]


def test_a_paused_streaming_playback_does_not_end_by_itself() -> None:
    """The ten seconds begin when it goes on, dry before or during the pause."""
    for paused_first in (True, False):
        bench = talking()
        stream(bench, "one")
        facts = [effects.TrackDry(1), commands.Pause()]
        bench.give(*(reversed(facts) if paused_first else facts))
        assert bench.wait(600) == []
        bench.give(commands.Resume())
        assert bench.wait(9.9) == []
        assert track_work(bench.wait(0.1)) == ["FinishTrack"]


def test_an_utterance_playback_never_ends_by_itself() -> None:
    """Without `endOfStream` it stays open and silent."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="p"), effects.EntryWritten(1, 0))
    assert bench.wait(3600) == []
    assert bench.core.talk.track.busy


def test_the_end_of_a_stream_may_come_with_an_empty_text() -> None:
    """After it the idle limit has nothing left to do, and a piece of that playId begins a new track."""
    bench = talking()
    stream(bench, "one")
    assert track_work(stream(bench, "", end_of_stream=True)) == ["FinishTrack"]
    bench.give(effects.TrackDry(1))
    assert bench.wait(60) == []
    assert names(stream(bench, "two")) == ["interruption", "trackEnd", "trackStart"]


def test_streaming_is_cut_even_gracefully() -> None:
    """One flow of audio has no entries that could end first; the piece and the place in it are told."""
    bench = talking()
    stream(bench, "one ")
    stream(bench, "two")
    bench.spoken = Spoken(1, 120, 300, 2)
    out = bench.give(commands.Interrupt(graceful=True))
    assert track_work(out) == ["StopTrack"]
    assert told(out)[0] == events.Interruption(
        track_id="T", timestamp=wall(10.0), play_id="p", subtitle="two", position=2, total_duration=300, current=120
    )


def test_audio_cannot_be_part_of_a_streaming_text() -> None:
    """`base64` in a streaming track is an error; in one of utterances `streaming` beside it counts for nothing."""
    bench = talking()
    stream(bench, "one")
    assert errors(stream(bench, "AAAA", base64=True)) == [("tts", "base64 audio cannot be part of a streaming text")]
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="p"))
    assert track_work(stream(bench, "AAAA", base64=True)) == ["Say"]


# -- pause and resume -----------------------------------------------------------------------------------------------


def test_pause_holds_and_resume_goes_on_without_an_event() -> None:
    """Once each, however often they come; nothing without a playback, and `resume` alone does nothing."""
    bench = talking()
    assert bench.give(commands.Pause(), commands.Resume()) == []
    bench.give(commands.Tts(text="a", play_id="p"))
    assert bench.give(commands.Resume()) == []
    assert bench.give(commands.Pause(), commands.Pause()) == [effects.PauseTrack(1)]
    assert bench.give(commands.Resume(), commands.Resume()) == [effects.ResumeTrack(1)]


@pytest.mark.parametrize("text", ["more", ""])
def test_a_new_command_of_the_same_playback_clears_the_pause(text: str) -> None:
    """Even one without words."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="p"), commands.Pause())
    assert track_work(bench.give(commands.Tts(text=text, play_id="p")))[0] == "ResumeTrack"


def test_what_replaces_a_paused_playback_is_not_paused() -> None:
    """By `tts` and by `play`: the paused one is cut, the new one plays, and a later `resume` means nothing."""
    for command in (commands.Tts(text="b", play_id="q"), commands.Play(url="http://x/a.wav")):
        bench = talking()
        bench.give(commands.Tts(text="a", play_id="p"), commands.Pause())
        assert track_work(bench.give(command))[:2] == ["StopTrack", "StartTrack"]
        assert bench.give(commands.Resume()) == []


def test_a_graceful_interrupt_of_a_paused_playback_cuts_it() -> None:
    """What is paused is not being said: it must not start again over whoever interrupted."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="p"), commands.Pause())
    bench.spoken = Spoken(0, 100, 900)
    out = bench.give(commands.Interrupt(graceful=True))
    assert (names(out), track_work(out)) == (["interruption", "trackEnd"], ["StopTrack"])


def test_the_rest_of_a_graceful_stop_can_be_paused_and_then_cut() -> None:
    """Its interruption has been told, so only `trackEnd` is left to tell."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="p"))
    bench.spoken = Spoken(0, 100, 900)
    bench.give(commands.Interrupt(graceful=True))
    assert bench.give(commands.Pause()) == [effects.PauseTrack(1)]
    assert names(bench.give(commands.Interrupt(graceful=True))) == ["trackEnd"]


def test_a_call_that_ends_while_paused_ends_in_order() -> None:
    """What was heard is told, once."""
    bench = talking()
    bench.give(commands.Play(url="http://x/a.wav", play_id="p", auto_hangup=True), commands.Pause())
    bench.spoken = Spoken(None, 500, 3000)
    assert names(bench.give(sip.ByeReceived("s1"))) == ["interruption", "trackEnd", "trackEnd", "hangup"]


def test_a_pause_before_the_answer_holds_what_waits_for_it() -> None:
    """In the order of the commands: what was said before it is held, and what comes after it is not."""
    for later, work in (
        ((), ["StartTrack", "Say", "PauseTrack"]),
        ((commands.Resume(),), ["StartTrack", "Say", "PauseTrack", "ResumeTrack"]),
    ):
        bench = Bench()
        bench.incoming()
        bench.attach()
        assert bench.give(commands.Tts(text="a"), commands.Pause(), *later) == []
        assert track_work(bench.give(commands.Accept(option=CallOption()))) == work


def test_a_pause_behind_two_playbacks_before_the_answer_holds_the_second() -> None:
    """The first is cut by the second in the same moment; what is paused is what would play."""
    for later, work in (
        ((commands.Pause(),), ["PauseTrack", "Say"]),
        ((commands.Pause(), commands.Resume()), ["Say"]),
        ((commands.Pause(), commands.Tts(text="c", play_id="b")), ["Say", "Say"]),
    ):
        bench = Bench()
        bench.incoming()
        bench.attach()
        assert bench.give(commands.Tts(text="a"), commands.Tts(text="b", play_id="b"), *later) == []
        out = bench.give(commands.Accept(option=CallOption()))
        assert track_work(out) == ["StartTrack", "Say", "StopTrack", "StartTrack", *work]
        held = [effect.generation for effect in out if isinstance(effect, effects.PauseTrack)]
        assert held == [2] * work.count("PauseTrack")


# -- mute -----------------------------------------------------------------------------------------------------------


def test_mute_by_track_is_kept_until_unmute() -> None:
    """The session track is what is heard, the server-side one what is played; an unknown one is ignored."""
    bench = talking()
    assert bench.give(commands.Mute(track_id="T")) == [effects.SetMute(heard=False, played=True)]
    assert bench.give(commands.Mute(track_id="T"), commands.Mute(track_id="nobody")) == []
    assert bench.give(commands.Mute(track_id="s1")) == [effects.SetMute(heard=True, played=True)]
    assert bench.give(commands.Unmute(track_id="T")) == [effects.SetMute(heard=True, played=False)]
    assert bench.give(commands.Unmute()) == [effects.SetMute(heard=False, played=False)]
    assert bench.give(commands.Unmute()) == []


def test_mute_without_a_name_means_the_tracks_there_are() -> None:
    """A playback that begins later is heard."""
    bench = talking()
    assert bench.give(commands.Mute()) == [effects.SetMute(heard=True, played=False)]
    bench.give(commands.Tts(text="a"))
    assert bench.give(commands.Mute()) == [effects.SetMute(heard=True, played=True)]


def test_keys_of_a_muted_phone_are_dropped() -> None:
    """Neither RFC 4733 nor INFO is told, and neither counts as a reaction."""
    bench = talking()
    question = commands.Tts(text="there?", end_of_stream=True, wait_input_timeout=4000)
    bench.give(question, effects.TrackPlayedOut(1), commands.Mute(track_id="s1"))
    assert bench.give(media.DigitPressed("s1", "5", 10.0), sip.DigitReceived("s1", "5")) == []
    assert names(bench.wait(4)) == ["silence"]


def test_a_mute_before_the_answer_counts_from_the_first_frame() -> None:
    """It waits for the leg."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    assert bench.give(commands.Mute(track_id="T")) == []
    out = bench.give(commands.Accept(option=CallOption()))
    assert effects.SetMute(heard=False, played=True) in out
