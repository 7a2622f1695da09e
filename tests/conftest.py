"""What is this suite's own: Hypothesis profiles, markers, and no skips in CI.

Coroutine tests are run by the project's own pytest plugin (`rustpbx.testing.pytest_plugin`, `rustpbx_auto` in
pyproject.toml): in virtual time under a seeded scheduler, or on the real clock when marked `real_time`. Fixtures stay
plain pytest fixtures: they run outside Trio, so what needs a running loop is an `async with` in the test. A test that
blocks the loop's thread itself is ended by pytest's own `faulthandler_timeout`.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
from collections.abc import Generator
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import engine

from rustpbx.errors import MediaError
from rustpbx.media.vad.detector import ENGINES

REAL_TIME_LIMIT = 240.0
"""Seconds for a test marked `real_time`; those in virtual time have `rustpbx_real_limit`."""

LOCAL_SPEECH_MODULES = ("hibari", "moonshine_cpp", "onnxruntime")

# Its own five minutes are as long as `faulthandler_timeout`, which would end the run before the failure is told.
engine.MAX_SHRINKING_SECONDS = 60

# Time limits of single examples say more about the machine than about the code.
_profile = partial(settings, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("dev", _profile(max_examples=50))
settings.register_profile("ci", _profile(max_examples=200, derandomize=True))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") == "true" else "dev"))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Hand `real_time` tests to the plugin as such."""
    if item.get_closest_marker("real_time") is not None:
        item.add_marker(pytest.mark.rustpbx(real_time=True, real_limit=REAL_TIME_LIMIT))


@pytest.fixture
def rng(rustpbx_seed: int) -> random.Random:
    """A generator seeded by the test's name."""
    return random.Random(rustpbx_seed)


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
    for marker in item.iter_markers("vad"):
        try:
            ENGINES[marker.args[0]](False).load()
        except MediaError as problem:
            pytest.skip(f"{marker.args[0]}: {problem}")
    for marker in item.iter_markers("package"):
        missing = [name for name in marker.args if importlib.util.find_spec(name) is None]
        if missing:
            pytest.skip(f"{', '.join(missing)} not installed (pip install 'rustpbx[dev]', on x86-64 Linux)")


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
