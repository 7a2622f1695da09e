"""Legs whose path somebody else has found: the plane carries them itself once it is lent the socket."""

from __future__ import annotations

import attrs
import pytest
import trio

from rustpbx.core import Address
from rustpbx.errors import MediaError
from rustpbx.media.events import Fact, SrtpKeys
from rustpbx.media.rtp import is_rtcp
from rustpbx.shell.network import RealNetwork
from rustpbx.testing.wire import open_wire
from tests.media.plane_rig import PHONE, ListPorts, Rig, g711, tone
from tests.media.test_plane_coded import Caller
from tests.media.test_plane_port import MAKERS
from tests.media.test_plane_srtp import keys

PEER, STRANGER = ("198.51.100.7", 4007), ("198.51.100.8", 4008)
NOWHERE = ("0.0.0.0", 9)  # noqa: S104 - an address in SDP
KEYS = keys()
LENT = 7000
"""The port of the socket that is lent."""


@attrs.frozen
class Lent:
    """Somebody's socket, as far as `ListPorts` look at it."""

    address: Address = ("192.0.2.1", LENT)


class Scene:
    """A carried leg, what its carrier was given, and what came aside."""

    def __init__(self, srtp: SrtpKeys | None = KEYS) -> None:
        self.rig = Rig()
        self.carried: list[bytes] = []
        self.aside: list[tuple[bytes, Address]] = []
        self.media = g711(remote=NOWHERE, rtcp=NOWHERE, rtcp_mux=True, srtp=srtp)
        send, self.rig.facts["c"] = trio.open_memory_channel[Fact](100)
        self.rig.plane.open_carried("c", self.carry, send)
        self.caller = Caller(self.media)

    def carry(self, data: bytes) -> bool:
        """The carrier."""
        self.carried.append(data)
        return True

    def adopt(self, peer: Address = PEER) -> None:
        """Lend the plane the socket of the path to `peer`."""
        self.rig.plane.adopt("c", Lent(), peer, lambda data, source: self.aside.append((data, source)))  # type: ignore[arg-type]

    def exchange(self, ticks: int = 10) -> None:
        """The peer says something to the socket, and we answer."""
        for _ in range(ticks):
            self.rig.ports.arrive(LENT, self.caller.packet(), PEER)
            self.rig.tick()

    @property
    def sent(self) -> list[tuple[int, Address]]:
        """Where media has left to by the ports, and by which."""
        return [(handle, to) for handle, data, to in self.rig.ports.sent if not is_rtcp(data)]


def ports_of(scene: Scene) -> ListPorts:
    """The rig's ports."""
    return scene.rig.ports


async def test_an_adopted_leg_goes_by_the_ports() -> None:
    """Before and after the agreement: packets of the peer are heard, ours go to it from that socket."""
    for first in ("adopt", "agree"):
        scene = Scene()
        if first == "adopt":
            scene.adopt()
        scene.rig.plane.set_remote("c", scene.media)
        if first == "agree":
            scene.adopt()
        async with scene.rig.plane.source("c", 1) as source:
            await source.write(tone(0.2, rate=source.rate))
            scene.exchange()
            assert source.played == 200
        assert scene.sent == [(LENT, PEER)] * 10
        assert (scene.carried, scene.aside) == ([], [])
        stats = scene.rig.plane.close_leg("c")
        assert (stats.packets_received, stats.packets_sent, stats.packets_dropped) == (10, 10, 0)
        assert LENT not in ports_of(scene).opened


async def test_what_is_no_media_of_the_peer_s_goes_aside() -> None:
    """STUN, DTLS, nothing at all, and whatever a stranger sends: as it came, and from where."""
    scene = Scene()
    scene.rig.plane.set_remote("c", scene.media)
    scene.adopt()
    foreign = scene.caller.packet()
    others = [
        (b"\x00\x01stun", PEER),
        (b"\x16\xfe\xfd", PEER),
        (b"", PEER),
        (foreign, STRANGER),
        (b"\x00\x01", STRANGER),
    ]
    for data, source in others:
        scene.rig.ports.arrive(LENT, data, source)
        scene.rig.tick()
    assert scene.aside == others
    scene.exchange(3)
    assert scene.rig.plane.close_leg("c").packets_received == 3


async def test_another_path_and_none() -> None:
    """A second adoption takes the place of the first; given back, the carrier carries, and the socket is left."""
    scene = Scene()
    scene.rig.plane.set_remote("c", scene.media)
    scene.adopt(STRANGER)
    scene.adopt()
    scene.exchange(3)
    scene.rig.plane.give_back("c")
    scene.rig.plane.give_back("c")
    assert LENT not in ports_of(scene).opened
    scene.rig.plane.arrive("c", scene.caller.packet())
    scene.rig.tick(2)
    assert scene.sent == [(LENT, PEER)] * 3
    assert len([data for data in scene.carried if not is_rtcp(data)]) == 2
    assert scene.rig.plane.close_leg("c").packets_received == 4
    with pytest.raises(MediaError, match="there is no media leg"):
        scene.adopt()


async def test_a_new_agreement_keeps_the_path() -> None:
    """Hold and resume: the peer stays where it was proved to be, whatever SDP names."""
    scene = Scene()
    scene.rig.plane.set_remote("c", scene.media)
    scene.adopt()
    scene.exchange(2)
    scene.rig.plane.set_remote("c", attrs.evolve(scene.media, remote=PHONE, rtcp=PHONE))
    scene.exchange(2)
    assert scene.sent == [(LENT, PEER)] * 4


async def test_a_leg_in_the_clear() -> None:
    """Without keys it goes the same way."""
    scene = Scene(srtp=None)
    scene.rig.plane.set_remote("c", scene.media)
    scene.adopt()
    scene.exchange(5)
    assert scene.sent == [(LENT, PEER)] * 5


@pytest.mark.real_time
@pytest.mark.parametrize("make", MAKERS)
async def test_a_socket_of_trio_s_is_lent(make: type) -> None:
    """Real ports read and write where Trio did, and Trio does again after they have closed it."""
    ports, network = make(), RealNetwork()
    ours, theirs = [await network.open_datagrams("127.0.0.1", 0) for _ in range(2)]
    handle = ports.adopt(ours)
    await theirs.send(b"to the ports", ours.address)
    with trio.fail_after(5):
        while not (received := ports.receive()):
            await trio.lowlevel.checkpoint()
    ((at, row, size, source),) = received
    assert (at, bytes(ports.packets[row, :size]), source) == (handle, b"to the ports", theirs.address)
    assert ports.send(handle, b"from the ports", theirs.address)
    with trio.fail_after(5):
        assert await theirs.receive() == (b"from the ports", ours.address)
        ports.close(handle)
        await theirs.send(b"to Trio", ours.address)
        assert await ours.receive() == (b"to Trio", theirs.address)
    ports.shutdown()
    ours.close()
    theirs.close()


async def test_a_socket_in_memory_is_lent() -> None:
    """The same on a wire; a closed handle leaves the socket bound."""
    async with open_wire() as wire:
        ours = await wire.host("10.0.0.1").open_datagrams("10.0.0.1", 4000)
        theirs = await wire.host("10.0.0.2").open_datagrams("10.0.0.2", 4000)
        ports = wire.ports("10.0.0.1")
        handle = ports.adopt(ours)
        await theirs.send(b"to the ports", ours.address)
        assert [(at, size, source) for at, _, size, source in ports.receive()] == [(handle, 12, theirs.address)]
        assert ports.send(handle, b"from the ports", theirs.address)
        assert await theirs.receive() == (b"from the ports", ours.address)
        ports.close(handle)
        await theirs.send(b"to Trio", ours.address)
        assert await ours.receive() == (b"to Trio", theirs.address)
        ours.close()
        theirs.close()
