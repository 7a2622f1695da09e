"""Registrations: an account tells its registrar where it can be reached, again and again (RFC 3261 10.2).

One Call-ID and a rising CSeq for each account; refreshed at three quarters of what was granted; the registrar's view
of our address believed where a NAT is between (RFC 3581); back-off after trouble.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import attrs

from rustpbx.core import Deadline
from rustpbx.errors import LocalError
from rustpbx.machine import Machine
from rustpbx.sip.addressing import our_contact
from rustpbx.sip.auth import DigestClient
from rustpbx.sip.bindings import LONGEST_GRANT, granted, parse_seconds, seen_at, service_route
from rustpbx.sip.delivery import Delivery
from rustpbx.sip.events import FlowLost, Register, RegistrationChanged
from rustpbx.sip.headers import quote
from rustpbx.sip.hop import Hop, Transport, uri_hop, uri_transport
from rustpbx.sip.layer import TransactionLayer
from rustpbx.sip.leg import ALLOW, plain_lines
from rustpbx.sip.message import CSeq, Lines, NameAddr, Request, Response
from rustpbx.sip.outages import retry_after
from rustpbx.sip.tables import REGISTRATION, RegistrationAction, RegistrationState, RegistrationTrigger
from rustpbx.sip.transaction import Failed, Heard, Outcome
from rustpbx.sip.uri import NO_PARAMS, Params, Uri
from rustpbx.sip.ways import Ways

REFRESH = 0.75
"""The part of what was granted after which it is asked for again, less a random tenth of it."""
SHORTEST_REFRESH = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 1800.0
"""Seconds after trouble; doubled each time, and a random part less, so that not all of us ask at once."""
REFUSED_PAUSE = 600.0
"""Seconds after an answer that another try does not change."""
LONGEST_RETRY_AFTER = 3600
ANSWER_LIMIT = 150.0
"""Seconds for a registrar, all of its servers together."""
STOP_LIMIT = 1.0
"""Seconds that a registrar gets to answer that we leave: it would forget us anyway."""
MOST_MOVES = 3
"""New addresses that a registrar may show us in a row before one of them is kept."""
STEADY = 120.0
"""Seconds after which a way to the registrar was a good one: a new one is made at once then (RFC 5626 4.5)."""

_FAILURES = frozenset(
    {
        RegistrationTrigger.FAILED,
        RegistrationTrigger.REFUSED,
        RegistrationTrigger.ANSWER_LIMIT,
        RegistrationTrigger.FLOW_UNSTEADY,
    }
)
_SUCCESSES = frozenset({RegistrationTrigger.REFRESH_DUE, RegistrationTrigger.FLOW_LOST})
"""What says that the last registration held for a while."""

_MEANINGS = {
    RegistrationState.REGISTERING: "registering",
    RegistrationState.REGISTERED: "registered",
    RegistrationState.REFRESHING: "registered",
    RegistrationState.WAITING: "failed",
    RegistrationState.ENDED: "unregistered",
}


class Registration:
    """One account at its registrar."""

    def __init__(self, wish: Register, layer: TransactionLayer, ways: Ways) -> None:
        self.account = wish.account
        self.seen: Uri | None = None
        """Our Contact as the registrar sees us, if not as we do."""
        self._service_route: tuple[NameAddr, ...] = ()
        self._layer = layer
        self._ways = ways
        self._local_host = wish.local_host
        self._digest = DigestClient(wish.account.credentials) if wish.account.credentials else None
        self._call_id = f"{layer.new_id()}{layer.new_id()}@{layer.config.callid_suffix}"
        self._tag = layer.new_id()
        self._cseq = 0
        self._asked = wish.account.expires
        self._granted = 0
        self._stale: tuple[Uri, ...] = ()  # Contacts of ours that are to be forgotten
        self._moves = 0
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._status, self._reason = 0, ""
        self._hop: Hop | None = None
        self._hop_since = -math.inf
        self._delivery: Delivery | None = None
        self._machine = Machine[RegistrationState, RegistrationTrigger, RegistrationAction](
            REGISTRATION, self._duration, f"registration {wish.account.name}"
        )
        self._actions: Mapping[RegistrationAction, Callable[[Outcome | None, float], None]] = {
            RegistrationAction.SEND: lambda _, now: self._send(now),
            RegistrationAction.SEND_NEW_ADDRESS: lambda _, now: self._send(now),
            RegistrationAction.SEND_LONGER: lambda _, now: self._send(now),
            RegistrationAction.AUTHORIZE: self._authorize,
            RegistrationAction.NOTE: self._note,
            RegistrationAction.SEND_LAST: lambda _, now: self._send(now, expires=0),
            RegistrationAction.LET_GO: lambda _, __: self._let_go(),
            RegistrationAction.REPORT: lambda _, __: self._report(),
        }

    @property
    def state(self) -> RegistrationState:
        """Where it stands."""
        return self._machine.state

    @property
    def done(self) -> bool:
        """True when the registrar has been told, or nobody can tell it."""
        return self._machine.done

    @property
    def route(self) -> tuple[NameAddr, ...]:
        """What requests of this account are sent through: its proxy, then what the registrar asks for (RFC 3608 5)."""
        return (*self._proxy, *self._service_route)

    @property
    def _proxy(self) -> tuple[NameAddr, ...]:
        proxy = self.account.outbound_proxy
        if proxy is None:
            return ()
        return (NameAddr(attrs.evolve(proxy, params=proxy.params.set("lr", None))),)

    def deadline(self) -> Deadline:
        """When the next timer runs out."""
        return self._machine.deadline()

    def wake(self, now: float) -> None:
        """Take the timers that have run out."""
        for trigger in list(self._machine.fired(now)):
            if trigger is RegistrationTrigger.ANSWER_LIMIT:
                self._trouble(408, "no answer within the time limit")
            self._step(trigger, None, now)

    def start(self, now: float) -> None:
        """Register. Raises LocalError, with nothing sent, if the account cannot be written as SIP."""
        self._step(RegistrationTrigger.START, None, now)

    def stop(self, now: float) -> None:
        """Take the registration back."""
        self._step(RegistrationTrigger.STOP, None, now)

    def flow_lost(self, what: FlowLost, now: float) -> None:
        """The way to the registrar is gone, if this was it. One that never holds is let be if calls come by another."""
        if self._hop is None or what.hop != self._hop:
            return
        steady, only = now - self._hop_since >= STEADY, self._is_only_way(self._hop)
        self._hop = None
        if steady or only:
            self._trouble(0, what.problem)
            self._step(RegistrationTrigger.FLOW_LOST if steady else RegistrationTrigger.FLOW_UNSTEADY, None, now)

    def _is_only_way(self, hop: Hop) -> bool:
        """Whether our Contact names this very flow."""
        named = uri_transport(self._bound) is hop.transport
        return self.seen is not None or (named and self._layer.config.port_of(hop.transport) is None)

    def outcome(self, request: Request, outcome: Outcome, now: float) -> None:
        """What became of a REGISTER."""
        if request.cseq.number != self._cseq or (isinstance(outcome, Heard) and outcome.response.status < 200):
            return
        self._step(self._classify(outcome), outcome, now)

    # -- what an answer means -----------------------------------------------------------------------------------------

    def _classify(self, outcome: Outcome) -> RegistrationTrigger:
        if isinstance(outcome, Failed):
            self._trouble(outcome.status, outcome.reason)
            return RegistrationTrigger.FAILED
        response = outcome.response
        if response.status < 300:
            return self._classify_success(response)
        if response.status in {401, 407} and self._challenged(response):
            return RegistrationTrigger.CHALLENGE
        self._trouble(response.status, response.reason, retry_after(response))
        if response.status == 423 and self._longer(response):
            return RegistrationTrigger.TOO_BRIEF
        passing = response.status >= 500 or response.status in {408, 480, 486, 491}
        return RegistrationTrigger.FAILED if passing and response.status < 600 else RegistrationTrigger.REFUSED

    def _classify_success(self, response: Response) -> RegistrationTrigger:
        self._status, self._reason = response.status, response.reason
        if self.state is RegistrationState.UNREGISTERING:
            return RegistrationTrigger.OK
        self._granted = granted(response, self._bound, self._asked)
        if self._granted <= 0:
            self._trouble(response.status, "the registrar does not keep our Contact")
            return RegistrationTrigger.REFUSED
        if self._moved(response):
            return RegistrationTrigger.MOVED
        self._moves, self._stale = 0, ()
        return RegistrationTrigger.OK

    @property
    def _bound(self) -> Uri:
        """Our Contact, as the last REGISTER had it."""
        request = self._delivery.request if self._delivery is not None else None
        return request.contacts[0].uri if request is not None and request.contacts else Uri("sip", None, None, "")

    def _moved(self, response: Response) -> bool:
        """Whether the registrar sees us at another address than our Contact's, and we shall believe it."""
        bound = self._bound
        own = self._own_contact(Transport.of(response.via.transport) or Transport.UDP)
        seen = seen_at(response, bound, own) if self.account.nat and self._moves < MOST_MOVES else None
        if seen is None:
            return False
        self._moves += 1
        self._stale = tuple(uri for uri in (*self._stale, bound) if uri != seen)[-MOST_MOVES:]
        self.seen = None if seen == own else seen
        return True

    def _challenged(self, response: Response) -> bool:
        if self._digest is None:
            return False
        try:
            self._digest.challenged(response)
        except LocalError:
            return False
        return True

    def _longer(self, response: Response) -> bool:
        """Take what a 423 asks for, once and within reason (10.2.8)."""
        least = parse_seconds(response.header("Min-Expires"), 0, most=2**32)
        if not self._asked < least <= LONGEST_GRANT:
            return False
        self._asked = least
        return True

    def _trouble(self, status: int, reason: str, wait: float = 0.0) -> None:
        self._status, self._reason = status, reason
        spread = 0.5 + self._layer.random_seconds(500) / 1000
        refused = 300 <= status < 500 and status not in {408, 423, 480, 486, 491}
        self._pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE) * spread
        if refused:
            self._pause = max(self._pause, REFUSED_PAUSE)
        self._pause = max(self._pause, min(wait, LONGEST_RETRY_AFTER))

    # -- what is done -------------------------------------------------------------------------------------------------

    def _step(self, trigger: RegistrationTrigger, outcome: Outcome | None, now: float) -> None:
        if trigger in _FAILURES:
            self._failures += 1
        elif trigger in _SUCCESSES:
            self._failures = 0
        for action in self._machine.step(trigger, now):
            self._actions[action](outcome, now)
        if self._machine.done:
            self._layer.schedule.cancel(self)
        else:
            self._layer.schedule.book(self, self)

    def _send(self, now: float, expires: int | None = None) -> None:
        self._start(self._request(self._asked if expires is None else expires), now)

    def _request(self, expires: int) -> Request:
        account, layer = self.account, self._layer
        hop = uri_hop(account.outbound_proxy or account.registrar)
        contact = NameAddr(self.seen or self._own_contact(hop.transport), params=self._params)
        over = NO_PARAMS.set("expires", "0")
        self._cseq += 1
        return Request(
            method="REGISTER",
            uri=attrs.evolve(account.registrar, user=None, headers=""),
            vias=(layer.new_via(self._local_host),),
            routes=self._proxy,
            from_=account.aor.tagged(self._tag),
            to=account.aor,
            call_id=self._call_id,
            cseq=CSeq(self._cseq, "REGISTER"),
            contacts=(contact, *(NameAddr(uri, params=over) for uri in self._stale)),
            lines=self._authorized_lines(
                account.registrar,
                (
                    ("User-Agent", layer.config.user_agent),
                    ALLOW,
                    ("Supported", "path, outbound" if account.instance else "path"),  # RFC 3327 5.1, RFC 5626 4.2
                    ("Expires", str(expires)),
                ),
            ),
        )

    def _own_contact(self, transport: Transport) -> Uri:
        """Where we are reached if nothing is between."""
        aor, port_of = self.account.aor.uri, self._layer.config.port_of
        return our_contact(self._local_host, aor.user, transport, port_of, aor.scheme).uri

    @property
    def _params(self) -> Params:
        """What our Contact says of us: how much we want its calls, and who we are (RFC 5626 4.2)."""
        account, params = self.account, NO_PARAMS
        if account.q is not None:
            params = params.set("q", f"{account.q:.3g}")
        if account.instance:
            params = params.set("reg-id", "1").set("+sip.instance", quote(f"<{account.instance}>"))
        return params

    def _authorized_lines(self, uri: Uri, lines: Lines) -> Lines:
        if self._digest is None:
            return lines
        written = str(attrs.evolve(uri, user=None, headers=""))
        return lines + self._digest.authorization("REGISTER", written, b"", self._layer.new_id())

    def _start(self, request: Request, now: float) -> None:
        target = self.account.outbound_proxy or self.account.registrar
        self._delivery = self._layer.start(request, target, self, now, prefer=self._hop)

    def _authorize(self, _outcome: Outcome | None, now: float) -> None:
        """The same once more, with credentials and the next CSeq (22.2)."""
        challenged = self._delivery.request if self._delivery is not None else None
        if challenged is None or self._digest is None:
            return
        self._cseq += 1
        again = attrs.evolve(
            challenged,
            vias=(self._layer.new_via(self._local_host),),
            cseq=CSeq(self._cseq, "REGISTER"),
            lines=(),
        )
        self._digest.retried(challenged.via.branch or "", again.via.branch or "")
        lines = (("User-Agent", self._layer.config.user_agent), *plain_lines(challenged))
        self._start(attrs.evolve(again, lines=self._authorized_lines(self.account.registrar, lines)), now)

    def _note(self, outcome: Outcome | None, now: float) -> None:
        if not isinstance(outcome, Heard):
            return
        self._service_route = service_route(outcome.response)
        if self._hop != outcome.source:
            self._let_go()
            self._hop, self._hop_since = outcome.source, now
            self._ways.keep(outcome.source, self.account.name)

    def _let_go(self) -> None:
        if self._hop is not None:
            self._ways.let_go(self._hop, self.account.name)
            self._hop = None

    def _report(self) -> None:
        expires = self._granted if self.state is RegistrationState.REGISTERED else 0
        self._layer.tell(
            RegistrationChanged(self.account.name, _MEANINGS[self.state], expires, self._status, self._reason)
        )

    def _duration(self, trigger: RegistrationTrigger) -> float:
        match trigger:
            case RegistrationTrigger.REFRESH_DUE:
                part = REFRESH - self._layer.random_seconds(100) / 1000
                return max(min(SHORTEST_REFRESH, self._granted / 2), self._granted * part)
            case RegistrationTrigger.RETRY_DUE:
                return self._pause
            case RegistrationTrigger.ANSWER_LIMIT:
                return ANSWER_LIMIT
            case RegistrationTrigger.STOP_LIMIT:
                return STOP_LIMIT
        return math.inf
