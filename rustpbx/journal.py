"""What the parts of the server tell of themselves: loggers that cannot harm who uses them.

It is `logging` underneath. A record about a call has `call`, its id; one about a step of a state machine also
`machine`, `from_state`, `trigger`, `to_state` and `cause`, all texts, for any handler to format. Nothing is set up
here: `rustpbx.logs` does that for the command line, and a program that embeds the server as it likes.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Mapping

import attrs

WINDOW = 10.0
"""Seconds in which equal warnings are counted."""
FEW = 5
"""So many equal warnings in a window are told one by one; of more, the 8th, 16th, 32nd ... with its number."""
KINDS = 1000
"""Kinds of warning that are counted at one time."""


@attrs.define
class _Count:
    since: float
    seen: int = 0


class Journal:
    """One logger. `call` is the id of the call that the line is about.

    A handler that raises is reported on standard error and otherwise ignored: no call ends because of a log line.
    Warnings and errors of one kind (one `text`) are told a few times and then counted.
    """

    def __init__(self, name: str) -> None:
        self.logger = logging.getLogger(name)
        self._counts: dict[str, _Count] = {}
        self._failures = 0

    def wants(self, level: int) -> bool:
        """Whether anybody listens at this level; guards what is costly to put into words."""
        return self.logger.isEnabledFor(level)

    def debug(self, text: str, *args: object, call: str = "") -> None:
        """Tell a detail."""
        self.tell(logging.DEBUG, text, args, call=call)

    def info(self, text: str, *args: object, call: str = "") -> None:
        """Tell what people want to know."""
        self.tell(logging.INFO, text, args, call=call)

    def warning(self, text: str, *args: object, call: str = "") -> None:
        """Tell what somebody should look at."""
        self.tell(logging.WARNING, text, args, call=call)

    def error(self, text: str, *args: object, call: str = "", problem: BaseException | None = None) -> None:
        """Tell what went wrong, with the traceback of `problem`."""
        self.tell(logging.ERROR, text, args, call=call, problem=problem)

    def exception(self, text: str, *args: object, call: str = "") -> None:
        """Tell of the exception that is being handled, with its traceback."""
        self.tell(logging.ERROR, text, args, call=call, problem=sys.exc_info()[1])

    def tell(
        self,
        level: int,
        text: str,
        args: tuple[object, ...] = (),
        *,
        call: str = "",
        fields: Mapping[str, str] | None = None,
        problem: BaseException | None = None,
        depth: int = 3,
    ) -> None:
        """Log one line; `fields` become attributes of the record, `depth` counts the frames up to who tells."""
        if not self.logger.isEnabledFor(level):
            return
        if level >= logging.WARNING:
            number = self._count(text)
            if number > FEW and number & (number - 1):
                return
            if number > FEW:
                text, args = f"{text} (number %d of its kind in {WINDOW:g} s)", (*args, number)
        if call:
            text, args = f"call %s: {text}", (call, *args)
        try:
            self.logger.log(
                level, text, *args, extra={"call": call, **(fields or {})}, exc_info=problem, stacklevel=depth
            )
        except Exception:  # noqa: BLE001 - the handler is the host's, the call is not to blame
            self._report_failure()

    def _count(self, kind: str) -> int:
        now = time.monotonic()
        count = self._counts.get(kind)
        if count is None or now - count.since >= WINDOW:
            if len(self._counts) >= KINDS:
                self._counts.clear()
            count = self._counts[kind] = _Count(now)
        count.seen += 1
        return count.seen

    def _report_failure(self) -> None:
        self._failures += 1
        if self._failures & (self._failures - 1) == 0 and sys.stderr is not None:
            traceback.print_exc(file=sys.stderr)
