"""HTTP/1.1 for one connection: requests in, responses out, limits on everything a peer can make us wait for or hold.

h11 does the protocol; this module gives it a Trio stream and time limits. A request that cannot be read gets the
status that names its fault, a peer never sees a traceback, and a peer that goes away is no error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import attrs
import h11
import trio

from rustpbx.control.wire import encode_json
from rustpbx.errors import RustpbxError
from rustpbx.journal import Journal

_LOG = Journal(__name__)
_READ_SIZE = 16 * 1024
LINGER_SECONDS = 1.0


@attrs.frozen(kw_only=True)
class Limits:
    """What one connection may cost. Sizes are bytes, times seconds.

    `head_seconds` is for a whole request head, from its first byte; `idle_seconds` for the time before that byte;
    `body_seconds` and `write_seconds` for a whole body and a whole response.
    """

    head_bytes: int = 16 * 1024
    body_bytes: int = 64 * 1024
    head_seconds: float = 10.0
    idle_seconds: float = 60.0
    body_seconds: float = 10.0
    write_seconds: float = 10.0


@attrs.frozen(kw_only=True)
class Request:
    """A request's head. `path` and `query` are as they came, still percent-encoded.

    `headers` are keyed by lower-case name; the values of a repeated one are joined with ", ".
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    http_version: str = "1.1"


@attrs.frozen(kw_only=True)
class Response:
    """A response; `headers` come on top of the type, the length and the caching rules."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class Upgrade:
    """Instead of a response: `run(stream, leftover)` takes the connection over and ends it.

    `leftover` are the bytes after the request that were already read.
    """

    run: Callable[[trio.abc.Stream, bytes], Awaitable[None]]


@attrs.define(eq=False)
class HttpError(RustpbxError):
    """A request that is answered with an error; `detail` is further keys of the JSON body."""

    status: int
    error: str
    detail: Mapping[str, object] = attrs.field(factory=dict)
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.status} {self.error}"

    def response(self) -> Response:
        """The answer: `{"error": ..., **detail}`."""
        return json_response({"error": self.error, **self.detail}, self.status, self.headers)


def json_response(value: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A response with a JSON body."""
    return Response(status=status, body=encode_json(value).encode(), headers=headers)


ReadBody = Callable[[], Awaitable[bytes]]
Answer = Callable[[Request, ReadBody], Awaitable[Response | Upgrade]]


async def serve_connection(stream: trio.abc.Stream, answer: Answer, limits: Limits) -> None:
    """Answer the requests of one connection until it ends. Closes the stream.

    An `HttpError` of `answer` is sent to the peer. Any other exception becomes a bare 500 and is logged.
    """
    connection = HttpConnection(stream, limits)
    try:
        while (reply := await _next_reply(connection, answer)) is not None:
            if isinstance(reply, Upgrade):
                await reply.run(stream, connection.leftover())
                return
            if not await connection.respond(reply):
                await connection.linger()
                return
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return
    finally:
        await trio.aclose_forcefully(stream)


async def _next_reply(connection: HttpConnection, answer: Answer) -> Response | Upgrade | None:
    """What to send for the next request; None when there is none."""
    try:
        request = await connection.next_request()
        return None if request is None else await answer(request, connection.read_body)
    except HttpError as error:
        return error.response()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise
    except Exception:  # noqa: BLE001 - a bug answers with 500 and stays inside its connection
        _LOG.exception("a request could not be answered")
        connection.spoil()
        return HttpError(500, "internal error").response()


class HttpConnection:
    """The server's side of one connection: `next_request`, perhaps `read_body`, then `respond`; and again."""

    def __init__(self, stream: trio.abc.Stream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        self._is_head = False
        self._spoiled = False
        self._body = bytearray()
        self._body_done = True

    def leftover(self) -> bytes:
        """What was read after the last request."""
        return self._http.trailing_data[0]

    def spoil(self) -> None:
        """Let the next response be the last."""
        self._spoiled = True

    async def next_request(self) -> Request | None:
        """Wait for a request head; None when the peer is done. Raises `HttpError`."""
        self._is_head = False
        if not self.leftover() and not await self._wait_for_first_byte():
            return None
        with trio.move_on_after(self._limits.head_seconds):
            event = await self._next_event()
            return self._begin(event) if isinstance(event, h11.Request) else None
        self._spoiled = True
        raise HttpError(408, "the request took too long")

    async def _wait_for_first_byte(self) -> bool:
        with trio.move_on_after(self._limits.idle_seconds):
            return await self._receive()
        return False

    def _begin(self, event: h11.Request) -> Request:
        self._is_head = event.method == b"HEAD"
        self._body, self._body_done = bytearray(), False
        headers: dict[str, str] = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._refuse_doubtful_body(headers, event.http_version)
        self._refuse_long_body(headers)
        if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
            self._http.next_event()  # the EndOfMessage that is there already
            self._body_done = True
        path, _, query = event.target.decode("ascii").partition("?")
        return Request(
            method=event.method.decode("ascii"),
            path=path,
            query=query,
            headers=headers,
            http_version=event.http_version.decode("ascii"),
        )

    def _refuse_doubtful_body(self, headers: Mapping[str, str], http_version: bytes) -> None:
        """Where a proxy in front of us could see another end of the body, a second request hides (RFC 9112 6.1)."""
        if "transfer-encoding" in headers and ("content-length" in headers or http_version != b"1.1"):
            self._spoiled = True
            raise HttpError(400, "bad request: the length of the body is ambiguous")

    def _refuse_long_body(self, headers: Mapping[str, str]) -> None:
        length = headers.get("content-length", "0")
        if len(length) > 18 or int(length) > self._limits.body_bytes:
            raise HttpError(413, f"a request body has at most {self._limits.body_bytes} bytes")

    async def read_body(self) -> bytes:
        """The whole body of the request. Raises `HttpError` (413, 408, 400)."""
        with trio.move_on_after(self._limits.body_seconds):
            while not self._body_done:
                if self._http.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                event = await self._next_event()
                if isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > self._limits.body_bytes:
                        raise HttpError(413, f"a request body has at most {self._limits.body_bytes} bytes")
                elif event is None:
                    raise trio.BrokenResourceError("the peer left in the middle of a body")
                else:
                    self._body_done = True
            return bytes(self._body)
        raise HttpError(408, "the request body took too long")

    async def _next_event(self) -> h11.Request | h11.Data | h11.EndOfMessage | None:
        """The next event of h11; None when the peer has closed. Raises `HttpError` for what is no HTTP."""
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._spoiled = True
                raise HttpError(error.error_status_hint, f"bad request: {error}") from None
            if isinstance(event, (h11.Request, h11.Data, h11.EndOfMessage)):
                return event
            if event is not h11.NEED_DATA or not await self._receive():
                return None

    async def _receive(self) -> bool:
        """Read some bytes into h11; False at the end of the stream."""
        data = await self._stream.receive_some(_READ_SIZE)
        if data:
            self._http.receive_data(bytes(data))
        return bool(data)

    async def respond(self, response: Response) -> bool:
        """Send a response; False if it was the last of this connection.

        It is the last if the peer asked so, if the request was broken, or if its body was left unread.
        """
        last = self._spoiled or not self._body_done or self._http.our_state is not h11.SEND_RESPONSE
        headers = [
            ("content-type", response.content_type),
            ("content-length", str(len(response.body))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            *response.headers,
            *([("connection", "close")] if last else []),
        ]
        await self._send(
            h11.Response(status_code=response.status, headers=headers, reason=_reason(response.status)),
            *([] if self._is_head or not response.body else [h11.Data(data=response.body)]),
            h11.EndOfMessage(),
        )
        if last or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def linger(self) -> None:
        """Let the peer read the last response: closing while it still sends would reset the connection."""
        if (self._body_done and not self._spoiled) or not isinstance(self._stream, trio.abc.HalfCloseableStream):
            return
        with trio.move_on_after(LINGER_SECONDS):
            await self._stream.send_eof()
            unread = self._limits.body_bytes
            while unread > 0 and (data := await self._stream.receive_some(_READ_SIZE)):
                unread -= len(data)

    async def _send(self, *events: h11.Event) -> None:
        data = b"".join(self._http.send(event) or b"" for event in events)
        with trio.move_on_after(self._limits.write_seconds) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the peer does not read")


_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


def _reason(status: int) -> str:
    return _REASONS.get(status, "")
