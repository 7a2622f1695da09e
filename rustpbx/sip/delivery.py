"""Bringing a request of ours to one of the servers for its target (RFC 3263 4.3, RFC 3261 8.1.3.1).

A `Delivery` tries the servers one after the other, each with a transaction of its own, and shows its owner one request
with one outcome. A server that is left because it was silent may still wake up: what it begins then is cancelled, and
a call that it answers is the owner's, as a fork's would be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from rustpbx.core import Deadline
from rustpbx.machine import Machine
from rustpbx.sip.branch import first_attempt, next_attempt
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.events import Send
from rustpbx.sip.hop import Hop, Target
from rustpbx.sip.locate import Unlocated
from rustpbx.sip.message import Lines, Request
from rustpbx.sip.outages import retry_after
from rustpbx.sip.sizing import by_size
from rustpbx.sip.tables import (
    DELIVERY,
    DeliveryAction,
    DeliveryState,
    DeliveryTrigger,
    InviteClient,
)
from rustpbx.sip.transaction import ClientTransaction, Failed, Heard, Outcome

if TYPE_CHECKING:
    from rustpbx.sip.layer import TransactionLayer

Hops = tuple[Hop, ...]


class Owner(Protocol):
    """Who is told what became of a request of ours."""

    def outcome(self, request: Request, outcome: Outcome, now: float) -> None:
        """A response, a timeout or a transport failure."""
        ...


class Delivery:
    """One request of ours. `request` and `transaction` are those of the newest attempt; `call` is for the log.

    `prefer` is a server to begin with if it is one of the target's: the one that this dialog has been with.
    """

    def __init__(
        self,
        layer: TransactionLayer,
        request: Request,
        target: Target,
        owner: Owner | None,
        *,
        call: str = "",
        prefer: Hop | None = None,
    ) -> None:
        self.request = request
        self.target = target
        self.call = call
        self.transaction: ClientTransaction | None = None
        self._layer = layer
        self._owner = owner
        self._prefer = prefer
        self._rest: list[Hop] = []
        self._left: dict[str, ClientTransaction] = {}
        self._taken_back: set[str] = set()
        self._outcome: Outcome = Failed(503, "no answer from DNS")
        self._cancel_lines: Lines = ()
        self._machine = Machine[DeliveryState, DeliveryTrigger, DeliveryAction](
            DELIVERY, self._duration, f"{request.method} {self.key}", call=call
        )
        self._actions: Mapping[DeliveryAction, Callable[[float], None]] = {
            DeliveryAction.ASK: self._ask,
            DeliveryAction.SEND: self._send,
            DeliveryAction.GO_ON: self._go_on,
            DeliveryAction.SEND_CANCEL: self._send_cancel,
            DeliveryAction.PASS_UP: self._pass_up,
            DeliveryAction.REPORT_UNLOCATED: self._pass_up,
            DeliveryAction.REPORT_GIVEN_UP: self._report_given_up,
        }

    @property
    def key(self) -> str:
        """What names the delivery: the branch of its first attempt."""
        return first_attempt(self.request.via.branch or "")

    @property
    def state(self) -> DeliveryState:
        """Where it is."""
        return self._machine.state

    def deadline(self) -> Deadline:
        """When it goes on to the next server, or stops waiting for DNS."""
        return self._machine.deadline()

    def wake(self, now: float) -> None:
        """Take the timer that has run out."""
        for trigger in list(self._machine.fired(now)):
            self._step(trigger, now)

    # -- what comes in ------------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """Send it, or ask for its servers. Raises LocalError, with nothing sent, if it cannot be written as SIP."""
        found = self._layer.known_hops(self.target)
        if isinstance(found, tuple):
            self.located(found, now)
        else:
            encode_message(self.request)
            self._step(DeliveryTrigger.LOCATE, now)

    def located(self, found: Hops | Unlocated, now: float) -> None:
        """The servers are known, or there is none."""
        hops = by_size(self.request, self.target, preferred(found, self._prefer), self._layer.config.mtu)
        self._rest = self._layer.outages.order(hops, now)
        if not self._rest:
            self._outcome = Failed(503, found.problem if isinstance(found, Unlocated) else "no server")
            self._step(DeliveryTrigger.NOT_LOCATED, now)
            return
        self._step(DeliveryTrigger.LOCATED, now)

    def outcome(self, request: Request, outcome: Outcome, now: float) -> None:
        """What a transaction has come to."""
        branch = request.via.branch or ""
        if branch in self._left:
            self._late(self._left[branch], outcome, now)
            return
        self._outcome = outcome
        self._step(self._classify(outcome, now), now)

    def stay(self, now: float) -> None:
        """Ask no further server: the owner has given up, and only waits for what it has begun."""
        self._step(DeliveryTrigger.STAY, now)

    def cancel(self, lines: Lines, now: float) -> None:
        """Send CANCEL as soon as the INVITE's own server has answered provisionally (9.1); `lines` go with it."""
        self._cancel_lines = lines
        self._step(DeliveryTrigger.CANCEL, now)

    def forgotten(self, transaction: ClientTransaction, now: float) -> None:
        """A transaction is over."""
        self._left.pop(transaction.branch, None)
        if transaction is self.transaction:
            self._step(DeliveryTrigger.FORGOTTEN, now)

    def _classify(self, outcome: Outcome, now: float) -> DeliveryTrigger:
        failing = self._note(outcome, now)
        if isinstance(outcome, Heard) and outcome.response.status < 200:
            return DeliveryTrigger.REACHABLE if outcome.response.status == 100 else DeliveryTrigger.PROGRESS
        goes_on = self._rest and (self.state, DeliveryTrigger.HOP_FAILED) in DELIVERY.rows
        return DeliveryTrigger.HOP_FAILED if failing and goes_on else DeliveryTrigger.FINAL

    def _note(self, outcome: Outcome, now: float) -> bool:
        """Remember how the server is; True if another one should be asked."""
        hop = self.transaction.destination if self.transaction is not None else None
        timing = self._layer.config.timing
        if isinstance(outcome, Failed):
            # A timeout behind a 100 is the callee's, not the server's.
            silent = outcome.status != 408 or self.state is DeliveryState.TRYING
            if hop is not None and silent:
                self._layer.outages.note(hop, timing.hop_rest, now)
            return silent
        if outcome.response.status == 503:
            seconds = min(retry_after(outcome.response), timing.longest_rest)
            if hop is not None and seconds:
                self._layer.outages.note(hop, seconds, now)
            return True
        if hop is not None:
            self._layer.outages.clear(hop)
        return False

    def _late(self, transaction: ClientTransaction, outcome: Outcome, now: float) -> None:
        """A server that was left has woken up: end what it begins; but a call that it answers is answered."""
        if isinstance(outcome, Failed):
            return
        status = outcome.response.status
        if status < 200:
            self._take_back(transaction, now)
        elif status < 300:
            self._leave(self.transaction, now)
            self._left.pop(transaction.branch)
            self.transaction, self.request = transaction, transaction.request
            self._outcome = outcome
            self._step(DeliveryTrigger.FINAL, now)

    def _leave(self, transaction: ClientTransaction | None, now: float) -> None:
        """Do without a server that has not answered yet."""
        if transaction is None or not transaction.waiting:
            return
        if transaction.request.method == "INVITE":
            self._left[transaction.branch] = transaction
        if transaction.state is InviteClient.PROCEEDING:
            self._take_back(transaction, now)
        else:
            self._layer.abandon(transaction, now)

    def _take_back(self, transaction: ClientTransaction, now: float) -> None:
        """Cancel an INVITE that another server has by now, once."""
        if transaction.branch not in self._taken_back:
            self._taken_back.add(transaction.branch)
            self._layer.send_cancel(transaction, self._cancel_lines, now)

    # -- what is done -------------------------------------------------------------------------------------------------

    def _step(self, trigger: DeliveryTrigger, now: float) -> None:
        for action in self._machine.step(trigger, now):
            self._actions[action](now)
        self._layer.schedule.book(self, self)

    def _ask(self, _now: float) -> None:
        self._layer.seek(self.key, self.target, self)

    def _send(self, now: float) -> None:
        hop = self._rest.pop(0)
        request = self.request
        if self.transaction is not None:
            via = attrs.evolve(
                request.via, params=request.via.params.set("branch", next_attempt(self.transaction.branch))
            )
            request = attrs.evolve(request, vias=(via, *request.vias[1:]))
            self._layer.counters["failovers"] += 1
        self.transaction = self._layer.open_client(request, hop, self, now, call=self.call)
        self.request = self.transaction.request
        self._machine.restart(DeliveryTrigger.HOP_LIMIT, now)

    def _go_on(self, now: float) -> None:
        if self.transaction is not None:
            self._layer.outages.note(self.transaction.destination, self._layer.config.timing.hop_rest, now)
        self._leave(self.transaction, now)

    def _send_cancel(self, now: float) -> None:
        if self.transaction is not None:
            self._layer.send_cancel(self.transaction, self._cancel_lines, now)

    def _pass_up(self, now: float) -> None:
        if self._owner is not None:
            self._owner.outcome(self.request, self._outcome, now)

    def _report_given_up(self, now: float) -> None:
        self._outcome = Failed(487, "Request Terminated")
        self._pass_up(now)

    def _duration(self, trigger: DeliveryTrigger) -> float:
        timing = self._layer.config.timing
        if trigger is DeliveryTrigger.LOCATE_LIMIT:
            return timing.locate_limit
        return timing.hop_limit if self._rest else math.inf  # the last server has all the time of its transaction


class Acknowledgement:
    """The ACK of a 2xx (13.2.2.4), which no transaction resends: `again` does, for each copy of the 2xx."""

    def __init__(self, layer: TransactionLayer, ack: Request, target: Target, prefer: Hop | None = None) -> None:
        self._layer = layer
        self._ack = ack
        self._target = target
        self._prefer = prefer
        self._send: Send | None = None

    def begin(self, now: float) -> None:
        """Send it, or ask where to."""
        found = self._layer.known_hops(self._target)
        if isinstance(found, tuple):
            self.located(found, now)
        else:
            self._layer.seek(self._ack.via.branch or "", self._target, self)

    def located(self, found: Hops | Unlocated, now: float) -> None:
        """Send it. Without a server the callee ends the call when no ACK comes, and so tells us."""
        hops = self._layer.outages.order(preferred(found, self._prefer), now)
        if not hops:
            self._layer.counters["acks_unlocated"] += 1
            return
        hop = hops[0]
        self._send = Send(encode_message(self._layer.addressed(self._ack, hop)), hop, self._ack.via.branch or "")
        self.again()

    def again(self) -> None:
        """Another copy of the 2xx has come."""
        if self._send is not None:
            self._layer.send(self._send)


def preferred(found: Hops | Unlocated, first: Hop | None) -> Hops:
    """The hops with `first` before the others, if it is one of them; it alone, where there are none.

    A phone that calls itself by a name which means nothing here is still where its messages come from.
    """
    if isinstance(found, Unlocated):
        return () if first is None else (first,)
    if first is None:
        return found
    same = [hop for hop in found if (hop.transport, hop.address) == (first.transport, first.address)]
    return (*same, *(hop for hop in found if hop not in same))
