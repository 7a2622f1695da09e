"""One SIP socket for both families of IP: an IPv4 peer is known, answered and told of by its IPv4 address."""

from __future__ import annotations

import random

import pytest
import trio

from rustpbx.shell.clock import TrioClock
from rustpbx.shell.network import RealNetwork
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import Answer, IncomingCall, Ring
from rustpbx.sip.hop import Transport
from rustpbx.sip.locate import Unlocated
from rustpbx.sip.message import Via
from rustpbx.sip.parser import parse_message
from rustpbx.sip.shell.connections import Streams
from rustpbx.sip.shell.stack import Stack
from rustpbx.sip.uri import parse_uri
from tests.kit.peers_sip import ANSWER, invite, udp


@pytest.mark.real_time
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
async def test_a_socket_on_every_address_calls_each_peer_by_its_own_family(peer: str) -> None:
    """No `::ffff:127.0.0.1` in Via, Contact or facts: phones that speak IPv4 alone cannot read it."""
    network = RealNetwork()
    phone = await network.open_datagrams(peer, 0)
    stack = Stack(EndpointConfig(), network, TrioClock(), "::", 0, rng=random.Random(1))
    async with trio.open_nursery() as nursery:
        _, port = await nursery.start(stack.run)
        via = Via("UDP", peer, phone.address[1])
        contact = f"sip:alice@[{peer}]:{phone.address[1]}" if ":" in peer else f"sip:alice@{peer}:{phone.address[1]}"
        await phone.send(encode_message(invite(via=via, contact=contact)), (peer, port))
        fact = await stack.facts.receive()
        assert isinstance(fact, IncomingCall)
        assert (fact.source, fact.local_host) == (phone.address, peer)
        stack.wish(Ring(fact.leg))
        stack.wish(Answer(fact.leg, ANSWER))
        for status in (100, 180, 200):
            data, source = await phone.receive()
            response = parse_message(data)
            assert (data.split(b" ")[1], source) == (str(status).encode(), (peer, port))
            assert response.via.host == peer
        assert [contact.uri.host for contact in response.contacts] == [peer]
        nursery.cancel_scope.cancel()
    phone.close()


class _Names(RealNetwork):
    """A network with one name."""

    async def resolve(self, host: str) -> list[str]:
        """An IPv4 address only."""
        return {"phone.example": ["192.0.2.7"]}[host]


@pytest.mark.parametrize(("bound", "found"), [("::", "192.0.2.7"), ("127.0.0.1", "192.0.2.7"), ("::1", None)])
async def test_a_name_is_looked_up_in_every_family_that_the_socket_speaks(bound: str, found: str | None) -> None:
    """A socket for both takes what there is."""
    stack = Stack(EndpointConfig(), _Names(), TrioClock(), bound, 0)
    hops = await stack.locate(parse_uri("sip:phone.example:5060"))
    assert hops == ((udp((found, 5060)),) if found else Unlocated("phone.example has no address of our family"))


@pytest.mark.real_time
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
async def test_one_tcp_port_on_every_address_serves_both_families(peer: str) -> None:
    """As with datagrams, an IPv4 peer is known by its IPv4 address."""
    stack = Stack(
        EndpointConfig(),
        RealNetwork(),
        TrioClock(),
        "::",
        0,
        rng=random.Random(1),
        streams=Streams(ports={Transport.TCP: 0}),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(stack.run)
        port = stack.listening[Transport.TCP][1]
        async with await trio.open_tcp_stream(peer, port) as stream:
            await stream.send_all(encode_message(invite(via=Via("TCP", peer, 5999))))
            fact = await stack.facts.receive()
            assert isinstance(fact, IncomingCall)
            assert (fact.source[0], fact.local_host) == (peer, peer)
            assert (await stream.receive_some()).startswith(b"SIP/2.0 100 ")
        nursery.cancel_scope.cancel()
