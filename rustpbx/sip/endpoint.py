"""The SIP user agent as one sans-IO core: datagrams and wishes in, datagrams and facts out.

`handle` sorts what comes in: responses to their transactions, requests to a copy's transaction, a dialog's call, or
the rules for new ones (RFC 3261 8.2), wishes to their call.
"""

from __future__ import annotations

import random
from collections import Counter

import attrs

from rustpbx.core import Address, Deadline, Tick
from rustpbx.errors import LocalError, RemoteError
from rustpbx.sip.answers import CAPABILITIES, refusal
from rustpbx.sip.call import Call, Directory
from rustpbx.sip.encoder import encode_message, encode_refusal
from rustpbx.sip.events import (
    Answer,
    CallRefused,
    Effect,
    HangUp,
    Input,
    Received,
    Refuse,
    Ring,
    Send,
    SendDigit,
    SendInvite,
    Undeliverable,
    Wish,
)
from rustpbx.sip.layer import EndpointConfig, TransactionLayer, response_address, stamp, stamp_via
from rustpbx.sip.message import CSeq, Lines, NameAddr, Request, Response, Via
from rustpbx.sip.parser import MalformedRequest, parse_message
from rustpbx.sip.tables import CallState
from rustpbx.sip.transaction import Heard, ServerTransaction
from rustpbx.sip.uac import UacCall
from rustpbx.sip.uas import UasCall
from rustpbx.sip.uri import Uri

__all__ = ["Endpoint", "EndpointConfig"]

_KEEP_ALIVE = b"\r\n\0 \t"


class Endpoint:
    """One user agent: a `Core` over `rustpbx.sip.events`.

    `rng` makes tags, branches and Call-IDs (`random.SystemRandom()` in earnest, a seeded one in tests).
    """

    def __init__(self, config: EndpointConfig, rng: random.Random) -> None:
        self.config = config
        self._layer = TransactionLayer(config, rng)
        self._directory = Directory()

    @property
    def done(self) -> bool:
        """Never: a server waits for the next call."""
        return False

    @property
    def counters(self) -> Counter[str]:
        """Numbers for health and metrics.

        Now: `transactions_running`, `transactions_waiting_ack`, `pending` (unanswered incoming calls), `dialogs`
        (answered calls), `calls` (all that leave something in memory). Since the start: `transactions_finished`,
        `malformed`, `strays`, `keep_alives`, `overloaded`, `late_wishes`, `retransmissions_received`,
        `forks_ignored`, `unanswerable`.
        """
        states = Counter(call.state for call in self._directory.calls.values())
        answered = states[CallState.ANSWERED] + states[CallState.HANGING_UP]
        return self._layer.counters + Counter(
            transactions_running=self._layer.running,
            transactions_waiting_ack=self._layer.waiting_ack + answered,
            pending=states[CallState.INCOMING],
            dialogs=states[CallState.CONFIRMED] + answered,
            calls=len(self._directory.calls),
        )

    @property
    def unanswered(self) -> int:
        """How many of our requests still wait for a final response."""
        return self._layer.unanswered

    def deadline(self) -> Deadline:
        """The earliest deadline of all transactions and calls."""
        return self._layer.schedule.deadline()

    def handle(self, what: Input | Tick, now: float) -> list[Effect]:
        """Take one input.

        Raises LocalError, with nothing sent and nothing changed, for a wish that cannot be written as SIP (a header
        field with a line end, a status out of range, a leg's name twice).
        """
        match what:
            case Tick():
                self._layer.schedule.wake(now)
            case Received():
                self._receive(what, now)
            case Undeliverable():
                self._layer.undeliverable(what, now)
            case SendInvite():
                self._dial(what, now)
            case _:
                self._wish(what, now)
        return self._layer.take()

    # -- datagrams ----------------------------------------------------------------------------------------------------

    def _receive(self, received: Received, now: float) -> None:
        if not received.data.strip(_KEEP_ALIVE):
            self._layer.counters["keep_alives"] += 1
            return
        try:
            message = parse_message(received.data)
        except RemoteError as error:
            self._malformed(error, received.source)
            return
        try:
            if isinstance(message, Request):
                self._request(stamp(message, received.source), received, now)
            elif not self._layer.hear(Heard(message, received.source), now):
                self._layer.counters["strays"] += 1
        except LocalError:  # what could be read cannot be written back
            self._layer.counters["unanswerable"] += 1

    def _malformed(self, error: RemoteError, source: Address) -> None:
        self._layer.counters["malformed"] += 1
        if not isinstance(error, MalformedRequest) or error.partial is None:
            return
        via = stamp_via(error.partial.vias[0], source)
        partial = attrs.evolve(error.partial, vias=(via, *error.partial.vias[1:]))
        try:
            data = encode_refusal(partial, error.reply, tag=self._layer.new_id())
        except LocalError:
            self._layer.counters["unanswerable"] += 1
            return
        self._layer.send(Send(data, response_address(via)))

    def _request(self, request: Request, received: Received, now: float) -> None:
        if self._layer.absorb(request, now):
            return
        if request.method == "ACK":
            self._ack(request, now)
            return
        if self._layer.full:
            self._layer.counters["overloaded"] += 1
            self._layer.respond_stateless(request, 503, self._retry_after)
            return
        merged = self._layer.merged(request)
        transaction = self._layer.open(request, received.source)
        if request.method == "CANCEL":
            self._cancel(transaction, now)
            return
        refused = refusal(request)
        if refused is not None:
            self._layer.respond(transaction, refused.status, now, lines=refused.lines)
        elif request.to.tag is not None:
            self._in_dialog(transaction, now)
        elif merged:
            self._layer.respond(transaction, 482, now)
        else:
            self._new(transaction, received.local_host, now)

    def _ack(self, ack: Request, now: float) -> None:
        found = self._directory.dialogs.get((ack.call_id, ack.to.tag or "", ack.from_.tag or ""))
        if found is None:
            self._layer.counters["strays"] += 1
        else:
            found[0].acked(ack, now)

    def _cancel(self, transaction: ServerTransaction, now: float) -> None:
        """Section 9.2: 200 to the CANCEL, then what it means for the INVITE if that is still unanswered."""
        invite = self._layer.invite_of(transaction.request)
        if invite is None:
            self._layer.respond(transaction, 481, now)
            return
        call = self._call_of(invite)
        tag = invite.final.to.tag if invite.final else call.tag if call else None
        self._layer.respond(transaction, 200, now, tag=tag)
        if call is not None and invite.final is None:
            call.cancelled(invite, now)

    def _call_of(self, invite: ServerTransaction) -> Call | None:
        request = invite.request
        if request.to.tag is None:
            return self._directory.invites.get(invite)
        found = self._directory.dialogs.get((request.call_id, request.to.tag, request.from_.tag or ""))
        return None if found is None else found[0]

    def _in_dialog(self, transaction: ServerTransaction, now: float) -> None:
        request = transaction.request
        found = self._directory.dialogs.get((request.call_id, request.to.tag or "", request.from_.tag or ""))
        if found is None:
            self._layer.respond(transaction, 481, now)
            return
        call, dialog = found
        if not dialog.in_order(request.cseq):
            self._layer.respond(transaction, 500, now)
        elif request.method == "OPTIONS":
            self._layer.respond(transaction, 200, now, lines=CAPABILITIES)
        else:
            call.request(transaction, dialog, now)

    def _new(self, transaction: ServerTransaction, local_host: str, now: float) -> None:
        method = transaction.request.method
        if method == "OPTIONS":
            self._layer.respond(transaction, 200, now, lines=CAPABILITIES)
        elif method != "INVITE":  # BYE, INFO, UPDATE live in dialogs only
            self._layer.respond(transaction, 481, now)
        elif len(self._directory.live) >= self.config.max_calls:
            self._layer.counters["overloaded"] += 1
            self._layer.respond(transaction, 503, now, lines=self._retry_after)
        else:
            call = UasCall(transaction, local_host, self._layer, self._directory)
            self._directory.enter(call)
            call.ring(now)

    @property
    def _retry_after(self) -> Lines:
        return (("Retry-After", str(self.config.retry_after)),)

    # -- wishes -------------------------------------------------------------------------------------------------------

    def _dial(self, wish: SendInvite, now: float) -> None:
        if wish.leg in self._directory.live:
            raise LocalError(f"there is a leg {wish.leg!r} already")
        if wish.callee.scheme != "sip":
            self._layer.emit(CallRefused(wish.leg, 416, "Unsupported URI Scheme"))
        elif len(self._directory.live) >= self.config.max_calls:
            self._layer.counters["overloaded"] += 1
            self._layer.emit(CallRefused(wish.leg, 503, "Too many calls"))
        else:
            call = UacCall(wish, self._layer, self._directory)
            call.dial(wish, now)
            self._directory.enter(call)

    def _wish(self, wish: Wish, now: float) -> None:
        _check(wish)
        call = self._directory.calls.get(wish.leg)
        if call is None:
            self._layer.counters["late_wishes"] += 1
        else:
            call.wish(wish, now)


def _check(wish: Wish) -> None:
    """Raise LocalError for a wish that must not change anything because it could not be sent."""
    match wish:
        case Answer(headers=headers) | HangUp(headers=headers):
            _check_lines(headers)
        case Refuse(status=status, headers=headers):
            if not 300 <= status <= 699:
                raise LocalError(f"{status} does not refuse a call")
            _check_lines(headers)
        case Ring(status=status):
            if not 101 <= status <= 199:
                raise LocalError(f"{status} is not a provisional response")
        case SendDigit(digit=digit):
            if len(digit) != 1 or digit not in "0123456789*#ABCD":
                raise LocalError(f"{digit[:8]!r} is no DTMF digit")


_SPECIMEN = Response(
    status=200,
    reason="OK",
    vias=(Via("UDP", "localhost"),),
    from_=NameAddr(Uri("sip", None, None, "localhost")),
    to=NameAddr(Uri("sip", None, None, "localhost")),
    call_id="specimen",
    cseq=CSeq(1, "OPTIONS"),
)


def _check_lines(lines: Lines) -> None:
    if lines:
        encode_message(attrs.evolve(_SPECIMEN, lines=lines))
