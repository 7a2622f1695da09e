"""The address translator: mappings and filters of each kind, by themselves and around whole calls."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.core import Address
from rustpbx.testing.nat import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    PORT_RESTRICTED,
    SYMMETRIC,
    Behaviour,
    Dependence,
    Nat,
)
from rustpbx.testing.voice import spoken
from rustpbx.testing.wire import Fate, open_wire
from tests.kit.house import PHONE, SERVER
from tests.test_calls import DIAL, SCRIPTED, over, quiet_house

HOME, PUBLIC = ("192.168.1.10", 5060), "198.51.100.1"
PEER, PEERS_OTHER_PORT, STRANGER = ("203.0.113.5", 5060), ("203.0.113.5", 7000), ("203.0.113.9", 5060)
KINDS = {
    "full cone": FULL_CONE,
    "address restricted": ADDRESS_RESTRICTED,
    "port restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
}


@pytest.mark.parametrize(
    ("kind", "same_mapping", "let_in"),
    [
        ("full cone", True, [PEER, PEERS_OTHER_PORT, STRANGER]),
        ("address restricted", True, [PEER, PEERS_OTHER_PORT]),
        ("port restricted", True, [PEER]),
        ("symmetric", False, [PEER]),
    ],
)
def test_each_kind_maps_and_filters_as_its_name_says(kind: str, same_mapping: bool, let_in: list[Address]) -> None:
    """After one datagram to a peer: who may answer, and whether another peer sees the same public port."""
    nat = Nat(PUBLIC, [HOME[0]], KINDS[kind])
    seen = nat.outbound(HOME, PEER, 0.0)
    answers = [source for source in (PEER, PEERS_OTHER_PORT, STRANGER) if nat.inbound(seen[1], source, 1.0) == HOME]
    assert answers == let_in
    assert (nat.outbound(HOME, STRANGER, 2.0) == seen) is same_mapping
    assert seen[0] == PUBLIC


def test_a_mapping_dies_of_silence_from_inside() -> None:
    """Traffic from inside keeps it, traffic from outside does not; a dead one is not used again."""
    nat = Nat(
        PUBLIC, [HOME[0]], Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ENDPOINT_INDEPENDENT, timeout=60)
    )
    first = nat.outbound(HOME, PEER, 0.0)
    assert nat.outbound(HOME, PEER, 50.0) == first
    assert nat.inbound(first[1], PEER, 100.0) == HOME
    assert nat.inbound(first[1], PEER, 111.0) is None
    assert nat.outbound(HOME, PEER, 112.0) != first


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=40),
    st.sampled_from(list(KINDS.values())),
)
def test_nothing_comes_in_that_was_not_asked_for(steps: list[tuple[int, int, bool]], behaviour: Behaviour) -> None:
    """Whatever the order: a mapping leads to the host that made it, and a filter opens only to whom it spoke to."""
    nat = Nat(PUBLIC, [HOME[0]], behaviour)
    spoken: set[tuple[int, int]] = set()
    ports: dict[int, int] = {}
    for inside, outside, outwards in steps:
        home, peer = (HOME[0], 5000 + inside), (f"203.0.113.{outside}", 5060)
        if outwards:
            ports[nat.outbound(home, peer, 0.0)[1]] = inside
            spoken.add((inside, outside))
        for port, owner in ports.items():
            reached = nat.inbound(port, peer, 0.0)
            assert reached in (None, (HOME[0], 5000 + owner))
            if reached is not None and behaviour is not FULL_CONE:
                assert (owner, outside) in spoken


async def test_hosts_behind_one_nat_and_their_public_address() -> None:
    """They talk directly; by the public address only where the NAT hairpins; a private address is not routed."""
    for hairpinning in (False, True):
        async with open_wire() as wire:
            behaviour = Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ENDPOINT_INDEPENDENT, 60, hairpinning)
            wire.nat(PUBLIC, [HOME[0], "192.168.1.11"], behaviour)
            home = await wire.host(HOME[0]).open_datagrams(HOME[0], HOME[1])
            other = await wire.host("192.168.1.11").open_datagrams("192.168.1.11", 5060)
            peer = await wire.host(PEER[0]).open_datagrams(*PEER)
            await other.send(b"direct", HOME)
            assert await home.receive() == (b"direct", ("192.168.1.11", 5060))
            await home.send(b"out", PEER)
            seen = (await peer.receive())[1]
            await peer.send(b"unrouted", HOME)
            assert wire.transcript[-1].fate is Fate.FILTERED
            await other.send(b"around", seen)
            assert wire.transcript[-1].fate is (Fate.DELIVERED if hairpinning else Fate.FILTERED)
            for socket in (home, other, peer):
                socket.close()


@pytest.mark.parametrize("kind", list(KINDS))
async def test_a_phone_behind_each_kind_of_nat_has_its_call(kind: str) -> None:
    """It dials, hears, is heard and is hung up on, though its Contact and SDP name its private address."""
    async with quiet_house() as house:
        house.wire.nat(PUBLIC, [PHONE], KINDS[kind])
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option=SCRIPTED)
            await agent.until("answer")
            await call.answered()
            await trio.sleep(0.5)  # its address is learned from several packets
            await call.say(spoken("hello"))
            assert (await agent.until("asrFinal"))["text"] == "hello"
            await agent.send("tts", text="good morning", playId="a", endOfStream=True)
            await agent.until("trackEnd")
            await trio.sleep(0.5)
            heard = int(abs(call.hear()).max())
            await agent.send("hangup")
            await over(agent)
        await call.ended()
        assert heard > 1000
        assert all(carried.source[0] != PHONE for carried in house.wire.carried(to=SERVER))
