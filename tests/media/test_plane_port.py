"""The operating system's sockets, over loopback."""

from __future__ import annotations

import itertools
import random
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from rustpbx.core import Address
from rustpbx.media.events import AudioBlock, Fact
from rustpbx.media.plane.plane import Plane, PlaneConfig
from rustpbx.media.plane.port import Datagram, Ports, RealPorts, SelectorPorts, socket_ports
from rustpbx.media.plane.ring_ports import RingPorts, ring_ports
from rustpbx.shell.clock import TrioClock
from rustpbx.testing.wire import open_wire
from tests.media.plane_rig import Stream, g711, pcm_of, tone


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


MAKERS: list[Callable[[], RealPorts]] = [SelectorPorts, socket_ports]
if ring_ports() is not None:  # where the kernel allows it
    MAKERS.append(RingPorts)


def _texts(ports: Ports, received: list[Datagram]) -> list[tuple[int, bytes, Address]]:
    return [(handle, bytes(ports.packets[row, :size]), source) for handle, row, size, source in received]


def _read_all(ports: Ports) -> list[tuple[int, bytes, Address]]:
    texts = []
    while received := ports.receive():
        texts += _texts(ports, received)
    ports.recycle()
    return texts


def _close(ports: Ports, *handles: int) -> None:
    for handle in handles:
        ports.close(handle)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_go_and_come(make: Callable[[], RealPorts], host: str) -> None:
    """What is sent is received once, in order, with its source, and cut to a packet; then nothing waits."""
    ports = make()
    here, there = _free_port(), _free_port()
    one, other = ports.open(host, here), ports.open(host, there)
    assert ports.receive() == []
    assert ports.send(one, memoryview(b"hello"), (host, there))
    assert ports.send(one, b"x" * 1600, (host, there))
    assert _read_all(ports) == [(other, b"hello", (host, here)), (other, b"x" * 1536, (host, here))]
    assert ports.receive() == []
    packets = [memoryview(bytearray(b"1")), memoryview(bytearray(b"2"))]
    parcels = [(one, packets[0], (host, there)), (other, packets[1], (host, here))]
    for text in (b"a", b"b"):
        packets[0][:] = text  # the same list is sent again with what its memory holds now
        assert ports.send_all(parcels) == []
        assert sorted(_read_all(ports)) == sorted([(other, text, (host, here)), (one, b"2", (host, there))])
    assert ports.send_all([*parcels, (one, memoryview(bytes(70000)), (host, there))]) == [2]
    assert len(_read_all(ports)) == 2
    for handle in (one, other):
        ports.close(handle)
        ports.close(handle)
    assert not ports.send(one, b"x", (host, there))
    assert ports.receive() == []


@pytest.mark.parametrize("make", MAKERS)
def test_a_flood_is_read_on_when_rows_are_fresh_again(make: Callable[[], RealPorts]) -> None:
    """More packets than there are rows: the rest is read after `recycle`, none twice, none of another socket lost."""
    ports = make()
    here, there = _free_port(), _free_port()
    one, other = ports.open("127.0.0.1", here), ports.open("127.0.0.1", there)
    counts: Counter[int] = Counter()
    for number in range(60):
        for _ in range(100):
            assert ports.send(one, number.to_bytes(2, "big"), ("127.0.0.1", there))
        assert ports.send(other, b"me too", ("127.0.0.1", here))
        counts.update(handle for handle, _, _ in _read_all(ports))
    _close(ports, one, other)
    assert counts == {other: 6000, one: 60}


@pytest.mark.parametrize("make", MAKERS)
def test_a_port_closed_is_free_at_once_and_forgotten(make: Callable[[], RealPorts]) -> None:
    """The same port can be bound again, packets for the old owner are not delivered to the new one's handle."""
    ports = make()
    here, there = _free_port(), _free_port()
    sender = ports.open("127.0.0.1", there)
    for text in (b"first", b"second"):
        handle = ports.open("127.0.0.1", here)
        assert ports.send(sender, text, ("127.0.0.1", here))
        assert _read_all(ports) == [(handle, text, ("127.0.0.1", there))]
        assert ports.send(sender, b"late", ("127.0.0.1", here))
        ports.close(handle)
        assert ports.receive() == []
    _close(ports, sender)


@pytest.mark.parametrize("make", MAKERS)
def test_an_icmp_error_does_not_deafen_a_socket(make: Callable[[], RealPorts]) -> None:
    """A packet to a closed port comes back as an error of the socket; what comes after it is received."""
    ports = make()
    here, there = _free_port(), _free_port()
    one = ports.open("127.0.0.1", here)
    for _ in range(3):
        ports.send(one, b"anybody?", ("127.0.0.1", there))
        ports.receive()
    other = ports.open("127.0.0.1", there)
    assert ports.send(other, b"now", ("127.0.0.1", here))
    texts = _read_all(ports)
    _close(ports, one, other)
    assert texts == [(one, b"now", ("127.0.0.1", there))]


@pytest.mark.parametrize("make", MAKERS)
def test_a_port_in_use_is_an_error(make: Callable[[], RealPorts]) -> None:
    """A second bind raises OSError; a send that the system refuses is False."""
    ports = make()
    port = _free_port()
    handle = ports.open("127.0.0.1", port)
    with pytest.raises(OSError, match="in use"):
        ports.open("127.0.0.1", port)
    assert not ports.send(handle, bytes(70000), ("127.0.0.1", 9))
    ports.close(handle)


def _descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("make", MAKERS)
def test_shutdown_leaves_no_descriptor(make: Callable[[], RealPorts]) -> None:
    """With open sockets or without, everything that was opened is closed."""
    before = _descriptors()
    ports = make()
    ports.open("127.0.0.1", _free_port())
    assert _descriptors() > before
    ports.shutdown()
    ports.shutdown()
    assert _descriptors() == before


async def test_a_plane_runs_in_virtual_time() -> None:
    """The clock task over in-memory ports: a phone's second of tone is heard, a second of ours reaches the phone."""
    async with open_wire(seed=1) as wire, trio.open_nursery() as nursery:
        plane = Plane(wire.ports("10.0.0.1"), TrioClock(0), PlaneConfig(host="10.0.0.1"), random.Random(1))
        await nursery.start(plane.run)
        send, _facts = trio.open_memory_channel[Fact](10)
        port = plane.open_leg("a", send).port
        phone = await wire.host("10.0.0.2").open_datagrams("10.0.0.2", 4000)
        plane.set_remote("a", g711(remote=("10.0.0.2", 4000), rtcp=None))

        async def speak() -> None:
            stream, spoken = Stream(), tone(1.0)
            for at in range(0, 8000, 160):
                await phone.send(stream.packet(spoken[at : at + 160]), ("10.0.0.1", port))
                await trio.sleep(0.02)

        nursery.start_soon(speak)
        blocks: list[AudioBlock] = []
        with plane.tap("a") as tap:
            async with plane.source("a", 1) as source:
                await source.write(tone(1.0))
                source.finish()
                await source.ended()
                assert source.played == 1000
            blocks = [await tap.blocks.receive() for _ in range(8)]
        assert max(int(abs(block.pcm).max()) for block in blocks) > 7000
        assert [round(later.at - block.at, 6) for block, later in itertools.pairwise(blocks)] == [0.1] * 7
        assert (plane.frames_due, plane.frames_sent, plane.lateness.worst) == (plane.frames_sent, plane.frames_due, 0.0)
        nursery.cancel_scope.cancel()


def test_the_rig_hears_what_it_speaks() -> None:
    """The helper that all plane tests trust: packets of a stream decode to the codec's idea of the samples."""
    from rustpbx.media.rtp import parse_rtp  # noqa: PLC0415 - only here
    from tests.media.plane_rig import as_sent  # noqa: PLC0415 - only here

    stream, spoken = Stream(), tone(0.04)
    packets = [parse_rtp(stream.packet(spoken[at : at + 160])) for at in (0, 160)]
    assert (pcm_of([packet for packet in packets if packet]) == as_sent(spoken)).all()
