"""How the suite runs: coroutine tests under Trio, Hypothesis profiles, markers, and no skips in CI.

A plain `async def test_...` runs in virtual time (`MockClock(autojump_threshold=0)`), or on the real clock
when it is marked `real_time`. Fixtures stay plain pytest fixtures: they run outside Trio, so what needs a running
loop is an `async with` in the test. Trio's scheduler is seeded from the test's name (and `RUSTPBX_TEST_SEED`, to try
other orders), so that a failing call replays.

Nothing runs away: virtual time ends after `VIRTUAL_LIMIT`, real time after `REAL_LIMIT`; a test that blocks
the loop's thread itself is ended by pytest's own `faulthandler_timeout`.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import random
import shutil
import time
import zlib
from collections.abc import Callable, Coroutine, Generator
from functools import partial, wraps

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings

VIRTUAL_LIMIT = 2 * 3600.0
"""Seconds of virtual time after which a test is stuck: longer than any timer that a test waits for."""

REAL_LIMIT = 60.0
REAL_TIME_LIMIT = 240.0
"""Seconds of real time for a test in virtual time, and for one marked `real_time`."""

LOCAL_SPEECH_MODULES = ("hibari", "moonshine_cpp", "onnxruntime")

# Time limits of single examples say more about the machine than about the code.
_profile = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("dev", _profile(max_examples=50))
settings.register_profile("ci", _profile(max_examples=200, derandomize=True))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") == "true" else "dev"))


def _seed(name: str) -> int:
    return zlib.crc32(f"{os.environ.get('RUSTPBX_TEST_SEED', '0')} {name}".encode())


class _Watchdog(trio.abc.Instrument):
    """Cancels a test that burns real time, virtual time or not: checked at each step of each task."""

    def __init__(self, scope: trio.CancelScope, limit: float) -> None:
        self._scope = scope
        self._end = time.monotonic() + limit
        self.bitten = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - Trio calls it by name
        if not self.bitten and time.monotonic() > self._end:
            self.bitten = True
            self._scope.cancel()


def _run_in_trio(test: Callable[..., Coroutine[object, object, None]], seed: int, *, real_time: bool) -> None:
    """Run one coroutine test to its end; a test over a limit fails with the limit's name."""
    real_limit = REAL_TIME_LIMIT if real_time else REAL_LIMIT
    scope = trio.CancelScope()
    watchdog = _Watchdog(scope, real_limit)

    async def main() -> None:
        scope.deadline = trio.current_time() + (real_limit if real_time else VIRTUAL_LIMIT)
        with scope:
            await test()
        if scope.cancelled_caught:
            virtual = not real_time and not watchdog.bitten
            pytest.fail(f"stuck: {VIRTUAL_LIMIT:.0f} s of virtual time" if virtual else f"stuck: {real_limit:.0f} s")

    # The scheduler shuffles ready tasks with this generator. Trio has no public way to seed it; its Hypothesis plug-in
    # (loaded with Hypothesis) makes the order depend on nothing else.
    trio._core._run._r.seed(seed)
    clock = None if real_time else trio.testing.MockClock(autojump_threshold=0)
    trio.run(main, clock=clock, instruments=[watchdog])


def _synchronous(
    test: Callable[..., Coroutine[object, object, None]], seed: int, *, real_time: bool
) -> Callable[..., None]:
    @wraps(test)
    def run(**arguments: object) -> None:
        _run_in_trio(partial(test, **arguments), seed, real_time=real_time)

    return run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests under Trio, those under `@given` once per example."""
    real_time = pyfuncitem.get_closest_marker("real_time") is not None
    seed = _seed(pyfuncitem.nodeid)
    hypothesis = getattr(pyfuncitem.obj, "hypothesis", None)
    if hypothesis is not None:
        if inspect.iscoroutinefunction(hypothesis.inner_test):
            hypothesis.inner_test = _synchronous(hypothesis.inner_test, seed, real_time=real_time)
        return None
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    _run_in_trio(partial(pyfuncitem.obj, **arguments), seed, real_time=real_time)
    return True


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """A generator seeded by the test's name."""
    return random.Random(_seed(request.node.nodeid))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, saying what is missing, where a test's peer or extra is not installed."""
    for marker in item.iter_markers("interop"):
        for peer in marker.args:
            if shutil.which(peer) is None:
                pytest.skip(f"{peer} is not on PATH (tests/install-peers.sh installs it)")
    if item.get_closest_marker("local_speech"):
        missing = [name for name in LOCAL_SPEECH_MODULES if importlib.util.find_spec(name) is None]
        if missing:
            pytest.skip(f"{', '.join(missing)} not installed (pip install 'rustpbx[local]')")


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With CI=true nothing may be skipped: what was not run was not tested. Expected failures stay what they are."""
    if os.environ.get("CI") == "true" and report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, and with CI=true a skip is a failure: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn skips into failures in CI."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn skipped modules into failures in CI."""
    report = yield
    _refuse_skip(report)
    return report
