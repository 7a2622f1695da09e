"""Whole calls that are recorded: who is on which channel, when, in which file, and what becomes of a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import trio

from rustpbx.media.events import Direction, Pcm
from rustpbx.media.recording.shell.recorder import Recorder
from rustpbx.settings import Config, RecordingConfig
from rustpbx.testing.speech import tone
from tests.kit.house import House, server_config
from tests.test_calls import DIAL, answered, over, quiet_house

TTS = {"provider": "scripted"}


def recording_in(folder: Path, **changes: Any) -> Config:
    """A server that records there."""
    return server_config(recorder_path=str(folder), **changes)


def recorder_of(house: House) -> Recorder:
    """The recorder of its server."""
    assert house.server.recordings is not None
    return house.server.recordings.recorder


def files_in(folder: Path) -> list[Path]:
    """The recordings below it."""
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".jsonl"]


def only_file(folder: Path) -> Path:
    """The one recording below it."""
    (path,) = files_in(folder)
    return path


def decoded(path: Path) -> tuple[int, Pcm]:
    """The rate of a recording, and its samples (n, 2)."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        resampler = av.AudioResampler("s16", "stereo", stream.rate)
        frames = [done for frame in container.decode(stream) for done in resampler.resample(frame)]
        frames += resampler.resample(None)
        return stream.rate, np.concatenate([frame.to_ndarray()[0] for frame in frames]).reshape(-1, 2)


def loud(pcm: Pcm, rate: int) -> tuple[float, float]:
    """When the loud part of a channel begins and ends, in seconds."""
    places = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 1500)
    return float(places[0]) / rate, float(places[-1]) / rate


@pytest.mark.parametrize("kind", ["wav", "mp3", "ogg", "flac"])
async def test_left_is_the_caller_and_right_is_what_we_say(kind: str, tmp_path: Path) -> None:
    """Each format: two channels, each with its own voice at its time; the encoded file alone is left."""
    async with quiet_house(config=recording_in(tmp_path, recorder_format=kind)) as house:
        async with answered(house, recorder={}, tts=TTS) as (call, agent):
            await call.say(tone(1.0))
            await trio.sleep(1.0)
            await agent.send("tts", text="a text of twenty let", endOfStream=True)
            await agent.until("trackEnd")
            await agent.send("hangup")
            await over(agent)
        await recorder_of(house).finished()
    path = only_file(tmp_path)
    assert path.suffix == f".{kind}"
    rate, pcm = decoded(path)
    assert rate == (48000 if kind == "ogg" else 16000)
    heard, said = loud(pcm[:, 0], rate), loud(pcm[:, 1], rate)
    assert heard[1] - heard[0] == pytest.approx(1.0, abs=0.03)
    assert said[0] > heard[1] + 0.9
    assert said[1] - said[0] == pytest.approx(1.0, abs=0.05)
    assert len(pcm) / rate == pytest.approx(said[1], abs=0.3)


async def test_mute_is_silence_in_the_recording(tmp_path: Path) -> None:
    """Who is muted is not heard, and not recorded; both channels go on in time."""
    async with (
        quiet_house(config=recording_in(tmp_path)) as house,
        answered(house, recorder={}, tts=TTS) as (call, agent),
    ):
        await agent.send("mute", trackId=agent.events[0]["trackId"])
        await trio.sleep(0.1)
        await call.say(tone(1.0))
        await trio.sleep(0.2)  # the end of it waits in the jitter buffer
        await agent.send("unmute", trackId=agent.events[0]["trackId"])
        await trio.sleep(0.5)
        await call.say(tone(0.5))
        await trio.sleep(0.2)
        await agent.send("hangup")
        await over(agent)
    _, pcm = decoded(only_file(tmp_path))
    begin, end = loud(pcm[:, 0], 16000)
    assert begin > 1.4
    assert end - begin == pytest.approx(0.5, abs=0.05)


async def test_a_hold_is_a_silence_of_its_length(tmp_path: Path) -> None:
    """What is said before and after ten seconds of hold lies as far apart as it was."""
    async with quiet_house(config=recording_in(tmp_path)) as house, answered(house, recorder={}) as (call, agent):
        await call.say(tone(0.5))
        before = trio.current_time()
        await call.re_invite(direction=Direction.INACTIVE)
        await trio.sleep(10)
        await call.re_invite(direction=Direction.SENDRECV)
        await trio.sleep(0.5)
        after = trio.current_time()
        await call.say(tone(0.5))
        await agent.send("hangup")
        await over(agent)
    _, pcm = decoded(only_file(tmp_path))
    places = np.flatnonzero(np.abs(pcm[:, 0].astype(np.int32)) > 1500) / 16000
    pause = np.diff(places).max()
    assert pause == pytest.approx(after - before, abs=0.1)


async def test_a_recording_begins_with_ringing(tmp_path: Path) -> None:
    """Early media is in it, under the name that `ringing` gave; the name in `accept` comes too late."""
    async with quiet_house(config=recording_in(tmp_path)) as house:
        call = await house.phone.dial(DIAL)
        async with house.incoming() as (agent, _):
            await agent.send("ringing", earlyMedia=True, recorder={"recorderFile": "early/{id}", "samplerate": 8000})
            await agent.send("tts", text="please wait a little", endOfStream=True, option=TTS)
            await agent.until("trackEnd")
            await agent.send("accept", option={"recorder": {"recorderFile": "late"}})
            await call.answered()
            await trio.sleep(1)
            await agent.send("hangup")
            await over(agent)
    path = only_file(tmp_path)
    assert path == tmp_path / "early" / f"{agent.events[0]['trackId']}.wav"
    rate, pcm = decoded(path)
    assert rate == 8000
    begin, end = loud(pcm[:, 1], rate)
    assert end - begin == pytest.approx(1.0, abs=0.05)
    assert len(pcm) / rate > end + 0.9


async def test_a_full_disk_is_an_error_and_the_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One `error` of the recorder, what was written can be played, and the agent is heard to the end."""
    real, room = os.pwrite, 64_000

    def pwrite(handle: int, data: memoryview, offset: int) -> int:
        if offset + len(data) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    async with quiet_house(config=recording_in(tmp_path)) as house:
        async with answered(house, recorder={}, tts=TTS) as (_, agent):
            error = await agent.until("error")
            await agent.send("tts", text="still here", endOfStream=True)
            await agent.until("trackEnd")
            await agent.send("hangup")
            await over(agent)
        await recorder_of(house).finished()
    assert error["sender"] == "recorder"
    assert "No space left on device" in error["error"]
    assert agent.names.count("error") == 1
    _, pcm = decoded(only_file(tmp_path))
    assert 0.5 < len(pcm) / 16000 <= 1.0


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"recorderFile": "/etc/cron.d/x"}, "not a name below"),
        ({"recorderFile": "../../x"}, "not a name below"),
        ({"format": "wma"}, "none of wav, mp3, ogg, flac"),
        ({"samplerate": 96000}, "8000 to 48000"),
    ],
)
async def test_what_cannot_be_recorded_is_an_error(option: dict[str, object], problem: str, tmp_path: Path) -> None:
    """A bad name, format or rate: one `error`, no file, and the call goes on."""
    async with quiet_house(config=recording_in(tmp_path)) as house, answered(house, recorder=option) as (_, agent):
        error = await agent.until("error")
        await agent.send("hangup")
        await over(agent)
    assert error["sender"] == "recorder"
    assert problem in error["error"]
    assert files_in(tmp_path) == []


async def test_the_configuration_may_record_every_call(tmp_path: Path) -> None:
    """`auto_start` records without being asked, in its rate and by its pattern; a URL's id cannot lead out."""
    table = RecordingConfig(auto_start=True, samplerate=8000, filename_pattern="all/{id}")
    async with quiet_house(config=recording_in(tmp_path, recording=table)) as house:
        async with house.agent("/call/sip?id=..%2F..%2Fx") as agent:
            await agent.send("invite", option={"callee": house.phone.uri})
            call = await house.phone.ring()
            call.answer()
            await agent.until("answer")
            await trio.sleep(1)
            await agent.send("hangup")
            await over(agent)
        await recorder_of(house).finished()
    path = only_file(tmp_path)
    assert path == tmp_path / "all" / "_._.._x.wav"
    rate, pcm = decoded(path)
    assert rate == 8000
    assert len(pcm) / rate == pytest.approx(1.0, abs=0.1)


async def test_a_disabled_recorder_says_so(tmp_path: Path) -> None:
    """`enabled = false` wins over what an agent asks for."""
    config = recording_in(tmp_path, recording=RecordingConfig(enabled=False, auto_start=True))
    async with quiet_house(config=config) as house, answered(house, recorder={}) as (_, agent):
        error = await agent.until("error")
        await agent.send("hangup")
        await over(agent)
    assert (error["sender"], error["error"]) == ("recorder", "recording is switched off on this server")
