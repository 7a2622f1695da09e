"""A proxy that forks every INVITE to several phones at once (RFC 3261 16.7), without a timer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress

import attrs
import trio

from rustpbx.core import Address
from rustpbx.errors import RemoteError
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.message import REASONS, CSeq, Request, Response, Via
from rustpbx.sip.parser import parse_message
from rustpbx.sip.uri import Params
from rustpbx.testing.wire import Wire
from tests.kit.peers_sip import Packet

EDGE: Address = ("192.0.2.40", 5060)


@attrs.define
class _Branch:
    """One phone's part of a forked INVITE: its request, and how it was refused, if it was."""

    request: Request
    target: Address
    answered: bool = False
    refusal: Response | None = None


class Fork:
    """Forwards 1xx and every 2xx; a refusal once all have refused. It records no route: the rest passes it by."""

    def __init__(self, targets: Sequence[Address]) -> None:
        self.address = EDGE
        self._targets = targets
        self._branches: dict[str, list[_Branch]] = {}
        self._upstream: dict[str, tuple[Request, Address]] = {}

    def receive(self, packet: Packet) -> list[Packet]:
        """Take a datagram; what is sent at once."""
        message = packet.message
        if isinstance(message, Response):
            return self._response(message)
        branch = message.via.branch or ""
        if message.method == "INVITE":
            return self._invite(message, branch, packet.source)
        if message.method == "CANCEL":
            return self._cancel(message, branch, packet.source)
        return []  # the ACK of a refusal

    def _invite(self, invite: Request, branch: str, source: Address) -> list[Packet]:
        known = branch in self._branches
        if not known:
            self._upstream[branch] = invite, source
            self._branches[branch] = [
                _Branch(attrs.evolve(invite, vias=(self._via(branch, i), *invite.vias)), target)
                for i, target in enumerate(self._targets)
            ]
        waiting = [b for b in self._branches[branch] if not b.answered]
        trying = [] if known else [self._answer(invite, 100, source)]
        return [*trying, *(self._to(b.request, b.target) for b in waiting)]

    def _via(self, branch: str, number: int) -> Via:
        return Via("UDP", *self.address, Params((("branch", f"{branch}.{number}"),)))

    def _response(self, response: Response) -> list[Packet]:
        branch, _, number = (response.via.branch or "").rpartition(".")
        if branch not in self._branches or response.cseq.method != "INVITE":
            return []
        mine = self._branches[branch][int(number)]
        invite, source = self._upstream[branch]
        upwards = self._to(attrs.evolve(response, vias=response.vias[1:]), source)
        if response.status == 100:
            return []
        if response.status < 300:
            mine.answered |= response.status >= 200
            return [upwards]
        mine.answered = True
        first = mine.refusal is None
        mine.refusal = response
        ack = attrs.evolve(
            mine.request,
            method="ACK",
            vias=mine.request.vias[:1],
            to=response.to,
            cseq=CSeq(invite.cseq.number, "ACK"),
            contacts=(),
            lines=(),
            body=b"",
        )
        all_refused = first and all(b.refusal is not None for b in self._branches[branch])
        return [self._to(ack, mine.target), *([upwards] if all_refused else [])]

    def _cancel(self, cancel: Request, branch: str, source: Address) -> list[Packet]:
        out = [self._answer(cancel, 200 if branch in self._branches else 481, source)]
        for mine in self._branches.get(branch, ()):
            if not mine.answered:
                request = attrs.evolve(cancel, vias=mine.request.vias[:1])
                out.append(self._to(request, mine.target))
        return out

    def _answer(self, request: Request, status: int, source: Address) -> Packet:
        response = Response(
            status=status,
            reason=REASONS[status],
            vias=request.vias,
            from_=request.from_,
            to=request.to if status == 100 else request.to.tagged("fork"),
            call_id=request.call_id,
            cseq=request.cseq,
        )
        return self._to(response, source)

    def _to(self, message: Request | Response, destination: Address) -> Packet:
        return Packet(encode_message(message), self.address, destination)


async def serve_fork(wire: Wire, fork: Fork, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Let the proxy work on a wire, until cancelled. What it cannot read is lost."""
    datagrams = await wire.host(fork.address[0]).open_datagrams(*fork.address)
    task_status.started()
    with closing(datagrams):
        while True:
            data, source = await datagrams.receive()
            with suppress(RemoteError):
                parse_message(data)
                for packet in fork.receive(Packet(data, source, fork.address)):
                    await datagrams.send(packet.data, packet.destination)
