"""G.722: level and words, any packet size, loss."""

from __future__ import annotations

import numpy as np
import pytest

from rustpbx.errors import MediaError
from rustpbx.media.codec.base import WIDE
from rustpbx.media.codec.g722 import G722Coder
from rustpbx.media.codec.registry import make_stream_coder
from rustpbx.media.events import Pcm
from rustpbx.testing.voice import heard_text, spoken
from tests.kit.sounds import pitch, tone

TEXT = "is the shop open until seven"


def coded(pcm: Pcm) -> bytes:
    """Audio as one stream of bytes; what is over after the last frame is left out."""
    coder = G722Coder()
    payloads = [coder.encode(pcm[at : at + WIDE]) for at in range(0, pcm.size - WIDE + 1, WIDE)]
    assert {len(payload) for payload in payloads} == {160}
    return b"".join(payloads)


@pytest.mark.parametrize("size", [80, 160, 240, 480, 17])
def test_words_survive_in_packets_of_any_size(size: int) -> None:
    """10 ms and more at once: the same samples, since a byte is two of them, and all letters."""
    speech = np.pad(spoken(TEXT, rate=16000), (0, 2 * WIDE))
    data, coder = coded(speech), G722Coder()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [coder.duration(piece) for piece in pieces] == [2 * len(piece) for piece in pieces]
    heard = np.concatenate([coder.decode(piece) for piece in pieces])
    assert np.array_equal(heard, G722Coder().decode(data))
    assert heard_text(heard, 16000) == TEXT


@pytest.mark.parametrize("hertz", [200, 1000, 6000])
def test_tones_keep_pitch_and_level(hertz: float) -> None:
    """In the lower band and in the upper one."""
    pcm = tone(16000, 1.0, hertz, 0.3)
    heard = G722Coder().decode(coded(pcm))[1600:14400]
    assert pitch(heard, 16000) == pytest.approx(hertz, rel=0.01)
    assert abs(20 * np.log10(np.std(heard) / np.std(pcm))) < 1


def test_a_loss_fades() -> None:
    """What was heard before is heard again, lower each time; then the stream goes on."""
    coder, data = G722Coder(), coded(tone(16000, 1.0, 300, 0.3))
    before = coder.decode(data[:1600])[-WIDE:]
    levels = [float(np.std(coder.conceal(None))) / float(np.std(before)) for _ in range(3)]
    assert levels == pytest.approx([0.7, 0.49, 0.343], rel=0.01)
    assert coder.decode(data[1600:1760]).size == WIDE


def test_nothing_is_no_packet() -> None:
    """An empty payload has no audio."""
    with pytest.raises(MediaError, match="empty"):
        G722Coder().decode(b"")
    assert G722Coder().duration(b"") == 0


def test_it_is_a_codec_of_streams() -> None:
    """Agents have it by name."""
    assert isinstance(make_stream_coder("g722"), G722Coder)
