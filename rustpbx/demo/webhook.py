"""A webhook receiver as small as one can be: it takes a POST of JSON and answers 200."""

from __future__ import annotations

import json
from typing import Any

import h11
import trio

MAX_BODY = 256 * 1024


class WebhookReceiver:
    """Serves one path on loopback; what was posted comes out of `posts`. `url` is set once `run` has started."""

    def __init__(self) -> None:
        self.url = ""
        self._send, self.posts = trio.open_memory_channel[dict[str, Any]](16)

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen on a free port until cancelled; started with the URL."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/calls"
        task_status.started(self.url)
        await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            connection = h11.Connection(h11.SERVER)
            try:
                body = await self._read_request(stream, connection)
                status = self._take(body)
            except (h11.RemoteProtocolError, trio.BrokenResourceError):
                return
            reply = [
                h11.Response(status_code=status, headers=[("content-length", "0"), ("connection", "close")]),
                h11.EndOfMessage(),
            ]
            for part in reply:
                await stream.send_all(connection.send(part) or b"")

    async def _read_request(self, stream: trio.SocketStream, connection: h11.Connection) -> bytes:
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    raise h11.RemoteProtocolError("body too large")
            elif isinstance(event, h11.EndOfMessage):
                return body
            elif isinstance(event, h11.ConnectionClosed):
                raise trio.BrokenResourceError("closed before the request was complete")

    def _take(self, body: bytes) -> int:
        try:
            post = json.loads(body)
            self._send.send_nowait(post)
        except ValueError:
            return 400
        except trio.WouldBlock:
            return 503
        return 200
