"""A question to a STUN server: what does it see of one of our bases (RFC 8489 6.2.1)? Asked until it is answered."""

from __future__ import annotations

from aioice.stun import Class, Message

from rustpbx.core import Address, Deadline
from rustpbx.machine import Machine
from rustpbx.media.ice.stun import binding_request, mapped_address
from rustpbx.media.ice.tables import STUN_QUERY, QueryState, QueryTrigger

FIRST_WAIT = 0.25
LONGEST_WAIT = 1.0
"""Seconds until it is asked again. Shorter than RFC 8489 has it: seven questions fit into the time there is."""

TIMEOUT = 5.0
"""Seconds until candidates are complete without this one: a caller waits for them."""


class Query:
    """One question of one base to one server. `mapped` is the answer, once there is one."""

    def __init__(self, base: Address, server: Address, transaction: bytes, now: float) -> None:
        self.base = base
        self.server = server
        self.transaction = transaction
        self.request = binding_request(transaction)
        self.mapped: Address | None = None
        self._wait = FIRST_WAIT
        self._machine = Machine(STUN_QUERY, self._duration)
        self._machine.settle(now)

    @property
    def done(self) -> bool:
        """Whether it is answered, or will never be."""
        return self._machine.done

    @property
    def state(self) -> QueryState:
        """Where it stands."""
        return self._machine.state

    def deadline(self) -> Deadline:
        """When it is asked again, or given up."""
        return self._machine.deadline()

    def answer(self, message: Message, now: float) -> None:
        """Take a response with our transaction id, from the server."""
        mapped = mapped_address(message) if message.message_class == Class.RESPONSE else None
        if not self.done:
            self.mapped = mapped
        self._machine.step(QueryTrigger.REFUSAL if mapped is None else QueryTrigger.ANSWER, now)

    def tick(self, now: float) -> bool:
        """Whether it is to be sent again."""
        again = False
        for trigger in self._machine.fired(now):
            if trigger is QueryTrigger.RESEND_TIMER:
                self._wait = min(2 * self._wait, LONGEST_WAIT)
            again |= bool(self._machine.step(trigger, now))
        return again and not self.done

    def _duration(self, trigger: QueryTrigger) -> float:
        return TIMEOUT if trigger is QueryTrigger.QUERY_TIMEOUT else self._wait
