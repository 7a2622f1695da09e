"""What codecs cost: each coder alone, and a leg that speaks and is spoken to in it. `python -m bench.codecs`

The coders first, on one voice: how long a frame of 20 ms takes to encode and to decode, of speech and of silence, by
the complexity of Opus. Then the plane, with packets handed over in memory, everybody talking all the time and a
listener on each leg: legs of each codec in turns of ten ticks. The cheapest turn counts, for noise only ever adds.
At last many legs of Opus: how long a tick keeps the loop busy, with encoding in it and beside it.

Exit status 0: the bar held; 1: it was missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import attrs
import numpy as np
import trio
import trio.testing

from bench.srtp import BLOCK, TICK, WARM, Measured, Voice
from rustpbx.media.codec.base import WIDE, Coder
from rustpbx.media.codec.g711 import PCMU
from rustpbx.media.codec.g722 import G722Coder
from rustpbx.media.codec.opus import COMPLEXITY, OpusCoder
from rustpbx.media.codec.resample import resample
from rustpbx.media.decode import decode
from rustpbx.media.events import Codec, OpusParams, Pcm
from rustpbx.shell.offload import InlineOffload

T = TypeVar("T")

BAR = 0.6
"""Per cent of a core that a leg of Opus may cost."""

HELLO = Path(__file__).parent.parent / "tests" / "golden" / "speech" / "hello-8k.wav"
SILENCE: Pcm = np.zeros(WIDE, np.int16)
FEC = OpusParams(fec=True)


def voice() -> Pcm:
    """Somebody who says hello, at 16 kHz, in whole frames."""
    pcm = resample(decode(HELLO.read_bytes(), 8000), 8000, 16000)
    return pcm[: pcm.size // WIDE * WIDE]


@attrs.frozen
class Cost:
    """Microseconds of a core for 20 ms, and the bytes that they become."""

    speech: float
    silence: float
    decoding: float
    size: float


def coder_cost(make: Callable[[], Coder], rounds: int) -> Cost:
    """The least of so many rounds over the voice."""
    frames = voice().reshape(-1, WIDE)
    times: list[tuple[float, float, float]] = []
    size = 0.0
    for _ in range(rounds):
        coder = make()
        packets = [coder.encode(frame) for frame in frames]
        size = sum(map(len, packets)) / len(packets)
        fresh = make()
        times.append(
            (
                _each(fresh.encode, frames),
                _each(fresh.encode, [SILENCE] * len(frames)),
                _each(fresh.decode, packets),
            )
        )
    speech, silence, decoding = (min(column) for column in zip(*times, strict=True))
    return Cost(speech, silence, decoding, size)


def _each(work: Callable[..., object], items: Iterable[object]) -> float:
    """Microseconds that it takes for one of these, on average."""
    todo = list(items)
    started = time.thread_time_ns()
    for item in todo:
        work(item)
    return (time.thread_time_ns() - started) / 1e3 / len(todo)


def voices(ticks: int) -> dict[str, Voice]:
    """The phones of each codec; Opus at a constant bit rate, so that its packets are of one size."""
    wide = voice()
    narrow = resample(wide, 16000, 8000)[: wide.size // 2]
    frames = list(islice(cycle(wide.reshape(-1, WIDE)), ticks))
    opus, g722 = OpusCoder(OpusParams(cbr=True)), G722Coder()
    law = tuple(PCMU.encode(frame).tobytes() for frame in narrow.reshape(-1, WIDE // 2))
    return {
        "PCMU": Voice(Codec.PCMU, law),
        "G722": Voice(Codec.G722, tuple(map(g722.encode, frames))),
        "opus": Voice(Codec.OPUS, tuple(map(opus.encode, frames)), 960),
    }


async def leg_costs(legs: int, ticks: int) -> dict[str, float]:
    """Per cent of a core for a leg of each codec: heard, listened to, played to."""
    total = WARM + ticks // BLOCK * BLOCK
    planes = {name: Measured(legs, total, None, spoken) for name, spoken in voices(total).items()}
    async with trio.open_nursery() as nursery:
        for name, plane in planes.items():
            plane.tap()
            pcm = voice()
            nursery.start_soon(plane.play, resample(pcm, 16000, 8000) if name == "PCMU" else pcm)
        for _ in range(total // BLOCK):
            for plane in planes.values():
                await trio.testing.wait_all_tasks_blocked()
                for _ in range(BLOCK):
                    plane.tick()
        nursery.cancel_scope.cancel()
    return {name: 100 * plane.tick_time / legs / TICK for name, plane in planes.items()}


class Threads(InlineOffload):
    """Trio's own threads, of which one can wait for the last."""

    def __init__(self) -> None:
        self._rest = trio.Event()
        self._rest.set()

    async def thread(self, work: Callable[[], T]) -> T:
        """Run it in one."""
        self._rest = trio.Event()
        try:
            return await trio.to_thread.run_sync(work)
        finally:
            self._rest.set()

    async def rest(self) -> None:
        """Wait until nothing is to be done, as between two ticks of a machine with a core to spare."""
        await trio.testing.wait_all_tasks_blocked()
        await self._rest.wait()
        await trio.testing.wait_all_tasks_blocked()


async def loop_costs(legs: int, ticks: int) -> tuple[float, float]:
    """Milliseconds that a tick of so many legs of Opus takes of the loop: alone, and with a thread that encodes."""
    total = WARM + ticks // BLOCK * BLOCK
    spoken, threads = voices(total)["opus"], Threads()
    alone, helped = Measured(legs, total, None, spoken), Measured(legs, total, None, spoken, threads)
    async with trio.open_nursery() as nursery:
        for plane in (alone, helped):
            plane.tap()
            nursery.start_soon(plane.play, voice())
        nursery.start_soon(helped.deliberate)
        for _ in range(total // BLOCK):
            for plane in (alone, helped):
                for _ in range(BLOCK):
                    await threads.rest()
                    plane.tick()
        nursery.cancel_scope.cancel()
    return 1e3 * alone.tick_time, 1e3 * helped.tick_time


def main() -> int:
    """Measure, print three tables, judge."""
    parser = argparse.ArgumentParser(prog="bench.codecs", description="what codecs cost")
    parser.add_argument("--legs", type=int, default=40)
    parser.add_argument("--ticks", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    print("| us of a core for 20 ms | speech | the same with redundancy | silence | decoding | bytes |")
    print("|---|---|---|---|---|---|")
    for complexity in (0, 1, 2, 3, 5, 8, 10):
        plain = coder_cost(lambda level=complexity: OpusCoder(complexity=level), arguments.rounds)  # type: ignore[misc]
        fec = coder_cost(lambda level=complexity: OpusCoder(FEC, level), arguments.rounds)  # type: ignore[misc]
        mark = " (ours)" if complexity == COMPLEXITY else ""
        _row(f"opus, complexity {complexity}{mark}", plain, f"{fec.speech:.0f}")
    _row("G722", coder_cost(G722Coder, arguments.rounds), "-")
    print("\n| a leg of | % of a core |\n|---|---|")
    costs = trio.run(leg_costs, arguments.legs, arguments.ticks)
    for name, cost in costs.items():
        print(f"| {name} | {cost:.3f} |")
    print("\n| legs of opus | ms of the loop a tick, encoding in it | beside it |\n|---|---|---|")
    for legs in (20, 40, 100, 150):
        alone, helped = trio.run(loop_costs, legs, arguments.ticks)
        print(f"| {legs} | {alone:.1f} | {helped:.1f} |")
    held = costs["opus"] <= BAR
    print(f"\n{'held' if held else 'MISSED'}: a leg of Opus, at most {BAR} % of a core: {costs['opus']:.3f}")
    return 0 if held else 1


def _row(name: str, cost: Cost, redundant: str) -> None:
    print(f"| {name} | {cost.speech:.0f} | {redundant} | {cost.silence:.0f} | {cost.decoding:.0f} | {cost.size:.0f} |")


if __name__ == "__main__":
    sys.exit(main())
