"""The ways to registrars that are kept open, each for as long as an account is on it (RFC 5626 4.4)."""

from __future__ import annotations

from collections.abc import Callable

from rustpbx.sip.events import Keep, LetGo
from rustpbx.sip.hop import Hop


class Ways:
    """Who is on which; `tell` hears of the first one on a way, and of the last one that leaves it."""

    def __init__(self, tell: Callable[[Keep | LetGo], None]) -> None:
        self._tell = tell
        self._users: dict[Hop, set[str]] = {}

    def keep(self, hop: Hop, name: str) -> None:
        """An account is on it."""
        users = self._users.setdefault(hop, set())
        if not users:
            self._tell(Keep(hop))
        users.add(name)

    def let_go(self, hop: Hop, name: str) -> None:
        """An account has left it."""
        users = self._users.get(hop)
        if users is None:
            return
        users.discard(name)
        if not users:
            del self._users[hop]
            self._tell(LetGo(hop))

    def lost(self, hop: Hop) -> None:
        """It is gone for everybody; nobody has to be told."""
        self._users.pop(hop, None)
