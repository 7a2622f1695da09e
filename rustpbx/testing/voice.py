"""Speech as sound: `spoken` makes audio that carries its text, and `heard_text` reads the text out of audio.

Each byte of the text (UTF-8) is a chord of three tones: one for its upper half, one for its lower half, and one that
changes from byte to byte, so that doubled letters stay two and a lost letter is noticed. The chords lie in the
telephone band; they survive G.711, resampling and the loss of single packets, and voice activity detectors take them
for a voice. What was cut off in the middle reads as exactly the part that was played.
"""

from __future__ import annotations

import math

import attrs
import numpy as np
import numpy.typing as npt

from rustpbx.media.events import Pcm
from rustpbx.testing.script import joined

PACE = 0.05
"""Seconds per byte of text: a little faster than people talk; any one packet of it may be lost."""

PAUSE = 0.2
"""Seconds without a voice after which what comes next is another phrase."""

SHORTEST = 0.025  # a shorter chord would be told from its neighbours by luck
EDGE = 0.002  # each chord swells and fades in this time: no clicks
WINDOW, HOP = 0.02, 0.005  # what is looked at at once, and how often
QUIET = 150.0  # a window of lower RMS holds no voice
CLEAR = 0.75  # the share of a window's power that three tones hold in a clear one, and what each holds at least
FAINT = 0.12

_CLOCKS, _HALVES = 5, 16
_HERTZ = 350.0 + 80.0 * np.arange(_CLOCKS + 2 * _HALVES)
_START = 0  # the clock tone of a phrase's first byte; those after it take turns with the other four
_TURNS = _CLOCKS - 1

Floats = npt.NDArray[np.float64]


def spoken(text: str, *, rate: int = 8000, pace: float = PACE, volume: int = 5, speed: float = 1.0) -> Pcm:
    """`text` as sound: `pace / speed` seconds per byte, at `rate` Hz; the peak is 1600 * `volume`. Shape (n,)."""
    seconds = max(SHORTEST, pace / speed)
    data = text.encode()
    pcm = np.zeros(round(len(data) * seconds * rate), np.int16)
    for index, byte in enumerate(data):
        start, end = round(index * seconds * rate), round((index + 1) * seconds * rate)
        pcm[start:end] = 1600 * volume * _chord(_clock(index), byte, end - start, rate)
    return pcm


def heard_text(pcm: Pcm, rate: int = 8000) -> str:
    """The words in `pcm` (int16, mono, `rate` Hz): phrases joined by spaces, a missing letter as `script.LOST`."""
    ear = Ear(rate)
    ear.feed(pcm)
    ear.finish()
    return joined(phrase.text for phrase in ear.phrases)


def _clock(index: int) -> int:
    return _START if index == 0 else 1 + (index - 1) % _TURNS


def _chord(clock: int, byte: int, samples: int, rate: int) -> Floats:
    tones = _HERTZ[[clock, _CLOCKS + (byte >> 4), _CLOCKS + _HALVES + (byte & 15)]]
    times = np.arange(samples) / rate
    chord = np.sin(2 * math.pi * tones[:, None] * times).mean(axis=0)
    edge = np.clip(np.minimum(times, times[::-1]) / EDGE, 0, 1)
    faded: Floats = chord * (0.5 - 0.5 * np.cos(math.pi * edge))
    return faded


@attrs.define
class Phrase:
    """Words without a pause. Times are seconds from the first sample fed; `data` is the text's bytes so far."""

    started_at: float
    ended_at: float
    data: bytearray = attrs.field(factory=bytearray)

    @property
    def text(self) -> str:
        """The words; letters of which a byte was lost, or is still to come, are `script.LOST`."""
        return self.data.decode(errors="replace")


@attrs.define
class _Letter:
    """The byte being heard: its clock tone, and how many windows voted for which value."""

    clock: int
    votes: dict[int, int] = attrs.field(factory=dict)


class Ear:
    """Reads speech out of audio that arrives piece by piece. `phrases` is what was heard, the last one growing.

    `voice_at` is when a voice was last heard, in seconds from the first sample; -inf before the first.
    """

    def __init__(self, rate: int) -> None:
        self.phrases: list[Phrase] = []
        self.voice_at = -math.inf
        self._rate = rate
        self._size, self._hop = round(WINDOW * rate), round(HOP * rate)
        self._taper = np.hanning(self._size + 1)[:-1]
        angles = 2 * math.pi / rate * np.outer(np.arange(self._size), _HERTZ)
        self._waves = np.hstack([np.cos(angles), np.sin(angles)])
        self._rest = np.zeros(self._size - self._hop, np.int16)  # windows begin before the first sample
        self._at = -self._size + self._hop  # of the next window's first sample
        self._letter: _Letter | None = None

    @property
    def text(self) -> str:
        """Everything heard so far."""
        return joined(phrase.text for phrase in self.phrases)

    def feed(self, pcm: Pcm) -> None:
        """Hear more."""
        samples = np.concatenate([self._rest, pcm])
        count = max(0, (len(samples) - self._size) // self._hop + 1)
        self._rest = samples[count * self._hop :]
        if not count:
            return
        windows = np.lib.stride_tricks.sliding_window_view(samples, self._size)[:: self._hop][:count]
        loud = np.flatnonzero(np.square(windows.astype(np.float64)).mean(axis=1) >= QUIET**2)
        if len(loud):
            self._look(windows[loud], loud)
        self._at += count * self._hop

    def finish(self) -> None:
        """Hear the last windows; nothing more will be fed."""
        self.feed(np.zeros(self._size, np.int16))

    def _look(self, windows: npt.NDArray[np.int16], places: npt.NDArray[np.intp]) -> None:
        tapered = windows * self._taper
        power = np.square(tapered).sum(axis=1, keepdims=True)
        # The Hann window's gains make a single tone's share 1.
        cosines, sines = np.split(np.square(tapered @ self._waves), 2, axis=1)
        share = 3 / self._size * (cosines + sines) / power
        groups = np.split(share, (_CLOCKS, _CLOCKS + _HALVES), axis=1)
        best = np.stack([group.argmax(axis=1) for group in groups], axis=1)
        held = np.stack([group.max(axis=1) for group in groups], axis=1)
        clear = (held.sum(axis=1) >= CLEAR) & (held.min(axis=1) >= FAINT)
        for place, (clock, high, low) in zip(places[clear].tolist(), best[clear].tolist(), strict=True):
            middle = (self._at + place * self._hop + self._size / 2) / self._rate
            self._note(clock, high << 4 | low, middle)

    def _note(self, clock: int, byte: int, at: float) -> None:
        letter, gap = self._letter, at - self.voice_at
        self.voice_at = at
        if letter is None or gap > PAUSE or (clock == _START != letter.clock):
            self.phrases.append(Phrase(at, at))
            if clock != _START:
                self.phrases[-1].data.append(0xFF)  # the first letter was lost, and nobody knows how many more
            self._begin(clock, byte)
        elif clock != letter.clock:
            lost = clock - 1 if letter.clock == _START else (clock - letter.clock - 1) % _TURNS
            self.phrases[-1].data.extend(b"\xff" * lost)
            self._begin(clock, byte)
        else:
            letter.votes[byte] = letter.votes.get(byte, 0) + 1
            self.phrases[-1].data[-1] = max(letter.votes, key=letter.votes.__getitem__)
        self.phrases[-1].ended_at = at

    def _begin(self, clock: int, byte: int) -> None:
        self._letter = _Letter(clock, {byte: 1})
        self.phrases[-1].data.append(byte)
