"""One target under atheris: `python -m fuzz.engine TARGET [libFuzzer's arguments]`. `fuzz.__main__` starts it."""

from __future__ import annotations

import logging
import random
import shlex
import sys

import atheris

with atheris.instrument_imports(include=["rustpbx"]):
    from fuzz.targets import TARGETS

from fuzz.growth import check_growth
from fuzz.mutate import SHARE, mutate_lines

GROWTH_EVERY = 1000
"""Inputs between two looks at how the time grows."""


def main() -> None:
    """Fuzz until libFuzzer's limits or the first failure, which it writes to a file."""
    name, *arguments = sys.argv[1:]
    target = TARGETS[name]
    inputs = 0

    def one(data: bytes) -> None:
        nonlocal inputs
        inputs += 1
        target.check(data)
        if inputs % GROWTH_EVERY == 0:
            check_growth(target.check, data)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if not data or rng.random() > SHARE:
            return bytes(atheris.Mutate(data, longest))
        return mutate_lines(data, longest, rng)

    logging.getLogger("rustpbx").setLevel(logging.CRITICAL)
    # libFuzzer starts itself again by a shell when it merges, with its first argument for the program.
    itself = f"{shlex.quote(sys.executable)} -m fuzz.engine {name}"
    atheris.Setup([itself, *arguments], one, **({"custom_mutator": mutate} if target.lines else {}))
    atheris.Fuzz()


main()
