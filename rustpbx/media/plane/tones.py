"""DTMF in the audio: the legs that asked for it, all at once, by the rules of ITU-T Q.24 and some against talk-off.

Each frame gives two blocks of 13 ms, 10 ms apart, and each block its power at the eight frequencies (Goertzel's
algorithm, which for all blocks together is one matrix product) and, where these are nearly all that there is, at twice
the higher ones. A block is a hit if it holds one low and one high frequency, loud enough, with an acceptable twist. A
digit is reported once blocks, from each to the next of which both tones have gone on at their frequencies, add up to
27 ms of tone: 40 ms are always enough, 24 ms never are. It is over after 40 ms without it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rustpbx.media.dtmf import HIGH, KEYPAD, LOW
from rustpbx.media.events import DigitPressed
from rustpbx.media.plane.leg import Leg
from rustpbx.media.plane.stages import FRAME, Flags, Floats, Samples, Slots

RATE = 8000
HALF = FRAME // 2
"""Samples between two blocks: 10 ms."""
BLOCK = 106
"""Samples of a block: the neighbours of each frequency fall where its spectrum is next to nothing, and a tone that is
1.5 % off loses little.
"""
OVERLAP = BLOCK - HALF
"""Samples of the frame before that the first block of a frame begins with."""

QUIETEST = 32124.0 * 10 ** ((-29 - 3.17) / 20)
"""Amplitude of a tone of -29 dBm0: Q.24 wants digits down to -25 dBm0 taken, and allows for a few less."""
STEEPEST = 10 ** (6.5 / 10)
"""Power of the high tone over the low one's: Q.24 allows 4 dB."""
FLATTEST = 10 ** (-11 / 10)
"""The other way 8 dB: lines attenuate high frequencies more."""
ALONE = 10 ** (-6 / 10)
"""Power of the next strongest frequency of a group, at most, over the strongest one's."""
PURE = 0.7
"""Share of a block's power in its two tones, at least: both may be 1.5 % off, and speech has more of them."""
HARMONIC = 10 ** (-9 / 10)
"""Power at twice the high tone's frequency over the tone's, at most: voices have overtones."""
FARTHEST = 0.024
"""Share of its frequency that a tone may be off: Q.24 wants 1.5 % taken and 3.5 % not."""
LONG_ENOUGH = 27.0
"""Milliseconds of tone that make a digit."""
GAP = 4
"""Blocks without the digit after which it is over: any break of 40 ms has so many, one of 20 ms has not."""

Times = npt.NDArray[np.floating]
Digits = npt.NDArray[np.int64]
_NONE = -1
_CODES = "".join(KEYPAD)


def _bank(frequencies: tuple[float, ...]) -> Floats:
    """(BLOCK, 2n): cosines and sines of n frequencies."""
    phases = 2 * np.pi * np.outer(np.arange(BLOCK), frequencies) / RATE
    return np.hstack([np.cos(phases), np.sin(phases)]).astype(np.float32)


_LOW, _HIGH = np.array(LOW), np.array(HIGH)
_TONES = _bank((*LOW, *HIGH))
_OVERTONES = _bank(tuple(2 * frequency for frequency in HIGH))
"""Of the columns only: twice a row's tone is too near to the columns' own."""


def _power(products: Floats) -> Floats:
    """Squared amplitudes (n, frequencies) out of the products of blocks with a bank."""
    count = products.shape[1] // 2
    amplitudes: Floats = (products[:, :count] ** 2 + products[:, count:] ** 2) * np.float32((2 / BLOCK) ** 2)
    return amplitudes


class Found(NamedTuple):
    """What n blocks hold: the digit (0..15 along `KEYPAD`, -1 for none), the amplitude of its tones, their phases."""

    digits: Digits
    amplitudes: Floats
    phases: Floats
    """(n, 2), of the low and the high tone."""

    def part(self, rows: slice) -> Found:
        """What some of the blocks hold."""
        return Found(self.digits[rows], self.amplitudes[rows], self.phases[rows])


def classify(samples: Samples) -> Found:
    """Judge blocks (n, BLOCK), each by itself."""
    blocks = samples.astype(np.float32)
    products = blocks @ _TONES
    power = _power(products)
    lower, higher = power[:, :4].max(axis=1), power[:, 4:].max(axis=1)
    both = lower + higher
    energy = np.einsum("ij,ij->i", blocks, blocks) * np.float32(2 / BLOCK)
    hopeful = (
        (both >= PURE * energy)
        & (lower >= QUIETEST**2)
        & (higher >= QUIETEST**2)
        & (higher <= lower * STEEPEST)
        & (higher >= lower * FLATTEST)
    )
    digits = np.full(len(blocks), _NONE, np.int64)
    phases = np.zeros((len(blocks), 2), np.float32)
    candidates = np.flatnonzero(hopeful)
    if candidates.size:
        digits[candidates] = _judge(blocks[candidates], power[candidates])
        for group, strongest in enumerate((power[candidates, :4].argmax(axis=1), power[candidates, 4:].argmax(axis=1))):
            place = 4 * group + strongest
            phases[candidates, group] = np.arctan2(-products[candidates, 8 + place], products[candidates, place])
    return Found(digits, np.sqrt(both), phases)


def _judge(blocks: Floats, power: Floats) -> Digits:
    """The digit of blocks whose two strongest tones are nearly all that there is: neighbours and overtones decide."""
    rows = np.arange(len(blocks))
    row, column = power[:, :4].argmax(axis=1), power[:, 4:].argmax(axis=1)
    lower, higher = power[rows, row], power[rows, 4 + column]
    over = _power(blocks @ _OVERTONES)
    hit = (
        (np.partition(power[:, :4], 2, axis=1)[:, 2] <= lower * ALONE)
        & (np.partition(power[:, 4:], 2, axis=1)[:, 2] <= higher * ALONE)
        & (over[rows, column] <= higher * HARMONIC)
    )
    return np.where(hit, 4 * row + column, _NONE)


def continues(digits: Digits, before: Floats, after: Floats) -> Flags:
    """Whether the tones of these digits have their frequencies, by how far their phases (n, 2) came in 10 ms."""
    known = np.maximum(digits, 0)
    frequencies = np.stack([_LOW[known // 4], _HIGH[known % 4]], axis=1)
    # What is off nominal shows as a turn; 50 Hz would be half of one, and no block's tone is that far off.
    turned = (after - before - 2 * np.pi * frequencies * HALF / RATE + np.pi) % (2 * np.pi) - np.pi
    off = np.abs(turned) * RATE / (2 * np.pi * HALF)
    near = off <= FARTHEST * frequencies
    steady: Flags = near[:, 0] & near[:, 1]
    return steady


class Tones:
    """The legs among `slots` in whose audio digits are looked for."""

    def __init__(self, slots: int) -> None:
        self._legs: dict[int, Leg] = {}
        self._watched = np.zeros(slots, np.bool_)
        self._past: Samples = np.zeros((slots, OVERLAP), np.int16)
        self._digit = np.full(slots, _NONE, np.int64)  # the one that is being heard
        self._phases: Floats = np.zeros((slots, 2), np.float32)  # of its last block
        self._weight = np.zeros(slots, np.float32)  # its amplitudes, added up
        self._peak = np.zeros(slots, np.float32)  # the largest of them
        self._misses = np.zeros(slots, np.int64)  # blocks without it in a row
        self._told = np.full(slots, _NONE, np.int64)  # the digit that was told and is not over

    @property
    def wanted(self) -> bool:
        """Whether anybody asked."""
        return bool(self._legs)

    def watch(self, leg: Leg) -> None:
        """Look for digits on a leg, or no more, as it says."""
        slot = leg.slot
        self._watched[slot] = leg.seeks_tones
        self._past[slot] = 0
        self._digit[slot] = self._told[slot] = _NONE
        self._weight[slot] = self._peak[slot] = self._misses[slot] = 0
        if leg.seeks_tones:
            self._legs[slot] = leg
        else:
            self._legs.pop(slot, None)

    def hear(self, slots: Slots, frames: Samples, heard_at: Times) -> None:
        """Take the frames (n, 160) of these legs, heard at `heard_at` (n,)."""
        watched = self._watched[slots]
        if not watched.any():
            return
        if not watched.all():
            slots, frames, heard_at = slots[watched], frames[watched], heard_at[watched]
        busy = (self._digit[slots] != _NONE) | (self._told[slots] != _NONE)
        loud = (frames.max(axis=1) >= QUIETEST) | busy
        if loud.all():
            self._listen(slots, frames, heard_at)
        elif loud.any():
            self._listen(slots[loud], frames[loud], heard_at[loud])
        self._past[slots] = frames[:, FRAME - OVERLAP :]

    def _listen(self, slots: Slots, frames: Samples, heard_at: Times) -> None:
        bridging = np.hstack([self._past[slots], frames[:, :HALF]])
        found = classify(np.vstack([bridging, frames[:, HALF - OVERLAP :]]))
        self._step(slots, found.part(slice(len(slots))), heard_at)
        self._step(slots, found.part(slice(len(slots), None)), heard_at)

    def _step(self, slots: Slots, found: Found, heard_at: Times) -> None:
        """One block of each leg."""
        digits = found.digits
        hit = digits != _NONE
        if not (hit.any() or (self._told[slots] != _NONE).any()):
            self._digit[slots] = _NONE
            return
        same = hit & (digits == self._digit[slots])
        if same.any():
            same &= continues(digits, self._phases[slots], found.phases)
        amplitudes = np.where(hit, found.amplitudes, np.float32(0))
        self._weight[slots] = amplitudes + np.where(same, self._weight[slots], np.float32(0))
        self._peak[slots] = np.maximum(amplitudes, np.where(same, self._peak[slots], np.float32(0)))
        self._phases[slots] = found.phases
        self._digit[slots] = digits
        going_on = hit & (digits == self._told[slots])
        self._misses[slots] = np.where(going_on, 0, self._misses[slots] + 1)
        self._told[slots[self._misses[slots] >= GAP]] = _NONE
        # What its blocks add up to is the tone's length, for a block that holds a part of it is fainter by as much.
        long = self._weight[slots] * np.float32(HALF * 1000 / RATE) >= LONG_ENOUGH * self._peak[slots]
        for at in np.flatnonzero(hit & long & (digits != self._told[slots])).tolist():
            self._tell(int(slots[at]), int(digits[at]), float(heard_at[at]))

    def _tell(self, slot: int, digit: int, at: float) -> None:
        self._told[slot] = digit
        self._misses[slot] = 0
        leg = self._legs[slot]
        leg.tell(DigitPressed(leg.name, _CODES[digit], at, inband=True))
