"""The pytest plugin from outside: whose tests it runs, how they fail, seeds, caps, and what must not be left behind."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

import rustpbx.testing.house  # noqa: F401 - numpy cannot be loaded twice, and the inner runs forget what they loaded

pytest_plugins = ["pytester"]

Run = Callable[..., pytest.RunResult]

IMPORTS = """import json, os, random, pytest, trio
from rustpbx.media.events import Direction
from rustpbx.testing.wire import Link
"""

AGENT = """
async def echo(socket):
    services = {"asr": {"provider": "tencent"}, "tts": {"provider": "aliyun"}, "vad": {"type": "webrtc"}}
    await socket.send_message(json.dumps({"command": "accept", "option": services}))
    while True:
        event = json.loads(await socket.get_message())
        if event["event"] == "asrFinal":
            words = {"text": "you said " + event["text"], "autoHangup": True, "endOfStream": True}
            await socket.send_message(json.dumps({"command": "tts", **words}))
"""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file in a pytest of its own; the plugin comes with the installed package."""
    monkeypatch.delenv("RUSTPBX_TEST_SEED", raising=False)
    monkeypatch.setenv("CI", "")

    def run(source: str, *arguments: str, ini: str = "") -> pytest.RunResult:
        pytester.makeini("[pytest]\naddopts = --strict-markers -p no:cacheprovider\n" + ini)
        pytester.makepyfile(test_it=IMPORTS + source)
        return pytester.runpytest_inprocess("-W", "error", *arguments)

    return run


def told(result: pytest.RunResult) -> str:
    """The failures as printed, with ids and ports replaced."""
    text = result.stdout.str()
    text = re.sub(r"[0-9a-f]{32}@[\w.-]+:", "<call>:", text)
    text = re.sub(r"RTP x \d+", "RTP x <n>", text)
    return re.sub(r"on port \d+", "on port <port>", text)


# -- whose test is it ---------------------------------------------------------------------------------------------


def test_fixtures_make_a_call(inner: Run) -> None:
    """Phone and agent talk; the short names and the long ones are the same objects; an hour costs nothing."""
    result = inner(
        """
async def test_call(server, phone, agent, rustpbx_house, rustpbx_phone, rustpbx_agent, rustpbx_seed):
    assert (server, phone, agent) == (rustpbx_house, rustpbx_phone, rustpbx_agent)
    await phone.dials()
    await agent.answers()
    await phone.says("hello")
    await agent.hears("hello")
    await agent.says("good morning")
    await phone.hears("good morning")
    await agent.hangs_up()
    await trio.sleep(200)
@pytest.mark.rustpbx
async def test_marked():
    await trio.sleep(299)
"""
    )
    result.assert_outcomes(passed=2)


def test_agents_of_all_shapes(inner: Run) -> None:
    """A function of a socket for each call, a program that connects by itself, one around the server."""
    result = inner(
        AGENT
        + """
pytestmark = pytest.mark.rustpbx(agent=echo)

async def test_two_calls_at_once(phone, server):
    bob = await server.new_phone("bob", "10.0.0.4")
    async with trio.open_nursery() as nursery:
        for who, words in ((phone, "one"), (bob, "two")):
            nursery.start_soon(ask, who, words)

async def ask(phone, words):
    await phone.dials()
    await phone.says(words)
    await phone.hears("you said " + words)
    await phone.is_hung_up()

async def program(network, address):
    stream = await network.connect(*address)
    await stream.send_all(b"GET /health HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    program.answer = await stream.receive_some()
    await stream.aclose()

@pytest.mark.rustpbx(agent=None, program=program)
async def test_program(server):
    await trio.sleep(1)
    assert program.answer.startswith(b"HTTP/1.1 200")

async def doorman(server):
    async for call in server.calls():
        async with call:
            await call.reject("closed", 480)

@pytest.mark.rustpbx(agent=None, embedded=doorman)
async def test_embedded(phone):
    await phone.dials()
    with pytest.raises(AssertionError, match="refused: 480"):
        await phone.hears("hello")
"""
    )
    result.assert_outcomes(passed=3)


def test_other_tests_are_not_touched(inner: Run) -> None:
    """A coroutine test without our fixtures stays pytest's and its other plugins', and so do fixtures of our names."""
    result = inner(
        """
@pytest.fixture
def phone():
    return "555-1234"
async def test_nobodys():
    pass
@pytest.mark.anyio
async def test_anyio(phone):
    assert phone == "555-1234"
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_asyncio(anyio_backend):
    import asyncio
    await asyncio.sleep(0)
def test_plain(phone, rustpbx_phone):
    assert phone == "555-1234" != rustpbx_phone
async def test_ours(phone, rustpbx_phone):
    assert phone == "555-1234"
    await rustpbx_phone.dials("sip:nobody@10.0.0.77")
    rustpbx_phone.hangs_up()
""",
        "-k",
        "not trio",
    )
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        ["*async def functions are not natively supported*", "FAILED test_it.py::test_nobodys*"]
    )


def test_every_coroutine_test_where_the_project_says_so(inner: Run) -> None:
    """`rustpbx_auto` takes coroutine tests without mark or fixture, but not those marked for other plugins."""
    result = inner(
        """
async def test_ours():
    await trio.sleep(100)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_asyncio(anyio_backend):
    import asyncio
    await asyncio.sleep(0)
""",
        ini="rustpbx_auto = true\n",
    )
    result.assert_outcomes(passed=2)


def test_a_plugin_that_takes_every_coroutine_does_not_get_ours(inner: Run, pytester: pytest.Pytester) -> None:
    """Plugins whose automatic modes put a wrapper in each coroutine test's place find ours run as they are written."""
    pytester.makeconftest(
        """
import pytest
@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    given = getattr(item.obj, "hypothesis", None)
    if given is None:
        item.obj = lambda **arguments: pytest.fail("run by another plugin")
    else:
        given.inner_test = lambda **arguments: pytest.fail("run by another plugin")
"""
    )
    result = inner(
        """
from hypothesis import HealthCheck, given, settings, strategies as st
class TestPhone:
    @pytest.fixture(autouse=True)
    def number(self):
        self.number = "555-1234"
    async def test_method(self, phone):
        await trio.sleep(100)
        assert self.number == "555-1234"
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(seconds=st.integers(1, 100))
async def test_examples(phone, seconds):
    await trio.sleep(seconds)
"""
    )
    result.assert_outcomes(passed=2)


def test_loading_the_plugin_loads_nothing() -> None:
    """It is loaded in every pytest run of whoever has the package, so it must cost nothing."""
    program = "import sys, pytest; before = set(sys.modules); import rustpbx.testing.pytest_plugin; "
    program += "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert run.stdout.split() == ["rustpbx"]


def test_hypothesis_gets_a_new_house_for_each_example(inner: Run) -> None:
    """`@given` works with the fixtures, though these are made once a test."""
    result = inner(
        """
from hypothesis import HealthCheck, given, settings, strategies as st
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=st.sampled_from(["yes", "no", "perhaps"]))
async def test_words(phone, agent, words):
    assert phone.heard == "" and agent.names == []
    await phone.dials()
    await agent.answers()
    await agent.says(words)
    assert phone.heard == words
    phone.hangs_up()
    await agent.is_hung_up()
"""
    )
    result.assert_outcomes(passed=1)


def test_a_fixture_of_the_users_own_plans_the_house(inner: Run) -> None:
    """Sync fixtures may wrap phone and server and change the plan; what exists only while the test runs says so."""
    result = inner(
        """
@pytest.fixture
def far_away(server):
    server.plan.link = Link(delay=1.0)
    with pytest.raises(AssertionError, match="the house is not open yet: its wire is there once the test runs"):
        server.wire
    return server
async def test_delay(far_away, phone, agent):
    began = trio.current_time()
    call = await phone.dials()
    await agent.answers()
    await call.answered()
    assert trio.current_time() - began >= 2
    phone.hangs_up()
"""
    )
    result.assert_outcomes(passed=1)


# -- failing ------------------------------------------------------------------------------------------------------


def test_a_failure_tells_the_seed_and_the_call(inner: Run) -> None:
    """The traceback ends at the test's line; then come the seed, the calls that were up, phone and agent."""
    result = inner(
        """
async def test_words(phone, agent):
    await phone.dials()
    await agent.answers()
    await agent.says("good morning")
    await phone.hears("evening", within=2)
"""
    )
    result.assert_outcomes(failed=1)
    assert """
>       await phone.hears("evening", within=2)
E       rustpbx.testing.script.ScriptError: the phone did not hear "evening" within 2 s; the phone heard "good morning"

test_it.py:9: ScriptError
--------------------------------- rustpbx seed ---------------------------------
seed 0: RUSTPBX_TEST_SEED=0 or --rustpbx-seed 0 replays this run exactly
--------------------------------- rustpbx call ---------------------------------
call <call>: TALKING, leg on port <port>, being transcribed, agent attached; hang up, or end the phone's call
phone: talking, heard "good morning"
agent: heard nothing, events: incoming, trackStart, answer, trackStart, trackEnd
-------------------------------- rustpbx ladder --------------------------------
                           phone                                   server
   0.000                      |------------ INVITE (1) sdp ---------->|
   0.000                      |<------- 100 Trying (1 INVITE) --------|
   0.000                      |<--------- 200 OK (1 INVITE) ----------|
   0.000                      |--------------- ACK (1) -------------->|
                              |............. RTP x <n> < .............|
                              |............. RTP x <n> > .............|
=========================== short test summary info ============================
""" in told(result)


IMPOSSIBLE = [
    ("await phone.answers(within=5)", "nobody called the phone within 5 s"),
    ("await phone.hears('x')", "the phone has no call: phone.dials() or phone.answers() first"),
    ("await phone.says('x')", "the phone has no call: phone.dials() or phone.answers() first"),
    ("phone.hangs_up()", "the phone has no call: phone.dials() or phone.answers() first"),
    ("await agent.answers(within=5)", "no call was announced to the agent within 5 s"),
    ("await agent.hears('x')", "the agent is not connected: agent.answers() or agent.dials() first"),
    ("await agent.says('x')", "the agent is not connected: agent.answers() or agent.dials() first"),
    ("await agent.until('answer')", "the agent is not connected: agent.answers() or agent.dials() first"),
    ("await phone.dials(); await phone.says('x', within=5)", "nobody answered the phone within 5 s"),
    ("await phone.dials(); await phone.dials()", "the phone is in a call already: phone.hangs_up() first"),
    (
        "await agent.dials(); await phone.rings(); await phone.says('x')",
        "the phone has not answered its call: phone.answers() first",
    ),
    (
        "await phone.dials(); await agent.rejects(486); await phone.hears('x')",
        "the phone's call was refused: 486 Busy Here",
    ),
]

ALL_EVENTS = "incoming, trackStart, answer, trackEnd, hangup"

IN_A_CALL = [
    (
        "await agent.hangs_up(); await phone.hears('x')",
        'the phone cannot hear "x": its call is over (hung up by the other side at 0.0 s); the phone heard nothing',
    ),
    (
        "await agent.hangs_up(); await phone.is_hung_up(); await phone.says('x')",
        "the phone has no audio: its call is over (hung up by the other side at 0.0 s); the phone heard nothing",
    ),
    (
        "phone.hangs_up(); phone.hangs_up()",
        "the phone cannot hang up: its call is over (hung up by itself at 0.0 s); the phone heard nothing",
    ),
    (
        "phone.hangs_up(); await agent.hears('x')",
        'the agent did not hear "x" before the call ended; it heard nothing',
    ),
    (
        "phone.hangs_up(); await agent.until('dtmf')",
        "the agent did not get dtmf before the socket closed with 1000; events: " + ALL_EVENTS,
    ),
    (
        "await agent.until('dtmf', within=1)",
        "the agent did not get dtmf within 1 s; events: incoming, trackStart, answer",
    ),
    ("await agent.connects()", "the agent is connected already: one agent has one call"),
    (
        "await phone.says('some words'); await agent.hears('others', within=1)",
        'the agent did not hear "others" within 1 s; it heard "some words"',
    ),
    (
        "await phone.call.answered(); await phone.call.re_invite(direction=Direction.RECVONLY); await phone.says('x')",
        'the phone cannot say "x": the call is on hold (recvonly)',
    ),
    ("await phone.is_hung_up(within=1)", "the phone's call was not ended within 1 s; the phone heard nothing"),
]


@pytest.mark.parametrize(
    ("script", "message"),
    [*IMPOSSIBLE, *((f"await phone.dials(); await agent.answers(); {s}", message) for s, message in IN_A_CALL)],
)
def test_an_impossible_script_fails_clearly(inner: Run, script: str, message: str) -> None:
    """What cannot be, or did not come, fails with a sentence, never with a hang."""
    result = inner(f"async def test_script(phone, agent):\n    {script}\n")
    result.assert_outcomes(failed=1)
    assert f"E       rustpbx.testing.script.ScriptError: {message}\n" in told(result)


def test_a_stuck_test_names_who_waits_where(inner: Run) -> None:
    """Virtual time is capped: the failure has the waiting lines of test and agent, and the calls that are up."""
    result = inner(
        """
async def idle(socket):
    await socket.send_message('{"command": "accept", "option": {}}')
    await trio.sleep_forever()
@pytest.mark.rustpbx(agent=idle, limit=20)
async def test_stuck(phone):
    call = await phone.dials()
    await call.answered()
    await trio.Event().wait()
"""
    )
    result.assert_outcomes(failed=1)
    assert """
stuck: 20 s of virtual time have passed, and this is where it waits:
  test_it.py:12 in test_stuck: await trio.Event().wait()
  test_it.py:7 in idle: await trio.sleep_forever()
  call <call>: TALKING, leg on port <port>, agent attached; hang up, or end the phone's call
--------------------------------- rustpbx seed ---------------------------------
""" in told(result)


def test_real_time_is_capped_too(inner: Run) -> None:
    """A test that spins in virtual time is ended by the real limit."""
    result = inner(
        """
@pytest.mark.rustpbx(limit=1e9)
async def test_spins():
    while True:
        await trio.sleep(1e-6)
""",
        ini="rustpbx_real_limit = 0.3\n",
    )
    result.assert_outcomes(failed=1)
    assert """
stuck: 0.3 s of real time have passed, and this is where it waits:
  test_it.py:8 in test_spins: await trio.sleep(1e-6)
""" in told(result)


def test_a_crash_of_the_agent_is_the_failure(inner: Run) -> None:
    """The agent's exception fails the test with the agent's traceback, whatever the test was waiting for."""
    result = inner(
        """
async def broken(socket):
    raise KeyError("no such order")
@pytest.mark.rustpbx(agent=broken)
async def test_agent(phone):
    await phone.dials()
    await phone.hears("hello")
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">*raise KeyError(*", "E       KeyError: 'no such order'", "test_it.py:6: KeyError"])


ADVICE = "hang up, or end the phone's call\n"
LEFT = "\nthe test is over, and this is left:\n  "


@pytest.mark.parametrize(
    ("script", "left"),
    [
        (
            "await phone.dials(); await agent.answers(); await agent.starts_saying('x')",
            f"call <call>: TALKING, leg on port <port>, playback 1, being transcribed, agent attached; {ADVICE}",
        ),
        (
            "await phone.dials(); await agent.is_called()",
            f"call <call>: INCOMING, agent attached; {ADVICE}",
        ),
        ("trio.lowlevel.spawn_system_task(trio.sleep_forever)", "task trio.sleep_forever still runs\n"),
        ("await server.wire.host('10.0.0.9').open_datagrams('', 5060)", "UDP 10.0.0.9:5060 is still bound\n"),
        ("server.pipe = os.pipe()", "file descriptor "),
    ],
)
def test_what_is_left_is_a_failure(inner: Run, script: str, left: str) -> None:
    """A forgotten call, a task, a bound port or a descriptor fails the test, named with what it owns."""
    source = f"async def test_script(phone, agent, server):\n    {script}\n"
    result = inner(source)
    result.assert_outcomes(failed=1)
    assert LEFT + left in told(result)
    inner("@pytest.mark.rustpbx(check=False)\n" + source).assert_outcomes(passed=1)


def test_calls_that_are_ending_may_end(inner: Run) -> None:
    """A last word that is still being said, and a BYE that is lost at first, are waited for."""
    result = inner(
        """
async def test_last_words(phone, agent):
    await phone.dials()
    await agent.answers()
    await agent.starts_saying("goodbye", autoHangup=True, endOfStream=True)
async def test_lost_bye(phone, agent):
    await phone.dials()
    await agent.answers()
    phone.weather(Link(loss=1.0))
    phone.hangs_up()
    await trio.sleep(3)
    phone.weather(Link())
"""
    )
    result.assert_outcomes(passed=2)


def test_mistakes_in_the_options_are_named(inner: Run) -> None:
    """An unknown option of the mark, a house in real time, a seed that is no number."""
    source = """
@pytest.mark.rustpbx(wether=1)
async def test_option(phone):
    pass
@pytest.mark.rustpbx(real_time=True)
async def test_real(phone):
    pass
"""
    result = inner(source)
    assert "mark rustpbx: there is no option wether; there are agent, program, embedded, link," in told(result)
    assert "a house lives in virtual time: a test marked real_time cannot have one" in told(result)


def test_a_seed_that_is_no_number(inner: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named."""
    monkeypatch.setenv("RUSTPBX_TEST_SEED", "lucky")
    inner("async def test_x(phone): pass\n")  # the house is made by a fixture, so this is an error of the set-up
    monkeypatch.setenv("RUSTPBX_TEST_SEED", "lucky")
    assert "RUSTPBX_TEST_SEED is no number: 'lucky'" in told(inner("async def test_x(phone): pass\n"))


# -- seeds --------------------------------------------------------------------------------------------------------

ORDER = """
@pytest.mark.parametrize("what", ["a"])
@pytest.mark.rustpbx
async def test_order(what):
    seen = []
    async def note(number):
        for _ in range(5):
            seen.append(number)
            await trio.lowlevel.checkpoint()
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(note, number)
    print("order:", seen, random.random(), os.urandom(4))
    assert False
"""


def orders(result: pytest.RunResult) -> list[str]:
    """What the runs of `ORDER` printed."""
    return [line for line in result.outlines if line.startswith("order:")]


def test_a_seed_replays(inner: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option and by variable; another seed is another order; many seeds in one run are named and the same ones."""
    seven = orders(inner(ORDER, "--rustpbx-seed", "7"))
    many = inner(ORDER, "--rustpbx-seed", "6", "--rustpbx-runs", "3")
    many.assert_outcomes(failed=3)
    many.stdout.fnmatch_lines(["FAILED test_it.py::test_order*seed6*", "FAILED*seed7*", "FAILED*seed8*"])
    assert "seed 7: RUSTPBX_TEST_SEED=7 or --rustpbx-seed 7 replays this run exactly" in told(many)
    assert len(set(orders(many))) == 3
    monkeypatch.setenv("RUSTPBX_TEST_SEED", "7")
    assert orders(inner(ORDER)) == seven == orders(many)[1:2]


def test_many_runs_of_a_call(inner: Run) -> None:
    """`--rustpbx-runs` gives each test with a house its own seed for wire and server, and leaves other tests alone."""
    source = """
ids = []
async def test_call(phone):
    ids.append((await phone.dials()).leg)
    phone.hangs_up()
def test_plain():
    assert len(ids) == len(set(ids)) == 3
"""
    inner(source, "--rustpbx-runs", "3").assert_outcomes(passed=4)
