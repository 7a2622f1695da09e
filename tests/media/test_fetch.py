"""Audio files by URL: what is fetched, what is decoded, what is refused, what is kept."""

from __future__ import annotations

import io
import os
import ssl
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rustpbx.errors import MediaError, PolicyError
from rustpbx.media.decode import container_of, decode
from rustpbx.media.events import Pcm
from rustpbx.media.fetch import Fetcher, cache_key
from rustpbx.outbound import OutboundPolicy, open_guarded_client
from rustpbx.shell.offload import InlineOffload
from rustpbx.shell.store import LIMIT, FileStore
from rustpbx.shell.workers import open_workers
from tests.kit.sounds import encode, pitch, tone
from tests.kit.web import Web, page

POLICY = OutboundPolicy(max_bytes=1_000_000)
URL = "http://8.8.8.8/prompt.wav"
HTML = b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>"


def wav(pcm: Pcm, rate: int) -> bytes:
    """A plain wav file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(pcm.tobytes())
    return file.getvalue()


def files(folder: Path) -> set[str]:
    """The names of what is in a folder."""
    return {path.name for path in folder.iterdir()}


BEEP = tone(8000)
WAV = wav(BEEP, 8000)


@asynccontextmanager
async def fetching(
    cache: Path | None = None, limit: int = LIMIT, **options: object
) -> AsyncIterator[tuple[Web, Fetcher]]:
    """A web and a fetcher in it that does everything inline."""
    store = None if cache is None else FileStore(InlineOffload(), cache, limit)
    async with trio.open_nursery() as nursery:
        web = Web(nursery)
        async with open_guarded_client(web, POLICY, ssl_context=ssl.create_default_context()) as client:
            yield web, Fetcher(client, InlineOffload(), store, POLICY, **options)  # type: ignore[arg-type] # the test's own
        nursery.cancel_scope.cancel()


# -- decoding -------------------------------------------------------------------------------------------------------


def test_a_wav_at_the_wanted_rate_is_left_alone() -> None:
    """The samples of a wav file come out as they are."""
    assert np.array_equal(decode(WAV, 8000), BEEP)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize(
    ("container", "codec", "source"),
    [
        ("wav", "pcm_s16le", 11025),
        ("wav", "pcm_s16le", 48000),
        ("mp3", "libmp3lame", 22050),
        ("mp3", "libmp3lame", 44100),
        ("mp3", "libmp3lame", 48000),
        ("flac", "flac", 44100),
        ("ogg", "libopus", 48000),
    ],
)
def test_any_rate_and_two_channels(container: str, codec: str, source: int, rate: int) -> None:
    """Stereo of any rate becomes mono at the wanted one: same pitch, same length, half a tone that is on one side."""
    loud, silent = tone(source), np.zeros(source, np.int16)
    pcm = decode(encode(container, codec, source, loud, silent), rate)
    assert pcm.dtype == np.int16
    assert abs(len(pcm) - rate) <= 0.1 * rate
    middle = pcm[rate // 4 : 3 * rate // 4]
    assert abs(pitch(middle, rate) - 440) <= 2
    assert abs(np.abs(middle).max() / (0.25 * 32767) - 1) < 0.1


def test_two_loud_channels_do_not_clip() -> None:
    """What is at full level on both sides is at full level in the middle."""
    loud = tone(8000, level=1.0)
    assert np.abs(decode(encode("wav", "pcm_s16le", 8000, loud, loud), 8000).astype(int) - loud).max() <= 1


@pytest.mark.parametrize("kept", [1000, 4001])
def test_a_truncated_wav_plays_what_is_there(kept: int) -> None:
    """A wav that breaks off, in the middle of a sample too, gives the samples that it has."""
    samples = (kept - 44) // 2
    assert np.array_equal(decode(WAV[:kept], 8000), BEEP[:samples])


def test_a_truncated_mp3_plays_what_is_there() -> None:
    """An mp3 that breaks off gives the frames that it has."""
    half = encode("mp3", "libmp3lame", 16000, tone(16000, 2.0))
    pcm = decode(half[: len(half) // 2], 16000)
    assert 0.7 * 16000 <= len(pcm) <= 1.2 * 16000


def test_long_audio_is_cut() -> None:
    """The cap on duration holds whatever the file claims."""
    assert np.array_equal(decode(WAV, 8000, max_seconds=0.5), BEEP[:4000])


@pytest.mark.parametrize(
    ("data", "content_type", "name", "problem"),
    [
        (b"", "audio/wav", "a.wav", "not audio: the file is empty"),
        (HTML, "audio/mpeg", "a.mp3", "not audio: looks like HTML"),
        (b"\n  <html>", "", "a.wav", "not audio: looks like HTML"),
        (WAV[:44], "audio/wav", "a.wav", "a wav file that cannot be decoded: it has no samples"),
        (WAV[:20], "audio/wav", "a.wav", "a wav file that cannot be decoded: "),
        (b"#EXTM3U\nfile:///etc/passwd\n", "audio/mpeg", "a.mp3", "a mp3 file that cannot be decoded: "),
        (b'{"error": 1}', "application/json", "a", "not audio that can be played (Content-Type application/json, "),
        (bytes(1000), "", "a.bin", "not audio that can be played (Content-Type none, first bytes "),
        (wav(tone(8000), 7), "", "", "a wav file that cannot be decoded: 7 Hz, 1 channels"),
        (wav(tone(8000), 400_000_000), "", "", "a wav file that cannot be decoded: 400000000 Hz, 1 channels"),
        (b"OggS" + bytes(300), "", "", "a ogg file that cannot be decoded: "),
    ],
)
def test_what_is_not_audio_is_named(data: bytes, content_type: str, name: str, problem: str) -> None:
    """Each thing that is no audio file says what it is instead."""
    with pytest.raises(MediaError) as caught:
        decode(data, 8000, content_type, name)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("head", "content_type", "name", "container"),
    [
        (WAV[:64], "audio/mpeg", "a.mp3", "wav"),
        (b"ID3\x04\0\0", "text/plain", "a.wav", "mp3"),
        (b"\xff\xfb\x90\x64", "", "", "mp3"),
        (b"\0\0\0\0", "audio/mpeg; charset=x", "a.wav", "mp3"),
        (b"\0\0\0\0", "application/octet-stream", "/b/a.MP3", "mp3"),
        (b"fLaC\0", "", "", "flac"),
    ],
)
def test_the_container_is_chosen(head: bytes, content_type: str, name: str, container: str) -> None:
    """Content first, then Content-Type, then the extension."""
    assert container_of(head, content_type, name) == container


# -- fetching -------------------------------------------------------------------------------------------------------


async def test_a_url_becomes_samples() -> None:
    """One GET, decoded at the rate asked for."""
    async with fetching() as (web, fetcher):
        web.serve("8.8.8.8", 80, page(WAV, "Content-Type: audio/wav"))
        assert np.array_equal(await fetcher.fetch(URL, 8000), BEEP)
    assert web.asked[0].startswith("GET /prompt.wav HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (page(b"gone", status="404 Not Found"), f"{URL}: HTTP status 404"),
        (page(WAV, status="206 Partial Content"), f"{URL}: HTTP status 206"),
        (page(HTML, "Content-Type: audio/mpeg"), f"{URL}: not audio: looks like HTML"),
        (page(WAV, length=len(WAV) + 1), f"{URL}: peer closed connection without sending complete message body"),
        (b"nonsense\r\n\r\n", f"{URL}: "),
    ],
)
async def test_what_cannot_be_had_is_a_media_error(response: bytes, problem: str) -> None:
    """The error names the URL and what was wrong."""
    async with fetching() as (web, fetcher):
        web.serve("8.8.8.8", 80, response)
        with pytest.raises(MediaError) as caught:
            await fetcher.fetch(URL, 8000)
    assert str(caught.value).startswith(problem)


async def test_nobody_there_is_a_media_error() -> None:
    """A refused connection names the URL too."""
    async with fetching() as (_, fetcher):
        with pytest.raises(MediaError, match=r"^http://8.8.8.8/prompt.wav: 8.8.8.8:80 refuses$"):
            await fetcher.fetch(URL, 8000)


async def test_the_policy_holds() -> None:
    """Private addresses, other schemes, too large files: refused as the policy says."""
    async with fetching() as (web, fetcher):
        web.serve("8.8.8.8", 80, page(bytes(POLICY.max_bytes + 1)))
        for url, problem in [
            ("http://192.168.0.1/a.wav", "192.168.0.1 is a private address: not allowed"),
            ("file:///etc/passwd", "file scheme: only http and https URLs are allowed"),
            (URL, "the response is larger than 1000000 bytes"),
        ]:
            with pytest.raises(PolicyError) as caught:
                await fetcher.fetch(url, 8000)
            assert str(caught.value) == problem


async def test_local_files_need_a_directory(tmp_path: Path) -> None:
    """A local path is refused unless a directory is configured, and never leads out of it."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "beep.wav").write_bytes(WAV)
    (tmp_path / "secret.wav").write_bytes(WAV)
    (tmp_path / "prompts" / "link.wav").symlink_to(tmp_path / "secret.wav")
    async with fetching() as (_, fetcher):
        with pytest.raises(PolicyError, match=r"^beep.wav: local files may not be played"):
            await fetcher.fetch("beep.wav", 8000)
    async with fetching(local_dir=tmp_path / "prompts") as (_, fetcher):
        assert np.array_equal(await fetcher.fetch("beep.wav", 8000), BEEP)
        for path in ("../secret.wav", "link.wav", "/etc/passwd"):
            with pytest.raises(PolicyError, match="only files below the configured directory may be played"):
                await fetcher.fetch(path, 8000)
        with pytest.raises(MediaError, match=r"^none.wav: No such file or directory$"):
            await fetcher.fetch("none.wav", 8000)


# -- the cache ------------------------------------------------------------------------------------------------------


async def test_what_was_fetched_is_kept(tmp_path: Path) -> None:
    """The second fetch of a URL asks nobody, in another server too; another rate is another entry."""
    for _ in range(2):
        async with fetching(tmp_path / "cache") as (web, fetcher):
            web.serve("8.8.8.8", 80, page(WAV), page(WAV))
            assert np.array_equal(await fetcher.fetch(URL, 8000), BEEP)
            assert len(await fetcher.fetch(URL, 16000)) == 16000
    assert web.asked == []
    assert (fetcher.hits, fetcher.misses) == (2, 0)
    assert files(tmp_path / "cache") == {f"{cache_key(URL, rate)}.pcm" for rate in (8000, 16000)}


async def test_failures_are_not_kept(tmp_path: Path) -> None:
    """What failed once may succeed the next time."""
    async with fetching(tmp_path) as (web, fetcher):
        web.serve("8.8.8.8", 80, page(HTML), page(WAV))
        with pytest.raises(MediaError):
            await fetcher.fetch(URL, 8000)
        assert np.array_equal(await fetcher.fetch(URL, 8000), BEEP)


async def test_the_cache_is_bounded(tmp_path: Path) -> None:
    """What was used longest ago goes when the cache is full."""
    async with fetching(tmp_path, limit=40_000) as (web, fetcher):
        web.serve("8.8.8.8", 80, *[page(WAV)] * 4)
        urls = [f"{URL}?{number}" for number in range(3)]
        for age, url in enumerate(urls[:2]):
            await fetcher.fetch(url, 8000)
            os.utime(tmp_path / f"{cache_key(url, 8000)}.pcm", (age, age))
        await fetcher.fetch(urls[0], 8000)  # used again, so the other one is older now
        await fetcher.fetch(urls[2], 8000)
    assert files(tmp_path) == {f"{cache_key(url, 8000)}.pcm" for url in (urls[0], urls[2])}


async def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    """Where the directory cannot be made the audio comes all the same."""
    (tmp_path / "file").write_bytes(b"")
    async with fetching(tmp_path / "file" / "cache") as (web, fetcher):
        web.serve("8.8.8.8", 80, page(WAV))
        assert np.array_equal(await fetcher.fetch(URL, 8000), BEEP)


async def test_calls_share_one_download() -> None:
    """Ten calls that ask at once cause one request; a failure reaches them all."""
    got: list[Pcm | str] = []

    async def ask(fetcher: Fetcher, url: str) -> None:
        try:
            got.append(await fetcher.fetch(url, 8000))
        except MediaError as error:
            got.append(str(error))

    async with fetching() as (web, fetcher):
        web.serve("8.8.8.8", 80, page(WAV), page(status="500 Oops"))
        for url in (URL, f"{URL}?2"):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(ask, fetcher, url)
    assert len(web.asked) == 2
    assert all(np.array_equal(pcm, BEEP) for pcm in got[:10])
    assert got[10:] == [f"{URL}?2: HTTP status 500"] * 10


async def test_a_call_that_leaves_takes_no_other_along() -> None:
    """When the call that does the download hangs up, the next one that waits does it."""
    got: list[Pcm] = []

    async def silent(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await trio.sleep_forever()

    async def ask(fetcher: Fetcher) -> None:
        got.append(await fetcher.fetch(URL, 8000))

    async with fetching() as (web, fetcher):
        web.handle("8.8.8.8", 80, silent)
        async with trio.open_nursery() as others, trio.open_nursery() as first:
            first.start_soon(ask, fetcher)
            await wait_all_tasks_blocked()
            others.start_soon(ask, fetcher)
            await wait_all_tasks_blocked()
            web.serve("8.8.8.8", 80, page(WAV))
            first.cancel_scope.cancel()
    assert len(got) == 1
    assert np.array_equal(got[0], BEEP)


@pytest.mark.real_time
async def test_decoding_happens_in_a_worker(tmp_path: Path) -> None:
    """The same through a real worker process and real threads, errors included."""
    async with trio.open_nursery() as nursery, open_workers({"decode": 1}) as workers:
        web = Web(nursery)
        web.serve("8.8.8.8", 80, page(encode("mp3", "libmp3lame", 44100, *[tone(44100)] * 2)), page(HTML))
        async with open_guarded_client(web, POLICY, ssl_context=ssl.create_default_context()) as client:
            fetcher = Fetcher(client, workers, FileStore(workers, tmp_path), POLICY)
            pcm = await fetcher.fetch("http://8.8.8.8/a.mp3", 8000)
            assert abs(pitch(pcm, 8000) - 440) <= 2
            assert np.array_equal(await fetcher.fetch("http://8.8.8.8/a.mp3", 8000), pcm)
            with pytest.raises(MediaError, match=r"^http://8.8.8.8/b.mp3: not audio: looks like HTML$"):
                await fetcher.fetch("http://8.8.8.8/b.mp3", 8000)
