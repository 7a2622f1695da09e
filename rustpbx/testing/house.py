"""A whole server in memory: phone, server, webhook and agent on one wire, in virtual time.

    async with open_house() as house:
        await house.handset.dials()
        await house.desk.answers()
        ...

The pytest plugin makes one for each test that asks for it; `open_house` is for other programs.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio
import trio.testing
import trio_websocket

from rustpbx.app import Outside, Server, open_server
from rustpbx.core import Address
from rustpbx.settings import Config, HandlerConfig, UaConfig
from rustpbx.shell.clock import TrioClock
from rustpbx.shell.offload import InlineOffload
from rustpbx.sip.extensions import Extensions
from rustpbx.sip.shell.connections import Streams
from rustpbx.testing.agent import Agent, connect_agent, open_socket
from rustpbx.testing.browser import Browser, Habits, open_browser
from rustpbx.testing.handset import Handset
from rustpbx.testing.leftovers import Belongings, belongings, describe_call
from rustpbx.testing.mischief import Mischief
from rustpbx.testing.network import MemoryNetwork
from rustpbx.testing.null_ports import NullPorts
from rustpbx.testing.phone import Phone, open_phone
from rustpbx.testing.registrar import Registrar
from rustpbx.testing.script import LeftoverError, ScriptError
from rustpbx.testing.speech import SCRIPTED, ScriptedSpeech, ScriptedSynthesizer
from rustpbx.testing.webhook import Webhook
from rustpbx.testing.wire import Link, Wire, open_wire

SERVER, PHONE, AGENT, BROWSER, REGISTRAR = "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"
WEBHOOK_PORT = 9000
EPOCH = 1_760_000_000.0
"""What the server takes for the time of day when it starts, in seconds since 1970."""

GOODBYE = 5.0
"""Virtual seconds that the close of an agent's socket may take."""
PARTING = 64 * 0.5 + 1
"""Virtual seconds that a call which is ending may take: its BYE may be lost again and again (64*T1)."""
SETTLING = 64 * 0.5 + 31
"""Virtual seconds after a call until its transactions (64*T1) and its port's quarantine are over."""

REGISTERING = 1.0
"""Virtual seconds that the accounts get to register before a test begins."""

SocketAgent = Callable[[trio_websocket.WebSocketConnection], Awaitable[object]]
"""An agent program: called for each incoming call with the call's connected WebSocket, returns when it is done."""
AgentProgram = Callable[[MemoryNetwork, Address], Awaitable[object]]
"""An agent program that connects by itself: called once, with its host's network and the server's HTTP address."""
EmbeddedAgent = Callable[[Server], Awaitable[object]]
"""A program around an embedded server: called once, with the server."""


def server_config(**changes: Any) -> Config:
    """The configuration of the server in the house; `changes` are its top-level fields."""
    handler = HandlerConfig(type="webhook", urls=(f"http://{AGENT}:{WEBHOOK_PORT}/hook",))
    config = Config(
        http_addr=(SERVER, 8080),
        allow_anonymous=True,
        ua=UaConfig(addr=SERVER, udp_port=5060, accept_timeout=50.0, handler=handler),
        rtp_start_port=12000,
        rtp_end_port=12999,
        max_calls=20,
        media_cache_path="",
        recorder_path="",
    )
    return attrs.evolve(config, **changes)


@attrs.define(kw_only=True)
class Plan:
    """How a house is to be; change it before the house opens.

    `seed` decides losses, ports, tags and ids. `link` is the weather between phone and server. `speech` serves as
    each of `providers`, () for every one. `agent`, `program` and `embedded` are programs under test; without one, the
    test itself is the agent. `signalling_only` leaves the server without media, so that an hour passes in an instant.
    `registrar` is at REGISTRAR, port 5060, before the server is; the accounts of the configuration may register there.
    `phone_streams` are where the phone can be called by TCP and TLS, and whose certificates it trusts;
    `phone_extensions` are what its SIP does beyond RFC 3261.
    """

    config: Config = attrs.field(factory=server_config)
    seed: int = 0
    link: Link | None = None
    speech: ScriptedSpeech = attrs.field(factory=ScriptedSpeech)
    providers: tuple[str, ...] = (SCRIPTED,)
    agent: SocketAgent | None = None
    program: AgentProgram | None = None
    embedded: EmbeddedAgent | None = None
    signalling_only: bool = False
    registrar: Registrar | None = None
    phone_streams: Streams | None = None
    phone_extensions: Extensions = attrs.field(factory=Extensions)


class House:
    """What a test plays with, while it is `open`: `wire`, `server`, the SIP `phone`, `webhook` and the agents' network.

    `handset` is that phone in words, `desk` an agent written as test code. `plan` may be changed until it opens.
    `names` are what hosts are called, by IP.
    """

    wire: Wire
    server: Server
    phone: Phone
    webhook: Webhook
    agents: MemoryNetwork

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.handset = Handset(lambda: self.phone, lambda: self.uri, partial(self._weather, PHONE))
        self.desk = self.new_agent()
        self.names = {SERVER: "server", PHONE: "phone", AGENT: "agent"}
        self._before = Belongings()
        self._nursery: trio.Nursery | None = None
        self._staff: trio.Nursery | None = None

    def __getattr__(self, name: str) -> Any:
        if name in House.__annotations__:
            raise ScriptError(f"the house is not open yet: its {name} is there once the test runs")
        raise AttributeError(name)

    @property
    def is_open(self) -> bool:
        """Whether everything is up."""
        return self._staff is not None

    @property
    def speech(self) -> ScriptedSpeech:
        """The speech services: what was said with them, and how they fail."""
        return self.plan.speech

    @property
    def mischief(self) -> Mischief:
        """What its phone does wrong, on request."""
        return Mischief(wire=self.wire, phone=PHONE, server=self.server.sip or (SERVER, 5060))

    @property
    def uri(self) -> str:
        """What a phone dials to reach the server."""
        ua = self.plan.config.ua or UaConfig()
        return f"sip:800@{ua.addr or SERVER}:{ua.udp_port}"

    def uri_by(self, transport: str) -> str:
        """What a phone dials to reach the server by another transport than UDP: "tcp", "tls", "ws" or "wss"."""
        ua = self.plan.config.ua or UaConfig()
        port = getattr(ua, f"{transport}_port", None)
        if port is None:
            raise ScriptError(f"the server does not listen for {transport}: set {transport}_port of its [ua]")
        scheme, named = ("sips", "ws") if transport == "wss" else ("sip", transport)
        return f"{scheme}:800@{ua.addr or SERVER}:{port};transport={named}"

    # -- opening ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self) -> AsyncIterator[House]:
        """Everything up, for the length of the block; what raises inside comes out of it in exception groups."""
        plan = self.plan
        with plan.speech.serving(*plan.providers):
            async with open_wire(plan.seed) as self.wire, trio.open_nursery() as nursery:
                self._nursery = nursery
                self.handset.forget()
                self.desk.forget()
                self._weather(PHONE, plan.link)
                self.webhook, self.agents = Webhook(), self.wire.host(AGENT)
                await nursery.start(self.webhook.serve, self.agents, (AGENT, WEBHOOK_PORT))
                if plan.registrar is not None:
                    self.names[REGISTRAR] = "registrar"
                    await nursery.start(plan.registrar.serve, self.wire.host(REGISTRAR), (REGISTRAR, 5060))
                async with (
                    open_server(plan.config, self._outside()) as self.server,
                    open_phone(
                        self.wire.host(PHONE),
                        PHONE,
                        5060,
                        seed=plan.seed,
                        streams=plan.phone_streams,
                        extensions=plan.phone_extensions,
                    ) as self.phone,
                    trio.open_nursery() as staff,
                ):
                    self.phone.audio = not plan.signalling_only
                    self._staff = staff
                    if plan.registrar is not None and self.server.stack is not None:
                        with trio.move_on_after(REGISTERING):
                            await self.server.stack.accounts.settled()
                    self._before = belongings(self.server, self.wire, but=staff)
                    await self._employ(staff)
                    try:
                        yield self
                    finally:
                        self._staff = None
                    staff.cancel_scope.cancel()
                nursery.cancel_scope.cancel()

    def _outside(self) -> Outside:
        outside = outside_of(self.wire, self.plan.seed)
        return attrs.evolve(outside, ports=NullPorts()) if self.plan.signalling_only else outside

    async def _employ(self, staff: trio.Nursery) -> None:
        """Start the programs under test, and let them get ready."""
        plan = self.plan
        if plan.agent is not None:
            staff.start_soon(self._serve_calls, plan.agent, staff, name="agent")
        if plan.program is not None:
            staff.start_soon(plan.program, self.agents, self.server.http, name="agent")
        if plan.embedded is not None:
            staff.start_soon(plan.embedded, self.server, name="agent")
        await trio.testing.wait_all_tasks_blocked()

    async def _serve_calls(self, agent: SocketAgent, staff: trio.Nursery) -> None:
        async for notice in self.webhook.calls:
            staff.start_soon(self._serve_call, agent, str(notice["dialogId"]), name=f"agent of {notice['dialogId']}")

    async def _serve_call(self, agent: SocketAgent, call: str) -> None:
        async with trio.open_nursery() as nursery:
            socket = await open_socket(self.agents, self.server.http, f"/call/sip?id={call}", nursery)
            try:
                await agent(socket)
                with trio.move_on_after(GOODBYE):
                    await socket.aclose()
            except trio_websocket.ConnectionClosed:
                pass  # the call is over: an agent that waits for the next event learns it so
            finally:
                await trio.aclose_forcefully(socket._stream)  # noqa: SLF001 - no public way to break off
                nursery.cancel_scope.cancel()

    def _weather(self, ip: str, link: Link | None) -> None:
        if link is not None:
            self.wire.link(SERVER, ip, link)

    # -- people -------------------------------------------------------------------------------------------------

    def new_agent(self) -> Agent:
        """One more agent written as test code, for one more call."""
        return Agent(self._reach, self._free_webhook, lambda: self.phone.uri)

    def _free_webhook(self) -> Webhook:
        if self.plan.agent is not None:
            raise ScriptError("the calls go to the agent under test: the test itself cannot answer them")
        return self.webhook

    async def _reach(self, agent: Agent, path: str) -> None:
        nursery = self._staff
        if nursery is None:
            raise ScriptError("the house is not open yet")
        agent.attach(await open_socket(self.agents, self.server.http, path, nursery))
        nursery.start_soon(agent.read)

    async def new_phone(self, user: str, ip: str) -> Handset:
        """One more phone, at an IP of its own, until the house closes."""
        if self._nursery is None:
            raise ScriptError("the house is not open yet")
        before = belongings(self.server, self.wire)
        self.names[ip] = user
        phone: Phone = await self._nursery.start(self._hold_phone, user, ip)
        self._before = self._before.plus(belongings(self.server, self.wire), before)
        return Handset(lambda: phone, lambda: self.uri, partial(self._weather, ip), user)

    async def _hold_phone(self, user: str, ip: str, *, task_status: trio.TaskStatus[Phone]) -> None:
        async with open_phone(self.wire.host(ip), ip, 5060, user=user, seed=self.plan.seed) as phone:
            task_status.started(phone)
            await trio.sleep_forever()

    def agent(self, path: str = "/call/sip") -> AbstractAsyncContextManager[Agent]:
        """Connect an agent for the length of a block: `async with house.agent(...) as agent`."""
        return connect_agent(self.agents, self.server.http, path)

    def browser(
        self, habits: Habits | None = None, *, hosts: Sequence[str] = (BROWSER,)
    ) -> AbstractAsyncContextManager[Browser]:
        """A browser at these IPs of one machine, for the length of a block: `async with house.browser() as browser`."""
        return open_browser(self.wire.host(hosts[0]), hosts, seed=self.plan.seed, habits=habits)

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator[tuple[Agent, dict[str, object]]]:
        """The agent that the next webhook calls for, and the webhook's body."""
        notice = await self.webhook.calls.receive()
        async with self.agent(f"/call/sip?id={notice['dialogId']}") as agent:
            yield agent, notice

    # -- what is left -------------------------------------------------------------------------------------------

    def leftovers(self) -> dict[str, int]:
        """What of any call the server still owns; all zeros when the house is quiet."""
        return belongings(self.server, self.wire).counts

    def calls(self) -> list[str]:
        """Each call that is up, and what it owns, in a line."""
        return [describe_call(call, self.server) for call in self.server.registry.calls.values()]

    async def settle(self) -> None:
        """Wait until nothing of any call is left. Raises `LeftoverError` naming what stays."""
        if not await _comes_true(lambda: not self.server.registry.calls, PARTING, step=0.1):
            raise LeftoverError(self.calls())
        if not await _comes_true(lambda: not self._left(), SETTLING, step=1.0):
            raise LeftoverError(self._left())

    def _left(self) -> list[str]:
        return belongings(self.server, self.wire, but=self._staff).more_than(self._before)


async def _comes_true(condition: Callable[[], bool], within: float, *, step: float) -> bool:
    """Whether it does, within so many virtual seconds: looked at after each `step`, for nothing tells of it."""
    with trio.move_on_after(within):
        while not condition():  # noqa: ASYNC110 - the end of a timer or a retransmission is no event that we could await
            await trio.sleep(step)
    return condition()


@asynccontextmanager
async def open_house(
    config: Config | None = None,
    *,
    seed: int = 0,
    link: Link | None = None,
    transcripts: tuple[str, ...] = (),
    synthesizer: ScriptedSynthesizer | None = None,
) -> AsyncIterator[House]:
    """Everything up; the provider `scripted` speaks in sounds that carry words, and hears these, or `transcripts`."""
    speech = ScriptedSpeech(synthesizer=synthesizer or ScriptedSynthesizer(), transcripts=transcripts)
    plan = Plan(config=config or server_config(), seed=seed, link=link, speech=speech)
    async with House(plan).open() as house:
        yield house


def outside_of(wire: Wire, seed: int = 0, host: str = SERVER) -> Outside:
    """What a server on `host` reaches the world through, in virtual time."""
    return Outside(
        network=wire.host(host),
        ports=wire.ports(host),
        offload=InlineOffload(),
        clock=TrioClock(EPOCH),
        rng=random.Random(seed),
        token_bytes=random.Random(seed).randbytes,
    )
