"""What nurseries leave to be done by whoever opens one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from rustpbx.errors import RustpbxError


@contextmanager
def sole_error() -> Iterator[None]:
    """A nursery wraps whatever leaves it in a group; the one exception of our caller's block stays what it was.

    An error of ours that comes in the moment in which the block is cancelled is left out: nobody waits for it any more.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        cancelled, others = group.split(trio.Cancelled)
        left = [] if others is None else others.exceptions
        if cancelled is not None and all(isinstance(error, RustpbxError) for error in left):
            raise cancelled from None
        if len(group.exceptions) > 1:
            raise
        error = group.exceptions[0]
    else:
        return
    raise error
