"""What voice activity costs a call, and what it saves to score all calls at once. `python -m bench.vad`

First silero alone: a chunk of each call in one inference, against an inference a call, in turns in one run, at both
rates. Then the plane, with packets handed over in memory: the same legs unwatched and watched by each detector, in
turns of ten ticks, everything on one thread. The cheapest turn of each counts, for noise only ever adds.

Exit status 0: the bar held; 1: it was missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import attrs
import numpy as np
import trio
import trio.testing

from bench.srtp import BLOCK, TICK, WARM, Measured
from rustpbx.errors import MediaError
from rustpbx.media.vad.silero import Silero
from rustpbx.media.vad.ten import Ten

BAR = 2.0
"""Times that one inference for all calls is to be cheaper than one for each."""


@attrs.frozen
class Figures:
    """Microseconds of CPU for a chunk of one call: scored together with the others, and alone."""

    rate: int
    together: float
    alone: float

    @property
    def ratio(self) -> float:
        """How many times cheaper together is."""
        return self.alone / self.together


def infer(rate: int, calls: int, rounds: int) -> Figures:
    """A chunk of each of so many calls, so many times, one way and the other."""
    engine = Silero(rate)
    engine.load()
    rng = np.random.default_rng(1)
    streams, others = ([engine.open() for _ in range(calls)] for _ in range(2))
    together, alone = [], []
    for _ in range(WARM + rounds):
        chunks = (rng.normal(size=(calls, engine.chunk)) * 3000).astype(np.int16)
        rows = list(zip(others, chunks, strict=True))
        together.append(_took(lambda chunks=chunks: engine.score(streams, chunks)))  # type: ignore[misc]
        alone.append(_took(lambda rows=rows: [engine.score([one], chunk[np.newaxis]) for one, chunk in rows]))  # type: ignore[misc]
    return Figures(rate, *(min(times[WARM:]) / calls for times in (together, alone)))


def _took(work: Callable[[], object]) -> float:
    """Microseconds of CPU."""
    started = time.thread_time_ns()
    work()
    return (time.thread_time_ns() - started) / 1000


async def watch(calls: int, ticks: int) -> dict[str, float]:
    """Microseconds of CPU for 20 ms of one leg, by the detector that watches it (`none`: nobody does)."""
    engines = ["none", "webrtc", "silero"]
    try:
        Ten().load()
        engines.append("ten")
    except MediaError as problem:
        print(f"without ten: {problem}")
    turns: dict[str, list[float]] = {engine: [] for engine in engines}
    async with trio.open_nursery() as nursery:
        planes = {engine: Measured(calls, WARM + ticks, None) for engine in engines}
        for engine, plane in planes.items():
            plane.tap()
            if engine != "none":
                plane.watch(engine)
            nursery.start_soon(plane.deliberate)
        for _ in range((WARM + ticks) // BLOCK):
            for engine, plane in planes.items():
                turns[engine].append(await _turn(plane))
        nursery.cancel_scope.cancel()
    for engine, plane in planes.items():
        dropped = plane.counters.get("vad_chunks_dropped", 0)
        if dropped:
            raise AssertionError(f"{engine}: {dropped} chunks were not scored")
    return {engine: min(took[WARM // BLOCK :]) / calls / BLOCK for engine, took in turns.items()}


async def _turn(plane: Measured) -> float:
    started = time.thread_time_ns()
    for _ in range(BLOCK):
        plane.tick()
        await trio.testing.wait_all_tasks_blocked()
    return (time.thread_time_ns() - started) / 1000


async def main() -> int:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(prog="bench.vad", description="what voice activity costs a call")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--ticks", type=int, default=400)
    arguments = parser.parse_args()
    print("| silero at | us a chunk, all calls in one | us a chunk, a call each | ratio |")
    print("|---|---|---|---|")
    figures = [infer(rate, arguments.calls, arguments.rounds) for rate in (8000, 16000)]
    for one in figures:
        print(f"| {one.rate} Hz | {one.together:.1f} | {one.alone:.1f} | {one.ratio:.2f} |")
    costs = await watch(arguments.calls, arguments.ticks // BLOCK * BLOCK)
    print("\n| detector | us for 20 ms of a leg | of it the detector | % of a core a call, the detector |")
    print("|---|---|---|---|")
    for engine, cost in costs.items():
        alone = cost - costs["none"]
        print(f"| {engine} | {cost:.1f} | {alone:.1f} | {alone / 1e6 / TICK * 100:.3f} |")
    held = all(one.ratio >= BAR for one in figures)
    print(f"\n{'held' if held else 'MISSED'}: one inference for {arguments.calls} calls at least {BAR:g} times cheaper")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(trio.run(main))
