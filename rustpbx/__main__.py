"""`python -m rustpbx`, and the `rustpbx` command: what only a program of its own may do to its process."""

from __future__ import annotations

import os
import resource
import sys

from dotenv import load_dotenv

MAX_FILES = 65536


def allow_sockets() -> None:
    """Raise our own limit of open files as far as we may: a call takes three, and 1024 are usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run() -> int:
    """Prepare the process, then run the command line."""
    # What the environment says already wins. Only the working directory counts: no search through its parents.
    try:
        load_dotenv(".env", override=False)
    except (OSError, UnicodeDecodeError) as error:
        print(f".env: cannot be read: {error}", file=sys.stderr)  # noqa: T201 - before there are logs
        return 2
    allow_sockets()
    # The media clock multiplies small matrices: a pool of BLAS threads costs more than it gains.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported
    from rustpbx import cli  # noqa: PLC0415 - after the environment is complete
    from rustpbx.shell import garbage  # noqa: PLC0415

    return cli.main(before_serving=garbage.prepare)


if __name__ == "__main__":
    sys.exit(run())
