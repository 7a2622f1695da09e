"""A seeded call repeats bit for bit: in other processes, under another hash seed, on a wire that loses and reorders."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import uuid
from pathlib import Path

import trio

from rustpbx.testing.house import House, Plan
from rustpbx.testing.run import run_virtual
from rustpbx.testing.wire import Link

ROOT = Path(__file__).parents[2]
ROUGH = Link(loss=0.1, duplication=0.05, reorder=0.05, delay=0.03, jitter=0.02)


async def busy_hour(seed: int) -> list[str]:
    """Two calls at once with words, keys, a barge-in, and a call out; everything that could be seen of them."""
    seen: list[str] = []
    async with House(Plan(seed=seed, link=ROUGH)).open() as house:
        bob, desk = await house.new_phone("bob", "10.0.0.4"), house.new_agent()
        bob.weather(ROUGH)

        async def in_and_out() -> None:
            await house.handset.dials()
            await house.desk.answers(within=100)
            await house.handset.says("hello agent")
            await house.desk.hears("hello")
            await house.desk.starts_saying("good morning, this will be interrupted")
            await house.handset.hears("good morning")
            await house.desk.interrupts()
            await house.handset.presses("5")
            house.handset.hangs_up()
            await house.desk.is_hung_up(100)

        async def out() -> None:
            await desk.dials(bob.phone.uri)
            await bob.answers(100)
            await desk.says("this is for bob")
            await desk.hangs_up(100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_and_out)
            nursery.start_soon(out)
        await house.settle()
        seen += [
            f"{c.at!r} {c.source} {c.destination} {c.data.hex()} {c.fate} {c.arrived_at!r}"
            for c in house.wire.transcript
        ]
        seen += [str(event) for agent in (house.desk, desk) for event in agent.events]
        seen += [house.handset.heard, bob.heard, str(uuid.uuid4()), str(random.random()), str(trio.current_time())]
    return seen


def in_a_process_of_its_own(seed: int, hash_seed: str) -> list[str]:
    """What `busy_hour` shows in a new Python."""
    program = (
        f"from tests.testing.test_replay import *; print(*run_virtual(busy_hour, {seed}, seed={seed}), sep=chr(10))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True)
    return run.stdout.decode().splitlines()


def test_a_call_replays_bit_for_bit() -> None:
    """The whole transcript with bytes and times, all events, what was heard, and the program's own random numbers."""
    one, other = in_a_process_of_its_own(3, "1"), in_a_process_of_its_own(3, "2")
    assert len(one) > 300
    assert one == other
    assert one == run_virtual(busy_hour, 3, seed=3)


def test_another_seed_is_another_call() -> None:
    """Other losses, other ids, another order."""
    assert run_virtual(busy_hour, 4, seed=4) != run_virtual(busy_hour, 5, seed=5)


def test_the_process_gets_its_own_randomness_back() -> None:
    """A run neither repeats the numbers around it nor leaves them seeded."""

    async def draw() -> list[object]:
        return [uuid.uuid4(), random.random(), os.urandom(4)]

    before = random.getstate()
    one, other = run_virtual(draw, seed=1), run_virtual(draw, seed=1)
    assert one == other != run_virtual(draw, seed=2)
    assert random.getstate() == before
    assert uuid.uuid4() != uuid.uuid4()
