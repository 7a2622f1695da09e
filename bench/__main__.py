"""Measure what calls cost on this machine, and judge it: `make bench`.

    python -m bench [--runs 5] [--seconds 6] [--write] [--quick]

Exit status 0: every bar held; 1: one was missed; 3: other work, or a late load generator, made the figures worthless.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from functools import partial

from bench import messages, voices
from bench.judge import COMPARED, LARGE, MIDDLE, SMALL, Results, quickest
from bench.load import NoCompilerError
from bench.report import write
from bench.run import Run, measure
from bench.signalling import Signalling, dial

HUGE = 1000
SIZES = (SMALL, COMPARED, MIDDLE, LARGE, HUGE)
SETUP_RATE = 20
BUSY_CALLS = 20
ROUNDS = 4
"""How many times as often as wanted a measurement is tried, until enough of them count."""


class VoidError(Exception):
    """The machine was too busy to measure anything."""


def collect(kinds: Mapping[str, Callable[[], Run]], runs: int) -> dict[str, list[Run]]:
    """So many measurements of each kind that count, in rounds, so that a slow minute of the machine hits all alike.

    Raises `VoidError` if after `ROUNDS` times as many rounds fewer than half of a kind do.
    """
    counted: dict[str, list[Run]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS * runs):
        missing = [kind for kind in kinds if len(counted[kind]) < runs]
        if not missing:
            break
        for kind in missing:
            run = kinds[kind]()
            print(run, flush=True)
            if run.void is None:
                counted[kind].append(run)
    for kind, done in counted.items():
        if 2 * len(done) < runs:
            raise VoidError(f"only {len(done)} measurements of {kind} count: this machine has other work")
    return counted


def everything(runs: int, seconds: float, sizes: tuple[int, ...]) -> Results:
    """All measurements. Raises `VoidError` if this machine has too much other work."""
    kinds = {f"{calls} calls": partial(measure, calls, seconds) for calls in sizes if calls <= LARGE}
    kinds["the naive design"] = partial(measure, COMPARED, seconds, "bench.naive_server")
    counted = collect(kinds, runs)
    naive = counted.pop("the naive design")
    plane = {calls: counted.get(f"{calls} calls", []) for calls in sizes}
    for calls in sizes:
        if calls > LARGE:  # may be too much, which says nothing new: once is enough
            plane[calls] = [run for run in [measure(calls, seconds)] if run.void is None]
    bare = [measure(calls, seconds, "bench.bare_server").cpu for calls in (SMALL, MIDDLE)]
    return Results(
        plane=plane,
        naive=naive,
        bare=(bare[1] - bare[0]) / (MIDDLE - SMALL),
        embedded=_signalling(runs, "rate", SETUP_RATE, seconds, websocket=False),
        websocket=_signalling(runs, "rate", SETUP_RATE, seconds, websocket=True),
        busy=_signalling(runs, "busy", BUSY_CALLS, seconds, websocket=False),
        messages=messages.measure(runs),
    )


def _signalling(runs: int, mode: str, amount: int, seconds: float, *, websocket: bool) -> Signalling:
    return quickest([dial(mode, amount, seconds, websocket=websocket) for _ in range(runs)])


def quick() -> None:
    """Run each part once, for a moment, and judge nothing: whether the bench itself works."""
    for module in ("plane", "naive", "bare"):
        print(measure(20, 1.0, f"bench.{module}_server"))
    print(dial("rate", 10, 1.0, websocket=False))
    print(dial("busy", 5, 1.0, websocket=True))
    print(messages.measure(1))
    print(voices.measure(2, 1.0, 1))


def show(results: Results) -> bool:
    """Print what came out; whether every bar held."""
    print(f"\nbare sockets: {results.bare:.4f} % of a core for the packets of each further call")
    print(f"memory: {results.memory:.0f} KB for each further call")
    print(f"agent in the process: {results.embedded}")
    print(f"agent by webhook and WebSocket: {results.websocket}")
    print(f"{BUSY_CALLS} calls at once: {results.busy}")
    print(f"{results.messages}\n")
    verdicts = results.verdicts()
    for verdict in verdicts:
        print(verdict)
    return all(verdict.held for verdict in verdicts)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="bench", description="what calls cost on this machine")
    parser.add_argument("--runs", type=int, default=5, help="measurements of each kind; the best counts")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each measurement")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of calls")
    parser.add_argument("--write", action="store_true", help="put the result into docs/performance.md and its plot")
    parser.add_argument("--quick", action="store_true", help="only see whether everything runs")
    options = parser.parse_args()
    try:
        if options.quick:
            quick()
            return 0
        results = everything(options.runs, options.seconds, tuple(map(int, options.sizes.split(","))))
    except NoCompilerError as problem:
        print(problem, file=sys.stderr)
        return 2
    except VoidError as problem:
        print(f"void: {problem}")
        return 3
    held = show(results)
    if not all(run.speech_facts for runs in (*results.plane.values(), results.naive) for run in runs):
        print("no speech was reported in some run: the VAD did not work, the figures mean nothing")
        return 1
    if options.write:
        write(results)
    return max(voices.show(voices.measure(seconds=options.seconds)), 0 if held else 1)


if __name__ == "__main__":
    sys.exit(main())
