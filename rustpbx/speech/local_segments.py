"""Cutting a call's audio into utterances: pure, fed with blocks, asked for what is open and told what ended.

The embedded speech model must be given one utterance at a time and no leading silence. WebRTC's detector takes steady
noise for speech, so two more gates stand beside it: a frame must rise over the noise floor, and an utterance must move
in level as speech does.
"""

from __future__ import annotations

from collections import deque

import attrs
import numpy as np
import webrtcvad

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock, Pcm

RATE = 16000
FRAME = RATE // 50
_SECOND = 50
"""Frames per second: everything below counts frames of 20 ms."""

AGGRESSIVENESS = 2
ONSET, ONSET_WINDOW = 5, 10
"""Speech begins with so many voiced frames among so many: a click is no word."""

PRE_ROLL, TAIL = 15, 10
"""Kept before and after what is voiced: the detector misses soft beginnings and ends."""

HANGOVER, LATE_HANGOVER, LATE = 30, 10, 10 * _SECOND
"""Silence that ends an utterance; in one that is getting long a breath is enough."""

LONGEST, SHORTEST = 15 * _SECOND, 8
"""An utterance ends here whatever is said; one with fewer voiced frames is none."""

FLOOR_WINDOW, FLOOR_KNOWN = 2 * _SECOND, PRE_ROLL
"""Over how many frames the noise floor is taken. Speech that came before it was known is still in the pre-roll."""

QUIETEST, LOUDEST_FLOOR, OVER_FLOOR = 60.0, 4000.0, 2.0
"""What a voiced frame's level (RMS) must exceed: so much, and the floor (taken as at most so much) so many times."""

LEAST_RANGE = 2.0
"""An utterance's loud frames are at least this many times as loud as its soft ones; steady noise stays below 1.5."""


@attrs.frozen
class Segment:
    """One utterance, or what is there of it: samples at 16 kHz, and when its speech began and ended (seconds).

    `heard` counts the frames up to the last speech: two looks at one segment with the same `heard` have the same
    audio.
    """

    number: int
    pcm: Pcm = attrs.field(eq=False, repr=False)
    started_at: float
    ended_at: float
    heard: int


@attrs.define
class _Frame:
    pcm: Pcm
    at: float
    level: float
    voiced: bool


@attrs.define
class _Open:
    number: int
    frames: list[_Frame]
    first: int
    last: int


class Segmenter:
    """Feed it blocks in order. Raises `SpeechError` for audio that is not at 16 kHz."""

    def __init__(self) -> None:
        self._vad = webrtcvad.Vad(AGGRESSIVENESS)
        self._rest: Pcm = np.zeros(0, np.int16)
        self._recent: deque[_Frame] = deque(maxlen=PRE_ROLL + ONSET_WINDOW)
        self._levels: deque[float] = deque(maxlen=FLOOR_WINDOW)
        self._smooth: deque[float] = deque(maxlen=5)
        self._open: _Open | None = None
        self._count = 0

    def feed(self, block: AudioBlock) -> list[Segment]:
        """Take a block; the utterances that ended in it."""
        if block.rate != RATE:
            raise SpeechError(f"local speech recognition wants audio at {RATE} Hz, not {block.rate}")
        at = block.at - len(self._rest) / RATE
        pcm = np.concatenate((self._rest, block.pcm))
        whole = len(pcm) // FRAME * FRAME
        self._rest = pcm[whole:]
        ended = []
        for start in range(0, whole, FRAME):
            segment = self._step(self._frame(pcm[start : start + FRAME], at + start / RATE))
            if segment is not None:
                ended.append(segment)
        return ended

    def flush(self) -> Segment | None:
        """The audio is over: what is open ends now."""
        return self._end()

    def peek(self) -> Segment | None:
        """The utterance that is going on, if it is long enough to be one."""
        return None if self._open is None else self._segment(self._open)

    @property
    def progress(self) -> tuple[int, float] | None:
        """The number of the utterance that is going on, and how many seconds of it are heard; None without one."""
        return None if self._open is None else (self._open.number, (self._open.last + 1) / _SECOND)

    @property
    def pause(self) -> float:
        """Seconds since the last speech of the utterance that is going on; 0 if there is none."""
        return 0.0 if self._open is None else (len(self._open.frames) - 1 - self._open.last) / _SECOND

    def _frame(self, pcm: Pcm, at: float) -> _Frame:
        level = float(np.sqrt(np.mean(np.square(pcm, dtype=np.float64))))
        self._smooth.append(level)
        self._levels.append(sum(self._smooth) / len(self._smooth))
        # Speech has gaps between its syllables, so the least level of two seconds is that of what lies under it.
        floor = min(self._levels) if len(self._levels) >= FLOOR_KNOWN else 0.0
        gate = max(QUIETEST, OVER_FLOOR * min(floor, LOUDEST_FLOOR))
        voiced = level > gate and self._vad.is_speech(pcm.tobytes(), RATE)
        return _Frame(pcm, at, level, voiced)

    def _step(self, frame: _Frame) -> Segment | None:
        if self._open is None:
            self._recent.append(frame)
            window = list(self._recent)[-ONSET_WINDOW:]
            if sum(f.voiced for f in window) >= ONSET:
                self._begin()
            return None
        opened = self._open
        opened.frames.append(frame)
        length = len(opened.frames)
        if frame.voiced:
            opened.last = length - 1
        hangover = HANGOVER if length < LATE else LATE_HANGOVER
        return self._end() if length - 1 - opened.last >= hangover or length >= LONGEST else None

    def _begin(self) -> None:
        frames = list(self._recent)
        window = range(max(0, len(frames) - ONSET_WINDOW), len(frames))
        first = next(i for i in window if frames[i].voiced)
        kept = max(0, first - PRE_ROLL)
        self._open = _Open(self._count, frames[kept:], first - kept, len(frames) - 1 - kept)
        self._count += 1
        self._recent.clear()

    def _end(self) -> Segment | None:
        opened, self._open = self._open, None
        if opened is None:
            return None
        # What follows the last speech may be the beginning of the next.
        self._recent.extend(opened.frames[opened.last + 1 :])
        return self._segment(opened)

    def _segment(self, opened: _Open) -> Segment | None:
        voiced = [f.level for f in opened.frames if f.voiced]
        if len(voiced) < SHORTEST:
            return None
        soft, loud = np.quantile(voiced, (0.1, 0.9))
        if loud < LEAST_RANGE * soft:
            return None
        frames = opened.frames[: opened.last + 1 + TAIL]
        return Segment(
            number=opened.number,
            pcm=np.concatenate([f.pcm for f in frames]),
            started_at=opened.frames[opened.first].at,
            ended_at=opened.frames[opened.last].at + 1 / _SECOND,
            heard=opened.last + 1,
        )
