"""The error tree: one class for each thing a caller can do something about; and how they quote others."""

from __future__ import annotations

import attrs


def one_line(text: str, most: int = 80) -> str:
    """Somebody else's text, fit for one line of a message: cut, and what cannot be printed as its escape."""
    text = text[:most]
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class RustpbxError(Exception):
    """Everything this package raises on purpose."""


class IllegalStepError(RustpbxError):
    """A machine was asked for a step its table does not have. Always our own or a controller's mistake."""


class ProtocolError(RustpbxError):
    """A rule of a wire protocol was broken."""


class LocalError(ProtocolError):
    """Our side asked for something the protocol forbids; nothing was sent."""


@attrs.define(eq=False)
class RemoteError(ProtocolError):
    """The peer broke a rule. `reply` is the SIP status to answer with, where an answer is possible."""

    message: str
    reply: int = 400

    def __str__(self) -> str:
        return self.message


class MediaError(RustpbxError):
    """Audio could not be opened, decoded or negotiated."""


class SpeechError(RustpbxError):
    """A speech service refused, failed or is not there; `code` is the provider's or HTTP status, if any.

    `passing` says that trying again later may help: the network, an overloaded service; not credentials or options.
    """

    def __init__(self, message: str, code: int | None = None, *, passing: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.passing = passing


class ConfigError(RustpbxError):
    """A configuration value is wrong; `path` names the key, dots between tables (`ua.udp_port`)."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class PolicyError(RustpbxError):
    """An outbound request (play URL, webhook redirect ...) is not allowed by policy."""


class OverloadedError(RustpbxError):
    """A bounded resource (ports, slots, a worker queue) is used up; try later."""
