"""What bridges cost: pairs of legs that hear each other, in the same codec and in two. `python -m bench.bridges`

Packets are handed over in memory as in `bench.codecs`, everybody talks all the time, nobody else listens. Beside each
pair the same legs without a bridge, in turns of ten ticks; the cheapest turn counts, for noise only ever adds.

Exit status 0: the bars held; 1: one was missed.
"""

from __future__ import annotations

import argparse
import sys

import trio

from bench.codecs import voices
from bench.srtp import BLOCK, TICK, WARM, Measured, Voice

BARS = {"PCMU and PCMU": 0.14, "opus and PCMU": 0.60}
"""Per cent of a core that a bridge of two legs may cost."""


class Pairs(Measured):
    """So many pairs of legs, the even ones with the first voice, the odd ones with the second; `bridged` or not."""

    def __init__(self, pairs: int, ticks: int, ones: Voice, others: Voice, *, bridged: bool) -> None:
        self._of = (ones, others)
        super().__init__(2 * pairs, ticks, None)
        for leg in range(0, 2 * pairs if bridged else 0, 2):
            self._plane.bridge(str(leg), str(leg + 1))
            self._plane.bridge(str(leg + 1), str(leg))

    def voice_of(self, leg: int) -> Voice:
        """Whose it is."""
        return self._of[leg % 2]


def costs(pairs: int, ticks: int) -> dict[str, tuple[float, float]]:
    """Per cent of a core for two legs without a bridge, and with one, by the codecs."""
    total = WARM + ticks // BLOCK * BLOCK
    spoken = voices(total)
    found = {}
    for one, other in (("PCMU", "PCMU"), ("opus", "PCMU"), ("opus", "opus"), ("G722", "PCMU")):
        planes = [Pairs(pairs, total, spoken[one], spoken[other], bridged=bridged) for bridged in (False, True)]
        for _ in range(total // BLOCK):
            for plane in planes:
                for _ in range(BLOCK):
                    plane.tick()
        apart, joined = (100 * plane.tick_time / pairs / TICK for plane in planes)
        found[f"{one} and {other}"] = (apart, joined)
    return found


async def main() -> int:
    """Measure, print a table, judge."""
    parser = argparse.ArgumentParser(prog="bench.bridges", description="what bridges cost")
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--ticks", type=int, default=400)
    arguments = parser.parse_args()
    found = costs(arguments.pairs, arguments.ticks)
    print("| % of a core for two legs of | without a bridge | with one |\n|---|---|---|")
    for name, (apart, joined) in found.items():
        print(f"| {name} | {apart:.3f} | {joined:.3f} |")
    missed = [name for name, bar in BARS.items() if found[name][1] > bar]
    for name, bar in BARS.items():
        print(f"{'MISSED' if name in missed else 'held'}: {name}, at most {bar} %: {found[name][1]:.3f}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(trio.run(main))
