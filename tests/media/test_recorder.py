"""The recorder beside a plane that is ticked by hand: both channels in time."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import trio

from rustpbx.media.events import Pcm
from rustpbx.media.recording.shell.recorder import Recorder, RecordingWish
from rustpbx.shell.offload import InlineOffload
from tests.media.plane_rig import Rig, Stream, tone

PERIOD = 1000
"""Ticks from click to click: 20 s."""

FASTER = 2500
"""Once in so many ticks the phone sends one packet more: its clock is 400 ppm fast, worse than any phone's."""


def clicks(pcm: Pcm) -> list[float]:
    """When each loud part of a channel at 16 kHz begins, in seconds."""
    places = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 2000) / 16000
    return [] if not places.size else [float(places[0]), *map(float, places[1:][np.diff(places) > 5])]


async def test_clicks_are_at_one_time_on_both_channels(tmp_path: Path) -> None:
    """A phone whose clock is fast, and we, click at the same moments: a frame apart at most, at the right times."""
    rig, stream = Rig(), Stream()
    port = rig.open()
    click = tone(0.04)
    recorder = Recorder(rig.plane, InlineOffload(), rig.clock, str(tmp_path))
    async with trio.open_nursery() as nursery, rig.plane.source("a", 1) as source:
        await nursery.start(recorder.run)
        recording = recorder.record(RecordingWish(leg="a", stem="x", kind="wav"), lambda _: None)
        silence: Pcm = np.zeros(160, np.int16)
        for tick in range(4 * PERIOD):
            heard = click[(tick % PERIOD) * 160 :][:160] if tick % PERIOD < 2 and tick >= PERIOD else silence
            if tick >= PERIOD and tick % PERIOD == 0:
                await source.write(click)
            rig.ports.arrive(port, stream.packet(heard))
            if tick % FASTER == FASTER // 2:
                rig.ports.arrive(port, stream.packet(silence))
            rig.tick()
            if tick % 10 == 0:
                await trio.sleep(0.1)
        rig.plane.close_leg("a")
        rig.clock.time += 1
        await recording.done.wait()
        nursery.cancel_scope.cancel()
    pcm = samples_of(tmp_path / "x.wav")
    left, right = clicks(pcm[:, 0]), clicks(pcm[:, 1])
    assert len(left) == len(right) == 3
    # The jitter buffer may keep one frame in reserve, which its delay does not count.
    assert np.abs(np.subtract(left, right)).max() < 0.021
    assert np.abs(np.diff(right) - 20).max(initial=0) < 0.001
    assert len(pcm) / 16000 == pytest.approx(80, abs=0.02)


def samples_of(path: Path) -> Pcm:
    """A WAV file's samples (n, 2)."""
    with wave.open(str(path)) as file:
        pcm: Pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        return pcm
