"""What every call may use: the server's parts, handed in by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs

from rustpbx.errors import RustpbxError
from rustpbx.media.fetch import Fetcher
from rustpbx.media.plane.plane import Plane
from rustpbx.media.recording.shell.recorder import Recording
from rustpbx.media.webrtc.shell import WebRtc
from rustpbx.session.commands import Command
from rustpbx.session.events import Event
from rustpbx.session.params import Ended
from rustpbx.session.shell.recording import Recordings
from rustpbx.shell.clock import Clock
from rustpbx.shell.network import Network
from rustpbx.sip.events import IncomingCall
from rustpbx.sip.shell.stack import Stack
from rustpbx.speech.cache import SpeechCache
from rustpbx.speech.registry import SpeechServices


class UnclaimedError(RustpbxError):
    """There is nobody to announce an incoming call to; the text tells the caller so."""


class Page(Protocol):
    """Where a session's commands and events are noted; its methods neither wait nor raise."""

    def dump(self) -> None:
        """Write an event file from now on."""
        ...

    def note_command(self, command: Command) -> None:
        """The agent gave a command."""
        ...

    def note_event(self, event: Event) -> None:
        """The session told an event, whether or not somebody heard it."""
        ...

    def close(self, ended: Ended, recording: Recording | None) -> None:
        """The session is over, and its record can be made once its recording is done."""
        ...


class Ledger(Protocol):
    """The pages of all sessions."""

    def open(self, session_id: str) -> Page:
        """A page for a new session."""
        ...


class Announcer(Protocol):
    """Tells somebody that a phone rings: the program around the server, or its webhook."""

    async def announce(self, call: IncomingCall, created_at: int) -> None:
        """Return once one receiver has taken it. Raises `RustpbxError` when none did, `UnclaimedError` without any.

        Cancelled when the call ends meanwhile.
        """
        ...


@attrs.frozen(kw_only=True)
class Services:
    """One per server. `stack` is None where SIP is not configured, `speech_cache` where no speech is kept.

    Without `webrtc` there are no calls with browsers, without `recordings` no recordings,
    without a `ledger` no event files and no call records.
    """

    clock: Clock
    network: Network
    plane: Plane
    fetcher: Fetcher
    speech: SpeechServices
    announcer: Announcer
    stack: Stack | None = None
    speech_cache: SpeechCache | None = None
    webrtc: WebRtc | None = None
    recordings: Recordings | None = None
    ledger: Ledger | None = None
    watch: Callable[[Event], None] = lambda _: None
    """Sees each event that any call tells; it neither waits nor raises."""
