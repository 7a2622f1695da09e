"""What goes out: packets, sources, holds, failures."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import trio
import trio.testing

from rustpbx.errors import IllegalStepError, MediaError
from rustpbx.media.codec.g711 import PCMA
from rustpbx.media.events import Codec, Direction, Fact, LegFailed, LegStats, SpeechEnded, SpeechStarted, VadParams
from rustpbx.media.plane.clock import TICK
from rustpbx.media.plane.source import SPOOL
from rustpbx.media.rtcp import Bye, parse_rtcp
from tests.media.plane_rig import PHONE, Rig, Stream, as_sent, g711, pcm_of, tone, voice


async def test_silence_is_sent_from_the_agreement_on() -> None:
    """Nothing without a peer, then a packet every tick: counters rise by one and 160, the first has the marker."""
    rig = Rig()
    send, _facts = trio.open_memory_channel[Fact](10)
    port = rig.plane.open_leg("a", send).port
    rig.tick(5)
    assert rig.ports.sent == []
    rig.plane.set_remote("a", g711())
    rig.tick(50)
    packets = rig.rtp(port)
    first = packets[0]
    assert [packet.sequence - first.sequence for packet in packets] == list(range(50))
    assert [(packet.timestamp - first.timestamp) % 2**32 for packet in packets] == [160 * n for n in range(50)]
    assert [packet.marker for packet in packets] == [True] + [False] * 49
    assert {packet.ssrc for packet in packets} == {first.ssrc}
    assert {packet.payload for packet in packets} == {b"\xff" * 160}
    assert (rig.plane.frames_due, rig.plane.frames_sent) == (50, 50)


async def test_a_source_is_sent_whole_and_tells_what_was_heard() -> None:
    """Written in odd pieces, sent sample by sample; a talk spurt has a marker; `played` counts what went out."""
    rig = Rig()
    port = rig.open()
    rig.tick(3)
    rig.rtp(port)
    spoken = tone(0.33)
    async with rig.plane.source("a", 1) as source:
        for piece in np.split(spoken, [7, 500, 1111]):
            await source.write(piece)
        source.finish()
        assert (source.written, source.played) == (330, 0)
        rig.tick(5)
        assert source.played == 100
        with trio.move_on_after(0) as waiting:
            await source.ended()
        assert waiting.cancelled_caught
        rig.tick(12)
        with trio.fail_after(1):
            await source.ended()
        assert source.played == 330
    rig.tick(3)
    packets = rig.rtp(port)
    out = pcm_of(packets)
    assert np.array_equal(out[: spoken.size], as_sent(spoken))
    assert not out[spoken.size :].any()
    assert [packet.marker for packet in packets] == [True] + [False] * 19


@pytest.mark.parametrize(("ptime", "frames"), [(20, 1), (40, 2), (60, 3), (30, 1), (10, 1)])
async def test_the_peers_packet_time_is_kept(ptime: int, frames: int) -> None:
    """20, 40 and 60 ms are sent as asked, anything else as 20; no sample is lost or doubled."""
    rig = Rig()
    port = rig.open(media=g711(ptime=ptime))
    spoken = tone(0.6)
    async with rig.plane.source("a", 1) as source:
        await source.write(spoken)
        source.finish()
        rig.tick(30)
        await source.ended()
        assert source.played == 600
    packets = rig.rtp(port)
    assert {len(packet.payload) for packet in packets} == {160 * frames}
    assert np.array_equal(pcm_of(packets), as_sent(spoken))
    steps = {(later.timestamp - packet.timestamp) % 2**32 for packet, later in itertools.pairwise(packets)}
    assert steps == {160 * frames}


async def test_nothing_of_a_stopped_source_is_sent() -> None:
    """Left in mid-sentence, even in mid-packet: from that moment on it is silence."""
    rig = Rig()
    port = rig.open(media=g711(ptime=60))
    async with rig.plane.source("a", 1) as source:
        await source.write(tone(5.0))
        rig.tick(4)
        rig.rtp(port)
    assert source.played == 60
    rig.tick(9)
    assert not pcm_of(rig.rtp(port)).any()
    await source.write(tone(1.0))
    source.finish()
    with trio.fail_after(1):
        await source.ended()
    rig.tick(3)
    assert not pcm_of(rig.rtp(port)).any()
    assert source.played == 60


async def test_a_newer_generation_replaces_the_older() -> None:
    """The older source ends at once, its truth stays; the newer plays from its beginning and counts from 0."""
    rig = Rig()
    port = rig.open()
    async with rig.plane.source("a", 1) as old:
        await old.write(tone(1.0))
        rig.tick(5)
        rig.rtp(port)
        async with rig.plane.source("a", 2) as new:
            with trio.fail_after(1):
                await old.ended()
            await old.write(tone(1.0))
            await new.write(tone(0.1, hertz=800.0))
            rig.tick(5)
            assert (old.played, new.played) == (100, 100)
            assert np.array_equal(pcm_of(rig.rtp(port)), as_sent(tone(0.1, hertz=800.0)))
            async with rig.plane.source("a", 1) as stale:
                assert stale.stopped
                await new.write(tone(0.02))
                rig.tick()
                assert new.played == 120


async def test_a_full_spool_makes_the_writer_wait() -> None:
    """Twenty seconds at once: about ten are taken, the rest as room comes, and all of it is sent in order."""
    rig = Rig()
    port = rig.open()
    spoken = tone(20.0)
    done = trio.Event()

    async def write() -> None:
        await source.write(spoken)
        source.finish()
        done.set()

    async with rig.plane.source("a", 1) as source, trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        assert source.written <= 20 * SPOOL + 1000
        assert not done.is_set()
        for _ in range(1001):
            rig.tick()
            await trio.testing.wait_all_tasks_blocked()
        assert done.is_set()
        assert source.played == 20_000
        await source.ended()
    assert np.array_equal(pcm_of(rig.rtp(port))[: spoken.size], as_sent(spoken))


async def test_a_source_waits_for_the_peer_and_through_hold() -> None:
    """Before the agreement and while held nothing is consumed; RTP time goes on, with a marker after."""
    rig = Rig()
    send, _facts = trio.open_memory_channel[Fact](10)
    port = rig.plane.open_leg("a", send).port
    spoken = tone(0.2)
    async with rig.plane.source("a", 1) as source:
        await source.write(spoken)
        source.finish()
        rig.tick(5)
        rig.plane.set_remote("a", g711())
        rig.tick(5)
        for direction in (Direction.RECVONLY, Direction.INACTIVE):
            rig.plane.set_remote("a", g711(direction=direction))
            rig.tick(5)
        assert source.played == 100
        rig.plane.set_remote("a", g711())
        rig.tick(5)
        await source.ended()
    packets = rig.rtp(port)
    assert np.array_equal(pcm_of(packets), as_sent(spoken))
    first = packets[0]
    offsets = [0, 1, 2, 3, 4, 15, 16, 17, 18, 19]
    assert [(packet.timestamp - first.timestamp) % 2**32 // 160 for packet in packets] == offsets
    assert [packet.sequence - first.sequence for packet in packets] == list(range(10))
    assert [index for index, packet in enumerate(packets) if packet.marker] == [0, 5]


async def test_skipped_ticks_lose_no_content() -> None:
    """The clock leaves seven ticks out: RTP time jumps, the marker is set, the next sample is the next sample."""
    rig = Rig()
    port = rig.open()
    async with rig.plane.source("a", 1) as source:
        await source.write(tone(0.2))
        rig.tick(5)
        rig.plane.skip(7)
        rig.tick(5)
        assert source.played == 200
    packets = rig.rtp(port)
    assert np.array_equal(pcm_of(packets), as_sent(tone(0.2)))
    assert (packets[5].timestamp - packets[4].timestamp) % 2**32 == 8 * 160
    assert packets[5].marker
    assert (rig.plane.frames_due, rig.plane.frames_sent) == (17, 10)


async def test_refused_sends_are_not_heard() -> None:
    """What the system refuses to send is counted, and not as played."""
    rig = Rig()
    rig.open()
    async with rig.plane.source("a", 1) as source:
        await source.write(tone(0.2))
        rig.tick(5)
        rig.ports.refusing = True
        rig.tick(2)
        rig.ports.refusing = False
        rig.tick(3)
        assert source.played == 160
    assert (rig.plane.frames_due, rig.plane.frames_sent) == (10, 8)
    assert rig.plane.counters["sends_refused"] == 2


async def test_a_source_says_what_it_does_not_take() -> None:
    """Another type, another shape, more after the end, an unknown leg: each has its error."""
    rig = Rig()
    rig.open()
    async with rig.plane.source("a", 1) as source:
        with pytest.raises(MediaError, match="int16"):
            await source.write(np.zeros(3, np.float32))
        with pytest.raises(MediaError, match="int16"):
            await source.write(np.zeros((2, 3), np.int16))
        source.finish()
        with trio.fail_after(1):
            await source.ended()
        with pytest.raises(IllegalStepError):
            await source.write(tone(0.02))
    with pytest.raises(MediaError, match="no media leg"):
        async with rig.plane.source("zzz", 1):
            pass


async def test_codecs_mix_in_one_tick() -> None:
    """Legs of both laws, with and without a source, all in the same tick."""
    rig = Rig()
    media = [g711(), g711(codec=Codec.PCMA, receive_pt=8, send_pt=8), g711(codec=Codec.PCMA, receive_pt=8, send_pt=8)]
    ports = [rig.open(str(leg), agreed) for leg, agreed in enumerate(media)]
    async with rig.plane.source("0", 1) as first, rig.plane.source("1", 1) as second:
        await first.write(tone(0.02))
        await second.write(tone(0.02))
        rig.tick()
    mu, a, quiet = (rig.rtp(port)[0] for port in ports)
    assert np.array_equal(pcm_of([mu]), as_sent(tone(0.02)))
    assert a.payload == PCMA.encode(tone(0.02)).tobytes()
    assert quiet.payload == b"\xd5" * 160


async def test_closing_says_goodbye_and_leaves_nothing() -> None:
    """RTCP BYE, sources and taps ended, no handle open; a second close and an unknown leg are harmless."""
    rig = Rig()
    port = rig.open()
    rig.tick(5)
    async with rig.plane.source("a", 1) as source:
        await source.write(tone(5.0))
        stats = rig.plane.close_leg("a")
        with trio.fail_after(1):
            await source.ended()
    assert stats == LegStats(packets_sent=5)
    handle, data, destination = rig.ports.sent[-1]
    assert (handle, destination) == (port + 1, (PHONE[0], PHONE[1] + 1))
    assert [type(packet).__name__ for packet in parse_rtcp(data)] == ["SenderReport", "SourceDescription", "Bye"]
    assert isinstance(parse_rtcp(data)[-1], Bye)
    assert rig.ports.opened == set()
    assert rig.plane.close_leg("a") == LegStats()
    sent = len(rig.ports.sent)
    rig.tick(500)
    assert len(rig.ports.sent) == sent


async def test_a_reused_slot_remembers_nothing() -> None:
    """The next call in the same slot starts from nothing: no counters, no audio, no source of the one before."""
    rig = Rig(max_calls=1)
    port, stream = rig.open(), Stream()
    async with rig.plane.source("a", 1) as source:
        await source.write(tone(1.0))
        for _ in range(10):
            rig.ports.arrive(port, stream.packet(tone(0.02)))
            rig.tick()
        rig.plane.close_leg("a")
        again = rig.open("b")
        tap = rig.plane.tap("b")
        rig.tick(20)
    assert not pcm_of(rig.rtp(again)).any()
    assert tap.blocks.waiting == 0
    assert rig.plane.close_leg("b") == LegStats(packets_sent=20)


@pytest.mark.parametrize("poison", ["law_in", "law_out", "detector"])
async def test_a_poisoned_row_is_ejected_alone(poison: str) -> None:
    """One leg's processing raises, in a batch stage or in its detector: it fails, seven others lose not a frame."""
    rig = Rig()
    ports = [rig.open(str(leg)) for leg in range(8)]
    taps = [rig.plane.tap(str(leg)) for leg in range(8)]
    streams = [Stream(ssrc=leg) for leg in range(8)]
    rig.plane.watch_speech("3", VadParams())

    def step(count: int) -> None:
        for _ in range(count):
            for port, stream in zip(ports, streams, strict=True):
                rig.ports.arrive(port, stream.packet(tone(0.02)))
            rig.tick()

    step(10)
    bad = rig.plane._legs["3"]
    if poison == "detector":
        rig.plane._hearing._attention._judges[bad.slot] = Broken().voiced
    else:
        getattr(rig.plane._bank, poison)[bad.slot] = 99
    step(40)
    failures = [fact for leg in range(8) for fact in rig.told(str(leg))]
    assert [(type(fact), fact.leg) for fact in failures] == [(LegFailed, "3")]
    counts = [len(rig.rtp(port)) for port in ports]
    assert counts[:3] + counts[4:] == [50] * 7
    assert 10 <= counts[3] <= 11
    assert [tap.blocks.waiting for leg, tap in enumerate(taps) if leg != 3] == [10] * 7
    assert rig.plane.counters["legs_failed"] == 1
    assert rig.plane.close_leg("3").packets_received >= 10


class Broken:
    """A detector with a bug."""

    def voiced(self, frame: bytes | memoryview, samples: int) -> bool:
        """Raises."""
        raise ZeroDivisionError(f"{len(frame)} bytes, {samples} samples")


async def test_a_full_facts_channel_is_counted_and_not_waited_for() -> None:
    """Nobody reads the facts: the first ones wait there, the others are counted, the tick goes on."""
    rig = Rig()
    send, facts = trio.open_memory_channel[Fact](1)
    port = rig.plane.open_leg("a", send).port
    rig.plane.set_remote("a", g711())
    rig.plane.watch_speech("a", VadParams(silence_timeout=0.1))
    rig.ports.arrive(port, Stream().packet())
    rig.tick(60)
    assert facts.statistics().current_buffer_used == 1
    assert rig.plane.counters["facts_dropped"] >= 5
    facts.close()
    rig.tick(60)
    assert len(rig.rtp(port)) == 120


async def test_speech_is_reported_with_the_time_it_was_spoken() -> None:
    """A buzz from 1.0 s to 2.0 s after the first packet is reported as such within a frame or two of the detector."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    rig.plane.watch_speech("a", VadParams())
    buzz = voice(1.0)
    spoken = np.concatenate([np.zeros(8000, np.int16), buzz, np.zeros(8000, np.int16)])
    begin = rig.clock.time
    for at in range(0, spoken.size, 160):
        rig.ports.arrive(port, stream.packet(spoken[at : at + 160]))
        rig.tick()
    started, ended = rig.told()
    assert isinstance(started, SpeechStarted)
    assert isinstance(ended, SpeechEnded)
    assert abs(started.at - (begin + 1.0)) <= 3 * TICK
    assert -0.001 <= ended.silence_at - (begin + 2.0) <= 0.2
    assert ended.started_at == started.at


async def test_replaced_or_closed_detection_ends_reported_speech() -> None:
    """Speech that was reported gets its end when the leg is watched anew or closed."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    buzz = voice(1.0)
    for _ in range(2):
        rig.plane.watch_speech("a", VadParams())
        for at in range(0, buzz.size, 160):
            rig.ports.arrive(port, stream.packet(buzz[at : at + 160]))
            rig.tick()
    rig.plane.close_leg("a")
    assert [type(fact) for fact in rig.told()] == [SpeechStarted, SpeechEnded] * 2


async def test_a_codec_change_takes_what_waits_along() -> None:
    """The law changes in mid-sentence: what already waits, encoded, is sent in the new one."""
    rig = Rig()
    port = rig.open()
    spoken = tone(0.3)
    async with rig.plane.source("a", 1) as source:
        await source.write(spoken)
        rig.tick(5)
        rig.plane.set_remote("a", g711(codec=Codec.PCMA, receive_pt=8, send_pt=8))
        rig.rtp(port)
        rig.tick(10)
    packets = rig.rtp(port)
    heard = PCMA.decode(np.frombuffer(b"".join(packet.payload for packet in packets), np.uint8))
    assert {packet.payload_type for packet in packets} == {8}
    assert int(np.abs(heard.astype(int) - spoken[800:2400]).max()) < 600
