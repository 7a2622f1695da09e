"""Legs with a coder of their own: wide audio both ways, any packet time, loss, streams without packets."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import trio

from rustpbx.errors import MediaError
from rustpbx.media.codec import registry
from rustpbx.media.codec.g711 import PCMA, PCMU
from rustpbx.media.dtmf import DigitReceiver
from rustpbx.media.events import Codec, Direction, Fact, LegFailed, MediaFormat, Pcm, SrtpKeys
from rustpbx.media.plane.tap import Tap
from rustpbx.media.rtp import RtpPacket, build_rtp, is_rtcp, parse_rtp
from rustpbx.media.srtp import Opener, Sealer
from tests.media.plane_rig import PHONE, Rig, Stream, g711, pcm_of, tone
from tests.media.test_plane_srtp import keys

TYPE = 96
LAG = 2 * 320
"""Samples at 16 kHz between a leg's first packet and its audio in a tap: the jitter buffer, and no filter."""


class EightBits:
    """A coder that can be read by eye: the upper half of each sample at 16 kHz, under Opus's clock."""

    clock_rate = 48000

    def __init__(self, quiet: bool = False) -> None:
        self.concealed: list[bytes | None] = []
        self.quiet = quiet

    def encode(self, pcm: Pcm) -> bytes:
        """A byte a sample, or nothing for silence while `quiet`."""
        return b"" if self.quiet and not pcm.any() else (pcm >> 8).astype(np.int8).tobytes()

    def decode(self, payload: bytes) -> Pcm:
        """Back again; two beginnings mean that something is wrong."""
        if payload[:1] == b"\x7f":
            raise ValueError("a bug")
        if payload[:1] == b"\x7e":
            raise MediaError("not a frame")
        return np.frombuffer(payload, np.int8).astype(np.int16) << 8

    def conceal(self, following: bytes | None) -> Pcm:
        """A level that says so."""
        self.concealed.append(following)
        return np.full(320, 0x100, np.int16)

    def duration(self, payload: bytes) -> int:
        """Multiples of 2.5 ms."""
        return len(payload) if len(payload) % 40 == 0 else 0


WIDE = MediaFormat(codec=Codec.PCMA, receive_pt=TYPE, send_pt=TYPE, remote=PHONE, receive_dtmf_pt=101, send_dtmf_pt=101)
"""An agreement on that coder, which stands in for A-law here."""


@pytest.fixture(autouse=True)
def coders(monkeypatch: pytest.MonkeyPatch) -> list[EightBits]:
    """The coders that were made."""
    made: list[EightBits] = []

    def make(_: MediaFormat) -> EightBits:
        made.append(EightBits())
        return made[-1]

    monkeypatch.setitem(registry.MAKERS, Codec.PCMA, make)
    return made


class Phone:
    """Packets of `EightBits`."""

    def __init__(self) -> None:
        self.sequence, self.timestamp = 65530, 2**32 - 4800

    def packet(self, pcm: Pcm) -> bytes:
        """The next packet, of these samples."""
        data = self.raw(EightBits().encode(pcm))
        self.skip(pcm.size)
        return data

    def raw(self, payload: bytes) -> bytes:
        """A packet of this payload."""
        packet = RtpPacket(
            payload_type=TYPE,
            sequence=self.sequence & 0xFFFF,
            timestamp=self.timestamp & 0xFFFFFFFF,
            ssrc=7,
            payload=payload,
        )
        return build_rtp(packet)

    def skip(self, samples: int = 320) -> None:
        """So much time passes."""
        self.sequence += 1
        self.timestamp += samples * 3


def heard(tap: Tap) -> Pcm:
    """Everything in a tap."""
    blocks = []
    while True:
        try:
            blocks.append(tap.blocks.receive_nowait().pcm)
        except (trio.WouldBlock, trio.EndOfChannel):
            return np.concatenate([np.zeros(0, np.int16), *blocks])


def rough(pcm: Pcm) -> Pcm:
    """What the coder leaves of samples."""
    return pcm >> 8 << 8


SPOKEN = tone(2.0, rate=16000, hertz=6000.0)


@pytest.mark.parametrize("samples", [40, 160, 320, 640, 960, 1280])
async def test_any_packet_time_is_heard_whole_and_wide(samples: int) -> None:
    """Packets of 2.5 to 80 ms: a tone of 6 kHz, which telephone lines do not have, arrives sample by sample."""
    rig = Rig()
    port, phone = rig.open("a", WIDE), Phone()
    tap = rig.plane.tap("a")
    at = 0
    for tick in range(80):
        while at < (tick + 1) * 320:
            rig.ports.arrive(port, phone.packet(SPOKEN[at : at + samples]))
            at += samples
        rig.tick()
    pcm = heard(tap)
    start = int(np.argmax(pcm != 0)) - 1  # a sine begins with 0
    assert start <= LAG + samples
    assert np.array_equal(pcm[start : start + 16000], rough(SPOKEN[:16000]))
    stats = rig.plane.close_leg("a")
    assert (stats.packets_received, stats.packets_lost, stats.packets_dropped) == (-(-at // samples), 0, 0)
    assert stats.jitter < 0.2


async def test_the_narrow_side_of_a_wide_leg_is_the_same_audio(coders: list[EightBits]) -> None:
    """What detectors at 8 kHz get is the wide audio without its upper half: 440 Hz stays, 6 kHz does not."""
    rig = Rig()
    port, phone = rig.open("a", WIDE), Phone()
    rig.plane.seek_tones("a")
    slot = rig.plane.leg("a").slot  # type: ignore[union-attr]
    for spoken, level in ((tone(1.0, 16000), 5657), (tone(1.0, 16000, 6000.0), 0)):
        kept = []
        for at in range(0, spoken.size, 320):
            rig.ports.arrive(port, phone.packet(spoken[at : at + 320]))
            rig.tick()
            kept.append(rig.plane._bank.kept[slot].std(axis=1).max())  # what detectors are given
        assert abs(np.median(kept[-10:]) - level) < 250
    assert len(coders) == 1


async def test_a_lost_packet_is_concealed_with_the_one_behind_it(coders: list[EightBits]) -> None:
    """The coder is asked once for each lost frame, and shown what follows; what comes after is heard in its place."""
    rig = Rig()
    port, phone = rig.open("a", WIDE), Phone()
    tap = rig.plane.tap("a")
    for tick in range(50):
        frame = SPOKEN[tick * 320 : tick * 320 + 320]
        if tick == 20:
            phone.skip()
        else:
            rig.ports.arrive(port, phone.packet(frame))
        rig.tick()
    behind = EightBits().encode(SPOKEN[21 * 320 : 22 * 320])
    assert coders[0].concealed == [behind]
    pcm, lost = heard(tap), slice(LAG + 20 * 320, LAG + 21 * 320)
    expected = rough(SPOKEN[: pcm.size - LAG].copy())
    expected[20 * 320 : 21 * 320] = 0x100
    assert np.array_equal(pcm[lost], np.full(320, 0x100))
    assert np.array_equal(pcm[LAG:], expected)


async def test_malformed_payloads_are_counted_and_concealed(coders: list[EightBits]) -> None:
    """Ones whose length is wrong are dropped, ones that cannot be decoded are as good as lost; the leg lives on."""
    rig = Rig()
    port, phone = rig.open("a", WIDE), Phone()
    tap = rig.plane.tap("a")
    for tick in range(20):
        payload = {5: b"\1" * 41, 6: b"\x7e" * 320}.get(tick, b"\1" * 320)
        rig.ports.arrive(port, phone.raw(payload))
        phone.skip()
        rig.tick()
    assert rig.plane.counters["rtp_malformed"] == 1
    assert len(coders[0].concealed) == 2
    assert set(heard(tap)[LAG:].tolist()) == {0x100}
    assert not rig.told()


async def test_a_bug_in_a_coder_ends_its_own_leg_only() -> None:
    """Eight legs; the decoder of one raises: that call is told, the others are heard on."""
    rig = Rig()
    ports = [rig.open(str(leg), WIDE if leg < 4 else None) for leg in range(8)]
    taps = [rig.plane.tap(str(leg)) for leg in range(8)]
    phones = [Phone() for _ in range(4)]
    for tick in range(20):
        for leg, phone in enumerate(phones):
            payload = b"\x7f" * 320 if (leg, tick) == (2, 10) else b"\1" * 320
            rig.ports.arrive(ports[leg], phone.raw(payload))
            phone.skip()
        rig.tick()
    assert [rig.told(str(leg)) for leg in range(8) if leg != 2] == [[]] * 7
    assert rig.told("2") == [LegFailed("2", "ValueError: a bug")]
    assert set(heard(taps[0])[LAG:].tolist()) == {0x100}


@pytest.mark.parametrize("srtp", [None, keys()])
async def test_what_is_played_is_sent_wide(srtp: SrtpKeys | None) -> None:
    """16 kHz in, one packet each 20 ms out, stamped by the codec's clock, silence around it, the position exact."""
    rig = Rig()
    spoken = tone(1.0, rate=16000, hertz=6000.0)
    port = rig.open("a", attrs.evolve(WIDE, srtp=srtp))
    rig.tick(2)
    async with rig.plane.source("a", 1) as source:
        assert source.rate == 16000
        await source.write(spoken)
        source.finish()
        rig.tick(55)
        await source.ended()
        assert source.played == 1000
    sent = [data for handle, data, _ in rig.ports.sent if handle == port]
    packets = rig.rtp(port)
    assert len(packets) == 57
    assert [packet.timestamp - packets[0].timestamp for packet in packets] == [960 * at for at in range(57)]
    assert [packet.marker for packet in packets] == [True, False, True, *[False] * 54]
    if srtp is None:
        pcm = np.concatenate([EightBits().decode(packet.payload) for packet in packets])
        assert np.array_equal(pcm, np.concatenate([np.zeros(640), rough(spoken), np.zeros(5 * 320)]))
    else:
        assert {len(data) for data in sent} == {12 + 320 + 10}
    assert rig.plane.close_leg("a").packets_sent == 57


async def test_a_codec_that_sends_nothing_for_silence_keeps_its_time(coders: list[EightBits]) -> None:
    """With DTX no packet leaves while nothing is played; the next one has the time that has passed, and the marker."""
    rig = Rig()
    port = rig.open("a", WIDE)
    coders[0].quiet = True
    rig.tick(3)
    async with rig.plane.source("a", 1) as source:
        await source.write(np.full(640, 0x200, np.int16))
        await source.write(np.zeros(320, np.int16))
        await source.write(np.full(320, 0x200, np.int16))
        source.finish()
        rig.tick(6)
        assert source.played == 80
    packets = rig.rtp(port)
    assert [packet.timestamp - packets[0].timestamp for packet in packets] == [0, 960, 2880]
    assert [packet.sequence - packets[0].sequence for packet in packets] == [0, 1, 2]
    assert [packet.marker for packet in packets] == [True, False, False]


@pytest.mark.parametrize("wide_first", [False, True])
@pytest.mark.parametrize("muted", [False, True])
async def test_a_playback_outlives_a_change_of_codec(wide_first: bool, muted: bool) -> None:
    """A re-INVITE in the middle: what is played goes on in the other codec, no shorter and as loud."""
    rig = Rig()
    formats = [WIDE, g711()] if wide_first else [g711(), WIDE]
    port = rig.open("a", formats[0])
    async with rig.plane.source("a", 1) as source:
        await source.write(tone(1.0, rate=source.rate))
        source.finish()
        rig.plane.mute("a", heard=False, played=muted)
        rig.tick(20)
        rig.plane.set_remote("a", formats[1])
        rig.plane.mute("a", heard=False, played=False)
        rig.tick(35)
        assert source.played == 1000
    packets = rig.rtp(port)
    narrow = pcm_of([packet for packet in packets if packet.payload_type == 0])
    wide = np.concatenate([EightBits().decode(packet.payload) for packet in packets if packet.payload_type == TYPE])
    first, second = (wide, narrow) if wide_first else (narrow, wide)
    assert (first.size * 50 // (16000 if wide_first else 8000), len(packets)) == (20, 55)
    assert abs(first.astype(float).std() - (0 if muted else 5650)) < 400
    sounding = second[: second.size * 28 // 35].astype(float)
    assert abs(sounding.std() - 5650) < 400
    assert abs(second[-second.size * 4 // 35 :]).max() <= 256


async def test_muting_a_wide_leg_mutes_its_wide_taps() -> None:
    """While it is muted nothing is heard of it, in either rate, and all of it after."""
    rig = Rig()
    port, phone = rig.open("a", WIDE), Phone()
    tap = rig.plane.tap("a")
    for tick in range(60):
        if tick in (20, 40):
            rig.plane.mute("a", heard=tick == 20, played=False)
        rig.ports.arrive(port, phone.raw(b"\1" * 320))
        phone.skip()
        rig.tick()
    pcm = heard(tap)
    assert np.array_equal(np.flatnonzero(pcm[LAG:] == 0), np.arange(18 * 320, 38 * 320))


async def test_keys_run_by_the_codecs_clock() -> None:
    """An event's duration and time are in units of 48 kHz, and it is one press; tones are in the wide audio."""
    rig = Rig()
    port = rig.open("a", WIDE)
    rig.plane.press("a", "5", duration=100)
    rig.tick(12)
    events = [packet for packet in rig.rtp(port) if packet.payload_type == 101]
    assert len({packet.timestamp for packet in events}) == 1
    assert int.from_bytes(events[-1].payload[2:4], "big") == 4800
    receiver = DigitReceiver()
    assert [receiver.receive(1, packet.timestamp, packet.payload) for packet in events].count("5") == 1
    rig.plane.press("a", "5", duration=200, inband=True)
    rig.tick(10)
    sound = np.concatenate([EightBits().decode(packet.payload) for packet in rig.rtp(port)])
    spectrum = np.abs(np.fft.rfft(sound[: 16000 // 5].astype(float)))
    assert sorted((np.argsort(spectrum)[-2:] * 5).tolist()) == [770, 1335]


@pytest.mark.parametrize("media", [g711(), WIDE, g711(ptime=40)])
async def test_what_is_played_can_be_listened_to(media: MediaFormat) -> None:
    """A tap of what we send has it as it leaves, silence before and behind it, and goes on while we are on hold."""
    rig = Rig()
    rig.open("a", media)
    tap = rig.plane.tap("a", played=True)
    rig.tick(5)
    async with rig.plane.source("a", 1) as source:
        await source.write(tone(1.0, rate=source.rate))
        source.finish()
        rig.tick(55)
    rig.plane.set_remote("a", attrs.evolve(media, direction=Direction.INACTIVE))
    rig.tick(10)
    pcm = heard(tap)
    assert pcm.size == 70 * 320
    start = 5 * 320 + (0 if media is WIDE else 23)
    expected = tone(1.0, rate=16000)
    assert np.abs(pcm[start + 50 : start + 15900].astype(int) - expected[50:15900]).max() < 300
    assert abs(pcm[: start - 30]).max() <= 8
    assert abs(pcm[start + 16100 :]).max() <= 8
    assert np.array_equal(pcm[62 * 320 :], np.zeros(8 * 320))


# -- legs whose packets another carries ---------------------------------------------------------------------------


@pytest.mark.parametrize("srtp", [None, keys()])
@pytest.mark.parametrize("media", [g711(rtcp_mux=True, rtcp=PHONE), attrs.evolve(WIDE, rtcp_mux=True, rtcp=PHONE)])
async def test_a_carried_leg_hears_and_is_heard(media: MediaFormat, srtp: SrtpKeys | None) -> None:
    """Packets come by `arrive` and leave by the carrier, sealed or not; too early ones are lost."""
    rig, carried, media = Rig(), [], attrs.evolve(media, srtp=srtp)

    def carrier(data: bytes) -> bool:
        carried.append(data)
        return True

    send, rig.facts["c"] = trio.open_memory_channel[Fact](100)
    opened = rig.plane.open_carried("c", carrier, send)
    assert (opened.leg, opened.port) == ("c", 0)
    port = rig.open("a")
    tap = rig.plane.tap("c")
    rig.plane.arrive("c", b"too early")
    rig.plane.set_remote("c", media)
    phone = Caller(media)
    async with rig.plane.source("c", 1) as source:
        await source.write(tone(0.5, rate=source.rate))
        for _ in range(25):
            rig.plane.arrive("c", phone.packet())
            rig.tick()
        assert source.played == 500
    assert len(rig.rtp(port)) == 25
    packets = [phone.read(data) for data in carried]
    assert len(packets) == 25
    assert {packet.ssrc for packet in packets} == {opened.ssrc}
    assert np.abs(heard(tap)[2000:6000]).max() > 100
    assert rig.plane.counters["rtp_early"] == 1
    stats = rig.plane.close_leg("c")
    assert (stats.packets_received, stats.packets_dropped) == (25, 1)
    assert is_rtcp(carried[-1])
    rig.tick()
    assert len(carried) == 26


class Caller:
    """A peer in `media`: its packets, and what it makes of ours."""

    def __init__(self, media: MediaFormat) -> None:
        self._media = media
        self._plain = Phone() if media.codec is Codec.PCMA else None
        self._stream = Stream()
        self._sealer = Sealer(media.srtp.receive) if media.srtp else None
        self._opener = Opener(media.srtp.send) if media.srtp else None

    def packet(self) -> bytes:
        """20 ms of a tone."""
        plain = self._plain.packet(SPOKEN[:320]) if self._plain else self._stream.packet(tone(0.02))
        sealed = self._sealer.sealed(plain) if self._sealer else plain
        assert sealed is not None
        return sealed

    def read(self, data: bytes) -> RtpPacket:
        """One of ours."""
        opened = self._opener.opened(data) if self._opener else data
        packet = parse_rtp(opened or b"")
        assert packet is not None
        return packet


# -- streams ----------------------------------------------------------------------------------------------------------


class Party:
    """A rig with one stream leg, and what it played."""

    def __init__(self, codec: str = "pcm") -> None:
        self.rig = Rig()
        self.played: list[bytes] = []
        send, self.rig.facts["a"] = trio.open_memory_channel[Fact](100)
        self.rig.plane.open_stream("a", codec, self.played.append, send)


async def test_a_burst_is_heard_at_the_pace_of_speech() -> None:
    """Two seconds at once, in odd pieces: heard whole and in time, and the port range is not touched."""
    party = Party()
    tap = party.rig.plane.tap("a")
    data = SPOKEN.astype("<i2").tobytes()
    for at in range(0, len(data), 1002):
        party.rig.plane.feed("a", data[at : at + 1002])
    for ticks in (50, 60):
        party.rig.tick(ticks)
    pcm = heard(tap)
    start = int(np.argmax(pcm != 0)) - 1
    assert start <= 3 * 320
    assert np.array_equal(pcm[start : start + SPOKEN.size], SPOKEN)
    assert not party.rig.ports.opened


async def test_a_stream_gets_what_is_played_and_nothing_else() -> None:
    """640 bytes each 20 ms while something is played, and none while nothing is."""
    party = Party()
    party.rig.tick(5)
    async with party.rig.plane.source("a", 1) as source:
        await source.write(SPOKEN[:16000])
        source.finish()
        party.rig.tick(60)
        assert source.played == 1000
    assert [len(frame) for frame in party.played] == [640] * 50
    assert np.array_equal(np.frombuffer(b"".join(party.played), "<i2"), SPOKEN[:16000])
    assert not party.rig.ports.sent


@pytest.mark.parametrize("codec", ["pcmu", "pcma"])
async def test_g711_streams_both_ways(codec: str) -> None:
    """160 bytes a frame; a tone keeps its level on the way in and on the way out."""
    party = Party(codec)
    tap = party.rig.plane.tap("a")
    law = {"pcmu": PCMU, "pcma": PCMA}[codec]
    party.rig.plane.feed("a", law.encode(tone(1.0)).tobytes())
    async with party.rig.plane.source("a", 1) as source:
        await source.write(tone(1.0, rate=16000))
        source.finish()
        party.rig.tick(60)
    assert [len(frame) for frame in party.played] == [160] * 50
    sent = law.decode(np.frombuffer(b"".join(party.played), np.uint8))
    assert abs(sent[800:7200].astype(float).std() / 5657 - 1) < 0.03
    assert abs(heard(tap)[3000:15000].astype(float).std() / 5657 - 1) < 0.03


async def test_a_stream_that_pauses_begins_again() -> None:
    """After a silence of the sender's, what comes next is heard whole."""
    party = Party()
    tap = party.rig.plane.tap("a")
    for _ in range(3):
        party.rig.plane.feed("a", np.full(3200, 0x300, "<i2").tobytes())
        party.rig.tick(40)
    assert int((heard(tap) == 0x300).sum()) == 3 * 3200


async def test_what_a_stream_cannot_be_is_refused() -> None:
    """Half a sample, ten seconds at once, another codec, RTP: an error that names it, and what came before is heard."""
    party = Party()
    rig, tap = party.rig, party.rig.plane.tap("a")
    rig.plane.feed("a", b"\1\2" * 320)
    with pytest.raises(MediaError, match=r"641 bytes of pcm are no whole samples"):
        rig.plane.feed("a", b"\0" * 641)
    with pytest.raises(MediaError, match=r"at most five seconds"):
        rig.plane.feed("a", b"\0" * 320_000)
    rig.tick(6)
    assert int((heard(tap) == 0x201).sum()) == 320
    rig.open("b")
    with pytest.raises(MediaError, match=r"'b' hears RTP"):
        rig.plane.feed("b", b"")
    send, _ = trio.open_memory_channel[Fact](1)
    with pytest.raises(MediaError, match=r"no codec 'opus' for a stream; there are g722, pcm, pcma, pcmu"):
        rig.plane.open_stream("c", "opus", party.played.append, send)
    assert rig.plane.legs == 2


async def test_a_stream_without_end_takes_bounded_memory() -> None:
    """A minute in ten seconds: the newest five seconds wait, the rest is dropped and counted."""
    party = Party()
    for second in range(60):
        party.rig.plane.feed("a", np.full(16000, second, "<i2").tobytes())
        party.rig.tick(8)
    heard_so_far = 60 * 8
    assert (
        0 <= party.rig.plane.counters["stream_frames_dropped"] + heard_so_far + 250 - 60 * 50 <= 6
    )  # and in the buffer
    tap = party.rig.plane.tap("a")
    party.rig.tick(300)
    assert set(heard(tap).tolist()) <= {0, *range(55, 60)}
