"""The keys that the agent presses (`dtmf`): a bounded queue, one key at a time, by RTP or by SIP."""

from __future__ import annotations

from collections import deque
from enum import Enum

import attrs

from rustpbx.core import Deadline
from rustpbx.machine import Machine
from rustpbx.media import events as media
from rustpbx.session import commands, effects
from rustpbx.session.reporting import Reporter
from rustpbx.session.tables import KEYING, Keying, KeyingAction, KeyingTrigger
from rustpbx.session.wording import cause as cause_words
from rustpbx.sip import events as sip

MOST_KEYS = 256
"""Keys that may wait; an agent that wants more at once is told so."""
SHORTEST, LONGEST, LONGEST_GAP = 40, 6000, 10_000
"""Milliseconds: what every receiver still takes for a key (ITU-T Q.24), and what RFC 4733 fits in one event."""
HOLD_LIMIT = 5.0
"""Seconds that a key may wait for a line that is on hold."""
ANSWER_LIMIT = 40.0
"""Seconds for the answer to an INFO; SIP itself gives up after 32."""
DIGITS = frozenset("0123456789*#ABCD")


class Method(Enum):
    """How a key travels: RFC 4733, SIP INFO, tones in the audio; `auto` is the first if it was agreed, else INFO."""

    AUTO = "auto"
    RFC4733 = "rfc4733"
    INFO = "info"
    INBAND = "inband"


@attrs.frozen
class _Key:
    digit: str
    duration: int
    gap: int
    method: Method


KeyFact = media.KeyReleased | sip.DigitSent | effects.KeyFailed
Output = effects.Effect


class Keys:
    """What the agent presses. `events_agreed` says whether the far end takes RFC 4733 events, `signalled` whether there
    is SIP with it: without either, keys are tones in the audio.
    """

    def __init__(self, report: Reporter) -> None:
        self.events_agreed = False
        self.signalled = True
        self._report = report
        self._waiting: deque[_Key] = deque()
        self._key: _Key | None = None
        self._machine = Machine(KEYING, self._duration, "keys", call=report.session_id, words=cause_words)

    def deadline(self) -> Deadline:
        """When a key has taken too long, or the next one is due."""
        return self._machine.deadline()

    def press(self, command: commands.Dtmf, now: float) -> list[Output]:
        """Take the keys of a command, all or none of them."""
        problem = self._problem(command)
        if problem is not None:
            return [*self._report.error(command.name, problem, None, now)]
        method = Method(command.method)
        self._waiting.extend(_Key(digit, command.duration, command.gap, method) for digit in command.digits.upper())
        return self._next(now) if self._machine.state is Keying.IDLE else []

    def _problem(self, command: commands.Dtmf) -> str | None:
        """Why a command cannot be taken; None if it can."""
        problem = _mistake(command)
        if problem is not None:
            return problem
        if command.method == Method.RFC4733.value and not self.events_agreed:
            return "method: telephone-event was not agreed with the far end"
        if command.method == Method.INFO.value and not self.signalled:
            return "method: there is no SIP in this call"
        if len(self._waiting) + len(command.digits) > MOST_KEYS:
            return f"more than {MOST_KEYS} keys wait"
        return None

    def handle(self, fact: KeyFact, now: float) -> list[Output]:
        """Take what became of a key."""
        match fact:
            case media.KeyReleased():
                return self._step(KeyingTrigger.RELEASED, fact, now)
            case sip.DigitSent(status=status) if 200 <= status < 300:
                return self._step(KeyingTrigger.TAKEN, fact, now)
            case _:
                return self._step(KeyingTrigger.FAILED, fact, now)

    def stop(self, now: float) -> list[Output]:
        """Press no more keys, and let go of the one that is down."""
        self._waiting.clear()
        return self._step(KeyingTrigger.STOP, None, now)

    def close(self, now: float) -> None:
        """The call is over."""
        self._waiting.clear()
        self._step(KeyingTrigger.CALL_ENDED, None, now)

    def tick(self, now: float) -> list[Output]:
        """Take the timers that have run out."""
        return [output for trigger in self._machine.fired(now) for output in self._step(trigger, None, now)]

    def _step(self, trigger: KeyingTrigger, cause: KeyFact | None, now: float) -> list[Output]:
        return [
            output for action in self._machine.step(trigger, now, cause) for output in self._act(action, cause, now)
        ]

    def _act(self, action: KeyingAction, cause: KeyFact | None, now: float) -> list[Output]:
        key = self._key
        assert key is not None  # noqa: S101 - every row that acts comes after a key was taken
        match action:
            case KeyingAction.PRESS_KEY:
                return [effects.PressKey(key.digit, key.duration, key.gap, inband=key.method is Method.INBAND)]
            case KeyingAction.SEND_INFO:
                return [sip.SendDigit(self._report.session_id, key.digit, key.duration)]
            case KeyingAction.RELEASE_KEYS:
                return [effects.ReleaseKeys()]
            case KeyingAction.TELL_FAILURE:
                return self._fail(key, cause, now)
            case KeyingAction.NEXT:
                return self._next(now)

    def _next(self, now: float) -> list[Output]:
        if not self._waiting:
            return []
        self._key = self._waiting.popleft()
        if self._key.method is Method.AUTO and not (self.events_agreed or self.signalled):
            self._key = attrs.evolve(self._key, method=Method.INBAND)
        info = self._key.method is Method.INFO or (self._key.method is Method.AUTO and not self.events_agreed)
        return self._step(KeyingTrigger.ASK if info else KeyingTrigger.PRESS, None, now)

    def _fail(self, key: _Key, cause: KeyFact | None, now: float) -> list[Output]:
        """One error for the key and those behind it: half of a number helps nobody."""
        lost = 1 + len(self._waiting)
        self._waiting.clear()
        code = None
        match cause:
            case sip.DigitSent(status=status, reason=reason):
                code, problem = status, f"the far end refused the INFO: {status} {reason}"
            case effects.KeyFailed(problem=told):
                problem = told
            case _:
                problem = "the line does not take it: it is on hold, or silent"
        return [*self._report.error("dtmf", f"{key.digit} was not sent, {lost} keys are lost: {problem}", code, now)]

    def _duration(self, timer: KeyingTrigger) -> float:
        assert self._key is not None  # noqa: S101 - a timer runs only for a key
        pressed = (self._key.duration + self._key.gap) / 1000
        return {
            KeyingTrigger.PRESS_LIMIT: pressed + HOLD_LIMIT,
            KeyingTrigger.ANSWER_LIMIT: ANSWER_LIMIT,
            KeyingTrigger.PAUSED: pressed,
        }[timer]


def _mistake(command: commands.Dtmf) -> str | None:
    """What is wrong with a command whatever the call is like."""
    if not command.digits or not DIGITS.issuperset(command.digits.upper()):
        return f"digits: {command.digits[:40]!r} are not all of 0-9 * # A-D"
    if not SHORTEST <= command.duration <= LONGEST:
        return f"duration: {command.duration} ms are not within {SHORTEST} and {LONGEST}"
    if not SHORTEST <= command.gap <= LONGEST_GAP:
        return f"gap: {command.gap} ms are not within {SHORTEST} and {LONGEST_GAP}"
    methods = [method.value for method in Method]
    return None if command.method in methods else f"method: {command.method[:40]!r} is none of {', '.join(methods)}"
