"""A whole server in memory: phone, server, webhook and agent on one wire, in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import trio

from rustpbx.app import Outside, Server, open_server
from rustpbx.settings import Config, HandlerConfig, UaConfig
from rustpbx.shell.clock import TrioClock
from rustpbx.shell.offload import InlineOffload
from rustpbx.testing.network import MemoryNetwork
from rustpbx.testing.phone import Phone, open_phone
from rustpbx.testing.speech import ScriptedSynthesizer
from rustpbx.testing.wire import Link, Wire, open_wire
from tests.kit.agent import Agent, Webhook, connect_agent
from tests.kit.scripted import scripted_speech

SERVER, PHONE, AGENT = "10.0.0.1", "10.0.0.2", "10.0.0.3"
EPOCH = 1_760_000_000.0


@attrs.frozen(kw_only=True)
class House:
    """What a test plays with."""

    wire: Wire
    server: Server
    phone: Phone
    webhook: Webhook
    agents: MemoryNetwork

    def agent(self, path: str = "/call/sip") -> AbstractAsyncContextManager[Agent]:
        """Connect an agent: `async with house.agent(...) as agent`."""
        return connect_agent(self.agents, self.server.http, path)

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator[tuple[Agent, dict[str, object]]]:
        """The agent that the next webhook calls for, and the webhook's body."""
        notice = await self.webhook.calls.receive()
        async with self.agent(f"/call/sip?id={notice['dialogId']}") as agent:
            yield agent, notice

    def leftovers(self) -> dict[str, int]:
        """What of any call the server still owns; all zeros when the house is quiet."""
        stack = self.server.stack
        assert stack is not None
        return {
            "calls": len(self.server.registry.summaries()),
            "legs": self.server.plane.legs,
            "dialogs": stack.counters["dialogs"],
            "transactions": stack.counters["transactions_running"],
        }


def server_config(**changes: Any) -> Config:
    """The configuration of the server in the house; `changes` are its top-level fields."""
    handler = HandlerConfig(type="webhook", urls=(f"http://{AGENT}:9000/hook",))
    config = Config(
        http_addr=(SERVER, 8080),
        allow_anonymous=True,
        ua=UaConfig(addr=SERVER, udp_port=5060, accept_timeout=50.0, handler=handler),
        rtp_start_port=12000,
        rtp_end_port=12999,
        max_calls=20,
        media_cache_path="",
    )
    return attrs.evolve(config, **changes)


@asynccontextmanager
async def open_house(
    config: Config | None = None,
    *,
    seed: int = 0,
    link: Link | None = None,
    transcripts: tuple[str, ...] = (),
    synthesizer: ScriptedSynthesizer | None = None,
) -> AsyncIterator[House]:
    """Everything up; the speech provider `scripted` says `transcripts` in turn and speaks in tones."""
    with scripted_speech(transcripts, synthesizer):
        async with open_wire(seed) as wire, trio.open_nursery() as nursery:
            if link is not None:
                wire.link(SERVER, PHONE, link)
            webhook, agents = Webhook(), wire.host(AGENT)
            nursery.start_soon(webhook.serve, agents, (AGENT, 9000))
            async with (
                open_server(config or server_config(), outside_of(wire, seed)) as server,
                open_phone(wire.host(PHONE), PHONE, seed=seed) as phone,
            ):
                yield House(wire=wire, server=server, phone=phone, webhook=webhook, agents=agents)
            nursery.cancel_scope.cancel()


def outside_of(wire: Wire, seed: int = 0) -> Outside:
    """What a server at `SERVER` reaches the world through."""
    return Outside(
        network=wire.host(SERVER),
        ports=wire.ports(SERVER),
        offload=InlineOffload(),
        clock=TrioClock(EPOCH),
        rng=random.Random(seed),
    )
