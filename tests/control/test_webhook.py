"""The announcement of an incoming call: its body, its targets in turn, its time limit, its signature."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import h11
import pytest
import trio

from rustpbx.control.webhook import AnnounceError, Webhook
from rustpbx.outbound import open_client
from rustpbx.shell.clock import TrioClock
from rustpbx.sip.events import IncomingCall
from rustpbx.sip.message import NameAddr
from rustpbx.sip.uri import Uri, parse_uri
from rustpbx.testing.wire import Wire, open_wire

CREATED = 1761812411120
CALL = IncomingCall(
    leg="b7Qk2@10.0.0.8-zT91-a0c4",
    caller=NameAddr(uri=parse_uri("sip:6001@10.0.0.8;user=phone")),
    callee=NameAddr(uri=parse_uri("sip:800:pw@10.0.0.5:5070"), display_name="Desk"),
    headers=("Via: SIP/2.0/UDP 10.0.0.8:5060;branch=z9hG4bK77", "CSeq: 1 INVITE"),
    offer=b"v=0\r\n",
    source=("10.0.0.8", 5060),
    local_host="10.0.0.5",
)
BODY = {
    "dialogId": "b7Qk2@10.0.0.8-zT91-a0c4",
    "createdAt": "2025-10-30T08:20:11.120000+00:00",
    "caller": "sip:6001@10.0.0.8",
    "callee": "sip:800@10.0.0.5:5070",
    "event": "invite",
    "headers": ["Via: SIP/2.0/UDP 10.0.0.8:5060;branch=z9hG4bK77", "CSeq: 1 INVITE"],
    "offer": "v=0\r\n",
}
OURS = "10.0.0.1"


@attrs.frozen(kw_only=True)
class Settings:
    """A handler's configuration."""

    urls: tuple[str, ...]
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    timeout: float = 8.0


@attrs.define
class Target:
    """A web server with one answer for everybody; `status` None never answers, `endless` never ends its body."""

    status: int | None = 200
    endless: bool = False
    requests: list[tuple[h11.Request, bytes]] = attrs.field(factory=list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Read one request, answer it."""
        http = h11.Connection(h11.SERVER)
        body = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
        self.requests.append((request, body))
        if self.status is None:
            await trio.sleep_forever()
        length = b"" if self.endless else b"Content-Length: 0\r\n"
        await stream.send_all(b"HTTP/1.1 %d X\r\n%bLocation: http://elsewhere.test/\r\n\r\n" % (self.status, length))
        with_body = b"x" * 1000
        while self.endless:
            try:
                await stream.send_all(with_body)
            except trio.BrokenResourceError:
                return


@asynccontextmanager
async def targets(*servers: Target | None) -> AsyncIterator[tuple[Wire, tuple[str, ...]]]:
    """A wire with these servers; None is a host where nothing listens. And their URLs."""
    async with open_wire() as wire, trio.open_nursery() as nursery:
        urls = []
        for index, server in enumerate(servers):
            ip = f"10.0.1.{index}"
            if server is not None:
                listener = await wire.host(ip).listen(ip, 80)
                nursery.start_soon(partial(trio.serve_listeners, server.serve, [listener]))
            urls.append(f"http://{ip}/hook")
        yield wire, tuple(urls)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def webhook(wire: Wire, settings: Settings, secret: str = "") -> AsyncIterator[Webhook]:
    """The webhook of a server on the wire."""
    async with open_client(wire.host(OURS)) as client:
        yield Webhook(client, settings, TrioClock(epoch=1761812411.5), secret=secret)


async def failure(hook: Webhook) -> str:
    """What an announcement that fails says."""
    with pytest.raises(AnnounceError) as raised:
        await hook.announce(CALL, CREATED)
    return str(raised.value)


async def test_the_request_is_the_documented_one() -> None:
    """Method, headers and body, key by key; unsigned without a secret."""
    target = Target()
    settings = Settings(urls=(), method="PUT", headers=(("X-Key", "k"), ("Authorization", "Bearer t")))
    async with targets(target) as (wire, urls), webhook(wire, attrs.evolve(settings, urls=urls)) as hook:
        await hook.announce(CALL, CREATED)
    ((request, body),) = target.requests
    headers = dict(request.headers)
    assert (request.method, request.target) == (b"PUT", b"/hook")
    assert json.loads(body) == BODY
    assert (headers[b"content-type"], headers[b"x-key"], headers[b"authorization"]) == (
        b"application/json",
        b"k",
        b"Bearer t",
    )
    assert b"x-rustpbx-signature" not in headers


async def test_addresses_keep_their_kind() -> None:
    """A tel: URI, one without user, IPv6, and an offer that is no UTF-8."""
    target = Target()
    call = attrs.evolve(
        CALL,
        caller=NameAddr(uri=parse_uri("tel:+4930123")),
        callee=NameAddr(uri=Uri("sip", None, None, "2001:db8::1")),
        offer=b"\xff",
    )
    async with targets(target) as (wire, urls), webhook(wire, Settings(urls=urls)) as hook:
        await hook.announce(call, 0)
    body = json.loads(target.requests[0][1])
    assert (body["caller"], body["callee"], body["offer"]) == ("tel:+4930123", "sip:[2001:db8::1]", "\ufffd")


async def test_targets_take_turns() -> None:
    """Each call begins with the next one, and only one is told."""
    first, second = Target(), Target(status=204)
    async with targets(first, second) as (wire, urls), webhook(wire, Settings(urls=urls)) as hook:
        for _ in range(3):
            await hook.announce(CALL, CREATED)
    assert (len(first.requests), len(second.requests)) == (2, 1)


@pytest.mark.parametrize("status", [302, 404, 500, 503])
async def test_the_next_target_is_tried_when_one_refuses(status: int) -> None:
    """Anything but 2xx is a failure; redirects are not followed."""
    first, second = Target(status=status), Target()
    async with targets(first, second) as (wire, urls), webhook(wire, Settings(urls=urls)) as hook:
        await hook.announce(CALL, CREATED)
    assert (len(first.requests), len(second.requests)) == (1, 1)
    assert (
        dict(first.requests[0][0].headers)[b"x-rustpbx-event-id"]
        == (dict(second.requests[0][0].headers)[b"x-rustpbx-event-id"])
    )


async def test_the_next_target_is_tried_when_one_is_not_there() -> None:
    """Refused connections and unknown names."""
    target = Target()
    async with (
        targets(None, target) as (wire, urls),
        webhook(wire, Settings(urls=("http://nobody.test/", *urls))) as hook,
    ):
        await hook.announce(CALL, CREATED)
    assert len(target.requests) == 1


async def test_a_slow_target_leaves_its_share_of_time_to_the_next() -> None:
    """Two targets within eight seconds: the first is given up after four."""
    slow, second = Target(status=None), Target()
    async with targets(slow, second) as (wire, urls), webhook(wire, Settings(urls=urls)) as hook:
        began = trio.current_time()
        await hook.announce(CALL, CREATED)
        assert trio.current_time() - began == 4
    assert len(second.requests) == 1


async def test_all_failures_are_named() -> None:
    """Each target with what it did; credentials and queries of the URLs are not shown."""
    async with targets(Target(status=500), Target(status=None), None) as (wire, urls):
        secret_url = urls[0].replace("//", "//user:hunter2@") + "?key=hunter2"
        async with webhook(wire, Settings(urls=(secret_url, *urls[1:]))) as hook:
            began = trio.current_time()
            said = await failure(hook)
            assert trio.current_time() - began <= 8
    assert said.startswith(
        "http://10.0.1.0/hook answered 500; http://10.0.1.1/hook did not answer within 4 s; http://10.0.1.2/hook: "
    )
    assert "hunter2" not in said


async def test_the_time_limit_is_for_all_targets_together() -> None:
    """However many there are."""
    silent = [Target(status=None) for _ in range(5)]
    async with targets(*silent) as (wire, urls), webhook(wire, Settings(urls=urls, timeout=3)) as hook:
        began = trio.current_time()
        await failure(hook)
        assert trio.current_time() - began == pytest.approx(3)


async def test_without_targets_there_is_nobody_to_tell() -> None:
    """An error, not a success."""
    async with open_wire() as wire, webhook(wire, Settings(urls=())) as hook:
        assert await failure(hook) == "no webhook is configured"


async def test_the_body_of_the_answer_is_not_read() -> None:
    """One that never ends does not matter."""
    target = Target(endless=True)
    async with targets(target) as (wire, urls), webhook(wire, Settings(urls=urls)) as hook:
        await hook.announce(CALL, CREATED)
    assert len(target.requests) == 1


async def test_a_secret_signs_timestamp_and_body() -> None:
    """HMAC-SHA256 over `<timestamp>.<body>`; the event id is a UUID."""
    target = Target()
    async with targets(target) as (wire, urls), webhook(wire, Settings(urls=urls), secret="s3cret") as hook:
        await hook.announce(CALL, CREATED)
    ((request, body),) = target.requests
    headers = {name: value.decode() for name, value in request.headers}
    expected = hmac.new(b"s3cret", b"1761812411." + body, hashlib.sha256).hexdigest()
    assert headers[b"x-rustpbx-timestamp"] == "1761812411"
    assert headers[b"x-rustpbx-signature"] == f"sha256={expected}"
    assert uuid.UUID(headers[b"x-rustpbx-event-id"]).version == 4


async def test_a_cancelled_announcement_leaves_nothing() -> None:
    """The caller hung up while the target was thinking."""
    async with targets(Target(status=None)) as (wire, urls), webhook(wire, Settings(urls=urls)) as hook:
        with trio.move_on_after(1) as scope:
            await hook.announce(CALL, CREATED)
        assert scope.cancelled_caught


async def test_the_documented_check_takes_ours_and_nothing_else() -> None:
    """The snippet of docs/operations.md, run: another body, secret or time is refused."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102 - it is our own document
    verified = names["verified"]
    target = Target()
    async with targets(target) as (wire, urls), webhook(wire, Settings(urls=urls), "a secret") as hook:
        await hook.announce(CALL, CREATED)
    ((request, body),) = target.requests
    headers = {name.decode(): value.decode() for name, value in request.headers}
    now = 1761812411.5
    assert verified(b"a secret", headers, body, now)
    assert not verified(b"another", headers, body, now)
    assert not verified(b"a secret", headers, body + b" ", now)
    assert not verified(b"a secret", headers, body, now + 301)
