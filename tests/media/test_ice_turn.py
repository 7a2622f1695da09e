"""Paths by way of TURN servers, in virtual time: where nothing else leads, by UDP and TCP, kept and given back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from aioice.stun import Method

from rustpbx.media.ice import (
    Failed,
    Gathered,
    IceAgent,
    IceOptions,
    RelayLost,
    Remote,
    Restart,
    Silent,
    Transport,
    TurnServer,
)
from rustpbx.media.ice.tables import AgentState
from rustpbx.media.sdp.ice import Candidate, CandidateKind
from rustpbx.testing.nat import PORT_RESTRICTED, SYMMETRIC, Behaviour
from rustpbx.testing.turn import TurnService
from rustpbx.testing.wire import Link, Wire, open_wire
from tests.kit.peers_ice import ALICE, ALICE_NAT, BOB, BOB_NAT, STUN, Couple, agent, couple, fact, heard_by

TURN = "203.0.113.9"
USERS = {"alice": "wonderland", "bob": "builder"}
pytestmark = pytest.mark.rfc("8656", "7", "9", "12")


def server(name: str, transport: Transport = Transport.UDP, host: str = TURN) -> TurnServer:
    """As one of the two knows it."""
    return TurnServer(address=(host, 3478), username=name, password=USERS[name], transport=transport)


def relayed(name: str, *, controlling: bool, only: bool = False, way: TurnServer | None = None) -> IceAgent:
    """An agent that may use the relay, or nothing else."""
    options = IceOptions(turn_servers=(way or server(name),), relay_only=only)
    return agent(name, controlling=controlling, options=options)


@asynccontextmanager
async def service(wire: Wire, host: str = TURN, **more: object) -> AsyncIterator[TurnService]:
    """A server, which at the end has nothing of anybody's any more."""
    found = TurnService(wire.host(host), host, users=USERS, **more)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(found.run)
        yield found
        assert found.allocations == {}
        nursery.cancel_scope.cancel()


def both(
    wire: Wire, *, only: bool = False, transport: Transport = Transport.UDP
) -> AbstractAsyncContextManager[Couple]:
    """Alice and Bob, with a relay each."""
    alice, bob = (
        relayed(name, controlling=name == "alice", only=only, way=server(name, transport)) for name in ("alice", "bob")
    )
    return couple(wire, alice=alice, bob=bob)


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
async def test_relays_alone(transport: Transport) -> None:
    """Two that tell each other of nothing but relays find a path between those, and are nowhere else seen."""
    async with open_wire() as wire, service(wire) as turn:
        wire.all_links(Link(delay=0.02))
        async with both(wire, only=True, transport=transport) as two:
            kinds = [c.kind for one in (two.alice, two.bob) for c in one.agent.local.candidates]
            assert kinds == [CandidateKind.RELAYED] * 2
            two.introduce()
            first, second = await two.connected()
            assert (first.base, first.remote) == (second.remote, second.base)
            assert (first.base[0], first.remote[0]) == (TURN, TURN)
            await two.talk()
            assert {c.destination[0] for c in wire.transcript if c.source[0] in (ALICE, BOB)} <= {TURN, STUN[0]}
            assert turn.counters["channel_bind"] == 2
        assert turn.counters["given back"] == 2


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
@pytest.mark.parametrize("kinds", [(SYMMETRIC, SYMMETRIC), (PORT_RESTRICTED, SYMMETRIC), (SYMMETRIC, PORT_RESTRICTED)])
async def test_nats_that_nothing_else_passes(kinds: tuple[Behaviour, Behaviour], transport: Transport) -> None:
    """Behind NATs that let no two hosts speak, one relay is enough, and it is used."""
    async with open_wire() as wire, service(wire):
        wire.nat(ALICE_NAT, [ALICE], kinds[0])
        wire.nat(BOB_NAT, [BOB], kinds[1])
        wire.all_links(Link(delay=0.02))
        alice = relayed("alice", controlling=True, way=server("alice", transport))
        async with couple(wire, alice=alice) as two:
            two.introduce()
            first, second = await two.connected()
            assert (first.base[0], first.remote[0]) == (TURN, BOB_NAT)
            assert second.remote == first.base
            await two.talk()


async def test_a_direct_path_is_better() -> None:
    """A relay that is not needed is not used."""
    async with open_wire() as wire, service(wire), both(wire) as two:
        two.introduce()
        first, _ = await two.connected()
        assert (first.base[0], first.remote[0]) == (ALICE, BOB)


async def test_ipv6_only() -> None:
    """A server and two hosts that have nothing else: the relays are asked for by family."""
    six, host = (["2001:db8::1"], ["2001:db8::2"]), "2001:db8::9"
    async with open_wire() as wire, service(wire, host):
        alice, bob = (
            relayed(name, controlling=name == "alice", only=True, way=server(name, host=host)) for name in USERS
        )
        async with couple(wire, hosts=six, alice=alice, bob=bob) as two:
            two.introduce()
            first, _ = await two.connected()
            assert (first.base[0], first.remote[0]) == (host, host)
            await two.talk()


async def test_a_restart_by_way_of_relays() -> None:
    """The old path carries media until there is the new one, and so do the relays."""
    async with open_wire() as wire, service(wire) as turn, both(wire, only=True) as two:
        wire.all_links(Link(delay=0.02))
        two.introduce()
        await two.connected()
        for _ in range(2):
            two.alice.tell(Restart())
            await trio.testing.wait_all_tasks_blocked()
            await two.talk()
            two.bob.tell(Remote(two.alice.agent.local))
            await trio.testing.wait_all_tasks_blocked()
            two.alice.tell(Remote(two.bob.agent.local))
            await two.connected()
            await two.talk()
        assert turn.counters["allocate"] == 2


async def test_permissions_end_with_the_pairs_that_wanted_them() -> None:
    """A host of the peer's that cannot be reached has one while it is checked; then only the path's is renewed."""
    other = "192.0.2.77"
    alice = relayed("alice", controlling=True, only=True)
    async with open_wire() as wire, service(wire) as turn, couple(wire, alice=alice) as two:
        nobody = Candidate("9", 2**31 - 1, (other, 4000), CandidateKind.HOST)
        theirs = two.bob.agent.local
        two.bob.tell(Remote(two.alice.agent.local))
        two.alice.tell(Remote(attrs.evolve(theirs, candidates=(nobody, *theirs.candidates))))
        await two.connected()
        (allocation,) = turn.allocations.values()
        assert sorted(allocation.permissions) == sorted([BOB, other])
        await trio.sleep(600)
        now = trio.current_time()
        assert [host for host, until in allocation.permissions.items() if until > now] == [BOB]
        await two.talk()


@pytest.mark.rfc("8656", "8", "10")
@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
async def test_a_relayed_call_outlives_every_lifetime(transport: Transport) -> None:
    """Allocation, permissions and channels are kept, with nonces that are good for a minute and sometimes forgotten."""
    async with open_wire() as wire, service(wire, nonce_lifetime=60.0) as turn:
        wire.all_links(Link(delay=0.02))
        async with both(wire, only=True, transport=transport) as two:
            two.introduce()
            await two.connected()
            for _ in range(2):
                await trio.sleep(700)
                turn.forget_nonces()
                await two.talk()
            assert [one.agent.state for one in (two.alice, two.bob)] == [AgentState.CONNECTED] * 2
            assert turn.counters["438"] > 0
            assert [turn.counters[name] for name in ("not permitted", "channel unknown", "437")] == [0, 0, 0]
        assert turn.counters["given back"] == 2


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
async def test_the_server_dies(transport: Transport) -> None:
    """The peer cannot be heard any more: its owner is told after 12 s, and after 30 s nothing is sent."""
    async with open_wire() as wire, service(wire) as turn:
        async with both(wire, only=True, transport=transport) as two:
            two.introduce()
            await two.connected()
            begun = trio.current_time()
            turn.stop()
            if transport is Transport.TCP:
                await trio.testing.wait_all_tasks_blocked()
                assert [one.reason for one in two.alice.agent.lost_relays] == ["the server has closed the stream"]
                assert two.alice.agent.local.candidates == ()
                assert trio.current_time() == begun
            await fact(two.alice, Silent)
            assert trio.current_time() == pytest.approx(begun + 12.0)
            assert "has not consented" in str(await fact(two.alice, Failed))
            assert trio.current_time() == pytest.approx(begun + 30.0)
            assert two.alice.agent.send(b"\x80") is None
            two.alice.close()
            begun = trio.current_time()
        assert trio.current_time() - begun <= 1.5


async def lost(wire: Wire, one: IceAgent) -> list[RelayLost]:
    """The relays that an agent on Alice's host has not got when its candidates are complete."""
    transport, _ = heard_by(wire.host(ALICE), one)
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run, [ALICE])
        await fact(transport, Gathered)
        transport.close()
    return list(one.lost_relays)


@pytest.mark.rfc("8656", "19")
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (300, "300 Try Alternate"),
        (403, "403 Forbidden"),
        (437, "437 Allocation Mismatch"),
        (441, "441 Wrong Credentials: the allocation is another user's"),
        (442, "442 Unsupported Transport Protocol"),
        (486, "486 Allocation Quota Reached"),
        (508, "508 Insufficient Capacity"),
        (599, "599 "),
    ],
)
async def test_a_refusal_is_named(code: int, words: str) -> None:
    """The candidates are complete without a relay at once, and it is said what the server has answered."""
    async with open_wire() as wire, service(wire) as turn:
        turn.refuse(Method.ALLOCATE, code)
        one = relayed("alice", controlling=True)
        assert await lost(wire, one) == [RelayLost(server("alice"), words)]
        assert trio.current_time() < 1.0


@pytest.mark.rfc("8489", "9.2")
@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
async def test_wrong_credentials(transport: Transport) -> None:
    """They are tried once."""
    wrong = attrs.evolve(server("alice", transport), password="looking glass")
    async with open_wire() as wire, service(wire) as turn:
        told = await lost(wire, relayed("alice", controlling=True, way=wrong))
        words = "401 Unauthorized: it does not know this username and password"
        assert told == [RelayLost(wrong, words)]
        assert turn.counters == {"401": 2}


async def test_no_path_for_want_of_a_relay() -> None:
    """Where a relay would have been the only way, the reason says why there is none."""
    async with open_wire() as wire, service(wire, most=0):
        wire.nat(ALICE_NAT, [ALICE], SYMMETRIC)
        wire.nat(BOB_NAT, [BOB], SYMMETRIC)
        async with both(wire) as two:
            two.introduce()
            reason = str(await fact(two.alice, Failed))
            assert "candidate pairs works; no relay at turn:203.0.113.9:3478 by udp: 486 Allocation Quota" in reason


async def test_a_user_has_enough_already() -> None:
    """The quota of a server is one of its refusals."""
    async with open_wire() as wire, service(wire, most=0):
        told = await lost(wire, relayed("alice", controlling=True))
        assert told == [RelayLost(server("alice"), "486 Allocation Quota Reached")]


@pytest.mark.parametrize(
    ("transport", "words"),
    [
        (Transport.UDP, "no answer within 5 s"),
        (Transport.TCP, "it cannot be reached: [Errno 111] Connection refused"),
    ],
)
async def test_nobody_is_there(transport: Transport, words: str) -> None:
    """Candidates are complete after 5 s at the latest."""
    way = server("alice", transport)
    async with open_wire() as wire:
        assert await lost(wire, relayed("alice", controlling=True, way=way)) == [RelayLost(way, words)]
        assert trio.current_time() <= 5.0


async def test_a_server_that_wants_ever_other_nonces() -> None:
    """It is asked a few times and given up, long before the time is over."""
    async with open_wire() as wire, service(wire) as turn:
        turn.refuse(Method.ALLOCATE, 438)
        told = await lost(wire, relayed("alice", controlling=True))
        assert told == [RelayLost(server("alice"), "438 Stale Nonce")]
        assert turn.counters["438"] <= 5


async def test_a_peer_that_the_server_forbids() -> None:
    """No permission, no path: nothing is sent there, and it is counted."""
    async with open_wire() as wire, service(wire, forbidden=frozenset({BOB})) as turn:
        async with couple(wire, alice=relayed("alice", controlling=True, only=True)) as two:
            two.introduce()
            await fact(two.alice, Failed)
            assert two.alice.agent.counters["turn_not_permitted"] > 0
        assert turn.counters["403"] > 0


@pytest.mark.parametrize("seed", range(3))
async def test_a_bad_line_to_the_relay(seed: int) -> None:
    """With 20 % loss, reordering and duplicates a relayed path is found, kept and given back."""
    async with open_wire(seed) as wire, service(wire):
        wire.all_links(Link(loss=0.2, reorder=0.2, duplication=0.1, delay=0.03, jitter=0.02))
        alice = relayed("alice", controlling=True, only=True)
        async with couple(wire, alice=alice) as two:
            two.introduce()
            await two.connected()
            await trio.sleep(600)
            assert AgentState.FAILED not in (two.alice.agent.state, two.bob.agent.state)
        await trio.sleep(600)  # of what was not given back, the server knows no longer
