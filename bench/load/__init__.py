"""The load generators: C, compiled when they are first needed, and what they play."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rustpbx.media.codec.g711 import PCMU

HERE = Path(__file__).parent
BUILT = HERE / "built"


class NoCompilerError(Exception):
    """There is no C compiler."""


def build(name: str) -> Path:
    """Compile `name`.c unless that has been done; the program. Raises `NoCompilerError`."""
    source, program = HERE / f"{name}.c", BUILT / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompilerError("no C compiler: on Debian, apt-get install gcc libc6-dev")
    BUILT.mkdir(exist_ok=True)
    print(f"compiling {source.name}", file=sys.stderr)
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(source), "-lm"], check=True)
    return program


def speech_file(seconds: int = 8) -> Path:
    """A file of mu-law that a VAD takes for speech half of the time: a buzz with formants, syllables and pauses."""
    path = BUILT / "speech.ul"
    if not path.exists():
        BUILT.mkdir(exist_ok=True)
        path.write_bytes(_speech(seconds))
    return path


def _speech(seconds: int) -> bytes:
    time_axis = np.arange(seconds * 8000) / 8000
    formants = ((1, 0.6), (2, 0.8), (4, 1.0), (5, 0.9), (9, 0.5), (17, 0.2))
    waves = [gain * np.sin(2 * np.pi * 130 * k * time_axis) for k, gain in formants]
    buzz: npt.NDArray[np.float64] = np.sum(waves, axis=0)
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * time_axis)
    talking = (time_axis % 4) < 2
    pcm = 3000 * buzz * syllables * talking
    return PCMU.encode(np.clip(pcm, -32768, 32767).astype(np.int16)).tobytes()
