"""Fuzz the parsers and the SIP endpoint: `make fuzz`, or

    python -m fuzz [TARGET ...] [--seconds 60] [--jobs 1]
                                                      search for inputs that break a promise
    python -m fuzz --replay TARGET FILE               run one input, without atheris
    python -m fuzz [TARGET ...] --keep                add to the corpus what a search found, if it covers more

Exit status 0: nothing was found; 1: something was, and the command that replays it is printed; 2: it cannot run here.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import attrs

from fuzz.growth import check_growth
from fuzz.targets import HERE, TARGETS, Target

FOUND = HERE / "found"
"""What the searches on this machine have found so far; each goes on where the last one ended."""

CRASHES = HERE / "crashes"
NEEDED = """\
Fuzzing needs atheris: pip install -e '.[dev]' brings it on Linux x86_64 with CPython 3.11 to 3.14; it is not made for
other machines. `python -m pytest tests/test_fuzz.py` runs the whole corpus without it."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What one search came to. `new` are the edges that no input of the corpus covers.

    `broke` without a crash file: it did not even begin.
    """

    executions: int
    covered: int
    new: int
    crashes: tuple[Path, ...]
    broke: bool
    said: str


def engine(target: Target, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run libFuzzer on a target."""
    dictionary = [f"-dict={HERE / 'dict' / target.dictionary}.dict"] if target.dictionary else []
    return subprocess.run(
        [sys.executable, "-m", "fuzz.engine", target.name, f"-max_len={target.longest}", *dictionary, *arguments],
        cwd=HERE.parent,
        check=False,
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def search(target: Target, seconds: float) -> Outcome:
    """Search for so long, and end at the first crash."""
    found, crashes = FOUND / target.name, CRASHES / target.name
    for folder in (found, crashes, target.corpus):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(crashes.iterdir())
    ran = engine(
        target,
        f"-max_total_time={max(1, round(seconds))}",
        "-timeout=60",  # of the wall clock: only what hangs, even on a busy machine; fuzz/growth.py finds what is slow
        "-report_slow_units=60",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={crashes}/",
        *map(str, (found, target.corpus, *target.goldens)),
    )
    edges = [int(number) for number in re.findall(r" cov: (\d+) ", ran.stdout)] or [0]
    start = re.search(r"INITED cov: (\d+) ", ran.stdout)
    executions = re.search(r"number_of_executed_units: (\d+)", ran.stdout)
    new = tuple(sorted(set(crashes.iterdir()) - before))
    return Outcome(
        executions=int(executions[1]) if executions else 0,
        covered=edges[-1],
        new=edges[-1] - (int(start[1]) if start else edges[-1]),
        crashes=new,
        broke=bool(ran.returncode),
        said=ran.stdout,
    )


def search_all(targets: list[Target], seconds: float, jobs: int = 1) -> int:
    """Search each, `jobs` at a time, and print a row of the table for it."""
    print(f"{'target':<14}{'executions':>12}{'per second':>12}{'coverage':>10}{'new':>6}{'crashes':>9}", flush=True)
    broken: list[tuple[Target, Outcome]] = []
    with ThreadPoolExecutor(jobs) as pool:
        for target, outcome in zip(targets, pool.map(search, targets, repeat(seconds)), strict=True):
            print(
                f"{target.name:<14}{outcome.executions:>12}{outcome.executions / seconds:>12.0f}"
                f"{outcome.covered:>10}{outcome.new:>6}{len(outcome.crashes) or int(outcome.broke):>9}",
                flush=True,
            )
            if outcome.broke:
                broken.append((target, outcome))
    for target, outcome in broken:
        print(f"\n{target.name}:\n{_reason(outcome.said)}")
        for path in outcome.crashes:
            shown = path.relative_to(HERE.parent)
            print(f"replay: {sys.executable} -m fuzz --replay {target.name} {shown}")
    return 1 if broken else 0


def _reason(said: str) -> str:
    """The part of libFuzzer's output that says what happened: the exception, else the last lines."""
    begin = said.find("=== Uncaught Python exception")
    part = said[begin : said.find("== ERROR", begin)] if begin >= 0 else said[-3000:]
    lines = [line for line in part.splitlines() if not line.startswith(("INFO: ", "WARNING: Failed to find"))]
    return "\n".join(lines).strip()[-3000:]


def replay(target: Target, path: Path) -> int:
    """Run one input: its exception comes out as it is."""
    data = path.read_bytes()
    target.check(data)
    check_growth(target.check, data)
    print(f"{path}: nothing wrong with it")
    return 0


def keep(targets: list[Target]) -> int:
    """Add to the corpus what covers more than it does; the smaller of equal inputs."""
    for target in targets:
        found = FOUND / target.name
        found.mkdir(parents=True, exist_ok=True)
        before = len(list(target.corpus.iterdir()))
        # Edges only: how often each is passed would keep hundreds of inputs that differ in nothing else.
        ran = engine(target, "-merge=1", "-use_counters=0", *map(str, (target.corpus, found)))
        if ran.returncode:
            print(ran.stdout[-2000:])
            return 1
        print(f"{target.name}: {len(list(target.corpus.iterdir())) - before} inputs more")
    return 0


def main() -> int:
    """Parse the command line and do as it says."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (60)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time (1)")
    parser.add_argument("--keep", action="store_true", help="add what was found to the corpus")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FILE"), help="run one input")
    given = parser.parse_args()
    names = given.replay[:1] if given.replay else given.targets
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"no target {', '.join(unknown)}: there are {', '.join(TARGETS)}")
    if given.replay:
        return replay(TARGETS[given.replay[0]], Path(given.replay[1]))
    if importlib.util.find_spec("atheris") is None:
        print(NEEDED, file=sys.stderr)
        return 2
    targets = [TARGETS[name] for name in names] or list(TARGETS.values())
    return keep(targets) if given.keep else search_all(targets, given.seconds, given.jobs)


if __name__ == "__main__":
    sys.exit(main())
