"""The log: one line per step that tells a call's story, no secret in it, and no way for it to harm a call."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from rustpbx import logs
from rustpbx.journal import FEW, Journal
from rustpbx.machine import Machine
from rustpbx.masking import mask
from rustpbx.session.tables import Attachment, Call
from rustpbx.sip import events as sip
from tests.kit.house import open_house
from tests.kit.logbook import PAGE, Logbook, filled_page, kept_log, log_of_a_call
from tests.test_calls import SCRIPTED, answered, over, quiet_house
from tests.test_machine import DOOR, Cause


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """`set_up` changes the root logger and the levels of others."""
    root = logging.getLogger()
    before, levels = (
        (root.level, root.handlers[:]),
        {name: logging.getLogger(name).level for name in root.manager.loggerDict},
    )
    yield
    for handler in set(root.handlers) - set(before[1]):
        handler.close()
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name in root.manager.loggerDict:
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


def record(text: str, *args: object, level: int = logging.INFO, name: str = "rustpbx.app", **extra: object) -> Any:
    """A log record as `logging` makes it."""
    made = logging.LogRecord(name, level, "", 0, text, args, None)
    vars(made).update(extra)
    return made


# -- formats --------------------------------------------------------------------------------------------------------


def test_console_lines() -> None:
    """A line for people: time, level, short name, what happened, and the call at the end; a traceback below."""
    console = logs.formatter("console")
    lost = record("call %s: lost %s", "c1", "it", level=logging.WARNING, name="rustpbx.sip.stack", call="c1")
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} warn  sip\.stack {14}lost it  \[c1\]", console.format(lost))
    lost.exc_info = (ValueError, ValueError("x"), None)
    assert console.format(lost).endswith("lost it  [c1]\n  ValueError: x")


def test_the_console_is_not_steered_by_what_is_logged() -> None:
    """Somebody else's escape sequences and carriage returns are shown, not sent; further lines are indented."""
    line = logs.formatter("console").format(record("%s", "a\x1b[2Jb\rc\nd\x9be"))
    assert line.endswith("a\\x1b[2Jb\\x0dc\n  d\\x9be")


def test_json_lines() -> None:
    """A line for machines: one object, UTC, the parts of a step, the traceback as text."""
    step = {"call": "c1", "machine": "sip.call", "from_state": "A", "trigger": "T", "to_state": "B", "cause": "BYE"}
    made = record("gone", level=logging.ERROR, **step)
    made.created = 1761811280.12
    made.exc_info = (ValueError, ValueError("x"), None)
    assert json.loads(logs.formatter("json").format(made)) == {
        "ts": "2025-10-30T08:01:20.120+00:00",
        "level": "error",
        "logger": "rustpbx.app",
        "call": "c1",
        "machine": "sip.call",
        "from": "A",
        "trigger": "T",
        "to": "B",
        "cause": "BYE",
        "message": "gone",
        "exception": "ValueError: x",
    }
    assert list(json.loads(logs.formatter("json").format(record("a\nb")))) == ["ts", "level", "logger", "message"]


class Terminal(io.StringIO):
    """A stream that is, or is not, a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        """As made."""
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "environ", "coloured"),
    [(True, {}, True), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False), (False, {}, False)],
)
def test_colour_is_for_terminals_that_want_it(
    terminal: bool, environ: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe gets none, and neither does anybody with NO_COLOR."""
    stream = Terminal(terminal=terminal)
    monkeypatch.setattr("sys.stdout", stream)
    logs.set_up("info", environ=environ)
    Journal("rustpbx.x").warning("look")
    Journal("rustpbx.x").info("fine")
    logging.getLogger().handlers[0].flush()
    first, second = stream.getvalue().splitlines()
    assert (first.startswith("\x1b[33m") and first.endswith("look\x1b[0m")) is coloured
    assert second.endswith(" fine")


# -- levels ---------------------------------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The texts that reached standard output."""
    logging.getLogger().handlers[0].flush()
    return [line[13:].split(maxsplit=2)[-1] for line in capsys.readouterr().out.splitlines()]


def test_levels_of_single_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    """A named logger, and all below it, has its own level; the others keep the common one."""
    logs.set_up("info", levels=[("rustpbx.sip", "debug"), ("rustpbx.access", "warn")])
    for name in ("rustpbx.sip.call", "rustpbx.session.call", "rustpbx.access"):
        Journal(name).debug("%s debug", name)
        Journal(name).info("%s info", name)
    assert shown(capsys) == ["rustpbx.sip.call debug", "rustpbx.sip.call info", "rustpbx.session.call info"]


@pytest.mark.parametrize(("levels", "told"), [([], []), ([(logs.SIP_TRACE, "debug")], ["INVITE"])])
def test_whole_messages_only_for_those_who_ask(
    levels: list[Any], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """`debug` for everything does not mean every SIP message."""
    logs.set_up("debug", levels=levels)
    Journal(logs.SIP_TRACE).debug("INVITE")
    assert shown(capsys) == told


# -- whoever listens badly ------------------------------------------------------------------------------------------


class Stuck(io.StringIO):
    """A stream whose reader has stopped reading until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.entered = threading.Event()

    def write(self, text: str) -> int:
        """Wait, then write."""
        self.entered.set()
        self.go.wait()
        return super().write(text)


def test_a_stopped_reader_costs_lines_and_never_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who logs never waits; what found no room is counted, and said once the reader reads again."""
    monkeypatch.setattr(logs, "MOST_WAITING", 3)
    stream = Stuck()
    outlet = logs.Outlet(stream)
    outlet.handle(record("first"))
    stream.entered.wait()
    for number in range(10):
        outlet.handle(record("line %d", number))
    assert outlet.lost == 7
    stream.go.set()
    outlet.flush()
    outlet.close()
    texts = [line[42:] for line in stream.getvalue().splitlines()]
    assert sorted(texts) == sorted(
        ["first", "line 0", "line 1", "line 2", "7 log lines were lost: they came faster than they could be written"]
    )


class Full(io.StringIO):
    """A stream on a disk that is full for a while."""

    full = True

    def write(self, text: str) -> int:
        """Fail or write."""
        if self.full:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    """The writer goes on, and says what is missing when there is space again."""
    stream = Full()
    outlet = logs.Outlet(stream)
    outlet.handle(record("lost"))
    outlet.flush()
    stream.full = False
    outlet.handle(record("kept"))
    outlet.flush()
    outlet.close()
    assert [line[42:62] for line in stream.getvalue().splitlines()] == ["kept", "1 log lines were lost"[:20]]


class Broken(logging.Handler):
    """A host's handler that breaks the rules of handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def emit(self, _: logging.LogRecord) -> None:
        """Fail."""
        self.asked += 1
        raise RuntimeError("a broken log handler")


async def test_a_broken_handler_ends_no_call(capsys: pytest.CaptureFixture[str]) -> None:
    """Every line of a whole call raises in the host's handler: the call goes its way, standard error tells."""
    handler, logger = Broken(), logging.getLogger("rustpbx")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        async with quiet_house() as house, answered(house) as (call, agent):
            await agent.send("tts", text="hello", endOfStream=True)
            await agent.until("trackEnd")
            call.hang_up()
            assert (await over(agent))["reason"] == "caller"
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert handler.asked > 20
    assert "a broken log handler" in capsys.readouterr().err


def test_equal_warnings_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A flood of one kind shows a few and then the doubling counts; another kind is not held back, nor is `info`."""
    journal = Journal("rustpbx.flood")
    with caplog.at_level(logging.INFO, "rustpbx.flood"):
        for number in range(100):
            journal.warning("tick %d is late", number)
            journal.info("tick")
        journal.error("another kind")
    warnings = [message for message in caplog.messages if "late" in message]
    assert warnings == [f"tick {number} is late" for number in range(FEW)] + [
        f"tick {count - 1} is late (number {count} of its kind in 10 s)" for count in (8, 16, 32, 64)
    ]
    assert caplog.messages.count("tick") == 100
    assert caplog.messages[-1] == "another kind"


def test_exceptions_come_with_their_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """`exception` takes the one at hand; the record names the place that logged it."""
    with caplog.at_level(logging.INFO, "rustpbx.x"):
        try:
            _ = 1 / len("")
        except ZeroDivisionError:
            Journal("rustpbx.x").exception("it broke", call="c1")
    (told,) = caplog.records
    assert told.exc_info is not None
    assert told.exc_info[0] is ZeroDivisionError
    assert (told.getMessage(), vars(told)["call"]) == ("call c1: it broke", "c1")
    assert told.pathname == __file__


def test_what_nobody_reads_is_not_put_into_words() -> None:
    """With the level off a step asks for no words about its cause."""
    asked: list[object] = []

    def words(cause: object) -> str:
        asked.append(cause)
        return ""

    machine = Machine(DOOR, lambda _: 1.0, words=words)
    with kept_log(logging.INFO, "tests.door") as book:
        machine.step(Cause.PUSH, 0.0, "somebody")
    assert (asked, book.records) == ([], [])


# -- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ('Authorization: Digest username="u", response="0123"', "Authorization: ***"),
        ("A: b\r\nProxy-Authorization: Digest a=1,\r\n b=2\r\nC: d", "A: b\r\nProxy-Authorization: ***\r\nC: d"),
        ("authorization:Bearer abcdef", "authorization:***"),
        ("X-Api-Key: s3cret\r\nVia: x", "X-Api-Key: ***\r\nVia: x"),
        ("it said Bearer abc.def-123 to us", "it said Bearer *** to us"),
        ("GET http://user:pass@host/a?token=abc&b=c#d", "GET http://***@host/a?token=***&b=c#d"),
        ("https://host/v1?key=abc&x=1", "https://host/v1?key=***&x=1"),
        ("sip:bob:secret@host;x", "sip:bob:***@host;x"),
        ("{'api_key': 'abc', 'model': 'm'}", "{'api_key': '***', 'model': 'm'}"),
        ('{"secretKey": "abc"}', '{"secretKey": "***"}'),
        ("password=hunter2, user=me", "password=***, user=me"),
        ("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj|2^20", None),
        (
            "call c1: TALKING --BYE--> ENDING (BYE from 10.0.0.2:5060)",
            "call c1: TALKING --BYE--> ENDING (BYE from 10.0.0.2:5060)",
        ),
        ("sip:800@10.0.0.1 calls <sip:b@[2001:db8::1]:5060>", "sip:800@10.0.0.1 calls <sip:b@[2001:db8::1]:5060>"),
    ],
)
def test_masking(text: str, masked: str | None) -> None:
    """Credentials go, whatever their shape; the rest stays to the letter."""
    assert mask(text) == (masked if masked is not None else text.replace(text[text.index("d0Rm") : -5], "***"))


SECRETS = ("digest-password", "agent-token", "provider-key", "prompt-token", "webhook-secret")


async def test_no_secret_is_logged() -> None:
    """Passwords, tokens and keys that pass through a call appear in no line, in no format, at the lowest level."""
    with kept_log(logs.TRACE) as book:
        async with open_house() as house, house.agent(f"/call/sip?token={SECRETS[1]}") as agent:
            option = {
                **SCRIPTED,
                "tts": {"provider": "nobody", "secretKey": SECRETS[2]},
                "sip": {"username": "bob", "password": SECRETS[0], "headers": {"X-Api-Key": SECRETS[2]}},
            }
            await agent.send("invite", option={"callee": house.phone.uri, **option})
            call = await house.phone.ring()
            call.answer()
            await agent.until("answer")
            await agent.send("tts", text="hello", option={"provider": "nobody", "secretKey": SECRETS[2]})
            await agent.send("play", url=f"http://bob:{SECRETS[0]}@10.9.9.9/a.wav?token={SECRETS[3]}")
            await trio.sleep(5)
            await agent.send_text(json.dumps({"command": "tts", "text": 5, "option": {"secretKey": SECRETS[2]}}))
            await agent.send("hangup")
            await over(agent)
    assert len(book.records) > 20
    written = "\n".join((*book.lines(), *book.lines("json"), *(made.getMessage() for made in book.records)))
    assert [secret for secret in SECRETS if secret in written] == []


# -- the story ------------------------------------------------------------------------------------------------------


def steps(book: Logbook, machine: str) -> list[tuple[str, str, str]]:
    """From, trigger and to of each step of one machine."""
    return [
        (vars(made)["from_state"], vars(made)["trigger"], vars(made)["to_state"])
        for made in book.records
        if vars(made).get("machine") == machine
    ]


def test_a_call_tells_its_story() -> None:
    """An ordinary call is some ten lines at `info`; each step follows from the one before, and all name the call."""
    book, _ = log_of_a_call()
    story = [made for made in book.records if made.levelno >= logging.INFO]
    assert len(story) in range(8, 13)
    walked = steps(book, "session.call")
    assert [begin for begin, _, _ in walked[1:]] == [end for _, _, end in walked[:-1]]
    assert (walked[0][0], walked[-1][2]) == (Call.NEW.name, Call.ENDED.name)
    assert steps(book, "session.attachment")[-1][2] == Attachment.GONE.name
    ids = {vars(made)["call"] for made in book.records if vars(made).get("machine", "").startswith("session.")}
    assert len(ids) == 1


def test_every_machine_of_a_call_names_it() -> None:
    """Dialog, transactions, offer, playback, speech: each line of the server has the call's id and what moved it."""
    book, _ = log_of_a_call()
    lines = [vars(made) for made in book.records if "machine" in vars(made)]
    (call,) = {line["call"] for line in lines if line["machine"] == "session.call"}
    servers = [line for line in lines if not line["call"].startswith("phone-")]
    assert {line["call"] for line in servers} == {call}
    assert {line["machine"] for line in servers} >= {
        *("session.call", "session.attachment", "session.playback", "sip.call", "sip.offer"),
        *("sip.invite-server", "sip.request-server", "sip.pending-ack"),
    }
    byes = [line["cause"] for line in servers if line["trigger"] == "BYE"]
    assert byes == ["BYE from 10.0.0.2:5060", "BYE from the phone"]
    assert {line["cause"] for line in servers if line["trigger"].startswith("TIMER_")} <= {
        "timer I",
        "timer J",
        "timer L",
    }


async def test_the_commands_of_an_agent_are_causes() -> None:
    """Out: the agent's commands and the phone's answers are named, what was said is not."""
    with kept_log() as book:
        async with open_house() as house, house.agent() as agent:
            await agent.send("invite", option={"callee": house.phone.uri, **SCRIPTED})
            call = await house.phone.ring()
            call.ringing()
            call.answer()
            await agent.until("answer")
            await agent.send("tts", text="a private matter", endOfStream=True)
            await agent.send("hangup")
            await over(agent)
            assert isinstance((await call.ended()).cause, sip.ByeReceived)
    causes = [vars(made)["cause"] for made in book.records if vars(made).get("machine") == "session.call"]
    assert causes[0] == "command invite"
    assert causes[2:5] == ["180 Ringing from the phone", "200 from the phone", "command hangup"]
    assert "command tts" in {vars(made).get("cause") for made in book.records}
    assert not any("private" in made.getMessage() for made in book.records)


def test_the_page_shows_what_is_logged() -> None:
    """The examples of docs/logging.md are a real call's (`python -m tests.kit.logbook --write` renews them)."""
    text = PAGE.read_text(encoding="utf-8")
    assert filled_page(text) == text
