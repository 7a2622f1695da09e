"""How the accounts of a stack stand: for logs, for health, and for whoever waits until all of them have ended."""

from __future__ import annotations

import attrs
import trio

from rustpbx.journal import Journal
from rustpbx.shell.clock import Clock
from rustpbx.sip.events import Account, RegistrationChanged

log = Journal(__name__)

OVER = frozenset({"unregistered", "failed"})


@attrs.frozen(kw_only=True)
class Standing:
    """One account: its `state` since `since` (the clock's), granted for `expires` seconds, the registrar's words."""

    account: Account
    state: str
    since: float
    expires: int = 0
    status: int = 0
    reason: str = ""


class Accounts:
    """All of them, by name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._standings: dict[str, Standing] = {}
        self._news = trio.lowlevel.ParkingLot()

    @property
    def standings(self) -> tuple[Standing, ...]:
        """In the order they were begun."""
        return tuple(self._standings.values())

    def enter(self, account: Account) -> None:
        """An account begins."""
        self._standings[account.name] = Standing(account=account, state="registering", since=self._clock.now())

    def change(self, what: RegistrationChanged) -> None:
        """An account stands otherwise than before."""
        before = self._standings.get(what.name)
        if before is None:
            return
        now = self._clock.now()
        moved = before.state != what.state
        self._standings[what.name] = Standing(
            account=before.account,
            state=what.state,
            since=now if moved else before.since,
            expires=what.expires,
            status=what.status,
            reason=what.reason,
        )
        if moved:
            self._say(what)
        self._news.unpark_all()

    async def settled(self) -> None:
        """Wait until none is about to be registered: each is, or has failed."""
        while any(standing.state == "registering" for standing in self._standings.values()):
            await self._news.park()

    async def ended(self) -> None:
        """Wait until none is registered, or about to be."""
        while any(standing.state not in OVER for standing in self._standings.values()):
            await self._news.park()

    def _say(self, what: RegistrationChanged) -> None:
        said = f"{what.status} {what.reason}".strip() if what.status else what.reason
        if what.state == "registered":
            log.info("account %s: registered for %d s", what.name, what.expires)
        elif what.state == "failed":
            log.warning("account %s: not registered: %s", what.name, said or "no answer")
        else:
            log.info("account %s: %s", what.name, what.state)
