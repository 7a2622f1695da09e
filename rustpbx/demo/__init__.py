"""`rustpbx demo`: two real calls on this machine, one each way, with proof that the words came through."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status; `rustpbx demo --help` lists them."""
    from rustpbx.demo.show import main as show  # noqa: PLC0415 - the phone's process imports this package too

    return show(argv)
