"""The server on real loopback sockets, for programs that are not ours to call."""

from __future__ import annotations

import itertools
import math
import random
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from rustpbx.app import Outside, Server, open_server
from rustpbx.media.plane.port import real_ports
from rustpbx.settings import Config, DialConfig, HandlerConfig, UaConfig
from rustpbx.shell.clock import TrioClock
from rustpbx.shell.network import RealNetwork
from rustpbx.shell.offload import InlineOffload
from rustpbx.sip.hop import Transport
from tests.kit.agent import Agent, Webhook, connect_agent
from tests.kit.scripted import scripted_speech
from tests.kit.watched import WatchedPorts, WatchedSip

LOOPBACK = "127.0.0.1"


def free_port(*kinds: socket.SocketKind, count: int = 1) -> int:
    """The first of `count` ports in a row that nobody holds right now, for each kind of socket."""
    while True:
        with ExitStack() as held:
            first = 0
            try:
                for number, kind in itertools.product(range(count), kinds):
                    probe = held.enter_context(socket.socket(socket.AF_INET, kind))
                    probe.bind((LOOPBACK, first + number if first else 0))
                    first = first or int(probe.getsockname()[1])
            except (OSError, OverflowError):
                continue  # one of them is taken, or there is no such port
            return first


async def skip(seconds: float) -> None:
    """Let so much time have passed for all in this process; for the others no time has.

    It passes in steps, so that a WebSocket within this process is not taken for dead.
    """
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    steps = math.ceil(seconds / 5)
    for _ in range(steps):
        clock.jump(seconds / steps)
        await wait_all_tasks_blocked()


@attrs.frozen
class RealHouse:
    """A running server, the webhook it tells of calls, and all that it says on the wire."""

    server: Server
    webhook: Webhook
    rtp: WatchedPorts
    sip: WatchedSip

    @property
    def address(self) -> tuple[str, int]:
        """Where to send SIP."""
        assert self.server.sip is not None
        return self.server.sip

    @property
    def uri(self) -> str:
        """Whom to call."""
        host, port = self.address
        return f"sip:800@{host}:{port}"

    def uri_by(self, transport: Transport) -> str:
        """Whom to call by this transport."""
        assert self.server.stack is not None
        host, port = self.server.stack.listening[transport]
        return f"sip:800@{host}:{port};transport={transport.param}"

    async def owned(self) -> dict[str, int]:
        """What is left of the calls once our own requests are answered; all zeros when they are over.

        Transactions are not in it: they answer resent requests for 32 s more.
        """
        assert self.server.stack is not None
        await self.server.stack.flush()
        await wait_all_tasks_blocked()
        return {
            "calls": len(self.server.registry.calls),
            "legs": self.server.plane.legs,
            "dialogs": self.server.stack.counters["dialogs"],
        }

    @asynccontextmanager
    async def agent(self, path: str = "/call/sip") -> AsyncIterator[Agent]:
        """Connect an agent."""
        async with connect_agent(RealNetwork(), self.server.http, path) as agent:
            yield agent

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator[Agent]:
        """The agent that the next webhook calls for."""
        notice = await self.webhook.calls.receive()
        async with self.agent(f"/call/sip?id={notice['dialogId']}") as agent:
            yield agent


@asynccontextmanager
async def open_real_house(cache: Path, dial: DialConfig | None = None, **ua: Any) -> AsyncIterator[RealHouse]:
    """A server on free loopback ports, with the scripted speech provider `scripted`.

    `dial` is what agents may dial, `ua` are fields of `UaConfig`.
    """
    hook = (LOOPBACK, free_port(socket.SOCK_STREAM))
    handler = HandlerConfig(type="webhook", urls=(f"http://{hook[0]}:{hook[1]}/",))
    config = Config(
        http_addr=(LOOPBACK, 0),
        ua=UaConfig(addr=LOOPBACK, udp_port=0, handler=handler, **ua),
        rtp_start_port=20000,
        rtp_end_port=29999,
        max_calls=20,
        dial=dial or DialConfig(),
        media_cache_path=str(cache),
    )
    clock = TrioClock()
    ports = WatchedPorts(real_ports(), clock.now)
    outside = Outside(
        network=RealNetwork(),
        ports=ports,
        offload=InlineOffload(),
        clock=clock,
        rng=random.Random(random.SystemRandom().random()),
    )
    webhook = Webhook()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(webhook.serve, RealNetwork(), hook)
            with scripted_speech():
                async with open_server(config, outside) as server:
                    assert server.stack is not None
                    yield RealHouse(server, webhook, ports, WatchedSip(server.stack))
            nursery.cancel_scope.cancel()
    finally:
        ports.shutdown()
