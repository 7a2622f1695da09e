"""An agent written as test code: a WebSocket to the server that keeps every event, with words to say and to hear.

    await agent.answers()
    await agent.hears("hello")
    await agent.says("good morning")
    await agent.hangs_up()

Times are virtual seconds. What cannot be, or does not happen in time, raises `ScriptError`, which says what did.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
import trio_websocket

from rustpbx.core import Address
from rustpbx.shell.network import Network
from rustpbx.testing.script import PATIENCE, ScriptError, find, joined, quoted
from rustpbx.testing.speech import SCRIPTED
from rustpbx.testing.webhook import Webhook

EVENT_PATIENCE = 180.0
"""Virtual seconds that `until` waits: longer than a phone rings."""

OPTION: Mapping[str, object] = {
    "asr": {"provider": SCRIPTED},
    "tts": {"provider": SCRIPTED},
    "vad": {"type": "webrtc"},
}
"""How an agent takes part in a call unless it says otherwise: it hears, speaks and notices speech."""

Reach = Callable[["Agent", str], Awaitable[None]]


class Agent:
    """One socket, one call. `events` are all JSON events so far, `metrics` apart and pings left out.

    `closed` is the close code once it is.

    `audio` are all binary messages, one behind the other: what a call on `/call` plays.

    `reach` connects it, `webhook` is where it hears of calls: an agent without them was given its socket.
    """

    def __init__(
        self,
        reach: Reach | None = None,
        webhook: Callable[[], Webhook] | None = None,
        phone: Callable[[], str] | None = None,
    ) -> None:
        self._reach = reach
        self._webhook = webhook
        self._phone = phone
        self.forget()

    def forget(self) -> None:
        """Be a new agent, without a call."""
        self.events: list[dict[str, Any]] = []
        self.metrics: list[dict[str, Any]] = []
        self.audio = bytearray()
        self.closed: int | None = None
        self._socket: trio_websocket.WebSocketConnection | None = None
        self._news = trio.lowlevel.ParkingLot()
        self._found = 0
        self._plays = 0

    def __repr__(self) -> str:
        return f"<agent: {self.tells()}>"

    def tells(self) -> str:
        """What it heard and which events it got, in a line."""
        if self._socket is None:
            return "no call"
        shown = [f"error ({e['sender']}: {e['error']})" if e["event"] == "error" else e["event"] for e in self.events]
        return f"heard {quoted(self.heard)}, events: {', '.join(shown) or 'none'}"

    # -- the socket ---------------------------------------------------------------------------------------------

    @property
    def socket(self) -> trio_websocket.WebSocketConnection:
        """The WebSocket. Raises `ScriptError` before there is one."""
        if self._socket is None:
            raise ScriptError("the agent is not connected: agent.answers() or agent.dials() first")
        return self._socket

    async def connects(self, path: str = "/call/sip") -> None:
        """Open the socket to the server. Raises `trio_websocket.HandshakeError` if the server refuses it."""
        if self._reach is None or self._socket is not None:
            raise ScriptError("the agent is connected already: one agent has one call")
        await self._reach(self, path)

    def attach(self, socket: trio_websocket.WebSocketConnection) -> None:
        """Use this socket; somebody must `read`."""
        self._socket = socket

    async def read(self) -> None:
        """Collect until the server closes."""
        while True:
            try:
                message = await self.socket.get_message()
            except trio_websocket.ConnectionClosed as closed:
                self.closed = closed.reason.code if closed.reason else 1006
                break
            if isinstance(message, bytes):
                self.audio += message
                continue
            event = json.loads(message)
            if event["event"] != "ping":
                (self.metrics if event["event"] == "metrics" else self.events).append(event)
                self._news.unpark_all()
        self._news.unpark_all()

    async def send(self, command: str, **fields: object) -> None:
        """Send one command."""
        await self.send_text(json.dumps({"command": command, **fields}))

    async def send_text(self, text: str) -> None:
        """Send whatever it is."""
        try:
            await self.socket.send_message(text)
        except trio_websocket.ConnectionClosed as closed:
            raise ScriptError(f"the agent cannot send {text}: {closed.reason}; events: {self.names}") from None

    async def send_audio(self, data: bytes) -> None:
        """Send audio as one binary message: what is heard on `/call`."""
        await self.socket.send_message(data)

    async def drop(self) -> None:
        """Vanish without a close frame, as a crashed program does."""
        await trio.aclose_forcefully(self.socket._stream)  # noqa: SLF001 - no public way to break off

    # -- the call -----------------------------------------------------------------------------------------------

    async def answers(self, option: Mapping[str, object] = OPTION, within: float = PATIENCE) -> dict[str, Any]:
        """Wait for the webhook's next call, connect, accept it with `option`; the `answer` event."""
        await self.is_called(within)
        await self.send("accept", option=option)
        return await self.until("answer", within=within)

    async def is_called(self, within: float = PATIENCE) -> dict[str, Any]:
        """Wait for the webhook's next call and connect to it; what the webhook was told."""
        if self._webhook is None:
            raise ScriptError("the agent has its call already")
        with trio.move_on_after(within):
            notice = await self._webhook().calls.receive()
            await self.connects(f"/call/sip?id={notice['dialogId']}")
            return notice
        raise ScriptError(f"no call was announced to the agent within {within:g} s")

    async def rejects(self, code: int = 603, reason: str = "", within: float = PATIENCE) -> None:
        """Refuse the webhook's next call."""
        await self.is_called(within)
        await self.send("reject", code=code, reason=reason)

    async def dials(self, uri: str | None = None, option: Mapping[str, object] = OPTION) -> None:
        """Call `uri`, or the phone, from a socket of its own; `until("answer")` waits for the answer."""
        callee = self._phone() if uri is None and self._phone is not None else uri
        if callee is None:
            raise ScriptError("the agent knows no phone to dial: agent.dials(uri)")
        await self.connects()
        await self.send("invite", option={"callee": callee, "caller": "sip:agent@rustpbx.test", **option})

    async def hangs_up(self, within: float = PATIENCE) -> dict[str, Any]:
        """End the call and wait for its end; the `hangup` event."""
        await self.send("hangup")
        return await self.is_hung_up(within)

    async def is_hung_up(self, within: float = PATIENCE) -> dict[str, Any]:
        """Wait for the end of the call, whoever ends it; the `hangup` event."""
        hangup = await self.until("hangup", within=within)
        await self.ended()
        return hangup

    # -- the words ----------------------------------------------------------------------------------------------

    @property
    def heard(self) -> str:
        """All words so far, from the `asrFinal` events."""
        return joined(event["text"] for event in self.events if event["event"] == "asrFinal")

    async def hears(self, words: str, within: float = PATIENCE) -> str:
        """Wait until `words` were transcribed after those waited for before; everything transcribed so far."""
        self.socket  # noqa: B018 - says so if there is none
        await self._wait(lambda: self._find(words) is not None or self.closed is not None, within)
        found = self._find(words)
        if found is None:
            when = f"within {within:g} s" if self.closed is None else "before the call ended"
            delta = next((event["text"] for event in reversed(self.events) if event["event"] == "asrDelta"), "")
            unfinished = f', and began to hear "{delta}"' if delta and find(self.heard, delta) is None else ""
            problems = "".join(f"; error of {e['sender']}: {e['error']}" for e in self.events if e["event"] == "error")
            heard = quoted(self.heard)
            raise ScriptError(f"the agent did not hear {quoted(words)} {when}; it heard {heard}{unfinished}{problems}")
        self._found = found
        return self.heard

    def _find(self, words: str) -> int | None:
        return find(self.heard, words, self._found)

    async def says(self, text: str, within: float = PATIENCE, **fields: object) -> dict[str, Any]:
        """Speak and wait for the end of it; the `trackEnd` event. `fields` are those of the `tts` command."""
        play_id = await self.starts_saying(text, within, endOfStream=True, **fields)
        return await self._until(
            f"the end of {quoted(text)}", lambda e: (e["event"], e.get("playId")) == ("trackEnd", play_id), within
        )

    async def starts_saying(self, text: str, within: float = PATIENCE, **fields: object) -> str:
        """Speak, and return when it begins; the playback's id."""
        await self.until("answer", within=within)
        self._plays += 1
        play_id = str(fields.pop("playId", f"says-{self._plays}"))
        await self.send("tts", text=text, playId=play_id, **fields)
        await self._until(
            f"the begin of {quoted(text)}", lambda e: (e["event"], e.get("playId")) == ("trackStart", play_id), within
        )
        return play_id

    async def interrupts(self, within: float = PATIENCE, *, graceful: bool = False) -> dict[str, Any]:
        """Cut what plays; the `interruption` event."""
        count = self.names.count("interruption") + 1
        await self.send("interrupt", graceful=graceful)
        return await self.until("interruption", count, within=within)

    # -- the events ---------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The events' names, in order."""
        return [event["event"] for event in self.events]

    async def until(self, name: str, count: int = 1, within: float = EVENT_PATIENCE) -> dict[str, Any]:
        """The `count`-th event of that name, as soon as it is there."""
        what = name if count == 1 else f"{name} number {count}"
        return await self._until(what, lambda event: event["event"] == name, within, count)

    async def measures(self, key: str, count: int = 1, within: float = EVENT_PATIENCE) -> dict[str, Any]:
        """The `count`-th `metrics` event of that key, as soon as it is there."""
        return await self._until(f"metrics {key}", lambda event: event.get("key") == key, within, count)

    async def ended(self) -> list[str]:
        """Wait for the close, and return the names of all events."""
        await self._wait(lambda: self.closed is not None)
        return self.names

    async def _until(
        self, what: str, wanted: Callable[[dict[str, Any]], bool], within: float, count: int = 1
    ) -> dict[str, Any]:
        def having() -> dict[str, Any] | None:
            found = [event for event in (*self.events, *self.metrics) if wanted(event)]
            return found[count - 1] if len(found) >= count else None

        self.socket  # noqa: B018 - says so if there is none
        await self._wait(lambda: having() is not None or self.closed is not None, within)
        event = having()
        if event is None:
            when = f"within {within:g} s" if self.closed is None else f"before the socket closed with {self.closed}"
            raise ScriptError(f"the agent did not get {what} {when}; events: {', '.join(self.names) or 'none'}")
        return event

    async def _wait(self, condition: Callable[[], bool], within: float = float("inf")) -> None:
        with trio.move_on_after(within):
            while not condition():
                await self._news.park()


async def open_socket(
    network: Network, server: Address, path: str, nursery: trio.Nursery
) -> trio_websocket.WebSocketConnection:
    """A WebSocket to the server over any `Network`; its tasks live in `nursery`."""
    stream = await network.connect(*server)
    return await trio_websocket.wrap_client_stream(
        nursery, cast(trio.SocketStream, stream), f"{server[0]}:{server[1]}", path
    )


@asynccontextmanager
async def connect_agent(network: Network, server: Address, path: str = "/call/sip") -> AsyncIterator[Agent]:
    """An agent with its socket to the server, for the length of a block; then it vanishes."""
    async with trio.open_nursery() as nursery:
        socket = await open_socket(network, server, path, nursery)
        agent = Agent()
        agent.attach(socket)
        nursery.start_soon(agent.read)
        try:
            yield agent
        finally:
            # Closed before the cancellation: a checkpoint after it would swallow the test's own exception.
            await trio.aclose_forcefully(socket._stream)  # noqa: SLF001 - no public way to break off
            nursery.cancel_scope.cancel()
