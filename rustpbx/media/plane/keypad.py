"""The keys that one leg presses: as RFC 4733 events, or as tones in its audio. A key after the other, one step a tick.

Pure: `step` says what leaves in a tick in place of what is played; the egress sends it.
"""

from __future__ import annotations

from collections import deque
from functools import cache

import attrs
import numpy as np

from rustpbx.errors import MediaError
from rustpbx.media.dtmf import DIGITS, END_PACKETS, HIGH, KEYPAD, LONGEST, LOW, encode_event
from rustpbx.media.events import Pcm
from rustpbx.media.plane.stages import FRAME

MOST_WAITING = 32
"""Keys that may wait for the one that is pressed; one more is refused."""

RATE = 8000
_LOW_LEVEL, _HIGH_LEVEL = 7900.0, 9950.0
"""Amplitudes of -9 and -7 dBm0: the higher tone is a little louder, for the way to there (ITU-T Q.23)."""

_NOTHING = np.zeros(FRAME, np.int16)


@attrs.frozen
class EventPacket:
    """A telephone-event payload; `rtp_time` is that of the event's begin."""

    payload: bytes
    rtp_time: int
    marker: bool


@attrs.frozen
class Sound:
    """A frame of audio (160,)."""

    pcm: Pcm = attrs.field(eq=False)


@attrs.frozen
class Released:
    """The key is up and its gap has passed: what is played goes on in this tick. `told` is its digit, None if it was
    broken off.
    """

    told: str | None


@attrs.define
class _Press:
    digit: str
    duration: int  # ms
    gap: int  # ms
    inband: bool
    begin: int | None = None  # RTP time; from here on the durations are, too
    unit: int = 8  # of RTP time in a millisecond
    ends: int = 0  # end packets sent
    end: int | None = None  # RTP time at which it was up
    broken: bool = False
    counted: tuple[int, int] = (1, 1)  # the rate of what an event says, and of RTP time

    def count(self, ticks: int) -> int:
        """A time as an event says it."""
        rate, clock_rate = self.counted
        return ticks * rate // clock_rate


class Keypad:
    """The keys of one leg."""

    def __init__(self) -> None:
        self._presses: deque[_Press] = deque()

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._presses)

    def press(self, digit: str, *, duration: int, gap: int, inband: bool) -> None:
        """Press a key for `duration` ms, with `gap` ms of silence behind it.

        Raises `MediaError` for an unknown digit, a press longer than one segment (8.19 s), or too many keys.
        """
        if len(digit) != 1 or digit not in DIGITS:
            raise MediaError(f"{digit!r} is no DTMF digit")
        if not 0 < duration * 8 <= LONGEST or gap < 0:
            raise MediaError(f"a DTMF press of {duration} ms is not possible")
        if len(self._presses) > MOST_WAITING:
            raise MediaError(f"more than {MOST_WAITING} keys wait to be pressed")
        self._presses.append(_Press(digit, duration, gap, inband))

    def release(self) -> None:
        """Break off: the key that is down goes up with the next packet, and none that waits is pressed."""
        running = next((press for press in self._presses if press.begin is not None), None)
        self._presses.clear()
        if running is not None:
            running.broken = True
            self._presses.append(running)

    def step(
        self, rtp_time: int, clock_rate: int, *, boundary: bool, event_rate: int | None = None
    ) -> EventPacket | Sound | Released | None:
        """What leaves at `rtp_time`, which runs at `clock_rate` Hz; the durations of events at `event_rate`, if not so.

        None is what is played: there is no key, or an event waits for its `boundary`. It begins between two packets of
        audio only.
        """
        if not self._presses:
            return None
        press = self._presses[0]
        if press.begin is None:
            if not press.inband and not boundary:
                return None
            press.begin = rtp_time
            unit = clock_rate // 1000
            press.duration, press.gap, press.unit = min(press.duration * unit, LONGEST), press.gap * unit, unit
            press.counted = (event_rate or clock_rate, clock_rate)
        elapsed = (rtp_time - press.begin) & 0xFFFFFFFF
        step = self._tone(press, elapsed) if press.inband else self._event(press, press.begin, elapsed)
        if step is not None:
            return step
        if press.end is not None and not press.broken and ((rtp_time - press.end) & 0xFFFFFFFF) < press.gap:
            return Sound(_NOTHING)
        self._presses.popleft()
        return Released(None if press.broken else press.digit)

    def _event(self, press: _Press, begin: int, elapsed: int) -> EventPacket | None:
        """RFC 4733 2.5.1: the duration so far in every packet, three packets for the end."""
        if press.ends == END_PACKETS:
            return None
        so_far = elapsed + 20 * press.unit
        if press.end is None and (so_far >= press.duration or press.broken):
            press.duration = min(press.duration, so_far)
            press.end = begin + press.duration
        if press.end is None:
            return EventPacket(encode_event(press.digit, press.count(so_far)), begin, marker=elapsed == 0)
        press.ends += 1
        payload = encode_event(press.digit, press.count(press.duration), end=True)
        return EventPacket(payload, begin, marker=elapsed == 0)

    def _tone(self, press: _Press, elapsed: int) -> Sound | None:
        if press.broken:
            press.end = press.end or (press.begin or 0) + elapsed
            return None
        if elapsed >= press.duration:
            return None
        left = (press.duration - elapsed) * 8 // press.unit
        if left <= FRAME:
            press.end = (press.begin or 0) + press.duration
        tone = _frame(press.digit, elapsed * 8 // press.unit)
        return Sound(tone if left >= FRAME else np.where(np.arange(FRAME) < left, tone, np.int16(0)))


@cache
def _pair(digit: str) -> tuple[float, float]:
    """The frequencies of a digit, in radians a sample."""
    row, keys = next((row, keys) for row, keys in enumerate(KEYPAD) if digit in keys)
    column = keys.index(digit)
    return 2 * np.pi * LOW[row] / RATE, 2 * np.pi * HIGH[column] / RATE


def _frame(digit: str, at: int) -> Pcm:
    """160 samples of a digit's two tones, `at` samples after its begin."""
    low, high = _pair(digit)
    n = np.arange(at, at + FRAME)
    mixed: Pcm = np.rint(_LOW_LEVEL * np.sin(low * n) + _HIGH_LEVEL * np.sin(high * n)).astype(np.int16)
    return mixed
