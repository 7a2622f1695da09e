"""What the far end says, as its agent is told: speech and silence, words, the end of an utterance, its times."""

from __future__ import annotations

from rustpbx.core import Deadline
from rustpbx.machine import Machine
from rustpbx.media.events import SilenceContinues, SpeechEnded, SpeechStarted
from rustpbx.session.barging import BargeIn
from rustpbx.session.effects import Tell
from rustpbx.session.eou_tables import UTTERANCE, UtteranceAction, UtteranceTrigger
from rustpbx.session.options import CallOption
from rustpbx.session.reporting import Reporter
from rustpbx.session.turns import Turns
from rustpbx.session.wording import cause as cause_words
from rustpbx.speech.base import Transcript

WORDS_LATE = 2.0
"""Seconds that words may take after silence, unless the option says it, before the utterance ends without them."""


class Hearing:
    """The far end's side of a conversation; outputs are events in order. `turns` is told of what it says."""

    def __init__(self, report: Reporter) -> None:
        self.option = CallOption()
        self.barge_in = BargeIn()
        self.turns = Turns(report.wall)
        self._report = report
        self._speech: SpeechStarted | None = None
        self._index = -1  # of the utterance that words were heard of last
        self._utterance = Machine(UTTERANCE, self._patience, call=report.session_id, words=cause_words)

    def take_option(self, option: CallOption) -> None:
        """How this call hears."""
        self.option = option
        self.barge_in.least = option.vad.min_words if option.vad is not None else 0

    def deadline(self) -> Deadline:
        """When words are late."""
        return self._utterance.deadline()

    def tick(self, now: float) -> list[Tell]:
        """Take the timer that has run out."""
        return [tell for trigger in self._utterance.fired(now) for tell in self._step(trigger, now)]

    def began(self, fact: SpeechStarted, now: float, *, speaking: bool) -> list[Tell]:
        """The far end speaks; `speaking` says whether we do, too."""
        return self._count(self.barge_in.began(fact, speaking=speaking), now)

    def ended(self, fact: SpeechEnded, now: float, *, speaking: bool) -> list[Tell]:
        """It has stopped."""
        return self._count(self.barge_in.ended(fact, speaking=speaking), now)

    def silent(self, fact: SilenceContinues, now: float) -> list[Tell]:
        """It is silent for another while."""
        return [Tell(self._report.silence(fact, now))]

    def heard(self, transcript: Transcript, now: float, *, speaking: bool) -> list[Tell]:
        """Words; before them the speech that counts for their sake, behind them how long they took."""
        told = self._count(self.barge_in.heard(transcript, speaking=speaking), now)
        told.append(Tell(self._report.transcript(transcript, now)))
        told += self._measure(transcript, now)
        if transcript.final and transcript.text.strip():
            self.turns.words(transcript.ended_at, now)
            told += self._step(UtteranceTrigger.WORDS if self._watched else UtteranceTrigger.WORDS_ALONE, now)
        return told

    def close(self, now: float) -> list[Tell]:
        """The call ends, and with it what was being said: each `speaking` has its `silence`."""
        speech, self._speech = self._speech, None
        self._step(UtteranceTrigger.CLOSE, now)
        if speech is None:
            return []
        return [Tell(self._report.silence(SpeechEnded(speech.leg, speech.at, now, now), now))]

    # -- inside -----------------------------------------------------------------------------------------------------

    @property
    def _watched(self) -> bool:
        return self.option.vad is not None

    def _count(self, facts: list[SpeechStarted | SpeechEnded], now: float) -> list[Tell]:
        told: list[Tell] = []
        for fact in facts:
            if isinstance(fact, SpeechStarted):
                self._speech = fact
                self.turns.begins()
                told.append(Tell(self._report.speaking(fact, now)))
                told += self._step(UtteranceTrigger.SPEECH, now)
            else:
                self._speech = None
                self.turns.ends(fact.silence_at)
                told.append(Tell(self._report.silence(fact, now)))
                worded = self.option.asr is not None
                told += self._step(UtteranceTrigger.SILENCE if worded else UtteranceTrigger.SILENCE_ALONE, now)
        return told

    def _measure(self, transcript: Transcript, now: float) -> list[Tell]:
        first, self._index = transcript.index != self._index, transcript.index
        metrics = []
        if first:
            metrics.append(self._report.asr_metric("ttfb", self._provider, transcript, now))
        if transcript.final:
            metrics.append(self._report.asr_metric("completed", self._provider, transcript, now))
        return [Tell(metric) for metric in metrics]

    @property
    def _provider(self) -> str:
        return (self.option.asr.provider if self.option.asr is not None else None) or "local"

    def _patience(self, _: UtteranceTrigger) -> float:
        timeout = self.option.eou.timeout if self.option.eou is not None else None
        return timeout / 1000 if timeout else WORDS_LATE

    def _step(self, trigger: UtteranceTrigger, now: float) -> list[Tell]:
        actions = self._utterance.step(trigger, now)
        if self.option.eou is None:
            return []
        return [Tell(self._report.eou(now, complete=action is UtteranceAction.TELL_COMPLETE)) for action in actions]
