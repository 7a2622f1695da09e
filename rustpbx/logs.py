"""Logging for people who run the server: lines for the console or JSON objects, to standard output or a file.

Only the command line calls this; a program that embeds the server sets up logging itself.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import get_args

from rustpbx.errors import ConfigError
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


class _ConsoleFormatter(logging.Formatter):
    """`12:01:02.345 info  sip.stack: text`; the package's own name is left out."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone()
        level = _level_name(record.levelno)
        name = record.name.removeprefix("rustpbx.")
        return f"{time:%H:%M:%S}.{time.microsecond // 1000:03d} {level:5} {name}: {_text(self, record)}"


class _JsonFormatter(logging.Formatter):
    """One object a line: `time` (RFC 3339, UTC), `level`, `logger`, `message`, and `error` with the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": _level_name(record.levelno),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def _text(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if not record.exc_info:
        return record.getMessage()
    return f"{record.getMessage()}\n{formatter.formatException(record.exc_info)}"


def _level_name(number: int) -> LogLevel:
    return next((level for level in get_args(LogLevel) if number <= _LEVELS[level]), "error")


def formatter(kind: LogFormat) -> logging.Formatter:
    """The formatter for one of the two formats."""
    return _JsonFormatter() if kind == "json" else _ConsoleFormatter()


def set_up(level: LogLevel, kind: LogFormat = "console", file: str | None = None) -> None:
    """Send everything at or above `level` to `file` (appended) or standard output.

    Replaces whatever was set up before. Raises `ConfigError` if the file cannot be opened.
    """
    try:
        handler: logging.Handler = (
            logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stdout)
        )
    except OSError as error:
        raise ConfigError("log_file", f"cannot open {file}: {error.strerror}") from error
    handler.setFormatter(formatter(kind))
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    logging.addLevelName(TRACE, "TRACE")
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(_LEVELS[level], logging.WARNING))
