"""The taps of all legs: which block is due in which tick, and its 16 kHz audio, all blocks of a tick at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from rustpbx.media.events import AudioBlock
from rustpbx.media.plane import stages
from rustpbx.media.plane.bank import KEPT, Bank
from rustpbx.media.plane.leg import Leg
from rustpbx.media.plane.stages import FRAME, HISTORY, Samples, Slots
from rustpbx.media.plane.tap import RATE, TICK, Tap

WHEEL = KEPT
"""Ticks that the wheel of due blocks goes round in: more than the longest block has frames."""

AT_ONCE = 80
"""Frames that are made 16 kHz in one go: what the cache still holds."""

CROWD = 8
"""So many taps more than in the emptiest tick, and a new one begins elsewhere: calls that come together part."""

Listener = tuple[Leg, Tap]


def _rows(frames: int) -> int:
    return max(1, AT_ONCE // frames)


class _Bench:
    """The memory that blocks of one length are made in."""

    def __init__(self, frames: int) -> None:
        self.kept: Samples = np.empty((_rows(frames), frames + 1, FRAME), np.int16)
        self.work = stages.Workbench(_rows(frames), frames * FRAME)


class Listening:
    """Sends what the bank has heard to the taps. `eject(leg, error)` is called for a leg whose block raised."""

    def __init__(self, bank: Bank, counters: Counter[str], eject: Callable[[Leg, Exception], None]) -> None:
        self._bank = bank
        self._counters = counters
        self._eject = eject
        self._wheel: list[list[Listener]] = [[] for _ in range(WHEEL)]
        self._benches: dict[int, _Bench] = {}

    def add(self, leg: Leg, tap: Tap) -> None:
        """Serve a new tap with what is heard after this tick."""
        tick = self._bank.tick
        leg.taps.append(tap)
        leg.listen()
        tap.since = tick
        tap.due = self._first(tap.frames, tick)
        self._wheel[(tick + tap.due) % WHEEL].append((leg, tap))

    def _first(self, frames: int, tick: int) -> int:
        """After how many ticks a tap gets its first block: sooner than later ones where many are due together."""
        crowds = [len(self._wheel[(tick + ahead) % WHEEL]) for ahead in range(1, frames + 1)]
        return frames if crowds[-1] - min(crowds) < CROWD else crowds.index(min(crowds)) + 1

    def emit(self, now: float) -> None:
        """Send the blocks that this tick, which was due at `now`, completes."""
        tick = self._bank.tick
        due, self._wheel[tick % WHEEL] = self._wheel[tick % WHEEL], []
        for (frames, played), listeners in self._groups(due).items():
            for listener in listeners:
                tap = listener[1]
                tap.due = tap.frames
                tap.since = tick
                self._wheel[(tick + tap.frames) % WHEEL].append(listener)
            size = _rows(frames)
            for start in range(0, len(listeners), size):
                group = listeners[start : start + size]
                try:
                    self._send(group, frames, now, played=played)
                except Exception:  # noqa: BLE001 - the leg at fault is found below
                    for listener in group:
                        self._alone(listener, frames, now)

    def flush(self, leg: Leg, now: float) -> None:
        """Send the taps of a leg what they have not had; the latest tick was due at `now`."""
        for tap in leg.taps:
            frames = min(self._bank.tick - tap.since, tap.frames)
            if frames and not tap.closed:
                self._alone((leg, tap), frames, now)

    def _groups(self, due: list[Listener]) -> dict[tuple[int, bool], list[Listener]]:
        """By length of block and direction; taps that are closed are let go of."""
        groups: dict[tuple[int, bool], list[Listener]] = {}
        for leg, tap in due:
            if not tap.closed and not leg.failed:
                groups.setdefault((tap.due, tap.played), []).append((leg, tap))
            elif tap in leg.taps:
                leg.taps.remove(tap)
                leg.listen()
        return groups

    def _send(self, group: list[Listener], frames: int, now: float, *, played: bool) -> None:
        bank = self._bank
        slots = np.array([leg.slot for leg, _ in group], np.intp)
        wide = self._wide(slots, frames, played=played)
        at = now - ((bank.delay[slots] + bank.lag[slots]) * (not played) + frames) * TICK
        begun = bank.heard[slots] | played
        for (_, tap), pcm, begin, heard in zip(group, wide, at.tolist(), begun.tolist(), strict=True):
            # A copy: the memory is used again for the next group.
            if heard and not tap.put(AudioBlock(pcm.copy(), RATE, begin)):
                self._counters["tap_blocks_dropped"] += 1

    def _wide(self, slots: Slots, frames: int, *, played: bool) -> Samples:
        """The last `frames` frames of each slot at 16 kHz: (n, 320 * frames), good until the next call."""
        bench = self._benches.get(frames)
        if bench is None:
            bench = self._benches[frames] = _Bench(frames)
        tick, kept = self._bank.tick, self._bank.said if played else self._bank.kept
        places = slots[:, np.newaxis] * KEPT + np.arange(tick - frames, tick + 1) % KEPT
        rows = bench.kept[: slots.size]
        # mode="clip" lets numpy write into `rows` directly; no place is out of range.
        np.take(kept.reshape(-1, FRAME), places, axis=0, out=rows, mode="clip")
        wide = stages.upsample(rows.reshape(slots.size, -1)[:, FRAME - HISTORY :], bench.work)
        if self._bank.coders:
            self._take_wide(slots, wide, np.arange(tick - frames + 1, tick + 1) % KEPT, played=played)
        return wide

    def _take_wide(self, slots: Slots, wide: Samples, kept: Slots, *, played: bool) -> None:
        """Those that are heard at 16 kHz need not be brought there; their rows of `wide` change."""
        for row in np.flatnonzero(self._bank.coded[slots]).tolist():
            coded = self._bank.coders[int(slots[row])]
            wide[row] = (coded.said if played else coded.heard)[kept].reshape(-1)

    def _alone(self, listener: Listener, frames: int, now: float) -> None:
        leg, tap = listener
        try:
            self._send([listener], frames, now, played=tap.played)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this leg's alone
            self._eject(leg, error)
