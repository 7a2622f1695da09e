"""`MemoryNetwork` keeps the promises of `Network`: datagrams, streams, names, and the errors of each."""

import errno

import pytest
import trio
import trio.testing

from rustpbx.shell.network import Network
from rustpbx.testing.network import STREAM_BUFFER, MemoryStream, stream_pair
from rustpbx.testing.wire import Fate, Link, Wire, open_wire


async def pair(wire: Wire) -> tuple[trio.abc.Stream, MemoryStream]:
    """A connection from 10.0.0.2 to 10.0.0.1:80."""
    async with await wire.host("10.0.0.1").listen("", 80) as listener:
        client = await wire.host("10.0.0.2").connect("10.0.0.1", 80)
        server = await listener.accept()
        assert isinstance(server, MemoryStream)
        return client, server


async def test_datagrams() -> None:
    """Two hosts talk over bound sockets; closing wakes the reader and frees the port."""
    async with open_wire() as wire:
        server: Network = wire.host("10.0.0.1")
        phone: Network = wire.host("10.0.0.2")
        one = await server.open_datagrams("10.0.0.1", 5060)
        other = await phone.open_datagrams("0.0.0.0", 0)  # noqa: S104 - binds nothing real
        assert one.address == ("10.0.0.1", 5060)
        await other.send(b"hello", one.address)
        data, source = await one.receive()
        assert (data, source) == (b"hello", ("10.0.0.2", other.address[1]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect_closed, one)
            await trio.testing.wait_all_tasks_blocked()
            one.close()
        one.close()
        other.close()
        with pytest.raises(trio.ClosedResourceError):
            await other.send(b"late", one.address)
        assert wire.bound == []


async def _expect_closed(socket: object) -> None:
    with pytest.raises(trio.ClosedResourceError):
        await socket.receive()  # type: ignore[attr-defined]


async def test_addresses_of_others_cannot_be_bound() -> None:
    """A host binds its own address only, and only once."""
    async with open_wire() as wire:
        host = wire.host("10.0.0.1")
        assert wire.host("10.0.0.1") is host
        assert host.source_for("10.0.0.9") == "10.0.0.1"
        with pytest.raises(OSError, match="assign") as caught:
            await host.open_datagrams("10.0.0.2", 5060)
        assert caught.value.errno == errno.EADDRNOTAVAIL
        await host.listen("10.0.0.1", 80)
        with pytest.raises(OSError, match="in use"):
            await host.listen("", 80)


async def test_names() -> None:
    """Names come from the wire's dictionary, literals are themselves, and unknown ones are an OSError."""
    async with open_wire() as wire:
        wire.names["pbx.test"] = ("10.0.0.1", "10.0.0.3")
        host = wire.host("10.0.0.2")
        assert await host.resolve("pbx.test") == ["10.0.0.1", "10.0.0.3"]
        assert await host.resolve("10.0.0.7") == ["10.0.0.7"]
        with pytest.raises(OSError, match=r"nowhere\.test"):
            await host.resolve("nowhere.test")


async def test_streams_know_their_ends() -> None:
    """A server can ask a connection who is calling, as it asks a real socket."""
    async with open_wire() as wire:
        client, server = await pair(wire)
        assert server.socket.getsockname() == ("10.0.0.1", 80)
        assert server.socket.getpeername()[0] == "10.0.0.2"
        await client.send_all(b"GET /")
        assert await server.receive_some() == b"GET /"
        await server.send_eof()
        assert await client.receive_some() == b""
        await client.send_all(b"still open")
        assert await server.receive_some(5) == b"still"
        assert await server.receive_some() == b" open"


async def test_refused_and_cut_connects() -> None:
    """Nobody listens: refused. The hosts are parted: timed out."""
    async with open_wire() as wire:
        phone = wire.host("10.0.0.2")
        with pytest.raises(ConnectionRefusedError):
            await phone.connect("10.0.0.1", 80)
        await wire.host("10.0.0.1").listen("10.0.0.1", 80)
        wire.cut("10.0.0.1", "10.0.0.2")
        with pytest.raises(TimeoutError):
            await phone.connect("10.0.0.1", 80)


async def test_a_stream_takes_its_time() -> None:
    """The link's delay holds for connecting (a round trip), for bytes, and for the end behind them; order is kept."""
    async with open_wire() as wire:
        wire.link("10.0.0.1", "10.0.0.2", Link(delay=0.1, jitter=0.05, loss=0.9))
        begin = trio.current_time()
        client, server = await pair(wire)
        assert trio.current_time() - begin == pytest.approx(0.2)
        begin = trio.current_time()
        for number in range(20):
            await client.send_all(bytes([number]))
        await client.aclose()
        got = [(await server.receive_some())[0] for _ in range(20)]
        assert 0.1 <= trio.current_time() - begin <= 0.15
        assert got == list(range(20))
        assert await server.receive_some() == b""


async def test_streams_do_not_touch_the_luck_of_datagrams() -> None:
    """The same datagrams get lost whether or not a stream talks beside them."""

    async def fates(*, talks: bool) -> list[Fate]:
        async with open_wire(5) as wire:
            wire.link("10.0.0.1", "10.0.0.2", Link(loss=0.5, delay=0.01, jitter=0.01))
            client, _ = await pair(wire)
            for _ in range(50):
                wire.send(("10.0.0.2", 1), ("10.0.0.1", 1), b"x")
                if talks:
                    await client.send_all(b"y")
            return [carried.fate for carried in wire.transcript]

    assert await fates(talks=True) == await fates(talks=False)


async def test_a_cut_stream_stalls_and_goes_on() -> None:
    """Nothing is said of the cut; what was sent meanwhile, the end too, is there when the hosts are joined again."""
    async with open_wire() as wire:
        client, server = await pair(wire)
        wire.partition(["10.0.0.1"], ["10.0.0.2", "10.0.0.3"])
        await client.send_all(b"are you there?")
        await client.aclose()
        with trio.move_on_after(3600) as patience:
            await server.receive_some()
        assert patience.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_expect, server, [b"are you there?", b""])
            await trio.testing.wait_all_tasks_blocked()
            wire.mend_all()


async def test_a_stream_cut_one_way() -> None:
    """One direction stalls, the other flows."""
    async with open_wire() as wire:
        client, server = await pair(wire)
        wire.cut("10.0.0.1", "10.0.0.2", both_ways=False)
        await client.send_all(b"question")
        assert await server.receive_some() == b"question"
        await server.send_all(b"answer")
        with trio.move_on_after(60) as patience:
            await client.receive_some()
        assert patience.cancelled_caught
        wire.mend("10.0.0.1", "10.0.0.2")
        assert await client.receive_some() == b"answer"


async def test_streams_between_two_hosts_are_reset() -> None:
    """`wire.reset` breaks every stream between them, cut or not, at both ends, and none of another host."""
    async with open_wire() as wire:
        client, server = await pair(wire)
        async with await wire.host("10.0.0.1").listen("", 81) as listener:
            other = await wire.host("10.0.0.3").connect("10.0.0.1", 81)
            others_end = await listener.accept()
        wire.cut("10.0.0.1", "10.0.0.2")
        wire.reset("10.0.0.2", "10.0.0.1")
        for end in (client, server):
            with pytest.raises(trio.BrokenResourceError):
                await end.receive_some()
        await other.send_all(b"still here")
        assert await others_end.receive_some() == b"still here"


async def _expect(stream: trio.abc.Stream, pieces: list[bytes]) -> None:
    assert [await stream.receive_some() for _ in pieces] == pieces


async def test_a_reset_breaks_both_ends() -> None:
    """`reset` is a pulled cable: whoever reads or writes next is told."""
    async with open_wire() as wire:
        client, server = await pair(wire)
        server.reset()
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await client.send_all(b"x")


async def test_a_slow_reader_stalls_the_writer() -> None:
    """A stream holds a bounded amount; the writer waits for the reader and goes on when it reads."""
    async with open_wire() as wire:
        client, server = await pair(wire)
        with trio.move_on_after(5) as patience:
            await client.send_all(bytes(1_000_000))
        assert patience.cancelled_caught
        while True:
            with trio.move_on_after(1) as quiet:
                await server.receive_some()
            if quiet.cancelled_caught:
                break
        await client.send_all(b"fresh")
        assert await server.receive_some() == b"fresh"


async def test_stream_promises() -> None:
    """The connection passes Trio's own checks for half-closeable streams."""

    async def make() -> tuple[MemoryStream, MemoryStream]:
        await trio.lowlevel.checkpoint()
        return stream_pair(("10.0.0.1", 1), ("10.0.0.2", 2))

    async def clogged() -> tuple[MemoryStream, MemoryStream]:
        ours, theirs = await make()
        await ours.send_all(bytes(STREAM_BUFFER))
        await theirs.send_all(bytes(STREAM_BUFFER))
        return ours, theirs

    await trio.testing.check_half_closeable_stream(make, clogged)
