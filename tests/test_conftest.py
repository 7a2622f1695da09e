"""The suite's own machinery: which tests run in virtual time, markers, and no skips in CI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py").read_text()
MARKERS = """
[pytest]
addopts = --strict-markers -p no:cacheprovider
rustpbx_auto = true
rustpbx_limit = 7200
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
        pytester.makeconftest(CONFTEST)
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


def test_real_time_is_real(inner: Run) -> None:
    """A test marked `real_time` waits for the real clock."""
    result = inner(
        """
import time
@pytest.mark.real_time
async def test_waits():
    began = time.monotonic()
    await trio.sleep(0.05)
    assert time.monotonic() - began >= 0.05
"""
    )
    result.assert_outcomes(passed=1)


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
