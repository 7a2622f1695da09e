"""The server-side track: reuse, replacement, interruption, and what ends when."""

from __future__ import annotations

from rustpbx.session import commands, effects, events
from rustpbx.session.effects import Spoken
from rustpbx.session.options import CallOption
from rustpbx.sip import events as sip
from tests.kit.session import Bench, names, talking, told, track_work, wall, wishes


def test_the_same_play_id_appends() -> None:
    """No new trackStart, no interruption; the order is the commands'."""
    bench = talking()
    out = bench.give(commands.Tts(text="a", play_id="p"), commands.Tts(text="b", play_id="p", end_of_stream=True))
    assert names(out) == ["trackStart"]
    assert track_work(out) == ["StartTrack", "Say", "Say", "FinishTrack"]
    assert names(bench.give(effects.TrackPlayedOut(1))) == ["trackEnd"]


def test_absent_play_ids_are_equal() -> None:
    """Two commands without playId are one playback."""
    bench = talking()
    assert names(bench.give(commands.Tts(text="a"), commands.Tts(text="b"))) == ["trackStart"]


def test_another_play_id_cuts_the_old_one_first() -> None:
    """In order: interruption(Q), trackEnd(Q), trackStart(P), and only then the new text."""
    bench = talking()
    bench.give(commands.Tts(text="old words", play_id="q"))
    bench.spoken = Spoken(0, 100, 900)
    out = bench.give(commands.Tts(text="new", play_id="p", end_of_stream=True))
    assert [(event.name, getattr(event, "play_id", None)) for event in told(out)] == [
        ("interruption", "q"),
        ("trackEnd", "q"),
        ("trackStart", "p"),
    ]
    assert track_work(out) == ["StopTrack", "StartTrack", "Say", "FinishTrack"]


def test_a_finished_stream_takes_no_more() -> None:
    """After endOfStream the same playId begins a new playback."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="p", end_of_stream=True))
    assert names(bench.give(commands.Tts(text="b", play_id="p"))) == ["interruption", "trackEnd", "trackStart"]


def test_empty_text_only_ends_the_stream() -> None:
    """`text:""` says nothing, and endOfStream on it counts."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="p"))
    assert track_work(bench.give(commands.Tts(text="", play_id="p", end_of_stream=True))) == ["FinishTrack"]


def test_interrupt_now_tells_what_was_heard() -> None:
    """First `interruption`, then `trackEnd` with the time since trackStart; a second interrupt is silent."""
    bench = talking()
    bench.give(commands.Tts(text="hello there", play_id="p"))
    bench.spoken = Spoken(0, 240, 800)
    bench.now += 1
    out = bench.give(commands.Interrupt())
    assert told(out) == [
        events.Interruption(
            track_id="T", timestamp=wall(11.0), play_id="p", subtitle="hello there", total_duration=800, current=240
        ),
        events.TrackEnd(track_id="T", timestamp=wall(11.0), duration=1000, ssrc=77, play_id="p"),
    ]
    assert bench.give(commands.Interrupt()) == []


def test_a_graceful_interrupt_lets_the_entry_end_and_is_told_once() -> None:
    """The interruption at once, trackEnd when the rest has played; repeated interrupts are silent."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="p"), commands.Tts(text="b", play_id="p"))
    bench.spoken = Spoken(0, 100, 900)
    out = bench.give(commands.Interrupt(graceful=True))
    assert (names(out), track_work(out)) == (["interruption"], ["FinishEntry"])
    assert bench.give(commands.Interrupt(graceful=True)) == []
    assert names(bench.give(effects.TrackPlayedOut(1))) == ["trackEnd"]


def test_a_graceful_interrupt_with_nothing_out_stops() -> None:
    """Nothing has been heard, so nothing is finished."""
    bench = talking()
    bench.give(commands.Tts(text="a"))
    assert names(bench.give(commands.Interrupt(graceful=True))) == ["interruption", "trackEnd"]


def test_new_speech_cuts_a_graceful_stop_without_a_second_interruption() -> None:
    """No two voices at once."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="q"))
    bench.spoken = Spoken(0, 100, 900)
    bench.give(commands.Interrupt(graceful=True))
    out = bench.give(commands.Tts(text="b", play_id="p"))
    assert names(out) == ["trackEnd", "trackStart"]
    assert track_work(out) == ["StopTrack", "StartTrack", "Say"]


def test_play_replaces_speech_and_names_itself_by_its_url() -> None:
    """The playId of a file is its URL unless given."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="q"))
    out = bench.give(commands.Play(url="http://x/a.wav"))
    assert [(event.name, getattr(event, "play_id", None)) for event in told(out)][-1] == (
        "trackStart",
        "http://x/a.wav",
    )


def test_a_file_that_fails_is_an_error_then_the_end() -> None:
    """The sender names the URL."""
    bench = talking()
    bench.give(commands.Play(url="http://x/a.wav", play_id="p"))
    out = bench.give(effects.TrackFailed(1, "404 Not Found"))
    assert names(out) == ["error", "trackEnd"]
    error = told(out)[0]
    assert isinstance(error, events.ErrorEvent)
    assert (error.sender, error.error, error.code) == ("filetrack: http://x/a.wav", "404 Not Found", None)


def test_a_file_is_interrupted_with_position_and_no_subtitle() -> None:
    """Graceful makes no difference to a file."""
    bench = talking()
    bench.give(commands.Play(url="http://x/a.wav", play_id="p"))
    bench.spoken = Spoken(0, 500, 3000)
    (cut, _) = told(bench.give(commands.Interrupt(graceful=True)))
    assert cut == events.Interruption(track_id="T", timestamp=wall(10.0), play_id="p", total_duration=3000, current=500)


def test_a_failed_utterance_is_an_error_and_the_playback_goes_on() -> None:
    """Only the entry is lost."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="p"))
    out = bench.give(effects.EntryFailed(1, "tts.local", "not installed"))
    assert names(out) == ["error"]
    assert bench.core.talk.track.busy


def test_facts_of_an_old_generation_change_nothing() -> None:
    """The end of a replaced playback neither ends nor arms the new one."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="q", auto_hangup=True), commands.Tts(text="b", play_id="p"))
    assert bench.give(effects.TrackPlayedOut(1)) == []
    assert wishes(bench.wait(5)) == []


def test_the_last_command_decides_about_auto_hangup() -> None:
    """Appending arms or disarms the playback it belongs to; an interrupt fires it, a replacement does not."""
    bench = talking()
    bench.give(
        commands.Tts(text="a", play_id="p", auto_hangup=True), commands.Tts(text="b", play_id="p", end_of_stream=True)
    )
    bench.give(effects.TrackPlayedOut(1))
    assert wishes(bench.wait(1)) == []
    bench.give(commands.Tts(text="c", play_id="p", auto_hangup=True), commands.Interrupt())
    assert wishes(bench.wait(1)) == [sip.HangUp("s1", cause=16)]


def test_waiting_for_input_after_a_playback() -> None:
    """Silence after the timeout, once, with the playback's end as its start; any reaction calls it off."""
    bench = talking()
    question = commands.Tts(text="there?", play_id="q", end_of_stream=True, wait_input_timeout=4000)
    bench.give(question, effects.TrackPlayedOut(1))
    assert told(bench.wait(10)) == [
        events.Silence(track_id="T", timestamp=wall(14.0), start_time=wall(10.0), duration=4000)
    ]
    bench.give(question, effects.TrackPlayedOut(2), sip.DigitReceived("s1", "5"))
    assert bench.wait(10) == []


def test_bad_base64_is_an_error_and_the_rest_plays() -> None:
    """The entry is skipped; endOfStream on it still counts."""
    bench = talking()
    bench.give(commands.Tts(text="a", play_id="p"))
    out = bench.give(commands.Tts(text="%%%", play_id="p", base64=True, end_of_stream=True))
    assert (names(out), track_work(out)) == (["error"], ["FinishTrack"])


def test_base64_audio_takes_its_place_among_the_texts() -> None:
    """PCM is an entry like any other and has no subtitle."""
    bench = talking()
    out = bench.give(commands.Tts(text="AAABAA==", play_id="p", base64=True))
    (say,) = (effect for effect in out if isinstance(effect, effects.Say))
    assert (say.entry.text, say.entry.pcm) == ("", b"\0\0\1\0")
    bench.spoken = Spoken(0, 100, 200)
    (cut, _) = told(bench.give(commands.Interrupt()))
    assert isinstance(cut, events.Interruption)
    assert cut.subtitle is None


def test_what_was_held_is_played_as_if_it_came_one_by_one() -> None:
    """Of three playbacks that waited for the answer, the last one is whole: all its texts and its end."""
    bench = Bench()
    bench.incoming()
    bench.attach()
    bench.give(
        commands.Tts(text="first", play_id="a"),
        commands.Tts(text="second", play_id="b"),
        commands.Tts(text="good", play_id="c"),
        commands.Tts(text="morning", play_id="c", end_of_stream=True),
    )
    out = bench.give(commands.Accept(option=CallOption()))
    said = [effect.entry.text for effect in out if isinstance(effect, effects.Say)]
    assert said == ["first", "good", "morning"]
    assert track_work(out)[-1] == "FinishTrack"
    assert names(out)[-1] == "trackStart"


def test_an_open_playback_may_go_on_for_ever_but_not_run_ahead() -> None:
    """What counts is what waits: a thousand texts unspoken is the end of patience, ten thousand spoken are not."""
    bench = talking()
    for number in range(3000):
        assert names(bench.give(commands.Tts(text=f"text {number}"))) in ([], ["trackStart"])
        bench.give(effects.EntryWritten(1, number))
    bench.spoken = Spoken(2999, 100, 200)
    for _ in range(1000):
        assert told(bench.give(commands.Tts(text="x"))) == []
    (error,) = told(bench.give(commands.Tts(text="one too many")))
    assert isinstance(error, events.ErrorEvent)
    assert "more than 1000 texts wait" in error.error
    cut = told(bench.give(commands.Interrupt()))[0]
    assert isinstance(cut, events.Interruption)
    assert cut.subtitle == "text 2999"
