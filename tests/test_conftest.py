"""The suite's own machinery: virtual time, seeds, limits, markers, and no skips in CI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py").read_text()
MARKERS = """
[pytest]
addopts = --strict-markers -p no:cacheprovider
markers =
    interop(peer): x
    real_time: x
    local_speech: x
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file in a pytest of its own under this suite's conftest."""

    def run(source: str, *, ci: bool = False) -> pytest.RunResult:
        monkeypatch.setenv("CI", "true" if ci else "")
        pytester.makeini(MARKERS)
        pytester.makeconftest(CONFTEST.replace("REAL_LIMIT = 60.0", "REAL_LIMIT = 0.2"))
        pytester.makepyfile("import pytest, trio, math\n" + source)
        return pytester.runpytest_inprocess()

    return run


def test_coroutine_tests_run_in_virtual_time(inner: Run) -> None:
    """An hour of sleep costs nothing, and fixtures arrive as arguments."""
    result = inner(
        """
@pytest.fixture
def hour():
    return 3600
async def test_hour(hour, rng):
    start = trio.current_time()
    await trio.sleep(hour)
    assert trio.current_time() - start == pytest.approx(hour)
    assert 0 <= rng.random() < 1
async def test_fails():
    assert 1 == 2
"""
    )
    result.assert_outcomes(passed=1, failed=1)


def test_the_scheduler_repeats(inner: Run) -> None:
    """Tasks of equal rank run in an order that depends on the test's name alone."""
    source = """
async def order():
    seen = []
    async def note(number):
        for _ in range(5):
            seen.append(number)
            await trio.lowlevel.checkpoint()
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(note, number)
    return seen
async def test_order():
    print("order:", await order())
    assert False
"""
    orders = [[line for line in inner(source).outlines if line.startswith("order:")] for _ in range(2)]
    assert orders[0] == orders[1] != []


def test_stuck_tests_are_ended(inner: Run) -> None:
    """Waiting for nothing ends at the virtual limit, spinning in virtual time at the real one."""
    result = inner(
        """
async def test_waits():
    await trio.sleep_forever()
async def test_spins():
    while True:
        await trio.sleep(1e-6)
"""
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*stuck: 7200 s of virtual time*", "*stuck: 0 s*"])


def test_hypothesis_drives_coroutines(inner: Run) -> None:
    """`@given` works on a coroutine test: each example has a run of its own."""
    result = inner(
        """
from hypothesis import given, strategies as st
@given(st.integers(0, 100))
async def test_given(number):
    start = trio.current_time()
    await trio.sleep(number)
    assert trio.current_time() - start == pytest.approx(number)
@given(st.booleans())
async def test_given_fails(flag):
    await trio.lowlevel.checkpoint()
    assert flag
"""
    )
    result.assert_outcomes(passed=1, failed=1)


SKIPS = """
@pytest.mark.interop("no-such-program")
def test_peer():
    pass
@pytest.mark.skip(reason="told to")
def test_skip():
    pass
@pytest.mark.xfail(reason="known")
def test_xfail():
    assert False
"""


def test_missing_peers_skip_with_the_reason(inner: Run) -> None:
    """Outside CI a missing program is a skip that names it."""
    result = inner(SKIPS)
    result.assert_outcomes(skipped=2, xfailed=1)


def test_skips_are_failures_in_ci(inner: Run) -> None:
    """With CI=true no kind of skip passes; an expected failure does."""
    result = inner(SKIPS, ci=True)
    assert result.parseoutcomes().get("skipped") is None
    assert result.parseoutcomes()["xfailed"] == 1
    result.stdout.fnmatch_lines(["*skip is a failure*no-such-program is not on PATH*", "*skip is a failure*told to*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_skipped_modules_are_failures_in_ci(inner: Run) -> None:
    """A module that skips itself does not pass in CI either."""
    result = inner("pytest.importorskip('no_such_module')\ndef test_x(): pass\n", ci=True)
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*skip is a failure*no_such_module*"])
