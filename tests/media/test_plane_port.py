"""The operating system's sockets, over loopback."""

from __future__ import annotations

import itertools
import random
import socket

import pytest
import trio

from rustpbx.media.events import AudioBlock, Fact
from rustpbx.media.plane.plane import Plane, PlaneConfig
from rustpbx.media.plane.port import Ports, SelectorPorts, real_ports
from rustpbx.shell.clock import TrioClock
from rustpbx.testing.wire import open_wire
from tests.media.plane_rig import Stream, g711, pcm_of, tone


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("make", [real_ports, SelectorPorts])
def test_datagrams_go_and_come(make: type[Ports]) -> None:
    """What is sent is ready, is read once with its source, and is cut to the buffer; then nothing is ready."""
    ports = make()
    here, there = _free_port(), _free_port()
    one, other = ports.open("127.0.0.1", here), ports.open("127.0.0.1", there)
    buffer = memoryview(bytearray(8))
    assert ports.receive([buffer]) == []
    assert ports.send(one, memoryview(b"hello"), ("127.0.0.1", there))
    assert ports.send(one, b"0123456789", ("127.0.0.1", there))
    assert ports.receive([buffer]) == [(other, 5, ("127.0.0.1", here))]
    assert bytes(buffer[:5]) == b"hello"
    assert ports.receive([buffer]) == [(other, 8, ("127.0.0.1", here))]
    assert ports.receive([buffer]) == []
    parcels = [(one, memoryview(b"1"), ("127.0.0.1", there)), (other, memoryview(b"2"), ("127.0.0.1", here))]
    assert ports.send_all([*parcels, (one, memoryview(bytes(70000)), ("127.0.0.1", there))]) == [2]
    assert len(ports.receive([buffer])) == 1
    assert len(ports.receive([buffer, buffer])) == 1
    for handle in (one, other):
        ports.close(handle)
        ports.close(handle)
    assert not ports.send(one, b"x", ("127.0.0.1", there))
    assert ports.receive([buffer]) == []


@pytest.mark.parametrize("make", [real_ports, SelectorPorts])
def test_a_port_in_use_is_an_error(make: type[Ports]) -> None:
    """A second bind raises OSError; a send that the system refuses is False."""
    ports = make()
    port = _free_port()
    handle = ports.open("127.0.0.1", port)
    with pytest.raises(OSError, match="in use"):
        ports.open("127.0.0.1", port)
    assert not ports.send(handle, bytes(70000), ("127.0.0.1", 9))
    ports.close(handle)


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
