"""The in-memory wire: what it carries, what it loses, and that it does both the same way each time."""

import errno

import pytest
import trio

from rustpbx.core import Address
from rustpbx.media.plane.port import Ports
from rustpbx.testing.run import run_virtual
from rustpbx.testing.wire import Carried, Fate, Link, Wire, open_wire

A, B = ("10.0.0.1", 5060), ("10.0.0.2", 5060)


class Box:
    """A receiver: notes what arrives and when; `room` is the size of its queue."""

    def __init__(self, room: int = 1000) -> None:
        self.got: list[tuple[float, bytes, Address]] = []
        self.room = room

    def deliver(self, data: bytes, source: Address) -> bool:
        """Note one datagram."""
        if len(self.got) >= self.room:
            return False
        self.got.append((round(trio.current_time(), 6), data, source))
        return True

    @property
    def numbers(self) -> list[int]:
        """The first bytes of what arrived."""
        return [data[0] for _, data, _ in self.got]


async def carry(seed: int, link: Link, count: int = 200) -> tuple[Box, list[Fate]]:
    """Send `count` numbered datagrams from A to B, 20 ms apart, and wait until the wire is quiet."""
    async with open_wire(seed) as wire:
        box = Box()
        wire.bind(*B, box.deliver)
        wire.link(A[0], B[0], link)
        for number in range(count):
            wire.send(A, B, bytes([number]))
            await trio.sleep(0.02)
        await trio.sleep(10)
        return box, [carried.fate for carried in wire.transcript]


async def test_a_quiet_link_delivers_at_once() -> None:
    """Without delay a datagram has arrived when `send` returns, and the transcript says so."""
    async with open_wire() as wire:
        box = Box()
        wire.bind(*B, box.deliver)
        now = trio.current_time()
        wire.send(A, B, b"hello")
        assert box.got == [(round(now, 6), b"hello", A)]
        assert list(wire.transcript) == [Carried(now, A, B, b"hello", Fate.DELIVERED, now)]


async def test_delay_keeps_the_order() -> None:
    """Delay with jitter larger than the spacing delivers everything, later, in order."""
    box, fates = await carry(1, Link(delay=0.1, jitter=0.05))
    assert box.numbers == list(range(200))
    assert set(fates) == {Fate.DELIVERED}


def test_the_seed_decides() -> None:
    """Equal seeds give equal misfortunes, another seed gives others."""
    bad = Link(loss=0.1, duplication=0.1, reorder=0.1, delay=0.02, jitter=0.03)

    async def times(seed: int) -> list[tuple[float, bytes, Address]]:
        return (await carry(seed, bad))[0].got

    assert run_virtual(times, 5) == run_virtual(times, 5)
    assert run_virtual(times, 5) != run_virtual(times, 6)


async def test_loss_duplication_and_reordering() -> None:
    """Each misfortune shows at about its rate: 30 % of 200 within 20..45 %."""
    lossy, fates = await carry(2, Link(loss=0.3))
    assert 110 <= len(lossy.got) <= 160
    assert fates.count(Fate.LOST) == 200 - len(lossy.got)
    doubled, _ = await carry(3, Link(duplication=0.3))
    assert 240 <= len(doubled.got) <= 290
    assert sorted(set(doubled.numbers)) == list(range(200))
    mixed, _ = await carry(4, Link(reorder=0.3))
    assert sorted(mixed.numbers) == list(range(200))
    late = sum(1 for one, other in zip(mixed.numbers, mixed.numbers[1:], strict=False) if other < one)
    assert 30 <= late <= 90


async def test_cut_and_mended() -> None:
    """Nothing passes a cut either way, everything does after it is mended; other links are not touched."""
    async with open_wire() as wire:
        box = Box()
        for address in (A, B, ("10.0.0.3", 1)):
            wire.bind(*address, box.deliver)
        wire.cut("10.0.0.1", "10.0.0.2")
        wire.send(A, B, b"1")
        wire.send(B, A, b"2")
        wire.send(A, ("10.0.0.3", 1), b"3")
        wire.mend("10.0.0.1", "10.0.0.2")
        wire.send(A, B, b"4")
        assert [data for _, data, _ in box.got] == [b"3", b"4"]
        assert [c.fate for c in wire.transcript] == [Fate.CUT, Fate.CUT, Fate.DELIVERED, Fate.DELIVERED]
        assert [c.data for c in wire.carried(fates=[Fate.CUT], to="10.0.0.1")] == [b"2"]


async def test_nobody_there_and_no_room() -> None:
    """An unbound destination and a full queue lose the datagram, each with its own fate."""
    async with open_wire() as wire:
        wire.send(A, B, b"1")
        wire.bind(*B, Box(room=1).deliver)
        wire.send(A, B, b"2")
        wire.send(A, B, b"3")
        assert [c.fate for c in wire.transcript] == [Fate.UNREACHABLE, Fate.DELIVERED, Fate.OVERFLOWED]


def test_an_address_is_bound_once() -> None:
    """A taken address is refused as an operating system does; given back, it is free again."""
    wire = Wire()
    wire.bind(*A, Box().deliver)
    with pytest.raises(OSError, match="in use") as caught:
        wire.bind(*A, Box().deliver)
    assert caught.value.errno == errno.EADDRINUSE
    wire.unbind(A)
    wire.unbind(A)
    assert wire.bind(*A, Box().deliver) == A
    assert wire.bound == [A]
    first, second = wire.bind("10.0.0.1", 0, Box().deliver), wire.bind("10.0.0.1", 0, Box().deliver)
    assert first != second


async def test_ports_carry_datagrams() -> None:
    """Media ports on the wire: open, receive into a buffer, send, close, bounded queue."""
    async with open_wire() as wire:
        ours: Ports = wire.ports("10.0.0.1")
        theirs: Ports = wire.ports("10.0.0.2")
        one, other = ours.open("10.0.0.1", 12000), theirs.open("", 12002)
        buffer = memoryview(bytearray(2048))
        assert ours.receive([buffer]) == []
        assert theirs.send(other, b"audio", ("10.0.0.1", 12000))
        assert theirs.send(other, memoryview(b"more"), ("10.0.0.1", 12000))
        assert ours.receive([buffer]) == [(one, 5, ("10.0.0.2", 12002))]
        assert bytes(buffer[:5]) == b"audio"
        assert ours.receive([buffer]) == [(one, 4, ("10.0.0.2", 12002))]
        assert ours.receive([buffer]) == []
        for _ in range(100):
            theirs.send(other, b"x", ("10.0.0.1", 12000))
        assert len(wire.carried(fates=[Fate.OVERFLOWED])) == 36
        with pytest.raises(OSError, match="in use"):
            ours.open("10.0.0.1", 12000)
        ours.close(one)
        theirs.close(other)
        assert wire.bound == []
        ours.close(one)
        assert ours.receive([buffer]) == []
        assert not ours.send(one, b"x", ("10.0.0.2", 12002))
