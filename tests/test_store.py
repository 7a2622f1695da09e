"""What is kept on disk: whole or not there, and never more than was allowed."""

from __future__ import annotations

import os
from pathlib import Path

from rustpbx.shell.offload import InlineOffload
from rustpbx.shell.store import DIGEST, FORGOTTEN, MAGIC, FileStore

HEAD = len(MAGIC) + DIGEST


def store(directory: Path, limit: int = 10_000) -> FileStore:
    """A store whose work is done at once."""
    return FileStore(InlineOffload(), directory, limit)


def names(directory: Path) -> list[str]:
    """What is in it."""
    return sorted(path.name for path in directory.iterdir())


async def test_what_is_saved_is_loaded_by_another_server_too(tmp_path: Path) -> None:
    """The bytes come back, from a second store as from the first; what was not saved is None."""
    await store(tmp_path / "new").save("a", b"audio")
    assert await store(tmp_path / "new").load("a") == b"audio"
    assert await store(tmp_path / "new").load("b") is None
    assert names(tmp_path / "new") == ["a.pcm"]


async def test_a_damaged_file_is_not_there(tmp_path: Path) -> None:
    """Cut at any byte, or with any byte changed, it is a miss, and gone."""
    kept = store(tmp_path)
    await kept.save("a", b"audio")
    whole = kept.path("a").read_bytes()
    damaged = [whole[:size] for size in range(len(whole))]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for content in damaged:
        kept.path("a").write_bytes(content)
        assert await kept.load("a") is None
        assert names(tmp_path) == []


async def test_the_least_recently_used_go_when_it_is_full(tmp_path: Path) -> None:
    """Of ten files that fit, those loaded last survive; an eighth is made free at once."""
    kept = store(tmp_path, 10 * (HEAD + 100))
    for number in range(10):
        await kept.save(f"n{number}", bytes(100))
        os.utime(kept.path(f"n{number}"), (number, number))
    assert len(names(tmp_path)) == 10
    assert await kept.load("n0") == bytes(100)
    await kept.save("m", bytes(100))
    assert names(tmp_path) == sorted(["m.pcm", "n0.pcm", *(f"n{number}.pcm" for number in range(4, 10))])


async def test_files_that_nobody_finished_are_swept(tmp_path: Path) -> None:
    """A part of a program that is gone is deleted; one that is being written is not."""
    (tmp_path / "old.part").write_bytes(b"half")
    os.utime(tmp_path / "old.part", (FORGOTTEN, FORGOTTEN))
    (tmp_path / "new.part").write_bytes(b"half")
    await store(tmp_path).save("a", b"audio")
    assert names(tmp_path) == ["a.pcm", "new.part"]


async def test_a_directory_that_cannot_be_made_costs_nothing_else(tmp_path: Path) -> None:
    """Saving does nothing, loading finds nothing."""
    (tmp_path / "file").write_bytes(b"")
    kept = store(tmp_path / "file" / "cache")
    await kept.save("a", b"audio")
    assert await kept.load("a") is None
