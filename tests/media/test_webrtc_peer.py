"""A browser's leg as a core, and where it is bound: what ICE reports, what DTLS makes of it, and what comes out."""

from __future__ import annotations

import random

import pytest

from rustpbx.core import Tick
from rustpbx.media import dtls, ice
from rustpbx.media.webrtc import Described, Peer, PeerGone, PeerLost, PeerSecured, Send
from rustpbx.media.webrtc.peer import MOST_EARLY, Effect, Moved
from rustpbx.media.webrtc.shell import WebRtc, WebRtcConfig
from rustpbx.media.webrtc.tables import PeerState
from rustpbx.testing.house import outside_of
from rustpbx.testing.wire import open_wire
from tests.kit.peers_dtls import ALICE, BOB, certificate

PATH_TO_BOB = ice.Selected(ALICE, BOB)
PATH_TO_ALICE = ice.Selected(BOB, ALICE)


def peer(name: str, other: str, *, active: bool) -> Peer:
    """One whose randomness is its name's."""
    entropy = random.Random(name).randbytes
    association = dtls.Association(certificate(name), active=active, entropy=entropy, timeout=10.0)
    return Peer("leg", association, (certificate(other).fingerprint,), patience=15.0, now=100.0)


class Pair:
    """Alice begins, Bob is the server; what they say reaches the other at once. `told` are Bob's facts."""

    def __init__(self) -> None:
        self.now = 100.0
        self.alice, self.bob = peer("alice", "bob", active=True), peer("bob", "alice", active=False)
        self.told: list[Effect] = []
        for one in (self.alice, self.bob):
            one.handle(ice.Gathered(), self.now)

    def give(self, one: Peer, what: ice.Selected | ice.Payload | ice.Close) -> None:
        """An input to one, and all that comes of it."""
        other, source = (self.alice, BOB) if one is self.bob else (self.bob, ALICE)
        for effect in one.handle(what, self.now):
            if isinstance(effect, Send):
                self.give(other, ice.Payload(effect.data, ALICE if other is self.alice else BOB, source))
            elif one is self.bob:
                self.told.append(effect)


def secured() -> Pair:
    """Both have their path and their keys."""
    pair = Pair()
    pair.give(pair.bob, PATH_TO_ALICE)
    pair.give(pair.alice, PATH_TO_BOB)
    return pair


def test_a_path_and_a_handshake_make_keys() -> None:
    """A path, then the keys, the same on both sides; a goodbye ends it."""
    pair = secured()
    moved, secure = pair.told
    assert moved == Moved()
    assert isinstance(secure, PeerSecured)
    assert (pair.alice.state, pair.bob.state) == (PeerState.UP, PeerState.UP)
    pair.give(pair.alice, ice.Close())
    assert pair.told[2:] == [PeerGone("leg")]
    assert pair.alice.done
    assert pair.bob.done
    assert pair.bob.handle(ice.Silent(), pair.now) == []


def test_a_hello_before_the_path_is_kept() -> None:
    """A peer that chose the path may begin before its choice has reached us: nothing is asked for twice."""
    pair = Pair()
    pair.give(pair.alice, PATH_TO_BOB)
    assert pair.told == []
    pair.give(pair.bob, PATH_TO_ALICE)
    assert [type(fact) for fact in pair.told] == [Moved, PeerSecured]


def test_only_a_few_early_datagrams_are_kept() -> None:
    """A flood before the path costs no memory."""
    bob = peer("bob", "alice", active=False)
    for _ in range(1000):
        assert bob.handle(ice.Payload(b"\x16", BOB, ALICE), 100.0) == []
    assert len(bob._early) == MOST_EARLY


def test_candidates_that_take_too_long_are_told_as_they_are() -> None:
    """An answer with what there is: without one there is no call."""
    bob = peer("bob", "alice", active=False)
    assert bob.deadline().at == 115.0
    assert bob.handle(Tick(), 115.0) == [Described()]
    assert bob.state is PeerState.CONNECTING
    assert bob.handle(ice.Gathered(), 116.0) == []
    assert bob.handle(Tick(), 130.0) == [PeerLost("leg", "there is no path to the peer yet")]


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ([ice.Failed("none of 3 candidate pairs works")], "none of 3 candidate pairs works"),
        ([PATH_TO_ALICE, ice.Failed("no consent")], "no consent"),
    ],
)
def test_no_path_is_the_end(facts: list[ice.Failed | ice.Selected], problem: str) -> None:
    """With ICE's own words."""
    bob = Pair().bob
    told = [effect for fact in facts for effect in bob.handle(fact, 101.0)]
    assert told[-1] == PeerLost("leg", problem)
    assert bob.state is PeerState.LOST


def test_silence_is_borne_for_a_while() -> None:
    """Eight seconds; who answers again in time, or on another path, is welcome."""
    for back in (ice.Returned(), PATH_TO_ALICE):
        pair = secured()
        pair.bob.handle(ice.Silent(), 200.0)
        assert pair.bob.deadline().at == 208.0
        pair.bob.handle(back, 207.0)
        assert pair.bob.state is PeerState.UP
        pair.bob.handle(ice.Silent(), 300.0)
        (lost,) = pair.bob.handle(Tick(), 308.0)
        assert lost == PeerLost("leg", "the peer does not answer any more")


@pytest.mark.parametrize(
    ("host", "peer_host", "ipv6", "hosts"),
    [
        ("10.0.0.1", "10.0.0.9", False, ("10.0.0.1",)),
        ("0.0.0.0", "10.0.0.9", False, ("10.0.0.1",)),  # noqa: S104 - nothing is bound
        ("::", "", True, ("10.0.0.1",)),
    ],
)
async def test_where_a_leg_is_bound(host: str, peer_host: str, *, ipv6: bool, hosts: tuple[str, ...]) -> None:
    """The address that is configured, or those that the ways out lead from, each once."""
    async with open_wire() as wire:
        outside = outside_of(wire, host="10.0.0.1")
        webrtc = WebRtc(WebRtcConfig(host=host), outside.network, None, outside.clock, bytes)  # type: ignore[arg-type]
        assert webrtc.hosts(peer_host, ipv6=ipv6) == hosts


async def test_a_certificate_is_shared() -> None:
    """Calls that begin on the same day show the same one."""
    async with open_wire() as wire:
        outside = outside_of(wire, host="10.0.0.1")
        webrtc = WebRtc(WebRtcConfig(), outside.network, None, outside.clock, bytes)  # type: ignore[arg-type]
        assert webrtc.certificate() is webrtc.certificate()
