"""Two ICE agents over a wire with NATs, loss and strangers, in virtual time."""

from __future__ import annotations

import itertools

import attrs
import pytest
import trio
import trio.testing

from rustpbx.media.ice import Failed, Gathered, IceOptions, Remote, Restart, Returned, Silent, Trickled
from rustpbx.media.ice.tables import AgentState
from rustpbx.media.sdp.ice import Candidate, CandidateKind, parse_candidate
from rustpbx.shell.network import RealNetwork
from rustpbx.testing.nat import ADDRESS_RESTRICTED, FULL_CONE, PORT_RESTRICTED, SYMMETRIC, Behaviour
from rustpbx.testing.wire import Link, open_wire
from tests.kit.peers_ice import ALICE, ALICE_NAT, BOB, BOB_NAT, STUN, Couple, agent, couple, fact, heard_by

KINDS = {
    "full cone": FULL_CONE,
    "address restricted": ADDRESS_RESTRICTED,
    "port restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
}
HOPELESS = {("port restricted", "symmetric"), ("symmetric", "port restricted"), ("symmetric", "symmetric")}
"""Between these only a relay helps."""

SERVED = IceOptions(stun_servers=(STUN,))
pytestmark = pytest.mark.rfc("8445", "7.3")


async def test_two_hosts_find_each_other_and_talk() -> None:
    """Without NATs both come to the same host pair, and DTLS and RTP pass on it."""
    async with open_wire() as wire, couple(wire) as two:
        two.introduce()
        first, second = await two.connected()
        assert (first.base, first.remote) == (second.remote, second.base)
        assert (first.base[0], first.remote[0]) == (ALICE, BOB)
        await two.talk()


@pytest.mark.parametrize(("one", "other"), [p for p in itertools.product(KINDS, KINDS) if p not in HOPELESS])
async def test_nats_of_every_kind_are_passed(one: str, other: str) -> None:
    """Where the two kinds of NAT let two hosts speak at all, they do."""
    async with open_wire() as wire:
        wire.nat(ALICE_NAT, [ALICE], KINDS[one])
        wire.nat(BOB_NAT, [BOB], KINDS[other])
        wire.all_links(Link(delay=0.02))
        async with couple(wire) as two:
            two.introduce()
            first, second = await two.connected()
            assert (first.remote[0], second.remote[0]) == (BOB_NAT, ALICE_NAT)
            await two.talk()


@pytest.mark.parametrize("kinds", [(PORT_RESTRICTED, SYMMETRIC), (SYMMETRIC, SYMMETRIC)])
async def test_what_no_path_leads_through_is_said(kinds: tuple[Behaviour, Behaviour]) -> None:
    """Two NATs that need a relay, and none there: both sides give up at the time that RFC 8863 names."""
    async with open_wire() as wire:
        wire.nat(ALICE_NAT, [ALICE], kinds[0])
        wire.nat(BOB_NAT, [BOB], kinds[1])
        async with couple(wire) as two:
            begun = trio.current_time()
            two.introduce()
            assert str(await fact(two.alice, Failed)).startswith("Failed(reason='none of ")
            assert trio.current_time() == pytest.approx(begun + 39.5)


@pytest.mark.parametrize("seed", range(5))
async def test_a_fifth_is_lost_and_order_is_too(seed: int) -> None:
    """With 20 % loss, reordering and duplicates both still come to one path."""
    async with open_wire(seed) as wire:
        wire.all_links(Link(loss=0.2, reorder=0.2, duplication=0.1, delay=0.03, jitter=0.02))
        async with couple(wire) as two:
            two.introduce()
            first, second = await two.connected()
            assert (first.base, first.remote) == (second.remote, second.base)


async def test_ipv6_only() -> None:
    """Two hosts that have nothing else."""
    six = ["2001:db8::1"], ["2001:db8::2"]
    async with open_wire() as wire, couple(wire, hosts=six) as two:
        two.introduce()
        first, second = await two.connected()
        assert (first.remote[0], second.remote[0]) == ("2001:db8::2", "2001:db8::1")


@pytest.mark.rfc("8445", "7.3.1.1")
@pytest.mark.parametrize("controlling", [True, False])
async def test_two_of_the_same_role(controlling: bool) -> None:
    """If both control, or none, the tie-breakers decide, and there is a path."""
    alice, bob = (agent(name, controlling=controlling, options=SERVED) for name in ("alice", "bob"))
    async with open_wire() as wire, couple(wire, alice=alice, bob=bob) as two:
        wire.all_links(Link(delay=0.02))
        two.introduce()
        first, second = await two.connected()
        assert (first.base, first.remote) == (second.remote, second.base)
        assert alice.controlling != bob.controlling
        assert alice.counters["ice_role_changes"] + bob.counters["ice_role_changes"] == 1


@pytest.mark.rfc("7675", "5.1")
async def test_consent_is_lost_and_media_stops() -> None:
    """A peer that is gone: it is told after 12 s, and after 30 s nothing more may be sent."""
    async with open_wire() as wire, couple(wire) as two:
        two.introduce()
        await two.connected()
        begun = trio.current_time()
        wire.cut(ALICE, BOB)
        await fact(two.alice, Silent)
        assert trio.current_time() == pytest.approx(begun + 12.0)
        failed = await fact(two.alice, Failed)
        assert trio.current_time() == pytest.approx(begun + 30.0)
        assert "has not consented to our media for 30 s" in str(failed)
        assert two.alice.agent.send(b"\x80") is None


@pytest.mark.rfc("7675", "5.1")
async def test_consent_comes_back() -> None:
    """An interruption of less than 30 s is survived, and the path serves for an hour after."""
    async with open_wire() as wire, couple(wire) as two:
        two.introduce()
        await two.connected()
        wire.cut(ALICE, BOB)
        await fact(two.alice, Silent)
        wire.mend(ALICE, BOB)
        await fact(two.alice, Returned)
        await trio.sleep(3600)
        assert [one.agent.state for one in (two.alice, two.bob)] == [AgentState.CONNECTED] * 2
        await two.talk()


@pytest.mark.parametrize("seed", [37, 41, 45, 48])
async def test_a_bad_line_is_no_end(seed: int) -> None:
    """With a fifth lost for a quarter of an hour, servers still answer in time and consent is never missed for 30 s."""
    alice, bob = (agent(f"{name}{seed}", controlling=name == "a", options=SERVED) for name in "ab")
    async with open_wire(seed) as wire:
        wire.nat(ALICE_NAT, [ALICE], SYMMETRIC)
        wire.nat(BOB_NAT, [BOB], ADDRESS_RESTRICTED)
        wire.all_links(Link(loss=0.2, reorder=0.2, duplication=0.1, delay=0.03, jitter=0.02))
        async with couple(wire, alice=alice, bob=bob) as two:
            two.introduce()
            await two.connected()
            await trio.sleep(900)
            assert AgentState.FAILED not in (alice.state, bob.state)
            assert (alice.path is None, bob.path is None) == (False, False)


@pytest.mark.rfc("8445", "9")
async def test_a_restart_finds_a_path_again() -> None:
    """New credentials, new checks; the old path carries media until there is the new one."""
    async with open_wire() as wire, couple(wire) as two:
        wire.all_links(Link(delay=0.02))
        two.introduce()
        await two.connected()
        old = two.alice.agent.local.ufrag
        two.alice.tell(Restart())
        await trio.testing.wait_all_tasks_blocked()
        assert two.alice.agent.local.ufrag != old
        assert two.alice.agent.state is AgentState.RESTARTING
        await two.talk()
        two.bob.tell(Remote(two.alice.agent.local))
        await trio.testing.wait_all_tasks_blocked()
        two.alice.tell(Remote(two.bob.agent.local))
        await two.connected()
        await two.talk()


@pytest.mark.parametrize("lite_offers", [True, False])
async def test_one_side_is_lite(lite_offers: bool) -> None:
    """The full side controls, whatever it thought; the lite one only answers, and still keeps watch over consent."""
    lite = agent("lite", controlling=lite_offers, options=IceOptions(lite=True))
    full = agent("full", controlling=not lite_offers, options=SERVED)
    alice, bob = (lite, full) if lite_offers else (full, lite)
    async with open_wire() as wire, couple(wire, alice=alice, bob=bob) as two:
        two.introduce()
        await two.connected()
        assert (lite.controlling, full.controlling) == (False, True)
        await trio.sleep(300)
        await two.talk()
        wire.cut(ALICE, BOB)
        await fact(two.alice, Failed)
        await fact(two.bob, Failed)


@pytest.mark.rfc("8838", "8.2")
async def test_candidates_that_come_later_count() -> None:
    """A peer whose description has none, and who sends them one by one, is found by them."""
    async with open_wire() as wire, couple(wire) as two:
        candidates = two.alice.agent.local.candidates
        two.bob.tell(Remote(attrs.evolve(two.alice.agent.local, candidates=(), ended=False)))
        for candidate in candidates:
            two.bob.tell(Trickled(candidate))
        two.alice.tell(Remote(attrs.evolve(two.bob.agent.local, candidates=())))
        first, second = await two.connected()
        assert (first.base, first.remote) == (second.remote, second.base)


async def test_a_browser_that_hides_its_address() -> None:
    """Candidates with mDNS names are left out; the peer's own checks show where it is."""
    async with open_wire() as wire, couple(wire) as two:
        hidden = parse_candidate("1 1 udp 2122260223 2b5a5b1c.local 50000 typ host")
        assert hidden is not None
        two.bob.tell(Remote(attrs.evolve(two.alice.agent.local, candidates=(hidden,))))
        two.alice.tell(Remote(two.bob.agent.local))
        first, second = await two.connected()
        assert (first.base, first.remote) == (second.remote, second.base)
        assert two.bob.agent.counters["ice_names"] == 1


async def test_a_server_behind_a_one_to_one_nat_says_so() -> None:
    """`external_ip` is announced beside the host's address, without asking a server; alone if we are lite."""
    options = IceOptions(external_ips=(ALICE_NAT,))
    alice = agent("alice", controlling=True, options=options)
    lite = agent("bob", controlling=False, options=attrs.evolve(options, lite=True))
    async with open_wire() as wire, couple(wire, alice=alice, bob=lite):
        own, outside = alice.local.candidates
        assert (own.address[0], outside.address, outside.related) == (
            ALICE,
            (ALICE_NAT, own.address[1]),
            own.address,
        )
        assert [c.address[0] for c in lite.local.candidates] == [ALICE_NAT]


async def test_no_stun_server_answers() -> None:
    """Candidates are complete after 5 s, with what there is."""
    async with open_wire() as wire:
        wire.cut(ALICE, STUN[0])
        begun = trio.current_time()
        async with couple(wire) as two:
            assert trio.current_time() == pytest.approx(begun + 5.0)
            assert [c.kind for c in two.alice.agent.local.candidates] == [CandidateKind.HOST]
            assert two.alice.agent.local.ended


REFUSED = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "64:ff9b::7f00:1"]  # noqa: S104


async def test_candidates_that_name_our_own_house_are_refused() -> None:
    """Nothing is sent to loopback, metadata services and the like, nor to more than 100 addresses."""
    async with open_wire() as wire, couple(wire) as two:
        lure = [Candidate("1", 1, (host, 80), CandidateKind.HOST) for host in REFUSED]
        many = [Candidate("1", 1, (f"10.0.{n}.1", 80), CandidateKind.HOST) for n in range(150)]
        odd = [Candidate("1", 1, ("10.1.0.1", 80), CandidateKind.HOST, component=2)]
        two.bob.tell(Remote(attrs.evolve(two.alice.agent.local, candidates=(*lure, *odd, *many))))
        await fact(two.bob, Failed)
        counters = two.bob.agent.counters
        assert counters["ice_candidates_refused"] == len(REFUSED)
        assert counters["ice_candidates_of_no_use"] == 1
        assert counters["ice_candidates_too_many"] == 50
        sent_to = {carried.destination[0] for carried in wire.transcript if carried.source[0] == BOB}
        assert not sent_to & set(REFUSED)


@pytest.mark.real_time
async def test_two_agents_on_real_sockets() -> None:
    """On loopback, where it is allowed, they connect and talk through the operating system."""
    options = IceOptions(allow_loopback=True)
    (alice, to_alice), (bob, to_bob) = (
        heard_by(RealNetwork(), agent(name, controlling=name == "alice", options=options)) for name in ("alice", "bob")
    )
    two = Couple(alice, bob, (to_alice, to_bob))
    async with trio.open_nursery() as nursery:
        for transport in (two.alice, two.bob):
            await nursery.start(transport.run, ["127.0.0.1"])
            await fact(transport, Gathered)
        two.introduce()
        first, second = await two.connected()
        assert (first.base, first.remote) == (second.remote, second.base)
        await two.talk()
        two.alice.close()
        two.bob.close()
