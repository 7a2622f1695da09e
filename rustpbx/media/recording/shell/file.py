"""A recording's WAV file, written from a thread: whatever kills the server, what was written can be played."""

from __future__ import annotations

import os
from pathlib import Path

from rustpbx.errors import MediaError
from rustpbx.media.recording.names import Format
from rustpbx.media.recording.wav import HEADER, LONGEST, WavHeader

MODE = 0o640
"""Of the files: what was said on the phone is not for everybody on the machine."""

NAMES = 1000
"""Numbers that are tried where a name is taken."""


class RecordingFile:
    """`<folder>/<stem>.wav`, made by the first `write`; `-2`, `-3` ... where a file of that name is kept already.

    All methods block. They raise OSError as the disk does, `MediaError` for a name that leads out of the folder and
    for a recording that is longer than a WAV file can be.
    """

    def __init__(self, folder: str, stem: str, kind: Format, rate: int) -> None:
        self._folder = Path(folder)
        self._stem = stem
        self._kind = kind
        self._rate = rate
        self._handle = -1
        self.made = False
        """Whether there is such a file."""
        self.size = 0
        """Bytes of audio in it."""
        self.path = self._folder / f"{stem}.wav"

    @property
    def target(self) -> Path:
        """Where the encoded recording belongs."""
        return self.path.with_name(f"{self.path.name.removesuffix('.wav')}.{self._kind}")

    def write(self, data: bytes | memoryview) -> None:
        """Append audio, then tell of it in the header."""
        if self._handle < 0:
            self._open()
        elif not data:
            return
        if self.size + len(data) > LONGEST:
            raise MediaError("the recording is as long as a WAV file can be")
        _put(self._handle, data, HEADER + self.size)
        self.size += len(data)
        _put(self._handle, WavHeader(self._rate, self.size).encode(), 0)

    def close(self) -> None:
        """Let go of it, with all of it on the disk. Idempotent."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.parent.resolve().is_relative_to(self._folder.resolve()):
            raise MediaError(f"{self._stem} leads out of the recordings' folder")
        for number in range(1, NAMES):
            end = "" if number == 1 else f"-{number}"
            self.path = self._folder / f"{self._stem}{end}.wav"
            if self._kind != "wav" and self.target.exists():
                continue
            try:
                self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
            except FileExistsError:
                continue
            self.made = True
            return
        raise FileExistsError(f"{NAMES} recordings are called {self._stem} already")


def _put(handle: int, data: bytes | memoryview, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(handle, rest, offset)
        rest, offset = rest[written:], offset + written
