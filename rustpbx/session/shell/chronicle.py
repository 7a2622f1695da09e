"""What a call has told so far, numbered, and whoever else reads along: observers, and programs that steer by HTTP."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs
import trio

from rustpbx.session.commands import Command
from rustpbx.session.events import ErrorEvent, Event, Ping

KEPT = 1000
"""Events that are kept for those who come later, the oldest dropped."""
WAITING = 2000
"""Events that may wait for a reader; one that is further behind is left behind."""
MOST_READERS = 20
"""Of one call."""


@attrs.frozen
class Told:
    """An event and its number, counted from 1."""

    seq: int
    event: Event


class Chronicle:
    """The events of one call, pings left out. `wall` is the time in epoch ms."""

    def __init__(self, session_id: str, wall: Callable[[], int]) -> None:
        self.session_id = session_id
        self.wall = wall
        self._told: deque[Told] = deque(maxlen=KEPT)
        self._count = 0
        self._readers: set[Reader] = set()

    @property
    def count(self) -> int:
        """How many events there were."""
        return self._count

    def since(self, number: int) -> list[Told]:
        """Those that are kept from behind that number on."""
        return [told for told in self._told if told.seq > number]

    @property
    def full(self) -> bool:
        """Whether it has as many readers as it takes."""
        return len(self._readers) >= MOST_READERS

    def tell(self, event: Event) -> None:
        """One more."""
        if isinstance(event, Ping):
            return
        self._count += 1
        told = Told(self._count, event)
        self._told.append(told)
        for reader in list(self._readers):
            reader.take(told)

    def end(self) -> None:
        """The last event was told."""
        for reader in list(self._readers):
            reader.lost("the call has ended")

    def read(self, after: int = 0) -> Reader:
        """A reader who gets what is kept from behind number `after` on, then what comes."""
        reader = Reader(self, self._readers.discard)
        self._readers.add(reader)
        for told in self.since(after):
            reader.take(told)
        return reader


class Reader:
    """One who reads along. To a WebSocket it is an attachment that cannot say anything (`rustpbx.control.sessions`)."""

    def __init__(self, chronicle: Chronicle, leave: Callable[[Reader], None]) -> None:
        self.session_id = chronicle.session_id
        self.first: int | None = None
        self._wall = chronicle.wall
        self._leave = leave
        self._send, self.events = trio.open_memory_channel[Event | bytes](WAITING)
        self._numbers: deque[int] = deque(maxlen=WAITING)

    def take(self, told: Told) -> None:
        """For the chronicle: queue an event."""
        self._numbers.append(told.seq)
        self._queue(told.event)

    def number(self) -> int:
        """The number of the event that was received last but not asked for yet: in the order of `events`."""
        return self._numbers.popleft()

    # -- as an attachment

    def upgraded(self) -> None:
        """The socket is up: nothing changes for the call."""

    def command(self, command: Command) -> None:
        """Refuse it, to this reader alone."""
        self.bad_command(f"{command.name} is not possible: this socket only observes")

    def audio(self, _: bytes) -> bool:
        """Of no use."""
        return False

    def bad_command(self, problem: str) -> None:
        """Tell this reader alone."""
        self._queue(ErrorEvent(track_id=self.session_id, timestamp=self._wall(), sender="command", error=problem))

    def ping(self, payload: str) -> None:
        """Its own socket was pinged."""
        self._queue(Ping(timestamp=self._wall(), payload=payload))

    def lost(self, _: str, *, dropped: bool = False) -> None:  # noqa: ARG002 - the same to it
        """It reads no more, or there is no more to read. Idempotent."""
        self._leave(self)
        self._send.close()

    def release(self) -> None:
        """The upgrade failed."""
        self.lost("upgrade failed")

    def _queue(self, event: Event) -> None:
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.lost(f"{WAITING} events unread")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
