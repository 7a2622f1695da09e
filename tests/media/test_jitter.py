"""The jitter buffer: order, loss, adaptation, and what strange streams do to it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.jitter import DelayEstimator, Gap, JitterBuffer, JitterCounts

TICK = 0.020
Arrival = tuple[float, int]
"""When a packet arrives, and its number."""


def payload(number: int) -> bytes:
    """A frame that says which one it is."""
    return number.to_bytes(4, "big")


def put(buffer: JitterBuffer, number: int, now: float, *, ssrc: int = 1) -> None:
    """Hand in packet `number` of a 20 ms stream whose numbers and times begin just before a wrap."""
    sequence, timestamp = (65_530 + number) & 0xFFFF, (2**32 - 500 + number * 160) & 0xFFFFFFFF
    buffer.put(ssrc, sequence, timestamp, payload(number), now)


def run(
    buffer: JitterBuffer, arrivals: list[Arrival], *, ticks: int, quiet: bool = False, phase: float = 0.0
) -> list[int | Gap]:
    """Feed and read by the clock: what each tick gave, numbers for frames."""
    waiting = sorted(arrivals)
    heard: list[int | Gap] = []
    for tick in range(ticks):
        now = tick * TICK + phase
        while waiting and waiting[0][0] <= now + 1e-9:
            at, number = waiting.pop(0)
            put(buffer, number, at)
        frame = buffer.take(now, quiet=quiet)
        heard.append(frame if isinstance(frame, Gap) else int.from_bytes(frame, "big"))
    return heard


def steady(count: int, *, delay: float = 0.0, start: int = 0) -> list[Arrival]:
    """Packets that arrive on time."""
    return [(n * TICK + delay, n) for n in range(start, start + count)]


def test_a_steady_stream_waits_40_ms_and_then_flows() -> None:
    """The start target, then one frame each tick, in order, over both wraps."""
    heard = run(JitterBuffer(), steady(100), ticks=100)
    assert heard == [Gap.WAIT, Gap.WAIT, *range(98)]


def test_reordered_packets_come_out_in_order() -> None:
    """A pair that changed places within the delay is not noticed."""
    arrivals = steady(20)
    arrivals[5], arrivals[6] = (arrivals[6][0], 5), (arrivals[5][0], 6)
    buffer = JitterBuffer()
    assert run(buffer, arrivals, ticks=20) == [Gap.WAIT, Gap.WAIT, *range(18)]
    assert buffer.counts == JitterCounts()


def test_a_lost_packet_is_reported_in_its_place() -> None:
    """One LOST where the frame would have been, and the rest on time."""
    buffer = JitterBuffer()
    heard = run(buffer, [a for a in steady(20) if a[1] != 7], ticks=20)
    assert heard == [Gap.WAIT, Gap.WAIT, *range(7), Gap.LOST, *range(8, 18)]
    assert buffer.counts == JitterCounts(lost=1)


def test_duplicates_and_late_packets_are_counted_and_dropped() -> None:
    """Neither is played twice."""
    buffer = JitterBuffer()
    arrivals = [a for a in steady(30) if a[1] != 10] + [(0.105, 5), (0.5, 10)]
    heard = [frame for frame in run(buffer, arrivals, ticks=30) if not isinstance(frame, Gap)]
    assert heard == [n for n in range(28) if n != 10]
    assert buffer.counts == JitterCounts(duplicate=1, late=1, lost=1)


def test_a_burst_loss_does_not_stay_as_delay() -> None:
    """After half a second without packets the stream goes on at its old delay, not half a second later."""
    buffer = JitterBuffer()
    heard = run(buffer, [a for a in steady(100) if not 20 <= a[1] < 45], ticks=100)
    assert heard[-1] == 97
    assert buffer.counts.lost == 25


def test_silence_suppression_is_no_loss() -> None:
    """A sender that pauses (times go on, numbers do not) is filled up again, nothing is lost."""
    buffer = JitterBuffer()
    talk = [(n, n * TICK) for n in range(10)] + [(n, n * TICK + 3.0) for n in range(10, 20)]
    heard: list[bytes | Gap] = []
    for tick in range(200):
        for number, at in talk:
            if at == pytest.approx(tick * TICK):
                buffer.put(1, number, round(at * 8000), payload(number), at)
        heard.append(buffer.take(tick * TICK))
    assert [frame for frame in heard if not isinstance(frame, Gap)] == [payload(n) for n in range(20)]
    assert heard[160 + 2] == payload(10)
    assert buffer.counts == JitterCounts()


def jittery(count: int, spread: float, seed: int = 1) -> list[Arrival]:
    """Packets delayed evenly between 0 and `spread` seconds."""
    rng = random.Random(seed)
    return [(n * TICK + rng.uniform(0, spread), n) for n in range(count)]


def test_the_target_follows_jitter_up_and_down() -> None:
    """From 40 ms up to what 100 ms of jitter needs, and back to 20 ms when the line is calm."""
    buffer = JitterBuffer()
    assert buffer.target == 0.040
    run(buffer, jittery(500, 0.100), ticks=500)
    assert 0.110 < buffer.target <= 0.121
    run_on = [(10 + n * TICK, 500 + n) for n in range(600)]
    for at, number in run_on:
        put(buffer, number, at)
        buffer.take(at)
    assert buffer.target == pytest.approx(0.020)


def test_jitter_is_ridden_out_once_learnt() -> None:
    """In the second ten seconds of an 80 ms jitter not one frame is missing."""
    buffer = JitterBuffer()
    heard = run(buffer, jittery(1000, 0.080), ticks=1000, phase=0.001)
    assert heard[500:] == list(range(1000))[-504:-4]


def test_the_delay_shrinks_only_in_silence() -> None:
    """After a delay spike of 160 ms the backlog stays while there is speech and melts, frame by frame, in silence."""
    spike = [(max(at, 0.5), number) if 0.3 <= at < 0.5 else (at, number) for at, number in steady(1500)]
    talking, silent = JitterBuffer(), JitterBuffer()
    run(talking, spike, ticks=1500)
    run(silent, spike, ticks=1500, quiet=True)
    assert (len(talking), talking.counts.shrunk) == (10, 0)
    assert len(silent) <= 2
    assert silent.counts.shrunk >= 7


def test_the_target_stays_within_its_bounds() -> None:
    """One stray packet of 900 ms is not jitter; many are, up to 200 ms."""
    estimator = DelayEstimator()
    for n in range(100):
        estimator.observe(0.9 if n == 50 else 0.0, n * TICK)
    assert estimator.target == 0.040
    for n in range(100, 110):
        estimator.observe(0.9, n * TICK)
    assert estimator.target == 0.200


def test_clock_skew_does_not_grow_the_delay() -> None:
    """A sender 200 ppm slow for a minute: base follows, the target stays."""
    estimator = DelayEstimator()
    for n in range(3000):
        estimator.observe(n * TICK * 200e-6, n * TICK)
    assert estimator.target < 0.023


def test_a_new_ssrc_starts_over() -> None:
    """The old stream's rest is dropped and the new one filled up first."""
    buffer = JitterBuffer()
    run(buffer, steady(20), ticks=20)
    for n in range(4):
        put(buffer, 40_000 + n, 1.0 + n * TICK, ssrc=2)
    assert buffer.take(1.07) == payload(40_000)
    assert buffer.counts == JitterCounts(restarts=1)


def test_a_sequence_jump_is_believed_the_second_time() -> None:
    """A lone stray is dropped; two in sequence restart the stream."""
    buffer = JitterBuffer()
    run(buffer, steady(20), ticks=20)
    buffer.put(1, 20_000, 9, b"stray", 0.4)
    assert buffer.counts == JitterCounts(stray=1)
    put(buffer, 20, 0.4)
    assert len(buffer) == 3
    buffer.put(1, 30_000, 160, b"a", 0.42)
    buffer.put(1, 30_001, 320, b"b", 0.44)
    assert buffer.take(0.48) == b"b"
    assert buffer.counts == JitterCounts(stray=2, restarts=1)


def test_a_timestamp_jump_restarts_the_timeline() -> None:
    """A sender that re-anchors its timestamps (a new prompt behind a PBX) is played at once, not in an hour."""
    buffer = JitterBuffer()
    run(buffer, steady(20), ticks=20)
    for n in range(5):
        buffer.put(1, (65_530 + 20 + n) & 0xFFFF, 1_000_000 + n * 160, payload(n), 0.4 + n * TICK)
    assert [buffer.take(0.44 + n * TICK) for n in range(5)] == [payload(n) for n in range(5)]


def test_memory_is_bounded() -> None:
    """A flood drops the oldest and counts it."""
    buffer = JitterBuffer(capacity=25)
    for n in range(100):
        put(buffer, n, 0.0)
    assert (len(buffer), buffer.counts.overflow) == (25, 75)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.integers(0, 65_535) | st.integers(0, 40),
            st.integers(0, 2**32 - 1) | st.integers(0, 8000),
            st.floats(0, 0.5),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_any_stream_keeps_the_books(packets: list[tuple[int, int, int, float, bool]]) -> None:
    """Whatever comes: bounded memory, a target within bounds, no frame given twice."""
    buffer = JitterBuffer()
    now, given_out = 0.0, []
    for number, (ssrc, sequence, timestamp, wait, quiet) in enumerate(packets):
        now += wait
        buffer.put(ssrc, sequence, timestamp, payload(number), now)
        frame = buffer.take(now, quiet=quiet)
        if not isinstance(frame, Gap):
            given_out.append(frame)
        assert len(buffer) <= buffer.capacity
        assert 0.020 <= buffer.target <= 0.200
    assert len(given_out) == len(set(given_out))
