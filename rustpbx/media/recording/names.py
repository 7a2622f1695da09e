"""What a recording's file may be called: below one folder, whatever an agent or a session's id says."""

from __future__ import annotations

import re
from typing import Literal, get_args

from rustpbx.errors import MediaError

Format = Literal["wav", "mp3", "ogg", "flac"]
FORMATS: tuple[Format, ...] = get_args(Format)

LONGEST = 200
"""Characters of each part of a name: room for a number and a suffix within the 255 bytes of most file systems."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._@+=-]")


class NameRefusedError(MediaError):
    """A file name that an agent may not choose."""


def safe_name(session_id: str) -> str:
    """A session's id, which may have come from a URL, as a file's name: what could mean a path is an underscore."""
    name = _UNSAFE.sub("_", session_id)[:LONGEST]
    return name if name.strip(".") and not name.startswith(".") else f"_{name[1:]}"


def stem(wanted: str, session_id: str, kind: Format, pattern: str = "") -> str:
    """The path of a recording below its folder, with `/` between its parts and without a suffix.

    `wanted` is the option's `recorderFile`, "" for the configuration's `pattern`, "" for the session's id; `{id}` in
    either stands for that. A suffix of one of our formats is left out; others are part of the name. Raises
    `NameRefusedError` for absolute paths, `..`, hidden files and whatever else does not stay below the folder.
    """
    name = (wanted or pattern or "{id}").replace("{id}", safe_name(session_id))
    for suffix in (kind, *FORMATS):
        if name.lower().endswith(f".{suffix}") and wanted:
            name = name[: -len(suffix) - 1]
            break
    for part in name.split("/"):
        if not part or part.startswith(".") or len(part.encode()) > LONGEST or not part.isprintable() or "\\" in part:
            raise NameRefusedError(f"recorderFile {wanted or pattern!r:.80} is not a name below the recordings' folder")
    return name
