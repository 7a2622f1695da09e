"""Opus through libopus: levels, loss, redundancy, silence, what peers wish for, and what is no packet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rustpbx.errors import MediaError
from rustpbx.media.codec import libopus
from rustpbx.media.codec.base import WIDE
from rustpbx.media.codec.opus import OpusCoder
from rustpbx.media.codec.registry import is_possible, make_coder
from rustpbx.media.codec.resample import resample
from rustpbx.media.decode import decode
from rustpbx.media.events import Codec, MediaFormat, OpusParams, Pcm
from rustpbx.testing.voice import heard_text, spoken
from tests.kit.sounds import pitch, tone

VOICE = resample(
    decode((Path(__file__).parents[1] / "golden" / "speech" / "hello-8k.wav").read_bytes(), 8000), 8000, 16000
)
"""Somebody says hello."""

TEXT = "is the shop open until seven"
SPEECH = spoken(TEXT, rate=16000)


def frames(pcm: Pcm) -> Iterator[Pcm]:
    """20 ms each, the last filled up, and some silence behind it."""
    padded = np.pad(pcm, (0, -pcm.size % WIDE + 2 * WIDE))
    return iter(padded.reshape(-1, WIDE))


def there_and_back(pcm: Pcm, params: OpusParams = OpusParams()) -> tuple[list[bytes], Pcm]:  # noqa: B008 - frozen
    """The packets of some audio, and what is heard of them."""
    coder = OpusCoder(params)
    packets = [coder.encode(frame) for frame in frames(pcm)]
    return packets, np.concatenate([coder.decode(packet) for packet in packets])


def level(pcm: Pcm) -> float:
    """In dB."""
    return float(10 * np.log10(np.mean(pcm.astype(np.float64) ** 2)))


def test_words_and_their_level_survive() -> None:
    """Speech comes back letter by letter, within 1 dB of how loud it was, in 24 kbit/s or less."""
    packets, heard = there_and_back(SPEECH)
    assert heard_text(heard, 16000) == TEXT
    assert abs(level(heard[: SPEECH.size]) - level(SPEECH)) < 1
    assert sum(map(len, packets)) / len(packets) <= 24_000 / 8 / 50 * 1.1


@pytest.mark.parametrize("hertz", [300, 1000, 3000, 6000])
def test_tones_keep_pitch_and_level(hertz: float) -> None:
    """Those that telephone lines do not carry, too."""
    pcm = tone(16000, 1.0, hertz, 0.3)
    _, heard = there_and_back(pcm)
    steady = heard[4000:16000]
    assert pitch(steady, 16000) == pytest.approx(hertz, rel=0.01)
    assert abs(level(steady) - level(pcm)) < 1


def heard_with_losses(params: OpusParams, *, following: bool) -> tuple[Pcm, Pcm]:
    """What is heard for every fifth packet of a voice, which is lost, and what would have been.

    `following`: the packet behind it has come in time.
    """
    packets, whole = there_and_back(VOICE, params)
    coder, heard = OpusCoder(), []
    for at in range(0, len(packets) - 5, 5):
        for packet in packets[at : at + 4]:
            coder.decode(packet)
        heard.append(coder.conceal(packets[at + 5] if following else None))
    assert {frame.size for frame in heard} == {WIDE}
    lost = whole[: len(heard) * 5 * WIDE].reshape(-1, 5, WIDE)[:, 4].reshape(-1)
    return np.concatenate(heard), lost


def likeness(heard: Pcm, lost: Pcm) -> float:
    """How far below its level the error is, in dB."""
    return level(lost) - level(np.clip(heard.astype(np.int32) - lost, -32768, 32767).astype(np.int16))


def test_loss_is_concealed() -> None:
    """There is no hole where a packet is missing: it is about as loud as what was lost."""
    heard, lost = heard_with_losses(OpusParams(), following=False)
    assert abs(level(heard) - level(lost)) < 4


def test_redundancy_brings_it_back() -> None:
    """Where the peer sends redundancy and the next packet is there, it is also much more like it."""
    repeated, lost = heard_with_losses(OpusParams(fec=True), following=True)
    guessed, _ = heard_with_losses(OpusParams(fec=True), following=False)
    assert likeness(repeated, lost) > likeness(guessed, lost) + 3
    none, lost = heard_with_losses(OpusParams(), following=True)
    assert np.array_equal(none, heard_with_losses(OpusParams(), following=False)[0])


@pytest.mark.rfc("7587", "6.1")
def test_what_peers_wish_for() -> None:
    """Fewer bits a second, constant ones, and nothing at all for silence: each only if it is asked for."""
    silence = np.zeros(16000, np.int16)
    sizes = {len(packet) for packet in there_and_back(SPEECH, OpusParams(cbr=True))[0]}
    assert sizes == {60}
    thrifty = there_and_back(SPEECH, OpusParams(bitrate=8000))[0]
    assert sum(map(len, thrifty)) / len(thrifty) < 30
    coder = OpusCoder(OpusParams(dtx=True))
    packets = [coder.encode(frame) for frame in frames(silence)]
    assert packets.count(b"") > 30
    assert all(OpusCoder().encode(frame) for frame in frames(silence))
    narrow = there_and_back(tone(16000, 1.0, 6000, 0.3), OpusParams(playback_rate=8000))[1]
    assert level(narrow[4000:16000]) < level(tone(16000, 1.0, 6000, 0.3)) - 20


@pytest.mark.rfc("7587", "7.1")
def test_stereo_is_heard_as_mono() -> None:
    """A packet of two channels (the bit for it set) is one stream of samples."""
    packet = OpusCoder().encode(next(frames(tone(16000, 0.02))))
    coder = OpusCoder()
    assert coder.decode(bytes([packet[0] | 4]) + packet[1:]).shape == (WIDE,)


@pytest.mark.parametrize(
    ("config", "code", "samples"), [(0, 0, 160), (3, 0, 960), (9, 0, 320), (16, 0, 40), (9, 1, 640), (19, 1, 640)]
)
def test_how_long_a_packet_is(config: int, code: int, samples: int) -> None:
    """By its first byte: 2.5 to 60 ms a frame, one frame or two (RFC 6716 3.1)."""
    assert OpusCoder().duration(bytes([config << 3 | code]) + bytes(4)) == samples


@given(st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_bytes(data: bytes) -> None:
    """Whatever comes is decoded to as many samples as it promises, or refused; the next good packet is heard."""
    coder = OpusCoder()
    duration = coder.duration(data)
    assert 0 <= duration <= 1920
    assert coder.conceal(data).shape == (WIDE,)
    with suppress(MediaError):
        assert coder.decode(data).size == duration
    assert coder.decode(OpusCoder().encode(np.zeros(WIDE, np.int16))).size == WIDE


@pytest.mark.parametrize(("data", "problem"), [(b"", "Opus: an empty packet"), (b"\x02", "Opus: corrupted stream")])
def test_what_is_no_packet(data: bytes, problem: str) -> None:
    """The error says what libopus says of it."""
    assert OpusCoder().duration(b"") == 0
    with pytest.raises(MediaError, match=problem):
        OpusCoder().decode(data)


def test_what_cannot_be_encoded() -> None:
    """Half a frame is our own mistake, and says so."""
    with pytest.raises(MediaError, match="cannot encode 111 samples"):
        OpusCoder().encode(np.zeros(111, np.int16))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """No libopus anywhere: an error that names it, and the other codecs are possible all the same."""
    libopus.libopus.cache_clear()
    monkeypatch.setattr(libopus, "_candidates", lambda: iter(["libnothing.so"]))
    media = MediaFormat(codec=Codec.OPUS, receive_pt=111, send_pt=111, remote=("192.0.2.1", 4000))
    with pytest.raises(MediaError, match="there is no libopus"):
        make_coder(media)
    assert [codec for codec in Codec if is_possible(codec)] == [Codec.PCMU, Codec.PCMA, Codec.G722]
    monkeypatch.undo()
    assert isinstance(make_coder(media), OpusCoder)
