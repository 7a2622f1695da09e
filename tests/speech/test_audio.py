"""Audio on its way to a service and back: nothing is lost, and its times are those of the call."""

from __future__ import annotations

import io
import itertools
import wave

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import SpeechError
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.speech.audio import AudioFeed, PcmReader


async def pieces(blocks: list[AudioBlock], rate: int, seconds: float) -> tuple[list[bytes], AudioFeed]:
    """What a feed makes of these blocks."""
    send, receive = trio.open_memory_channel[AudioBlock](len(blocks))
    with send:
        for block in blocks:
            send.send_nowait(block)
    feed = AudioFeed(receive, rate, seconds)
    found = []
    while (piece := await feed.next()) is not None:
        found.append(piece)
    return found, feed


def ramp(count: int, start: int = 0) -> Pcm:
    """Samples that tell their place."""
    return np.arange(start, start + count).astype(np.int16)


async def test_pieces_have_the_size_asked_for_and_hold_every_sample() -> None:
    """Blocks of 100 ms leave in pieces of 40 ms, the rest last."""
    blocks = [AudioBlock(ramp(1600, 1600 * n), 16000, 5.0 + 0.1 * n) for n in range(3)]
    found, feed = await pieces(blocks, 16000, 0.04)
    assert [len(piece) for piece in found] == [1280] * 7 + [640]
    assert np.array_equal(np.frombuffer(b"".join(found), "<i2"), ramp(4800))
    assert feed.duration == pytest.approx(0.3)


async def test_times_follow_the_call_over_a_gap() -> None:
    """An offset of the service's is a moment of the call, also behind audio that was dropped."""
    at = [5.0, 5.1, 9.0, 9.1]
    _, feed = await pieces([AudioBlock(ramp(1600), 16000, begin) for begin in at], 8000, 0.1)
    assert [feed.at(offset) for offset in (0.0, 0.15, 0.2, 0.35)] == pytest.approx([5.0, 5.15, 9.0, 9.15])


async def test_a_feed_without_audio_ends_at_once() -> None:
    """No audio: no piece, and any time is that of the call's begin."""
    found, feed = await pieces([], 16000, 0.1)
    assert (found, feed.at(3.0)) == ([], 0.0)


def wav(pcm: Pcm, rate: int, channels: int = 1) -> bytes:
    """A whole file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(pcm.astype("<i2").tobytes())
    return file.getvalue()


@given(
    pcm=st.binary(min_size=0, max_size=200),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    as_wav=st.booleans(),
)
def test_however_a_stream_is_cut_the_samples_are_the_same(pcm: bytes, cuts: list[int], *, as_wav: bool) -> None:
    """Odd lengths, and a header in several pieces, make no difference."""
    samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], "<i2")
    if not as_wav and pcm[:4] == b"RIFF"[: len(pcm[:4])]:
        return  # such samples would have to be a header
    data = wav(samples, 16000) if as_wav else pcm
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = PcmReader(16000, "service")
    parts = [reader.feed(data[a:b]) for a, b in itertools.pairwise(places)]
    assert np.array_equal(np.concatenate([*parts, reader.flush()]), samples)


def test_each_wav_of_several_is_read_without_its_header() -> None:
    """A service that sends a file for each sentence is heard without clicks."""
    reader = PcmReader(16000, "service")
    assert np.array_equal(np.concatenate([reader.feed(wav(ramp(50), 16000)) for _ in range(2)]), np.tile(ramp(50), 2))


def test_audio_of_another_rate_than_promised_is_converted() -> None:
    """Half the rate becomes twice the samples."""
    reader = PcmReader(16000, "service")
    pcm = np.concatenate([reader.feed(wav(ramp(800), 8000)), reader.flush()])
    assert pcm.size == pytest.approx(1600, abs=8)


def test_wav_that_is_no_16_bit_mono_is_refused_with_its_format() -> None:
    """The error says what came."""
    with pytest.raises(SpeechError, match="not 16-bit mono PCM: format 1, 2 channels, 16 bits"):
        PcmReader(16000, "service").feed(wav(ramp(4), 16000, channels=2))


def test_a_header_without_end_is_refused() -> None:
    """Chunks before the samples are bounded."""
    with pytest.raises(SpeechError, match="a header of more than 4096 bytes"):
        PcmReader(16000, "service").feed(b"RIFF\0\0\0\0WAVELIST" + (10_000).to_bytes(4, "little") + bytes(100))
