"""What a G.711 agent call costs: RTP in and out, 16 kHz taps, webrtc VAD, playback, RTCP, all through the real plane.

    python -m bench.agent_calls [--seconds 6] [--runs 5]

A server process (`bench.plane_server`) runs the plane alone on one core; another process (`bench.phones`) plays and
counts the phones on the other. The server's CPU is what the kernel counts for its threads, the phones are not in it.
Two bars: (cost at 200 calls - cost at 50) / 150 at most 0.13 % of a core per call, and at least 99.9 % of the frames
sent at 200 calls, as the phones count them; the best of the runs counts. Exit status 0: both held; 1: one was
missed; 3: one was missed, but other work kept the machine busy, so the run is void.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import attrs

SMALL, LARGE = 50, 200
COST_BAR = 0.13
SENT_BAR = 99.9
WARM_UP = 2.0
BUSY = 10.0
"""Percent of the machine that other programs may use before a missed bar is void."""


@attrs.frozen(kw_only=True)
class Run:
    """One measurement. CPU in percent of a core, times in ms; `sent` is the share of frames that reached the phones."""

    calls: int
    cpu: float
    sent: float
    sent_by_count: float
    late_p50: float
    late_p99: float
    late_max: float
    jitter_p99: float
    speech_facts: int
    foreign: float
    load: float

    def __str__(self) -> str:
        return (
            f"{self.calls:4d} calls  {self.cpu:6.2f} % CPU  {self.cpu / self.calls:.4f} % per call  "
            f"sent {self.sent:6.2f} % (server's count {self.sent_by_count:6.2f} %)  "
            f"tick late p50 {self.late_p50:.2f} p99 {self.late_p99:.2f} max {self.late_max:.2f} ms  "
            f"spacing off by p99 {self.jitter_p99:.2f} ms  others {self.foreign:.0f} %  load {self.load:.2f}"
        )


class Child:
    """A process that answers a line of JSON with a line of JSON; gone when the block is left."""

    def __init__(self, module: str, core: int | None) -> None:
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads},
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})

    def __enter__(self) -> Child:  # noqa: PYI034 - never subclassed
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe(self._process.stdin).close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, **question: object) -> dict[str, Any]:
        """Send a question, wait for the answer."""
        pipe = self._pipe(self._process.stdin)
        pipe.write(json.dumps(question) + "\n")
        pipe.flush()
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise RuntimeError(f"{self._module} has died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def cpu(self) -> float:
        """Seconds that all its threads have run."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise RuntimeError("the pipe is not there")
        return pipe


def busy_seconds() -> float:
    """Seconds that all cores together have been busy since the machine started."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def measure(calls: int, seconds: float, server_module: str = "bench.plane_server") -> Run:
    """One run: start both sides, let them settle, measure for so many seconds, stop them."""
    cores = sorted(os.sched_getaffinity(0))
    apart = len(cores) > 1
    with (
        Child("bench.phones", cores[0] if apart else None) as phones,
        Child(server_module, cores[-1] if apart else None) as server,
    ):
        ports = phones.ask(bind=calls)["ports"]
        legs = server.ask(legs=ports)["legs"]
        phones.ask(call=legs)
        time.sleep(WARM_UP)
        server.ask(mark=True)
        phones.ask(mark=True)
        began, cpu, others = time.monotonic(), server.cpu(), busy_seconds() - phones.cpu()
        time.sleep(seconds)
        took = time.monotonic() - began
        used = server.cpu() - cpu
        foreign = busy_seconds() - phones.cpu() - others - used
        heard, told = phones.ask(mark=True), server.ask(mark=True)
    return Run(
        calls=calls,
        cpu=100 * used / took,
        sent=100 * heard["received"] / (calls * 50 * heard["seconds"]),
        sent_by_count=100 * told["sent"] / max(1, told["due"]),
        late_p50=told["p50"] * 1000,
        late_p99=told["p99"] * 1000,
        late_max=told["worst"] * 1000,
        jitter_p99=heard["jitter_p99"] * 1000,
        speech_facts=told["speech"],
        foreign=max(0.0, 100 * foreign / took / len(cores)),
        load=os.getloadavg()[0],
    )


def best_cpu(runs: list[Run]) -> float:
    """The least CPU among the runs that did their work: a server that sends less is cheap, not good."""
    return min((run.cpu for run in runs if run.sent >= SENT_BAR), default=math.inf)


def print_floor(seconds: float) -> None:
    """What the same packets cost where nothing but sockets is at work: the machine's share of the figures."""
    small, large = (measure(calls, seconds, "bench.bare_server").cpu for calls in (SMALL, LARGE))
    print(f"\nbare sockets: {(large - small) / (LARGE - SMALL):.4f} % of a core for the packets of each further call")


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description="cost and punctuality of G.711 agent calls")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each measurement")
    parser.add_argument("--runs", type=int, default=5, help="measurements of each size; the best counts")
    options = parser.parse_args()
    runs: dict[int, list[Run]] = {SMALL: [], LARGE: []}
    for _ in range(options.runs):
        for calls, done in runs.items():
            done.append(measure(calls, options.seconds))
            print(done[-1], flush=True)
    print_floor(options.seconds)
    small, large = (best_cpu(runs[calls]) for calls in (SMALL, LARGE))
    slope = (large - small) / (LARGE - SMALL) if large < math.inf else math.inf
    sent = max(run.sent for run in runs[LARGE])
    print(f"best of {options.runs}: {SMALL} calls {small:.2f} %, {LARGE} calls {large:.2f} % of a core")
    print(f"each further call {slope:.4f} % of a core (bar {COST_BAR} %): {'held' if slope <= COST_BAR else 'MISSED'}")
    print(f"frames sent at {LARGE} calls {sent:.2f} % (bar {SENT_BAR} %): {'held' if sent >= SENT_BAR else 'MISSED'}")
    if not all(run.speech_facts for done in runs.values() for run in done):
        print("no speech was reported in some run: the VAD did not work, the figures mean nothing")
        return 1
    if slope <= COST_BAR and sent >= SENT_BAR:
        return 0
    busiest = max(run.foreign for done in runs.values() for run in done)
    if busiest > BUSY:
        print(f"void: other programs used up to {busiest:.0f} % of this machine meanwhile")
        return 3
    return 1


if __name__ == "__main__":
    sys.exit(main())
