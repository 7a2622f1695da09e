"""The measured side: a plane with agent legs and nothing else. Speaks JSON lines with `bench.run`."""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from typing import Any

import numpy as np
import trio

from rustpbx.media.events import AudioBlock, Codec, Fact, MediaFormat, Pcm, VadParams
from rustpbx.media.plane.plane import Plane, PlaneConfig
from rustpbx.media.plane.port import real_ports
from rustpbx.shell.clock import TrioClock

TRACK_SECONDS = 4
LOUD = 8000
MOST_CALLS = 2000


class Calls:
    """The legs, what they play, and who listens to them. The first `probes` legs say and hear clicks in silence."""

    def __init__(self, plane: Plane, nursery: trio.Nursery) -> None:
        self._plane = plane
        self._nursery = nursery
        self._speech = 0
        self._before = (0, 0)
        self._said: list[tuple[int, float]] = []
        self._heard: list[tuple[int, float]] = []
        self._rng = np.random.default_rng(1)
        self._track: Pcm = (self._rng.normal(size=8000 * TRACK_SECONDS) * 3000).astype(np.int16)
        self._click: Pcm = np.full(160, LOUD * 2, np.int16)

    def answer(self, question: dict[str, Any]) -> dict[str, object]:
        """Do what `bench.run` asks for: open legs, or tell what happened since it was asked before."""
        if "legs" in question:
            return {"legs": [self._open(n, port, question["probes"]) for n, port in enumerate(question["legs"])]}
        plane = self._plane
        due, sent = plane.frames_due - self._before[0], plane.frames_sent - self._before[1]
        self._before = (plane.frames_due, plane.frames_sent)
        said, self._said = self._said, []
        heard, self._heard = self._heard, []
        late = plane.lateness
        answer = {"due": due, "sent": sent, "p50": late.p50, "p99": late.p99, "worst": late.worst}
        late.reset()
        return {**answer, "speech": self._speech, "said": said, "heard": heard}

    def _open(self, index: int, port: int, probes: int) -> int:
        leg = f"leg {index}"
        send, facts = trio.open_memory_channel[Fact](100)
        opened = self._plane.open_leg(leg, send)
        remote = ("127.0.0.1", port)
        self._plane.set_remote(leg, MediaFormat(codec=Codec.PCMU, receive_pt=0, send_pt=0, remote=remote))
        self._plane.watch_speech(leg, VadParams())
        self._nursery.start_soon(self._listen, facts)
        if index < probes:
            self._nursery.start_soon(self._hear_clicks, leg, index)
            self._nursery.start_soon(self._say_clicks, leg, index)
        else:
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

    async def _hear_clicks(self, leg: str, index: int) -> None:
        """Note when a listener was given the block with a click in it."""
        quiet = True
        with self._plane.tap(leg) as tap:
            async for block in tap.blocks:
                loud = _loud(block)
                if loud and quiet:
                    self._heard.append((index, time.monotonic()))
                quiet = not loud

    async def _say_clicks(self, leg: str, index: int) -> None:
        """A click a second, and when it was handed over."""
        await trio.sleep(0.37 + index * 0.013)
        for generation in range(sys.maxsize):
            async with self._plane.source(leg, generation) as source:
                self._said.append((index, time.monotonic()))
                await source.write(self._click)
                source.finish()
                await source.ended()
            await trio.sleep(0.9 + 0.02 * self._rng.random())


def _loud(block: AudioBlock) -> bool:
    return bool(np.abs(block.pcm[:: len(block.pcm) // 160]).max() > LOUD)


async def main() -> None:
    """Serve questions until the pipe closes."""
    plane = Plane(real_ports(), TrioClock(), PlaneConfig(max_calls=MOST_CALLS), random.Random(1))
    async with trio.open_nursery() as nursery:
        await nursery.start(plane.run)
        calls = Calls(plane, nursery)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(calls.answer(json.loads(line))), flush=True)
            gc.freeze()  # as the server's own start does: a full collection is a hole in the audio
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
