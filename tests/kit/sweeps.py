"""One call in memory under some misfortune, and what must hold after it whatever the misfortune was.

A `Story` is a call with two people who make the best of it: they wait for each other, hang up, and never insist. After
it, `finish` checks the events' order, that both ends know of the end, that nothing of the call is left, and that no
error was logged.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import Enum
from typing import Any, Literal, Protocol

import attrs
import trio
import trio_websocket

from rustpbx.errors import RustpbxError
from rustpbx.shell.network import Network
from rustpbx.sip import events as sip
from rustpbx.testing.agent import OPTION, Agent, open_socket
from rustpbx.testing.house import AGENT, SERVER, House, Plan
from rustpbx.testing.phone import Phone, PhoneCall
from rustpbx.testing.script import ScriptError
from rustpbx.testing.webhook import Webhook
from rustpbx.testing.wire import Wire
from tests.kit.logbook import kept_log

Side = Literal["phone", "agent"]
Direction = Literal["in", "out", "stream"]

PATIENCE = 100.0
"""Virtual seconds that somebody waits before he hangs up: longer than any timer of SIP."""

CONNECTING = 6.0
"""Virtual seconds after which an agent that was on its way is connected, or never will be."""

GONE = (ScriptError, RustpbxError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed)
"""What a script hears when the other side has gone."""


def check_order(events: Sequence[Mapping[str, Any]], *, complete: bool) -> None:
    """The order that every agent may rely on; `complete` if the server must have had the last word.

    Tracks begin before they end, once each; an interruption lies within its track; nothing of the audio comes before
    the session's track; answered once, and not after a refusal; `hangup` once, last.
    """
    names = [str(event["event"]) for event in events]
    complete = complete or "hangup" in names
    assert names.count("hangup") == int(complete), names
    assert not complete or names[-1] == "hangup", names
    assert names.count("answer") <= 1, names
    assert names.count("reject") <= 1, names
    assert not {"answer", "reject"} <= set(names), names
    playing: set[str] = set()
    begun: set[str] = set()
    answered = False
    for event in events:
        name, track = event["event"], str(event.get("trackId"))
        if name == "trackStart":
            assert track not in playing, names
            playing.add(track)
            begun.add(track)
        elif name == "trackEnd":
            assert track in playing, names
            playing.discard(track)
        elif name == "interruption":
            assert track in playing, names
        elif name in ("speaking", "silence", "asrDelta", "asrFinal", "dtmf"):
            assert begun, names
        elif name == "ringing":
            assert not answered, names
        answered = answered or name == "answer"
    assert not (complete and playing), names


class Stage(Protocol):
    """What a call needs around it: a `House`, or what is left of one."""

    phone: Phone

    @property
    def uri(self) -> str:
        """What the phone dials."""
        ...

    def new_agent(self) -> Agent:
        """An agent for one call."""
        ...

    def calls(self) -> list[str]:
        """What is up, in words."""
        ...


@attrs.define
class Story:
    """One call as its people saw it. `notice` is what the webhook was told."""

    house: Stage
    call: PhoneCall | None = None
    agent: Agent | None = None
    notice: dict[str, Any] | None = None
    agent_vanished: bool = False

    @property
    def ending(self) -> tuple[str, str] | None:
        """Reason and initiator, as the agent was told; None if nobody told it."""
        events = self.agent.events if self.agent is not None else []
        hangups = [event for event in events if event["event"] == "hangup"]
        return (str(hangups[0]["reason"]), str(hangups[0]["initiator"])) if hangups else None

    @property
    def names(self) -> list[str]:
        """The agent's events."""
        return self.agent.names if self.agent is not None else []

    @property
    def phones_end(self) -> str:
        """How the call ended for the phone: the fact's name, `us`, or `no call`, `still up`."""
        if self.call is None:
            return "no call"
        if self.call.ending is None:
            return "still up"
        cause = self.call.ending.cause
        return "us" if cause is None else f"{type(cause).__name__}{_status(cause)}"

    # -- a phone calls ------------------------------------------------------------------------------------------

    async def comes_in(self, hangs_up: Side = "agent", talk: float = 1.0, ring: float = 0.5) -> None:
        """The phone calls, the agent lets it ring and accepts; after `talk` seconds one of them hangs up."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._takes, hangs_up, talk, ring)
            self.call = await self.house.phone.dial(self.house.uri)
            await self._phone_talks(hangs_up, talk)
            if self.agent is None or not connected(self.agent):
                await trio.sleep(CONNECTING)
            await self._agent_is_done()
            nursery.cancel_scope.cancel()

    async def _takes(self, hangs_up: Side, talk: float, ring: float) -> None:
        self.agent = agent = self.house.new_agent()
        with suppress(*GONE):
            self.notice = await agent.is_called(within=1000)
            await agent.send("ringing")
            await trio.sleep(ring)
            await agent.send("accept", option=OPTION)
            await self._agent_talks(hangs_up, talk)

    # -- an agent calls -----------------------------------------------------------------------------------------

    async def goes_out(self, hangs_up: Side = "agent", talk: float = 1.0, ring: float = 0.5) -> None:
        """The agent calls the phone, which rings and answers; after `talk` seconds one of them hangs up."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answers, hangs_up, talk, ring)
            self.agent = agent = self.house.new_agent()
            with suppress(*GONE):
                await agent.dials()
                await self._agent_talks(hangs_up, talk)
            await self._agent_is_done()
            if self.call is None:  # it never rang
                nursery.cancel_scope.cancel()

    async def _answers(self, hangs_up: Side, talk: float, ring: float) -> None:
        self.call = await self.house.phone.ring()
        with suppress(*GONE):
            self.call.ringing()
            await trio.sleep(ring)
            self.call.answer()
        await self._phone_talks(hangs_up, talk)

    # -- without a phone ----------------------------------------------------------------------------------------

    async def goes_on_a_stream(self, talk: float = 1.0) -> None:
        """The far end is in the agent's own socket; after `talk` seconds the agent hangs up."""
        self.agent = agent = self.house.new_agent()
        with suppress(*GONE):
            await agent.connects("/call")
            await agent.send("invite", option={})
            await self._agent_talks("agent", talk)
        await self._agent_is_done()

    # -- both ---------------------------------------------------------------------------------------------------

    async def _phone_talks(self, hangs_up: Side, talk: float) -> None:
        assert self.call is not None
        with suppress(*GONE):
            await self.call.answered()
            await trio.sleep(talk)
            if hangs_up == "phone":
                self.call.hang_up()
        with trio.move_on_after(PATIENCE) as waiting:
            await self.call.ended()
        if waiting.cancelled_caught:
            self.call.hang_up()

    async def _agent_talks(self, hangs_up: Side, talk: float) -> None:
        assert self.agent is not None
        await self.agent.until("answer", within=PATIENCE)
        await self.agent.send("tts", text="hello", endOfStream=True)
        await trio.sleep(talk)
        if hangs_up == "agent":
            await self.agent.send("hangup")

    async def _agent_is_done(self) -> None:
        """The agent waits for the end; if nobody tells it, it hangs up, and if that does not help it leaves."""
        agent = self.agent
        if agent is None or not connected(agent):
            return
        for command in ("hangup", None):
            with trio.move_on_after(PATIENCE):
                await agent.ended()
            if agent.closed is not None:
                return
            if command is not None:
                with suppress(*GONE):
                    await agent.send(command)
        raise AssertionError(f"the server does not end the agent's call: {self.house.calls()}")

    # -- the end ------------------------------------------------------------------------------------------------

    def check_events(self) -> None:
        """The agent was told everything in its order, up to the end unless it left before."""
        if self.agent is not None and connected(self.agent):
            complete = not self.agent_vanished
            check_order(self.agent.events, complete=complete)
            assert not complete or self.agent.closed == 1000, self.agent.closed


async def check_house(house: House) -> None:
    """Nothing is left of any call, and no bug was counted."""
    await house.settle()
    assert house.server.stack is not None
    assert house.server.stack.counters["bugs"] == 0
    assert house.server.registry.health().runnings == 0


def connected(agent: Agent) -> bool:
    """Whether an agent ever had its socket."""
    try:
        return agent.socket is not None
    except ScriptError:
        return False


def _status(cause: sip.Fact) -> str:
    return f" {cause.status}" if isinstance(cause, sip.CallRefused) else ""


@asynccontextmanager
async def story(plan: Plan | None = None, *, errors: int = 0) -> AsyncIterator[tuple[Story, House]]:
    """A house of its own for one call, and all checks after it; `errors` are the error lines that the log may have."""
    with kept_log(logging.ERROR) as book:
        async with House(plan or Plan(signalling_only=True)).open() as house:
            told = Story(house)
            yield told, house
            told.check_events()
            await check_house(house)
    assert len(book.records) == errors, "\n".join(book.lines())


async def whole_call(told: Story, direction: Direction, hangs_up: Side, talk: float = 1.0) -> None:
    """A call in one of the directions."""
    if direction == "stream":
        await told.goes_on_a_stream(talk)
    else:
        await (told.comes_in if direction == "in" else told.goes_out)(hangs_up, talk)


# -- agents that may be refused -------------------------------------------------------------------------------------


def new_agent(wire: Wire, staff: trio.Nursery, webhook: Webhook, phone: Phone) -> Agent:
    """An agent to whom a server may say no, or nothing at all: that is a `ScriptError` of its own."""

    async def reach(agent: Agent, path: str) -> None:
        problem: BaseException | None = None
        try:
            await staff.start(_hold_agent, wire.host(AGENT), agent, path)
        except* (OSError, trio.TooSlowError, trio_websocket.HandshakeError) as problems:
            problem = problems
        if problem is not None:
            raise ScriptError(f"the server refuses the agent: {problem}")

    return Agent(reach, lambda: webhook, lambda: phone.uri)


async def _hold_agent(network: Network, agent: Agent, path: str, *, task_status: trio.TaskStatus[None]) -> None:
    async with trio.open_nursery() as nursery:
        # The WebSocket client does not notice a server that closes instead of answering.
        with trio.fail_after(CONNECTING - 1):
            agent.attach(await open_socket(network, (SERVER, 8080), path, nursery))
        nursery.start_soon(agent.read)
        task_status.started()


# -- at a certain moment --------------------------------------------------------------------------------------------


@contextmanager
def when_stepped(machine: str, state: Enum, act: Callable[[], None]) -> Iterator[list[float]]:
    """`act` as soon as a machine's step into a state has been logged, the first time; when that was, is in the list."""

    class Watcher(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fields = vars(record)
            if not moments and (fields.get("machine"), fields.get("to_state")) == (machine, state.name):
                moments.append(trio.current_time())
                act()

    moments: list[float] = []
    watcher, logger = Watcher(), logging.getLogger(f"rustpbx.{machine}")
    before = logger.level
    logger.addHandler(watcher)
    logger.setLevel(logging.DEBUG)
    try:
        yield moments
    finally:
        logger.removeHandler(watcher)
        logger.setLevel(before)
