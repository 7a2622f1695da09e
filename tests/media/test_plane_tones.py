"""DTMF in the audio by the rules of ITU-T Q.24: what is a digit, what is none, and that speech and noise are none."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import pytest

from rustpbx.media.codec.g711 import PCMU
from rustpbx.media.dtmf import DIGITS, HIGH, KEYPAD, LOW, digit_packets
from rustpbx.media.events import DigitPressed, Pcm
from rustpbx.media.rtp import RtpPacket, build_rtp
from rustpbx.testing.voice import spoken
from tests.kit.recordings import read_wav
from tests.media.plane_rig import Rig, Stream, voice
from tests.test_docs import ROOT

PHASES = np.arange(0.0, 20.0, 2.5)
"""Milliseconds by which a digit may begin after a packet."""
LEVELS = [(-8, -8), (-25, -25), (-4, 0), (-12, -8), (-8, -16), (0, -8)]
"""dBm0 of the low and the high tone: the range of Q.24, with twists of 4 dB one way and 8 dB the other."""


def silence(milliseconds: float) -> Pcm:
    """Nothing."""
    return np.zeros(round(milliseconds * 8), np.int16)


def pressed(
    digit: str,
    milliseconds: float,
    levels: tuple[float, float] = (-8, -8),
    *,
    off: tuple[float, float] = (0.0, 0.0),
    before: float = 0.0,
) -> Pcm:
    """A key's two tones, `off` by so much of their frequencies, after `before` ms of silence."""
    row, keys = next((row, keys) for row, keys in enumerate(KEYPAD) if digit in keys)
    n = np.arange(round(milliseconds * 8))
    low, high = (32124 * 10 ** ((level - 3.17) / 20) for level in levels)
    tones = low * np.sin(2 * np.pi * LOW[row] * (1 + off[0]) * n / 8000)
    tones += high * np.sin(2 * np.pi * HIGH[keys.index(digit)] * (1 + off[1]) * n / 8000 + 1)
    return np.concatenate([silence(before), np.rint(np.clip(tones, -32768, 32767)).astype(np.int16)])


def heard(sounds: Iterable[Pcm]) -> list[str]:
    """The digits that are found in each sound: all at once, on a leg each, through packets and jitter buffers."""
    sounds = list(sounds)
    rig = Rig(max_calls=len(sounds), last_port=12100 + 2 * len(sounds))
    ports = [rig.open(str(at)) for at in range(len(sounds))]
    frames = []
    for at, sound in enumerate(sounds):
        rig.plane.seek_tones(str(at))
        frames.append(np.pad(sound, (0, -len(sound) % 160)).reshape(-1, 160))
    streams = [Stream(ssrc=at + 1) for at in range(len(sounds))]
    for tick in range(max(map(len, frames)) + 12):
        for port, stream, sound in zip(ports, streams, frames, strict=True):
            rig.ports.arrive(port, stream.packet(sound[tick] if tick < len(sound) else silence(20)))
        rig.tick()
    return ["".join(_digits(rig, str(at))) for at in range(len(sounds))]


def _digits(rig: Rig, leg: str) -> list[str]:
    facts = rig.told(leg)
    assert all(isinstance(fact, DigitPressed) and fact.inband for fact in facts)
    return [fact.digit for fact in facts if isinstance(fact, DigitPressed)]


@pytest.mark.parametrize("off", [(0.0, 0.0), (0.015, 0.015), (-0.015, 0.015), (-0.015, -0.015)])
def test_forty_milliseconds_are_a_digit(off: tuple[float, float]) -> None:
    """Every key, at any moment, from -25 to 0 dBm0, with the twists that lines have, 1.5 % off either way: once."""
    some = LEVELS if off == (0.0, 0.0) else LEVELS[:4]
    cases = [(key, levels, before) for key, levels, before in product(DIGITS, some, PHASES[::2])]
    sounds = [pressed(key, 40, levels, off=off, before=before) for key, levels, before in cases]
    assert heard(sounds) == [key for key, *_ in cases]


def test_long_presses_are_one_digit() -> None:
    """However long the key is held."""
    assert heard(pressed(key, 700) for key in DIGITS) == list(DIGITS)


def test_short_sounds_are_no_digits() -> None:
    """Up to 24 ms, at any moment and level."""
    cases = product(DIGITS, (10, 20, 23, 24), LEVELS[:3], PHASES[::2])
    sounds = [pressed(key, length, levels, before=before) for key, length, levels, before in cases]
    assert set(heard(sounds)) == {""}


@pytest.mark.parametrize(("gap", "digits"), [(10, "5"), (15, "5"), (20, "5"), (40, "55"), (60, "55")])
def test_breaks(gap: float, digits: str) -> None:
    """A break of 20 ms belongs to the press, one of 40 ms parts two."""
    sounds = [np.concatenate([pressed("5", 60, before=at), silence(gap), pressed("5", 60)]) for at in PHASES]
    assert set(heard(sounds)) == {digits}


def test_another_key_without_a_pause() -> None:
    """A different digit needs none."""
    assert heard([np.concatenate([pressed(key, 60) for key in "1590"])]) == ["1590"]


@pytest.mark.parametrize("off", [(0.035, 0.0), (0.0, 0.035), (0.0, -0.035), (-0.035, -0.035)])
def test_other_frequencies(off: tuple[float, float]) -> None:
    """3.5 % off in the high group is none of ours; in the low one, where 3.5 % is 24 Hz, it may be."""
    sounds = [pressed(key, 100, off=off) for key in DIGITS]
    found = heard(sounds)
    assert set(found) == {""} if off[1] else set(found) <= {"", *DIGITS}


@pytest.mark.parametrize("levels", [(-8, -1), (-8, -22), (-34, -34), (-8, -60), (-60, -8)])
def test_levels_that_are_none(levels: tuple[float, float]) -> None:
    """Too faint, too steep, or one tone alone."""
    assert set(heard(pressed(key, 100, levels) for key in DIGITS)) == {""}


def test_noise_is_no_digit_and_hides_none() -> None:
    """Four minutes of white noise, soft and loud; and 50 ms of each key at 15 dB over it."""
    rng = np.random.default_rng(1)
    noise = [rng.normal(0, level, 8000 * 60).astype(np.int16) for level in (300, 1000, 3000, 8000)]
    assert heard(noise) == [""] * 4
    sounds = [pressed(key, 50, before=at) for key in DIGITS for at in (0, 7.5)]
    level = 32124 * 10 ** ((-8 - 3.17 - 15) / 20)
    assert heard(s + rng.normal(0, level, len(s)).astype(np.int16) for s in sounds) == [d for d in DIGITS for _ in "12"]


FORMANTS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
    "uh": (640, 1190, 2390),
}
"""The resonances of vowels, in Hz (Peterson and Barney)."""


def vowel(name: str, pitch: float, seconds: float = 0.6) -> Pcm:
    """A voice: every overtone of a pitch that moves a little, as loud as the vowel's resonances make it."""
    times = np.arange(round(seconds * 8000)) / 8000
    phase = 2 * np.pi * pitch * (times + 0.02 * times**2)
    sung = np.zeros(len(times))
    for number in range(1, int(3400 / pitch)):
        frequency = number * pitch
        gain = sum(
            1 / (1 + ((frequency - formant) / 60) ** 2) ** 0.5 / (1 + at) for at, formant in enumerate(FORMANTS[name])
        )
        sung += gain * np.sin(number * phase + number**2)
    pcm: Pcm = np.rint(sung / np.abs(sung).max() * 16000).astype(np.int16)
    return pcm


def test_speech_is_no_digit() -> None:
    """A recorded voice, vowels of men, women and children, a buzz; and the tones that scripted voices speak in."""
    recorded = read_wav(ROOT / "tests/golden/speech/hello-8k.wav")
    sung = [vowel(name, pitch) for name in FORMANTS for pitch in range(80, 360, 7)]
    words = spoken("the quick brown fox jumps over the lazy dog 0123456789 THE QUICK BROWN FOX")
    assert set(heard([recorded, voice(5.0), words, *sung])) == {""}


def test_a_lost_packet_in_a_press() -> None:
    """What replaces it is still the tone: one digit."""
    rig = Rig()
    port = rig.open()
    rig.plane.seek_tones("a")
    stream = Stream()
    for at, frame in enumerate(np.pad(pressed("7", 200), (0, 1600)).reshape(-1, 160)):
        if at == 4:
            stream.skip()
        else:
            rig.ports.arrive(port, stream.packet(frame))
        rig.tick()
    rig.tick(5)
    assert _digits(rig, "a") == ["7"]


def test_only_who_asked_is_listened_to() -> None:
    """Nothing is told of the others, of a leg that has closed, or of one that has been muted."""
    rig = Rig()
    ports = {leg: rig.open(leg) for leg in ("asks", "does not", "muted")}
    for leg in ("asks", "muted"):
        rig.plane.seek_tones(leg)
    rig.plane.mute("muted", heard=True, played=False)
    streams = {leg: Stream() for leg in ports}
    for frame in np.pad(pressed("3", 100), (0, 1600)).reshape(-1, 160):
        for leg, port in ports.items():
            rig.ports.arrive(port, streams[leg].packet(frame))
        rig.tick()
    assert {leg: _digits(rig, leg) for leg in ports} == {"asks": ["3"], "does not": [], "muted": []}
    rig.plane.close_leg("asks")
    again = rig.open("next")
    for frame in np.pad(pressed("4", 100), (0, 1600)).reshape(-1, 160):
        rig.ports.arrive(again, Stream().packet(frame))
        rig.tick()
    assert rig.told("next") == []


def test_our_own_tones_are_found() -> None:
    """What the plane presses in-band is what it hears."""
    rig = Rig()
    here, there = rig.open("here"), rig.open("there")
    rig.plane.seek_tones("there")
    for digit in "*0#":
        rig.plane.press("here", digit, duration=60, gap=60, inband=True)
    stream = Stream()
    for _ in range(30):
        rig.tick()
        for packet in rig.rtp(here):
            rig.ports.arrive(there, stream.packet(PCMU.decode(np.frombuffer(packet.payload, np.uint8))))
    assert _digits(rig, "there") == ["*", "0", "#"]


def test_events_are_told_as_ever() -> None:
    """Looking for tones changes nothing for RFC 4733."""
    rig = Rig()
    port = rig.open()
    rig.plane.seek_tones("a")
    stream = Stream()
    for packet in digit_packets("9"):
        data = RtpPacket(
            payload_type=101, sequence=stream.sequence, timestamp=5000, ssrc=stream.ssrc, payload=packet.payload
        )
        stream.sequence += 1
        rig.ports.arrive(port, build_rtp(data))
        rig.tick()
    assert [(fact.digit, fact.inband) for fact in rig.told() if isinstance(fact, DigitPressed)] == [("9", False)]
