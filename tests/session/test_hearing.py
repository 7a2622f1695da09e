"""What the far end says: the end of an utterance, speech that is none, and how long an exchange takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.events import SpeechEnded, SpeechStarted
from rustpbx.session import commands, effects, events
from rustpbx.session.options import CallOption, EouOption, TranscriptionOption, VadOption
from rustpbx.sip import events as sip
from rustpbx.speech.base import Transcript
from tests.kit.session import Bench, names, talking, told

ASR = TranscriptionOption(provider="scripted")
WHOLE = CallOption(vad=VadOption(), asr=ASR, eou=EouOption())


def begins(bench: Bench) -> list[effects.Effect]:
    """The far end speaks."""
    return bench.give(SpeechStarted("s1", bench.now))


def stops(bench: Bench, began: float) -> list[effects.Effect]:
    """It is silent, since a tenth of a second."""
    return bench.give(SpeechEnded("s1", began, bench.now - 0.1, bench.now))


def words(bench: Bench, text: str, index: int = 0, *, final: bool = True) -> list[effects.Effect]:
    """Its words."""
    return bench.give(effects.Heard(Transcript(index, text, final, bench.now - 1.0, bench.now)))


def ends(out: list[effects.Effect]) -> list[bool]:
    """The `eou` events among effects, by whether they are complete."""
    return [event.completed for event in told(out) if isinstance(event, events.Eou)]


def metrics(out: list[effects.Effect]) -> list[tuple[str, int, dict[str, object]]]:
    """Key, duration and data of the `metrics` among effects."""
    return [(event.key, event.duration, dict(event.data)) for event in told(out) if isinstance(event, events.Metrics)]


# -- the end of an utterance ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["words", "silence"])
def test_an_utterance_ends_with_silence_and_words(first: str) -> None:
    """In either order: one `eou`, complete, with the second of them and behind it."""
    bench = talking(WHOLE)
    began = bench.now
    out = begins(bench)
    bench.wait(1.0)
    out += words(bench, "hello") if first == "words" else stops(bench, began)
    assert ends(out) == []
    bench.wait(0.4)
    out = stops(bench, began) if first == "words" else words(bench, "hello")
    assert ends(out) == [True]
    assert names(out)[-1] == "eou"
    assert ends(bench.wait(60.0)) == []


def test_words_that_do_not_come_end_it_too() -> None:
    """After the option's timeout there is an `eou` that says it is not complete; late words change nothing."""
    bench = talking(CallOption(vad=VadOption(), asr=ASR, eou=EouOption(timeout=700)))
    begins(bench)
    stops(bench, bench.now)
    assert ends(bench.wait(0.69)) == []
    assert ends(bench.wait(0.02)) == [False]
    assert ends(words(bench, "late")) == []


def test_a_pause_is_no_end() -> None:
    """Speech goes on before the words have come: one end, when both are there."""
    bench = talking(WHOLE)
    begins(bench)
    stops(bench, bench.now)
    bench.wait(0.5)
    began, out = bench.now, begins(bench)
    out += words(bench, "well I think")
    bench.wait(5.0)
    assert ends(out) == []
    assert ends(stops(bench, began)) == [True]


@pytest.mark.parametrize(
    ("option", "by"),
    [
        (CallOption(vad=VadOption(), eou=EouOption()), "silence"),
        (CallOption(asr=ASR, eou=EouOption()), "words"),
    ],
)
def test_with_one_of_them_that_is_enough(option: CallOption, by: str) -> None:
    """Nobody transcribes, or nobody watches for speech: what there is decides."""
    bench = talking(option)
    if by == "silence":
        begins(bench)
        assert ends(stops(bench, bench.now)) == [True]
    else:
        assert ends(words(bench, "yes", final=False)) == []
        assert ends(words(bench, "yes")) == [True]


def test_nobody_is_told_who_has_not_asked() -> None:
    """Without `eou` in the option there is none."""
    bench = talking(CallOption(vad=VadOption(), asr=ASR))
    begins(bench)
    assert ends([*words(bench, "hello"), *stops(bench, bench.now), *bench.wait(10.0)]) == []


steps = st.lists(st.sampled_from(["begin", "stop", "delta", "final", "wait", "say", "played"]), max_size=40)


@given(steps, st.integers(0, 3))
def test_any_conversation_has_as_many_ends_as_silences_at_most(acts: list[str], least: int) -> None:
    """Each `speaking` has one `silence`, in turns; each `eou` follows a `silence` of its own."""
    bench = talking(CallOption(vad=VadOption(min_words=least), asr=ASR, eou=EouOption()))
    speaking, index, out = False, 0, []
    for act in acts:
        if act == "begin" and not speaking:
            speaking, began = True, bench.now
            out += begins(bench)
        elif act == "stop" and speaking:
            speaking = False
            out += stops(bench, began)
        elif act in {"delta", "final"}:
            out += words(bench, "one two three", index, final=act == "final")
            index += act == "final"
        elif act == "wait":
            out += bench.wait(1.3)
        elif act == "say":
            out += bench.give(commands.Tts(text="one fish", end_of_stream=True))
        elif act == "played":
            out += bench.give(effects.TrackPlayedOut(1))
    out += bench.give(sip.ByeReceived("s1"))
    kinds = [name for name in names(out) if name in {"speaking", "silence", "eou"}]
    turns = [name for name in kinds if name != "eou"]
    assert turns == ["speaking", "silence"] * (len(turns) // 2)
    assert kinds.count("eou") <= kinds.count("silence")


# -- false barge-in ---------------------------------------------------------------------------------------------------


def saying(text: str, least: int = 2) -> Bench:
    """A call in which we speak."""
    bench = talking(CallOption(vad=VadOption(min_words=least), asr=ASR))
    bench.give(commands.Tts(text=text, play_id="a"))
    return bench


def test_a_cough_while_we_speak_is_nothing() -> None:
    """Speech without words: neither `speaking` nor `silence`, whatever the service makes of it."""
    bench = saying("Please tell me your name")
    began, out = bench.now, begins(bench)
    out += stops(bench, began)
    out += words(bench, "", final=True)
    assert [name for name in names(out) if name != "metrics"] == ["asrFinal"]


def test_our_own_voice_that_comes_back_is_nothing() -> None:
    """Its words are ours: however many there are, none of them counts."""
    bench = saying("Please tell me your name")
    began, out = bench.now, begins(bench)
    out += words(bench, "tell me your", final=False)
    out += words(bench, "please tell me your name")
    out += stops(bench, began)
    assert not {"speaking", "silence"} & set(names(out))


def test_words_of_their_own_count_as_soon_as_there_are_enough() -> None:
    """`speaking` comes before the words that made it count, with its real begin; the rest is as ever."""
    bench = saying("Please tell me your name")
    began = bench.now
    assert names(begins(bench)) == []
    bench.wait(0.6)
    assert "speaking" not in names(words(bench, "my", final=False))
    out = words(bench, "my name is Ada", final=False)
    assert names(out)[:2] == ["speaking", "asrDelta"]
    assert told(out)[0] == events.Speaking(track_id="s1", timestamp=1_010_600, start_time=1_010_000)
    assert names(stops(bench, began)) == ["silence"]


def test_words_that_come_after_the_speech_count_too() -> None:
    """A short "stop it": by the time it is transcribed it is over, so both are told at once."""
    bench = saying("Please tell me your name")
    began = bench.now
    begins(bench)
    bench.wait(0.4)
    stops(bench, began)
    assert [n for n in names(words(bench, "stop it")) if n != "metrics"] == ["speaking", "silence", "asrFinal"]


def test_while_we_are_silent_everything_counts() -> None:
    """There is nothing to interrupt: speech is told at once."""
    bench = talking(CallOption(vad=VadOption(min_words=3), asr=ASR))
    assert names(begins(bench)) == ["speaking"]


def test_without_the_option_everything_counts() -> None:
    """The protocol's own meaning of `speaking`."""
    bench = saying("Please tell me your name", least=0)
    assert names(begins(bench)) == ["speaking"]


# -- how long it takes ------------------------------------------------------------------------------------------------


def test_the_times_of_an_exchange() -> None:
    """From the end of the far end's speech: its words, our command, the first audio, the first packet; once."""
    bench = talking(CallOption(vad=VadOption(), asr=ASR))
    began, _ = bench.now, begins(bench)
    bench.wait(2.0)
    stops(bench, began)
    bench.wait(0.3)
    words(bench, "what is the time")
    bench.wait(0.25)
    bench.give(commands.Tts(text="noon", play_id="a"))
    bench.wait(0.15)
    bench.give(effects.EntrySounding(1, 0, "scripted", bench.now - 0.15))
    bench.wait(0.02)
    (turn,) = [m for m in metrics(bench.give(effects.TrackBegun(1))) if m[0] == "turn"]
    assert turn == (
        "turn",
        820,
        {"asrFinal": 400, "command": 650, "firstAudio": 800, "firstPacket": 820, "playId": "a"},
    )
    assert metrics(bench.give(effects.TrackBegun(1))) == []


def test_an_exchange_that_is_broken_off_has_no_times() -> None:
    """The far end speaks on before it was answered: what comes is the answer to that."""
    bench = talking(CallOption(vad=VadOption(), asr=ASR))
    stops(bench, bench.now)
    bench.give(commands.Tts(text="noon", play_id="a"))
    begins(bench)
    assert metrics(bench.give(effects.TrackBegun(1))) == []


def test_a_greeting_is_no_exchange() -> None:
    """Nobody has said anything before it."""
    bench = talking(WHOLE)
    bench.give(commands.Tts(text="hello", play_id="a"))
    assert metrics(bench.give(effects.TrackBegun(1))) == []


def test_the_times_of_words() -> None:
    """The first of an utterance, and the last: milliseconds since it began, behind their event, by index."""
    bench = talking(CallOption(asr=ASR))
    first = words(bench, "he", 4, final=False)
    assert (names(first), metrics(first)) == (
        ["asrDelta", "metrics"],
        [("ttfb.asr.scripted", 1000, {"index": 4})],
    )
    assert metrics(words(bench, "hello", 4, final=False)) == []
    assert metrics(words(bench, "hello", 4)) == [("completed.asr.scripted", 1000, {"index": 4})]
    assert [key for key, *_ in metrics(words(bench, "yes", 5))] == ["ttfb.asr.scripted", "completed.asr.scripted"]


# -- last words -------------------------------------------------------------------------------------------------------


def test_last_words_come_before_the_end() -> None:
    """The phone hangs up: the leg closes at once, and what was said last is told before `trackEnd` and `hangup`."""
    bench = talking(CallOption(asr=ASR))
    out = bench.give(sip.ByeReceived("s1"))
    assert [type(effect) for effect in out if isinstance(effect, effects.CloseLeg)] == [effects.CloseLeg]
    assert names(out) == []
    out = words(bench, "goodbye") + bench.give(effects.ListeningEnded())
    assert [name for name in names(out) if name != "metrics"] == ["asrFinal", "trackEnd", "hangup"]
    assert not any(isinstance(effect, effects.CloseLeg) for effect in out)


def test_last_words_have_two_seconds() -> None:
    """A service that does not end is not waited for."""
    bench = talking(CallOption(asr=ASR))
    bench.give(commands.Hangup())
    assert names(bench.wait(1.99)) == []
    assert names(bench.wait(0.02)) == ["trackEnd", "hangup"]


@pytest.mark.parametrize("what", [effects.Killed("shutdown"), effects.AgentGone("it dropped")])
def test_nobody_waits_for_last_words_that_nobody_hears(what: effects.Input) -> None:
    """The server stops, or the agent has gone: the end is at once, also while last words are waited for."""
    bench = talking(CallOption(asr=ASR))
    assert names(bench.give(what)) == ["trackEnd", "hangup"]
    bench = talking(CallOption(asr=ASR))
    bench.give(sip.ByeReceived("s1"))
    assert names(bench.give(what)) == ["trackEnd", "hangup"]
