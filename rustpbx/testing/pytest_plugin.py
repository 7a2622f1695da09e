"""The pytest plugin: a server, a phone and an agent as fixtures, in virtual time.

    async def test_greeting(phone, agent):
        await phone.dials()
        await agent.answers()
        await agent.says("good morning")
        await phone.hears("good morning")
        phone.hangs_up()

A coroutine test that uses one of these fixtures, or is marked `rustpbx`, is run by this plugin; no other test is
touched. `docs/testing.md` is the guide. pytest loads this module always, so it imports nothing of the server.
"""

from __future__ import annotations

import inspect
import os
import re
import zlib
from collections.abc import Callable, Coroutine, Generator
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rustpbx.testing.agent import Agent
    from rustpbx.testing.case import Case, Options
    from rustpbx.testing.handset import Handset
    from rustpbx.testing.house import House

SEED_VARIABLE = "RUSTPBX_TEST_SEED"
OTHERS = ("anyio", "asyncio", "trio")
"""Marks of tests that belong to other plugins, also where every coroutine test is ours (`rustpbx_auto`)."""

_CASE: pytest.StashKey[Case] = pytest.StashKey()
_HOUSE: pytest.StashKey[House] = pytest.StashKey()
_TEST: pytest.StashKey[Callable[..., Any]] = pytest.StashKey()
_INNER: pytest.StashKey[Callable[..., Any]] = pytest.StashKey()


# -- options ------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and ini values."""
    group = parser.getgroup("rustpbx", "testing voice agents with rustpbx")
    group.addoption(
        "--rustpbx-seed",
        type=int,
        metavar="N",
        help=f"the order of tasks, losses, ports and ids; 0, or what {SEED_VARIABLE} says, by default",
    )
    group.addoption(
        "--rustpbx-runs", type=int, default=1, metavar="N", help="run each rustpbx test with N seeds, counted up"
    )
    parser.addini("rustpbx_auto", "run every coroutine test in virtual time, marked or not", type="bool", default=False)
    parser.addini("rustpbx_limit", "seconds of virtual time after which a test is stuck", default="300")
    parser.addini("rustpbx_real_limit", "seconds of real time after which a test is stuck", default="60")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line(
        "markers",
        "rustpbx(agent=, program=, embedded=, link=, config=, seed=, limit=, real_limit=, ...): "
        "a coroutine test in virtual time; see docs/testing.md",
    )


def _first_seed(config: pytest.Config) -> int:
    given: int | None = config.getoption("rustpbx_seed")
    if given is not None:
        return given
    try:
        return int(os.environ.get(SEED_VARIABLE) or 0)
    except ValueError:
        raise pytest.UsageError(f"{SEED_VARIABLE} is no number: {os.environ[SEED_VARIABLE]!r}") from None


def _options(item: pytest.Item) -> Options:
    from rustpbx.testing.case import Options  # noqa: PLC0415 - see the module's docstring

    marks = [mark.kwargs for mark in item.iter_markers("rustpbx")]
    limits = {"limit": float(item.config.getini("rustpbx_limit"))}
    limits["real_limit"] = float(item.config.getini("rustpbx_real_limit"))
    try:
        return Options.merged(limits, *reversed(marks))
    except TypeError as problem:
        raise pytest.UsageError(str(problem)) from None


# -- whose test, and with which seed ------------------------------------------------------------------------------


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep each coroutine test as it is written: plugins that take every coroutine for theirs put a wrapper there."""
    if isinstance(item, pytest.Function):
        test = getattr(item.obj, "__func__", item.obj)
        given = getattr(test, "hypothesis", None)
        item.stash[_TEST] = test
        item.stash[_INNER] = test if given is None else given.inner_test


def _is_ours(item: pytest.Function) -> bool:
    inner = item.stash.get(_INNER, None)
    if not inspect.iscoroutinefunction(inner):
        return False
    if item.get_closest_marker("rustpbx") is not None or "rustpbx_house" in item.fixturenames:
        return True
    return item.config.getini("rustpbx_auto") and not any(item.get_closest_marker(name) for name in OTHERS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With `--rustpbx-runs`, each test of ours once for each seed."""
    runs = metafunc.config.getoption("rustpbx_runs")
    if runs > 1:
        pytest_itemcollected(metafunc.definition)
    if runs > 1 and _is_ours(metafunc.definition):
        if "rustpbx_seed" not in metafunc.fixturenames:
            metafunc.fixturenames.append("rustpbx_seed")
        first = _first_seed(metafunc.config)
        metafunc.parametrize("rustpbx_seed", range(first, first + runs), indirect=True, ids=lambda seed: f"seed{seed}")


def _seeds(item: pytest.Item) -> tuple[int, int]:
    """The seed that one gives to replay this test, and the one that it makes with the test's name."""
    callspec = getattr(item, "callspec", None)
    chosen = None if callspec is None else callspec.params.get("rustpbx_seed")
    if chosen is None:
        chosen = _options(item).seed
    seed = _first_seed(item.config) if chosen is None else chosen
    name = re.sub(rf"(-seed{seed}(?=[-\]])|seed{seed}-|\[seed{seed}\])", "", item.nodeid.rpartition("/")[2])
    return seed, zlib.crc32(f"{seed} {name}".encode())


# -- fixtures -----------------------------------------------------------------------------------------------------


@pytest.fixture
def rustpbx_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test: what all its randomness should come from."""
    return _seeds(request.node)[1]


@pytest.fixture
def rustpbx_house(request: pytest.FixtureRequest, rustpbx_seed: int) -> House:
    """The server and all around it (`rustpbx.testing.house.House`); it opens when the test begins."""
    from rustpbx.testing.house import House  # noqa: PLC0415 - see the module's docstring

    house = request.node.stash[_HOUSE] = House(_options(request.node).plan(rustpbx_seed))
    return house


@pytest.fixture
def rustpbx_phone(rustpbx_house: House) -> Handset:
    """A phone to talk with in words (`rustpbx.testing.handset.Handset`)."""
    return rustpbx_house.handset


@pytest.fixture
def rustpbx_agent(rustpbx_house: House) -> Agent:
    """An agent written as test code (`rustpbx.testing.agent.Agent`)."""
    return rustpbx_house.desk


@pytest.fixture
def server(rustpbx_house: House) -> House:
    """`rustpbx_house` by its short name."""
    return rustpbx_house


@pytest.fixture
def phone(rustpbx_phone: Handset) -> Handset:
    """`rustpbx_phone` by its short name."""
    return rustpbx_phone


@pytest.fixture
def agent(rustpbx_agent: Agent) -> Agent:
    """`rustpbx_agent` by its short name."""
    return rustpbx_agent


# -- running ------------------------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test of ours in virtual time, one under `@given` once per example."""
    if not _is_ours(pyfuncitem):
        return None
    test, inner = pyfuncitem.stash[_TEST], pyfuncitem.stash[_INNER]
    if test is not inner:
        test.hypothesis.inner_test = _synchronous(pyfuncitem, inner)  # type: ignore[attr-defined]  # put there by @given
        return None
    bound = test if pyfuncitem.instance is None else partial(test, pyfuncitem.instance)
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(bound).parameters}
    _run(pyfuncitem, partial(bound, **arguments))
    return True


def _synchronous(item: pytest.Function, test: Callable[..., Coroutine[Any, Any, object]]) -> Callable[..., None]:
    @wraps(test)
    def run(*arguments: object, **more: object) -> None:
        _run(item, partial(test, *arguments, **more))

    return run


def _run(item: pytest.Function, body: Callable[[], Coroutine[Any, Any, object]]) -> None:
    from rustpbx.testing.case import (  # noqa: PLC0415 - see the module's docstring
        Case,
        LeftoverError,
        ScriptError,
        StuckError,
        at_the_script,
    )

    case = item.stash[_CASE] = Case(_options(item), _seeds(item)[1], item.stash.get(_HOUSE, None))
    try:
        case.run(body)
    except (LeftoverError, StuckError) as problem:
        failure: BaseException = pytest.fail.Exception(str(problem), pytrace=False)
    except ScriptError as problem:
        failure = at_the_script(problem)
    else:
        return
    raise failure


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell with a failure how to replay it, and what happened on the wire."""
    report = yield
    case = item.stash.get(_CASE, None)
    if case is not None and call.when == "call" and report.failed:
        seed = _seeds(item)[0]
        replay = f"seed {seed}: {SEED_VARIABLE}={seed} or --rustpbx-seed {seed} replays this run exactly"
        report.sections.append(("rustpbx seed", replay))
        report.sections.extend((f"rustpbx {title}", text) for title, text in case.story)
    return report
