"""What the HTTP side needs of the sessions behind it; the session's registry fits these."""

from __future__ import annotations

from typing import Protocol

import trio

from rustpbx.session.commands import Command
from rustpbx.session.events import Event
from rustpbx.session.params import Asking, CallSummary, Health, SessionParams
from rustpbx.sip.trace import Trace


class Attachment(Protocol):
    """One agent's hold on one session, from the upgrade until the socket is gone. No method blocks."""

    @property
    def session_id(self) -> str:
        """The id, ours if the agent named none."""
        ...

    @property
    def events(self) -> trio.MemoryReceiveChannel[Event | bytes]:
        """What to send, in order; bytes are audio. It ends after the last event; then the socket is closed normally."""
        ...

    def upgraded(self) -> None:
        """The socket is up."""
        ...

    def command(self, command: Command) -> None:
        """The agent said this."""
        ...

    def audio(self, data: bytes) -> bool:
        """The agent sent this binary message; whether the session has a use for it."""
        ...

    def bad_command(self, problem: str) -> None:
        """The agent said something that is no command; `problem` is fit for an `error` event."""
        ...

    def ping(self, payload: str) -> None:
        """A ping control frame with this payload goes out; the event is the session's."""
        ...

    @property
    def first(self) -> int | None:
        """The number of the first event, where events are sent with their numbers (`seq`)."""
        ...

    def lost(self, cause: str, *, dropped: bool = False) -> None:
        """The socket is gone: closed by the agent, or `dropped` without a word. Idempotent."""
        ...

    def release(self) -> None:
        """The upgrade failed before the agent was there: the id is free again."""
        ...


class Reader(Attachment, Protocol):
    """One who reads a session's events along, and steers nothing."""

    def number(self) -> int:
        """The number of the event that was received just now; counted from 1 in each session."""
        ...


class Registry(Protocol):
    """All sessions of the server."""

    def command(self, session_id: str, command: Command, asking: Asking) -> None:
        """Hand a session a command from outside its socket. Raises `NoSuchSessionError`."""
        ...

    def read(self, session_id: str, asking: Asking, after: int = 0) -> Reader:
        """Read a session's events, those that are kept from behind number `after` on.

        Raises `NoSuchSessionError`, `OverloadedError`.
        """
        ...

    def reserve(self, params: SessionParams) -> Attachment:
        """Take an id for a socket about to be upgraded. Raises `SessionExistsError`, `OverloadedError`."""
        ...

    def summaries(self) -> list[CallSummary]:
        """The running sessions."""
        ...

    def kill(self, session_id: str) -> bool:
        """End a session as a dropped socket would; False if there is none of that id."""
        ...

    def trace(self, session_id: str) -> Trace | None:
        """The SIP messages of a call that runs, or ran not long ago; None for an id that is not known."""
        ...

    def health(self) -> Health:
        """The numbers of `/health`."""
        ...
