"""The server on real loopback sockets, for programs that are not ours to call."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from rustpbx.app import Outside, Server, open_server
from rustpbx.media.plane.port import real_ports
from rustpbx.settings import Config, HandlerConfig, UaConfig
from rustpbx.shell.clock import TrioClock
from rustpbx.shell.network import RealNetwork
from rustpbx.shell.offload import InlineOffload
from tests.kit.agent import Agent, Webhook, connect_agent
from tests.kit.scripted import scripted_speech

LOOPBACK = "127.0.0.1"


def free_port(kind: socket.SocketKind) -> int:
    """A port that nobody holds right now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@attrs.frozen
class RealHouse:
    """A running server, and the webhook it tells of calls."""

    server: Server
    webhook: Webhook

    @property
    def sip(self) -> tuple[str, int]:
        """Where to send SIP."""
        assert self.server.sip is not None
        return self.server.sip

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
async def open_real_house(cache: Path) -> AsyncIterator[RealHouse]:
    """A server on free loopback ports, with the scripted speech provider `scripted`."""
    hook = (LOOPBACK, free_port(socket.SOCK_STREAM))
    handler = HandlerConfig(type="webhook", urls=(f"http://{hook[0]}:{hook[1]}/",))
    config = Config(
        http_addr=(LOOPBACK, 0),
        ua=UaConfig(addr=LOOPBACK, udp_port=0, handler=handler),
        rtp_start_port=20000,
        rtp_end_port=29999,
        max_calls=20,
        media_cache_path=str(cache),
    )
    outside = Outside(
        network=RealNetwork(),
        ports=real_ports(),
        offload=InlineOffload(),
        clock=TrioClock(),
        rng=random.Random(random.SystemRandom().random()),
    )
    webhook = Webhook()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(webhook.serve, RealNetwork(), hook)
        with scripted_speech():
            async with open_server(config, outside) as server:
                yield RealHouse(server, webhook)
        nursery.cancel_scope.cancel()
