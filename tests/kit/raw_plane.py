"""The media plane under packets from anybody: eight legs, so that both its ways are taken, one of them well behaved.

An input is records of a kind, a leg and a size (one byte each) and so many bytes: a datagram as it is, the phone's
next packet with a few fields changed, a digit, a tick, a re-INVITE, a leg closed and opened again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import trio

from rustpbx.media.dtmf import DIGITS
from rustpbx.media.events import Codec, DigitPressed, Direction, VadParams
from rustpbx.media.plane.tap import Tap
from tests.media.plane_rig import PHONE, STRANGER, Rig, Stream, as_sent, g711, voice

LEGS = 8
"""Leg 0 is the well-behaved one."""

MOST = 200
"""Records of one input."""

SAID = as_sent(voice(0.16))


def listen(data: bytes) -> None:
    """No packet fails a leg, stops the sound that is sent, or changes what is heard of another leg."""

    async def scenario() -> None:
        party = Party()
        for kind, leg, content in records(data):
            party.take(kind % 8, leg % LEGS, content)
        party.judge()

    trio.run(scenario)


def records(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, leg and content of each record."""
    at = 0
    for _ in range(MOST):
        if at + 3 > len(data):
            return
        kind, leg, size = data[at : at + 3]
        yield kind, leg, data[at + 3 : at + 3 + size]
        at += 3 + size


class Party:
    """The plane, its legs' phones and what they have sent."""

    def __init__(self) -> None:
        self._rig = Rig(quarantine=0.0)
        self._ports = [self._rig.open(str(leg)) for leg in range(LEGS)]
        self._streams = [Stream(ssrc=leg + 1) for leg in range(LEGS)]
        self._taps = [self._tap(leg) for leg in range(LEGS)]
        self._ticks = 0
        self._good = 0
        self._tick()

    def _tap(self, leg: int) -> Tap:
        self._rig.plane.watch_speech(str(leg), VadParams(silence_timeout=0.1))
        return self._rig.plane.tap(str(leg), seconds=0.02, capacity=2 * MOST)

    def take(self, kind: int, leg: int, content: bytes) -> None:
        """Let one record happen; what is bad does not happen to leg 0."""
        match kind:
            case 0 | 1 | 2 if leg == 0:
                self._rig.ports.arrive(self._ports[0], content, STRANGER)
            case 0:
                self._rig.ports.arrive(self._ports[leg], content)
            case 1:
                self._rig.ports.arrive(self._ports[leg] + 1, content, (PHONE[0], PHONE[1] + 1))
            case 2:
                self._rig.ports.arrive(self._ports[leg], content, STRANGER)
            case 3 | 4 if leg:
                self._next(leg, content)
            case 5 if leg:
                self._agree(leg, content)
            case 6 if leg:
                self._reopen(leg)
            case _:
                self._tick()

    def _next(self, leg: int, content: bytes) -> None:
        """The phone's next packet, exclusive-or these bytes."""
        packet = bytearray(self._streams[leg].packet())
        for at, byte in enumerate(content[: len(packet)]):
            packet[at] ^= byte
        self._rig.ports.arrive(self._ports[leg], bytes(packet))

    def _agree(self, leg: int, content: bytes) -> None:
        first = content[0] if content else 0
        directions = list(Direction)
        self._rig.plane.set_remote(
            str(leg),
            g711(
                codec=Codec.PCMA if first & 1 else Codec.PCMU,
                receive_pt=8 if first & 1 else 0,
                send_pt=8 if first & 1 else 0,
                direction=directions[first >> 1 & 3],
                rtcp_mux=bool(first & 8),
                rtcp=None if first & 16 else (PHONE[0], PHONE[1] + 1),
                remote=PHONE if first & 32 else ("0.0.0.0", 0),  # noqa: S104 - on hold
            ),
        )

    def _reopen(self, leg: int) -> None:
        stats = self._rig.plane.close_leg(str(leg))
        assert stats.packets_received >= 0
        assert 0 <= stats.jitter < 2**32 / 8000, stats
        self._facts(leg)
        self._ports[leg] = self._rig.open(str(leg))
        self._taps[leg] = self._tap(leg)

    def _tick(self) -> None:
        """20 ms, with the good phone's next packet in time."""
        at = self._good % (SAID.size // 160) * 160
        self._rig.ports.arrive(self._ports[0], self._streams[0].packet(SAID[at : at + 160]))
        self._good += 1
        self._ticks += 1
        self._rig.tick()

    # -- what must be so ----------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Look at everything that came out."""
        for _ in range(6):
            self._tick()
        assert self._rig.plane.counters["legs_failed"] == 0, self._rig.plane.counters
        for leg in range(LEGS):
            self._facts(leg)
        self._sent()
        self._heard()
        for leg in range(LEGS):
            self._rig.plane.close_leg(str(leg))
        assert self._rig.plane.legs == 0
        assert not self._rig.ports.opened

    def _facts(self, leg: int) -> None:
        for fact in self._rig.told(str(leg)):
            assert fact.leg == str(leg), fact
            if isinstance(fact, DigitPressed):
                assert leg, "a stranger's digit"
                assert fact.digit in DIGITS

    def _sent(self) -> None:
        """The good phone got a packet each tick, in order, and nobody else did from its port."""
        assert self._rig.destinations(self._ports[0]) == {PHONE}
        packets = self._rig.rtp(self._ports[0])
        assert len(packets) == self._ticks
        first = packets[0]
        for index, packet in enumerate(packets):
            assert packet.sequence == (first.sequence + index) & 0xFFFF
            assert packet.timestamp == (first.timestamp + 160 * index) & 0xFFFFFFFF
            assert (packet.payload_type, packet.ssrc, len(packet.payload)) == (0, first.ssrc, 160)

    def _heard(self) -> None:
        """What the good phone said was heard, from its start on, without a gap."""
        heard = []
        while True:
            try:
                heard.append(self._taps[0].blocks.receive_nowait().pcm[::2])
            except trio.WouldBlock:
                break
        loud = [bool(np.abs(block.astype(np.int32)).max() > 500) for block in heard]
        assert sum(loud) >= self._ticks - 4, loud
        assert all(loud[loud.index(True) :]), loud
