"""The result as a part of docs/performance.md, and as a plot beside it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.judge import COMPARED, Results, cheapest
from bench.run import Run

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
COLUMNS = (
    "calls",
    "CPU, % of a core",
    "% per call",
    "us per frame",
    "frames sent, %",
    "lost",
    "jitter p50 / p99 / max, ms",
    "heard after p50 / p99, ms",
    "said after p50 / p99, ms",
)


def write(results: Results) -> None:
    """Replace the measured part of docs/performance.md, and the plot."""
    page = DOCS / "performance.md"
    text = page.read_text()
    before, rest = text.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{section(results)}{END}{rest.split(END)[1]}")
    plot(results, DOCS / "performance.svg")
    print(f"written: {page}")


def section(results: Results) -> str:
    """The measured part, in Markdown."""
    lines = [machine(), "", *_table(results), ""]
    lines += [
        f"- each call beyond 50: **{results.further:.4f} %** of a core; of that, bare sockets {results.bare:.4f} %",
        f"- memory of each further call: {results.memory:.0f} KB",
        f"- the naive design at {COMPARED} calls: {results.naive_ratio:.1f} times as much CPU per frame sent",
        f"- agent in the server's process: {results.embedded}",
        f"- agent behind webhook and WebSocket, in another process: {results.websocket}",
        f"- as many calls as go, 20 up at once: {results.busy}",
        f"- SIP: {results.messages}",
        "",
        *(f"- {verdict}" for verdict in results.verdicts()),
        "",
    ]
    return "\n".join(lines)


def machine() -> str:
    """Where and when."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=DOCS, capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"{datetime.now(tz=UTC):%Y-%m-%d}, commit {revision}, {os.cpu_count()} CPUs ({_processor()}), "
        f"Linux {platform.release()}, CPython {platform.python_version()}, numpy {np.__version__}, "
        f"`python -m bench {' '.join(sys.argv[1:])}`"
    )


def _processor() -> str:
    fields = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines())
    known = {name.strip(): value.strip() for name, value in fields.items()}
    return f"{known.get('model name', platform.machine())}, family {known.get('cpu family', '?')}"


def _table(results: Results) -> list[str]:
    runs = [(str(calls), cheapest(done)) for calls, done in results.plane.items()]
    runs.append((f"{COMPARED}, naive", min(results.naive, key=lambda run: run.per_frame)))
    rows = [_row(name, run) for name, run in runs if run is not None]
    held = {name for name, run in runs if run is not None}
    rows += [f"| {calls} | not held |" + " |" * (len(COLUMNS) - 2) for calls in results.plane if str(calls) not in held]
    return [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *rows]


def _row(name: str, run: Run) -> str:
    cells = (
        name,
        f"{run.cpu:.1f}",
        f"{run.per_call:.4f}",
        f"{run.per_frame:.1f}",
        f"{run.sent:.2f}",
        str(run.lost),
        f"{run.jitter_p50:.2f} / {run.jitter_p99:.2f} / {run.jitter_max:.1f}",
        f"{run.heard[0]:.0f} / {run.heard[1]:.0f}" if run.heard[0] else "-",
        f"{run.said[0]:.0f} / {run.said[1]:.0f}" if run.said[0] else "-",
    )
    return f"| {' | '.join(cells)} |"


def plot(results: Results, path: Path) -> None:
    """CPU over calls, and send jitter over calls. Needs the `bench` extra."""
    import matplotlib as mpl  # noqa: PLC0415 - only here, and only where a plot is wanted

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "rustpbx"
    from matplotlib import pyplot as plt  # noqa: PLC0415 - see above

    figure, (cost, jitter) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for calls, runs in results.plane.items():
        for run in runs:
            cost.plot(calls, run.cpu, "o", color="tab:blue", alpha=0.5)
            jitter.plot(calls, run.jitter_p99, "o", color="tab:blue", alpha=0.5)
    for run in results.naive:
        cost.plot(run.calls, run.cpu, "x", color="tab:red")
    largest = max(results.plane)
    cost.plot([0, largest], [0, 0.15 * largest], "--", color="tab:gray", label="0.15 % a call")
    cost.plot([], [], "o", color="tab:blue", label="this server")
    cost.plot([], [], "x", color="tab:red", label="a task per direction")
    cost.set(xlabel="agent calls", ylabel="% of a core", ylim=(0, 105))
    cost.legend()
    jitter.axhline(5, ls="--", color="tab:gray")
    jitter.set(xlabel="agent calls", ylabel="send jitter p99, ms", yscale="log")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
