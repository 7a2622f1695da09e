"""What SRTP costs a leg: the same plane with and without it, in turns of ten ticks, in one run. `python -m bench.srtp`

Packets are made before and handed over in memory, so that the difference is that of the plane's own work: opening,
sealing, and what they cost beside the cryptography.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt
import trio

from rustpbx.core import Address
from rustpbx.media.events import Codec, Fact, MediaFormat, Pcm, SrtpKey, SrtpKeys, SrtpSuite, VadParams
from rustpbx.media.plane.bank import PACKET
from rustpbx.media.plane.plane import Plane, PlaneConfig
from rustpbx.media.plane.port import Datagram, Parcel
from rustpbx.media.rtp import RtpPacket, build_rtp
from rustpbx.media.srtp import Sealer
from rustpbx.shell.clock import TrioClock
from rustpbx.shell.network import Datagrams
from rustpbx.shell.offload import Offload

TICK = 0.02
WARM = 20
"""Ticks before anything is measured: first packets go by another way than those that follow."""
BLOCK = 10
"""Ticks of which the sum counts; the least of all blocks is the figure, for noise only ever adds."""
FIRST_PORT = 20_000


class Tray:
    """`Ports` of memory: in each tick every leg has the packet that `load` put there, and what is sent is forgotten."""

    silent = False

    def __init__(self, legs: int) -> None:
        self.packets: npt.NDArray[np.uint8] = np.zeros((legs, PACKET), np.uint8)
        self._size = 0
        self._ready: list[Datagram] = []
        self._legs: list[tuple[int, Address]] = []

    def know(self, handle: int, source: Address) -> None:
        """A leg's port, and where its packets come from."""
        self._legs.append((handle, source))

    def load(self, packets: npt.NDArray[np.uint8], sizes: Sequence[int]) -> None:
        """One packet a leg (legs, most bytes) for the next tick, each of its own size."""
        self.packets[:, : packets.shape[1]] = packets
        legs = enumerate(self._legs)
        self._ready = [(handle, row, sizes[row], source) for row, (handle, source) in legs]

    def open(self, host: str, port: int) -> int:  # noqa: ARG002 - one interface
        """Any port is free."""
        return port

    def adopt(self, sock: Datagrams) -> int:
        """Nobody has one."""
        return sock.address[1]

    def close(self, handle: int) -> None:
        """Nothing is held."""

    def receive(self) -> list[Datagram]:
        """All packets at once."""
        ready, self._ready = self._ready, []
        return ready

    def recycle(self) -> None:
        """Nothing to do."""

    def send(self, handle: int, data: bytes | memoryview, destination: Address) -> bool:  # noqa: ARG002 - see above
        """Forget it."""
        return True

    def send_all(self, parcels: Sequence[Parcel]) -> list[int]:  # noqa: ARG002 - see above
        """Forget them."""
        return []


@attrs.frozen
class Voice:
    """What phones say: their codec, and its payloads, all of one size, in turn; none: noise in PCMU."""

    codec: Codec = Codec.PCMU
    payloads: tuple[bytes, ...] = ()
    step: int = 160


NOISE = Voice()


class Measured:
    """A plane with so many legs, and the packets of their phones; `suite` None is plain RTP.

    `offload` is what `deliberate` has for its threads; without one, it does everything on this thread.
    """

    def __init__(
        self, legs: int, ticks: int, suite: SrtpSuite | None, voice: Voice = NOISE, offload: Offload | None = None
    ) -> None:
        self._voice = voice
        self._tray = Tray(legs)
        config = PlaneConfig(first_port=FIRST_PORT, last_port=FIRST_PORT + 4 * legs, max_calls=legs)
        self._plane = Plane(self._tray, TrioClock(), config, random.Random(1), offload)
        self._now = trio.current_time()
        self._at = 0
        self.blocks: list[float] = []
        streams = [self._open(leg, ticks, suite) for leg in range(legs)]
        self._sizes = [stream.shape[1] for stream in streams]
        most = max(self._sizes)
        padded = [np.pad(stream, ((0, 0), (0, most - stream.shape[1]))) for stream in streams]
        self._packets = np.ascontiguousarray(np.stack(padded, axis=1))

    def voice_of(self, leg: int) -> Voice:  # noqa: ARG002 - others may tell one from another
        """What a leg's phone says."""
        return self._voice

    def _open(self, leg: int, ticks: int, suite: SrtpSuite | None) -> npt.NDArray[np.uint8]:
        rng = random.Random(leg)
        send, _ = trio.open_memory_channel[Fact](100)
        opened = self._plane.open_leg(str(leg), send)
        remote = (f"10.0.{leg >> 8}.{leg & 255}", 4000)
        keys = None
        if suite is not None:
            ours, theirs = (SrtpKey(suite, rng.randbytes(suite.key_size)) for _ in range(2))
            keys = SrtpKeys(send=ours, receive=theirs)
        voice = self.voice_of(leg)
        media = MediaFormat(codec=voice.codec, receive_pt=0, send_pt=0, remote=remote, srtp=keys)
        self._plane.set_remote(str(leg), media)
        self._tray.know(opened.port, remote)
        sealer = Sealer(keys.receive) if keys else None
        packets = []
        for at in range(ticks):
            rtp = RtpPacket(
                payload_type=0,
                sequence=at,
                timestamp=voice.step * at,
                ssrc=leg + 1,
                payload=voice.payloads[at % len(voice.payloads)] if voice.payloads else rng.randbytes(160),
                marker=at == 0,
            )
            data = build_rtp(rtp)
            packets.append(np.frombuffer((sealer.sealed(data) or b"") if sealer else data, np.uint8))
        return np.array(packets)

    async def play(self, pcm: Pcm) -> None:
        """Play something on every leg, again and again, until cancelled."""
        async with trio.open_nursery() as nursery:
            for leg in range(len(self._packets[0])):
                nursery.start_soon(self._play, str(leg), pcm)

    async def _play(self, leg: str, pcm: Pcm) -> None:
        async with self._plane.source(leg, 1) as source:
            while True:
                await source.write(pcm)

    def tap(self) -> None:
        """Have somebody listen to every leg, so that its audio is decoded; nobody takes the blocks."""
        for leg in range(len(self._packets[0])):
            self._plane.tap(str(leg), seconds=0.5, capacity=1)

    def watch(self, engine: str) -> None:
        """Watch every leg for speech."""
        for leg in range(len(self._packets[0])):
            self._plane.watch_speech(str(leg), VadParams(engine=engine))

    async def deliberate(self) -> None:
        """Do what is done beside the ticks, until cancelled."""
        await self._plane.deliberate()

    def tick(self) -> None:
        """One tick; what it took is in the last of `blocks`."""
        self._tray.load(self._packets[self._at], self._sizes)
        self._now += TICK
        started = time.thread_time_ns()
        self._plane.tick(self._now)
        took = (time.thread_time_ns() - started) / 1e9
        if self._at >= WARM:
            if (self._at - WARM) % BLOCK == 0:
                self.blocks.append(0.0)
            self.blocks[-1] += took
        self._at += 1

    @property
    def tick_time(self) -> float:
        """Seconds of the cheapest block's ticks, on average."""
        return min(self.blocks) / BLOCK

    @property
    def counters(self) -> dict[str, int]:
        """What the plane counted."""
        return dict(self._plane.counters)


async def main() -> None:
    """Measure each suite beside plain RTP and print a table."""
    parser = argparse.ArgumentParser(prog="bench.srtp", description="what SRTP costs a leg")
    parser.add_argument("--legs", type=int, default=200)
    parser.add_argument("--ticks", type=int, default=600)
    parser.add_argument("--suites", default=",".join(suite.value for suite in SrtpSuite))
    arguments = parser.parse_args()
    ticks = WARM + arguments.ticks // BLOCK * BLOCK
    print("| suite | plain, % of a core a leg | with SRTP | SRTP alone |")
    print("|---|---|---|---|")
    for name in arguments.suites.split(","):
        plain, sealed = (Measured(arguments.legs, ticks, suite) for suite in (None, SrtpSuite(name)))
        for _ in range(ticks // BLOCK):
            for measured in (plain, sealed):
                for _ in range(BLOCK):
                    measured.tick()
        assert not set(sealed.counters) & {"srtp_rejected", "srtp_not_sealed"}, sealed.counters  # noqa: S101 - void
        figures = [100 * measured.tick_time / arguments.legs / TICK for measured in (plain, sealed)]
        print(f"| {name} | {figures[0]:.4f} | {figures[1]:.4f} | {figures[1] - figures[0]:.4f} |")


if __name__ == "__main__":
    trio.run(main)
