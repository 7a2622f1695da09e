"""Speech as sound: every text comes back out of its sound, whatever a telephone does to it on the way."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.media.codec.g711 import LAWS
from rustpbx.media.codec.resample import resample
from rustpbx.media.events import Codec, Pcm
from rustpbx.media.vad.detector import make_detector
from rustpbx.testing.script import LOST, joined
from rustpbx.testing.speech import tone
from rustpbx.testing.voice import Ear, heard_text, spoken

FRAME = 160
TEXT = "Sixty-six letters, bookkeeper: aabbcc, 100 %, \u00fc\u00df, \u4f60\u597d!"

texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Zs")) | st.just(" "), max_size=30).map(
    lambda text: " ".join(text.split())
)


def frames(pcm: Pcm) -> list[Pcm]:
    """Cut into packets of 20 ms, the last one filled up."""
    return list(np.pad(pcm, (0, -len(pcm) % FRAME)).reshape(-1, FRAME))


@given(texts, st.integers(0, 799), st.sampled_from([8000, 16000]))
def test_every_text_comes_back(text: str, offset: int, rate: int) -> None:
    """Any Unicode, wherever it begins in the audio."""
    silence = np.zeros(offset, np.int16)
    assert heard_text(np.concatenate([silence, spoken(text, rate=rate), silence]), rate) == text


@pytest.mark.parametrize("codec", list(LAWS))
@pytest.mark.parametrize("rates", [(8000, 8000), (8000, 16000), (16000, 8000)])
def test_telephone_audio_keeps_the_words(codec: Codec, rates: tuple[int, int]) -> None:
    """G.711 and both ways of resampling change no letter."""
    law, (source, target) = LAWS[codec], rates
    pcm = spoken(TEXT, rate=source)
    coded = law.decode(law.encode(pcm))
    assert heard_text(resample(coded, source, target) if source != target else coded, target) == TEXT


@pytest.mark.parametrize(("volume", "speed"), [(1, 1.0), (10, 1.0), (5, 0.5), (5, 2.0), (5, 9.0)])
def test_volume_and_speed_do_not_matter(volume: int, speed: float) -> None:
    """Loud or low, slow or as fast as it gets."""
    assert heard_text(spoken(TEXT, volume=volume, speed=speed)) == TEXT


@pytest.mark.parametrize("place", range(8))
def test_one_lost_packet_costs_nothing(place: int) -> None:
    """Every eighth packet silent: no letter is lost."""
    packets = frames(spoken(TEXT))
    for packet in packets[place::8]:
        packet[:] = 0
    assert heard_text(np.concatenate(packets)) == TEXT


def test_a_lost_letter_is_noticed() -> None:
    """A letter whose packets are all lost leaves its mark, and the words around it stay."""
    packets = frames(spoken("good morning"))
    for packet in packets[12:15]:  # the letter from 250 to 300 ms is heard in packets 12 to 14
        packet[:] = 0
    assert heard_text(np.concatenate(packets)) == f"good {LOST}orning"


@pytest.mark.parametrize("letters", range(1, 12))
def test_what_was_cut_off_is_what_was_played(letters: int) -> None:
    """Sound cut after n letters reads as exactly these."""
    assert heard_text(spoken("goodmorning")[: letters * 400]) == "goodmorning"[:letters]


def test_phrases_are_told_apart() -> None:
    """Two utterances are two phrases, with a pause between them or without."""
    ear = Ear(8000)
    ear.feed(np.concatenate([spoken("hello"), spoken("hello"), np.zeros(8000, np.int16), spoken("o")]))
    ear.finish()
    assert [phrase.text for phrase in ear.phrases] == ["hello", "hello", "o"]
    assert [(round(p.started_at, 1), round(p.ended_at, 1)) for p in ear.phrases] == [
        (0, 0.2),
        (0.3, 0.5),
        (1.5, 1.5),
    ]
    assert ear.text == "hello hello o"


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=20))
def test_an_ear_hears_the_same_in_any_pieces(sizes: list[int]) -> None:
    """Fed sample by sample or all at once: the same phrases at the same times."""
    pcm = spoken("in pieces")
    whole, ear = Ear(8000), Ear(8000)
    whole.feed(pcm)
    for start, end in zip(np.cumsum([0, *sizes]), [*np.cumsum(sizes), len(pcm)], strict=True):
        ear.feed(pcm[start:end])
    if sum(sizes) <= len(pcm):
        assert ear.phrases == whole.phrases


def test_other_sound_holds_no_words() -> None:
    """A tone, music of three steady tones and noise are not read as text."""
    noise = np.random.default_rng(7).integers(-9000, 9000, 16000).astype(np.int16)
    music = sum(tone(2.0, hertz=hertz, amplitude=3000) for hertz in (523.0, 659.0, 784.0))
    assert [heard_text(np.asarray(pcm)) for pcm in (tone(2.0), noise, music, np.zeros(8000, np.int16))] == [""] * 4


def test_a_detector_takes_it_for_a_voice() -> None:
    """Each packet of it is voiced, for any letters."""
    detector, rng = make_detector("webrtc"), random.Random(5)
    text = "".join(chr(rng.randrange(32, 127)) for _ in range(400))
    assert all(detector.voiced(packet.tobytes(), FRAME) for packet in frames(spoken(text)))


def test_joined() -> None:
    """Phrases become one line of text."""
    assert joined([" one ", "two", "", "three  four"]) == "one two three four"
