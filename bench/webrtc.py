"""What calls with browsers cost: ICE, DTLS-SRTP and Opus, beside aiortc doing the same. `python -m bench.webrtc`

A server process on one core, callers on another. Each call hears and says a voice in Opus all the time, and a listener
takes what is heard at 16 kHz; the server also looks for speech in it, which aiortc does not. Both have Opus of the
complexity that the server uses; aiortc's is stereo at 48 kHz, which it knows no other way.

Exit status 0: every bar held; 1: one was missed; 3: this machine had other work.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

import attrs
import numpy as np

from bench.child import Child, others_seconds
from bench.run import FOREIGN_BAR, LATE_BAR, WARM_UP
from rustpbx.media.codec.opus import COMPLEXITY

BAR = 0.6
"""Per cent of a core that a call may cost."""

TIMES = 3.0
"""So many times as much as ours must a call of aiortc's cost."""

AIORTC_CALLS = 10
"""More of them leave a core no time, and then packets are late instead of dear."""

OURS = "bench.webrtc_server"
THEIRS = "bench.webrtc_aiortc"


@attrs.frozen(kw_only=True)
class Run:
    """One measurement. `cpu` in per cent of a core; `handshakes` in seconds from the answer until media was secured;
    `sent` is the share of frames, in per cent, that reached the callers.
    """

    name: str
    calls: int
    cpu: float
    sent: float
    handshakes: tuple[float, ...]
    foreign: float
    load_late: float

    @property
    def per_call(self) -> float:
        """Per cent of a core."""
        return self.cpu / self.calls

    @property
    def void(self) -> str | None:
        """Why it does not count."""
        if self.foreign > FOREIGN_BAR:
            return f"other programs used {self.foreign:.0f} % of the machine"
        return f"the callers were {self.load_late:.1f} ms late themselves" if self.load_late > LATE_BAR else None

    def __str__(self) -> str:
        p50, p95 = (1000 * float(np.percentile(self.handshakes, percent)) for percent in (50, 95))
        return (
            f"{self.name:8s} {self.calls:4d} calls  {self.cpu:6.2f} % CPU  {self.per_call:.3f} % per call  "
            f"sent {self.sent:6.2f} %  handshake p50 {p50:.0f} p95 {p95:.0f} ms"
            + (f"  VOID: {self.void}" if self.void else "")
        )


def measure(name: str, command: Sequence[str], calls: int, seconds: float) -> Run:
    """Start both sides, connect one call after the other, measure for so many seconds, stop them."""
    cores = sorted(os.sched_getaffinity(0))
    apart = len(cores) > 1
    with (
        Child([sys.executable, "-m", "bench.webrtc_load"], cores[0] if apart else None) as load,
        Child([sys.executable, "-m", *command], cores[-1] if apart else None) as server,
    ):
        handshakes = []
        for seed in range(calls):
            answer = server.ask(offer=load.ask(offer=seed)["offer"])["answer"]
            handshakes.append(float(load.ask(answer=answer)["seconds"]))
        time.sleep(WARM_UP)
        server.ask(mark=True)
        load.ask(mark=True)
        ours = {load.pid, server.pid, os.getpid()}
        others, began, cpu = others_seconds(ours), time.monotonic(), server.cpu()
        time.sleep(seconds)
        took, used = time.monotonic() - began, server.cpu() - cpu
        foreign = others_seconds(ours) - others
        told = load.ask(mark=True)
    return Run(
        name=name,
        calls=calls,
        cpu=100 * used / took,
        sent=100 * told["received"] / (calls * 50 * told["seconds"]),
        handshakes=tuple(handshakes),
        foreign=max(0.0, 100 * foreign / took / len(cores)),
        load_late=told["late_p99"],
    )


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--calls", type=int, nargs="+", default=[50, 100])
    arguments = parser.parse_args()
    runs = [measure("rustpbx", [OURS], calls, arguments.seconds) for calls in arguments.calls]
    theirs = measure("aiortc", [THEIRS, str(COMPLEXITY)], AIORTC_CALLS, arguments.seconds)
    for run in (*runs, theirs):
        print(run, flush=True)
    if any(run.void for run in (*runs, theirs)):
        return 3
    worst = max(run.per_call for run in runs)
    times = theirs.per_call / worst
    print(f"a call costs {worst:.3f} % of a core (bar {BAR}); aiortc's {times:.1f} times as much (bar {TIMES})")
    return 0 if worst <= BAR and times >= TIMES else 1


if __name__ == "__main__":
    sys.exit(main())
