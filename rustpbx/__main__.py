"""`python -m rustpbx`, and the `rustpbx` command: what only a program of its own may do to its process."""

from __future__ import annotations

import gc
import os
import sys

from dotenv import load_dotenv


def run() -> int:
    """Prepare the process, then run the command line."""
    # What the environment says already wins. Only the working directory counts: no search through its parents.
    load_dotenv(".env", override=False)
    # The media clock multiplies small matrices: a pool of BLAS threads costs more than it gains.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported
    from rustpbx import cli  # noqa: PLC0415 - after the environment is complete

    # A full collection stops the audio for a tenth of a second: what is imported by now is never looked at again.
    return cli.main(before_serving=gc.freeze)


if __name__ == "__main__":
    sys.exit(run())
