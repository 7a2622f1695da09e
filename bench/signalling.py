"""How fast calls are set up, and how many a second: whole calls through a whole server (`bench/load/dialler.c`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import attrs

from bench.child import Child
from bench.load import build

HOLD = 200
"""Milliseconds between a call's answer and its end."""


@attrs.frozen(kw_only=True)
class Signalling:
    """What the dialler saw. `p50`, `p95`, `longest` are ms from INVITE to its 200; `cpu` is the server's, ms a call."""

    begun: int
    answered: int
    ended: int
    failed: int
    retransmitted: int
    per_second: float
    p50: float
    p95: float
    longest: float
    cpu: float

    def __str__(self) -> str:
        return (
            f"{self.ended} of {self.begun} calls went through, {self.per_second:.0f} a second, INVITE to 200 in "
            f"{self.p50:.1f} ms (p95 {self.p95:.1f}, longest {self.longest:.1f}), {self.cpu:.2f} ms of CPU a call, "
            f"{self.retransmitted} retransmissions"
        )


def dial(mode: str, amount: int, seconds: float, *, websocket: bool) -> Signalling:
    """Call the server: `amount` calls a second (mode "rate"), or as many as go with `amount` up at once ("busy").

    With `websocket` an agent in another process hears of each call by webhook and accepts it over its own WebSocket;
    without, the agent is in the server's process.
    """
    cores = sorted(os.sched_getaffinity(0))
    theirs, ours = (cores[0], cores[-1]) if len(cores) > 1 else (None, None)
    if not websocket:
        with Child([sys.executable, "-m", "bench.call_server"], ours) as server:
            return _dial(server, server.hello(), mode, amount, seconds)
    with Child([sys.executable, "-m", "bench.agents"], theirs) as agents:
        command = [sys.executable, "-m", "bench.call_server", agents.hello()["webhook"]]
        with Child(command, ours) as server:
            ports = server.hello()
            agents.say(str(ports["http"]))
            return _dial(server, ports, mode, amount, seconds)


def _dial(server: Child, ports: dict[str, int], mode: str, amount: int, seconds: float) -> Signalling:
    before = server.cpu()
    command = [str(build("dialler")), str(ports["sip"]), mode, str(amount), str(seconds), str(HOLD)]
    if hasattr(os, "sched_setaffinity"):
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    told["longest"] = told.pop("max")
    return Signalling(**told, cpu=1000 * (server.cpu() - before) / max(1, told["begun"]))
