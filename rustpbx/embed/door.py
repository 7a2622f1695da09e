"""Where incoming calls wait for the program around the server, and what happens to those that it does not take.

A program listens from `Server.calls()` on. As long as it does, each incoming call is claimed for it, so that no
socket can take it, and waits in one bounded queue. With nobody listening, or the queue full, the webhook is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import attrs
import trio

from rustpbx.embed.call import Call
from rustpbx.journal import Journal
from rustpbx.session.options import CallType
from rustpbx.session.params import SessionExistsError, SessionParams
from rustpbx.session.shell.attachment import Attachment
from rustpbx.session.shell.services import Announcer, UnclaimedError
from rustpbx.sip.events import IncomingCall

log = Journal(__name__)

WAITING = 100
"""Calls that may wait for the program. More than that and it is not keeping up: the next one goes elsewhere."""

Reserve = Callable[[SessionParams], Attachment]


@attrs.define(eq=False)
class _Visitor:
    """A call at the door. It is `taken`, or sent away, once it is `settled`."""

    call: Call
    taken: bool = False
    settled: trio.Event = attrs.field(factory=trio.Event)


class Door:
    """The `Announcer` of a server: the program that listens comes first, then the `webhook`, if there is one."""

    def __init__(self, webhook: Announcer | None = None) -> None:
        self._webhook = webhook
        self._waiting: deque[_Visitor] = deque()
        self._takers = trio.lowlevel.ParkingLot()
        self._listeners: set[Calls] = set()
        self._reserve: Reserve | None = None

    def open(self, reserve: Reserve) -> None:
        """Calls are claimed by `reserve` (`Registry.reserve`) from now on."""
        self._reserve = reserve

    def close(self) -> None:
        """The server stops: nobody listens any more, and iterations end."""
        self._reserve = None
        for listener in list(self._listeners):
            listener.close()

    def listen(self) -> Calls:
        """Begin to take calls. Once the door is closed there are none."""
        listener = Calls(self)
        if self._reserve is None:
            listener.close()
        else:
            self._listeners.add(listener)
        return listener

    async def announce(self, call: IncomingCall, created_at: int) -> None:
        """Return once the program or the webhook has taken `call`. Raises as `Announcer` says."""
        if self._listeners and len(self._waiting) < WAITING and await self._offer(call):
            return
        if self._webhook is not None:
            await self._webhook.announce(call, created_at)
        elif self._listeners:
            raise UnclaimedError("Too many calls are waiting")
        else:
            raise UnclaimedError("No invite handler configured")

    async def _offer(self, incoming: IncomingCall) -> bool:
        """Whether the program took the call. Cancelled when the call ends first; then nothing of it stays here."""
        assert self._reserve is not None  # noqa: S101 - there are no listeners without it
        try:
            attachment = self._reserve(
                SessionParams(
                    session_id=incoming.leg, call_type=CallType.SIP, dump=False, ping_interval=0, remote="embedded"
                )
            )
        except SessionExistsError:
            return True  # an agent that knew the id has come already
        visitor = _Visitor(Call(lambda: attachment, incoming))
        self._waiting.append(visitor)
        self._takers.unpark()
        try:
            await visitor.settled.wait()
        finally:
            if not visitor.taken:
                if visitor in self._waiting:
                    self._waiting.remove(visitor)
                attachment.lost("nobody took it")
        return visitor.taken

    # -- for the listeners ------------------------------------------------------------------------------------------

    async def take(self, listener: Calls) -> Call | None:
        """The next call, None once `listener` is closed."""
        await trio.lowlevel.checkpoint()
        while listener in self._listeners:
            if self._waiting:
                visitor = self._waiting.popleft()
                visitor.taken = True
                visitor.settled.set()
                return visitor.call
            await self._takers.park()
        return None

    def forget(self, listener: Calls) -> None:
        """`listener` takes no more; calls that nobody listens for are sent away."""
        self._listeners.discard(listener)
        self._takers.unpark_all()
        if not self._listeners:
            for visitor in self._waiting:
                visitor.settled.set()
            self._waiting.clear()


class Calls:
    """The calls that come in: `async for call in server.calls()`. It ends when it is closed, or the server stops.

    Several of them share the calls. Leaving `with server.calls() as calls` closes it; so does `close`.
    """

    def __init__(self, door: Door) -> None:
        self._door = door

    def close(self) -> None:
        """Take no more calls; those that wait go to the webhook, if nobody else listens. Idempotent."""
        self._door.forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Call:
        call = await self._door.take(self)
        if call is None:
            raise StopAsyncIteration
        return call


Handler = Callable[[Call], Awaitable[object]]
"""An agent: what it does with one call. The call ends when it returns."""


async def answer_each(calls: Calls, handler: Handler) -> None:
    """Run `handler` for each call in a task of its own. One that fails is logged, and ends its call and no other."""
    async with trio.open_nursery() as nursery:
        async for call in calls:
            nursery.start_soon(_answer, call, handler)


async def _answer(call: Call, handler: Handler) -> None:
    try:
        async with call:
            await handler(call)
    except Exception:
        log.exception("its agent failed", call=call.id)
