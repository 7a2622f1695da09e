"""The address translator: mappings and filters of each kind, by themselves and around whole calls."""

from __future__ import annotations

import re

import attrs
import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from rustpbx.core import Address
from rustpbx.sip import events as sip
from rustpbx.testing import matching
from rustpbx.testing.house import House, Plan
from rustpbx.testing.nat import (
    ADDRESS_RESTRICTED,
    FULL_CONE,
    PORT_RESTRICTED,
    PORTS,
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


INSIDES = [(HOME[0], 5060), (HOME[0], 5062)]
PEERS = [PEER, PEERS_OTHER_PORT, STRANGER]


def out(nat: Nat, source: Address, destination: Address, now: float) -> Address:
    """The public address of a datagram that the NAT has a port for."""
    seen = nat.outbound(source, destination, now)
    assert seen is not None
    return seen


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
    seen = out(nat, HOME, PEER, 0.0)
    answers = [source for source in (PEER, PEERS_OTHER_PORT, STRANGER) if nat.inbound(seen[1], source, 1.0) == HOME]
    assert answers == let_in
    assert (out(nat, HOME, STRANGER, 2.0) == seen) is same_mapping
    assert seen[0] == PUBLIC


def test_a_mapping_dies_of_silence_from_inside() -> None:
    """Traffic from inside keeps it, traffic from outside does not; a dead one is not used again."""
    nat = Nat(
        PUBLIC, [HOME[0]], Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ENDPOINT_INDEPENDENT, timeout=60)
    )
    first = out(nat, HOME, PEER, 0.0)
    assert nat.outbound(HOME, PEER, 50.0) == first
    assert nat.inbound(first[1], PEER, 100.0) == HOME
    assert nat.inbound(first[1], PEER, 111.0) is None
    assert nat.outbound(HOME, PEER, 112.0) != first


@attrs.frozen
class Sent:
    """A datagram out of a port inside to a peer."""

    at: float
    inside: Address
    seen: Address
    peer: Address


class Translator(RuleBasedStateMachine):
    """A NAT against what RFC 4787 says of it, told as the history of what was sent through it."""

    @initialize(
        mapping=st.sampled_from(Dependence), filtering=st.sampled_from(Dependence), timeout=st.sampled_from([1.0, 60.0])
    )
    def begin(self, mapping: Dependence, filtering: Dependence, timeout: float) -> None:
        """One behaviour of all there are."""
        self.behaviour = Behaviour(mapping, filtering, timeout)
        self.nat = Nat(PUBLIC, [HOME[0]], self.behaviour)
        self.now = 0.0
        self.history: list[Sent] = []

    def fresh(self, sent: Sent) -> bool:
        """Whether a datagram still counts."""
        return self.now - sent.at <= self.behaviour.timeout

    @rule(inside=st.sampled_from(INSIDES), peer=st.sampled_from(PEERS))
    def goes_out(self, inside: Address, peer: Address) -> None:
        """REQ-1, REQ-6: the same public address while it is used for what the mapping depends on, else a new one."""
        seen = out(self.nat, inside, peer, self.now)
        part = self.behaviour.mapping.part
        alike = [sent for sent in self.history if sent.inside == inside and part(sent.peer) == part(peer)]
        if alike and self.fresh(alike[-1]):
            assert seen == alike[-1].seen
        else:
            assert all(seen != sent.seen for sent in self.history)
        self.history.append(Sent(self.now, inside, seen, peer))

    @rule(source=st.sampled_from(PEERS))
    def comes_in(self, source: Address) -> None:
        """REQ-8: every public address lets in whom its owner has spoken to, in the filter's sense, and nobody else."""
        part = self.behaviour.filtering.part
        for seen in {sent.seen for sent in self.history}:
            asked = [sent for sent in self.history if sent.seen == seen and part(sent.peer) == part(source)]
            owner = asked[-1].inside if asked and self.fresh(asked[-1]) else None
            assert self.nat.inbound(seen[1], source, self.now) == owner

    @rule(seconds=st.sampled_from([0.4, 1.0, 30.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        """Without traffic."""
        self.now += seconds


TestTranslator = Translator.TestCase


def test_a_port_is_used_again_when_its_mapping_is_dead_and_not_before() -> None:
    """A NAT with all ports in use drops what needs one more; when they have died, they serve again."""
    nat = Nat(PUBLIC, [HOME[0]], PORT_RESTRICTED)
    seen = [out(nat, (HOME[0], port), PEER, 0.0) for port in range(len(PORTS))]
    assert {address[1] for address in seen} == set(PORTS)
    assert nat.outbound((HOME[0], len(PORTS)), PEER, 119.0) is None
    assert out(nat, (HOME[0], 7), PEER, 119.0) == seen[7]
    assert out(nat, (HOME[0], len(PORTS)), PEER, 121.0) == seen[0]
    assert nat.inbound(seen[0][1], PEER, 121.0) == (HOME[0], len(PORTS))
    assert nat.inbound(seen[7][1], PEER, 121.0) == (HOME[0], 7)
    assert nat.inbound(PORTS.start - 1, PEER, 121.0) is None


@pytest.mark.parametrize(
    ("ip", "behind", "named"),
    [
        (PUBLIC, ["192.168.1.99"], PUBLIC),
        (HOME[0], ["192.168.1.99"], HOME[0]),
        ("198.51.100.2", [HOME[0]], HOME[0]),
        ("198.51.100.2", [PUBLIC], PUBLIC),
        ("198.51.100.2", ["198.51.100.2"], "198.51.100.2"),
    ],
)
async def test_an_address_has_one_place(ip: str, behind: list[str], named: str) -> None:
    """A second NAT at the same address, a host behind two, or one behind itself: refused by name."""
    async with open_wire() as wire:
        wire.nat(PUBLIC, [HOME[0]], FULL_CONE)
        with pytest.raises(ValueError, match=re.escape(named)):
            wire.nat(ip, behind, FULL_CONE)


def test_a_mapping_that_lives_no_time_is_refused() -> None:
    """The timeout of a behaviour is more than nothing."""
    with pytest.raises(ValueError, match="timeout"):
        attrs.evolve(SYMMETRIC, timeout=0)


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("full cone", "symmetric", True),
        ("address restricted", "symmetric", True),
        ("port restricted", "port restricted", True),
        ("port restricted", "symmetric", False),
        ("symmetric", "symmetric", False),
    ],
)
async def test_two_hosts_behind_nats_of_their_own(one: str, other: str, meet: bool) -> None:
    """Both learn their public addresses from a server and send to each other's: the pairs that get through do."""
    async with open_wire() as wire:
        wire.nat(PUBLIC, [HOME[0]], KINDS[one])
        wire.nat("198.51.100.2", ["192.168.2.10"], KINDS[other])
        home = await wire.host(HOME[0]).open_datagrams(*HOME)
        away = await wire.host("192.168.2.10").open_datagrams("192.168.2.10", 5060)
        server = await wire.host(PEER[0]).open_datagrams(*PEER)
        await home.send(b"who am I?", PEER)
        home_seen = (await server.receive())[1]
        await away.send(b"who am I?", PEER)
        away_seen = (await server.receive())[1]
        for _ in range(3):
            await home.send(b"hello", away_seen)
            await away.send(b"hello", home_seen)
        inside = {HOME[0], "192.168.2.10"}
        arrived = [carried for carried in wire.carried(fates=[Fate.DELIVERED]) if carried.data == b"hello"]
        assert bool(arrived) is meet
        assert inside.isdisjoint(carried.source[0] for carried in wire.transcript)
        for socket in (home, away, server):
            socket.close()


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


@pytest.mark.parametrize("kind", list(KINDS))
async def test_a_phone_behind_each_kind_of_nat_is_called(kind: str) -> None:
    """It keeps its way to the server open, is dialled at its public address, answers, is heard, and is hung up on."""
    async with quiet_house() as house:
        house.wire.nat(PUBLIC, [PHONE], KINDS[kind])
        house.wire.send(house.phone.address, (SERVER, 5060), b"\r\n\r\n")  # RFC 5626 section 3.5.1
        ip, port = house.wire.transcript[-1].source
        async with house.agent() as agent:
            await agent.send("invite", option={"callee": f"sip:phone@{ip}:{port}", **SCRIPTED})
            call = await house.phone.ring()
            call.answer()
            await agent.until("answer")
            await call.until(sip.CallConfirmed)
            await trio.sleep(0.5)
            await call.say(spoken("hello"))
            assert (await agent.until("asrFinal"))["text"] == "hello"
            await agent.send("hangup")
            await over(agent)
        assert isinstance((await call.ended()).cause, sip.ByeReceived)
        await house.settle()


async def test_a_call_outlives_its_mapping() -> None:
    """Ten silent minutes and the way in is closed: our BYE is lost, the agent's call is over, and nothing is left."""
    async with House(Plan(signalling_only=True)).open() as house:
        house.wire.nat(PUBLIC, [PHONE], PORT_RESTRICTED)
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={})
            await agent.until("answer")
            await call.answered()
            await trio.sleep(600)
            await agent.send("hangup")
            await over(agent)
        await trio.sleep(40)
        byes = house.wire.carried(matching.request("BYE"))
        assert {carried.fate for carried in byes} == {Fate.FILTERED}
        assert (call.ending, set(house.leftovers().values())) == (None, {0})
        call.hang_up()
        answer = await house.wire.until(matching.response(481, "BYE"))
        assert answer.destination[0] == PUBLIC
        await house.settle()


async def test_a_phone_hangs_up_through_a_new_mapping() -> None:
    """Its BYE comes from another port than its INVITE did: it is the same call, and it is over."""
    async with House(Plan(signalling_only=True)).open() as house:
        house.wire.nat(PUBLIC, [PHONE], SYMMETRIC)
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("accept", option={})
            await agent.until("answer")
            await call.answered()
            await trio.sleep(600)
            call.hang_up()
            hangup = await over(agent)
        assert (hangup["reason"], hangup["initiator"]) == ("caller", "caller")
        ports = {carried.source[1] for carried in house.wire.carried(matching.sip(to=SERVER))}
        assert len(ports) == 2
        await house.settle()
