"""Responses whose connection is gone, and whose Via is a name: they go where DNS says that its host listens."""

from __future__ import annotations

import pytest
import trio

from rustpbx.shell.records import Srv
from rustpbx.sip.events import Answer, IncomingCall
from rustpbx.testing.wire import Wire, open_wire
from tests.kit.peers_sip import ANSWER
from tests.kit.stacks import ALICE, BOB, RawStream, make_stack, open_stacks, raw_stream, text_of

INVITE = f"""\
INVITE sip:bob@{BOB} SIP/2.0
Via: SIP/2.0/TCP edge.test;branch=z9hG4bKone
Max-Forwards: 70
From: <sip:alice@edge.test>;tag=a
To: <sip:bob@{BOB}>
Call-ID: one@edge.test
CSeq: 1 INVITE
Contact: <sip:alice@{ALICE}>
Content-Length: 0

"""


async def answer_after_the_connection_died(wire: Wire) -> None:
    """Bob is called over a connection that breaks before he answers."""
    bob = make_stack(wire, BOB)
    async with open_stacks(bob):
        async with raw_stream(wire, ALICE, (BOB, 5060)) as stream:
            await stream.send(text_of(INVITE))
            incoming = await bob.until(IncomingCall)
            await stream.message()
        bob.stack.wish(Answer(incoming.leg, ANSWER))
        await trio.sleep(5)


async def take_one(wire: Wire, host: str, port: int) -> str:
    """The first message that comes to a TCP port."""
    listener = await wire.host(host).listen(host, port)
    stream = RawStream(await listener.accept())
    message = await stream.bytes()
    await trio.aclose_forcefully(stream.stream)
    await listener.aclose()
    return message.split(b"\r\n")[0].decode()


@pytest.mark.rfc("3263", "5")
async def test_a_response_goes_where_srv_says_that_its_sender_listens() -> None:
    """Nobody takes it at 5060 of the address that the request came from; the second of two servers does."""
    async with open_wire() as wire, trio.open_nursery() as nursery:
        wire.zone.add("_sip._tcp.edge.test", Srv(1, 0, 5090, "one.test"), Srv(2, 0, 5091, "two.test"))
        wire.names |= {"one.test": (ALICE,), "two.test": ("10.0.0.7",)}
        taken: list[str] = []

        async def take() -> None:
            taken.append(await take_one(wire, "10.0.0.7", 5091))

        nursery.start_soon(take)
        await answer_after_the_connection_died(wire)
        assert taken == ["SIP/2.0 200 OK"]


async def test_a_response_without_any_way_is_given_up() -> None:
    """A name that nobody knows: the call ends by its missing ACK, as it would anyway."""
    async with open_wire() as wire:
        await answer_after_the_connection_died(wire)
        assert wire.zone.asked[0] == ("_sip._tcp.edge.test", "SRV")
