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
from datetime import UTC, datetime
from pathlib import Path

import trio

from rustpbx import logs
from rustpbx.settings import LogFormat
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
    before = logger.level
    logger.addHandler(book)
    logger.setLevel(level)
    try:
        yield book
    finally:
        logger.removeHandler(book)
        logger.setLevel(before)


async def ordinary_call() -> None:
    """A phone calls, the agent answers and speaks, the phone hangs up."""
    async with open_house(seed=SEED) as house:
        call = await house.phone.dial(house.uri)
        async with house.incoming() as (agent, _):
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


def log_of_a_call() -> Logbook:
    """Every line of an ordinary call."""
    with kept_log() as book:
        run_virtual(ordinary_call, seed=SEED)
    return book


def examples() -> dict[str, str]:
    """The page's examples by name."""
    book = log_of_a_call()
    call = next(str(vars(record)["call"]) for record in book.records if record.name == "rustpbx.session.call")
    book.records = [
        record for record in book.records if vars(record).get("call") == call or record.name == "rustpbx.access"
    ]
    with in_utc():
        bye = [line for line in book.lines() if "09:30:04" in line and " sip." in line]
        return {
            "story": "\n".join(book.lines(level=logging.INFO)),
            "details": "\n".join(bye),
            "json": next(line for line in book.lines("json") if '"trigger": "ACCEPT"' in line),
        }


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
