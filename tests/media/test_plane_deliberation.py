"""Detectors that score all legs at once, beside the tick: chunks, batches, late results, failures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import attrs
import numpy as np
import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import MediaError, OverloadedError
from rustpbx.media.codec import registry
from rustpbx.media.events import (
    Codec,
    Fact,
    LegFailed,
    Pcm,
    SilenceContinues,
    SpeechEnded,
    SpeechStarted,
    VadParams,
    WatchFailed,
)
from rustpbx.media.plane.deliberation import BACKLOG
from rustpbx.media.rtp import RtpPacket, build_rtp
from rustpbx.media.vad.detector import ENGINES
from rustpbx.shell.workers import open_workers
from tests.kit.utterance import utterance
from tests.media.plane_rig import Rig, Stream, as_sent, g711, tone
from tests.media.test_plane_coded import EightBits

T = TypeVar("T")

LOUD = 1000
CHUNK = 0.032


@attrs.define(eq=False)
class Ear:
    """A stream's memory: what was heard of it."""

    heard: list[Pcm] = attrs.field(factory=list)

    @property
    def sound(self) -> Pcm:
        """All of it."""
        return np.concatenate(self.heard)


class Loudness:
    """An engine: whatever is loud is speech. `broken` is a stream that it cannot stand."""

    def __init__(self, rate: int = 8000) -> None:
        self.rate = rate
        self.chunk = round(CHUNK * rate)
        self.ears: list[Ear] = []
        self.sizes: list[int] = []
        self.broken: Ear | None = None
        self.missing: Exception | None = None

    def load(self) -> None:
        """Raise what was asked for."""
        if self.missing is not None:
            raise self.missing

    def open(self) -> Ear:
        """A new one."""
        self.ears.append(Ear())
        return self.ears[-1]

    def score(self, streams: Sequence[Ear], chunks: Pcm) -> list[float]:
        """1 for what is loud."""
        if self.broken in streams:
            raise ZeroDivisionError("a bug")
        self.sizes.append(len(streams))
        for ear, chunk in zip(streams, chunks, strict=True):
            ear.heard.append(chunk.copy())
        return [float(np.abs(chunk.astype(np.int32)).max() > LOUD) for chunk in chunks]


class Gate:
    """`Offload` whose threads go on when the test says so; those for `stuck` never."""

    def __init__(self) -> None:
        self.open = True
        self.stuck: Loudness | None = None
        self.refuses = False
        self._lot = trio.lowlevel.ParkingLot()

    def let(self) -> None:
        """Let what waits go on."""
        self._lot.unpark_all()

    async def thread(self, work: Callable[[], T]) -> T:
        """Wait at the gate, then work."""
        if self.refuses:
            raise OverloadedError("too much work is waiting for a thread")
        result = work()  # before it waits: the result is late, not the work
        mine = isinstance(work, partial) and work.args[0] is self.stuck
        if self.open and not mine:
            await trio.lowlevel.checkpoint()
        else:
            await self._lot.park()
        return result

    async def worker(self, pool: str, job: Callable[..., T], *args: object) -> T:
        """Not needed here."""
        raise NotImplementedError


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[bool, Loudness]:
    """The engines of narrow and wide legs under the name `loudness`."""
    made = {False: Loudness(8000), True: Loudness(16000)}
    monkeypatch.setitem(ENGINES, "loudness", made.__getitem__)
    return made


def watch(rig: Rig, leg: str = "a", **params: object) -> None:
    """Watch a leg with it; every chunk counts."""
    settings = {"engine": "loudness", "speech_padding": 0.0, "silence_padding": 0.0, **params}
    rig.plane.watch_speech(leg, VadParams(**settings))  # type: ignore[arg-type]  # a test names its fields right


async def say(rig: Rig, port: int, stream: Stream, pcm: Pcm) -> None:
    """Twenty milliseconds after the other, each scored before the next."""
    for at in range(0, pcm.size, 160):
        rig.ports.arrive(port, stream.packet(pcm[at : at + 160]))
        rig.tick()
        await trio.testing.wait_all_tasks_blocked()


def kinds(facts: list[Fact]) -> list[type[Fact]]:
    """What kinds of facts they are."""
    return [type(fact) for fact in facts]


def heard(fact: Fact, begin: float) -> tuple[str, float]:
    """A fact's name and its moment after `begin`, in ms."""
    moment = fact.silence_at if isinstance(fact, SpeechEnded) else getattr(fact, "at", math.nan)
    return type(fact).__name__, round(1000 * (moment - begin), 3)


async def test_every_sample_reaches_the_engine_once_and_in_order(engines: dict[bool, Loudness]) -> None:
    """Frames of 20 ms become chunks of 32 ms; speech has the times of the chunks in which it was."""
    rig = Rig()
    port = rig.open()
    watch(rig)
    begin = rig.clock.time
    sound = np.concatenate([np.zeros(1024, np.int16), tone(0.32), np.zeros(1344, np.int16)])
    async with rig.deliberating():
        await say(rig, port, Stream(), sound)
    assert engines[False].sizes == [1] * 19
    buffered = np.zeros(2 * 160, np.int16)
    np.testing.assert_array_equal(engines[False].ears[0].sound, np.append(buffered, as_sent(sound))[: 19 * 256])
    # The tone begins at 128 ms and ends at 448: chunks begin 40 ms, the buffer's delay, before multiples of 32 ms.
    assert [heard(fact, begin) for fact in rig.told()] == [("SpeechStarted", 120.0), ("SpeechEnded", 472.0)]


@pytest.mark.parametrize("wide", [False, True])
async def test_an_engine_that_wants_16_khz_gets_it(engines: dict[bool, Loudness], wide: bool) -> None:
    """A telephone's audio is brought there as for taps, a wide leg's is what it is: both hear what a tap hears."""
    engines[False] = engines[True]
    rig = Rig()
    sound = tone(0.5, 16000, 700.0)
    if wide:
        send, rig.facts["a"] = trio.open_memory_channel[Fact](10)
        rig.plane.open_stream("a", "pcm", lambda _: None, send)
    else:
        port, stream = rig.open(), Stream()
    watch(rig)
    tap = rig.plane.tap("a", seconds=0.1)
    async with rig.deliberating():
        if wide:
            rig.plane.feed("a", sound.tobytes())
            for _ in range(30):
                rig.tick()
                await trio.testing.wait_all_tasks_blocked()
        else:
            await say(rig, port, stream, tone(0.6, 8000, 700.0))
    tapped = np.concatenate([tap.blocks.receive_nowait().pcm for _ in range(tap.blocks.waiting)])
    mine = engines[True].ears[0].sound
    assert min(mine.size, tapped.size) > 6000
    assert np.abs(tapped).max() > 7000
    np.testing.assert_array_equal(mine[: tapped.size], tapped[: mine.size])


async def test_legs_are_scored_together(engines: dict[bool, Loudness]) -> None:
    """Eight legs that are heard in the same ticks are one batch each time, without one that has its own detector."""
    rig = Rig(max_calls=9)
    ports = [rig.open(str(leg)) for leg in range(9)]
    streams = [Stream(ssrc=leg) for leg in range(9)]
    for leg in range(8):
        watch(rig, str(leg))
    rig.plane.watch_speech("8", VadParams())
    async with rig.deliberating():
        for at in range(16):
            for leg, (port, stream) in enumerate(zip(ports, streams, strict=True)):
                rig.ports.arrive(port, stream.packet(tone(0.02) if leg < at else None))
            rig.tick()
            await trio.testing.wait_all_tasks_blocked()
    assert engines[False].sizes == [8] * 10
    begun = [fact for leg in range(9) for fact in rig.told(str(leg))]
    assert [(type(fact), fact.leg) for fact in begun] == [(SpeechStarted, str(leg)) for leg in range(8)]
    assert len({fact.at for fact in begun if isinstance(fact, SpeechStarted)}) > 3


async def test_a_stream_that_breaks_the_engine_ejects_its_leg_alone(engines: dict[bool, Loudness]) -> None:
    """One stream makes the whole batch raise: its leg fails, the others are scored in the same tick."""
    rig = Rig()
    legs = "abc"
    ports, streams = [rig.open(leg) for leg in legs], [Stream(ssrc=ord(leg)) for leg in legs]
    for leg in legs:
        watch(rig, leg)
    engines[False].broken = engines[False].ears[1]
    async with rig.deliberating():
        for _ in range(20):
            for port, stream in zip(ports, streams, strict=True):
                rig.ports.arrive(port, stream.packet(tone(0.02)))
            rig.tick()
            await trio.testing.wait_all_tasks_blocked()
    assert [kinds(rig.told(leg)) for leg in legs] == [[SpeechStarted], [LegFailed], [SpeechStarted]]
    assert rig.plane.counters["legs_failed"] == 1
    assert [len(ear.heard) for ear in engines[False].ears] == [12, 0, 12]


async def test_a_late_result_is_not_applied_to_a_new_watch(engines: dict[bool, Loudness]) -> None:
    """The leg is watched anew, or closed and its slot taken, while a loud chunk of it is being scored."""
    gate = Gate()
    rig = Rig(offload=gate, max_calls=1)
    port, stream = rig.open(), Stream()
    watch(rig)
    async with rig.deliberating():
        await say(rig, port, stream, np.zeros(640, np.int16))  # loads the engine
        gate.open = False
        await say(rig, port, stream, tone(0.06))
        watch(rig)
        gate.let()
        await trio.testing.wait_all_tasks_blocked()
        assert rig.told() == []
        assert rig.plane.counters["vad_results_stale"] >= 1
        await say(rig, port, stream, tone(0.06))
        rig.plane.close_leg("a")
        rig.open("b")
        watch(rig, "b")
        gate.let()
        gate.open = True
        await trio.testing.wait_all_tasks_blocked()
    assert rig.told("a") == []
    assert rig.told("b") == []


async def test_what_cannot_be_scored_in_time_is_dropped_and_counted(engines: dict[bool, Loudness]) -> None:
    """The thread hangs for a second: no tick waits, the oldest chunks go, and what comes after is heard again."""
    gate = Gate()
    rig = Rig(offload=gate)
    port, stream = rig.open(), Stream()
    watch(rig)
    async with rig.deliberating():
        await say(rig, port, stream, np.zeros(640, np.int16))
        gate.open = False
        await say(rig, port, stream, np.zeros(8000, np.int16))
        dropped = rig.plane.counters["vad_chunks_dropped"]
        assert 0 < dropped <= 33 - BACKLOG
        assert len(rig.rtp(port)) == 54
        gate.open = True
        gate.let()
        await say(rig, port, stream, tone(0.2))
        assert kinds(rig.told()) == [SpeechStarted]
        gate.refuses = True
        await say(rig, port, stream, tone(0.08))
        assert rig.plane.counters["vad_chunks_dropped"] > dropped
    scored = len(engines[False].ears[0].heard)
    assert scored + rig.plane.counters["vad_chunks_dropped"] == 68 * 160 // 256


async def test_a_stuck_engine_holds_up_its_own_legs_alone(engines: dict[bool, Loudness]) -> None:
    """One engine's thread hangs: the other's leg is heard as ever, and what the first one's leg says is dropped."""
    gate = Gate()
    rig = Rig(offload=gate)
    send, rig.facts["b"] = trio.open_memory_channel[Fact](10)
    rig.plane.open_stream("b", "pcm", lambda _: None, send)
    port, stream = rig.open(), Stream()
    watch(rig, "a")
    watch(rig, "b")
    gate.stuck = engines[True]
    async with rig.deliberating():
        rig.plane.feed("b", tone(1.2, 16000).tobytes())
        await say(rig, port, stream, tone(1.2))
        assert (kinds(rig.told("a")), kinds(rig.told("b"))) == ([SpeechStarted], [])
        assert len(engines[False].ears[0].heard) == 60 * 160 // 256
        assert rig.plane.counters["vad_chunks_dropped"] == 60 * 320 // 512 - 1 - BACKLOG
        gate.let()
        gate.stuck = None
        await trio.testing.wait_all_tasks_blocked()
    assert kinds(rig.told("b")) == [SpeechStarted]


async def test_a_missing_engine_is_told_and_another_may_be_asked_for(engines: dict[bool, Loudness]) -> None:
    """Told at once, without any audio, to every leg that wants it; the leg plays on, and can be watched by webrtc."""
    engines[False].missing = MediaError("it is not installed")
    rig = Rig()
    ports = [rig.open(leg) for leg in "ab"]
    async with rig.deliberating():
        for leg in "ab":
            watch(rig, leg)
        await trio.testing.wait_all_tasks_blocked()
        assert [rig.told(leg) for leg in "ab"] == [
            [WatchFailed(leg, "loudness", "it is not installed")] for leg in "ab"
        ]
        rig.plane.watch_speech("a", VadParams(silence_timeout=0.1))
        await say(rig, ports[0], Stream(), np.zeros(1120, np.int16))
        assert kinds(rig.told()) == [SilenceContinues]
        engines[False].missing = OSError("no file")
        watch(rig, "b")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.told("b") == [WatchFailed("b", "loudness", "OSError: no file")]
        engines[False].missing = None
        watch(rig, "b")
        await say(rig, ports[1], Stream(), tone(0.2))
    assert kinds(rig.told("b")) == [SpeechStarted]


async def test_a_codec_change_changes_the_rate(engines: dict[bool, Loudness], monkeypatch: pytest.MonkeyPatch) -> None:
    """From G.711 to a wide codec in the middle of a call: the same speech goes on, heard by the other network."""
    monkeypatch.setitem(registry.MAKERS, Codec.PCMA, lambda _: EightBits())
    rig = Rig()
    port, stream = rig.open(), Stream()
    watch(rig, silence_padding=0.5)
    async with rig.deliberating():
        await say(rig, port, stream, tone(0.2))
        rig.plane.set_remote("a", g711(codec=Codec.PCMA, receive_pt=96, send_pt=96))
        for at in range(20):
            payload = np.full(320, 100, np.int8).tobytes()
            packet = RtpPacket(payload_type=96, sequence=200 + at, timestamp=960 * at, ssrc=5, payload=payload)
            rig.ports.arrive(port, build_rtp(packet))
            rig.tick()
            await trio.testing.wait_all_tasks_blocked()
    assert kinds(rig.told()) == [SpeechStarted]
    assert [len(engine.sizes) for engine in engines.values()] == [6, 12]


@given(
    st.lists(st.sampled_from(["loud", "quiet", "lost", "wait", "let", "watch", "unwatch", "stop", "go"]), max_size=60)
)
async def test_any_course_of_events_gives_pairs(steps: list[str]) -> None:
    """Whatever is said, late, lost or watched anew: each speaking is followed by one silence, and never two by one;
    times never go back.
    """
    gate = Gate()
    rig = Rig(offload=gate)
    ENGINES["loudness"] = lambda wide: Loudness(16000 if wide else 8000)
    port, stream = rig.open(), Stream()
    watch(rig, speech_padding=0.03, silence_padding=0.05)
    try:
        async with rig.deliberating():
            for step in steps:
                match step:
                    case "loud":
                        await say(rig, port, stream, tone(0.1))
                    case "quiet":
                        await say(rig, port, stream, np.zeros(800, np.int16))
                    case "lost":
                        stream.skip(320)
                        rig.tick(2)
                    case "wait":
                        rig.tick()
                    case "let":
                        gate.let()
                        await trio.testing.wait_all_tasks_blocked()
                    case "watch":
                        watch(rig, speech_padding=0.03, silence_padding=0.05)
                    case "unwatch":
                        rig.plane.watch_speech("a", VadParams())
                    case _:
                        gate.open = step == "go"
            rig.plane.close_leg("a")
            gate.open = True
            gate.let()
    finally:
        del ENGINES["loudness"]
    facts = rig.told()
    assert kinds(facts) == [SpeechStarted, SpeechEnded] * (len(facts) // 2)
    moments = [heard(fact, 0)[1] for fact in facts]
    assert moments == sorted(moments)


@pytest.mark.real_time
@pytest.mark.local_speech
async def test_threads_hear_what_is_heard_without_them() -> None:
    """A sentence and silence on sixteen legs, scored by silero in real threads: the facts are those of one thread."""
    told = []
    async with open_workers({}) as workers:
        for offload in (None, workers):
            rig = Rig(offload=offload, max_calls=16)
            legs = [str(leg) for leg in range(16)]
            ports = [rig.open(leg) for leg in legs]
            streams = [Stream(ssrc=leg) for leg in range(16)]
            for leg in legs:
                rig.plane.watch_speech(leg, VadParams(engine="silero", silence_padding=0.5))
            async with rig.deliberating():
                for frame in utterance(8000)[: utterance(8000).size // 160 * 160].reshape(-1, 160):
                    for port, stream in zip(ports, streams, strict=True):
                        rig.ports.arrive(port, stream.packet(frame))
                    rig.tick()
                    while rig.plane._hearing.deliberation.waiting:
                        await trio.lowlevel.checkpoint()
                told.append([[await rig.facts[leg].receive() for _ in range(2)] for leg in legs])
            assert rig.plane.counters["vad_chunks_dropped"] == 0
    assert told[0] == told[1]
    assert [kinds(facts) for facts in told[1]] == [[SpeechStarted, SpeechEnded]] * 16
