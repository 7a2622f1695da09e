"""What can stop the demo, each with its exit status."""

from __future__ import annotations

from collections.abc import Iterable

from rustpbx.errors import RustpbxError


class DemoError(RustpbxError):
    """The demo cannot go on. `status` becomes the exit status."""

    status = 1


class NotInstalledError(DemoError):
    """The embedded speech is missing."""

    status = 3

    def __init__(self, missing: Iterable[str]) -> None:
        super().__init__(
            f"the demo speaks and listens with the embedded models, and {', '.join(missing)} is not installed.\n"
            "  pip install 'rustpbx[local]'    (from a checkout: pip install -e '.[local]', or just: make demo)"
        )


class ProviderError(DemoError):
    """The speech service that was asked for is unknown, or has no credentials."""

    status = 7


class PortTakenError(DemoError):
    """A port that was asked for by name is in use."""

    status = 4

    def __init__(self, protocol: str, host: str, port: int, option: str) -> None:
        super().__init__(
            f"{protocol} port {port} on {host} is taken; free it, choose another with {option}, "
            f"or leave {option} out and a free one is taken"
        )


class ServerDiedError(DemoError):
    """The server ended or never listened; its last words are shown."""

    status = 5

    def __init__(self, what: str, last_lines: Iterable[str]) -> None:
        tail = "\n".join(f"  | {line}" for line in last_lines) or "  | (nothing)"
        super().__init__(f"{what}. Its last lines were:\n{tail}")


class PhoneDiedError(DemoError):
    """The phone's process ended early."""

    status = 6
