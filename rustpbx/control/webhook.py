"""The webhook: an HTTP request that announces an incoming call, so that an agent comes for it.

The pending call is registered before the request goes out, because agents connect back before they answer it. Any 2xx
is success and the body of the answer is not read. The first target changes from call to call; when one fails the
others are tried, all within one time limit.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Mapping
from typing import Protocol

import httpx
import trio

from rustpbx.control.wire import encode_json, rfc3339
from rustpbx.errors import RustpbxError
from rustpbx.journal import Journal
from rustpbx.masking import mask_media_keys
from rustpbx.shell.clock import Clock
from rustpbx.sip.events import IncomingCall
from rustpbx.values import shown_url

_LOG = Journal(__name__)


class AnnounceError(RustpbxError):
    """No target took the call; the message names each one's failure."""


class Handler(Protocol):
    """The part of the configuration that a webhook needs. `timeout` is in seconds, for all targets together."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The targets, at least one."""
        ...

    @property
    def method(self) -> str:
        """The HTTP method."""
        ...

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Header fields to add."""
        ...

    @property
    def timeout(self) -> float:
        """Seconds."""
        ...


class Webhook:
    """Announces calls to the targets of one configuration, round robin.

    With a `secret` each request is signed: `X-Rustpbx-Signature` is `sha256=` and the hex HMAC-SHA256 of
    `<X-Rustpbx-Timestamp>.<body>`, the timestamp being epoch seconds. `X-Rustpbx-Event-Id` is the same for every
    attempt at one call.
    """

    def __init__(self, client: httpx.AsyncClient, config: Handler, clock: Clock, *, secret: str = "") -> None:
        self._client = client
        self._config = config
        self._clock = clock
        self._secret = secret.encode()
        self._turn = 0

    async def announce(self, call: IncomingCall, created_at: int) -> None:
        """Tell one target about `call`, which began at `created_at` (epoch ms). Raises `AnnounceError`.

        A target that does not answer is given up early enough for the next ones to have their share of the time.
        """
        body = encode_json(announcement(call, created_at)).encode()
        headers = self._headers(body)
        end = self._clock.now() + self._config.timeout
        failures = []
        targets = self._targets()
        for index, url in enumerate(targets):
            share = (end - self._clock.now()) / (len(targets) - index)
            failure = await self._post(url, body, headers, share)
            if failure is None:
                return
            _LOG.warning("webhook: %s", failure, call=call.leg)
            failures.append(failure)
        raise AnnounceError("; ".join(failures) or "no webhook is configured")

    def _targets(self) -> tuple[str, ...]:
        """All targets, beginning with the one whose turn it is."""
        urls = self._config.urls
        if not urls:
            return ()
        first = self._turn % len(urls)
        self._turn += 1
        return urls[first:] + urls[:first]

    def _headers(self, body: bytes) -> httpx.Headers:
        headers = httpx.Headers({"content-type": "application/json"})
        headers.update(httpx.Headers(list(self._config.headers)))
        headers["x-rustpbx-event-id"] = str(uuid.uuid4())
        if self._secret:
            timestamp = str(self._clock.wall(self._clock.now()) // 1000)
            headers["x-rustpbx-timestamp"] = timestamp
            headers["x-rustpbx-signature"] = f"sha256={signature(self._secret, timestamp, body)}"
        return headers

    async def _post(self, url: str, body: bytes, headers: httpx.Headers, seconds: float) -> str | None:
        """One attempt; None if the target took the call, else what went wrong."""
        shown = shown_url(url)
        with trio.move_on_after(seconds):
            try:
                request = self._client.stream(
                    self._config.method, url, content=body, headers=headers, timeout=seconds, follow_redirects=False
                )
                async with request as response:
                    return None if response.is_success else f"{shown} answered {response.status_code}"
            except httpx.TimeoutException:
                return f"{shown} did not answer within {seconds:g} s"
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                return f"{shown}: {error or type(error).__name__}"
        return f"{shown} did not answer within {seconds:g} s"


def announcement(call: IncomingCall, created_at: int) -> Mapping[str, object]:
    """The body of the request. Who the caller is said to be, beside the address, is there if somebody said it."""
    asserted = call.identity.asserted[0].uri.bare() if call.identity.asserted else None
    said = {
        "callerName": call.caller.display_name or None,
        "assertedIdentity": str(asserted) if asserted else None,
        "privacy": ";".join(call.identity.privacy) or None,
    }
    return {
        "dialogId": call.leg,
        "createdAt": rfc3339(created_at, "microseconds"),
        "caller": str(call.caller.uri.bare()),
        "callee": str(call.callee.uri.bare()),
        "event": "invite",
        "headers": list(call.headers),
        "offer": mask_media_keys(call.offer.decode(errors="replace")),
        **{key: value for key, value in said.items() if value is not None},
    }


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """The hex HMAC-SHA256 that proves a request to be ours."""
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
