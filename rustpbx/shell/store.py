"""`FileStore`: bytes kept in one directory under names of our own making, up to a bound: the disk side of a cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from rustpbx.shell.offload import Offload

LIMIT = 512 * 1024 * 1024
"""Bytes of a store."""
ROOM = 8
"""A full store is emptied by one part in so many, so that not every file that is added makes it look at all others."""
SUFFIX, PART = ".pcm", ".part"
MAGIC = b"RPX1"
DIGEST = 16
FORGOTTEN = 3600.0
"""Seconds after which a file that was never finished belongs to a program that is gone."""


class FileStore:
    """Files in `directory`, which is made when it is needed; those used longest ago go first when it is full.

    A file is written beside its place and renamed, and carries a digest: what is read is whole, or is not there. A disk
    that cannot be written to costs the cache and nothing else. Several servers may share a directory; each keeps the
    bound by itself.
    """

    def __init__(self, offload: Offload, directory: Path | str, limit: int = LIMIT) -> None:
        self._offload = offload
        self._directory = Path(directory)
        self._limit = limit
        self._room = 0  # bytes that surely fit

    async def load(self, name: str) -> bytes | None:
        """What is kept as `name`; None if it is nothing, or damaged."""
        return await self._offload.thread(partial(_load, self.path(name)))

    async def save(self, name: str, data: bytes) -> None:
        """Keep `data` as `name`, in place of what was."""
        size = len(MAGIC) + DIGEST + len(data)
        self._room -= size
        full = self._room < 0
        await self._offload.thread(partial(_save, self.path(name), data))
        if full:
            self._room = await self._offload.thread(partial(_trim, self._directory, self._limit))

    def path(self, name: str) -> Path:
        """The file of `name`, which is letters and digits."""
        return self._directory / f"{name}{SUFFIX}"


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()


def _load(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head, data = content[: len(MAGIC) + DIGEST], memoryview(content)[len(MAGIC) + DIGEST :]
    with contextlib.suppress(OSError):
        if head != MAGIC + _digest(data):
            path.unlink()
            return None
        os.utime(path)  # used now: what was used longest ago goes first
    return bytes(data)


def _save(path: Path, data: bytes) -> None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=PART)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + _digest(data))
                file.write(data)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _trim(directory: Path, limit: int) -> int:
    """Delete what was used longest ago, if all of it is more than `limit` bytes; the bytes that fit then."""
    entries = []
    for path in (*directory.glob(f"*{SUFFIX}"), *directory.glob(f"*{PART}")):
        with contextlib.suppress(OSError):
            stat = path.stat()
            if path.suffix == SUFFIX:
                entries.append((stat.st_mtime, stat.st_size, path))
            elif time.time() - stat.st_mtime > FORGOTTEN:
                path.unlink()
    total = sum(size for _, size, _ in entries)
    if total <= limit:
        return limit - total
    for _, size, path in sorted(entries):
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
        if total <= limit - limit // ROOM:
            break
    return limit - total
