"""How long a session lasts without a refresh, and who refreshes it: what both sides say of that (RFC 4028)."""

from __future__ import annotations

from enum import Enum, auto

import attrs

from rustpbx.errors import RemoteError
from rustpbx.sip.extensions import LEAST_INTERVAL, TIMER, Extensions, option_tags
from rustpbx.sip.headers import parse_number, parse_params
from rustpbx.sip.message import Lines, Message, Request, Response

MOST_RAISES = 3
"""How often a peer may find our interval too small (422) and be asked again, for one call."""

LONGEST_INTERVAL = 2**31
"""Above any interval, in seconds."""


class Refresher(Enum):
    """Who refreshes the session; NOBODY where it does not expire."""

    NOBODY = auto()
    OURS = auto()
    THEIRS = auto()


@attrs.frozen
class SessionExpires:
    """A Session-Expires value (section 4). `refresher` is `uac`, `uas` or "" where it leaves that open."""

    seconds: int
    refresher: str = ""


def session_expires_of(message: Message) -> SessionExpires | None:
    """The Session-Expires of a message; None without one. RemoteError (400) if it cannot be read."""
    text = message.header("Session-Expires")
    if text is None:
        return None
    number, _, params = text.partition(";")
    seconds = parse_number(number.strip(" \t"), "Session-Expires", LONGEST_INTERVAL)
    refresher = (parse_params(f";{params}").get("refresher") or "").lower() if params else ""
    return SessionExpires(seconds, refresher if refresher in {"uac", "uas"} else "")


def min_se_of(message: Message) -> int:
    """The least interval that a message says is wanted (section 5). RemoteError (400) if it cannot be read."""
    text = message.header("Min-SE")
    if text is None:
        return LEAST_INTERVAL
    return max(LEAST_INTERVAL, parse_number(text.partition(";")[0].strip(" \t"), "Min-SE", LONGEST_INTERVAL))


@attrs.define(eq=False)
class SessionInterval:
    """What is agreed in one call. `version` counts the agreements; each is a refresh of the session.

    `seconds` is the interval, or the one to ask for. `mutual` says that the peer does session timers itself: else we
    refresh by ourselves, and it owes us nothing.
    """

    extensions: Extensions
    refresher: Refresher = Refresher.NOBODY
    mutual: bool = False
    version: int = 0
    least: int = attrs.field(init=False)
    seconds: int = attrs.field(init=False)
    _raises: int = 0

    def __attrs_post_init__(self) -> None:
        self.least = max(LEAST_INTERVAL, self.extensions.min_se)
        self.seconds = max(self.least, self.extensions.session_expires)

    @property
    def ends(self) -> float:
        """Seconds after a refresh at which the session is given up: earlier by who does not refresh (section 10)."""
        early = min(32.0, self.seconds / 3) if self.refresher is Refresher.THEIRS else 0.0
        return self.seconds - early

    def asked(self) -> Lines:
        """The header fields of an INVITE or UPDATE of ours: roles stay, at first they are open (7.1, 7.4)."""
        wish = self.extensions.session_timers
        least: Lines = (("Min-SE", str(self.least)),) if self.least > LEAST_INTERVAL else ()
        if wish == "off":
            return ()
        if wish == "accept" and self.refresher is Refresher.NOBODY:
            return least
        role = {Refresher.OURS: ";refresher=uac", Refresher.THEIRS: ";refresher=uas", Refresher.NOBODY: ""}
        expires = ("Session-Expires", f"{max(self.seconds, self.least)}{role[self.refresher]}")
        return (expires, *least)

    def raised(self, response: Response) -> bool:
        """Take a 422; True if the request should be sent again, with the greater interval (7.3)."""
        if response.status != 422 or response.header("Min-SE") is None or self._raises == MOST_RAISES:
            return False
        try:
            least = min_se_of(response)
        except RemoteError:
            return False
        if least <= max(self.seconds, self.least):
            return False
        self._raises += 1
        self.least = self.seconds = least
        return True

    def alive(self) -> None:
        """A peer that does no session timers has answered something: that is as good as a refresh."""
        self.version += 1

    def answered(self, response: Response) -> None:
        """Take a 2xx to an INVITE or UPDATE of ours (7.2). Where the peer sets no time, we may refresh by ourselves."""
        wish = self.extensions.session_timers
        if wish == "off":
            return
        try:
            theirs = session_expires_of(response)
        except RemoteError:
            theirs = None
        if theirs is not None:
            who = Refresher.THEIRS if theirs.refresher == "uas" else Refresher.OURS
            self._agree(max(theirs.seconds, LEAST_INTERVAL), who, mutual=True)
        elif wish == "on":
            self._agree(self.seconds, Refresher.OURS, mutual=False)
        else:
            self._agree(self.seconds, Refresher.NOBODY, mutual=False)

    def answer(self, request: Request) -> Lines:
        """Agree with an INVITE or UPDATE of the peer's: the header fields of our 2xx (section 9, table 2)."""
        wish, theirs = self.extensions.session_timers, session_expires_of(request)
        silent = wish == "accept" and self.refresher is Refresher.NOBODY
        if wish == "off" or (theirs is None and silent):
            return ()
        knows = TIMER in option_tags(request)
        most = max(self.least, self.extensions.session_expires, min_se_of(request))
        if theirs is not None:
            seconds = max(LEAST_INTERVAL, min(theirs.seconds, most))
        else:
            seconds = most if self.refresher is Refresher.NOBODY else max(self.seconds, min_se_of(request))
        role = "uac" if self.refresher is Refresher.THEIRS else "uas"
        role = (theirs.refresher if theirs else "") or role
        role = role if knows else "uas"
        self._agree(seconds, Refresher.THEIRS if role == "uac" else Refresher.OURS, mutual=knows)
        expires = ("Session-Expires", f"{seconds};refresher={role}")
        return (("Require", TIMER), expires) if knows else (expires,)

    def _agree(self, seconds: int, refresher: Refresher, *, mutual: bool) -> None:
        self.seconds, self.refresher, self.mutual = seconds, refresher, mutual
        self.version += 1
