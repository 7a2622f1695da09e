"""The SIP user agent as one sans-IO core: datagrams and wishes in, datagrams and facts out.

`handle` sorts what comes in: responses to their transactions, requests to a copy's transaction, a dialog's call, or
the rules for new ones (RFC 3261 8.2), wishes to their call.
"""

from __future__ import annotations

import random
from collections import Counter

import attrs

from rustpbx.core import Deadline, Tick
from rustpbx.errors import LocalError, RemoteError
from rustpbx.journal import Journal
from rustpbx.sip.admission import Admission, Admitted, Refused, source_of
from rustpbx.sip.answers import Refusal, capabilities, refusal
from rustpbx.sip.call import Call, Directory
from rustpbx.sip.dialog import DialogKey
from rustpbx.sip.encoder import encode_refusal
from rustpbx.sip.events import (
    Alias,
    CallRefused,
    Effect,
    FlowLost,
    Garbled,
    Input,
    Located,
    Received,
    Register,
    Send,
    SendInvite,
    Undeliverable,
    Unregister,
    Wish,
)
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.layer import EndpointConfig, TransactionLayer, response_hop, stamp, stamp_via
from rustpbx.sip.message import Request
from rustpbx.sip.multipart import with_session
from rustpbx.sip.parser import MalformedRequest, parse_message
from rustpbx.sip.registrations import Registrations
from rustpbx.sip.replaces import Successor, parse_replaces
from rustpbx.sip.replaces import refusal as cannot_replace
from rustpbx.sip.tables import CallState
from rustpbx.sip.transaction import Heard, ServerTransaction
from rustpbx.sip.uac import UacCall
from rustpbx.sip.uas import UasCall
from rustpbx.sip.uri import Uri
from rustpbx.sip.wishes import check_wish

__all__ = ["Endpoint", "EndpointConfig"]

log = Journal(__name__)

_KEEP_ALIVE = b"\r\n\0 \t"


class Endpoint:
    """One user agent: a `Core` over `rustpbx.sip.events`.

    `rng` makes tags, branches and Call-IDs (`random.SystemRandom()` in earnest, a seeded one in tests).
    """

    def __init__(self, config: EndpointConfig, rng: random.Random) -> None:
        self.config = config
        self._layer = TransactionLayer(config, rng)
        self._directory = Directory()
        self._registrations = Registrations(self._layer)
        self._admission = Admission(config.admission, config.nonce_key)

    @property
    def done(self) -> bool:
        """Never: a server waits for the next call."""
        return False

    @property
    def counters(self) -> Counter[str]:
        """Numbers for health and metrics.

        Now: `transactions_running`, `transactions_waiting_ack`, `pending` (unanswered incoming calls), `dialogs`
        (answered calls), `calls` (all that leave something in memory), `sources` of strangers' requests that are
        remembered, `sources_failing` of those (they sent wrong passwords). Since the start: `transactions_finished`,
        `malformed`, `strays`, `keep_alives`, `overloaded`, `late_wishes`, `retransmissions_received`,
        `forks_ignored`, `looped`, `refused_` and why (see `Admission`), `flows_lost`, `unanswerable`, `bugs`
        (exceptions of ours; each ended the call it was in).
        """
        states = Counter(call.state for call in self._directory.calls.values())
        answered = states[CallState.ANSWERED] + states[CallState.HANGING_UP]
        return (
            self._layer.counters
            + self._admission.counters
            + Counter(
                transactions_running=self._layer.running,
                transactions_waiting_ack=self._layer.waiting_ack + answered,
                pending=states[CallState.INCOMING],
                dialogs=states[CallState.CONFIRMED] + answered,
                calls=len(self._directory.calls),
                sources=self._admission.sources,
                sources_failing=self._admission.failing,
            )
        )

    def first_stop(self, caller: Uri, callee: Uri) -> Uri:
        """What a call goes to first: its callee, or the proxy of the account that places it."""
        return self._registrations.first_stop(caller, callee)

    @property
    def unanswered(self) -> int:
        """How many of our requests still wait for a final response."""
        return self._layer.unanswered

    def waits_for(self, branch: str) -> bool:
        """Whether a request of ours has had no response at all."""
        return self._layer.waits_for(branch)

    @property
    def flows_in_use(self) -> frozenset[int]:
        """The numbers of the connections that dialogs have their peers on."""
        return frozenset(dialog.peer.flow for _, dialog in self._directory.dialogs.values())

    def call_id(self, leg: str) -> str | None:
        """The SIP Call-ID of a leg; None if there is none of that name, or nothing of it is left."""
        call = self._directory.calls.get(leg)
        return None if call is None else call.call_id

    def successor_id(self, leg: str) -> str | None:
        """The Call-ID of the call that wants to take this leg's place; None if there is none."""
        call = self._directory.calls.get(leg)
        return None if call is None or call.successor is None else call.successor.call_id

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
            case Garbled(error=error, source=source):
                self._malformed(error, source, now)
            case Located():
                self._layer.located(what, now)
            case FlowLost():
                self._layer.counters["flows_lost"] += 1
                self._registrations.flow_lost(what, now)
            case Register():
                self._registrations.register(what, now)
            case Unregister(name=name):
                self._registrations.unregister(name, now)
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
            self._malformed(error, received.source, now)
            return
        try:
            if isinstance(message, Request):
                self._alias(message, received.source)
                self._request(stamp(message, received.source), received, now)
            elif not self._layer.hear(Heard(with_session(message), received.source), now):
                self._layer.counters["strays"] += 1
        except LocalError:  # what could be read cannot be written back
            self._layer.counters["unanswerable"] += 1

    def _alias(self, request: Request, source: Hop) -> None:
        """The peer offers its connection for our own requests to it (RFC 5923 8.1)."""
        if source.flow and "alias" in request.via.params and source.transport in {Transport.TCP, Transport.TLS}:
            self._layer.reuse(Alias(source.flow, request.via.port or source.transport.default_port))

    def _malformed(self, error: RemoteError, source: Hop, now: float) -> None:
        self._layer.counters["malformed"] += 1
        if not isinstance(error, MalformedRequest) or error.partial is None:
            return
        verdict = self._admission.hears(source.address[0], now)
        if isinstance(verdict, Refused):
            self._tell_refusal(f"an unreadable {error.partial.method[:20]}", source, verdict)
            return
        via = stamp_via(error.partial.vias[0], source)
        partial = attrs.evolve(error.partial, vias=(via, *error.partial.vias[1:]))
        try:
            data = encode_refusal(partial, error.reply, tag=self._layer.new_id())
        except LocalError:
            self._layer.counters["unanswerable"] += 1
            return
        self._layer.send(Send(data, response_hop(via, source)))

    def _request(self, request: Request, received: Received, now: float) -> None:
        if self._layer.absorb(request, now):
            return
        if request.method == "ACK":
            self._ack(with_session(request), now)
            return
        known = self._belongs(request)
        if not known and not self._admitted(request, received.source, now):
            return
        if self._overloaded(request, known=known):
            self._layer.counters["overloaded"] += 1
            log.warning("refused %s from %s: overloaded", request.method, received.source.address[0])
            retry = ("Retry-After", str(self.config.retry_after))
            self._layer.respond_stateless(request, received.source, 503, (retry,))
            return
        if not known and self._answered_at_once(request, received.source):
            return
        merged = self._layer.merged(request)
        transaction = self._layer.open(with_session(request), received.source)
        try:
            self._serve(transaction, received.local_host, now, merged=merged)
        except Exception:  # noqa: BLE001 - reported in full, and contained
            self._layer.report_bug(f"a {request.method} from {received.source}")
            self._layer.fail(transaction, now)

    def _overloaded(self, request: Request, *, known: bool) -> bool:
        """Whether to turn a request away. Who calls already has a place of his own, so that floods end no call."""
        serving, most = self._layer.serving, self.config.max_transactions
        if known:
            return serving >= 2 * most
        no_room = len(self._directory.live) >= self.config.max_calls
        return serving >= most or (no_room and request.method == "INVITE" and request.to.tag is None)

    def _belongs(self, request: Request) -> bool:
        """Whether a request is part of a call that we have let in."""
        return _dialog_key(request) in self._directory.dialogs or (
            request.method == "CANCEL" and self._layer.invite_of(request) is not None
        )

    def _admitted(self, request: Request, source: Hop, now: float) -> bool:
        """Ask whether a stranger may begin something; answer him if not, or leave him without an answer."""
        host = source.address[0]
        calls = self._calls_of(host) if self.config.admission.calls else 0
        verdict = self._admission.judge(request, host, calls, now)
        if isinstance(verdict, Admitted):
            return True
        self._tell_refusal(request.method, source, verdict)
        if verdict.status is not None:
            self._layer.respond_stateless(request, source, verdict.status, verdict.lines)
        return False

    def _tell_refusal(self, what: str, source: Hop, verdict: Refused) -> None:
        """One line for a source and a reason, and now and then one for many; a flood of sources is told in numbers."""
        number = f", {verdict.number} times by now" if verdict.number > 1 else ""
        text = f"refused %s from %s: {verdict.reason}%s"  # the reason is part of the kind that the journal counts
        if verdict.noteworthy:
            log.warning(text, what, source.address[0], number)
        else:
            log.debug(text, what, source.address[0], number)

    def _calls_of(self, host: str) -> int:
        """How many calls a source has placed that are up."""
        source, legs = source_of(host), (self._directory.calls[leg].leg for leg in self._directory.live)
        return sum(
            leg.dialog is not None and not leg.calling and source_of(leg.dialog.peer.address[0]) == source
            for leg in legs
        )

    def _answered_at_once(self, request: Request, source: Hop) -> bool:
        """Answer what begins nothing, and keep nothing of it: such answers are the same each time (8.2.7)."""
        try:
            answer = self._answer_at_once(request)
        except Exception:  # noqa: BLE001 - reported in full, and contained
            self._layer.report_bug(f"a {request.method} from {source}")
            answer = Refusal(500)
        if answer is not None:
            self._layer.respond_stateless(request, source, answer.status, answer.lines)
        return answer is not None

    def _answer_at_once(self, request: Request) -> Refusal | None:
        if request.method == "INVITE":
            looped = self._layer.is_ours(request)
            self._layer.counters["looped"] += looped
            return Refusal(482) if looped else None
        refused = None if request.method == "CANCEL" else refusal(request, self.config.extensions)
        if refused is not None:
            return refused
        if request.method == "REFER" and request.to.tag is None:  # who is in no call with us has nobody to transfer
            return Refusal(403)
        is_question = request.method == "OPTIONS" and request.to.tag is None
        return (
            Refusal(200, capabilities(self.config.extensions)) if is_question else Refusal(481)
        )  # what is of calls only

    def _serve(self, transaction: ServerTransaction, local_host: str, now: float, *, merged: bool) -> None:
        request = transaction.request
        refused = None if request.method == "CANCEL" else refusal(request, self.config.extensions)
        if request.method == "CANCEL":
            self._cancel(transaction, now)
        elif refused is not None:
            self._layer.respond(transaction, refused.status, now, lines=refused.lines)
        elif request.to.tag is not None:
            self._in_dialog(transaction, now)
        elif merged:
            self._layer.respond(transaction, 482, now)
        else:
            self._new(transaction, local_host, now)

    def _ack(self, ack: Request, now: float) -> None:
        found = self._directory.dialogs.get(_dialog_key(ack))
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
        if call is not None:
            transaction.serves(call.leg.name)
        tag = invite.final.to.tag if invite.final else call.tag if call else None
        self._layer.respond(transaction, 200, now, tag=tag)
        if call is not None and invite.final is None:
            call.cancelled(invite, transaction.request, now)

    def _call_of(self, invite: ServerTransaction) -> Call | None:
        request = invite.request
        if request.to.tag is None:
            return self._directory.invites.get(invite)
        found = self._directory.dialogs.get(_dialog_key(request))
        return None if found is None else found[0]

    def _in_dialog(self, transaction: ServerTransaction, now: float) -> None:
        request = transaction.request
        found = self._directory.dialogs.get(_dialog_key(request))
        if found is None:
            self._layer.respond(transaction, 481, now)
            return
        call, dialog = found
        transaction.serves(call.leg.name)
        if not dialog.in_order(request.cseq):
            self._layer.respond(transaction, 500, now)
            return
        dialog.peer = transaction.source  # a NAT on the way may have moved it
        if request.method == "OPTIONS":
            self._layer.respond(transaction, 200, now, lines=capabilities(self.config.extensions))
        else:
            call.request(transaction, dialog, now)

    def _new(self, transaction: ServerTransaction, local_host: str, now: float) -> None:
        contact = self._registrations.contact_of(transaction.request.uri)
        try:
            replaces = parse_replaces(transaction.request)
        except RemoteError as error:
            self._layer.respond(transaction, error.reply, now)
            return
        if replaces is None:
            call = UasCall(transaction, local_host, self._layer, self._directory, contact)
        else:
            replaced, _ = self._directory.dialogs.get(replaces.key, (None, None))
            status = cannot_replace(replaced, replaces)
            if replaced is None or status:
                self._layer.respond(transaction, status, now)
                return
            call = Successor(transaction, local_host, self._layer, self._directory, contact, replaced)
        self._directory.enter(call)
        call.ring(now)

    # -- wishes -------------------------------------------------------------------------------------------------------

    def _dial(self, wish: SendInvite, now: float) -> None:
        check_wish(wish)
        if wish.leg in self._directory.live:
            raise LocalError(f"there is a leg {wish.leg!r} already")
        if wish.callee.scheme not in {"sip", "sips"}:
            self._layer.emit(CallRefused(wish.leg, 416, "Unsupported URI Scheme"))
        elif len(self._directory.live) >= self.config.max_calls:
            self._layer.counters["overloaded"] += 1
            self._layer.emit(CallRefused(wish.leg, 503, "Too many calls"))
        else:
            wish = self._registrations.dressed(wish)
            call = UacCall(wish, self._layer, self._directory)
            call.dial(wish, now)
            self._directory.enter(call)

    def _wish(self, wish: Wish, now: float) -> None:
        check_wish(wish)
        call = self._directory.calls.get(wish.leg)
        if call is None:
            self._layer.counters["late_wishes"] += 1
        else:
            call.wish(wish, now)


def _dialog_key(request: Request) -> DialogKey:
    """The dialog that a request of the peer's says it belongs to; no dialog of ours has an empty tag of ours."""
    return request.call_id, request.to.tag or "", request.from_.tag or ""
