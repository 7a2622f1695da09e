"""Relays on Debian's coturn: two agents that have nothing else talk through it, and leave nothing there."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from rustpbx.media.ice import Gathered, IceAgent, IceOptions, Transport, TurnServer
from rustpbx.media.ice.shell import IceTransport
from rustpbx.shell.network import RealNetwork
from tests.kit.certificates import authority
from tests.kit.coturn import PASSWORD, USERNAME, Coturn, open_coturn
from tests.kit.peers_ice import Couple, agent, fact
from tests.kit.real import LOOPBACK

pytestmark = [pytest.mark.interop("turnserver"), pytest.mark.real_time, pytest.mark.rfc("8656", "7", "9", "12")]


def trusting() -> ssl.SSLContext:
    """TLS that believes the tests' authority."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


def relayed(coturn: Coturn, transport: Transport, *, controlling: bool, password: str = PASSWORD) -> IceAgent:
    """An agent that has relays alone."""
    server = TurnServer(
        address=coturn.secure if transport is Transport.TLS else coturn.address,
        username=USERNAME,
        password=password,
        transport=transport,
        name=LOOPBACK,
    )
    options = IceOptions(turn_servers=(server,), relay_only=True, allow_loopback=True)
    return agent("alice" if controlling else "bob", controlling=controlling, options=options)


@asynccontextmanager
async def couple(*agents: IceAgent) -> AsyncIterator[Couple]:
    """Both run, and have gathered; at the end they have given back what they had."""
    channels = [trio.open_memory_channel[bytes](100) for _ in agents]
    alice, bob = (
        IceTransport(RealNetwork(), one, send.send_nowait, tls=trusting())
        for one, (send, _) in zip(agents, channels, strict=True)
    )
    async with trio.open_nursery() as nursery:
        for transport in (alice, bob):
            await nursery.start(transport.run, [LOOPBACK])
            await fact(transport, Gathered)
        yield Couple(alice, bob, (channels[0][1], channels[1][1]))
        alice.close()
        bob.close()


@pytest.mark.parametrize("transport", list(Transport))
async def test_two_relays(tmp_path: Path, transport: Transport) -> None:
    """Both ends are relayed: checks go by indications, media by channels; then both allocations are given back."""
    async with open_coturn(tmp_path) as coturn:
        alice, bob = (relayed(coturn, transport, controlling=side) for side in (True, False))
        async with couple(alice, bob) as two:
            assert [len(one.local.candidates) for one in (alice, bob)] == [1, 1], (alice.lost_relays, bob.lost_relays)
            two.introduce()
            first, second = await two.connected()
            assert (first.base, first.remote) == (second.remote, second.base)
            for _ in range(3):
                await two.talk()
            await coturn.program.until("CHANNEL_BIND processed, success", 2)
            await two.talk()
        await coturn.program.until("REFRESH processed, success", 2)
        await coturn.program.until("deleted")
        dropped = {name: n for one in (alice, bob) for name, n in one.counters.items() if name.startswith("turn_")}
        assert dropped == {}


async def test_wrong_credentials(tmp_path: Path) -> None:
    """Coturn's refusal is named."""
    async with open_coturn(tmp_path) as coturn:
        alice, bob = (relayed(coturn, Transport.UDP, controlling=side, password="wrong") for side in (True, False))
        async with couple(alice, bob):
            words = "401 Unauthorized: it does not know this username and password"
            assert [lost.reason for lost in (*alice.lost_relays, *bob.lost_relays)] == [words, words]


async def test_a_quota(tmp_path: Path) -> None:
    """A user who may have one relay has one; the other's refusal is named."""
    async with open_coturn(tmp_path, "--user-quota", "1") as coturn:
        alice, bob = (relayed(coturn, Transport.UDP, controlling=side) for side in (True, False))
        async with couple(alice, bob):
            assert [len(one.local.candidates) for one in (alice, bob)] == [1, 0]
            assert [lost.reason for lost in bob.lost_relays] == ["486 Allocation Quota Reached"]
