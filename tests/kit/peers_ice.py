"""Two ICE agents on hosts of an in-memory wire, with NATs between as a test likes, and a STUN server."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
from aioice.stun import Class, Message, Method

from rustpbx.core import Address
from rustpbx.media.ice import Gathered, IceAgent, IceOptions, Remote, Selected
from rustpbx.media.ice.shell import IceTransport
from rustpbx.media.ice.stun import read_stun
from rustpbx.shell.network import Network
from rustpbx.testing.wire import Wire

STUN: Address = ("203.0.113.3", 3478)
ALICE, BOB = "192.168.1.10", "192.168.2.20"
ALICE_NAT, BOB_NAT = "198.51.100.1", "198.51.100.2"


async def serve_stun(wire: Wire) -> None:
    """Answer binding requests for ever."""
    sock = await wire.host(STUN[0]).open_datagrams(*STUN)
    while True:
        data, source = await sock.receive()
        asked = read_stun(data)
        answer = Message(Method.BINDING, Class.RESPONSE, asked.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = source
        await sock.send(bytes(answer), source)


def agent(name: str, *, controlling: bool, options: IceOptions | None = None) -> IceAgent:
    """One whose randomness is its name's."""
    return IceAgent(controlling=controlling, entropy=random.Random(name).randbytes, options=options)


def heard_by(network: Network, one: IceAgent) -> tuple[IceTransport, trio.MemoryReceiveChannel[bytes]]:
    """A transport, and the media that comes to it."""
    send, media = trio.open_memory_channel[bytes](100)
    return IceTransport(network, one, send.send_nowait), media


async def fact(transport: IceTransport, kind: type[object]) -> object:
    """The next fact of that kind."""
    async for found in transport.facts:
        if isinstance(found, kind):
            return found
    raise AssertionError(f"ended without {kind.__name__}")


@attrs.define
class Couple:
    """Alice offers, Bob answers."""

    alice: IceTransport
    bob: IceTransport
    heard: tuple[trio.MemoryReceiveChannel[bytes], trio.MemoryReceiveChannel[bytes]]
    """The media that came to Alice, and to Bob."""

    def introduce(self) -> None:
        """Each gets the other's description as it now is."""
        self.bob.tell(Remote(self.alice.agent.local))
        self.alice.tell(Remote(self.bob.agent.local))

    async def connected(self) -> tuple[Selected, Selected]:
        """The paths that Alice and Bob come to."""
        found = [await fact(one, Selected) for one in (self.alice, self.bob)]
        assert all(isinstance(one, Selected) for one in found)
        return found[0], found[1]  # type: ignore[return-value]

    async def talk(self) -> None:
        """Media passes both ways."""
        for one, other, heard in ((self.alice, self.bob, self.heard[1]), (self.bob, self.alice, self.heard[0])):
            assert one.send(b"\x80 media")
            assert await heard.receive() == b"\x80 media"
            one.send(b"\x16 dtls")
            assert (await other.dtls.receive()).data == b"\x16 dtls"


@asynccontextmanager
async def couple(
    wire: Wire,
    *,
    alice: IceAgent | None = None,
    bob: IceAgent | None = None,
    hosts: tuple[list[str], list[str]] = ([ALICE], [BOB]),
) -> AsyncIterator[Couple]:
    """Both run, and know their candidates; at the end both have given back their ports."""
    options = IceOptions(stun_servers=(STUN,))
    before = wire.bound
    two = (
        alice or agent("alice", controlling=True, options=options),
        bob or agent("bob", controlling=False, options=options),
    )
    async with trio.open_nursery() as outer:
        outer.start_soon(serve_stun, wire)
        async with trio.open_nursery() as nursery:
            (one, to_one), (other, to_other) = (
                heard_by(wire.host(own[0]), agent) for own, agent in zip(hosts, two, strict=True)
            )
            transports = (one, other)
            for own, transport in zip(hosts, transports, strict=True):
                await nursery.start(transport.run, own)
            for transport in transports:
                await fact(transport, Gathered)
            yield Couple(*transports, (to_one, to_other))
            for transport in transports:
                transport.close()
        outer.cancel_scope.cancel()
    ours = {*hosts[0], *hosts[1]}
    assert [address for address in wire.bound if address not in before and address[0] in ours] == []
