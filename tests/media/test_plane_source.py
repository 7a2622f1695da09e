"""A source that is paused, muted, or listened to for its end."""

from __future__ import annotations

import numpy as np
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.events import Codec, Pcm
from rustpbx.media.plane.source import SPOOL
from tests.media.plane_rig import Rig, Stream, as_sent, g711, pcm_of, tone


def loud(rig: Rig, port: int) -> list[bool]:
    """Of each packet sent since the last look, whether it holds sound."""
    return [bool((np.abs(pcm_of([packet])) > 500).any()) for packet in rig.rtp(port)]


async def test_a_paused_source_goes_silent_at_the_next_tick_and_loses_nothing() -> None:
    """Packets go on with silence; after `resume` the phone has heard each sample once, in order."""
    rig = Rig()
    port = rig.open()
    spoken = tone(1.0)
    async with rig.plane.source("a", 1) as source:
        await source.write(spoken)
        rig.tick(10)
        source.pause()
        assert (source.paused, source.played) == (True, 200)
        before = rig.rtp(port)
        rig.tick(100)
        assert loud(rig, port) == [False] * 100
        assert source.played == 200
        source.resume()
        source.finish()
        rig.tick(45)
        after = rig.rtp(port)
        np.testing.assert_array_equal(pcm_of([*before, *after])[: spoken.size], as_sent(spoken))
        with trio.fail_after(1):
            await source.ended()


async def test_what_is_written_while_paused_waits_behind_and_the_spool_stays_bounded() -> None:
    """The writer of a paused source waits once the spool is full, and goes on after `resume`."""
    rig = Rig()
    port = rig.open()
    spoken = np.concatenate([tone(6.0), tone(6.0, hertz=300.0)])
    async with rig.plane.source("a", 1) as source, trio.open_nursery() as nursery:
        source.pause()
        nursery.start_soon(source.write, spoken)
        await trio.testing.wait_all_tasks_blocked()
        assert source.written == 20 * SPOOL
        rig.tick(5)
        assert loud(rig, port) == [False] * 5
        source.resume()
        for _ in range(120):
            await trio.testing.wait_all_tasks_blocked()
            rig.tick(5)
        np.testing.assert_array_equal(pcm_of(rig.rtp(port)), as_sent(spoken))


async def test_a_paused_source_neither_ends_nor_runs_dry_until_it_goes_on() -> None:
    """`finish` while paused is obeyed at `resume`, even if nothing is left to play."""
    rig = Rig()
    rig.open()
    async with rig.plane.source("a", 1) as source, trio.open_nursery() as nursery:
        await source.write(tone(0.1))
        rig.tick(6)
        source.pause()
        source.finish()
        ended = trio.Event()

        async def wait() -> None:
            await source.dry()
            await source.ended()
            ended.set()

        nursery.start_soon(wait)
        rig.tick(10)
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
        source.resume()
        await trio.testing.wait_all_tasks_blocked()
        assert ended.is_set()


async def test_a_paused_source_that_is_stopped_or_replaced_is_never_heard_again() -> None:
    """The next source plays from the next tick on, and `resume` of the old one does nothing."""
    rig = Rig()
    port = rig.open()
    async with rig.plane.source("a", 1) as old:
        await old.write(tone(1.0))
        rig.tick(3)
        old.pause()
        rig.rtp(port)
        async with rig.plane.source("a", 2) as new:
            assert (old.stopped, old.paused, old.played) == (True, False, 60)
            await new.write(tone(0.2, hertz=300.0))
            old.resume()
            new.finish()
            rig.tick(10)
            np.testing.assert_array_equal(pcm_of(rig.rtp(port)), as_sent(tone(0.2, hertz=300.0)))


async def test_cutting_a_paused_source_keeps_the_beginning() -> None:
    """What was to be dropped is dropped from ring and spool alike."""
    rig = Rig()
    port = rig.open()
    async with rig.plane.source("a", 1) as source:
        await source.write(tone(1.0))
        rig.tick(5)
        source.pause()
        source.cut(300)
        rig.tick(5)
        source.resume()
        rig.tick(30)
        assert loud(rig, port).count(True) == 15
        with trio.fail_after(1):
            await source.ended()


async def test_a_muted_source_plays_on_in_silence() -> None:
    """Its time goes on; what is heard after `unmute` is what would have been heard then."""
    rig = Rig()
    port = rig.open()
    spoken = tone(2.0)
    async with rig.plane.source("a", 1) as source:
        await source.write(spoken)
        rig.tick(10)
        rig.plane.mute("a", heard=False, played=True)
        rig.tick(50)
        assert source.played == 1200
        rig.plane.mute("a", heard=False, played=False)
        rig.tick(40)
    heard, expected = pcm_of(rig.rtp(port)), as_sent(spoken)
    expected[10 * 160 : 60 * 160] = 0
    np.testing.assert_array_equal(heard, expected)


async def test_a_mute_holds_for_the_next_source_and_through_a_change_of_codec() -> None:
    """The leg is muted, not one playback; the new law's silence is silence."""
    rig = Rig()
    port = rig.open()
    rig.plane.mute("a", heard=False, played=True)
    spoken = tone(1.0)
    async with rig.plane.source("a", 1) as source:
        await source.write(spoken)
        rig.tick(10)
        rig.plane.set_remote("a", g711(codec=Codec.PCMA, receive_pt=8, send_pt=8))
        rig.tick(10)
        assert {packet.payload for packet in rig.rtp(port)} == {b"\xff" * 160, b"\xd5" * 160}
        rig.plane.mute("a", heard=False, played=False)
        rig.tick(10)
        assert source.played == 600
        assert all(len(set(packet.payload)) > 8 for packet in rig.rtp(port))


async def test_a_muted_phone_is_silence_to_taps() -> None:
    """From the tick on at which it is muted, and only that leg; a new call in its slot is heard."""
    rig = Rig(max_calls=1)
    for muted in (True, False):
        port = rig.open()
        rig.plane.mute("a", heard=muted, played=False)
        stream = Stream()
        with rig.plane.tap("a", seconds=0.02) as tap:
            for _ in range(20):
                rig.ports.arrive(port, stream.packet(tone(0.02)))
                rig.tick()
            sound = []
            while tap.blocks.waiting:
                sound.append(bool((np.abs(tap.blocks.receive_nowait().pcm) > 500).any()))
        assert any(sound) is not muted
        rig.plane.close_leg("a")


async def test_dry_is_told_each_time_the_last_frame_has_left() -> None:
    """A part of a frame is filled up with silence and sent; what is written later plays behind it."""
    rig = Rig()
    port = rig.open()
    async with rig.plane.source("a", 1) as source, trio.open_nursery() as nursery:
        for spoken, ticks in ((tone(0.105), 6), (tone(0.2), 10)):
            await source.write(spoken)
            dry = trio.Event()

            async def wait(dry: trio.Event = dry) -> None:
                await source.dry()
                dry.set()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(ticks):
                assert not dry.is_set()
                rig.tick()
                await trio.testing.wait_all_tasks_blocked()
            assert dry.is_set()
            assert loud(rig, port) == [True] * ticks
        assert (source.written, source.played) == (320, 320)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(1, 700)),
            st.tuples(st.sampled_from(["pause", "resume", "dry"]), st.just(0)),
            st.tuples(st.just("tick"), st.integers(1, 12)),
        ),
        max_size=30,
    )
)
async def test_whatever_the_order_each_sample_is_sent_once_and_none_while_paused(steps: list[tuple[str, int]]) -> None:
    """Writes, pauses and ticks in any order: the sound that left is the sound that was written."""
    rig = Rig()
    port = rig.open()
    written: list[Pcm] = []
    heard: list[Pcm] = []
    async with rig.plane.source("a", 1) as source, trio.open_nursery() as nursery:
        for step, amount in steps:
            if step == "write":
                written.append(np.full(amount, 1000 + 500 * len(written), np.int16))
                await source.write(written[-1])
            elif step == "tick":
                rig.tick(amount)
                heard.append(pcm_of(rig.rtp(port)))
                assert not (source.paused and heard[-1].any())
            elif step == "dry":
                nursery.start_soon(source.dry)
                await trio.testing.wait_all_tasks_blocked()
            else:
                getattr(source, step)()
        source.resume()
        source.finish()
        rig.tick(sum(map(len, written)) // 160 + len(steps) + 1)
        with trio.fail_after(1):
            await source.ended()
        assert source.played == source.written
    sound = np.concatenate([*heard, pcm_of(rig.rtp(port))])
    np.testing.assert_array_equal(sound[sound != 0], as_sent(np.concatenate([np.zeros(0, np.int16), *written])))
