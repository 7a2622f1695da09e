"""Answering machine detection by itself: what is heard after the answer, and who it was."""

from __future__ import annotations

import pytest

from rustpbx.media import events as media
from rustpbx.session import effects, events
from rustpbx.session.detection import Detector
from rustpbx.session.options import AmdOption
from rustpbx.session.reporting import Reporter
from rustpbx.speech.base import Transcript
from tests.kit.session import wall

ANSWER = 100.0


class Line:
    """A detector whose timers run when they are due, and what it has told; times are seconds after the answer."""

    def __init__(self, option: AmdOption | None = None) -> None:
        self.detector = Detector(Reporter("s1", wall, ANSWER))
        self.told: list[effects.Effect] = list(self.detector.start(option or AmdOption(), ANSWER))

    def until(self, at: float) -> None:
        """Let time pass."""
        while self.detector.deadline().at <= ANSWER + at:
            self.told += self.detector.tick(self.detector.deadline().at)

    def speech(self, begin: float, end: float) -> None:
        """Somebody speaks; it is known a quarter of a second later, its end a tenth."""
        self.until(begin + 0.25)
        self.told += self.detector.handle(media.SpeechStarted("s1", ANSWER + begin), ANSWER + begin + 0.25)
        self.until(end + 0.1)
        fact = media.SpeechEnded("s1", ANSWER + begin, ANSWER + end, ANSWER + end + 0.1)
        self.told += self.detector.handle(fact, ANSWER + end + 0.1)

    def beep(self, begin: float, end: float) -> None:
        """One tone."""
        self.until(end)
        self.told += self.detector.handle(media.BeepHeard("s1", ANSWER + begin, ANSWER + end), ANSWER + end)

    def words(self, text: str, at: float, index: int = 0) -> None:
        """What was understood."""
        self.until(at)
        heard = Transcript(index=index, text=text, final=True, started_at=ANSWER, ended_at=ANSWER + at)
        self.told += self.detector.handle(effects.Heard(heard), ANSWER + at)


def told(outcome: events.Outcome, begin: float, end: float, at: float, text: str = "") -> list[effects.Effect]:
    """The event, with its times after the answer."""
    begin, end, at = (wall(ANSWER + time) for time in (begin, end, at))
    event = events.AnswerMachineDetection(
        track_id="s1", timestamp=at, start_time=begin, end_time=end, text=text, outcome=outcome
    )
    return [effects.Tell(event)]


HUMAN, MACHINE, UNSURE = events.Outcome.HUMAN, events.Outcome.MACHINE, events.Outcome.UNSURE


def test_a_short_hello_and_silence_is_a_person() -> None:
    """Told one second after the last word, with the times of the words; what comes later changes nothing."""
    line = Line()
    line.speech(0.5, 1.0)
    line.speech(1.5, 1.9)
    line.until(60)
    line.beep(60, 61)
    assert line.told == told(HUMAN, 0.5, 1.9, 2.9)


def test_who_speaks_for_long_is_a_machine() -> None:
    """Two and a half seconds of speech in all, breaths not counted: told while it still speaks."""
    line = Line()
    line.speech(0.5, 2.0)
    line.speech(2.5, 9.0)
    assert line.told == told(MACHINE, 0.5, 3.5, 3.5)


def test_a_beep_is_a_machine_whatever_was_said() -> None:
    """Behind a short greeting, and without any."""
    line, bare = Line(), Line()
    line.speech(0.5, 1.5)
    line.beep(1.8, 2.2)
    assert line.told == told(MACHINE, 0.5, 2.2, 2.2)
    bare.beep(3.0, 3.5)
    assert bare.told == told(MACHINE, 3.0, 3.5, 3.5)


@pytest.mark.parametrize("text", ["Please leave a message", "This is the VOICEMAIL of Ann.", "您好 请留言"])
def test_what_only_machines_say_is_a_machine(text: str) -> None:
    """At once, and with the text."""
    line = Line()
    line.words("Hi.", 0.8)
    line.speech(0.5, 1.5)
    line.words(text, 2.0, index=1)
    assert line.told == told(MACHINE, 0.5, 1.5, 2.0, f"Hi. {text}")


def test_a_phrase_may_be_heard_in_two_pieces() -> None:
    """One utterance ends in the middle of it; a later reading of an utterance replaces the one before."""
    line = Line()
    line.words("please lead", 0.5)
    line.words("please leave", 0.6)
    line.words("a message", 0.9, index=1)
    assert line.told == told(MACHINE, 0.9, 0.9, 0.9, "please leave a message")


def test_nothing_is_unsure() -> None:
    """After ten seconds, or as many as the option has."""
    line, brief = Line(), Line(AmdOption(timeout=3000))
    line.until(60)
    assert line.told == told(UNSURE, 10, 10, 10)
    brief.until(60)
    assert brief.told == told(UNSURE, 3, 3, 3)


def test_the_limits_are_the_agents() -> None:
    """A long greeting is a person's if the option says so, and a negative limit is none at all."""
    line, hasty = Line(AmdOption(greeting=6000, silence=400)), Line(AmdOption(timeout=-5))
    line.speech(0.5, 5.5)
    line.until(60)
    assert line.told == told(HUMAN, 0.5, 5.5, 5.9)
    hasty.until(60)
    assert hasty.told == told(UNSURE, 0, 0, 0)


def test_speech_from_before_the_answer_does_not_count() -> None:
    """Its end comes after the answer: the detector still waits for a first word."""
    line = Line()
    fact = media.SpeechEnded("s1", ANSWER - 5, ANSWER + 0.1, ANSWER + 0.2)
    line.told += line.detector.handle(fact, ANSWER + 0.2)
    line.until(60)
    assert line.told == told(UNSURE, 10, 10, 10)


def test_a_call_that_ends_is_told_nothing_more() -> None:
    """Nor one that never asked."""
    line = Line()
    line.speech(0.5, 0.9)
    line.detector.close(ANSWER + 1)
    line.until(60)
    assert line.told == []
    silent = Detector(Reporter("s1", wall, ANSWER))
    assert silent.handle(media.BeepHeard("s1", ANSWER, ANSWER + 1), ANSWER + 1) == []
