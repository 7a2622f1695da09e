"""The transaction layer: the transaction of each message (RFC 3261 17.1.3, 17.2.3), started, run and forgotten.

It also holds what every part of the endpoint needs: the configuration, the ids, the schedule, and the effects of
the input at hand.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Protocol

import attrs

from rustpbx.core import Deadline, Tick
from rustpbx.journal import Journal
from rustpbx.sip.addressing import addressed
from rustpbx.sip.admission import AdmissionRules
from rustpbx.sip.branch import COOKIE
from rustpbx.sip.delivery import Acknowledgement, Delivery, Owner
from rustpbx.sip.dialog import DialogKey
from rustpbx.sip.encoder import encode_message
from rustpbx.sip.events import (
    Alias,
    Effect,
    Emit,
    Fact,
    Keep,
    LetGo,
    Locate,
    Located,
    RegistrationChanged,
    Send,
    Undeliverable,
)
from rustpbx.sip.extensions import Extensions
from rustpbx.sip.hop import Hop, Target, Transport, hop_uri, is_literal
from rustpbx.sip.locate import Unlocated, locate
from rustpbx.sip.message import REASONS, CSeq, Lines, NameAddr, Request, Response, Via
from rustpbx.sip.outages import Outages
from rustpbx.sip.passing import PassList
from rustpbx.sip.schedule import Schedule
from rustpbx.sip.tables import InviteClient, InviteServer, RequestClient
from rustpbx.sip.timing import Timing
from rustpbx.sip.transaction import (
    Cancelled,
    ClientEffect,
    ClientInput,
    ClientTransaction,
    Failed,
    Heard,
    ServerTransaction,
)
from rustpbx.sip.uri import Params, Uri

log = Journal(__name__)


@attrs.frozen(kw_only=True)
class EndpointConfig:
    """How the endpoint presents itself, and its bounds.

    `port` is the one we advertise in Via and Contact (0: `Stack` puts in the bound one), `ports` has those of the other
    transports that we listen on, `callid_suffix` is the host part of our Call-IDs. A request of more
    than `mtu` bytes goes by TCP where the transport is left to us (18.1.1; 0: never). Above `max_calls` live calls, or
    `max_transactions` requests of peers being served, strangers get 503 with Retry-After (seconds), and nothing is kept
    of them. Running calls may have as many transactions again.

    At most `max_redirects` targets that 3xx name are called instead of a callee; with 0, a 3xx refuses the call.
    `redirect_refusal` is asked for each with the call's leg, and says why it may not be called, or "".

    `pass_headers` are the header fields of peers that the session is shown.

    `admission` says which requests of strangers are served at all; `nonce_key`, 32 bytes that nobody else knows, seals
    the nonces of their challenges. `extensions` are what we do beyond RFC 3261.
    """

    user_agent: str = "rustpbx"
    port: int = 0
    callid_suffix: str = "rustpbx.com"
    ports: Mapping[Transport, int] = MappingProxyType({})
    mtu: int = 1300
    max_transactions: int = 20_000
    max_calls: int = 2_000
    retry_after: int = 5
    max_redirects: int = 5
    redirect_refusal: Callable[[str, Uri], str] = lambda _leg, _target: ""
    pass_headers: PassList = attrs.field(factory=PassList)
    admission: AdmissionRules = attrs.field(factory=AdmissionRules)
    nonce_key: bytes = attrs.field(default=b"", repr=False)
    extensions: Extensions = attrs.field(factory=Extensions)
    timing: Timing = attrs.field(factory=Timing)

    def port_of(self, transport: Transport) -> int | None:
        """Where we listen for this transport; None if we do not."""
        return self.port if transport is Transport.UDP else self.ports.get(transport)

    @property
    def spoken(self) -> tuple[Transport, ...]:
        """The transports to choose among where a target names none, the one we like best first (RFC 3263 4.1)."""
        return tuple(t for t in (Transport.UDP, Transport.TCP, Transport.TLS) if self.port_of(t) is not None)


class Seeker(Protocol):
    """Who waits for the servers of a target."""

    def located(self, found: tuple[Hop, ...] | Unlocated, now: float) -> None:
        """They are known, or there are none."""
        ...


ServerKey = tuple[str, str, int | None, str]
MergeKey = tuple[str, str, int, str]


@attrs.define(eq=False)
class _Client:
    layer: TransactionLayer
    key: str
    transaction: ClientTransaction
    delivery: Delivery | None

    def deadline(self) -> Deadline:
        return self.transaction.deadline()

    def wake(self, now: float) -> None:
        self.layer.feed_client(self, Tick(), now)


@attrs.define(eq=False)
class _Server:
    layer: TransactionLayer
    key: ServerKey
    transaction: ServerTransaction

    def deadline(self) -> Deadline:
        return self.transaction.deadline()

    def wake(self, now: float) -> None:
        self.layer.feed_server(self, Tick(), now)


def stamp_via(via: Via, source: Hop) -> Via:
    """The top Via of a request with `received` and `rport`, as far as they are owed (18.2.1, RFC 3581 4)."""
    host, port = source.address
    params = via.params.without("received")  # ours to say, not the sender's
    if "rport" in params:
        params = params.set("rport", str(port)).set("received", host)
    elif via.host != host:
        params = params.set("received", host)
    return attrs.evolve(via, params=params)


def stamp(request: Request, source: Hop) -> Request:
    """The request with its top Via stamped."""
    return attrs.evolve(request, vias=(stamp_via(request.via, source), *request.vias[1:]))


def response_hop(via: Via, source: Hop) -> Hop:
    """Where the responses to a request from `source` go, by its stamped top Via (18.2.2, RFC 3581 4).

    Over a connection, first of all by the same one; if it is gone, to where the peer listens, which is not the port
    that the connection came from.
    """
    host, sent_by = via.params.get("received") or via.host, via.port or source.transport.default_port
    port = via.params.get("rport") or ""
    if source.transport.reliable or not port.isdigit():
        domain = source.domain or ("" if is_literal(via.host) else via.host)
        return Hop(source.transport, (host, sent_by), source.flow, domain if source.transport.secure else "")
    return Hop(source.transport, (host, int(port)))


def _client_key(branch: str, method: str) -> str:
    # Only CANCEL shares its branch with another transaction of ours, the INVITE it cancels.
    return f"{branch} CANCEL" if method == "CANCEL" else branch


def _server_key(request: Request, method: str) -> ServerKey:
    via = request.via
    branch = via.branch or ""
    if not branch.startswith(COOKIE) or branch == COOKIE:
        # An RFC 2543 peer, or one whose branches are all the same: what it keeps constant in copies and ACK.
        branch = f"{request.call_id} {request.cseq.number} {request.from_.tag}"
    return branch, via.host.lower(), via.port, method


def _merge_key(request: Request) -> MergeKey:
    return request.from_.tag or "", request.call_id, request.cseq.number, request.method


class TransactionLayer:
    """All transactions of one endpoint, and the effects that gather while one input is handled (`take`)."""

    def __init__(self, config: EndpointConfig, rng: random.Random) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self.schedule = Schedule()
        self.outages = Outages()
        self._rng = rng
        self._seekers: dict[str, Seeker] = {}
        self._clients: dict[str, _Client] = {}
        self._servers: dict[ServerKey, _Server] = {}
        self._merged: dict[MergeKey, ServerKey] = {}
        self._effects: list[Effect] = []

    # -- what everybody needs -----------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """How many transactions there are."""
        return len(self._clients) + len(self._servers)

    @property
    def unanswered(self) -> int:
        """How many of our requests still wait for a final response."""
        return sum(entry.transaction.waiting for entry in self._clients.values()) + len(self._seekers)

    @property
    def waiting_ack(self) -> int:
        """How many INVITEs of peers we have refused and not seen the ACK of."""
        return sum(entry.transaction.state is InviteServer.COMPLETED for entry in self._servers.values())

    @property
    def serving(self) -> int:
        """How many requests of peers have a transaction."""
        return len(self._servers)

    def take(self) -> list[Effect]:
        """The effects gathered since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def emit(self, fact: Fact) -> None:
        """Tell the session."""
        self._effects.append(Emit(fact))

    def send(self, what: Send) -> None:
        """Send a datagram outside any transaction (ACK of a 2xx, stateless answers) or for one."""
        self._effects.append(what)

    def reuse(self, alias: Alias) -> None:
        """Let a connection serve for what we send."""
        self._effects.append(alias)

    def tell(self, what: Keep | LetGo | RegistrationChanged) -> None:
        """Have the shell do, or know, something that is no call's."""
        self._effects.append(what)

    def report_bug(self, where: str) -> None:
        """Count and log the exception at hand: a mistake of ours."""
        self.counters["bugs"] += 1
        log.exception("a bug in %s", where)  # noqa: LOG004 - called where it is handled

    def new_id(self) -> str:
        """A fresh tag or Call-ID part: 64 random bits."""
        return f"{self._rng.getrandbits(64):016x}"

    def first_rseq(self) -> int:
        """Where the numbers of reliable provisional responses begin (RFC 3262 3): below the first of them."""
        return self._rng.randrange(2**30)

    def random_seconds(self, most: int) -> int:
        """A random whole number of seconds, 0 to `most`."""
        return self._rng.randint(0, most)

    def random_between(self, least: float, most: float) -> float:
        """A random number of seconds, in units of 10 ms (14.1)."""
        return self._rng.randint(round(100 * least), round(100 * most)) / 100

    def new_via(self, local_host: str) -> Via:
        """A fresh top Via that asks for `rport` (RFC 3581 3); `addressed` makes it that of another transport."""
        params = Params((("branch", COOKIE + self.new_id()), ("rport", None)))
        return Via(Transport.UDP, local_host, self.config.port, params)

    def addressed(self, request: Request, hop: Hop) -> Request:
        """The request as it goes by this hop: its Via and a Contact of ours tell how we are reached there."""
        return addressed(request, hop, self.config.port_of)

    # -- our requests -------------------------------------------------------------------------------------------------

    def start(
        self,
        request: Request,
        target: Target,
        owner: Owner | None,
        now: float,
        *,
        call: str = "",
        prefer: Hop | None = None,
    ) -> Delivery:
        """Send a request of ours; its outcomes go to `owner`. `call` and `prefer` are as in `Delivery`.

        Raises LocalError, with nothing sent, if it cannot be written as SIP.
        """
        delivery = Delivery(self, request, target, owner, call=call, prefer=prefer)
        delivery.begin(now)
        return delivery

    def acknowledge(self, ack: Request, target: Target, now: float, prefer: Hop | None = None) -> Acknowledgement:
        """Send the ACK of a 2xx."""
        acknowledgement = Acknowledgement(self, ack, target, prefer)
        acknowledgement.begin(now)
        return acknowledgement

    def known_hops(self, target: Target) -> tuple[Hop, ...] | None:
        """The servers for a target if that needs no DNS; else they must be asked for (`seek`)."""
        if isinstance(target, Hop):
            return (target,) if is_literal(target.address[0]) else None
        search = locate(target, self.config.spoken, self._rng)
        try:
            next(search)
        except StopIteration as end:
            return end.value if isinstance(end.value, tuple) else None
        return None

    def seek(self, key: str, target: Target, seeker: Seeker) -> None:
        """Let the servers for a target be found."""
        self._seekers[key] = seeker
        self._effects.append(Locate(key, hop_uri(target) if isinstance(target, Hop) else target))

    def located(self, what: Located, now: float) -> None:
        """The servers that somebody waits for are known."""
        seeker = self._seekers.pop(what.key, None)
        if seeker is not None:
            seeker.located(what.hops or Unlocated(what.problem), now)

    def open_client(
        self, request: Request, hop: Hop, delivery: Delivery | None, now: float, *, call: str = ""
    ) -> ClientTransaction:
        """Begin the transaction of a request with one server."""
        transaction = ClientTransaction(self.addressed(request, hop), hop, self.config.timing, call=call)
        key = _client_key(transaction.branch, request.method)
        entry = _Client(self, key, transaction, delivery)
        self._clients[key] = entry
        self._run_client(entry, transaction.start(now), now)
        return transaction

    def send_cancel(self, invite: ClientTransaction, lines: Lines, now: float) -> None:
        """Send CANCEL for an INVITE that had a provisional response (section 9.1), to the very hop of the INVITE."""
        request = invite.request
        cancel = Request(
            method="CANCEL",
            uri=request.uri,
            vias=(request.via,),
            routes=request.routes,
            from_=request.from_,
            to=request.to,
            call_id=request.call_id,
            cseq=CSeq(request.cseq.number, "CANCEL"),
            lines=lines,
        )
        self.open_client(cancel, invite.destination, None, now, call=invite.call)
        entry = self._clients.get(invite.branch)
        if entry is not None:
            self.feed_client(entry, Cancelled(), now)

    def abandon(self, transaction: ClientTransaction, now: float) -> None:
        """Send no more copies to a server that is silent. An INVITE that it takes after all is still heard of."""
        entry = self._clients.get(_client_key(transaction.branch, transaction.request.method))
        if entry is None:
            return
        if transaction.request.method == "INVITE":
            self.feed_client(entry, Cancelled(), now)
        else:
            self._forget_client(entry)

    def waits_for(self, branch: str) -> bool:
        """Whether a transaction of ours has had no response at all."""
        entry = self._clients.get(branch)
        return entry is not None and entry.transaction.state in {InviteClient.CALLING, RequestClient.TRYING}

    def hear(self, heard: Heard, now: float) -> bool:
        """Take a response; False if no transaction of ours asked for it."""
        cseq = heard.response.cseq
        entry = self._clients.get(_client_key(heard.response.via.branch or "", cseq.method))
        if entry is None or entry.transaction.request.method != cseq.method or len(heard.response.vias) != 1:
            return False
        self.feed_client(entry, heard, now)
        return True

    def undeliverable(self, what: Undeliverable, now: float) -> None:
        """The transport could not send for a branch of ours."""
        for key in (what.branch, _client_key(what.branch, "CANCEL")):
            entry = self._clients.get(key)
            if entry is not None:
                self.feed_client(entry, what, now)

    def feed_client(self, entry: _Client, what: ClientInput, now: float) -> None:
        """Let a client transaction take an input. A bug of ours in it is a 500 to the owner, and the end of it."""
        try:
            effects = entry.transaction.handle(what, now)
        except Exception:  # noqa: BLE001 - reported in full, and contained
            self.report_bug(f"our {entry.transaction.request.method}")
            self._forget_client(entry)
            effects = [Failed(500, "internal error")]
        self._run_client(entry, effects, now)

    def _run_client(self, entry: _Client, effects: list[ClientEffect], now: float) -> None:
        if entry.transaction.done:
            self._forget_client(entry)
        gone = entry.key not in self._clients
        if not gone:
            self.schedule.book(entry.key, entry)
        for effect in effects:
            if isinstance(effect, Send):
                self.send(effect)
            elif entry.delivery is not None:
                entry.delivery.outcome(entry.transaction.request, effect, now)
        if gone and entry.delivery is not None:
            entry.delivery.forgotten(entry.transaction, now)

    def _forget_client(self, entry: _Client) -> None:
        if self._clients.pop(entry.key, None) is not None:
            self.counters["transactions_finished"] += 1
        self.schedule.cancel(entry.key)

    # -- the peers' requests ------------------------------------------------------------------------------------------

    def absorb(self, request: Request, now: float) -> bool:
        """True if a request belongs to a transaction we have: a copy, or the ACK of a refusal."""
        method = "INVITE" if request.method == "ACK" else request.method
        entry = self._servers.get(_server_key(request, method))
        if entry is None:
            return False
        if request.method == "ACK" and entry.transaction.state is InviteServer.ACCEPTED:
            return False  # a peer that reuses the branch in the ACK of a 2xx; the dialog takes it
        if request.method != "ACK":
            self.counters["retransmissions_received"] += 1
        self.feed_server(entry, request, now)
        return True

    def merged(self, request: Request) -> bool:
        """True if the same request outside a dialog arrived by another path (8.2.2.2)."""
        return request.to.tag is None and _merge_key(request) in self._merged

    def open(self, request: Request, source: Hop) -> ServerTransaction:
        """Begin the transaction of a new, stamped request."""
        key = _server_key(request, request.method)
        transaction = ServerTransaction(request, source, response_hop(request.via, source), self.config.timing)
        self._servers[key] = _Server(self, key, transaction)
        if request.to.tag is None:
            self._merged.setdefault(_merge_key(request), key)
        return transaction

    def is_ours(self, request: Request) -> bool:
        """Whether this is a request of ours that has come back as it was, a loop (8.2.2.2, 16.3).

        One with another Request-URI is a spiral: somebody has sent it on to an address of ours, as he should.
        """
        for via in request.vias:
            entry = self._clients.get(_client_key(via.branch or "", request.method))
            if entry is not None and entry.transaction.request.uri == request.uri:
                return True
        return False

    def invite_of(self, cancel: Request) -> ServerTransaction | None:
        """The INVITE transaction that a CANCEL means (section 9.2)."""
        entry = self._servers.get(_server_key(cancel, "INVITE"))
        return None if entry is None else entry.transaction

    def respond(
        self,
        transaction: ServerTransaction,
        status: int,
        now: float,
        *,
        tag: str | None = None,
        contact: NameAddr | None = None,
        lines: Lines = (),
        body: bytes = b"",
    ) -> Response:
        """Answer a request; returns what was sent. `tag` completes the To of a request outside a dialog."""
        response = self.make_response(transaction.request, status, tag=tag, contact=contact, lines=lines, body=body)
        entry = self._servers.get(_server_key(transaction.request, transaction.request.method))
        if entry is not None:
            self._run_server(entry, transaction.handle(response, now))
        return response

    def fail(self, transaction: ServerTransaction, now: float, tag: str | None = None) -> None:
        """Answer 500 where a bug of ours left a request without an answer; forget it if even that fails."""
        if transaction.final is not None:
            return
        try:
            self.respond(transaction, 500, now, tag=tag)
        except Exception:  # noqa: BLE001 - reported in full, and contained
            self.report_bug(f"the 500 to a {transaction.request.method}")
            entry = self._servers.get(_server_key(transaction.request, transaction.request.method))
            if entry is not None:
                self._forget_server(entry)

    def fail_requests(self, dialogs: Collection[DialogKey], now: float) -> None:
        """Answer 500 to all requests of these dialogs that have no answer. Looks at every transaction."""
        tags = {(call_id, remote): local for call_id, local, remote in dialogs}
        for entry in list(self._servers.values()):
            request = entry.transaction.request
            tag = tags.get((request.call_id, request.from_.tag or ""))
            if tag is not None:
                self.fail(entry.transaction, now, tag)

    def respond_stateless(self, request: Request, source: Hop, status: int, lines: Lines = ()) -> None:
        """Answer without keeping a transaction: overload. The tag follows from the branch (8.2.7)."""
        tag = f"x{zlib.crc32(repr(_server_key(request, request.method)).encode()):08x}"
        response = self.make_response(request, status, tag=tag, lines=lines)
        self.send(Send(encode_message(response), response_hop(request.via, source)))

    def make_response(
        self,
        request: Request,
        status: int,
        *,
        tag: str | None = None,
        contact: NameAddr | None = None,
        lines: Lines = (),
        body: bytes = b"",
    ) -> Response:
        """Build a response (8.2.6). One with a Contact forms a dialog, so it also copies the Record-Route (12.1.1)."""
        to = request.to
        if to.tag is None and status > 100:
            to = to.tagged(tag or self.new_id())
        head: Lines = (("Server", self.config.user_agent),)
        if status == 100:
            head += tuple(("Timestamp", value) for value in request.all("Timestamp"))
        if body:
            lines = (*lines, ("Content-Type", "application/sdp"))
        return Response(
            status=status,
            reason=REASONS.get(status, "Unknown"),
            vias=request.vias,
            from_=request.from_,
            to=to,
            call_id=request.call_id,
            cseq=request.cseq,
            contacts=() if contact is None else (contact,),
            record_routes=() if contact is None else request.record_routes,
            lines=head + lines,
            body=body,
        )

    def feed_server(self, entry: _Server, what: Request | Tick, now: float) -> None:
        """Let a server transaction take a copy, an ACK or a tick. A bug of ours in it is the end of it."""
        try:
            sends = entry.transaction.handle(what, now)
        except Exception:  # noqa: BLE001 - reported in full, and contained
            self.report_bug(f"the answer to a {entry.transaction.request.method}")
            self._forget_server(entry)
        else:
            self._run_server(entry, sends)

    def _run_server(self, entry: _Server, sends: list[Send]) -> None:
        self._effects += sends
        if entry.transaction.done:
            self._forget_server(entry)
        else:
            self.schedule.book(entry.key, entry)

    def _forget_server(self, entry: _Server) -> None:
        if self._servers.pop(entry.key, None) is not None:
            self.counters["transactions_finished"] += 1
        self.schedule.cancel(entry.key)
        merge = _merge_key(entry.transaction.request)
        if self._merged.get(merge) == entry.key:
            del self._merged[merge]
