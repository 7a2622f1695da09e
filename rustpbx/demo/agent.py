"""The demo's agent: a WebSocket client that greets, listens, repeats what it heard, and hangs up.

It is written as a user's first agent would be: JSON in, JSON out, nothing of the server imported.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import attrs
import trio
import trio_websocket

from rustpbx.demo.timeline import Timeline

Option = Mapping[str, object]
LISTENS: Option = {"vad": {"type": "webrtc"}, "asr": {}, "tts": {}}
PATIENCE = 0.4  # seconds after the last words before the caller's turn counts as over
UNSHOWN = (
    "sdp timestamp trackId ssrc refer startTime endTime hangupTime ringingTime answerTime from to".split()  # noqa: SIM905
)
GIVE_UP = 20.0  # seconds without any words from the caller


@attrs.define
class Conversation:
    """What came of one call, as the agent saw it. Times are epoch seconds; `moments` are first occurrences."""

    greeting: str
    heard: list[str] = attrs.field(factory=list)
    reply: str = ""
    errors: list[str] = attrs.field(factory=list)
    moments: dict[str, float] = attrs.field(factory=dict)
    hangup: dict[str, Any] | None = None
    close_code: int | None = None

    @property
    def transcript(self) -> str:
        """All final texts, joined."""
        return " ".join(self.heard)


class Agent:
    """One agent for one call; `option` is how it takes part.

    `auto_hangup` lets the last playback end the call, else the agent does.
    """

    def __init__(
        self,
        http: str,
        timeline: Timeline,
        call: str,
        greeting: str,
        *,
        auto_hangup: bool,
        option: Option = LISTENS,
    ) -> None:
        self.conversation = Conversation(greeting)
        self._url = f"ws://{http}/call/sip?id="
        self._timeline = timeline
        self._call = call
        self._auto_hangup = auto_hangup
        self._option = option
        self._speaking = False
        self._reply_at = math.inf
        self._gave_up_at = math.inf

    async def accept(self, dialog_id: str) -> Conversation:
        """Claim a pending incoming call and talk until it ends."""
        return await self._talk(dialog_id, {"command": "accept", "option": self._option})

    async def invite(self, session_id: str, caller: str, callee: str) -> Conversation:
        """Call somebody and talk until the call ends."""
        return await self._talk(
            session_id, {"command": "invite", "option": {"caller": caller, "callee": callee, **self._option}}
        )

    async def _talk(self, session_id: str, first: dict[str, Any]) -> Conversation:
        url = self._url + quote(session_id, safe="@:")
        self._note("command", f"connects to {url}")
        async with trio_websocket.open_websocket_url(url) as socket:
            await self._send(socket, first)
            try:
                while True:
                    await self._step(socket)
            except trio_websocket.ConnectionClosed as closed:
                self.conversation.close_code = closed.reason.code if closed.reason else None
                self._note("event", f"socket closed ({self.conversation.close_code})")
        return self.conversation

    async def _step(self, socket: trio_websocket.WebSocketConnection) -> None:
        text = None
        with trio.move_on_after(min(self._reply_at, self._gave_up_at) - time.time()):
            text = await socket.get_message()
        if text is not None:
            await self._take(socket, json.loads(text))
        elif time.time() >= self._reply_at:
            await self._answer(socket)
        elif time.time() >= self._gave_up_at:
            self._gave_up_at = math.inf
            self.conversation.errors.append("the agent heard no words")
            await self._send(socket, {"command": "hangup", "reason": "nothing heard"})

    async def _take(self, socket: trio_websocket.WebSocketConnection, event: dict[str, Any]) -> None:
        kind = event["event"]
        self._show(event)
        playback = event.get("playId")
        self._moment(f"{kind}:{playback}" if playback else kind)
        match kind:
            case "answer":
                await self._send(socket, _tts(self.conversation.greeting, "greeting"))
            case "trackEnd" if playback == "greeting":
                self._gave_up_at = time.time() + GIVE_UP
            case "trackEnd" if playback == "reply" and not self._auto_hangup:
                await self._send(socket, {"command": "hangup"})
            case "speaking":
                self._speaking, self._reply_at = True, math.inf
            case "silence":
                self._speaking = False
                self._wait_for_more()
            case "asrFinal":
                if event["text"].strip():
                    self.conversation.heard.append(event["text"].strip())
                self._wait_for_more()
            case "error":
                self.conversation.errors.append(f"{event.get('sender')}: {event.get('error')}")
            case "hangup":
                self.conversation.hangup = event

    def _wait_for_more(self) -> None:
        """The turn is over once words were heard and nobody has said more for a moment."""
        if self.conversation.heard and not self._speaking and not self.conversation.reply:
            self._reply_at = time.time() + PATIENCE

    async def _answer(self, socket: trio_websocket.WebSocketConnection) -> None:
        self._reply_at = self._gave_up_at = math.inf
        self.conversation.reply = f"You said: {self.conversation.transcript}"
        self._moment("tts:reply")
        await self._send(socket, _tts(self.conversation.reply, "reply", autoHangup=self._auto_hangup))

    async def _send(self, socket: trio_websocket.WebSocketConnection, command: dict[str, Any]) -> None:
        self._note("command", _one_line(command, "command"), command)
        await socket.send_message(json.dumps(command))

    def _moment(self, name: str) -> None:
        """Remember when `name` first happened after the caller began; `silence` and `asrFinal` keep the last time."""
        if name in {"silence", "asrFinal"} and not self.conversation.reply:
            self.conversation.moments[name] = time.time()
        else:
            self.conversation.moments.setdefault(name, time.time())

    def _show(self, event: dict[str, Any]) -> None:
        if event["event"] != "ping":
            self._note("event", _one_line(event, "event"), event)

    def _note(self, lane: str, text: str, detail: object = None) -> None:
        self._timeline.add(self._call, lane, text, detail=detail)


def _tts(text: str, play_id: str, **more: object) -> dict[str, Any]:
    return {"command": "tts", "text": text, "playId": play_id, "endOfStream": True, **more}


def _one_line(message: dict[str, Any], kind: str) -> str:
    """`asrFinal index=0 text="Hello"`: the rest is in `demo.json`."""
    parts = [f"{key}={json.dumps(value)}" for key, value in message.items() if key not in {kind, *UNSHOWN}]
    return " ".join([str(message[kind]), *parts])
