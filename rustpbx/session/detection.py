"""Answering machine detection: from the answer on, until it is told once who speaks.

People say little and wait for us; machines say much, beep, or say what only machines do. What is heard comes as facts:
speech and silence, a beep, words if there is ASR.
"""

from __future__ import annotations

from rustpbx.core import Deadline
from rustpbx.machine import Machine
from rustpbx.media import events as media
from rustpbx.session import effects, events
from rustpbx.session.options import AmdOption
from rustpbx.session.reporting import Reporter
from rustpbx.session.tables import DETECTION, Detection, DetectionAction, DetectionTrigger
from rustpbx.session.wording import cause as cause_words
from rustpbx.speech.base import Transcript

PHRASES = (
    *("leave a message", "leave your message", "leave me a message", "record your message", "record a message"),
    *("after the tone", "after the beep", "at the tone", "voicemail", "voice mail", "mailbox", "answering machine"),
    *("your call has been forwarded", "is not available", "is unavailable", "not available to take your call"),
    *("can't take your call", "cannot take your call", "can't come to the phone", "cannot come to the phone"),
    *("请留言", "提示音", "语音信箱", "无法接听", "暂时无法接通", "已关机"),
)
"""What only machines say, in lower case."""

MOST_TEXT = 2000
"""Characters of what was heard that are kept: the latest."""

OUTCOMES = {
    DetectionAction.TELL_HUMAN: events.Outcome.HUMAN,
    DetectionAction.TELL_MACHINE: events.Outcome.MACHINE,
    DetectionAction.TELL_UNSURE: events.Outcome.UNSURE,
}

DetectionFact = media.SpeechStarted | media.SpeechEnded | media.BeepHeard | effects.Heard
Output = effects.Effect


class Detector:
    """Who has answered. It does nothing before `start`, and nothing after it has told."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._option = AmdOption()
        self._began: float | None = None  # when the first word was said
        self._ended = 0.0  # when the latest was
        self._speaking_since = 0.0
        self._spoken = 0.0  # seconds, but for the stretch that is going on
        self._words: dict[int, str] = {}
        self._now = 0.0
        self._machine = Machine(DETECTION, self._duration, "amd", call=report.session_id, words=cause_words)

    def start(self, option: AmdOption, now: float) -> list[Output]:
        """The call is answered: listen from now on."""
        self._option = option
        self._ended = self._now = now
        return self._step(DetectionTrigger.ANSWERED, None, now)

    def deadline(self) -> Deadline:
        """When it has been long enough, one way or another."""
        return self._machine.deadline()

    def tick(self, now: float) -> list[Output]:
        """Take the timers that have run out."""
        return [output for trigger in self._machine.fired(now) for output in self._step(trigger, None, now)]

    def close(self, now: float) -> None:
        """The call is over."""
        self._step(DetectionTrigger.CALL_ENDED, None, now)

    def handle(self, fact: DetectionFact, now: float) -> list[Output]:
        """Take what was heard."""
        if self._machine.state in (Detection.OFF, Detection.TOLD):
            return []
        trigger = self._classify(fact)
        return [] if trigger is None else self._step(trigger, fact, now)

    def _classify(self, fact: DetectionFact) -> DetectionTrigger | None:
        match fact:
            case media.SpeechStarted():
                self._speaking_since = fact.at
                self._began = fact.at if self._began is None else self._began
                return DetectionTrigger.SPEECH
            case media.SpeechEnded():
                if self._began is not None:
                    self._spoken += fact.silence_at - self._speaking_since
                    self._ended = fact.silence_at
                return DetectionTrigger.SILENCE
            case media.BeepHeard():
                self._began = fact.started_at if self._began is None else self._began
                self._ended = fact.at
                return DetectionTrigger.BEEP
            case effects.Heard():
                return self._hear(fact.transcript)

    def _hear(self, heard: Transcript) -> DetectionTrigger | None:
        self._words[heard.index] = heard.text[-MOST_TEXT:]
        text = self._text().casefold()
        return DetectionTrigger.WORDS if any(phrase in text for phrase in PHRASES) else None

    def _text(self) -> str:
        return " ".join(text for _, text in sorted(self._words.items()) if text)[-MOST_TEXT:]

    def _duration(self, timer: DetectionTrigger) -> float:
        greeting, silence, timeout = (
            max(0, limit) / 1000 for limit in (self._option.greeting, self._option.silence, self._option.timeout)
        )
        match timer:
            case DetectionTrigger.LONG_GREETING:
                return max(0.0, greeting - self._spoken - (self._now - self._speaking_since))
            case DetectionTrigger.SETTLED:
                return max(0.0, silence - (self._now - self._ended))
            case _:
                return timeout

    def _step(self, trigger: DetectionTrigger, fact: DetectionFact | None, now: float) -> list[Output]:
        self._now = now
        speaking = self._machine.state is Detection.GREETING and trigger is not DetectionTrigger.BEEP
        told: list[Output] = []
        for action in self._machine.step(trigger, now, fact):
            ended = now if speaking or self._began is None else self._ended
            began = now if self._began is None else self._began
            event = self._report.machine_detection(OUTCOMES[action], began, ended, self._text(), now)
            told.append(effects.Tell(event))
        return told
