"""`Fetcher`: an audio URL into samples at the wanted rate, under the outbound policy and through a disk cache.

The download runs over the guarded client, the decoding in the `decode` workers, file work in threads. Calls that ask
for the same URL at the same time share one download.
"""

from __future__ import annotations

import hashlib
import urllib.parse
from functools import partial
from pathlib import Path

import attrs
import httpx
import numpy as np
import trio

from rustpbx.errors import MediaError, PolicyError, RustpbxError
from rustpbx.media.decode import decode
from rustpbx.media.events import Pcm
from rustpbx.outbound import OutboundPolicy, download
from rustpbx.shell.offload import Offload
from rustpbx.shell.store import FileStore

POOL = "decode"
MAX_RUNNING = 64
"""Downloads at the same time; more of them wait."""


@attrs.define(eq=False)
class _Running:
    """One download that several calls may wait for; the call that came first does the work."""

    done: trio.Event = attrs.field(factory=trio.Event)
    pcm: Pcm | None = None
    error: MediaError | PolicyError | None = None


class Fetcher:
    """Downloads and decodes audio, and keeps it in `cache`, if there is one.

    `local_dir` is the only directory below which local paths are played; None refuses them all.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        offload: Offload,
        cache: FileStore | None = None,
        policy: OutboundPolicy | None = None,
        *,
        local_dir: Path | str | None = None,
    ) -> None:
        self._client = client
        self._offload = offload
        self._policy = policy or OutboundPolicy()
        self._cache = cache
        self._local = Path(local_dir) if local_dir is not None else None
        self._running: dict[tuple[str, int], _Running] = {}
        self._limiter = trio.Semaphore(MAX_RUNNING)
        self.hits = 0
        self.misses = 0

    async def fetch(self, url: str, rate: int) -> Pcm:
        """The audio behind `url` as mono samples at `rate` Hz.

        Raises `PolicyError` when the URL may not be fetched, `MediaError` when it cannot be, or is no audio.
        """
        while True:
            running = self._running.get((url, rate))
            if running is None:
                return await self._lead(url, rate)
            await running.done.wait()
            if running.error is not None:
                raise type(running.error)(*running.error.args)
            if running.pcm is not None:
                return running.pcm
            # The call that led the download was cancelled: the next one leads.

    async def _lead(self, url: str, rate: int) -> Pcm:
        running = self._running[url, rate] = _Running()
        try:
            async with self._limiter:
                running.pcm = await self._get(url, rate)
        except (MediaError, PolicyError) as error:
            running.error = error
            raise
        finally:
            del self._running[url, rate]
            running.done.set()
        return running.pcm

    async def _get(self, url: str, rate: int) -> Pcm:
        if "://" not in url:
            return await self._play_file(url, rate)
        key = cache_key(url, rate)
        found = None if self._cache is None else await self._cache.load(key)
        if found is not None:
            self.hits += 1
            return np.frombuffer(found[: len(found) // 2 * 2], "<i2").astype(np.int16, copy=False)
        self.misses += 1
        pcm = await self._download(url, rate)
        if self._cache is not None:
            await self._cache.save(key, pcm.astype("<i2", copy=False).tobytes())
        return pcm

    async def _download(self, url: str, rate: int) -> Pcm:
        try:
            got = await download(self._client, url, self._policy)
        except httpx.HTTPError as error:
            raise MediaError(f"{url}: {error or type(error).__name__}") from error
        if got.status != httpx.codes.OK:
            raise MediaError(f"{url}: HTTP status {got.status}")
        name = urllib.parse.urlsplit(url).path
        return await self._decode(url, got.body, rate, got.content_type, name)

    async def _decode(self, source: str, data: bytes, rate: int, content_type: str, name: str) -> Pcm:
        content = np.frombuffer(data, np.uint8)  # an array goes to the worker without being copied into the pickle
        try:
            return await self._offload.worker(POOL, decode, content, rate, content_type, name)
        except RustpbxError as error:
            raise MediaError(f"{source}: {error}") from error

    async def _play_file(self, path: str, rate: int) -> Pcm:
        if self._local is None:
            raise PolicyError(f"{path}: local files may not be played (no directory is configured for them)")
        data = await self._offload.thread(partial(_read_below, self._local, path, self._policy.max_bytes))
        return await self._decode(path, data, rate, "", path)


def cache_key(url: str, rate: int) -> str:
    """The cache's name for a URL at a rate: SHA-256, hexadecimal."""
    return hashlib.sha256(f"{url}\n{rate}".encode()).hexdigest()


def _read_below(directory: Path, path: str, limit: int) -> bytes:
    """A local file's bytes. Raises `PolicyError` for a path out of `directory`, `MediaError` if it is unreadable."""
    root = directory.resolve()
    wanted = (root / path).resolve()
    if not wanted.is_relative_to(root):
        raise PolicyError(f"{path}: only files below the configured directory may be played")
    try:
        if wanted.stat().st_size > limit:
            raise PolicyError(f"{path}: the file is larger than {limit} bytes")
        return wanted.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: {error.strerror}") from error
