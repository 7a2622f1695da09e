"""A way to a language model that speaks as OpenAI does: requests are passed on, answers streamed as they come.

An agent needs no key of its own then. It does need whatever vouches for it to this server, which stays here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import h11
import httpx
import trio

from rustpbx.control.http import HttpError, Request, Upgrade
from rustpbx.control.remote import until_gone
from rustpbx.control.routes import decode
from rustpbx.journal import Journal
from rustpbx.masking import mask

_LOG = Journal(__name__)

PREFIX = "/llm/v1"
DEFAULT_TARGET = "https://api.openai.com/v1"
MOST = 50
"""Requests at one time; one more is a 503. Calls share the pool of connections with them."""
PATIENCE = httpx.Timeout(60.0, connect=10.0)
"""Seconds: for the first byte of an answer, and between any two."""
WHOLE = 600.0
"""Seconds for a whole answer."""
WRITE = 10.0
"""Seconds that a client may leave a part of the answer unread."""

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"}
    | {"upgrade", "content-length", "host"}
)
"""RFC 9110 7.6.1, and what is this connection's own."""
_NOT_SENT = _HOP_BY_HOP | {"cookie", "origin", "expect", "forwarded", "x-forwarded-for", "x-real-ip"}


class LlmProxy:
    """Passes requests on to `target`, with `key` where they bring none of their own."""

    def __init__(self, client: httpx.AsyncClient, target: str, key: str) -> None:
        self._client = client
        self._target = target.rstrip("/")
        self._key = key
        self._running = 0

    def pass_on(self, request: Request, body: bytes, *, authorization: str | None) -> Upgrade:
        """The answer that goes on as long as the model's. Raises `HttpError` (400, 503).

        `authorization` is what the model is shown, without what was shown to us; None for our own key.
        """
        path = request.path.removeprefix(PREFIX)
        if {".", ".."} & set(decode(path).split("/")):
            raise HttpError(400, "the path has dot segments")
        if self._running >= MOST:
            raise HttpError(503, "too many requests for the model", headers=(("retry-after", "5"),))
        query = "&".join(part for part in request.query.split("&") if part and not part.startswith("token="))
        headers = {
            name: value for name, value in request.headers.items() if name not in _NOT_SENT and name != "authorization"
        }
        shown = authorization or (f"Bearer {self._key}" if self._key else "")
        headers |= {"authorization": shown} if shown else {}
        url = f"{self._target}{path}{'?' if query else ''}{query}"
        wanted = self._client.build_request("POST", url, headers=headers, content=body, timeout=PATIENCE)

        async def run(stream: trio.abc.Stream, _: bytes) -> None:
            self._running += 1
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(until_gone, stream, nursery.cancel_scope)
                    with suppress(trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
                        await self._relay(wanted, _Answer(stream, request))
                    nursery.cancel_scope.cancel()
            finally:
                self._running -= 1
                await trio.aclose_forcefully(stream)

        return Upgrade(run)

    async def _relay(self, wanted: httpx.Request, answer: _Answer) -> None:
        with trio.move_on_after(WHOLE):
            try:
                response = await self._client.send(wanted, stream=True)
                try:
                    await answer.begin(response.status_code, _passed(response.headers))
                    async for part in response.aiter_raw():
                        await answer.part(part)
                finally:
                    with trio.CancelScope(shield=True):
                        await response.aclose()
                await answer.end()
            except (httpx.HTTPError, OSError) as problem:
                text = mask(f"Failed to proxy request: {problem or type(problem).__name__}")
                _LOG.warning("the language model: %s", text)
                if not answer.begun:  # else the answer just breaks off, which chunks make plain
                    await answer.begin(500, {"content-type": "text/plain; charset=utf-8"})
                    await answer.part(text.encode())
                    await answer.end()


def _passed(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in headers.items() if name not in _HOP_BY_HOP and name != "set-cookie"}
    return {**kept, "x-accel-buffering": "no"}


class _Answer:
    """Writes one answer in chunks, each at once; to HTTP/1.0 without them."""

    def __init__(self, stream: trio.abc.Stream, request: Request) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)
        # A second reader of the request, which says to h11 in which version we may answer.
        self._http.receive_data(f"POST / HTTP/{request.http_version}\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        self._http.next_event()
        self.begun = False

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the head."""
        self.begun = True
        await self._send(h11.Response(status_code=status, headers=list(headers.items())))

    async def part(self, data: bytes) -> None:
        """Send a part of the body."""
        if data:
            await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """Say that this was all."""
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        with trio.fail_after(WRITE):
            await self._stream.send_all(self._http.send(event) or b"")
