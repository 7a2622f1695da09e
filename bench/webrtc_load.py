"""Browsers that call: ICE, DTLS, and a packet of Opus each 20 ms. Speaks JSON lines with `bench.webrtc`.

The voice is encoded once, and what comes is opened by nobody: the load must cost less than what it measures.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import cycle
from typing import Any

import attrs
import numpy as np
import trio

from bench.codecs import voice
from rustpbx.media.codec.base import WIDE
from rustpbx.media.codec.opus import OpusCoder
from rustpbx.media.events import Codec
from rustpbx.media.ice import IceOptions
from rustpbx.media.rtp import RtpPacket
from rustpbx.shell.network import RealNetwork
from rustpbx.testing.browser import Browser, Habits

TICK = 0.02
STEP = 960
PAYLOAD_TYPE = 111


class Caller(Browser):
    """One that neither encodes nor decodes."""

    def __init__(self, seed: int) -> None:
        habits = Habits(codecs=(Codec.OPUS,), keys=False, ice=IceOptions(allow_loopback=True))
        super().__init__(RealNetwork(), habits, seed)
        self.received = 0
        self.secured_at = 0.0
        self.packet = RtpPacket(
            payload_type=PAYLOAD_TYPE, sequence=seed & 0x7FFF, timestamp=seed * STEP, ssrc=seed + 1, payload=b""
        )

    async def _speak(self) -> None:
        """All callers are given their words by one task."""
        await self._settled.wait()
        self.secured_at = time.monotonic()

    def _hear(self, data: bytes) -> None:
        self.received += bool(data) and data[1] & 0x7F == PAYLOAD_TYPE

    def say_payload(self, payload: bytes) -> None:
        """One more packet."""
        self.packet = attrs.evolve(
            self.packet,
            payload=payload,
            sequence=self.packet.sequence + 1 & 0xFFFF,
            timestamp=self.packet.timestamp + STEP & 0xFFFFFFFF,
        )
        self.send_raw(self.sealed(self.packet))


class Load:
    """All callers, and how late their packets were."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._callers: list[Caller] = []
        self._late: list[float] = []
        self._marked = time.monotonic()
        self._before = 0
        coder = OpusCoder()
        self._payloads = [coder.encode(frame) for frame in voice().reshape(-1, WIDE)]

    async def answer(self, question: dict[str, Any]) -> dict[str, object]:
        """Do what `bench.webrtc` asks for."""
        match question:
            case {"offer": int(seed)}:
                caller = Caller(seed)
                await self._nursery.start(caller.run, ["127.0.0.1"])
                self._callers.append(caller)
                return {"offer": caller.offer}
            case {"answer": str(sdp)}:
                caller, began = self._callers[-1], time.monotonic()
                caller.accept(sdp)
                await caller.connected(20)
                await trio.lowlevel.checkpoint()
                return {"seconds": time.monotonic() - began}
            case _:
                return self._mark()

    def _mark(self) -> dict[str, object]:
        now, received = time.monotonic(), sum(caller.received for caller in self._callers)
        late, self._late = self._late, []
        told: dict[str, object] = {
            "seconds": now - self._marked,
            "received": received - self._before,
            "late_p99": 1000 * float(np.percentile(late, 99)) if late else 0.0,
        }
        self._marked, self._before = now, received
        return told

    async def speak(self) -> None:
        """A packet for each caller, each 20 ms."""
        due = time.monotonic()
        for payload in cycle(self._payloads):
            due += TICK
            await trio.sleep(max(0.0, due - time.monotonic()))
            self._late.append(time.monotonic() - due)
            for caller in self._callers:
                if caller.secured_at:
                    caller.say_payload(payload)


async def main() -> None:
    """Serve questions until the pipe closes."""
    async with trio.open_nursery() as nursery:
        load = Load(nursery)
        nursery.start_soon(load.speak)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(await load.answer(json.loads(line))), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
