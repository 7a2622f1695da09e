"""A plane without a clock or a network: the test ticks it, and puts packets in and takes them out by hand."""

from __future__ import annotations

import errno
import random
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import trio

from rustpbx.core import Address
from rustpbx.media.codec.g711 import PCMU
from rustpbx.media.events import Codec, Direction, Fact, MediaFormat, Pcm
from rustpbx.media.plane.bank import PACKET
from rustpbx.media.plane.clock import TICK
from rustpbx.media.plane.plane import Plane, PlaneConfig
from rustpbx.media.plane.port import ROWS, Datagram, Parcel
from rustpbx.media.plane.stages import Bytes
from rustpbx.media.rtp import RtpPacket, build_rtp, is_rtcp, parse_rtp
from rustpbx.shell.network import Datagrams
from rustpbx.shell.offload import Offload

PHONE: Address = ("192.0.2.7", 4000)
STRANGER: Address = ("203.0.113.66", 666)


class ListPorts:
    """`Ports` as lists: `arrive` puts a datagram before a port, `sent` holds what left it. A handle is its port."""

    silent = False

    def __init__(self) -> None:
        self.waiting: defaultdict[int, deque[tuple[bytes, Address]]] = defaultdict(deque)
        self.sent: list[tuple[int, bytes, Address]] = []
        self.opened: set[int] = set()
        self.taken: set[int] = set()
        self.refusing = False
        self.packets: Bytes = np.zeros((ROWS, PACKET), np.uint8)
        self.row = 0

    def open(self, host: str, port: int) -> int:  # noqa: ARG002 - one interface
        """Bind; `taken` are the ports that somebody else holds."""
        if port in self.taken | self.opened:
            raise OSError(errno.EADDRINUSE, "taken")
        self.opened.add(port)
        return port

    def adopt(self, sock: Datagrams) -> int:
        """Somebody else's socket, by its port."""
        return self.open(*sock.address)

    def close(self, handle: int) -> None:
        """Unbind; what waits is lost."""
        self.opened.discard(handle)
        self.waiting.pop(handle, None)

    def receive(self) -> list[Datagram]:
        """Read one from each port that has one."""
        received = []
        ready = [handle for handle in sorted(self.opened) if self.waiting.get(handle)]
        for row, handle in enumerate(ready, self.row):
            data, source = self.waiting[handle].popleft()
            size = min(len(data), PACKET)
            self.packets[row, :size] = np.frombuffer(data, np.uint8, size)
            received.append((handle, row, size, source))
        self.row += len(received)
        return received

    def recycle(self) -> None:
        """All rows are fresh again."""
        self.row = 0

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:
        """Keep it, unless `refusing`."""
        if not self.refusing:
            self.sent.append((handle, bytes(data), destination))
        return not self.refusing

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:
        """Keep them all."""
        return [index for index, parcel in enumerate(parcels) if not self.send(*parcel)]

    def arrive(self, port: int, data: bytes, source: Address = PHONE) -> None:
        """A datagram comes in."""
        self.waiting[port].append((data, source))


class StillClock:
    """A clock that the rig moves."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        """Where it was put."""
        return self.time

    def wall(self, now: float) -> int:
        """2023-11-14 and so many seconds."""
        return round((now + 1_700_000_000 - 1000) * 1000)


def g711(**changes: object) -> MediaFormat:
    """An ordinary agreement with `PHONE`: PCMU, DTMF as 101, RTCP on the next port."""
    fields: dict[str, object] = {
        "codec": Codec.PCMU,
        "receive_pt": 0,
        "send_pt": 0,
        "remote": PHONE,
        "rtcp": (PHONE[0], PHONE[1] + 1),
        "direction": Direction.SENDRECV,
        "receive_dtmf_pt": 101,
        "send_dtmf_pt": 101,
    }
    return MediaFormat(**{**fields, **changes})  # type: ignore[arg-type]  # a test names its fields right


def tone(seconds: float, rate: int = 8000, hertz: float = 440.0, level: float = 8000.0) -> Pcm:
    """A sine of `seconds`."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


def voice(seconds: float, rate: int = 8000) -> Pcm:
    """A buzz of harmonics that a detector takes for a voice."""
    buzz = np.zeros(round(seconds * rate), np.int16)
    for harmonic in (1, 2, 4, 5, 9):
        buzz += tone(seconds, rate, 130.0 * harmonic, 2500.0)
    return buzz


class Stream:
    """The phone's packets: `packet` builds the next one."""

    def __init__(self, ssrc: int = 0xABCD, sequence: int = 100, timestamp: int = 5000, payload_type: int = 0) -> None:
        self.ssrc = ssrc
        self.sequence = sequence
        self.timestamp = timestamp
        self.payload_type = payload_type

    def packet(self, pcm: Pcm | None = None, samples: int = 160) -> bytes:
        """The next packet: `pcm` as mu-law, or so many samples of silence."""
        pcm = np.zeros(samples, np.int16) if pcm is None else pcm
        data = build_rtp(
            RtpPacket(
                payload_type=self.payload_type,
                sequence=self.sequence & 0xFFFF,
                timestamp=self.timestamp & 0xFFFFFFFF,
                ssrc=self.ssrc,
                payload=PCMU.encode(pcm).tobytes(),
            )
        )
        self.sequence += 1
        self.timestamp += pcm.size
        return data

    def skip(self, samples: int = 160) -> None:
        """The next packet is lost on the way."""
        self.sequence += 1
        self.timestamp += samples


class Rig:
    """A plane, its ports and its clock."""

    def __init__(self, seed: int = 1, offload: Offload | None = None, **config: object) -> None:
        fields = {"first_port": 12000, "last_port": 12100, "max_calls": 8, **config}
        self.ports = ListPorts()
        self.clock = StillClock()
        settings = PlaneConfig(**fields)  # type: ignore[arg-type]  # a test names its fields right
        self.plane = Plane(self.ports, self.clock, settings, random.Random(seed), offload)
        self.facts: dict[str, trio.MemoryReceiveChannel[Fact]] = {}

    def open(self, leg: str = "a", media: MediaFormat | None = None) -> int:
        """Open a leg and, unless `media` is given otherwise, agree on `g711()`; its port."""
        send, self.facts[leg] = trio.open_memory_channel[Fact](1000)
        opened = self.plane.open_leg(leg, send)
        self.plane.set_remote(leg, media or g711())
        return opened.port

    def tick(self, ticks: int = 1) -> None:
        """Let the plane do so many ticks."""
        for _ in range(ticks):
            self.clock.time += TICK
            self.plane.tick(self.clock.time)

    @asynccontextmanager
    async def deliberating(self) -> AsyncIterator[None]:
        """Have what waits for neural networks done, as `Plane.run` does."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.plane.deliberate)
            yield
            nursery.cancel_scope.cancel()

    def told(self, leg: str = "a") -> list[Fact]:
        """The facts so far."""
        facts: list[Fact] = []
        while True:
            try:
                facts.append(self.facts[leg].receive_nowait())
            except trio.WouldBlock:
                return facts

    def rtp(self, port: int) -> list[RtpPacket]:
        """The RTP sent from a port so far; forgets it."""
        packets = [parse_rtp(data) for handle, data, _ in self.ports.sent if handle == port and not is_rtcp(data)]
        self.ports.sent = [item for item in self.ports.sent if item[0] != port]
        return [packet for packet in packets if packet is not None]

    def destinations(self, port: int) -> set[Address]:
        """Where a port has sent to."""
        return {destination for handle, _, destination in self.ports.sent if handle == port}


def pcm_of(packets: list[RtpPacket]) -> Pcm:
    """What the phone hears."""
    return PCMU.decode(np.frombuffer(b"".join(packet.payload for packet in packets), np.uint8))


def as_sent(pcm: Pcm) -> Pcm:
    """What mu-law makes of samples."""
    return PCMU.decode(PCMU.encode(pcm))
