"""What every emulated service shares: HTTP and WebSockets over any `Network`, what was asked, and troubles."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlsplit

import attrs
import h11
import trio
import trio_websocket

from rustpbx.core import Address
from rustpbx.shell.network import Network
from rustpbx.shell.nurseries import sole_error
from rustpbx.testing.speech import tone

LONGEST_HEAD = 65536
LARGEST = 64 * 1024 * 1024

Message = str | bytes


def texts_of(texts: Iterable[str]) -> deque[str]:
    """A script, to be taken from the left."""
    return deque(texts)


def object_of(message: Message) -> dict[str, object]:
    """The JSON object that a message is; an empty one if it is none."""
    try:
        said = json.loads(message)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def voice(seconds: float, rate: int) -> bytes:
    """What a text sounds like: a tone, s16le."""
    return tone(seconds, rate=rate).astype("<i2").tobytes()


@attrs.frozen
class Asked:
    """A request: `target` as it came, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query, decoded; the last one of a name counts."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@attrs.frozen
class Answer:
    """An HTTP response."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@attrs.define(eq=False)
class Conversation:
    """One WebSocket on the service's side. `heard` are the messages that came, `said` those that were sent."""

    asked: Asked
    heard: list[Message] = attrs.field(factory=list)
    said: list[Message] = attrs.field(factory=list)
    closed: int | None = None
    """The code that the client closed with; None while it is open, 1006 if it was dropped."""
    _connection: trio_websocket.WebSocketConnection = attrs.field(kw_only=True)
    _service: EmulatedService = attrs.field(kw_only=True)

    async def receive(self) -> Message:
        """The client's next message. Raises `trio.EndOfChannel` when it has closed or dropped the connection."""
        try:
            message: Message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed as closed:
            self.closed = closed.reason.code if closed.reason else 1006
            raise trio.EndOfChannel from None
        self.heard.append(message)
        return message

    async def send(self, message: Message) -> None:
        """Say something, unless it is time for the trouble that the test wants. Raises `trio.EndOfChannel` likewise."""
        await trio.sleep(self._service.delay)
        if self._service.drop_after is not None and len(self.said) >= self._service.drop_after:
            await self.drop()
            raise trio.EndOfChannel
        try:
            await self._connection.send_message(message)
        except trio_websocket.ConnectionClosed as closed:
            self.closed = closed.reason.code if closed.reason else 1006
            raise trio.EndOfChannel from None
        self.said.append(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close as a WebSocket does."""
        await self._connection.aclose(code, reason)

    async def drop(self) -> None:
        """End the TCP connection without a word."""
        await trio.aclose_forcefully(self._connection._stream)  # noqa: SLF001 - the library has no way to be rude


@attrs.define(eq=False)
class EmulatedService:
    """One service. A subclass answers requests (`answer`) and holds conversations (`converse`).

    Troubles: `refuse` is the answer to every request from now on, `delay` what each message takes (seconds),
    `drop_after` the number of messages of a conversation after which the connection is cut. `silent`: it never answers.
    """

    refuse: Answer | None = attrs.field(default=None, kw_only=True)
    delay: float = attrs.field(default=0.0, kw_only=True)
    drop_after: int | None = attrs.field(default=None, kw_only=True)
    silent: bool = attrs.field(default=False, kw_only=True)
    requests: list[Asked] = attrs.field(factory=list, init=False)
    conversations: list[Conversation] = attrs.field(factory=list, init=False)

    async def answer(self, asked: Asked) -> Answer:
        """The answer to a plain request."""
        return Answer(404, f"no such path: {asked.path}".encode())

    def admit(self, asked: Asked) -> Answer | None:  # noqa: ARG002 - for those who look at it
        """Why a WebSocket is refused; None to open it."""
        return None

    async def converse(self, conversation: Conversation) -> None:
        """Talk with a client until either side ends. `trio.EndOfChannel` from the conversation may leave it."""
        await conversation.close()

    async def serve(
        self, network: Network, address: Address, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve for ever; started when it listens. Raises OSError if the address is taken."""
        listener = await network.listen(*address)
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(self._serve, [listener], handler_nursery=nursery)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            try:
                asked, raw = await _request(stream)
                self.requests.append(asked)
                if self.silent:
                    await trio.sleep_forever()
                if asked.headers.get("upgrade", "").lower() == "websocket":
                    await self._upgrade(stream, asked, raw)
                else:
                    await _respond(stream, self.refuse or await self.answer(asked))
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                return  # the client has gone

    async def _upgrade(self, stream: trio.abc.Stream, asked: Asked, raw: bytes) -> None:
        with sole_error():
            async with trio.open_nursery() as nursery:
                request = await trio_websocket.wrap_server_stream(
                    nursery, _Again(stream, raw), max_message_size=LARGEST
                )
                refusal = self.refuse or self.admit(asked)
                if refusal is not None:
                    headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
                    await request.reject(refusal.status, extra_headers=headers, body=refusal.body or None)
                else:
                    conversation = Conversation(asked, connection=await request.accept(), service=self)
                    self.conversations.append(conversation)
                    with contextlib.suppress(trio.EndOfChannel):
                        await self.converse(conversation)
                nursery.cancel_scope.cancel()


class _Again(trio.abc.Stream):
    """A stream whose first bytes have been read already."""

    def __init__(self, stream: trio.abc.Stream, read: bytes) -> None:
        self._stream = stream
        self._read = read

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._read:
            read, self._read = self._read, b""
            return read
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _request(stream: trio.abc.Stream) -> tuple[Asked, bytes]:
    """The request that comes, and its bytes. Raises `h11.RemoteProtocolError` if it is none."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
    raw, head, body = b"", None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some())
            connection.receive_data(data)
            raw += data
        elif isinstance(event, h11.Request):
            head = event
            if dict(event.headers).get(b"upgrade"):
                break
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            break
    if head is None:
        raise h11.RemoteProtocolError("no request")
    headers = {name.decode(): value.decode() for name, value in head.headers}
    return Asked(head.method.decode(), head.target.decode(), headers, body), raw


async def _respond(stream: trio.abc.Stream, answer: Answer) -> None:
    lines = [f"HTTP/1.1 {answer.status} Emulated", f"Content-Length: {len(answer.body)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    await stream.send_all("\r\n".join([*lines, "", ""]).encode() + answer.body)
