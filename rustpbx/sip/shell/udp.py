"""STUN on the UDP socket: peers' binding requests answered, and our own flows kept open (RFC 5626 3.5.2, 4.4.2)."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs
import trio

from rustpbx.core import Address
from rustpbx.sip.hop import Hop
from rustpbx.sip.stun import answer_binding, binding_request, mapped_address, new_transaction

EVERY = (24.0, 29.0)
"""Seconds between two requests, at random within it: less than the 30 s that a NAT keeps a binding (RFC 5626 4.4.2)."""
RESENDS = (0.5, 1.0, 2.0, 4.0)
"""Seconds after which a request is sent again; after the last of them nobody is there."""

SendDatagram = Callable[[bytes, Address], None]
FlowLost = Callable[[Hop, str], None]


@attrs.define(eq=False)
class _Flow:
    """One peer that we keep the way to open. `mapped` is our address as it sees it, from its first answer on."""

    hop: Hop
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    transaction: bytes = b""
    answered: trio.Event = attrs.field(factory=trio.Event)
    mapped: Address | None = None
    moved: bool = False


class UdpFlows:
    """The UDP flows of one socket. `send` puts a datagram out; `lost` is told once of a flow that has failed."""

    def __init__(self, send: SendDatagram, lost: FlowLost, rng: random.Random) -> None:
        self._send = send
        self._lost = lost
        self._rng = rng
        self._flows: dict[Address, _Flow] = {}

    def hear(self, data: bytes, source: Address) -> None:
        """Take a STUN datagram."""
        answer = answer_binding(data, source)
        if answer is not None:
            self._send(answer, source)
            return
        said, flow = mapped_address(data), self._flows.get(source)
        if said is None or flow is None or said[0] != flow.transaction:
            return
        flow.moved = flow.mapped not in (None, said[1])
        flow.mapped = said[1]
        flow.answered.set()

    def keep(self, hop: Hop, nursery: trio.Nursery) -> None:
        """Send binding requests to this peer until `let_go`."""
        if hop.address not in self._flows:
            self._flows[hop.address] = flow = _Flow(hop)
            nursery.start_soon(self._keep, flow, name=f"keep {hop}")

    def let_go(self, hop: Hop) -> None:
        """No more of them."""
        flow = self._flows.pop(hop.address, None)
        if flow is not None:
            flow.scope.cancel()

    async def _keep(self, flow: _Flow) -> None:
        problem = ""
        with flow.scope:
            while not problem:
                await trio.sleep(self._rng.uniform(*EVERY))
                problem = await self._ask(flow)
        if problem:
            self._flows.pop(flow.hop.address, None)
            self._lost(flow.hop, problem)

    async def _ask(self, flow: _Flow) -> str:
        """Ask once; what is wrong with the flow. A peer that has never answered does not speak STUN: nothing is."""
        flow.transaction, flow.answered = new_transaction(self._rng), trio.Event()
        for patience in RESENDS:
            self._send(binding_request(flow.transaction), flow.hop.address)
            with trio.move_on_after(patience):
                await flow.answered.wait()
                return "our address has changed" if flow.moved else ""
            if flow.mapped is None:
                return ""
        return "binding requests are not answered"
