"""The model files that come inside packages: found and checked against their hash."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from rustpbx.errors import SpeechError

PACKAGES = ("onnxruntime", "moonshine_cpp", "hibari")

NOT_INSTALLED = "local speech is not installed: pip install 'rustpbx[local]'"


@cache
def installed() -> bool:
    """Whether the packages of the `local` extra are there. Imports nothing; looked up once, every call asks."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


def check_installed() -> None:
    """Raise `SpeechError` saying what to install if a package of the `local` extra is missing. Imports nothing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SpeechError(f"{NOT_INSTALLED} (missing: {', '.join(missing)})")


def checked(folder: Path, file: tuple[str, str]) -> bytes:
    """The content of a model file given as name and SHA-256. Raises `SpeechError` if it is missing or another one."""
    name, wanted = file
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise SpeechError(f"local speech: {name} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise SpeechError(f"local speech: {name} is not the file that was tested (SHA-256 {found[:16]}...)")
    return data
