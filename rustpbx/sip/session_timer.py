"""The timer of a session (RFC 4028 10): it is refreshed in time, or the call ends."""

from __future__ import annotations

from typing import Protocol

from rustpbx.core import Deadline
from rustpbx.machine import Machine
from rustpbx.sip.delivery import Owner
from rustpbx.sip.leg import Leg
from rustpbx.sip.message import Request
from rustpbx.sip.offers import GLARE_WAITS, Offers
from rustpbx.sip.outages import retry_after
from rustpbx.sip.session_interval import Refresher
from rustpbx.sip.tables import SESSION_TIMER, OfferState, SessionTimerAction, SessionTimerState, SessionTimerTrigger
from rustpbx.sip.transaction import Heard, Outcome, status_of

LEAST_PAUSE = 10.0
"""Seconds at least before a refresh that was refused is tried again; else half of the time that is left."""

_AGREED = {
    Refresher.OURS: SessionTimerTrigger.AGREED_OURS,
    Refresher.THEIRS: SessionTimerTrigger.AGREED_THEIRS,
    Refresher.NOBODY: SessionTimerTrigger.AGREED_NOTHING,
}


class SessionOwner(Owner, Protocol):
    """The call whose session it is."""

    def session_expired(self, now: float) -> None:
        """Nobody has refreshed the session in time."""
        ...


class SessionTimer:
    """The timer of one call. What both sides agree on is in `leg.session`; `follow` takes it over."""

    def __init__(self, leg: Leg, offers: Offers, owner: SessionOwner) -> None:
        self._leg = leg
        self._offers = offers
        self._owner = owner
        self._version = 0
        self._pause = LEAST_PAUSE
        self._machine = Machine[SessionTimerState, SessionTimerTrigger, SessionTimerAction](
            SESSION_TIMER, self._duration, call=leg.name
        )

    @property
    def state(self) -> SessionTimerState:
        """Where the session stands."""
        return self._machine.state

    def deadline(self) -> Deadline:
        """When the next timer runs out."""
        return self._machine.deadline()

    def wake(self, now: float) -> None:
        """Take the timers that have run out."""
        for trigger in self._machine.fired(now):
            self._step(trigger, now)

    def follow(self, now: float) -> None:
        """If something new has been agreed, the time begins anew."""
        if self._version == self._leg.session.version:
            return
        self._version = self._leg.session.version
        self._step(_AGREED[self._leg.session.refresher], now)
        for timer in list(self._machine.armed):
            self._machine.restart(timer, now)

    def stop(self, now: float) -> None:
        """The call is over."""
        self._step(SessionTimerTrigger.CALL_ENDED, now)

    def heard(self, request: Request, outcome: Outcome, now: float) -> None:
        """What became of an INVITE or UPDATE of ours within the dialog."""
        status, _ = status_of(outcome)
        session = self._leg.session
        if isinstance(outcome, Heard) and status < 300:
            if status >= 200:
                session.answered(outcome.response)
        elif self.state is not SessionTimerState.REFRESHING or self._offers.state is OfferState.REFRESHING:
            return
        elif isinstance(outcome, Heard) and not request.body and session.raised(outcome.response):
            self._refresh(now)
        elif isinstance(outcome, Heard) and not session.mutual and status not in {408, 481}:
            session.alive()  # a peer that does no session timers has said no, but it is there
        else:
            self._refused(outcome, now)

    def _refused(self, outcome: Outcome | None, now: float) -> None:
        """Try again after half of the time that is left, or when the peer wants; soon, where two requests met."""
        left = self._machine.armed.get(SessionTimerTrigger.EXPIRY, now) - now
        self._pause = max(LEAST_PAUSE, left / 2)
        if outcome is None or status_of(outcome)[0] == 491:
            self._pause = self._leg.layer.random_between(*GLARE_WAITS[self._leg.calling])
        elif isinstance(outcome, Heard):
            self._pause = retry_after(outcome.response) or self._pause
        self._step(SessionTimerTrigger.REFUSED, now)

    def _step(self, trigger: SessionTimerTrigger, now: float) -> None:
        for action in self._machine.step(trigger, now):
            match action:
                case SessionTimerAction.REFRESH:
                    self._refresh(now)
                case SessionTimerAction.EXPIRE:
                    self._owner.session_expired(now)

    def _refresh(self, now: float) -> None:
        """UPDATE without an offer if the peer takes it, else a re-INVITE that offers what is agreed (7.4)."""
        if "UPDATE" in self._leg.allows:
            lines = (*self._leg.abilities, *self._leg.session.asked())
            self._leg.request("UPDATE", self._owner, now, contact=True, lines=lines)
        elif not self._offers.refresh(now):  # an exchange is under way, which refreshes the session if it comes off
            self._refused(None, now)

    def _duration(self, timer: SessionTimerTrigger) -> float:
        session = self._leg.session
        if timer is SessionTimerTrigger.RETRY_TIMER:
            return self._pause
        return session.seconds / 2 if timer is SessionTimerTrigger.REFRESH_TIMER else session.ends
