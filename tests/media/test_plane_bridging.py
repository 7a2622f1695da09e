"""Bridges between legs: any two codecs, muted, on hold, behind a source, cut off by the end of either."""

from __future__ import annotations

import numpy as np
import pytest

from rustpbx.errors import MediaError
from rustpbx.media.codec.g711 import PCMA, PCMU
from rustpbx.media.codec.registry import make_coder
from rustpbx.media.events import Codec, Direction, MediaFormat, Pcm
from rustpbx.media.rtp import RtpPacket, build_rtp
from tests.media.plane_rig import PHONE, Rig, Stream, g711, pcm_of, tone

OTHER = ("192.0.2.8", 5000)
TYPES = {Codec.PCMU: 0, Codec.PCMA: 8, Codec.G722: 9, Codec.OPUS: 111}
LAWS = {Codec.PCMU: PCMU, Codec.PCMA: PCMA}
QUIET = 40
"""The loudest sample of what counts as silence, after any codec."""


def agreed(codec: Codec, remote: tuple[str, int] = PHONE, **changes: object) -> MediaFormat:
    """An agreement on a codec."""
    return g711(codec=codec, receive_pt=TYPES[codec], send_pt=TYPES[codec], remote=remote, **changes)


class Talker:
    """What one phone sends, in its codec."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._coder = None if codec in LAWS else make_coder(agreed(codec))
        self._sequence = self._time = 100

    def packet(self, pcm: Pcm) -> bytes:
        """20 ms of `pcm` at 16 kHz."""
        payload = LAWS[self._codec].encode(pcm[::2]).tobytes() if self._coder is None else self._coder.encode(pcm)
        packet = RtpPacket(
            payload_type=TYPES[self._codec], sequence=self._sequence, timestamp=self._time, ssrc=0xABCD, payload=payload
        )
        self._sequence += 1
        self._time += 160 if self._coder is None else self._coder.clock_rate // 50
        return build_rtp(packet)


def decoded(codec: Codec, packets: list[RtpPacket]) -> Pcm:
    """What the other phone hears, at 8 kHz."""
    coder = None if codec in LAWS else make_coder(agreed(codec))
    if coder is None:
        return LAWS[codec].decode(np.frombuffer(b"".join(packet.payload for packet in packets), np.uint8))
    return np.concatenate([coder.decode(packet.payload) for packet in packets])[::2]


def pitch(pcm: Pcm) -> float:
    """Hz of the strongest tone at 8 kHz."""
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(pcm.size)))
    return float(spectrum.argmax() * 8000 / pcm.size)


def bridged(one: Codec = Codec.PCMU, other: Codec = Codec.PCMU) -> tuple[Rig, int, int]:
    """Two legs that hear each other, and their ports."""
    rig = Rig()
    ports = rig.open("a", agreed(one)), rig.open("b", agreed(other, OTHER))
    rig.plane.bridge("a", "b")
    rig.plane.bridge("b", "a")
    return rig, *ports


def speak(rig: Rig, port: int, codec: Codec, seconds: float = 1.0, source: tuple[str, int] = PHONE) -> None:
    """A phone sends a tone of 440 Hz."""
    talker, pcm = Talker(codec), tone(seconds, 16000)
    for at in range(0, pcm.size, 320):
        rig.ports.arrive(port, talker.packet(pcm[at : at + 320]), source)
        rig.tick()


@pytest.mark.parametrize("one", list(Codec))
@pytest.mark.parametrize("other", list(Codec))
def test_any_two_codecs_are_joined(one: Codec, other: Codec) -> None:
    """A tone in the one comes out of the other as the same tone, as loud, without a gap; nothing comes back."""
    rig, port, target = bridged(one, other)
    speak(rig, port, one)
    heard = decoded(other, rig.rtp(target))[-4000:]
    assert abs(pitch(heard) - 440) < 4
    assert 0.8 < np.abs(heard).max() / 8000 < 1.2
    pieces = np.abs(heard[:3840].astype(int)).reshape(-1, 160).max(axis=1)
    assert pieces.min() > 4000
    assert np.abs(decoded(one, rig.rtp(port)).astype(int)).max() <= QUIET


def test_the_same_law_passes_bit_by_bit_60_ms_later() -> None:
    """Each frame is sent as it came: 40 ms of jitter buffer, and the next tick."""
    rig, port, target = bridged()
    stream, pcm = Stream(), tone(0.4)
    sent = []
    for at in range(0, pcm.size, 160):
        sent.append(stream.packet(pcm[at : at + 160]))
        rig.ports.arrive(port, sent[-1])
        rig.tick()
    heard = [packet.payload for packet in rig.rtp(target)]
    assert heard[3:] == [data[12:] for data in sent][:-3]


@pytest.mark.parametrize("side", ["heard", "played"])
def test_muted_legs_pass_silence(side: str) -> None:
    """Whether it is the one who speaks or the one who listens, until it is undone."""
    rig, port, target = bridged()
    muting = ("a", True, False) if side == "heard" else ("b", False, True)
    rig.plane.mute(muting[0], heard=muting[1], played=muting[2])
    speak(rig, port, Codec.PCMU, 0.3)
    assert np.abs(pcm_of(rig.rtp(target)).astype(int)).max() <= QUIET
    rig.plane.mute(muting[0], heard=False, played=False)
    speak(rig, port, Codec.PCMU, 0.3)
    assert np.abs(pcm_of(rig.rtp(target))).max() > 4000


async def test_a_source_goes_before_what_is_bridged() -> None:
    """While it plays only it is heard, and behind it the other leg again."""
    rig, port, target = bridged()
    async with rig.plane.source("b", 1) as source:
        await source.write(np.full(800, 1000, np.int16))
        source.finish()
        speak(rig, port, Codec.PCMU, 0.1)
        assert (np.abs(pcm_of(rig.rtp(target)).astype(int) - 1000) < 50).all()
        speak(rig, port, Codec.PCMU, 0.2)
        assert abs(pitch(pcm_of(rig.rtp(target))[-800:]) - 440) < 20


def test_who_listens_to_what_is_sent_hears_the_bridge() -> None:
    """A tap on the played side has the other leg's words: recordings are true."""
    rig, port, _ = bridged()
    with rig.plane.tap("b", seconds=0.1, played=True) as tap:
        speak(rig, port, Codec.PCMU, 0.5)
        blocks = []
        while tap.blocks.waiting:
            blocks.append(tap.blocks.receive_nowait().pcm)
    assert np.abs(np.concatenate(blocks[2:])).max() > 4000


def test_a_leg_on_hold_hears_nothing_and_is_heard_again_after_it() -> None:
    """Nothing is sent to it; what it says counts again as soon as it may."""
    rig, port, target = bridged()
    rig.plane.set_remote("b", agreed(Codec.PCMU, OTHER, direction=Direction.INACTIVE))
    speak(rig, port, Codec.PCMU, 0.2)
    assert rig.rtp(target) == []
    rig.plane.set_remote("b", agreed(Codec.PCMA, OTHER))
    speak(rig, port, Codec.PCMU, 0.3)
    assert abs(pitch(decoded(Codec.PCMA, rig.rtp(target))[-800:]) - 440) < 20


@pytest.mark.parametrize("gone", ["a", "b"])
def test_the_end_of_either_leg_ends_the_bridge(gone: str) -> None:
    """The other sends silence; a leg that gets its slot hears nothing of it."""
    rig, port, target = bridged()
    speak(rig, port, Codec.PCMU, 0.2)
    rig.plane.close_leg(gone)
    left, left_port = ("b", target) if gone == "a" else ("a", port)
    rig.rtp(left_port)
    rig.open("c", agreed(Codec.PCMU))
    rig.tick(10)
    assert np.abs(pcm_of(rig.rtp(left_port)).astype(int)).max() <= QUIET
    rig.plane.close_leg(left)
    assert rig.plane.legs == 1


def test_a_bridge_needs_both_legs() -> None:
    """One that is not there is named."""
    rig = Rig()
    rig.open("a")
    for pair in (("a", "b"), ("b", "a")):
        with pytest.raises(MediaError, match="there is no media leg 'b'"):
            rig.plane.bridge(*pair)
