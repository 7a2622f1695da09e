"""Logging for people who run the server: lines for the console or JSON objects, to standard output or a file.

Only the command line calls this; a program that embeds the server sets up logging itself.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO, get_args

from rustpbx.errors import ConfigError
from rustpbx.masking import mask, visible
from rustpbx.settings import LogFormat, LogLevel

TRACE = 5
_LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_CHATTY = ("httpx", "httpcore", "trio-websocket", "hypothesis", "libav")
"""Libraries that log each step of each request at our own levels."""

SIP_TRACE = "rustpbx.sip.trace"
"""The logger of whole SIP messages: silent unless asked for by name, whatever the level of the others."""

MOST_WAITING = 10_000
"""Lines that may wait for a slow disk or reader; further ones are counted and lost."""
PATIENCE = 2.0
"""Seconds that the end of the program waits for the last lines to be written."""

_STEP_PARTS = (("machine", "machine"), ("from_state", "from"), ("trigger", "trigger"), ("to_state", "to"))
"""Attributes of a record and their names in JSON; `cause` comes behind them."""

_COLOURS = {"warn": "\x1b[33m", "error": "\x1b[31m", "debug": "\x1b[2m", "trace": "\x1b[2m"}
_PLAIN = "\x1b[0m"


class _ConsoleFormatter(logging.Formatter):
    """`12:01:02.345 info  session.call           text  [call]`; the package's own name is left out."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colours = _COLOURS if colour else {}

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone()
        level = _level_name(record.levelno)
        name = record.name.removeprefix("rustpbx.")
        begin = f"{time:%H:%M:%S}.{time.microsecond // 1000:03d} {level:5} {name:<22} "
        text, call = visible(mask(record.getMessage())), getattr(record, "call", "")
        if call:  # at the end, where its length disturbs nobody
            text = f"{text.removeprefix(f'call {call}: ')}  [{call}]"
        if record.exc_info:
            text += "\n" + visible(mask(self.formatException(record.exc_info)))
        line = begin + text.replace("\n", "\n  ")
        colour = self._colours.get(level)
        return f"{colour}{line}{_PLAIN}" if colour else line


class _JsonFormatter(logging.Formatter):
    """One object a line: `ts` (RFC 3339, UTC), `level`, `logger`, what is known of `call` and step, `message`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = vars(record)
        entry = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": _level_name(record.levelno),
            "logger": record.name,
        }
        if fields.get("call"):
            entry["call"] = str(fields["call"])
        entry |= {name: str(fields[part]) for part, name in _STEP_PARTS if part in fields}
        if fields.get("cause"):
            entry["cause"] = mask(str(fields["cause"]))
        entry["message"] = mask(record.getMessage())
        if record.exc_info:
            entry["exception"] = mask(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def _level_name(number: int) -> LogLevel:
    return next((level for level in get_args(LogLevel) if number <= _LEVELS[level]), "error")


def formatter(kind: LogFormat, *, colour: bool = False) -> logging.Formatter:
    """The formatter for one of the two formats. Both mask credentials; `colour` is for a console."""
    return _JsonFormatter() if kind == "json" else _ConsoleFormatter(colour=colour)


class Outlet(logging.Handler):
    """Writes lines to a text stream from a thread of its own: a full disk or a stopped reader never halts the server.

    At most `MOST_WAITING` lines wait; how many were lost is said as soon as there is room.
    """

    def __init__(
        self, stream: TextIO, kind: LogFormat = "console", *, colour: bool = False, owned: bool = False
    ) -> None:
        super().__init__()
        self.lost = 0
        self._stream = stream
        self._owned = owned
        self._lines: queue.Queue[str | threading.Event | None] = queue.Queue(MOST_WAITING)
        self.setFormatter(formatter(kind, colour=colour))
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over; formatted here, for what it tells of may change."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a record that cannot be put into words
            self.handleError(record)
            return
        self._hand_over(line)

    def _hand_over(self, line: str) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.lost += 1

    def flush(self) -> None:
        """Wait until what was logged so far is written, at most `PATIENCE` seconds."""
        written = threading.Event()
        with suppress(queue.Full):
            self._lines.put(written, timeout=PATIENCE)
            written.wait(PATIENCE)

    def close(self) -> None:
        """Write what waits, with the patience of `flush`, and stop."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=PATIENCE)
        self._writer.join(PATIENCE)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if isinstance(line, threading.Event):
                with suppress(OSError, ValueError):
                    self._stream.flush()
                line.set()
                continue
            try:
                self._stream.write(f"{line}\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):  # a full disk, a closed pipe: counted, and tried again with the next line
                self.lost += 1
            else:
                self._confess()
        with suppress(OSError, ValueError):
            self._stream.flush()
            if self._owned:
                self._stream.close()

    def _confess(self) -> None:
        if not self.lost or self._lines.full():
            return
        lost, self.lost = self.lost, 0
        text = f"{lost} log lines were lost: they came faster than they could be written"
        record = logging.LogRecord("rustpbx.logs", logging.WARNING, __file__, 0, text, (), None)
        with suppress(OSError, ValueError):
            self._stream.write(f"{self.format(record)}\n")


def set_up(
    level: LogLevel,
    kind: LogFormat = "console",
    file: str | None = None,
    levels: Iterable[tuple[str, LogLevel]] = (),
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send everything at or above `level` to `file` (appended) or standard output.

    `levels` are those of single loggers and what is below them. Replaces whatever was set up before. Raises
    `ConfigError` if the file cannot be opened.
    """
    try:
        stream = open(file, "a", encoding="utf-8") if file else sys.stdout  # noqa: PTH123, SIM115 - the outlet closes it
    except OSError as error:
        raise ConfigError("log_file", f"cannot open {file}: {error.strerror}") from error
    colour = not file and stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    outlet = Outlet(stream, kind, colour=colour, owned=file is not None)
    logging.basicConfig(level=_LEVELS[level], handlers=[outlet], force=True)
    logging.addLevelName(TRACE, "TRACE")
    quiet = {name: max(_LEVELS[level], logging.WARNING) for name in _CHATTY} | {SIP_TRACE: logging.INFO}
    for name, number in {**quiet, **{name: _LEVELS[wanted] for name, wanted in levels}}.items():
        logging.getLogger(name).setLevel(number)
