"""The parts of a recording: names, the WAV header, the line of time, the file, the formats."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.errors import MediaError
from rustpbx.media.events import AudioBlock, Pcm
from rustpbx.media.recording.names import NameRefusedError, safe_name, stem
from rustpbx.media.recording.shell.encoding import encode_file
from rustpbx.media.recording.shell.file import RecordingFile
from rustpbx.media.recording.timeline import LEFT, RIGHT, Timeline
from rustpbx.media.recording.wav import HEADER, LONGEST, WavHeader


def block(at: float, value: int, samples: int = 160) -> AudioBlock:
    """A block of one value, at 1 kHz for short arithmetic."""
    return AudioBlock(np.full(samples, value, np.int16), 1000, at)


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "kind", "is_called"),
    [
        ("", "wav", "s.0d6b-1"),
        ("call", "wav", "call"),
        ("call.wav", "wav", "call"),
        ("call.wav", "mp3", "call"),
        ("call.v1", "ogg", "call.v1"),
        ("2025/10/{id}.mp3", "mp3", "2025/10/s.0d6b-1"),
        ("Anruf für Müller", "flac", "Anruf für Müller"),
    ],
)
def test_a_name_keeps_what_its_agent_wrote(wanted: str, kind: str, is_called: str) -> None:
    """Only a suffix of our formats goes, because the format decides it; dots elsewhere stay."""
    assert stem(wanted, "s.0d6b-1", kind) == is_called  # type: ignore[arg-type] # the test's table is plain text


@pytest.mark.parametrize(
    "wanted",
    ["/etc/passwd", "../x", "a/../../x", "a//b", ".hidden", "a/.b", "a/", "x" * 201, "a\0b", "a\\b", "a\nb", ".wav"],
)
def test_a_name_stays_below_the_folder(wanted: str) -> None:
    """Absolute paths, ways up, hidden files and control characters are refused with what was asked for."""
    with pytest.raises(NameRefusedError, match="not a name below"):
        stem(wanted, "s1", "wav")


@pytest.mark.parametrize(
    ("session_id", "name"),
    [
        ("s.0d6b", "s.0d6b"),
        ("../../etc", "_._.._etc"),
        ("a@10.0.0.1", "a@10.0.0.1"),
        ("", "_"),
        ("...", "_.."),
        ("ü", "_"),
    ],
)
def test_an_id_from_a_url_is_a_plain_name(session_id: str, name: str) -> None:
    """Whatever a session is called, its file lies in the folder."""
    assert safe_name(session_id) == name
    assert stem("", session_id, "wav") == name


@given(st.text(max_size=300))
def test_no_id_leads_out_of_the_folder(session_id: str) -> None:
    """Any text at all makes one visible part of a path."""
    name = stem("", session_id, "wav")
    assert "/" not in name
    assert not name.startswith(".")
    assert 0 < len(name.encode()) <= 200


# -- the header -----------------------------------------------------------------------------------------------------


def test_the_header_is_what_others_read() -> None:
    """Python's own reader of WAV finds two channels of 16 bits at the rate, and as many samples as were told."""
    data = bytes(400)
    with wave.open(io.BytesIO(WavHeader(22050, len(data)).encode() + data)) as file:
        assert file.getparams()[:4] == (2, 2, 22050, 100)
    assert len(WavHeader(8000).encode()) == HEADER


def test_a_header_tells_no_more_than_it_can() -> None:
    """Four gigabytes are the end of RIFF: a larger size is told as the largest."""
    assert WavHeader(8000, 2**40).encode() == WavHeader(8000, LONGEST).encode()


# -- the line of time -----------------------------------------------------------------------------------------------


def test_each_block_lies_at_its_time() -> None:
    """Silence before the first block, between two, and on the channel that says nothing; nothing is shifted."""
    line = Timeline(1000, start=5.0)
    line.place(LEFT, block(5.1, 1, 100))
    line.place(RIGHT, block(5.0, 2, 50))
    line.place(LEFT, block(5.3, 3, 100))
    expected = np.zeros((400, 2), np.int16)
    expected[100:200, LEFT], expected[300:400, LEFT], expected[:50, RIGHT] = 1, 3, 2
    assert (line.take(all_of_it=True) == expected).all()
    assert line.lost == 0


def test_of_two_blocks_that_overlap_the_later_is_right() -> None:
    """A jitter buffer that grew has made up what the next block has for real."""
    line = Timeline(1000, start=0.0)
    line.place(LEFT, block(0.0, 1, 200))
    line.place(LEFT, block(0.18, 2, 200))
    left = line.take(all_of_it=True)[:, LEFT]
    assert [*left] == [1] * 180 + [2] * 200


def test_the_clocks_rounding_is_no_gap() -> None:
    """A time that is off by less than 10 ms goes on where the channel is: no click, and no drift either."""
    line = Timeline(1000, start=0.0)
    for number in range(100):
        line.place(LEFT, block(number * 0.2 + (-1) ** number * 0.004, number + 1, 200))
    assert [*line.take(all_of_it=True)[:, LEFT]] == [number + 1 for number in range(100) for _ in range(200)]


def test_only_what_is_settled_is_taken() -> None:
    """A channel is waited for half a second, and then its silence is believed; what comes later than that is lost."""
    line = Timeline(1000, start=0.0)
    line.place(RIGHT, block(0.0, 7, 2000))
    assert len(line.take()) == 1500
    line.place(LEFT, block(1.0, 5, 600))
    assert line.lost == 500
    rest = line.take(all_of_it=True)
    assert [*rest[:, LEFT]] == [5] * 100 + [0] * 400
    assert [*rest[:, RIGHT]] == [7] * 500


@given(
    st.lists(
        st.tuples(st.sampled_from((LEFT, RIGHT)), st.floats(-1, 4, allow_nan=False), st.integers(1, 600)), max_size=30
    ),
    st.data(),
)
def test_whatever_comes_the_samples_add_up(blocks: list[tuple[int, float, int]], data: st.DataObject) -> None:
    """In any order, taken at any moments: all pieces together are as long as the latest audio."""
    line = Timeline(1000, start=0.0)
    taken = 0
    for channel, at, samples in blocks:
        line.place(channel, block(at, 1, samples))
        if data.draw(st.booleans()):
            taken += len(line.take())
    assert taken + len(line.take(all_of_it=True)) == line.end


def test_a_time_that_cannot_be_takes_no_memory() -> None:
    """A block from next year is counted as lost."""
    line = Timeline(1000, start=0.0)
    line.place(LEFT, block(1e9, 1))
    assert (line.end, line.lost) == (0, 160)


# -- the file -------------------------------------------------------------------------------------------------------


def test_the_file_can_be_played_after_every_write(tmp_path: Path) -> None:
    """The header is never behind: what kills the server leaves all that was written."""
    file = RecordingFile(str(tmp_path), "a/b", "wav", 8000)
    for count in range(1, 4):
        file.write(bytes(400))
        with wave.open(str(tmp_path / "a" / "b.wav")) as reader:
            assert reader.getnframes() == 100 * count
    file.close()
    assert file.path.stat().st_size == HEADER + 1200


def test_no_recording_is_overwritten(tmp_path: Path) -> None:
    """A name that is taken, by a WAV file or by one of the format it is for, gets a number."""
    (tmp_path / "x.wav").write_bytes(b"kept")
    (tmp_path / "x-2.mp3").write_bytes(b"kept")
    file = RecordingFile(str(tmp_path), "x", "mp3", 8000)
    file.write(b"")
    file.close()
    assert (file.path.name, file.target.name) == ("x-3.wav", "x-3.mp3")
    assert (tmp_path / "x.wav").read_bytes() == b"kept"


def test_a_link_does_not_lead_out(tmp_path: Path) -> None:
    """A folder inside that is a link to somewhere else is refused."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "a").symlink_to(outside)
    with pytest.raises(MediaError, match="leads out"):
        RecordingFile(str(inside), "a/b", "wav", 8000).write(b"")
    assert not any(outside.iterdir())


# -- the formats ----------------------------------------------------------------------------------------------------


def two_tones(rate: int, seconds: float = 2.0) -> Pcm:
    """440 Hz on the left, 1000 Hz on the right."""
    time = np.arange(round(rate * seconds))[:, np.newaxis] / rate
    samples: Pcm = (8000 * np.sin(2 * np.pi * time * (440, 1000))).astype("<i2")
    return samples


def pitches(path: Path) -> tuple[float, list[int]]:
    """How long a file is, and the loudest frequency of each channel."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        resampler = av.AudioResampler("s16", "stereo", 48000)
        frames = [done for frame in container.decode(stream) for done in resampler.resample(frame)]
    pcm = np.concatenate([frame.to_ndarray()[0] for frame in frames]).reshape(-1, 2)
    spectrum = np.abs(np.fft.rfft(pcm[4800 : 4800 + 48000], axis=0))
    return len(pcm) / 48000, [int(place) for place in spectrum.argmax(axis=0)]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("kind", ["mp3", "ogg", "flac"])
def test_a_format_keeps_channels_length_and_pitch(kind: str, rate: int, tmp_path: Path) -> None:
    """Each format at each rate: the same seconds, the same tones on the same sides, and the WAV file is gone."""
    file = RecordingFile(str(tmp_path), "x", kind, rate)  # type: ignore[arg-type] # the test's table is plain text
    file.write(two_tones(rate).tobytes())
    file.close()
    size = encode_file(str(file.path), str(file.target), kind, rate)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == [f"x.{kind}"]
    assert file.target.stat().st_size == size
    seconds, tones = pitches(file.target)
    assert seconds == pytest.approx(2.0, abs=0.1)
    assert tones == [440, 1000]


def test_what_cannot_be_encoded_stays(tmp_path: Path) -> None:
    """Where the encoded file cannot be written, the WAV file is kept and nothing else is left."""
    file = RecordingFile(str(tmp_path), "x", "mp3", 8000)
    file.write(two_tones(8000).tobytes())
    file.close()
    with pytest.raises(OSError, match="No such file"):
        encode_file(str(file.path), str(tmp_path / "gone" / "x.mp3"), "mp3", 8000)
    assert [path.name for path in tmp_path.iterdir()] == ["x.wav"]
