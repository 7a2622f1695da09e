"""What a server grants for a while: an allocation, a permission or a channel, asked for and kept."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from aioice.stun import Class, Message, Method

from rustpbx.core import Deadline
from rustpbx.machine import Machine
from rustpbx.media.ice.turn.message import refusal_text, request
from rustpbx.media.ice.turn.server import Session
from rustpbx.media.ice.turn.tables import TURN_GRANT, GrantAction, GrantState, GrantTrigger

FIRST_WAIT = 0.25
LONGEST_WAIT = 1.0
"""Seconds until a question is asked again, as STUN servers are asked (`query.py`)."""

TIMEOUT = {
    GrantState.CONNECTING: 5.0,
    GrantState.ASKING: 5.0,
    GrantState.RENEWING: 30.0,
    GrantState.RELEASING: 1.5,
}
"""Seconds until there must be an answer: a caller waits for the first, and nobody for the last."""

MOST_CHALLENGES = 3
"""Nonces that a server may give in turn before it is believed to want none of us."""


class GrantKind(Enum):
    """Each with the method that asks for it."""

    ALLOCATION = Method.ALLOCATE
    PERMISSION = Method.CREATE_PERMISSION
    CHANNEL = Method.CHANNEL_BIND


PERIOD = {GrantKind.PERMISSION: 240.0, GrantKind.CHANNEL: 540.0}
"""Seconds after which to ask again: permissions last for 300 s (9), channels for 600 s (12). An allocation says."""


class Grant:
    """One of them. `attributes` say what is asked for; `reliable` means that nothing is lost on the way.

    `outgoing` is what is to be sent now; whoever steps it takes that and sends it.
    """

    def __init__(
        self,
        kind: GrantKind,
        attributes: dict[str, Any],
        session: Session,
        entropy: Callable[[int], bytes],
        *,
        reliable: bool,
    ) -> None:
        self.kind = kind
        self.transaction = b""
        self.answer: Message | None = None
        """The last success."""
        self.problem = ""
        """Why it was refused."""
        self.outgoing: list[bytes] = []
        self.machine = Machine(TURN_GRANT, self._duration, f"turn {kind.name.lower()}")
        self._attributes = attributes
        self._session = session
        self._entropy = entropy
        self._reliable = reliable
        self._request = b""
        self._wait = FIRST_WAIT
        self._challenges = 0
        self._period = PERIOD.get(kind, 0.0)

    @property
    def granted(self) -> bool:
        """Whether it can be used."""
        return self.machine.state in (GrantState.GRANTED, GrantState.RENEWING)

    def deadline(self) -> Deadline:
        """When it is to be stepped next."""
        return self.machine.deadline()

    def begin(self, now: float) -> None:
        """Arm what its first state waits with; `CONNECTED` makes it ask."""
        self.machine.settle(now)

    def tick(self, now: float) -> tuple[GrantAction, ...]:
        """Its timers."""
        reports: tuple[GrantAction, ...] = ()
        for trigger in self.machine.fired(now):
            if trigger is GrantTrigger.RESEND_TIMER:
                self._wait = min(2 * self._wait, LONGEST_WAIT)
            elif trigger is GrantTrigger.ANSWER_TIMEOUT:
                self.problem = f"no answer within {TIMEOUT[self.machine.state]:g} s"
            reports += self.step(trigger, now)
        return reports

    def take(self, answer: Message, now: float) -> tuple[GrantAction, ...]:
        """A response with our transaction, that is believed."""
        trigger = self._classify(answer)
        return self.step(trigger, now, self.problem if trigger is GrantTrigger.REFUSAL else None)

    def _classify(self, answer: Message) -> GrantTrigger:
        if answer.message_class == Class.RESPONSE:
            if self.kind is GrantKind.ALLOCATION and not self._is_whole(answer):
                self.problem = "an answer without an address"
                return GrantTrigger.REFUSAL
            self.answer, self._challenges = answer, 0
            lifetime = answer.attributes.get("LIFETIME", 600)
            if self.kind is GrantKind.ALLOCATION:
                self._period = max(lifetime - 60.0, lifetime / 2, 1.0)
            return GrantTrigger.SUCCESS
        unsigned = answer.error_code == 401 and not self._session.known
        stale = answer.error_code == 438
        if (unsigned or stale) and self._challenges < MOST_CHALLENGES and self._session.challenged(answer):
            self._challenges += 1
            return GrantTrigger.CHALLENGED
        self.problem = refusal_text(answer)
        return GrantTrigger.REFUSAL

    def _is_whole(self, answer: Message) -> bool:
        return answer.message_method != Method.ALLOCATE or "XOR-RELAYED-ADDRESS" in answer.attributes

    def step(self, trigger: GrantTrigger, now: float, cause: str | None = None) -> tuple[GrantAction, ...]:
        """One step of the table; what it reports is returned."""
        done = self.machine.step(trigger, now, cause)
        for action in done:
            match action:
                case GrantAction.ASK:
                    self._ask(self.kind.value, self._attributes)
                case GrantAction.RENEW:
                    self._renew({})
                case GrantAction.GIVE_BACK:
                    self._give_back(trigger, now)
                case GrantAction.SEND_AGAIN:
                    self.outgoing.append(self._request)
        return tuple(one for one in done if one in (GrantAction.REPORT_GRANTED, GrantAction.REPORT_REFUSED))

    def _give_back(self, trigger: GrantTrigger, now: float) -> None:
        if trigger is GrantTrigger.RELEASE:  # a renewal may be under way, and has more time
            self._wait = FIRST_WAIT
            for timer in (GrantTrigger.ANSWER_TIMEOUT, GrantTrigger.RESEND_TIMER):
                self.machine.restart(timer, now)
        self._renew({"LIFETIME": 0})

    def _renew(self, lifetime: dict[str, Any]) -> None:
        """An allocation is refreshed (8), the others are asked for as at first (10, 12)."""
        if self.kind is GrantKind.ALLOCATION:
            self._ask(Method.REFRESH, lifetime)
        else:
            self._ask(self.kind.value, self._attributes)

    def _ask(self, method: Method, attributes: dict[str, Any]) -> None:
        self.transaction = self._entropy(12)
        message = request(method, self.transaction, attributes)
        self._session.sign(message)
        self._request = bytes(message)
        self.outgoing.append(self._request)

    def _duration(self, trigger: GrantTrigger) -> float:
        match trigger:
            case GrantTrigger.ANSWER_TIMEOUT:
                return TIMEOUT[self.machine.state]
            case GrantTrigger.RENEW_TIMER:
                self._wait = FIRST_WAIT
                return self._period
            case _:  # RESEND_TIMER; a stream loses nothing, and breaks at last (RFC 8489 6.2.2)
                return 2 * TIMEOUT[self.machine.state] if self._reliable else self._wait
