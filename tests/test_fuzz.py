"""Every input that the fuzzer keeps, without the fuzzer; and the fuzzer's own parts."""

from __future__ import annotations

import importlib.util
import random
import sys

import attrs
import pytest

import fuzz.__main__ as command
from fuzz.growth import LARGE, GrowthError, check_growth
from fuzz.mutate import mutate_lines
from fuzz.targets import HERE, TARGETS, Target

MOST_BYTES = 1_000_000


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_the_corpus_keeps_its_promises(target: Target) -> None:
    """What must hold whatever comes in holds for every input that was ever worth keeping."""
    inputs = target.inputs()
    assert len(inputs) >= 10
    for path in inputs:
        try:
            target.check(path.read_bytes())
        except Exception as error:
            error.add_note(f"replay: python -m fuzz --replay {target.name} {path}")
            raise


def test_the_corpus_is_small_and_all_of_it_is_used() -> None:
    """Under a megabyte; no folder without a target, no dictionary without a reader."""
    files = [path for path in (HERE / "corpus").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    assert {path.parent.name for path in files} == set(TARGETS)
    read = {target.dictionary for target in TARGETS.values()} - {None}
    assert {path.stem for path in (HERE / "dict").iterdir()} == read


def test_an_input_is_replayed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One file through one predicate: silence from it is said, its exception comes out as it is."""
    path = HERE / "corpus" / "rtp" / "pcmu"
    monkeypatch.setattr(sys, "argv", ["fuzz", "--replay", "rtp", str(path)])
    assert command.main() == 0
    assert capsys.readouterr().out == f"{path}: nothing wrong with it\n"

    def refuse(data: bytes) -> None:
        raise AssertionError(len(data))

    with pytest.raises(AssertionError, match=f"^{path.stat().st_size}$"):
        command.replay(Target(name="x", check=refuse), path)


def test_an_unknown_target_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says what there is."""
    monkeypatch.setattr(sys, "argv", ["fuzz", "sip_massage"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert f"no target sip_massage: there are {', '.join(TARGETS)}" in capsys.readouterr().err


def test_without_atheris_the_command_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not made for the machine, the corpus can still be run."""
    monkeypatch.setattr(sys, "argv", ["fuzz"])
    monkeypatch.setattr(importlib.util, "find_spec", dict[str, object]().get)
    assert command.main() == 2
    assert capsys.readouterr().err == f"{command.NEEDED}\n"


def test_a_crash_is_told_with_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has a row for each target; the exception and the replay follow it, and the status is 1."""
    crash = HERE / "crashes" / "rtp" / "crash-1"
    good = command.Outcome(executions=500, covered=30, new=2, crashes=(), broke=False, said="")
    said = "INFO: x\n === Uncaught Python exception: ===\nAssertionError: y\n== ERROR: libFuzzer\n"
    outcomes = {"rtp": attrs.evolve(good, crashes=(crash,), broke=True, said=said), "rtcp": good}
    monkeypatch.setattr(command, "search", lambda target, _: outcomes[target.name])
    assert command.search_all([TARGETS["rtp"], TARGETS["rtcp"]], 10.0) == 1
    assert capsys.readouterr().out.splitlines() == [
        "target          executions  per second  coverage   new  crashes",
        "rtp                    500          50        30     2        1",
        "rtcp                   500          50        30     2        0",
        "",
        "rtp:",
        "=== Uncaught Python exception: ===",
        "AssertionError: y",
        f"replay: {sys.executable} -m fuzz --replay rtp fuzz/crashes/rtp/crash-1",
    ]
    assert command.search_all([TARGETS["rtcp"]], 10.0) == 0


@pytest.mark.parametrize("data", [b"a", b"", b"a: 1\r\nb: 2\r\n\r\nbody", b"x = 1\n[y]\n"])
def test_lines_are_mutated_within_the_limit(data: bytes) -> None:
    """Whatever the edits, the result fits, and most of them change something."""
    results = [mutate_lines(data, 50, random.Random(seed)) for seed in range(200)]
    assert max(map(len, results)) <= 50
    assert len(set(results)) > (20 if len(data) > 1 else 0)


class Work:
    """A check whose cost is counted, not timed: `power` 1 for linear, 2 for quadratic."""

    def __init__(self, power: int) -> None:
        self.done = 0.0
        self._power = power

    def __call__(self, data: bytes) -> None:
        """Work."""
        self.done += (len(data) / LARGE) ** self._power

    def clock(self) -> float:
        """The work so far."""
        return self.done


def test_growth_beyond_linear_is_found() -> None:
    """Sixteen times the work for four times the input is an error, four times is none."""
    linear, quadratic = Work(1), Work(2)
    check_growth(linear, b"abc", linear.clock)
    with pytest.raises(GrowthError, match=r"^8192 bytes take 0\.06\d s, 32768 take 1\.00\d s: b'.+' at \d$"):
        check_growth(quadratic, b"abc", quadratic.clock)


def test_what_a_search_leaves_is_ignored_by_git() -> None:
    """Finds and crashes are of this machine until someone keeps them."""
    ignored = (HERE.parent / ".gitignore").read_text().split()
    assert {f"/{path.relative_to(HERE.parent)}/" for path in (command.FOUND, command.CRASHES)} <= set(ignored)
