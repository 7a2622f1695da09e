"""What speech and silence mean, whatever detector says what is voiced."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import MediaError
from rustpbx.media.events import SilenceContinues, SpeechEnded, SpeechStarted, VadParams
from rustpbx.media.vad.activity import FRAME, Activity, SpeechFact
from rustpbx.media.vad.detector import make_detector
from rustpbx.media.vad.tables import Hearing
from tests.media.plane_rig import voice


def feed(activity: Activity, pattern: str, start: float = 0.0) -> list[SpeechFact]:
    """One frame a character: `#` is voiced; the facts with times rounded to ms."""
    facts: list[SpeechFact] = []
    for index, mark in enumerate(pattern):
        facts += activity.frame(mark == "#", start + index * FRAME)
    return [rounded(fact) for fact in facts]


def rounded(fact: SpeechFact) -> SpeechFact:
    """Sums of 0.02 are not exact."""
    match fact:
        case SpeechStarted(leg, at):
            return SpeechStarted(leg, round(at, 3))
        case SpeechEnded(leg, started_at, silence_at, at):
            return SpeechEnded(leg, round(started_at, 3), round(silence_at, 3), round(at, 3))
        case SilenceContinues(leg, since, at):
            return SilenceContinues(leg, round(since, 3), round(at, 3))


def test_speech_is_reported_once_it_has_lasted() -> None:
    """Thirteen voiced frames make 250 ms; the time told is that of the first of them."""
    activity = Activity("a", VadParams())
    assert feed(activity, "....." + "#" * 12) == []
    assert feed(activity, "#", 0.34) == [SpeechStarted("a", at=0.1)]


def test_every_speaking_has_its_silence() -> None:
    """Silence of 100 ms after reported speech ends it; its time is that of the first unvoiced frame."""
    activity = Activity("a", VadParams())
    facts = feed(activity, "#" * 20 + "." * 20)
    assert facts == [SpeechStarted("a", at=0.0), SpeechEnded("a", started_at=0.0, silence_at=0.4, at=0.5)]


def test_short_gaps_belong_to_speech_and_short_noises_are_nothing() -> None:
    """A breath of 80 ms does not end speech, one of 40 ms does not hinder its begin, a click of 60 ms is ignored."""
    assert feed(Activity("a", VadParams()), "#" * 15 + "...." + "#" * 15) == [SpeechStarted("a", at=0.0)]
    assert feed(Activity("a", VadParams()), "#" * 6 + ".." + "#" * 6) == [SpeechStarted("a", at=0.0)]
    assert feed(Activity("a", VadParams()), "###" + "." * 50) == []


def test_small_paddings_report_at_once() -> None:
    """For quick barge-in: with no padding the first voiced and the first unvoiced frame are reported."""
    activity = Activity("a", VadParams(speech_padding=0, silence_padding=0))
    assert feed(activity, ".#.") == [SpeechStarted("a", at=0.02), SpeechEnded("a", 0.02, silence_at=0.04, at=0.06)]


def test_silence_is_counted_from_the_first_frame() -> None:
    """Nobody ever spoke: a report each 200 ms, each of its own stretch."""
    facts = feed(Activity("a", VadParams(silence_timeout=0.2)), "." * 31, start=5.0)
    assert facts == [SilenceContinues("a", since=5.0 + 0.2 * n, at=round(5.2 + 0.2 * n, 3)) for n in range(3)]


def test_silence_is_counted_again_after_speech() -> None:
    """Speech stops the count; it begins anew where silence began."""
    facts = feed(Activity("a", VadParams(silence_timeout=0.2)), "." * 5 + "#" * 20 + "." * 12)
    assert facts == [
        SpeechStarted("a", at=0.1),
        SpeechEnded("a", started_at=0.1, silence_at=0.5, at=0.6),
        SilenceContinues("a", since=0.5, at=0.7),
    ]


def test_the_end_of_the_stream_ends_speech() -> None:
    """A leg that closes while somebody speaks reports the end once, and is deaf then."""
    activity = Activity("a", VadParams())
    feed(activity, "#" * 20)
    assert activity.finish(0.4) == [SpeechEnded("a", started_at=0.0, silence_at=0.4, at=0.4)]
    assert activity.finish(0.5) == []
    assert feed(activity, "#" * 20, 0.5) == []
    assert activity.state is Hearing.OVER


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=30),
    st.builds(
        VadParams,
        speech_padding=st.sampled_from([0.0, 0.02, 0.1, 0.25]),
        silence_padding=st.sampled_from([0.0, 0.02, 0.1, 0.5]),
        silence_timeout=st.sampled_from([None, 0.02, 0.3, 5.0]),
    ),
)
def test_any_audio_gives_pairs_in_order(stretches: list[tuple[bool, int]], params: VadParams) -> None:
    """Whatever is heard: each speaking is followed by exactly one silence, times never go back nor lie ahead,
    and frames that `steady` and `look_at` call idle can be left out.
    """
    every, needed = Activity("a", params), Activity("a", params)
    facts: list[SpeechFact] = []
    shortened: list[SpeechFact] = []
    at = 0.0
    for voiced, count in stretches:
        for _ in range(count):
            new = every.frame(voiced, at)
            assert all(fact.at <= at + FRAME + 1e-9 for fact in new)
            facts += new
            if voiced is not needed.steady or at >= needed.look_at:
                shortened += needed.frame(voiced, at)
            at += FRAME
    facts += every.finish(at)
    shortened += needed.finish(at)
    assert facts == shortened
    spoken = [fact for fact in facts if not isinstance(fact, SilenceContinues)]
    assert [type(fact) for fact in spoken] == [SpeechStarted, SpeechEnded] * (len(spoken) // 2)
    for started, ended in zip(spoken[::2], spoken[1::2], strict=True):
        assert isinstance(ended, SpeechEnded)
        assert started.at == ended.started_at
        assert started.at <= ended.silence_at <= ended.at
    assert all(end <= begin + 1e-9 for (_, end), (begin, _) in itertools.pairwise(map(span, facts)))


def span(fact: SpeechFact) -> tuple[float, float]:
    """What a fact speaks of: a moment, or a stretch of silence."""
    match fact:
        case SpeechStarted(at=at) | SpeechEnded(silence_at=at):
            return at, at
        case SilenceContinues(since=since, at=at):
            return since, at


def test_the_webrtc_detector_tells_a_buzz_from_silence() -> None:
    """Silence is unvoiced; a voice-like buzz is voiced after a few frames."""
    detector = make_detector("webrtc")
    quiet = [detector.voiced(bytes(320), 160) for _ in range(10)]
    buzz = voice(0.4)
    frames = [detector.voiced(part.tobytes(), 160) for part in buzz.reshape(-1, 160)]
    assert not any(quiet)
    assert all(frames[5:])


def test_an_unknown_engine_is_named() -> None:
    """The error says which engine was asked for and which there are."""
    with pytest.raises(MediaError, match=r"unknown VAD engine 'nop'; there is: silero, ten, webrtc"):
        make_detector("nop")
