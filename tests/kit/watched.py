"""What the server sends and hears on the wire, kept while it goes on: RTP packets and SIP messages."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import attrs
import numpy as np
import trio

from rustpbx.core import Address
from rustpbx.media.codec.g711 import PCMA, PCMU
from rustpbx.media.events import Pcm
from rustpbx.media.plane.port import Datagram, Parcel, RealPorts
from rustpbx.media.plane.stages import Bytes
from rustpbx.shell.network import Datagrams
from rustpbx.sip.hop import Transport
from rustpbx.sip.message import Request, Response
from rustpbx.sip.parser import parse_message
from rustpbx.sip.shell.stack import Stack
from rustpbx.sip.trace import Traced

PATIENCE = 30.0
"""Seconds that a message has to come or go."""

LAWS = {0: PCMU, 8: PCMA}


@attrs.frozen
class Packet:
    """One RTP packet: when it was handed over (monotonic seconds), to whom or from whom, and what is in it."""

    at: float
    peer: Address
    payload_type: int
    sequence: int
    rtp_time: int
    payload: bytes

    @property
    def pcm(self) -> Pcm:
        """Its sound."""
        return LAWS[self.payload_type].decode(np.frombuffer(self.payload, np.uint8))


class WatchedPorts:
    """`Ports` that note the RTP they send, in `sent`; for the rest see `rustpbx.media.plane.port.RealPorts`."""

    def __init__(self, ports: RealPorts, clock: Callable[[], float]) -> None:
        self.sent: list[Packet] = []
        self._ports = ports
        self._clock = clock

    @property
    def silent(self) -> bool:
        """They are not."""
        return self._ports.silent

    @property
    def packets(self) -> Bytes:
        """Where datagrams are received."""
        return self._ports.packets

    def open(self, host: str, port: int) -> int:
        """Bind a port."""
        return self._ports.open(host, port)

    def adopt(self, sock: Datagrams) -> int:
        """Receive on somebody else's socket."""
        return self._ports.adopt(sock)

    def close(self, handle: int) -> None:
        """Give it back."""
        self._ports.close(handle)

    def receive(self) -> list[Datagram]:
        """Read what waits."""
        return self._ports.receive()

    def recycle(self) -> None:
        """What was received is not needed any more."""
        self._ports.recycle()

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        """Send one datagram, and note it."""
        self._note(data, destination)
        return self._ports.send(handle, data, destination)

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:
        """Send datagrams, and note them."""
        for _, data, destination in parcels:
            self._note(data, destination)
        return self._ports.send_all(parcels)

    def shutdown(self) -> None:
        """Close all of them."""
        self._ports.shutdown()

    def to(self, peer: Address) -> list[Packet]:
        """What was sent there."""
        return [packet for packet in self.sent if packet.peer == peer]

    def _note(self, data: bytes | memoryview, destination: Address) -> None:
        _, kind, sequence, rtp_time = struct.unpack("!BBHI", bytes(data[:8]))
        if 200 <= kind < 205:  # RTCP (RFC 5761 section 4)
            return
        packet = Packet(self._clock(), destination, kind & 127, sequence, rtp_time, bytes(data[12:]))
        self.sent.append(packet)


@attrs.frozen
class Passed:
    """One SIP message that passed, and when."""

    direction: str
    at: float
    peer: Address
    message: Request | Response
    transport: Transport = Transport.UDP

    @property
    def summary(self) -> str:
        """`in INVITE`, `out 200 INVITE`."""
        message = self.message
        if isinstance(message, Request):
            return f"{self.direction} {message.method}"
        return f"{self.direction} {message.status} {message.cseq.method}"


class WatchedSip:
    """Notes every message of a stack, in `messages`; keep-alives, and what is sent once more, are left out."""

    def __init__(self, stack: Stack) -> None:
        self.messages: list[Passed] = []
        self._seen: set[tuple[str, bytes]] = set()
        self._news = trio.lowlevel.ParkingLot()
        stack.trace = self._note

    @property
    def flow(self) -> list[str]:
        """All messages, in short."""
        return [passed.summary for passed in self.messages]

    async def until(self, summary: str, count: int = 1) -> Passed:
        """The `count`-th message of that kind, as soon as it has passed. AssertionError if it does not in time."""
        with trio.move_on_after(PATIENCE):
            while self.flow.count(summary) < count:
                await self._news.park()
        assert self.flow.count(summary) >= count, f"{summary} has not passed within {PATIENCE:g} s, but {self.flow}"
        return self.find(summary, count)

    def find(self, summary: str, count: int = 1) -> Passed:
        """The `count`-th message of that kind."""
        return [passed for passed in self.messages if passed.summary == summary][count - 1]

    def _note(self, traced: Traced) -> None:
        kept = (traced.direction, bytes(traced.data))
        if kept in self._seen or not traced.data.strip():
            return
        self._seen.add(kept)
        message = parse_message(traced.data)
        self.messages.append(Passed(traced.direction, traced.now, traced.peer.address, message, traced.peer.transport))
        self._news.unpark_all()
