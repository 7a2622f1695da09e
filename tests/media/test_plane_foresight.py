"""Encoding ahead of the tick: the packets are the same, however much of it comes in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import OverloadedError
from rustpbx.media.codec import opus
from rustpbx.media.codec.base import WIDE
from rustpbx.media.codec.libopus import libopus
from rustpbx.media.codec.opus import OpusCoder
from rustpbx.media.events import Codec, MediaFormat, OpusParams, Pcm
from rustpbx.media.plane.foresight import FEW
from rustpbx.shell.offload import InlineOffload
from tests.kit.sounds import tone
from tests.media.plane_rig import PHONE, Rig

T = TypeVar("T")

OPUS = MediaFormat(codec=Codec.OPUS, receive_pt=111, send_pt=111, remote=PHONE)
SOUND = tone(16000, 0.4, 440.0, 0.3)
SILENCE: Pcm = np.zeros(WIDE, np.int16)


@given(
    st.lists(st.sampled_from(["unasked", "as expected", "too late", "something else", "an old one"]), max_size=20),
    st.booleans(),
)
def test_the_packets_are_the_same(fates: list[str], dtx: bool) -> None:
    """What is expected may come, may not come, or be said when the thread is not ready: the coder is none the wiser."""
    params = OpusParams(dtx=dtx)
    plain, foreseeing = OpusCoder(params), OpusCoder(params)
    sounds = [*SOUND.reshape(-1, WIDE), SILENCE]
    for at, fate in enumerate(fates):
        frame = sounds[at % len(sounds)]
        if fate == "an old one":
            foreseeing.prepare()
        elif fate != "unasked":
            foreseeing.expect(SILENCE if fate == "something else" else frame)
            if fate != "too late":
                foreseeing.prepare()
        assert foreseeing.encode(frame) == plain.encode(frame)


def test_the_tick_comes_while_the_thread_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the thread then has is for a frame that is out already, though the next one looks the same."""
    plain, foreseeing = OpusCoder(), OpusCoder()
    frame = tone(16000, 0.02, 440.0, 0.3)
    said: list[bytes] = []

    class Slow:
        """The library as a thread has it, during whose work the tick goes on."""

        def opus_encode(self, *arguments: object) -> object:
            """Let the tick have its frame first."""
            said.append(foreseeing.encode(frame))
            return libopus().opus_encode(*arguments)

    monkeypatch.setattr(opus, "libopus", lambda *, beside: Slow() if beside else libopus())
    for _ in range(5):
        foreseeing.expect(frame)
        foreseeing.prepare()
        said.append(foreseeing.encode(frame))
    assert said == [plain.encode(frame) for _ in said]


class Counting(InlineOffload):
    """Threads that count what they were given, and of which there are sometimes none."""

    def __init__(self, *, overloaded: bool = False) -> None:
        self.batches = 0
        self.overloaded = overloaded

    async def thread(self, work: Callable[[], T]) -> T:
        """Do it now, or refuse."""
        self.batches += 1
        if self.overloaded:
            raise OverloadedError("no thread")
        return await super().thread(work)


async def said(legs: int, offload: Counting) -> tuple[list[list[bytes]], dict[str, int]]:
    """What so many legs of Opus send while each says something and then nothing; and what the plane counted."""
    rig = Rig(offload=offload, max_calls=legs)
    ports = [rig.open(str(leg), OPUS) for leg in range(legs)]
    async with rig.deliberating(), trio.open_nursery() as nursery:
        for leg in range(legs):
            nursery.start_soon(speak, rig, str(leg))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(30):
            rig.tick()
            await trio.testing.wait_all_tasks_blocked()
    return [[packet.payload for packet in rig.rtp(port)] for port in ports], dict(rig.plane.counters)


async def speak(rig: Rig, leg: str) -> None:
    """Play a tone."""
    async with rig.plane.source(leg, 1) as source:
        await source.write(SOUND)
        source.finish()
        await source.ended()


async def test_many_legs_are_encoded_beside_the_tick() -> None:
    """From so many on a thread is asked in each tick; few, and those without a thread, send the very same."""
    few, many, refused = Counting(), Counting(), Counting(overloaded=True)
    (alone, *_), nothing = await said(FEW, few)
    together, _ = await said(FEW + 1, many)
    unaided, counted = await said(FEW + 1, refused)
    assert (few.batches, many.batches, refused.batches) == (0, 30, 30)
    assert len(alone) == 30
    assert together == unaided == [alone] * (FEW + 1)
    assert nothing == {}
    assert counted == {"encoding_batches_refused": 30}
