"""A scripted registry: what the control side sees of sessions, with everything it says written down."""

from __future__ import annotations

import attrs
import trio

from rustpbx.control.sessions import Attachment, Reader
from rustpbx.errors import OverloadedError
from rustpbx.session.commands import Command
from rustpbx.session.events import Event, Ping
from rustpbx.session.params import (
    Asking,
    CallSummary,
    Health,
    NoSuchSessionError,
    SessionExistsError,
    SessionParams,
)
from rustpbx.session.shell.chronicle import Chronicle
from rustpbx.sip.trace import Trace


@attrs.frozen
class Said:
    """One call of an attachment's method: `what` is its name, `value` its argument."""

    what: str
    value: object = None


class FakeAttachment:
    """Writes down what the socket says (`heard`), sends what the test says (`send`, `end`).

    With `poison` set, the next command raises, as a bug in a session would.
    """

    def __init__(self, params: SessionParams, session_id: str) -> None:
        self.params = params
        self.session_id = session_id
        self.log: list[Said] = []
        self.poison = False
        self.first: int | None = None
        self.up = False
        self.gone = trio.Event()
        self._events, self.events = trio.open_memory_channel[Event](1000)
        self._said, self._heard = trio.open_memory_channel[Said](1000)

    # what the test does

    def send(self, event: Event) -> None:
        """Let the session emit an event."""
        self._events.send_nowait(event)

    def end(self) -> None:
        """Let the session have no more events."""
        self._events.close()

    async def heard(self) -> Said:
        """The next thing that the socket says, pings aside."""
        return await self._heard.receive()

    # what the socket does

    def upgraded(self) -> None:
        """Note that the socket is up."""
        self.up = True

    def command(self, command: Command) -> None:
        """Note a command."""
        if self.poison:
            raise RuntimeError("a bug in the session")
        self._note(Said("command", command))

    def bad_command(self, problem: str) -> None:
        """Note a text that was none."""
        self._note(Said("bad_command", problem))

    def audio(self, data: bytes) -> bool:
        """Note a binary message, and have no use for it if it is empty."""
        self._note(Said("audio", data))
        return bool(data)

    def ping(self, payload: str) -> None:
        """Emit the event, as a session does."""
        self.log.append(Said("ping", payload))
        self.send(Ping(timestamp=0, payload=payload))

    def lost(self, cause: str, *, dropped: bool = False) -> None:  # noqa: ARG002
        """Note the end."""
        self.gone.set()
        self._note(Said("lost", cause))

    def release(self) -> None:
        """Note a failed upgrade."""
        self.gone.set()
        self._note(Said("release"))

    def _note(self, said: Said) -> None:
        self.log.append(said)
        self._said.send_nowait(said)


class FakeRegistry:
    """Reserves ids, refuses those that are taken, and lists what it was told to list."""

    def __init__(self) -> None:
        self.attachments: dict[str, FakeAttachment] = {}
        self.calls: list[CallSummary] = []
        self.chronicles: dict[str, Chronicle] = {}
        self.traces: dict[str, Trace] = {}
        self.killed: list[str] = []
        self.full = False
        self.report = Health(started_at=1761807600000, version="x.y.z")
        self._opened, self._waiting = trio.open_memory_channel[FakeAttachment](100)

    async def attached(self) -> FakeAttachment:
        """The next attachment that was reserved."""
        return await self._waiting.receive()

    def reserve(self, params: SessionParams) -> Attachment:
        """As the real one."""
        if self.full:
            raise OverloadedError("no more calls")
        session_id = params.session_id or f"s.{len(self.attachments)}"
        taken = self.attachments.get(session_id)
        if taken is not None and not taken.gone.is_set():
            raise SessionExistsError(session_id)
        attachment = self.attachments[session_id] = FakeAttachment(params, session_id)
        self._opened.send_nowait(attachment)
        return attachment

    def command(self, session_id: str, command: Command, asking: Asking) -> None:
        """As its agent's own."""
        if session_id not in self.attachments or not asking.admin:
            raise NoSuchSessionError(session_id)
        self.attachments[session_id].command(command)

    def read(self, session_id: str, asking: Asking, after: int = 0) -> Reader:  # noqa: ARG002 - nothing is kept here
        """A reader of what the test tells the chronicle."""
        if session_id not in self.chronicles:
            raise NoSuchSessionError(session_id)
        return self.chronicles[session_id].read(after)

    def summaries(self) -> list[CallSummary]:
        """What the test put there."""
        return self.calls

    def kill(self, session_id: str) -> bool:
        """Note it."""
        self.killed.append(session_id)
        return session_id in self.attachments

    def trace(self, session_id: str) -> Trace | None:
        """What the test put there."""
        return self.traces.get(session_id)

    def health(self) -> Health:
        """What the test put there."""
        return self.report
