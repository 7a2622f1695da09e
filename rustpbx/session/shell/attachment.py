"""An agent's hold on a call: commands in, events out. What the WebSocket, or an embedding program, talks to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from rustpbx.session.commands import Command
from rustpbx.session.effects import AgentAttached, AgentGone, BadCommand, Input, PingSent
from rustpbx.session.events import Event

OUTBOX = 1000
"""Events that may wait for an agent that reads slowly; more, and it counts as lost."""

AUDIO = 100
"""Audio is dropped while so many events and frames wait: 2 s of it, which nobody wants to hear that late."""


class Watcher(Protocol):
    """Sees what an agent is told at the moment it is told; its methods neither wait nor raise."""

    def told(self, event: Event) -> None:
        """`event` is about to be queued."""
        ...

    def closed(self, cause: str) -> None:
        """No event comes any more: the call is over and owns nothing, or its agent is lost, for this `cause`."""
        ...


class Attachment:
    """One agent on one call. All methods are synchronous; `events` ends after `hangup`.

    In `events`, bytes are audio for the agent; `dropped` counts frames of it that it was too slow for. `first` is the
    number of the first event in it, pings not counted, where the agent is to know them; None where not.
    """

    def __init__(
        self,
        session_id: str,
        deliver: Callable[[Input], None],
        detach: Callable[[], None],
        hear: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self.session_id = session_id
        self.dropped = 0
        self.first: int | None = None
        self._hear = hear
        self._deliver = deliver
        self._detach = detach
        self._live = True
        self.watcher: Watcher | None = None
        self._send, self.events = trio.open_memory_channel[Event | bytes](OUTBOX)

    def upgraded(self) -> None:
        """The socket is up: the agent is there."""
        self._deliver(AgentAttached())

    def command(self, command: Command) -> None:
        """Hand a command to the call; what comes of it are events."""
        if self._live:
            self._deliver(command)

    def audio(self, data: bytes) -> bool:
        """The agent sent audio; whether it is of use in this call."""
        return self._live and self._hear(data)

    def bad_command(self, problem: str) -> None:
        """The agent sent something that is no command."""
        if self._live:
            self._deliver(BadCommand(problem))

    def ping(self, payload: str) -> None:
        """The socket was pinged; the `ping` event takes its place among the others."""
        if self._live:
            self._deliver(PingSent(payload))

    def lost(self, cause: str, *, dropped: bool = False) -> None:
        """The agent is gone: it closed its socket, or that `dropped` (reset, no pong, a stalled write). Idempotent."""
        if self._live:
            self._live = False
            self._send.close()
            self._detach()
            self._deliver(AgentGone(cause, dropped))
            if self.watcher is not None:
                self.watcher.closed(cause)

    def release(self) -> None:
        """The upgrade itself failed: give the id back."""
        self.lost("upgrade failed")

    # -- for the call -----------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Queue an event; an agent whose queue is full has stopped reading and is lost."""
        if self.watcher is not None:
            self.watcher.told(event)
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.lost(f"{OUTBOX} events unread", dropped=True)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def play(self, audio: bytes) -> None:
        """Queue audio, or drop it if the agent does not keep up."""
        if not self._live or self._send.statistics().current_buffer_used >= AUDIO:
            self.dropped += 1
        else:
            self._send.send_nowait(audio)

    def call_ended(self) -> None:
        """The last event is queued."""
        self._live = False
        self._send.close()
        if self.watcher is not None:
            self.watcher.closed("")
