"""The in-memory wire: what it carries, what it loses, and that it does both the same way each time."""

import errno

import attrs
import pytest
import trio

from rustpbx.core import Address
from rustpbx.media.plane.port import Ports
from rustpbx.testing import matching
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
        assert ours.receive() == []
        assert theirs.send(other, b"audio", ("10.0.0.1", 12000))
        assert theirs.send(other, memoryview(b"more"), ("10.0.0.1", 12000))
        assert ours.receive() == [(one, 0, 5, ("10.0.0.2", 12002))]
        assert ours.receive() == [(one, 1, 4, ("10.0.0.2", 12002))]
        assert (bytes(ours.packets[0, :5]), bytes(ours.packets[1, :4])) == (b"audio", b"more")
        ours.recycle()
        assert ours.receive() == []
        for _ in range(100):
            theirs.send(other, b"x", ("10.0.0.1", 12000))
        assert len(wire.carried(fates=[Fate.OVERFLOWED])) == 36
        with pytest.raises(OSError, match="in use"):
            ours.open("10.0.0.1", 12000)
        ours.close(one)
        theirs.close(other)
        assert wire.bound == []
        ours.close(one)
        assert ours.receive() == []
        assert not ours.send(one, b"x", ("10.0.0.2", 12002))


async def test_what_others_send_changes_no_fate() -> None:
    """The misfortunes of one link are the same whether or not a third host talks meanwhile."""

    async def fates(*, third: bool) -> list[Fate]:
        async with open_wire(3) as wire:
            wire.all_links(Link(loss=0.5))
            for _ in range(50):
                wire.send(A, B, b"x")
                if third:
                    wire.send(("10.0.0.3", 1), B, b"y")
            return [carried.fate for carried in wire.transcript if carried.source == A]

    quiet = await fates(third=False)
    assert quiet == await fates(third=True)
    assert Fate.LOST in quiet


async def test_a_chosen_datagram_is_lost_or_held() -> None:
    """`lose` and `hold` meet exactly the datagrams they were made for, in turn, and say how many they met."""
    async with open_wire() as wire:
        box = Box()
        wire.bind(*B, box.deliver)
        lost = wire.lose(lambda carried: carried.data[0] % 2 == 0, skip=1, count=2)
        held = wire.hold(lambda carried: carried.data[0] == 7, 1.0)
        for number in range(10):
            wire.send(A, B, bytes([number]))
        await trio.sleep(2)
        assert box.numbers == [0, 1, 3, 5, 6, 8, 9, 7]
        assert (lost.hits, lost.over, held.hits) == (2, True, 1)


async def test_a_chosen_datagram_comes_twice() -> None:
    """`repeat` delivers it as usual and once more later; the copy has an entry of its own."""
    async with open_wire() as wire:
        box = Box()
        wire.bind(*B, box.deliver)
        repeated = wire.repeat(lambda carried: carried.data[0] == 1, 1.0)
        begin = trio.current_time()
        for number in (0, 1, 2):
            wire.send(A, B, bytes([number]))
        await trio.sleep(2)
        assert [(round(at - begin, 3), data[0]) for at, data, _ in box.got] == [(0, 0), (0, 1), (0, 2), (1, 1)]
        assert [(c.data[0], c.fate) for c in wire.transcript] == [(n, Fate.DELIVERED) for n in (0, 1, 1, 2)]
        assert (repeated.hits, repeated.over) == (1, True)


BAD = Link(loss=0.2, duplication=0.1, reorder=0.1, delay=0.02, jitter=0.03)


@attrs.frozen
class Meddling:
    """What a test may do on a link besides sending: nothing of it may change the luck of the other datagrams."""

    what: str

    def meddle(self, wire: Wire) -> set[int]:
        """Do it; the datagrams that are concerned."""
        match self.what:
            case "lose":
                wire.lose(lambda carried: carried.data[0] == 50)
                return {50}
            case "hold":
                wire.hold(lambda carried: carried.data[0] == 50, 0.001)
                return {50}
            case "repeat":
                wire.repeat(lambda carried: carried.data[0] == 50, 5.0)
                return {50}
            case _:
                return set()


@pytest.mark.parametrize("what", ["lose", "hold", "repeat", "cut", "weather"])
def test_who_meddles_with_one_datagram_changes_no_other(what: str) -> None:
    """A message chosen to be lost, a cut for some time, other weather before: those behind have the luck they had."""

    async def arrivals(meddling: Meddling | None) -> dict[int, list[float]]:
        async with open_wire(11) as wire:
            box = Box()
            wire.bind(*B, box.deliver)
            wire.link(A[0], B[0], BAD)
            without = meddling.meddle(wire) if meddling is not None else set()
            for number in range(200):
                if meddling is not None and number in (40, 60):
                    if meddling.what == "cut":
                        (wire.cut if number == 40 else wire.mend)(A[0], B[0])
                    if meddling.what == "weather":
                        wire.link(A[0], B[0], Link(loss=0.9, duplication=0.5) if number == 40 else BAD)
                wire.send(A, B, bytes([number]))
                await trio.sleep(0.06)  # longer than any delay, so that nobody waits for a datagram before
            await trio.sleep(10)
            if what in ("cut", "weather"):
                without = set(range(40, 60))
            found: dict[int, list[float]] = {}
            for at, data, _ in box.got:
                found.setdefault(data[0], []).append(at)
            return {number: times for number, times in found.items() if number not in without}

    meddled = run_virtual(arrivals, Meddling(what))
    left_alone = run_virtual(arrivals, None)
    assert meddled == {number: times for number, times in left_alone.items() if number in meddled}
    assert len(left_alone) - len(meddled) <= (20 if what in ("cut", "weather") else 1)


async def test_the_way_back_has_luck_of_its_own() -> None:
    """What goes from A to B fares the same whether or not B answers."""

    async def fates(*, answers: bool) -> list[Fate]:
        async with open_wire(3) as wire:
            wire.all_links(Link(loss=0.5))
            for _ in range(50):
                wire.send(A, B, b"x")
                if answers:
                    wire.send(B, A, b"y")
            return [carried.fate for carried in wire.transcript if carried.source == A]

    assert await fates(answers=False) == await fates(answers=True)


async def test_a_test_can_wait_for_a_datagram() -> None:
    """`until` returns when so many have arrived: those that have been, those on their way, and none that got lost."""
    async with open_wire() as wire:
        wire.bind(*B, Box().deliver)
        wire.link(A[0], B[0], Link(delay=0.5))
        wire.lose(lambda carried: carried.data == b"b")
        begin = trio.current_time()
        for data in (b"a", b"b", b"b"):
            wire.send(A, B, data)
        first = await wire.until(lambda carried: carried.data == b"b")
        assert trio.current_time() - begin == pytest.approx(0.5)
        assert await wire.until(lambda carried: carried.data == b"b") is first
        with trio.move_on_after(5) as patience:
            await wire.until(lambda carried: carried.data == b"b", count=2)
        assert patience.cancelled_caught
        assert [c.data for c in wire.carried(lambda carried: carried.data == b"b", fates=[Fate.LOST])] == [b"b"]


async def test_a_one_way_cut_and_a_partition() -> None:
    """A cut in one direction lets the other pass; a partition parts groups and not the hosts within one."""
    async with open_wire() as wire:
        hosts = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
        wire.cut(hosts[0], hosts[1], both_ways=False)
        assert [wire.is_cut(hosts[0], hosts[1]), wire.is_cut(hosts[1], hosts[0])] == [True, False]
        wire.mend_all()
        wire.partition(hosts[:2], hosts[2:])
        parted = {(one, other) for one in hosts for other in hosts if wire.is_cut(one, other)}
        assert parted == {(a, b) for a in hosts[:2] for b in hosts[2:]} | {(b, a) for a in hosts[:2] for b in hosts[2:]}
        wire.mend_all()
        assert not any(wire.is_cut(one, other) for one in hosts for other in hosts)


def test_the_matchers_know_sip_and_rtp() -> None:
    """Requests by method, responses by status and method, media, each to one host or any."""
    invite = Carried(0, A, B, b"INVITE sip:b@b SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n")
    ok = Carried(0, B, A, b"SIP/2.0 200 OK\r\nCSeq: 2 BYE\r\n\r\n")
    audio = Carried(0, A, B, bytes([0x80, 0]) + bytes(170))
    table = [
        (matching.request("INVITE"), [True, False, False]),
        (matching.request("INVITE", to=A[0]), [False, False, False]),
        (matching.response(200, "BYE"), [False, True, False]),
        (matching.response(200, "INVITE"), [False, False, False]),
        (matching.response(), [False, True, False]),
        (matching.sip(), [True, True, False]),
        (matching.rtp(to=B[0]), [False, False, True]),
    ]
    for matches, expected in table:
        assert [matches(carried) for carried in (invite, ok, audio)] == expected
