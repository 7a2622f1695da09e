"""`MemoryNetwork` keeps the promises of `Network`: datagrams, streams, names, and the errors of each."""

import errno

import pytest
import trio
import trio.testing

from rustpbx.shell.network import Network
from rustpbx.testing.network import STREAM_BUFFER, MemoryStream, stream_pair
from rustpbx.testing.wire import Wire, open_wire


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
