"""Two SIP stacks on an in-memory wire, by any transport, and raw connections to them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from rustpbx.core import Address
from rustpbx.shell.clock import TrioClock
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.events import Answer, CallAnswered, CallConfirmed, Fact, IncomingCall, SendInvite
from rustpbx.sip.framing import PING, Framer
from rustpbx.sip.hop import Transport
from rustpbx.sip.message import NameAddr, Request, Response
from rustpbx.sip.parser import parse_message
from rustpbx.sip.shell.connections import Patience, Streams
from rustpbx.sip.shell.stack import Stack
from rustpbx.sip.shell.tls import Tls
from rustpbx.sip.trace import Traced
from rustpbx.sip.uri import parse_uri
from rustpbx.testing.wire import Wire, open_wire
from tests.kit.peers_sip import ANSWER, LEG, OFFER, title

ALICE, BOB = "10.0.0.1", "10.0.0.2"
PORTS = {Transport.TCP: 5060, Transport.TLS: 5061, Transport.WS: 5080, Transport.WSS: 5081}


@attrs.define(eq=False)
class Side:
    """A running stack, and every message that it sent or heard."""

    stack: Stack
    messages: list[Traced] = attrs.field(factory=list)

    @property
    def titles(self) -> list[str]:
        """What passed, in order: `> INVITE` went out, `< 200 INVITE` came in."""
        return [f"{'>' if one.direction == 'out' else '<'} {title(read(one))}" for one in self.messages]

    def last(self, kind: str) -> Traced:
        """The newest message of that title."""
        return next(one for one in reversed(self.messages) if title(read(one)) == kind)

    async def until(self, kind: type[Fact]) -> Fact:
        """The next fact of this kind; those before it are dropped."""
        while True:
            fact = await self.stack.facts.receive()
            if isinstance(fact, kind):
                return fact


def read(one: Traced) -> Request | Response:
    """A message that passed."""
    return parse_message(one.data)


def make_stack(
    wire: Wire, host: str, *, ports: Mapping[Transport, int] = PORTS, tls: Tls | None = None, **more: object
) -> Side:
    """A stack that listens on these ports; `more` are fields of `EndpointConfig`, or `Streams`."""
    names = {field.name for field in attrs.fields(Streams)}
    streams = Streams(
        ports={transport: port for transport, port in ports.items() if tls is not None or not transport.secure},
        tls=tls or Tls(),
        **{name: value for name, value in more.items() if name in names},  # type: ignore[arg-type]  # fields by name
    )
    config = EndpointConfig(**{name: value for name, value in more.items() if name not in names})  # type: ignore[arg-type]  # as above
    stack = Stack(config, wire.host(host), TrioClock(epoch=0), host, 5060, None, random.Random(host), streams)
    side = Side(stack)
    stack.trace = side.messages.append
    return side


@asynccontextmanager
async def open_stacks(*made: Side) -> AsyncIterator[None]:
    """Let stacks run for the length of a block."""
    async with trio.open_nursery() as nursery:
        for side in made:
            await nursery.start(side.stack.run)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def two_stacks(
    *,
    tls: tuple[Tls, Tls] | None = None,
    ports: Mapping[Transport, int] = PORTS,
    bob_ports: Mapping[Transport, int] = PORTS,
    **more: object,
) -> AsyncIterator[tuple[Side, Side, Wire]]:
    """Alice and Bob; `ports` are Alice's, and `more` is for both."""
    async with open_wire(seed=3) as wire:
        alice = make_stack(wire, ALICE, ports=ports, tls=tls and tls[0], **more)
        bob = make_stack(wire, BOB, ports=bob_ports, tls=tls and tls[1], **more)
        async with open_stacks(alice, bob):
            yield alice, bob, wire


def call_to(callee: str, leg: str = LEG, body: bytes = OFFER, host: str = ALICE) -> SendInvite:
    """The wish to call somebody."""
    caller = NameAddr(parse_uri(f"sip:alice@{f'[{host}]' if ':' in host else host}"))
    return SendInvite(leg=leg, caller=caller, callee=parse_uri(callee), body=body, local_host=host)


async def talk(alice: Side, bob: Side, callee: str, leg: str = LEG) -> str:
    """A call from Alice to Bob is up; Bob's leg."""
    alice.stack.wish(call_to(callee, leg))
    incoming = await bob.until(IncomingCall)
    bob.stack.wish(Answer(incoming.leg, ANSWER))
    await alice.until(CallAnswered)
    await bob.until(CallConfirmed)
    return incoming.leg


IMPATIENT = Patience(connect=5.0, first=10.0, message=10.0, write=5.0, idle=60.0)


# -- raw connections ------------------------------------------------------------------------------------------------


class RawStream:
    """A connection that a test writes bytes to, and reads messages from."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._framer = Framer()
        self._messages: list[bytes] = []

    async def send(self, data: bytes) -> None:
        """Send bytes, whatever they are."""
        await self.stream.send_all(data)

    async def bytes(self) -> bytes:
        """The next message as it came, keep-alives left out; b"" when the peer has closed."""
        while not self._messages:
            data = await self.stream.receive_some()
            if not data:
                return b""
            self._messages += [message for message in self._framer.feed(bytes(data)) if message != PING]
        return self._messages.pop(0)

    async def message(self) -> Request | Response:
        """The next message."""
        return parse_message(await self.bytes())


@asynccontextmanager
async def raw_stream(wire: Wire, host: str, peer: Address) -> AsyncIterator[RawStream]:
    """A connection from this host of the wire, closed at the end of the block."""
    stream = await wire.host(host).connect(*peer)
    try:
        yield RawStream(stream)
    finally:
        await trio.aclose_forcefully(stream)


def options(*, via: str = f"{ALICE}:5060", params: str = "", number: int = 1, lines: str = "") -> str:
    """An OPTIONS by TCP, as text with plain line ends; `params` go to its Via."""
    return (
        f"OPTIONS sip:{BOB} SIP/2.0\nVia: SIP/2.0/TCP {via};branch=z9hG4bKo{number}{params}\nMax-Forwards: 70\n"
        f"From: <sip:a@{ALICE}>;tag=a\nTo: <sip:{BOB}>\nCall-ID: o{number}@a\nCSeq: {number} OPTIONS\n{lines}"
        "Content-Length: 0\n\n"
    )


def text_of(text: str) -> bytes:
    """The bytes of a text, with the line ends of SIP."""
    return text.replace("\n", "\r\n").encode()
