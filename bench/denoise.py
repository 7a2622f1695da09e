"""What noise suppression costs: RNNoise over so many calls at once, a frame of 20 ms each. `python -m bench.denoise`

It is the work of the thread, by that thread's own CPU time, for ever the same noise; the least of all frames is the
figure, for what else the machine does only adds.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from rustpbx.media.denoise.rnnoise import Rnnoise
from rustpbx.media.events import Pcm

TICK = 0.02
FRAMES = 100
WARM = 10


def cost(calls: int, rate: int) -> tuple[float, float]:
    """CPU milliseconds of a tick for so many calls at `rate` Hz: the least, and the median."""
    engine = Rnnoise()
    streams = [engine.open(rate) for _ in range(calls)]
    rng = np.random.default_rng(1)
    noise: list[Pcm] = list(rng.normal(scale=500, size=(calls, rate // 50)).astype(np.int16))
    spent = []
    for _ in range(WARM + FRAMES):
        begin = time.thread_time()
        engine.clean(streams, noise)
        spent.append(1000 * (time.thread_time() - begin))
    return min(spent[WARM:]), float(np.median(spent[WARM:]))


def main() -> None:
    """Print a table as docs/performance.md has it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, nargs="+", default=[1, 10, 20])
    args = parser.parse_args()
    Rnnoise().load()
    print("| calls | rate, Hz | ms per tick, least / median | % of a core a call |")
    print("|---|---|---|---|")
    for rate in (8000, 16000):
        for calls in args.calls:
            least, median = cost(calls, rate)
            print(f"| {calls} | {rate} | {least:.2f} / {median:.2f} | {least / calls / TICK / 10:.2f} |")


if __name__ == "__main__":
    main()
