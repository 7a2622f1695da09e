"""Noise suppression in the plane: which frame is heard when, and what happens when the network is late or fails."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import trio
import trio.testing

from rustpbx.errors import MediaError
from rustpbx.media.denoise.engine import DENOISERS
from rustpbx.media.denoise.rnnoise import Cleaned
from rustpbx.media.events import DenoiseFailed, Fact, Pcm, SpeechStarted, VadParams
from rustpbx.media.plane.denoising import DELAY, REST
from rustpbx.media.plane.tap import Tap
from tests.media.plane_rig import Rig, Stream, as_sent, tone, voice
from tests.media.test_plane_deliberation import Gate, say


class Halver:
    """An engine that halves each sample, 20 ms late as the real one. `broken` is a stream that it cannot stand."""

    def __init__(self) -> None:
        self.streams: list[list[Pcm]] = []
        self.sizes: list[int] = []
        self.broken: list[Pcm] | None = None
        self.missing: Exception | None = None

    def load(self) -> None:
        """Raise what was asked for."""
        if self.missing is not None:
            raise self.missing

    def open(self, rate: int) -> list[Pcm]:
        """What a stream has been given so far: a frame of silence."""
        self.streams.append([np.zeros(rate // 50, np.int16)])
        return self.streams[-1]

    def clean(self, streams: Sequence[list[Pcm]], frames: Sequence[Pcm]) -> list[Cleaned]:
        """The frame before, halved."""
        if any(stream is self.broken for stream in streams):
            raise MediaError("a bug")
        self.sizes.append(len(streams))
        for stream, frame in zip(streams, frames, strict=True):
            stream.append(frame.copy())
        halves = [stream[-2] // 2 for stream in streams]
        return [Cleaned(half, None) if half.size == 160 else Cleaned(half[::2], half) for half in halves]


@pytest.fixture
def halver(monkeypatch: pytest.MonkeyPatch) -> Halver:
    """In place of RNNoise."""
    engine = Halver()
    monkeypatch.setitem(DENOISERS, "rnnoise", lambda: engine)
    return engine


def narrow(tap: Tap) -> Pcm:
    """What came out of a tap, at 8 kHz: of the filter's product the samples that were there before."""
    wide = np.concatenate([tap.blocks.receive_nowait().pcm for _ in range(tap.blocks.waiting)])
    return wide[1::2]


def kept(rig: Rig, slot: int = 0) -> Pcm:
    """The frame that the leg in a slot heard in the last tick."""
    bank = rig.plane._bank
    frame: Pcm = bank.kept[slot, bank.tick % bank.kept.shape[1]].copy()
    return frame


async def hear(rig: Rig, port: int, stream: Stream, pcm: Pcm) -> Pcm:
    """Say it, and return what the leg heard meanwhile."""
    heard = []
    for at in range(0, pcm.size, 160):
        await say(rig, port, stream, pcm[at : at + 160])
        heard.append(kept(rig))
    return np.concatenate(heard)


async def test_every_frame_is_heard_cleaned_and_60_ms_later(halver: Halver) -> None:
    """All samples, in order, once: behind the jitter buffer's 40 ms those of the denoiser."""
    rig = Rig()
    port, sound = rig.open(), tone(0.4)
    rig.plane.denoise("a")
    with rig.plane.tap("a"):
        async with rig.deliberating():
            heard = await hear(rig, port, Stream(), sound)
    late = (2 + DELAY) * 160
    np.testing.assert_array_equal(heard[:late], 0)
    np.testing.assert_array_equal(heard[late:], as_sent(sound)[:-late] // 2)
    assert set(halver.sizes) == {1}
    assert rig.plane.counters["denoise_frames_late"] == 0


@pytest.mark.parametrize("denoised", [False, True])
async def test_speech_and_blocks_have_the_times_at_which_they_were_said(halver: Halver, denoised: bool) -> None:
    """The detector and the tap hear it later, and say the same time as without."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    if denoised:
        rig.plane.denoise("a")
    rig.plane.watch_speech("a", VadParams(speech_padding=0.06))
    begin = rig.clock.time
    with rig.plane.tap("a", seconds=0.02) as tap:
        async with rig.deliberating():
            await say(rig, port, stream, np.concatenate([np.zeros(3200, np.int16), voice(0.4) * 2]))
        blocks = [tap.blocks.receive_nowait() for _ in range(tap.blocks.waiting)]
    (started,) = rig.told()
    loud = next(block.at for block in blocks if np.abs(block.pcm).max() > 500)
    assert isinstance(started, SpeechStarted)
    assert round(started.at - begin, 3) == pytest.approx(0.4, abs=0.041)
    assert round(loud - begin, 3) == 0.4


async def test_a_wide_leg_is_cleaned_at_16_khz(halver: Halver) -> None:
    """A stream of samples: the tap hears them halved, none of them through the filters of 8 kHz."""
    rig = Rig()
    send, rig.facts["a"] = trio.open_memory_channel[Fact](10)
    rig.plane.open_stream("a", "pcm", lambda _: None, send)
    rig.plane.denoise("a")
    sound = tone(0.5, 16000, 5000.0)
    with rig.plane.tap("a") as tap:
        async with rig.deliberating():
            rig.plane.feed("a", sound.tobytes())
            for _ in range(20):
                rig.tick()
                await trio.testing.wait_all_tasks_blocked()
        heard = np.concatenate([tap.blocks.receive_nowait().pcm for _ in range(tap.blocks.waiting)])
    begin = int(np.flatnonzero(heard)[0]) - int(np.flatnonzero(sound // 2)[0])
    assert begin > 0
    np.testing.assert_array_equal(heard[begin:], (sound // 2)[: heard.size - begin])


async def test_all_calls_are_one_batch_a_tick(halver: Halver) -> None:
    """Of five legs four are cleaned: together, and the fifth hears what it always did."""
    rig = Rig()
    ports = [rig.open(str(leg)) for leg in range(5)]
    streams = [Stream(ssrc=leg) for leg in range(5)]
    taps = [rig.plane.tap(str(leg)) for leg in range(5)]
    for leg in range(4):
        rig.plane.denoise(str(leg))
    async with rig.deliberating():
        for _ in range(10):
            for port, stream in zip(ports, streams, strict=True):
                rig.ports.arrive(port, stream.packet(np.full(160, 8000, np.int16)))
            rig.tick()
            await trio.testing.wait_all_tasks_blocked()
    assert halver.sizes == [4] * 10
    level = int(as_sent(np.array([8000], np.int16))[0])
    assert [int(kept(rig, slot)[0]) for slot in range(5)] == [level // 2] * 4 + [level]
    for tap in taps:
        tap.close()


async def test_nothing_is_computed_for_a_leg_that_nobody_hears(halver: Halver) -> None:
    """Without tap and detector no frame is given away; with the first listener it begins."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    rig.plane.denoise("a")
    rig.plane.denoise("a")
    async with rig.deliberating():
        await say(rig, port, stream, tone(0.2))
        assert halver.sizes == []
        with rig.plane.tap("a"):
            await say(rig, port, stream, tone(0.2))
    assert halver.sizes == [1] * 10
    assert len(halver.streams) == 1


async def test_what_is_late_is_heard_as_it_was(halver: Halver) -> None:
    """The thread hangs: no tick waits, no frame is lost or doubled, the leg rests a second, then is clean again."""
    gate = Gate()
    rig = Rig(offload=gate)
    port, stream, sound = rig.open(), Stream(), tone(2.0)
    rig.plane.denoise("a")
    with rig.plane.tap("a"):
        async with rig.deliberating():
            first = await hear(rig, port, stream, sound[:1600])
            gate.open = False
            second = await hear(rig, port, stream, sound[1600:3200])
            gate.open = True
            gate.let()
            third = await hear(rig, port, stream, sound[3200:])
    heard = np.concatenate([first, second, third])
    late = (2 + DELAY) * 160
    said = as_sent(sound)[:-late].reshape(-1, 160)
    frames = heard[late:].reshape(-1, 160)
    clean = [bool((frame == was // 2).all()) for frame, was in zip(frames, said, strict=True)]
    raw = [bool((frame == was).all()) for frame, was in zip(frames, said, strict=True)]
    # A stream that pauses goes on with its own past: one frame of an old sound, where it takes part again.
    odd = [at for at in range(len(frames)) if not clean[at] and not raw[at]]
    assert len(odd) <= 1
    assert all(clean[:5])
    assert all(clean[-20:])
    assert REST <= sum(raw) <= REST + 4
    assert rig.plane.counters["denoise_frames_late"] == 1
    assert len(rig.rtp(port)) == 100


async def test_overload_leaves_half_of_the_late_legs_as_they_are(halver: Halver) -> None:
    """Four legs wait for a thread that hangs for a few ticks: two of them rest, the other two are in the next batch."""
    gate = Gate()
    rig = Rig(offload=gate)
    ports = [rig.open(str(leg)) for leg in range(4)]
    streams = [Stream(ssrc=leg) for leg in range(4)]
    for leg in range(4):
        rig.plane.denoise(str(leg))
        rig.plane.tap(str(leg))

    async def ticks(count: int) -> None:
        for _ in range(count):
            for port, stream in zip(ports, streams, strict=True):
                rig.ports.arrive(port, stream.packet(tone(0.02)))
            rig.tick()
            await trio.testing.wait_all_tasks_blocked()

    async with rig.deliberating():
        await ticks(10)
        gate.open = False
        await ticks(3)
        gate.open = True
        gate.let()
        await ticks(5)
    assert set(halver.sizes[:11]) == {4}
    assert halver.sizes[-5:] == [2] * 5


async def test_a_missing_library_is_told_and_the_leg_is_heard_as_it_is(halver: Halver) -> None:
    """To each leg at once, without any audio; nothing lags any more, and a later leg asks again."""
    halver.missing = MediaError("it is not installed")
    rig = Rig()
    port, sound = rig.open(), tone(0.2)
    rig.open("b")
    async with rig.deliberating():
        rig.plane.denoise("a")
        rig.plane.denoise("b")
        await trio.testing.wait_all_tasks_blocked()
        assert [rig.told(leg) for leg in "ab"] == [[DenoiseFailed(leg, "it is not installed")] for leg in "ab"]
        with rig.plane.tap("a"):
            heard = await hear(rig, port, Stream(), sound)
        halver.missing = OSError("no file")
        rig.plane.denoise("b")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.told("b") == [DenoiseFailed("b", "OSError: no file")]
    np.testing.assert_array_equal(heard[320:], as_sent(sound)[:-320])


async def test_a_stream_that_breaks_the_engine_is_left_alone(halver: Halver) -> None:
    """One stream makes the batch raise: it is told and heard as it is; the other is cleaned in the same tick."""
    rig = Rig()
    ports, streams = [rig.open(leg) for leg in "ab"], [Stream(ssrc=ord(leg)) for leg in "ab"]
    for leg in "ab":
        rig.plane.denoise(leg)
        rig.plane.tap(leg)
    async with rig.deliberating():
        for at in range(12):
            for port, stream in zip(ports, streams, strict=True):
                rig.ports.arrive(port, stream.packet(np.full(160, 8000, np.int16)))
            rig.tick()
            if at == 5:
                halver.broken = halver.streams[0]
            await trio.testing.wait_all_tasks_blocked()
    level = int(as_sent(np.array([8000], np.int16))[0])
    assert [int(kept(rig, slot)[0]) for slot in range(2)] == [level, level // 2]
    assert [rig.told(leg) for leg in "ab"] == [[DenoiseFailed("a", "a bug")], []]
    assert rig.plane.counters["legs_failed"] == 0


async def test_a_closed_leg_leaves_nothing_behind(halver: Halver) -> None:
    """Closed while its frame is in the thread: the result goes nowhere, and the slot's next leg is not cleaned."""
    gate = Gate()
    rig = Rig(offload=gate, max_calls=1)
    port = rig.open()
    rig.plane.denoise("a")
    tap = rig.plane.tap("a")
    async with rig.deliberating():
        await say(rig, port, Stream(), tone(0.1))
        gate.open = False
        await say(rig, port, Stream(ssrc=1), tone(0.02))
        rig.plane.close_leg("a")
        tap.close()
        assert not rig.plane._hearing.denoising.wanted
        gate.open = True
        gate.let()
        port, sound = rig.open("b"), tone(0.2)
        with rig.plane.tap("b"):
            heard = await hear(rig, port, Stream(), sound)
    np.testing.assert_array_equal(heard[320:], as_sent(sound)[:-320])
    assert rig.plane._bank.lag.sum() == 0
