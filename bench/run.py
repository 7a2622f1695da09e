"""One measurement: a server process on one core, the phones on another, and what came of it."""

from __future__ import annotations

import bisect
import os
import sys
import time
from collections import defaultdict

import attrs

from bench.child import Child, others_seconds
from bench.load import build, speech_file

WARM_UP = 2.0
PROBES = 10
"""Calls that carry clicks instead of speech, to measure delays with."""

FOREIGN_BAR = 5.0
"""Per cent of the machine that others may use before a measurement is void."""
LATE_BAR = 5.0
"""Milliseconds that the phones themselves may be late, 99 times of 100."""


@attrs.frozen(kw_only=True)
class Run:
    """One measurement. CPU in per cent of a core, times in ms, memory in bytes; `sent` is the share of frames, in per
    cent, that reached the phones, `heard` how long after a sound was sent to us a listener had it, `said` how long
    after a sound was handed to the plane it was at the phone (p50, p99).
    """

    calls: int
    cpu: float
    sent: float
    sent_by_count: float
    lost: int
    tick_late_p99: float
    tick_late_max: float
    jitter_p50: float
    jitter_p99: float
    jitter_max: float
    heard: tuple[float, float]
    said: tuple[float, float]
    memory: int
    speech_facts: int
    foreign: float
    load_late: float

    @property
    def per_call(self) -> float:
        """Per cent of a core and call."""
        return self.cpu / self.calls

    @property
    def per_frame(self) -> float:
        """Microseconds of CPU per frame that was really sent (and one received)."""
        return self.cpu / 100 * 1e6 / (self.calls * 50 * self.sent / 100)

    @property
    def void(self) -> str | None:
        """Why this measurement does not count."""
        if self.foreign > FOREIGN_BAR:
            return f"other programs used {self.foreign:.0f} % of the machine"
        if self.load_late > LATE_BAR:
            return f"the phones were {self.load_late:.1f} ms late themselves"
        return None

    def __str__(self) -> str:
        return (
            f"{self.calls:4d} calls  {self.cpu:6.2f} % CPU  {self.per_call:.4f} % per call  "
            f"{self.per_frame:5.1f} us per frame  sent {self.sent:6.2f} %  lost {self.lost}  "
            f"jitter p50 {self.jitter_p50:.2f} p99 {self.jitter_p99:.2f} max {self.jitter_max:.2f} ms  "
            f"heard after {self.heard[0]:.0f} ms, said after {self.said[0]:.0f} ms  "
            f"others {self.foreign:.0f} %" + (f"  VOID: {self.void}" if self.void else "")
        )


def measure(calls: int, seconds: float, server_module: str = "bench.plane_server") -> Run:
    """One run: start both sides, let them settle, measure for so many seconds, stop them."""
    cores = sorted(os.sched_getaffinity(0))
    apart = len(cores) > 1
    probes = min(PROBES, calls // 2)
    phones_command = [str(build("phones")), str(speech_file()), str(probes)]
    with (
        Child(phones_command, cores[0] if apart else None) as phones,
        Child([sys.executable, "-m", server_module], cores[-1] if apart else None) as server,
    ):
        ports = phones.tell(f"bind {calls}")["ports"]
        legs = server.ask(legs=ports, probes=probes)["legs"]
        phones.tell("call " + " ".join(map(str, legs)))
        time.sleep(WARM_UP)
        server.ask(mark=True)
        before = phones.tell("mark")
        ours = {phones.pid, server.pid, os.getpid()}
        others, began, cpu = others_seconds(ours), time.monotonic(), server.cpu()
        time.sleep(seconds)
        took, used = time.monotonic() - began, server.cpu() - cpu
        foreign = others_seconds(ours) - others
        memory = server.memory()
        after, told = phones.tell("mark"), server.ask(mark=True)
    return Run(
        calls=calls,
        cpu=100 * used / took,
        sent=100 * after["received"] / (calls * 50 * after["seconds"]),
        sent_by_count=100 * told["sent"] / max(1, told["due"]),
        lost=after["lost"],
        tick_late_p99=told["p99"] * 1000,
        tick_late_max=told["worst"] * 1000,
        jitter_p50=after["jitter_p50"],
        jitter_p99=after["jitter_p99"],
        jitter_max=after["jitter_max"],
        heard=delays(before["clicks_sent"] + after["clicks_sent"], told["heard"]),
        said=delays(told["said"], after["clicks_heard"]),
        memory=memory,
        speech_facts=told["speech"],
        foreign=max(0.0, 100 * foreign / took / len(cores)),
        load_late=after["late_p99"],
    )


def delays(sent: list[tuple[int, float]], arrived: list[tuple[int, float]]) -> tuple[float, float]:
    """p50 and p99 in ms of the time from each click's sending to its arrival, call by call; 0 where there was none."""
    by_call: dict[int, list[float]] = defaultdict(list)
    for call, at in sent:
        by_call[call].append(at)
    found = []
    for call, at in arrived:
        earlier = bisect.bisect_right(by_call[call], at)
        if earlier:
            found.append(1000 * (at - by_call[call][earlier - 1]))
    found.sort()
    if not found:
        return 0.0, 0.0
    return found[len(found) // 2], found[min(len(found) - 1, len(found) * 99 // 100)]
