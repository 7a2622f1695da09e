"""Cutting audio into utterances, without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rustpbx.errors import SpeechError
from rustpbx.media.decode import decode
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.speech.local_segments import RATE, Segment, Segmenter
from tests.kit.sounds import tone

HELLO = decode((Path(__file__).parents[1] / "golden" / "speech" / "hello-8k.wav").read_bytes(), RATE)
"""A synthetic voice says "Hello, thank you for calling." over the telephone band: 2.2 s."""


def silence(seconds: float) -> Pcm:
    """Nothing at all, as a muted phone sends it."""
    return np.zeros(int(seconds * RATE), np.int16)


def noise(seconds: float, level: float) -> Pcm:
    """White noise of a steady level (RMS)."""
    samples = np.random.default_rng(1).standard_normal(int(seconds * RATE)) * level
    return np.clip(samples, -32768, 32767).astype(np.int16)


def chatter(seconds: float) -> Pcm:
    """Noise that swells four times a second: what the gates take for somebody who never pauses."""
    times = np.arange(int(seconds * RATE)) / RATE
    return (noise(seconds, 4000) * (0.5 - 0.49 * np.cos(2 * np.pi * 4 * times))).astype(np.int16)


def cut(*parts: Pcm, block: int = 1600, at: float = 100.0) -> list[Segment]:
    """The utterances in these parts, one after the other, given in blocks that begin at a time."""
    pcm = np.concatenate(parts)
    segmenter = Segmenter()
    found = []
    for start in range(0, len(pcm), block):
        found += segmenter.feed(AudioBlock(pcm[start : start + block], RATE, at + start / RATE))
    rest = segmenter.flush()
    return found + ([rest] if rest else [])


def times(segments: list[Segment]) -> list[tuple[float, float]]:
    """When each began and ended, to the tenth."""
    return [(round(segment.started_at, 1), round(segment.ended_at, 1)) for segment in segments]


def test_a_sentence_is_one_utterance() -> None:
    """A sentence between silences: its times, and its audio with the pre-roll and without the silence after it."""
    segments = cut(silence(1), HELLO, silence(2))
    assert times(segments) == [(101.3, 102.7)]
    assert 1.4 + 0.3 <= len(segments[0].pcm) / RATE <= 1.5 + 0.5


@pytest.mark.parametrize("block", [37, 320, 1600, 50_000])
def test_blocks_of_any_size_are_the_same(block: int) -> None:
    """How the audio is cut into blocks changes nothing."""
    parts = (silence(1), HELLO, silence(1), HELLO, silence(1))
    wanted, found = cut(*parts, block=333), cut(*parts, block=block)
    assert times(found) == times(wanted)
    assert [np.array_equal(a.pcm, b.pcm) for a, b in zip(found, wanted, strict=True)] == [True, True]


def test_pauses_part_utterances() -> None:
    """A second of silence parts, a breath does not."""
    assert times(cut(silence(1), HELLO, silence(1), HELLO, silence(1))) == [(101.3, 102.7), (104.5, 105.9)]
    assert len(cut(silence(1), chatter(1), silence(0.3), chatter(1), silence(1))) == 1


def test_speech_at_once_is_heard() -> None:
    """A caller who speaks with the first packet loses nothing."""
    (segment,) = cut(HELLO, silence(1))
    assert np.array_equal(segment.pcm, np.concatenate((HELLO, silence(1)))[: len(segment.pcm)])


def test_speech_in_noise_is_found_and_ends() -> None:
    """Over steady noise 15 dB below it, speech is still cut where it begins and ends."""
    pcm = np.concatenate((silence(2), HELLO, silence(2), HELLO, silence(2)))
    level = np.sqrt(np.mean(np.square(HELLO, dtype=np.float64))) / 10 ** (15 / 20)
    segments = cut((pcm + noise(len(pcm) / RATE, level)[: len(pcm)]).astype(np.int16))
    assert [segment.started_at for segment in segments] == pytest.approx([102.3, 106.5], abs=0.1)
    assert [segment.ended_at for segment in segments] == pytest.approx([103.7, 107.9], abs=0.2)


@pytest.mark.parametrize(
    "sound",
    [
        silence(5),
        noise(5, 30),
        noise(5, 500),
        noise(5, 4000),
        tone(RATE, 5),
        np.tile(np.r_[silence(0.5), tone(RATE, 0.02)], 9),
    ],
    ids=["silence", "hiss", "noise", "roar", "tone", "clicks"],
)
def test_what_is_not_speech_gives_nothing(sound: Pcm) -> None:
    """Steady sounds and clicks are no utterances, from the start or out of silence."""
    assert cut(sound) == []
    assert cut(silence(2), sound, silence(1)) == []


def test_a_speaker_without_pause_is_cut() -> None:
    """Fifteen seconds are the most, and the next utterance begins where the last one ended."""
    segments = cut(chatter(40))
    lengths = [len(segment.pcm) / RATE for segment in segments]
    assert max(lengths) <= 15
    assert sum(lengths) >= 39
    assert len(segments) == 3


def test_the_end_of_the_audio_ends_the_utterance() -> None:
    """Without any silence after it, the last utterance comes with the flush."""
    segmenter = Segmenter()
    assert segmenter.feed(AudioBlock(np.concatenate((silence(1), HELLO[:24000])), RATE, 0.0)) == []
    rest = segmenter.flush()
    assert rest is not None
    assert rest.ended_at == pytest.approx(2.5, abs=0.1)
    assert segmenter.flush() is None


def test_times_follow_the_blocks() -> None:
    """Audio that was lost between blocks does not shift what comes after it."""
    segmenter = Segmenter()
    assert segmenter.feed(AudioBlock(silence(1), RATE, 0.0)) == []
    (segment,) = segmenter.feed(AudioBlock(np.concatenate((HELLO, silence(1))), RATE, 50.0))
    assert times([segment]) == [(50.3, 51.7)]


def test_what_is_going_on_can_be_looked_at() -> None:
    """An open utterance tells how far it is; two looks with the same `heard` have the same audio."""
    segmenter = Segmenter()
    segmenter.feed(AudioBlock(silence(1), RATE, 0.0))
    assert (segmenter.progress, segmenter.peek(), segmenter.pause) == (None, None, 0.0)
    segmenter.feed(AudioBlock(HELLO, RATE, 1.0))
    segmenter.feed(AudioBlock(silence(0.1), RATE, 1.0 + len(HELLO) / RATE))
    first = segmenter.peek()
    assert first is not None
    assert segmenter.progress == (first.number, first.heard / 50)
    pause = segmenter.pause
    segmenter.feed(AudioBlock(silence(0.04), RATE, 1.1 + len(HELLO) / RATE))
    second = segmenter.peek()
    assert second == first
    assert np.array_equal(second.pcm[: len(first.pcm)], first.pcm)
    assert segmenter.pause == pytest.approx(pause + 0.04)


def test_another_rate_is_refused() -> None:
    """The model was trained at 16 kHz; resampling is the tap's work."""
    with pytest.raises(SpeechError, match="wants audio at 16000 Hz, not 8000"):
        Segmenter().feed(AudioBlock(silence(1), 8000, 0.0))
