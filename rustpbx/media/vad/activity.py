"""Speech and silence out of voiced frames: one `SpeechStarted` and one `SpeechEnded` per stretch of speech.

Any detector serves: the core takes one flag per frame (20 ms, or what the detector judges at once) and when that frame
was heard. Frame times never go back, and neither do the times it reports; all of them are the real begin or end of what
was heard.
"""

from __future__ import annotations

import math

from rustpbx.machine import Machine
from rustpbx.media.events import SilenceContinues, SpeechEnded, SpeechStarted, VadParams
from rustpbx.media.vad.tables import SPEECH, Do, Frame, Hearing

FRAME = 0.02
EPSILON = 1e-6  # 250 ms are 12.5 frames: sums of 0.02 must not miss a border by rounding

STEADY = {
    Hearing.QUIET: False,
    Hearing.STIRRING: True,
    Hearing.WAVERING: False,
    Hearing.SPEAKING: True,
    Hearing.FALTERING: False,
}
"""The kind of frame that changes nothing in a state, until it has lasted long enough."""

SpeechFact = SpeechStarted | SpeechEnded | SilenceContinues


class Activity:
    """One leg's speech.

    Speech begins with the first voiced frame and is reported once it has lasted `speech_padding`; gaps shorter than
    `silence_padding` belong to it. Silence begins with the first unvoiced frame and is reported once it has lasted
    `silence_padding`. While nobody speaks, each further `silence_timeout` is reported, counted from the begin of
    the silence or from the first frame.

    Most frames change nothing and need not be given at all: those whose flag is `steady`, heard before `look_at`.
    """

    def __init__(self, leg: str, params: VadParams, frame: float = FRAME) -> None:
        self._leg = leg
        self._frame = frame
        self._speech_padding = params.speech_padding - EPSILON
        self._silence_padding = params.silence_padding - EPSILON
        self._timeout = max(frame, params.silence_timeout) if params.silence_timeout else None
        self._machine = Machine(SPEECH, call=leg)
        self._speech_at = 0.0
        self._silence_at = 0.0
        self._waiting_since: float | None = None
        self.steady: bool | None = None
        self.look_at = 0.0

    @property
    def state(self) -> Hearing:
        """Where the table stands."""
        return self._machine.state

    def frame(self, voiced: bool, at: float) -> list[SpeechFact]:
        """Take the frame heard at `at` (its begin, seconds); the facts it completes, in order."""
        if self._waiting_since is None:
            self._waiting_since = at
        if not voiced and self._machine.state is Hearing.QUIET:
            facts = self._patience(at + self._frame)
        else:
            facts = self._step(self._judge(voiced, at), at, at + self._frame)
        self._settle()
        return facts

    def finish(self, at: float) -> list[SpeechFact]:
        """The stream ends at `at`: reported speech gets its end."""
        return self._step(Frame.END, at, at)

    def _settle(self) -> None:
        state = self._machine.state
        self.steady = STEADY.get(state)
        self.look_at = math.inf
        if state is Hearing.STIRRING:
            self.look_at = self._speech_at + self._speech_padding - self._frame
        elif state in (Hearing.WAVERING, Hearing.FALTERING):
            self.look_at = self._silence_at + self._silence_padding - self._frame
        elif state is Hearing.QUIET and self._timeout is not None and self._waiting_since is not None:
            self.look_at = self._waiting_since + self._timeout - self._frame - EPSILON

    def _judge(self, voiced: bool, at: float) -> Frame:
        state = self._machine.state
        if voiced:
            began = at if state is Hearing.QUIET else self._speech_at
            return Frame.VOICED_ENOUGH if at + self._frame - began >= self._speech_padding else Frame.VOICED
        began = self._silence_at if state in (Hearing.WAVERING, Hearing.FALTERING) else at
        return Frame.UNVOICED_ENOUGH if at + self._frame - began >= self._silence_padding else Frame.UNVOICED

    def _step(self, frame: Frame, at: float, end: float) -> list[SpeechFact]:
        facts: list[SpeechFact] = []
        for action in self._machine.step(frame, end):
            match action:
                case Do.MARK_SPEECH:
                    self._speech_at = at
                case Do.MARK_SILENCE:
                    self._silence_at = at
                case Do.REPORT_SPEECH:
                    facts.append(SpeechStarted(self._leg, at=self._speech_at))
                case Do.REPORT_SILENCE:
                    self._waiting_since = self._silence_at
                    facts.append(SpeechEnded(self._leg, self._speech_at, silence_at=self._silence_at, at=end))
        return facts

    def _patience(self, now: float) -> list[SpeechFact]:
        facts: list[SpeechFact] = []
        while (
            self._timeout is not None
            and self._waiting_since is not None
            and now - self._waiting_since >= self._timeout - EPSILON
        ):
            end = self._waiting_since + self._timeout
            facts.append(SilenceContinues(self._leg, since=self._waiting_since, at=end))
            self._waiting_since = end
        return facts
