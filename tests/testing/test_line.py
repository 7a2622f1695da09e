"""The phone's audio line: what it says, what it hears, and what it makes of a bad network."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import numpy as np
import pytest
import trio
import trio.testing

from rustpbx.errors import MediaError
from rustpbx.media.codec.g711 import LAWS
from rustpbx.media.events import Codec, Direction, MediaFormat
from rustpbx.media.rtp import RtpPacket, build_rtp
from rustpbx.testing.line import AudioLine
from rustpbx.testing.speech import tone
from rustpbx.testing.voice import heard_text, spoken
from rustpbx.testing.wire import Link, Wire, open_wire

ONE, OTHER = "10.0.0.1", "10.0.0.2"
FORMAT = MediaFormat(
    codec=Codec.PCMA, receive_pt=8, send_pt=8, remote=(OTHER, 4000), receive_dtmf_pt=101, send_dtmf_pt=101
)


@asynccontextmanager
async def two_lines(wire: Wire) -> AsyncIterator[tuple[AudioLine, AudioLine]]:
    """Two lines that talk to each other on ports 4000, from the same moment on."""
    async with trio.open_nursery() as nursery:
        lines = []
        for ours, theirs in ((ONE, OTHER), (OTHER, ONE)):
            line = AudioLine(await wire.host(ours).open_datagrams(ours, 4000), random.Random(ours))
            line.agree(attrs.evolve(FORMAT, remote=(theirs, 4000)))
            lines.append(line)
        for line in lines:
            nursery.start_soon(line.run)
        yield lines[0], lines[1]
        nursery.cancel_scope.cancel()


async def test_heard_as_said() -> None:
    """What one end says, the other hears sample for sample through G.711, silences included."""
    async with open_wire() as wire, two_lines(wire) as (one, other):
        said = np.concatenate([tone(0.5), tone(0.3, hertz=1000), np.zeros(123, np.int16)])
        await one.say(said)
        await one.say(tone(0.2))
        await trio.testing.wait_all_tasks_blocked()
        heard = other.hear()
        law = LAWS[Codec.PCMA]
        start = int(np.flatnonzero(np.abs(heard) > 500)[0]) // 160 * 160
        assert np.array_equal(heard[start : start + len(said)], law.decode(law.encode(said)))
        assert np.array_equal(heard, one.said())


async def test_when_it_was_said() -> None:
    """`say` tells when the first packet left and when the last one's audio is over; saying nothing takes no time."""
    async with open_wire() as wire, two_lines(wire) as (one, _):
        first, second = await one.say(tone(0.5)), await one.say(tone(0.1))
        assert first.ended_at - first.started_at == pytest.approx(0.5)
        assert second.started_at == pytest.approx(first.ended_at)
        nothing = await one.say(np.zeros(0, np.int16))
        assert nothing.started_at == nothing.ended_at


async def test_a_bad_network_keeps_the_time() -> None:
    """Loss, jitter, duplicates and reordering leave holes but never shift what arrives."""
    async with open_wire(seed=7) as wire, two_lines(wire) as (one, other):
        await other.until(lambda: len(other.heard) > 1)
        wire.link(ONE, OTHER, Link(loss=0.1, duplication=0.1, reorder=0.2, delay=0.05, jitter=0.04))
        await one.say(tone(2.0))
        await other.hush(0.5)
        said, heard = one.said(), other.hear()
        size = min(len(said), len(heard))
        frames = heard[:size].reshape(-1, 160)
        whole = (frames == said[:size].reshape(-1, 160)).all(axis=1)
        assert 0.8 < whole.mean() < 1.0
        assert not frames[~whole].any()


async def test_digits() -> None:
    """Keys arrive once each, in order, also when half of the packets are lost."""
    async with open_wire(seed=3) as wire, two_lines(wire) as (one, other):
        wire.link(ONE, OTHER, Link(loss=0.5))
        for digit in "123#*A55":
            await one.press(digit, 160)
        assert other.digits == list("123#*A55")
        one.agree(attrs.evolve(FORMAT, send_dtmf_pt=None))
        with pytest.raises(MediaError, match="not agreed"):
            await one.press("1")


async def test_sound_and_hush() -> None:
    """Sound and its end can be awaited, each at its time."""
    async with open_wire() as wire, two_lines(wire) as (one, other):
        wire.all_links(Link(delay=0.1))
        spoken = await one.say(tone(1.0))
        first = await other.sound()
        assert first == pytest.approx(spoken.started_at + 0.1)
        last = await other.hush(0.5)
        assert last == pytest.approx(spoken.ended_at - 0.02 + 0.1)
        assert trio.current_time() == pytest.approx(last + 0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.say, tone(0.1))
            assert await other.sound(after=last) > last


async def test_on_hold_nothing_is_sent() -> None:
    """A line that may not send keeps what is to be said until it may."""
    async with open_wire() as wire, two_lines(wire) as (one, other):
        one.agree(attrs.evolve(FORMAT, direction=Direction.RECVONLY))
        sent = one.packets_sent
        with trio.move_on_after(1.0) as hold:
            await one.say(tone(0.2))
        assert hold.cancelled_caught
        assert one.packets_sent == sent
        one.agree(FORMAT)
        await one.say(tone(0.2))
        await other.hush(0.2)
        assert int((np.abs(other.hear()) > 500).sum()) > 0


async def test_the_end_is_told() -> None:
    """Who waits for a line that closes gets an error, not silence for ever; ports are given back."""
    async with open_wire() as wire:
        async with two_lines(wire) as (one, other), trio.open_nursery() as nursery:
            nursery.start_soon(_fails, one.say(tone(60.0)))
            nursery.start_soon(_fails, other.sound(after=10_000.0))
            await trio.testing.wait_all_tasks_blocked()
            one.close()
            other.close()
        assert wire.bound == []


async def _fails(waiting: object) -> None:
    with pytest.raises(MediaError, match="ended"):
        await waiting  # type: ignore[misc]


async def test_a_new_source_is_placed_by_arrival() -> None:
    """A second SSRC, or a timestamp that jumps, begins where it arrives; noise on the port is ignored."""
    async with open_wire() as wire, trio.open_nursery() as nursery:
        line = AudioLine(await wire.host(OTHER).open_datagrams(OTHER, 4000), random.Random(1))
        nursery.start_soon(line.run)
        socket = await wire.host(ONE).open_datagrams(ONE, 4000)
        payload = bytes([0x20]) * 160
        for at, ssrc, timestamp in ((0.0, 1, 0xFFFFFFFF), (0.02, 1, 159), (1.0, 2, 77), (2.0, 1, 50_000_000)):
            await trio.sleep_until(trio.current_time() // 10 * 10 + at)
            packet = RtpPacket(payload_type=0, sequence=0, timestamp=timestamp, ssrc=ssrc, payload=payload)
            await socket.send(build_rtp(packet), (OTHER, 4000))
        await socket.send(b"\x80\xc8noise", (OTHER, 4000))
        await socket.send(b"\x00" * 40, (OTHER, 4000))
        await socket.send(build_rtp(attrs.evolve(packet, payload_type=33)), (OTHER, 4000))
        await trio.testing.wait_all_tasks_blocked()
        assert [heard.position for heard in line.heard] == [0, 160, 8000, 16000]
        assert list(line.rtcp) == [b"\x80\xc8noise"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("codec", [Codec.OPUS, Codec.G722])
async def test_lines_with_a_coder(codec: Codec) -> None:
    """Words come through Opus and G.722 at both rates, at their time, and so do keys."""
    wide = attrs.evolve(FORMAT, codec=codec, receive_pt=111, send_pt=111)
    async with open_wire() as wire, two_lines(wire) as (one, other):
        one.agree(attrs.evolve(wide, remote=(OTHER, 4000)))
        other.agree(attrs.evolve(wide, remote=(ONE, 4000)))
        await one.say(spoken("good morning"))
        first = len(other.hear())
        await one.say(spoken("how are you", rate=16000), 16000)
        await one.press("5")
        await trio.testing.wait_all_tasks_blocked()
        assert heard_text(other.hear()) == "good morning how are you"
        assert heard_text(other.hear_wide(), 16000) == "good morning how are you"
        assert heard_text(other.hear()[:first]) == "good morning"
        assert abs(len(other.hear_wide()) - 2 * len(other.hear())) <= 2
        assert heard_text(one.said()) == "good morning how are you"
        assert other.digits == ["5"]


async def test_the_codec_changes_in_the_middle_of_a_word() -> None:
    """What waits to be said is fitted to the other rate, and what was heard before stays where it was."""
    async with open_wire() as wire, two_lines(wire) as (one, other), trio.open_nursery() as nursery:
        nursery.start_soon(one.say, tone(1.0))
        await other.until(lambda: len(other.heard) == 25)
        for line, theirs in ((one, OTHER), (other, ONE)):
            line.agree(attrs.evolve(FORMAT, codec=Codec.G722, receive_pt=9, send_pt=9, remote=(theirs, 4000)))
        await other.hush(0.2)
        heard = other.hear().astype(np.float64)
        levels = np.sqrt((heard[400:7600].reshape(-1, 400) ** 2).mean(axis=1))
        assert levels.min() > 0.8 * levels.max()
