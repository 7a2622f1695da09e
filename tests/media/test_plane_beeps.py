"""Beeps in the audio: which tones are one, and what never is."""

from __future__ import annotations

import numpy as np
import pytest

from rustpbx.media.dtmf import HIGH, LOW
from rustpbx.media.events import BeepHeard, Pcm
from rustpbx.media.plane.beeps import find_tones
from tests.media.plane_rig import Rig, Stream, tone, voice

QUIET: Pcm = np.zeros(1600, np.int16)


def heard(sound: Pcm) -> list[tuple[float, float]]:
    """The beeps in a sound, in ms from its begin on."""
    rig = Rig()
    port, stream = rig.open(), Stream()
    rig.plane.seek_beeps("a")
    begin = rig.clock.time
    for at in range(0, sound.size // 160 * 160, 160):
        rig.ports.arrive(port, stream.packet(sound[at : at + 160]))
        rig.tick()
    rig.tick(5)
    facts = rig.told()
    beeps = [fact for fact in facts if isinstance(fact, BeepHeard)]
    assert len(beeps) == len(facts)
    return [(round(1000 * (fact.started_at - begin)), round(1000 * (fact.at - begin))) for fact in beeps]


@pytest.mark.parametrize("hertz", [400.0, 440.0, 1000.0, 1400.0, 2000.0])
def test_a_beep_is_told_with_its_times_as_it_ends(hertz: float) -> None:
    """Four tenths of a second of any of the usual frequencies."""
    assert heard(np.concatenate([QUIET, tone(0.4, hertz=hertz), QUIET])) == [(200, 600)]


def test_a_beep_stands_out_of_faint_noise() -> None:
    """30 dB below it."""
    sound = np.concatenate([QUIET, tone(0.4, hertz=1000.0), QUIET])
    noise = np.random.default_rng(1).normal(scale=200, size=sound.size)
    assert len(heard((sound + noise).astype(np.int16))) == 1


@pytest.mark.parametrize(
    "sound",
    [
        tone(0.1, hertz=1000.0),
        tone(3.0, hertz=1000.0),
        tone(0.5, hertz=150.0),
        tone(0.5, hertz=3000.0),
        tone(0.5, hertz=1000.0, level=100.0),
        voice(2.0),
        tone(0.5, hertz=LOW[0], level=4000.0) + tone(0.5, hertz=HIGH[0], level=4000.0),
        np.concatenate([tone(0.06, hertz=hertz) for hertz in (500.0, 600.0, 700.0, 800.0, 900.0, 1000.0)]),
        np.random.default_rng(2).normal(scale=3000, size=16000).astype(np.int16),
    ],
    ids=["short", "endless", "low", "high", "faint", "voice", "dtmf", "melody", "noise"],
)
def test_other_sounds_are_none(sound: Pcm) -> None:
    """Clicks, dial tones, voices, keys, tunes and noise."""
    assert heard(np.concatenate([QUIET, sound, QUIET])) == []


def test_tones_are_found_at_their_frequency() -> None:
    """Within 10 Hz, row by row; what is no tone is 0."""
    rows = np.stack([tone(0.02, hertz=700.0), np.zeros(160, np.int16), voice(0.02), tone(0.02, hertz=1333.0)])
    found = find_tones(rows)
    assert list(found[1:3]) == [0, 0]
    np.testing.assert_allclose(found[[0, 3]], [700, 1333], atol=10)


def test_nothing_is_told_of_a_leg_that_is_closed() -> None:
    """In the middle of a beep: the slot's next leg hears none of it."""
    rig = Rig(max_calls=1)
    port, stream = rig.open(), Stream()
    rig.plane.seek_beeps("a")
    for _ in range(15):
        rig.ports.arrive(port, stream.packet(tone(0.02, hertz=1000.0)))
        rig.tick()
    rig.plane.close_leg("a")
    rig.open("b")
    rig.plane.seek_beeps("b")
    rig.tick(5)
    assert (rig.told("a"), rig.told("b")) == ([], [])
