"""Transactions as sans-IO cores (RFC 3261 section 17): resending, matching's other half, and giving up.

A client transaction starts with `start(now)`; both kinds then take inputs by `handle`. What concerns the
transaction user comes back as `Heard` or `Failed`, what concerns the wire as `Send`.
"""

from __future__ import annotations

import attrs

from rustpbx.core import Deadline, Tick, address_text
from rustpbx.machine import Machine
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.events import Send, Undeliverable
from rustpbx.sip.hop import Hop
from rustpbx.sip.message import CSeq, Request, Response
from rustpbx.sip.tables import (
    INVITE_CLIENT,
    INVITE_SERVER,
    PENDING_ACK,
    REQUEST_CLIENT,
    REQUEST_SERVER,
    ClientAction,
    ClientTrigger,
    InviteClient,
    InviteServer,
    PendingAck,
    PendingAckAction,
    PendingAckTrigger,
    RequestClient,
    RequestServer,
    ServerAction,
    ServerTrigger,
)
from rustpbx.sip.timing import Backoff, Timing


@attrs.frozen
class Heard:
    """A response and where it came from; also what a client transaction passes up."""

    response: Response
    source: Hop


@attrs.frozen
class Failed:
    """No final response came: 408 on timeout, 503 on a transport error (section 8.1.3.1)."""

    status: int
    reason: str


@attrs.frozen
class Cancelled:
    """Our CANCEL for this INVITE has been sent."""


Outcome = Heard | Failed

ClientInput = Heard | Undeliverable | Cancelled | Tick
ClientEffect = Send | Outcome

LONGEST_WORDS = 80
"""Characters of a peer's own words that a log line shows."""


def status_of(outcome: Outcome) -> tuple[int, str]:
    """Status and reason phrase of what a request came to."""
    if isinstance(outcome, Failed):
        return outcome.status, outcome.reason
    return outcome.response.status, outcome.response.reason


def words_of(what: ClientInput | Request | Response) -> str:
    """What moved a transaction, for the log; a tick says nothing that the trigger does not."""
    match what:
        case Heard(response=response, source=source):
            return f"{response.status} {response.reason[:LONGEST_WORDS]} from {address_text(source.address)}"
        case Undeliverable(problem=problem):
            return f"cannot be sent: {problem[:LONGEST_WORDS]}"
        case Cancelled():
            return "our CANCEL"
        case Request(method=method):
            return method
        case Response(status=status, reason=reason):
            return f"our {status} {reason}"
        case Tick():
            return ""


_WAITING = frozenset(
    {
        InviteClient.CALLING,
        InviteClient.PROCEEDING,
        InviteClient.CANCELLING,
        RequestClient.TRYING,
        RequestClient.PROCEEDING,
    }
)
_RESENDS = frozenset({"TIMER_A", "TIMER_E", "TIMER_G"})


def ack_for(request: Request, response: Response) -> Request:
    """The ACK of a response >= 300: part of the INVITE's transaction (section 17.1.1.3)."""
    return Request(
        method="ACK",
        uri=request.uri,
        vias=(request.via,),
        routes=request.routes,
        from_=request.from_,
        to=response.to,
        call_id=request.call_id,
        cseq=CSeq(request.cseq.number, "ACK"),
    )


class ClientTransaction:
    """One request of ours until its final response (sections 17.1.1 and 17.1.2); `call` is for the log."""

    def __init__(self, request: Request, destination: Hop, timing: Timing, *, call: str = "") -> None:
        timing = timing.over(destination.transport)
        self.request = request
        self.destination = destination
        self.branch = request.via.branch or ""
        self._data = encode_message(request)
        self._ack = b""
        self._timing = timing
        self._invite = request.method == "INVITE"
        self._backoff = Backoff(timing) if self._invite else Backoff(timing, timing.t2)
        self._heard: Heard | None = None
        self._problem = ""
        self._machine: (
            Machine[InviteClient, ClientTrigger, ClientAction] | Machine[RequestClient, ClientTrigger, ClientAction]
        )
        label = f"{request.method} {self.branch}"
        if self._invite:
            self._machine = Machine(INVITE_CLIENT, self._duration, label, call=call, words=words_of)
        else:
            self._machine = Machine(REQUEST_CLIENT, self._duration, label, call=call, words=words_of)

    @property
    def call(self) -> str:
        """The id of the call that it serves."""
        return self._machine.call

    @property
    def state(self) -> InviteClient | RequestClient:
        """Where the transaction stands."""
        return self._machine.state

    @property
    def waiting(self) -> bool:
        """True until a final response, or none, is certain."""
        return self._machine.state in _WAITING

    @property
    def done(self) -> bool:
        """True when the transaction may be forgotten."""
        return self._machine.done

    def deadline(self) -> Deadline:
        """When the next `Tick` is due."""
        return self._machine.deadline()

    def start(self, now: float) -> list[ClientEffect]:
        """Send the request for the first time and arm the first timers."""
        self._machine.settle(now)
        return [self._send(self._data)]

    def handle(self, what: ClientInput, now: float) -> list[ClientEffect]:
        """Take one input."""
        effects: list[ClientEffect] = []
        if isinstance(what, Tick):
            for trigger in self._machine.fired(now):
                effects += self._step(trigger, now)
            return effects
        return self._step(self._classify(what), now, what)

    def _classify(self, what: Heard | Undeliverable | Cancelled) -> ClientTrigger:
        match what:
            case Heard(response=response):
                self._heard = what
                if response.status < 200:
                    return ClientTrigger.PROVISIONAL
                return ClientTrigger.SUCCESS if response.status < 300 else ClientTrigger.FAILURE
            case Undeliverable(problem=problem):
                self._problem = problem
                return ClientTrigger.UNDELIVERABLE
            case Cancelled():
                return ClientTrigger.CANCEL

    def _step(self, trigger: ClientTrigger, now: float, cause: ClientInput | None = None) -> list[ClientEffect]:
        return [effect for action in self._machine.step(trigger, now, cause) for effect in self._act(action)]

    def _act(self, action: ClientAction) -> list[ClientEffect]:
        match action:
            case ClientAction.RESEND:
                return [self._send(self._data)]
            case ClientAction.SEND_ACK:
                return self._acknowledge()
            case ClientAction.PASS_UP:
                return [self._heard] if self._heard is not None else []
            case ClientAction.REPORT_TIMEOUT:
                return [Failed(408, "Request Timeout")]
            case ClientAction.REPORT_UNDELIVERABLE:
                return [Failed(503, self._problem or "Service Unavailable")]

    def _acknowledge(self) -> list[ClientEffect]:
        if not self._ack and self._heard is not None:
            self._ack = encode_message(ack_for(self.request, self._heard.response))
        return [self._send(self._ack)]

    def _send(self, data: bytes) -> Send:
        return Send(data, self.destination, self.branch)

    def _duration(self, trigger: ClientTrigger) -> float:
        if trigger is ClientTrigger.TIMER_E and self._machine.state is RequestClient.PROCEEDING:
            return max(self._backoff.next(), self._timing.t2)  # 17.1.2.2
        if trigger.name in _RESENDS:
            return self._backoff.next()
        return self._timing.fixed[trigger.name]


class ServerTransaction:
    """One request of the peer's, and the response we gave it (sections 17.2.1 and 17.2.2).

    `source` is where it came from, `destination` where its responses go. The 2xx of an INVITE is resent by `AckWait`,
    not here.
    """

    def __init__(self, request: Request, source: Hop, destination: Hop, timing: Timing) -> None:
        timing = timing.over(source.transport)
        self.request = request
        self.source = source
        self.destination = destination
        self.final: Response | None = None
        self._response = b""
        self._timing = timing
        self._backoff = Backoff(timing, timing.t2)
        self._machine: (
            Machine[InviteServer, ServerTrigger, ServerAction] | Machine[RequestServer, ServerTrigger, ServerAction]
        )
        label = f"{request.method} {request.via.branch}"
        if request.method == "INVITE":
            self._machine = Machine(INVITE_SERVER, self._duration, label, words=words_of)
        else:
            self._machine = Machine(REQUEST_SERVER, self._duration, label, words=words_of)

    def serves(self, call: str) -> None:
        """Name the call that the request belongs to, for the log."""
        self._machine.call = call

    @property
    def state(self) -> InviteServer | RequestServer:
        """Where the transaction stands."""
        return self._machine.state

    @property
    def done(self) -> bool:
        """True when the transaction may be forgotten."""
        return self._machine.done

    def deadline(self) -> Deadline:
        """When the next `Tick` is due."""
        return self._machine.deadline()

    def handle(self, what: Request | Response | Tick, now: float) -> list[Send]:
        """Take a copy of the request, its ACK, a response of ours, or a tick."""
        if isinstance(what, Tick):
            return [send for trigger in self._machine.fired(now) for send in self._step(trigger, now)]
        return self._step(self._classify(what), now, what)

    def _classify(self, what: Request | Response) -> ServerTrigger:
        if isinstance(what, Request):
            return ServerTrigger.ACK if what.method == "ACK" else ServerTrigger.REQUEST
        if self.final is None:
            self._response = encode_message(what)
        if what.status < 200:
            return ServerTrigger.REPLY_PROVISIONAL
        self.final = self.final or what
        return ServerTrigger.REPLY_SUCCESS if what.status < 300 else ServerTrigger.REPLY_FAILURE

    def _step(self, trigger: ServerTrigger, now: float, cause: Request | Response | None = None) -> list[Send]:
        return [send for action in self._machine.step(trigger, now, cause) for send in self._act(action)]

    def _act(self, action: ServerAction) -> list[Send]:
        match action:
            case ServerAction.SEND | ServerAction.RESEND:
                return [Send(self._response, self.destination)] if self._response else []

    def _duration(self, trigger: ServerTrigger) -> float:
        if trigger.name in _RESENDS:
            return self._backoff.next()
        return self._timing.fixed[trigger.name]


class AckWait:
    """Our 2xx to an INVITE until its ACK: resent after T1, 2*T1 ... T2, given up at 64*T1 (section 13.3.1.4)."""

    def __init__(self, response: Response, destination: Hop, timing: Timing, *, call: str = "") -> None:
        self.cseq = response.cseq.number
        self._send = Send(encode_message(response), destination)
        self._timing = timing
        # The 2xx is resent on every transport: a proxy on the way may use UDP.
        self._backoff = Backoff(attrs.evolve(timing, reliable=False), timing.t2)
        self._machine = Machine[PendingAck, PendingAckTrigger, PendingAckAction](
            PENDING_ACK, self._duration, f"{response.status} to {response.cseq.method}", call=call
        )

    @property
    def done(self) -> bool:
        """True when nothing is resent any more."""
        return self._machine.done

    def deadline(self) -> Deadline:
        """When the next `Tick` is due."""
        return self._machine.deadline()

    def start(self, now: float) -> None:
        """Arm the timers; the transaction has sent the 2xx for the first time."""
        self._machine.settle(now)

    def step(self, trigger: PendingAckTrigger, now: float) -> list[Send | PendingAckAction]:
        """Take one trigger; REPORT_* come back as they are."""
        actions = self._machine.step(trigger, now)
        return [self._send if action is PendingAckAction.RESEND else action for action in actions]

    def tick(self, now: float) -> list[Send | PendingAckAction]:
        """Take the timers that have run out."""
        return [effect for trigger in self._machine.fired(now) for effect in self.step(trigger, now)]

    def _duration(self, trigger: PendingAckTrigger) -> float:
        if trigger is PendingAckTrigger.RESEND_TIMER:
            return self._backoff.next()
        return self._timing.fixed[trigger.name]
