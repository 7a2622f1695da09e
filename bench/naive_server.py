"""The design that comes to mind first, to compare with: two Trio tasks a call, one for each direction.

The same stages on the same library code as the plane (parsing, G.711, webrtc VAD, 16 kHz blocks to a listening task,
a prepared track out), but call by call and packet by packet. It has no jitter buffer, no RTCP and no latching, so
it does less than the plane does. Speaks what `bench.plane_server` speaks.
"""

from __future__ import annotations

import gc
import json
import struct
import sys
from typing import Any

import numpy as np
import trio

from rustpbx.media.codec.g711 import PCMU
from rustpbx.media.events import AudioBlock, Pcm, VadParams
from rustpbx.media.plane import stages
from rustpbx.media.rtp import parse_rtp
from rustpbx.media.vad.activity import Activity
from rustpbx.media.vad.detector import make_detector

TICK = 0.02
BLOCK = 5
"""Frames in a block for the listener: 100 ms."""


class Call:
    """One call's two directions."""

    def __init__(self, server: Calls, index: int, remote: tuple[str, int]) -> None:
        self._server = server
        self._index = index
        self._remote = remote
        self._detector = make_detector("webrtc")
        self._activity = Activity(f"leg {index}", VadParams())
        self._bench = stages.Workbench(1, BLOCK * stages.FRAME)
        self._past: Pcm = np.zeros(stages.HISTORY, np.int16)
        self._send, self.blocks = trio.open_memory_channel[AudioBlock](50)
        self.socket = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)

    async def receive(self) -> None:
        """Packet by packet: parse, decode, judge, collect; a block to the listener each 100 ms."""
        frames: list[Pcm] = []
        while True:
            data, _ = await self.socket.recvfrom(2048)
            packet = parse_rtp(memoryview(data))
            if packet is None or len(packet.payload) != stages.FRAME:
                continue
            pcm = PCMU.decode(np.frombuffer(packet.payload, np.uint8))
            voiced = self._detector.voiced(pcm.tobytes(), stages.FRAME)
            self._server.speech += len(self._activity.frame(voiced, trio.current_time()))
            frames.append(pcm)
            if len(frames) == BLOCK:
                kept = np.concatenate([self._past, *frames])
                self._past = kept[-stages.HISTORY :]
                wide = stages.upsample(kept[np.newaxis, :], self._bench)[0].copy()
                await self._send.send(AudioBlock(wide, 16000, trio.current_time()))
                frames.clear()

    async def listen(self) -> None:
        """A recogniser that takes the blocks and makes nothing of them."""
        async for _ in self.blocks:
            pass

    async def speak(self) -> None:
        """A frame each 20 ms on an absolute schedule, out of the prepared track."""
        due = trio.current_time() + self._index % 20 * 0.001
        sequence = rtp_time = 0
        track = self._server.track
        while True:
            due += TICK
            await trio.sleep_until(due)
            at = rtp_time % len(track)
            payload = PCMU.encode(track[at : at + stages.FRAME]).tobytes()
            header = struct.pack("!BBHII", 0x80, 0, sequence & 0xFFFF, rtp_time & 0xFFFFFFFF, self._index)
            self._server.due += 1
            await self.socket.sendto(header + payload, self._remote)
            self._server.sent += 1
            sequence += 1
            rtp_time += stages.FRAME


class Calls:
    """All calls of the naive server."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.speech = self.due = self.sent = 0
        rng = np.random.default_rng(1)
        self.track: Pcm = (rng.normal(size=8000 * 4) * 3000).astype(np.int16)

    async def answer(self, question: dict[str, Any]) -> dict[str, object]:
        """Do what `bench.run` asks for."""
        if "legs" in question:
            return {"legs": [await self._open(index, port) for index, port in enumerate(question["legs"])]}
        due, sent = self.due, self.sent
        self.due = self.sent = 0
        nothing: dict[str, object] = {"p50": 0.0, "p99": 0.0, "worst": 0.0, "said": [], "heard": []}
        return {**nothing, "due": due, "sent": sent, "speech": self.speech}

    async def _open(self, index: int, port: int) -> int:
        call = Call(self, index, ("127.0.0.1", port))
        await call.socket.bind(("127.0.0.1", 0))
        for task in (call.receive, call.listen, call.speak):
            self._nursery.start_soon(task)
        bound: int = call.socket.getsockname()[1]
        return bound


async def main() -> None:
    """Serve questions until the pipe closes."""
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(await calls.answer(json.loads(line))), flush=True)
            gc.freeze()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
