"""The server-side track: what may wait, whose voice it is, what comes after it, and ringtones."""

from __future__ import annotations

import base64

import pytest

from rustpbx.media import events as media
from rustpbx.session import commands, effects, events
from rustpbx.session.effects import Spoken
from rustpbx.session.options import CallOption, SynthesisOption, VadOption
from rustpbx.sip import events as sip
from rustpbx.speech.base import Transcript
from tests.kit.session import Bench, errors, names, talking, told, track_work, wall, wishes

# -- what may wait --------------------------------------------------------------------------------------------------


def test_the_bytes_of_waiting_texts_are_bounded() -> None:
    """256 KB of text (as UTF-8) and 10 MB of audio may wait; what is written makes room."""
    bench = talking()
    half = commands.Tts(text="\u00e9" * 64 * 1024, play_id="p")
    assert errors(bench.give(half, half)) == []
    assert errors(bench.give(commands.Tts(text="x", play_id="p"))) == [
        ("tts", "more than 256 KB of text wait in this playback")
    ]
    bench.give(effects.EntryWritten(1, 0))
    assert errors(bench.give(half)) == []
    megabyte = commands.Tts(text=base64.b64encode(bytes(1024 * 1024)).decode(), play_id="p", base64=True)
    assert errors(bench.give(*[megabyte] * 10)) == []
    assert errors(bench.give(megabyte)) == [("tts", "more than 10 MB of audio wait in this playback")]
    bench.give(effects.EntryWritten(1, 5))
    assert errors(bench.give(megabyte)) == []


def test_a_service_is_measured_from_the_command_on() -> None:
    """In ms, for the playback that is; what was kept took no time; of one that is gone nothing is told."""
    bench = talking()
    done = bench.give(commands.Tts(text="a", play_id="p"))
    (entry,) = [effect.entry for effect in done if isinstance(effect, effects.Say)]
    assert entry.said_at == bench.now
    bench.now += 0.25
    first = effects.EntrySounding(1, 0, "voiceapi", entry.said_at)
    last = effects.EntrySynthesized(1, 0, "voiceapi", entry.said_at, 320)
    kept = effects.EntrySynthesized(1, 0, "voiceapi", entry.said_at, 320, cached=True, speaker="7")
    told_of = {"playId": "p", "cmdSeq": 0}
    assert [
        (event.key, event.duration, event.data)
        for event in told(bench.give(first, last, kept))
        if isinstance(event, events.Metrics)
    ] == [
        ("ttfb.tts.voiceapi", 250, told_of),
        ("completed.tts.voiceapi", 250, {**told_of, "length": 320, "cached": False}),
        ("completed.tts.voiceapi", 0, {**told_of, "length": 320, "cached": True, "speaker": "7"}),
    ]
    bench.give(commands.Tts(text="b", play_id="q"), effects.TrackStopped(1, None))
    assert not told(bench.give(first, last))


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (commands.Tts(text="AAA", base64=True, play_id="p"), "text is not valid base64"),
        (commands.Tts(text="\u00e9", base64=True, play_id="p"), "text is not valid base64"),
        (commands.Tts(text="x" * 1024 * 1024, play_id="p"), "more than 256 KB of text wait in this playback"),
        *(
            (
                commands.Tts(text="x", play_id="p", option=SynthesisOption(speed=speed)),
                f"speed is a multiplier of 0.1 to 10, not {speed:g}",
            )
            for speed in (-5.0, 0.0, 11.0, float("nan"), float("inf"))
        ),
        *(
            (
                commands.Tts(text="x", play_id="p", option=SynthesisOption(volume=volume)),
                f"volume is 0 to 10, not {volume}",
            )
            for volume in (-1, 11)
        ),
    ],
)
def test_what_cannot_be_said_is_one_error(command: commands.Tts, problem: str) -> None:
    """In the middle of a playback: nothing of it is said, what comes before and after it is."""
    bench = talking()
    before, after = (commands.Tts(text=text, play_id="p") for text in ("before", "after"))
    done = bench.give(before, command, after)
    assert errors(done) == [("tts", problem)]
    assert [effect.entry.text for effect in done if isinstance(effect, effects.Say)] == ["before", "after"]


def test_what_waits_for_the_answer_is_bounded_too() -> None:
    """By number and by size; the error comes behind the answer."""
    for command, count, problem in (
        (commands.Tts(text="x"), 201, "more than 200 commands before the answer"),
        (commands.Tts(text="x" * 1024 * 1024), 11, "more than 10 MB of text and audio before the answer"),
    ):
        bench = Bench()
        bench.incoming()
        bench.attach()
        assert bench.give(*[command] * count) == []
        assert ("tts", problem) in errors(bench.give(commands.Accept(option=CallOption())))


def test_an_interrupt_before_the_answer_drops_what_waits_for_it() -> None:
    """Commands take effect in their order, also those that nobody hears."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    assert bench.give(commands.Tts(text="old"), commands.Interrupt(graceful=True), commands.Tts(text="new")) == []
    out = bench.give(commands.Accept(option=CallOption()))
    assert [effect.entry.text for effect in out if isinstance(effect, effects.Say)] == ["new"]


# -- options --------------------------------------------------------------------------------------------------------


def test_extra_is_merged_key_by_key_and_the_rest_field_by_field() -> None:
    """What the command gives wins; what it leaves out is the call's."""
    bench = talking(CallOption(tts=SynthesisOption(provider="x", volume=3, extra={"a": "1", "b": "2"})))
    out = bench.give(commands.Tts(text="hi", option=SynthesisOption(speed=2.0, extra={"b": "3", "c": "4"})))
    (say,) = (effect for effect in out if isinstance(effect, effects.Say))
    assert say.entry.option == SynthesisOption(provider="x", volume=3, speed=2.0, extra={"a": "1", "b": "3", "c": "4"})


def test_without_any_voice_a_text_is_an_error() -> None:
    """No option and no embedded synthesizer: no track begins, and audio of the agent's own still plays."""
    bench = talking(default_voice=False)
    out = bench.give(commands.Tts(text="hi", play_id="p", end_of_stream=True))
    assert (errors(out), names(out)) == ([("tts", "no tts option available")], ["error"])
    assert names(bench.give(commands.Tts(text="AAAA", play_id="p", base64=True))) == ["trackStart"]
    out = bench.give(commands.Tts(text="hi", play_id="p", end_of_stream=True))
    assert (names(out), track_work(out)) == (["error"], ["FinishTrack"])
    assert names(bench.give(commands.Tts(text="hi", play_id="q", option=SynthesisOption(provider="x"))))[-1:] == [
        "trackStart"
    ]


# -- what ends a playback, and the wait after it --------------------------------------------------------------------


def test_a_replaced_playback_neither_hangs_up_nor_waits() -> None:
    """By `tts`, by `play`, and in the middle of a graceful stop."""
    for graceful in (True, False):
        for command in (commands.Tts(text="b", play_id="q"), commands.Play(url="http://x/a.wav")):
            bench = talking()
            bench.give(commands.Tts(text="a", play_id="p", auto_hangup=True, wait_input_timeout=1000))
            bench.spoken = Spoken(0, 100, 900)
            if graceful:
                bench.give(commands.Interrupt(graceful=True))
            bench.give(command)
            assert bench.wait(60) == []


def test_an_interrupted_playback_hangs_up_and_waits() -> None:
    """At once, or when the rest of a graceful stop has been heard."""
    bench = talking()
    bench.give(commands.Tts(text="a", wait_input_timeout=1000), commands.Interrupt())
    assert names(bench.wait(1)) == ["silence"]
    bench.spoken = Spoken(0, 100, 900)
    bench.give(commands.Tts(text="a", auto_hangup=True), commands.Interrupt(graceful=True))
    assert wishes(bench.wait(5)) == []
    bench.give(effects.TrackPlayedOut(2))
    assert wishes(bench.wait(1)) == [sip.HangUp("s1", cause=16)]


@pytest.mark.parametrize(
    "reaction",
    [
        media.SpeechStarted("s1", at=9.9),
        sip.DigitReceived("s1", "5"),
        effects.Heard(Transcript(0, "yes", final=False, started_at=9.0, ended_at=10.0)),
        commands.Tts(text="next"),
        commands.Play(url="http://x/a.wav"),
    ],
    ids=lambda reaction: type(reaction).__name__,
)
def test_any_reaction_ends_the_wait_for_input(reaction: effects.Input) -> None:
    """Speech, a key, a transcript, or a new track: no `silence` comes of it."""
    bench = talking()
    bench.give(commands.Tts(text="there?", end_of_stream=True, wait_input_timeout=4000), effects.TrackPlayedOut(1))
    bench.wait(3.9)
    bench.give(reaction)
    assert bench.wait(60) == []


def test_the_calls_default_wait_counts_where_a_text_has_none() -> None:
    """The last command decides; 0 is off."""
    bench = talking(CallOption(tts=SynthesisOption(wait_input_timeout=3000)))
    bench.give(commands.Tts(text="a", end_of_stream=True), effects.TrackPlayedOut(1))
    assert names(bench.wait(3)) == ["silence"]
    bench.give(commands.Tts(text="a", play_id="p"))
    bench.give(commands.Tts(text="", play_id="p", end_of_stream=True, wait_input_timeout=0), effects.TrackPlayedOut(2))
    assert bench.wait(60) == []


# -- ringtone -------------------------------------------------------------------------------------------------------

RING = "http://x/ring.wav"


def ringing(**fields: object) -> Bench:
    """A call that rings with early media."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    bench.give(commands.Ring(**fields))  # type: ignore[arg-type]  # a test names its fields right
    return bench


def test_ringing_again_says_so_again_and_goes_on_with_the_same_ringtone() -> None:
    """The provisional response is repeated; the tone is not begun anew. Another one takes its place."""
    bench = ringing(ringtone=RING)
    out = bench.give(commands.Ring(ringtone=RING))
    assert ([type(wish) for wish in wishes(out)], names(out)) == ([sip.Ring], [])
    out = bench.give(commands.Ring(ringtone="http://x/other.wav"))
    assert names(out) == ["interruption", "trackEnd", "trackStart"]
    assert bench.give(commands.Ring()) == [sip.Ring("s1", 180)]
    assert bench.core.talk.track.busy


def test_a_ringtone_is_interrupted_like_any_file() -> None:
    """With the place reached and no subtitle; the call rings on."""
    bench = ringing(ringtone=RING)
    bench.spoken = Spoken(None, 700, 2000)
    (cut, ended) = told(bench.give(commands.Interrupt()))
    assert cut == events.Interruption(
        track_id="T", timestamp=wall(10.0), play_id=RING, total_duration=2000, current=700
    )
    assert ended.name == "trackEnd"
    assert bench.wait(1) == []


def test_what_was_said_while_it_rang_goes_on_behind_the_answer() -> None:
    """Only a ringtone stops at `accept`."""
    bench = ringing(early_media=True)
    bench.give(commands.Tts(text="please hold", play_id="p"))
    out = bench.give(commands.Accept(option=CallOption(vad=VadOption())))
    assert names(out) == ["answer"]
    assert [type(effect) for effect in out if isinstance(effect, effects.SetRemote | effects.WatchSpeech)] == [
        effects.WatchSpeech
    ]


def test_a_ringtone_that_fails_is_an_error_behind_the_answer() -> None:
    """Before it, clients take any error for the end of the call."""
    bench = ringing(ringtone=RING)
    assert names(bench.give(effects.TrackFailed(1, "404"))) == ["trackEnd"]
    out = bench.give(commands.Accept(option=CallOption()))
    assert names(out) == ["answer", "error"]
    assert errors(out) == [(f"filetrack: {RING}", "404")]
