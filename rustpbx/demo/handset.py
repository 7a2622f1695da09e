"""The demo's side of its phone process: orders in, news out."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import attrs
import trio

from rustpbx.demo.server import stop
from rustpbx.demo.timeline import Timeline
from rustpbx.demo.trouble import DemoError, PhoneDiedError


@attrs.define
class PhoneReport:
    """What the phone told about one call. `moments` are epoch seconds, file names relative to the folder."""

    moments: dict[str, float] = attrs.field(factory=dict)
    ended_by_us: bool | None = None
    problem: str | None = None
    heard_file: str = ""
    said_file: str = ""
    greeting_samples: int = 0


class Handset:
    """Talks to `rustpbx.demo.phone`. `uri` is where the phone can be called."""

    def __init__(
        self, process: trio.Process, stdin: trio.abc.SendStream, stdout: trio.abc.ReceiveStream, timeline: Timeline
    ) -> None:
        self.uri = ""
        self._process = process
        self._stdin = stdin
        self._stdout = stdout
        self._timeline = timeline
        self._ready = trio.Event()
        self._reports: dict[str, PhoneReport] = {}
        self._done: dict[str, trio.Event] = {}
        self._call = ""

    async def ready(self) -> None:
        """Wait until the phone is bound."""
        await self._ready.wait()

    async def order(self, do: str, call: str, **fields: object) -> None:
        """Send an order about `call`."""
        self._reports[call], self._done[call], self._call = PhoneReport(), trio.Event(), call
        await self._stdin.send_all(json.dumps({"do": do, "call": call, **fields}).encode() + b"\n")

    async def report(self, call: str) -> PhoneReport:
        """Wait for the end of the call. Raises `DemoError` if the phone could not hold it."""
        await self._done[call].wait()
        report = self._reports[call]
        if report.problem is not None:
            raise DemoError(f"{call}: the phone says: {report.problem}")
        return report

    async def listen(self) -> None:
        """Read what the phone tells, until it ends. Raises `PhoneDiedError` then."""
        rest = b""
        async for chunk in self._stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(json.loads(line))
        raise PhoneDiedError(f"the phone's process ended with status {await self._process.wait()}")

    def _take(self, news: dict[str, Any]) -> None:
        what, call = news["what"], news.get("call", self._call)
        if what == "ready":
            self.uri = news["uri"]
            self._ready.set()
        elif what == "sip":
            self._timeline.add(call, "sip", _sip_line(news), news["at"], news["message"])
        elif call in self._reports:
            self._note(self._reports[call], call, what, news)

    def _note(self, report: PhoneReport, call: str, what: str, news: dict[str, Any]) -> None:
        text = None
        match what:
            case "talking":
                text = f"talks ({news['codec']})"
            case "hears" if news["first"]:
                report.moments["greeting heard"], text = news["at"], "hears the greeting"
            case "hears":
                report.moments["reply heard"], text = news["at"], "hears the answer"
            case "speaks":
                text = "speaks"
            case "spoke":
                report.moments["spoke"], text = news["at"], "has spoken"
            case "ended":
                report.ended_by_us, text = news["by_us"], f"call ended ({news['cause']})"
            case "saved":
                report.heard_file, report.said_file = news["heard"], news["said"]
                report.greeting_samples = news["greeting_samples"]
                self._done[call].set()
            case "failed":
                report.problem, text = news["problem"], f"gives up: {news['problem']}"
                self._done[call].set()
        if text is not None:
            self._timeline.add(call, "phone", text, news["at"])


def _sip_line(news: dict[str, Any]) -> str:
    first, *_ = news["message"].split("\r\n", 1)
    arrow = "phone -> server" if news["direction"] == "out" else "phone <- server"
    return f"{arrow}  {first.removeprefix('SIP/2.0 ').removesuffix(' SIP/2.0')}"


@asynccontextmanager
async def running_phone(folder: Path, timeline: Timeline) -> AsyncIterator[Handset]:
    """Start the phone's process, wait until it is bound, stop it at the end of the block."""
    command = [sys.executable, "-m", "rustpbx.demo.phone", "--folder", str(folder)]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(command, stdin=PIPE, stdout=PIPE)
        if process.stdin is None or process.stdout is None:
            raise PhoneDiedError("the phone's process has no pipes")
        handset = Handset(process, process.stdin, process.stdout, timeline)
        try:
            nursery.start_soon(handset.listen)
            await handset.ready()
            yield handset
        finally:
            nursery.cancel_scope.cancel()  # first: that it ends now is no news
            await stop(process)
