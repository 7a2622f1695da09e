"""Connections to speech services that stand already when the next text comes.

To connect costs a round trip or three (TCP, TLS, the upgrade) that the caller would hear as silence. A service that
wants a connection for each text gets the next one while this text is spoken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

import attrs
import trio

from rustpbx.errors import SpeechError
from rustpbx.journal import Journal
from rustpbx.outbound import Reach
from rustpbx.speech.socket import Headers, ServiceSocket, open_socket

KEPT = 20.0
"""Seconds that a spare connection waits for its text: shorter than services wait, longer than most turns."""
MOST = 500
"""Spare connections at most; beyond it there are none."""

log = Journal(__name__)


@attrs.frozen
class Way:
    """Where a connection leads, and as whom."""

    reach: Reach = attrs.field(eq=id)
    url: str
    service: str
    headers: Headers = attrs.field(default=(), converter=tuple)


@attrs.define(eq=False)
class _Spare:
    """A connection held by a task of its own: `over` ends it in peace, `scope` at once."""

    socket: ServiceSocket | None = None
    over: trio.Event = attrs.field(factory=trio.Event)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def usable(self) -> bool:
        """Whether it stands, as far as can be seen from here."""
        return self.socket is not None and self.socket.open


class Spares:
    """The spare connections of a server, one for each `Way` that was gone lately. There are none unless it is `run`."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._waiting: dict[Hashable, _Spare] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the connections until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    @asynccontextmanager
    async def open(self, way: Way, *, fresh: bool = False) -> AsyncIterator[ServiceSocket]:
        """A connection for the length of a block: one that waited, else (or if it is to be `fresh`) a new one.

        `socket.waited` tells which. Then one for the next time is made. Raises and ends as `open_socket` does.
        """
        spare = None if fresh else self._waiting.pop(way, None)
        if spare is not None and not spare.usable:
            spare.scope.cancel()
            spare = None
        if spare is None or spare.socket is None:
            async with open_socket(way.reach, way.url, way.service, way.headers) as socket:
                self._prepare(way)
                yield socket
            return
        self._prepare(way)
        try:
            yield spare.socket
            spare.over.set()
        except BaseException:
            spare.scope.cancel()
            raise

    def _prepare(self, way: Way) -> None:
        """Have one for the next time."""
        if self._nursery is not None and way not in self._waiting and len(self._waiting) < MOST:
            spare = self._waiting[way] = _Spare()
            self._nursery.start_soon(self._hold, way, spare)

    async def _hold(self, way: Way, spare: _Spare) -> None:
        try:
            with spare.scope:
                async with open_socket(way.reach, way.url, way.service, way.headers) as socket:
                    socket.waited = True
                    spare.socket = socket
                    with trio.move_on_after(KEPT):
                        await spare.over.wait()
                    if self._forget(way, spare):
                        return
                    await spare.over.wait()
        except SpeechError as problem:
            log.debug("no spare connection to %s: %s", way.service, problem)
        except Exception:  # all calls hang on this nursery
            log.exception("a spare connection to %s failed", way.service)
        finally:
            self._forget(way, spare)

    def _forget(self, way: Way, spare: _Spare) -> bool:
        """Whether it still waited: nobody gets it any more."""
        waited = self._waiting.get(way) is spare
        if waited:
            del self._waiting[way]
        return waited
