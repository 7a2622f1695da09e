"""The stack on an in-memory wire: sockets, names, ticks, bounded queues, a clean end."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from rustpbx.errors import LocalError
from rustpbx.shell.clock import TrioClock
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import (
    Answer,
    ByeReceived,
    CallAnswered,
    CallConfirmed,
    CallProgress,
    CallRefused,
    HangUp,
    IncomingCall,
    Ring,
    SendInvite,
)
from rustpbx.sip.message import NameAddr
from rustpbx.sip.shell import stack as stack_module
from rustpbx.sip.shell.stack import Stack
from rustpbx.sip.trace import Traced
from rustpbx.sip.uri import parse_uri
from rustpbx.testing.network import MemoryNetwork
from rustpbx.testing.wire import Link, Wire, open_wire
from tests.kit.peers_sip import ANSWER, LEG, OFFER

ALICE, BOB = "10.0.0.1", "10.0.0.2"


def wish(callee: str = f"sip:bob@{BOB}:5060") -> SendInvite:
    """Alice calls."""
    caller = NameAddr(parse_uri(f"sip:alice@{ALICE}"))
    return SendInvite(leg=LEG, caller=caller, callee=parse_uri(callee), body=OFFER, local_host=ALICE)


def make(network: MemoryNetwork, host: str, *, port: int = 5060, external_ip: str | None = None) -> Stack:
    """A stack with seeded ids."""
    return Stack(EndpointConfig(), network, TrioClock(epoch=0), host, port, external_ip, random.Random(host))


@asynccontextmanager
async def pair(link: Link | None = None) -> AsyncIterator[tuple[Stack, Stack, Wire]]:
    """Alice and Bob, running."""
    async with open_wire(seed=3) as wire, trio.open_nursery() as nursery:
        for one, other in ((ALICE, BOB), (BOB, ALICE)):
            wire.link(one, other, link or Link())
        alice, bob = make(wire.host(ALICE), ALICE), make(wire.host(BOB), BOB)
        for stack in (alice, bob):
            await nursery.start(stack.run)
        yield alice, bob, wire
        nursery.cancel_scope.cancel()


async def answer(bob: Stack) -> str:
    """Bob rings and answers; his leg."""
    incoming = await bob.facts.receive()
    assert isinstance(incoming, IncomingCall)
    bob.wish(Ring(incoming.leg))
    bob.wish(Answer(incoming.leg, ANSWER))
    return incoming.leg


async def test_a_whole_call_over_the_wire() -> None:
    """Wishes in, facts out, on both sides."""
    async with pair() as (alice, bob, _):
        alice.wish(wish())
        leg = await answer(bob)
        assert [await alice.facts.receive() for _ in range(2)] == [
            CallProgress(LEG, 180, "Ringing", b""),
            CallAnswered(LEG, ANSWER),
        ]
        assert await bob.facts.receive() == CallConfirmed(leg, b"")
        alice.wish(HangUp(LEG))
        assert await bob.facts.receive() == ByeReceived(leg)
        await trio.sleep(33)
        assert [stack.counters["transactions_running"] + stack.counters["calls"] for stack in (alice, bob)] == [0, 0]


async def test_a_call_survives_a_bad_wire() -> None:
    """A third of all datagrams lost, some doubled and swapped: the ticks repair it."""
    link = Link(loss=0.3, duplication=0.2, reorder=0.2, delay=0.05, jitter=0.02)
    async with pair(link) as (alice, bob, _):
        alice.wish(wish())
        leg = await answer(bob)
        fact = await alice.facts.receive()
        while not isinstance(fact, CallAnswered):
            fact = await alice.facts.receive()
        assert await bob.facts.receive() == CallConfirmed(leg, b"")
        bob.wish(HangUp(leg))
        assert await alice.facts.receive() == ByeReceived(LEG)


async def test_names_are_resolved_off_the_core_once() -> None:
    """The INVITE waits for the look-up; the ACK uses the remembered address."""
    async with pair() as (alice, bob, wire):
        wire.names["bob.test"] = (BOB,)
        alice.wish(wish("sip:bob@bob.test"))
        await answer(bob)
        await alice.facts.receive()
        wire.names.clear()
        assert await alice.facts.receive() == CallAnswered(LEG, ANSWER)


async def test_an_unknown_name_refuses_the_call() -> None:
    """Undeliverable, then 503, at once."""
    async with pair() as (alice, _, _):
        alice.wish(wish("sip:bob@nowhere.test"))
        fact = await alice.facts.receive()
        assert isinstance(fact, CallRefused)
        assert (fact.status, fact.reason.startswith("cannot resolve nowhere.test"), trio.current_time()) == (
            503,
            True,
            0,
        )
        assert alice.counters["undeliverable"] == 1


async def test_nobody_at_the_address_times_out_at_32_seconds() -> None:
    """The tick task keeps the schedule in virtual time."""
    async with pair() as (alice, _, wire):
        alice.wish(wish("sip:bob@10.0.0.99"))
        assert await alice.facts.receive() == CallRefused(LEG, 408, "Request Timeout")
        sent = [carried.at for carried in wire.transcript if carried.source[0] == ALICE]
        assert (sent, trio.current_time()) == ([0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5], 32.0)


async def test_flush_waits_for_what_is_under_way() -> None:
    """The BYE is sent and answered when it returns, without waiting longer than needed."""
    async with pair(Link(delay=0.1)) as (alice, bob, _):
        alice.wish(wish())
        await answer(bob)
        while not isinstance(await alice.facts.receive(), CallAnswered):
            pass
        before = trio.current_time()
        alice.wish(HangUp(LEG))
        await alice.flush()
        assert trio.current_time() - before == pytest.approx(0.2)


async def test_flush_gives_up_on_a_silent_peer() -> None:
    """At most `patience`."""
    async with pair() as (alice, _, _):
        alice.wish(wish("sip:bob@10.0.0.99"))
        await alice.flush(patience=2.0)
        assert trio.current_time() == 2.0


async def test_trace_sees_every_datagram() -> None:
    """Direction, peer, bytes and time, for SIP logs."""
    async with pair() as (alice, bob, _):
        seen: list[Traced] = []
        alice.trace = seen.append
        alice.wish(wish())
        await answer(bob)
        while not isinstance(await alice.facts.receive(), CallAnswered):
            pass
        await alice.flush()
        first_words = [(traced.direction, traced.peer.address, traced.data.split()[:2]) for traced in seen]
        uri = f"sip:bob@{BOB}:5060".encode()
        assert first_words == [
            ("out", (BOB, 5060), [b"INVITE", uri]),
            ("in", (BOB, 5060), [b"SIP/2.0", b"100"]),
            ("in", (BOB, 5060), [b"SIP/2.0", b"180"]),
            ("in", (BOB, 5060), [b"SIP/2.0", b"200"]),
            ("out", (BOB, 5060), [b"ACK", uri]),
        ]


async def test_facts_that_nobody_takes_end_their_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue never blocks the stack: the call is refused, and counted."""
    monkeypatch.setattr(stack_module, "MOST_FACTS", 0)
    async with pair() as (alice, bob, wire):
        alice.wish(wish())
        await trio.sleep(1)
        answers = [c.data.split(b"\r\n")[0] for c in wire.transcript if c.source[0] == BOB]
        assert answers == [b"SIP/2.0 100 Trying", b"SIP/2.0 503 Service Unavailable"]
        assert (bob.counters["facts_lost"], alice.counters["facts_lost"]) == (1, 1)


async def test_junk_and_floods_do_not_stop_the_stack() -> None:
    """Whatever arrives, the next call works."""
    async with pair() as (alice, bob, wire):
        socket = await wire.host("10.0.0.3").open_datagrams("10.0.0.3", 5060)
        rng = random.Random(1)
        for _ in range(200):
            await socket.send(rng.randbytes(rng.randint(0, 300)), (BOB, 5060))
        alice.wish(wish())
        await answer(bob)
        assert isinstance(await alice.facts.receive(), CallProgress)
        assert bob.counters["bugs"] == 0
        socket.close()


async def test_a_bug_costs_one_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the core is logged and counted; the copy of the INVITE gets through."""
    async with pair() as (alice, bob, _):
        endpoint = bob._endpoint
        assert endpoint is not None
        handle, failures = endpoint._layer.absorb, iter([True])

        def absorb(*args: object) -> bool:
            if next(failures, False):
                raise ZeroDivisionError
            return handle(*args)  # type: ignore[arg-type] # handed through

        monkeypatch.setattr(endpoint._layer, "absorb", absorb)
        alice.wish(wish())
        await answer(bob)
        assert (bob.counters["bugs"], trio.current_time()) == (1, 0.5)


@attrs.frozen
class Advertised:
    """What a stack says of itself."""

    bind: str
    external_ip: str | None
    host: str


@pytest.mark.parametrize(
    "case",
    [
        Advertised(ALICE, None, ALICE),
        Advertised("0.0.0.0", None, ALICE),  # noqa: S104 - the wildcard on an in-memory wire
        Advertised(ALICE, "203.0.113.4", "203.0.113.4"),
        Advertised("2001:db8:1::1", None, "2001:db8:1::1"),
    ],
)
async def test_the_advertised_address(case: Advertised) -> None:
    """external_ip, else the bound host, else the route's own address; for names as well."""
    async with open_wire(seed=1) as wire:
        stack = make(wire.host(ALICE), case.bind, external_ip=case.external_ip)
        assert [stack.local_host(peer) for peer in (BOB, "bob.test")] == [case.host, case.host]


@pytest.mark.parametrize("bind", [ALICE, "0.0.0.0"])  # noqa: S104 - the wildcard on an in-memory wire
async def test_the_external_address_is_not_for_peers_on_this_machine(bind: str) -> None:
    """A phone on loopback reaches us without the router."""
    async with open_wire(seed=1) as wire:
        stack = make(wire.host(ALICE), bind, external_ip="203.0.113.4")
        assert [stack.local_host(peer) for peer in ("127.0.0.1", "127.8.8.8", "::1", BOB)] == [
            *(ALICE, ALICE, ALICE),
            "203.0.113.4",
        ]


async def test_port_zero_is_advertised_as_the_bound_port() -> None:
    """Via and Contact carry the real port."""
    async with open_wire(seed=1) as wire, trio.open_nursery() as nursery:
        stack = make(wire.host(ALICE), ALICE, port=0)
        address = await nursery.start(stack.run)
        assert (stack.address, address[1] > 0) == (address, True)
        stack.wish(wish())
        await stack.flush(0.1)
        assert f"Contact: <sip:alice@{ALICE}:{address[1]}>".encode() in wire.transcript[0].data
        nursery.cancel_scope.cancel()


async def test_a_stack_that_does_not_run_takes_no_wishes_and_frees_its_port() -> None:
    """LocalError before and after; the port can be bound again."""
    async with open_wire(seed=1) as wire:
        stack = make(wire.host(ALICE), ALICE)
        with pytest.raises(LocalError):
            stack.wish(wish())
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                await nursery.start(stack.run)
                nursery.cancel_scope.cancel()
        with pytest.raises(LocalError):
            stack.wish(wish())
