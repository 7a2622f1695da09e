"""The log of one call as docs/logging.md shows it: made by a call in memory, so that it cannot rot.

`python -m tests.kit.logbook --write` writes the page's examples anew; tests/test_logs.py compares.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio

from rustpbx import logs
from rustpbx.settings import LogFormat
from rustpbx.sip.trace import Trace, trace_text
from rustpbx.testing.house import open_house
from rustpbx.testing.run import run_virtual

PAGE = Path(__file__).parent.parent.parent / "docs/logging.md"

BEGIN = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
SEED = 5


class Logbook(logging.Handler):
    """Keeps the records of the package, stamped with virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        record.created = BEGIN.timestamp() + trio.current_time()
        self.records.append(record)

    def lines(self, kind: LogFormat = "console", level: int = logging.DEBUG) -> list[str]:
        """The records at or above `level`, as the server would write them."""
        formatter = logs.formatter(kind)
        return [formatter.format(record) for record in self.records if record.levelno >= level]


@contextmanager
def kept_log(level: int = logging.DEBUG, name: str = "rustpbx") -> Iterator[Logbook]:
    """Whatever is logged below `name` for the length of a block."""
    logger, book = logging.getLogger(name), Logbook()
    book.setLevel(level)
    before = logger.level
    logger.addHandler(book)
    logger.setLevel(min(level, before or level))  # somebody outside may want more
    try:
        yield book
    finally:
        logger.removeHandler(book)
        logger.setLevel(before)


async def ordinary_call() -> Trace:
    """A phone calls, the agent answers and speaks, the phone hangs up; the SIP trace of it."""
    async with open_house(seed=SEED) as house:
        call = await house.phone.dial(house.uri)
        async with house.incoming() as (agent, notice):
            await agent.send("ringing")
            await call.progressed()
            await trio.sleep(2.5)
            await agent.send("accept", option={"tts": {"provider": "scripted"}})
            await call.answered()
            await agent.send("tts", text="good morning", endOfStream=True)
            await agent.until("trackEnd")
            await trio.sleep(1)
            call.hang_up()
            await agent.ended()
        await house.settle()
        assert house.server.stack is not None
        trace = house.server.stack.traced(str(notice["dialogId"]))
        assert trace is not None
        return trace


def log_of_a_call() -> tuple[Logbook, Trace]:
    """Every line of an ordinary call, and its SIP trace."""
    with kept_log() as book:
        trace = run_virtual(ordinary_call, seed=SEED)
    return book, trace


def examples() -> dict[str, str]:
    """The page's examples by name."""
    book, trace = log_of_a_call()
    call = next(str(vars(record)["call"]) for record in book.records if record.name == "rustpbx.session.call")
    book.records = [
        record
        for record in book.records
        if (vars(record).get("call") == call and record.name != logs.SIP_TRACE) or record.name == "rustpbx.access"
    ]
    with in_utc():
        bye = [line for line in book.lines() if "09:30:04" in line and " sip." in line]
        return {
            "story": "\n".join(book.lines(level=logging.INFO)),
            "details": "\n".join(bye),
            "trace": trace_text(trace, _time_of_day).split("\n---")[0].rstrip(),
            "json": next(line for line in book.lines("json") if '"trigger": "ACCEPT"' in line),
        }


def _time_of_day(now: float) -> str:
    return (BEGIN + timedelta(seconds=now)).isoformat(timespec="milliseconds")[11:23]


@contextmanager
def in_utc() -> Iterator[None]:
    """Local time is UTC for the length of a block."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
        time.tzset()


def filled_page(text: str) -> str:
    """The page with its examples replaced: what stands between `<!-- name -->` and the next closing fence."""
    for name, example in examples().items():
        pattern = rf"<!-- {name} -->\n```\w*\n.*?\n```"
        begin, end = re.split(pattern, text, maxsplit=1, flags=re.DOTALL)
        text = f"{begin}<!-- {name} -->\n```{'json' if name == 'json' else ''}\n{example}\n```{end}"
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the page's examples anew")
    if parser.parse_args().write:
        PAGE.write_text(filled_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        for name, example in examples().items():
            sys.stdout.write(f"== {name}\n{example}\n")
