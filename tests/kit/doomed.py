"""A whole call whose server is cancelled at a chosen step of the scheduler."""

from __future__ import annotations

import logging

import attrs
import trio

from rustpbx.app import open_server
from rustpbx.media.plane.port import Ports
from rustpbx.testing.agent import Agent
from rustpbx.testing.house import AGENT, PHONE, SERVER, WEBHOOK_PORT, outside_of, server_config
from rustpbx.testing.null_ports import NullPorts
from rustpbx.testing.phone import Phone, open_phone
from rustpbx.testing.webhook import Webhook
from rustpbx.testing.wire import Wire, open_wire
from tests.kit.logbook import kept_log
from tests.kit.sweeps import PATIENCE, Direction, Side, Story, check_order, connected, new_agent, whole_call

GRACE = 15.0
"""Virtual seconds that a cancelled server may take to say goodbye."""


class CancelAt(trio.abc.Instrument):
    """Cancels `scope` before the scheduler step `number`, and counts on."""

    def __init__(self, number: int) -> None:
        self.scope = trio.CancelScope()
        self.steps = 0
        self._number = number

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - Trio calls it by name
        """One step more."""
        self.steps += 1
        if self.steps == self._number:
            self.scope.cancel()


class DoomedHouse:
    """A house as `Story` needs it, whose server is cancelled at some step; phone, agent and webhook live on."""

    def __init__(self, wire: Wire, phone: Phone, webhook: Webhook, staff: trio.Nursery) -> None:
        self.wire = wire
        self.phone = phone
        self.uri = f"sip:800@{SERVER}:5060"
        self._webhook = webhook
        self._staff = staff

    def new_agent(self) -> Agent:
        """As `House.new_agent`."""
        return new_agent(self.wire, self._staff, self._webhook, self.phone)

    def calls(self) -> list[str]:
        """Nobody can ask any more."""
        return []


async def doomed_call(number: int, direction: Direction, hangs_up: Side, audio: bool) -> int:
    """A whole call whose server is cancelled at step `number`, counted from its start; how many steps there were.

    Afterwards the server's task has ended in time, phone and agent know of the end, and no port is left.
    """
    doom = CancelAt(number)
    ports = None if audio else NullPorts()
    with kept_log(logging.ERROR) as book:
        async with open_wire(1) as wire, trio.open_nursery() as nursery:
            webhook = Webhook()
            await nursery.start(webhook.serve, wire.host(AGENT), (AGENT, WEBHOOK_PORT))
            async with open_phone(wire.host(PHONE), PHONE, 5060, seed=1) as phone, trio.open_nursery() as staff:
                phone.audio = audio
                listening, bound = set(wire.listeners), wire.bound
                up, gone = trio.Event(), trio.Event()
                nursery.start_soon(_serve, wire, ports, doom, up, gone)
                await up.wait()
                told = Story(DoomedHouse(wire, phone, webhook, staff))
                with trio.fail_after(4 * PATIENCE):
                    await whole_call(told, direction, hangs_up)
                steps = doom.steps
                doom.scope.cancel()
                with trio.fail_after(GRACE):
                    await gone.wait()
                    if told.agent is not None and connected(told.agent):
                        await told.agent.ended()
                _check_doomed(told)
                staff.cancel_scope.cancel()
            assert set(wire.listeners) == listening
            assert [address for address in wire.bound if address not in bound] == []
            nursery.cancel_scope.cancel()
    assert not book.records, "\n".join(book.lines())
    return steps


async def _serve(wire: Wire, ports: Ports | None, doom: CancelAt, up: trio.Event, gone: trio.Event) -> None:
    outside = outside_of(wire, 1)
    if ports is not None:
        outside = attrs.evolve(outside, ports=ports)
    with doom.scope:
        trio.lowlevel.add_instrument(doom)
        try:
            async with open_server(server_config(), outside):
                up.set()
                await trio.sleep_forever()
        finally:
            up.set()
            gone.set()


def _check_doomed(told: Story) -> None:
    assert told.phones_end != "still up"
    agent = told.agent
    if agent is not None and connected(agent):
        complete = agent.closed == 1000
        check_order(agent.events, complete=complete and "hangup" in agent.names)
