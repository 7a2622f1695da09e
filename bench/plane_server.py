"""The measured side: a plane with agent legs and nothing else. Speaks JSON lines with `bench.agent_calls`."""

from __future__ import annotations

import gc
import json
import random
import sys

import numpy as np
import trio

from rustpbx.media.events import Codec, Fact, MediaFormat, Pcm, VadParams
from rustpbx.media.plane.plane import Plane, PlaneConfig
from rustpbx.media.plane.port import real_ports
from rustpbx.shell.clock import TrioClock


class Calls:
    """The legs, what they play, and who listens to them."""

    def __init__(self, plane: Plane, nursery: trio.Nursery) -> None:
        self._plane = plane
        self._nursery = nursery
        self._speech = 0
        self._before = (0, 0)
        rng = np.random.default_rng(1)
        self._track: Pcm = (rng.normal(size=8000 * 4) * 3000).astype(np.int16)

    def answer(self, question: dict[str, object]) -> dict[str, object]:
        """Do what `bench.agent_calls` asks for."""
        if "legs" in question:
            ports = question["legs"]
            return {"legs": [self._open(index, port) for index, port in enumerate(ports)]}  # type: ignore[arg-type, var-annotated]
        plane = self._plane
        due, sent = plane.frames_due - self._before[0], plane.frames_sent - self._before[1]
        self._before = (plane.frames_due, plane.frames_sent)
        late = plane.lateness
        answer = {"due": due, "sent": sent, "p50": late.p50, "p99": late.p99, "worst": late.worst}
        late.reset()
        return {**answer, "speech": self._speech}

    def _open(self, index: int, port: int) -> int:
        leg = f"leg {index}"
        send, facts = trio.open_memory_channel[Fact](100)
        opened = self._plane.open_leg(leg, send)
        remote = ("127.0.0.1", port)
        self._plane.set_remote(leg, MediaFormat(codec=Codec.PCMU, receive_pt=0, send_pt=0, remote=remote))
        self._plane.watch_speech(leg, VadParams())
        self._nursery.start_soon(self._listen, facts)
        self._nursery.start_soon(self._hear, leg)
        self._nursery.start_soon(self._play, leg, index)
        return opened.port

    async def _listen(self, facts: trio.MemoryReceiveChannel[Fact]) -> None:
        async for _ in facts:
            self._speech += 1

    async def _hear(self, leg: str) -> None:
        """A recogniser that takes the blocks and makes nothing of them."""
        with self._plane.tap(leg) as tap:
            async for _ in tap.blocks:
                pass

    async def _play(self, leg: str, index: int) -> None:
        """An utterance after the other, four seconds each; not all legs at the same moment."""
        await trio.sleep(index % 200 * 0.02)
        for generation in range(sys.maxsize):
            async with self._plane.source(leg, generation) as source:
                await source.write(self._track)
                source.finish()
                await source.ended()


async def main() -> None:
    """Serve questions until the pipe closes."""
    plane = Plane(real_ports(), TrioClock(), PlaneConfig(max_calls=500), random.Random(1))
    async with trio.open_nursery() as nursery:
        await nursery.start(plane.run)
        calls = Calls(plane, nursery)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(calls.answer(json.loads(line))), flush=True)
            gc.freeze()  # as the server's own start does: a full collection is a hole in the audio
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
