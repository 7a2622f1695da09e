"""`IceAgent`: finds a path to one peer, keeps it while the peer consents, finds another after a restart (RFC 8445).

A core without I/O, for one stream with RTP and RTCP on one port. Its owner binds the bases, hands in every datagram of
theirs, and performs the effects. Nothing is believed that is not authentic: a check must be made with our password,
an answer with the peer's and with a transaction of ours. What is not is dropped, without an answer, and counted.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable

import attrs
from aioice.stun import Class, Message, Method

from rustpbx.core import NEVER, Address, Deadline, Tick, address_text
from rustpbx.errors import RemoteError
from rustpbx.machine import Machine
from rustpbx.media.ice.candidates import host_candidate, is_ipv6, priority, reflexive_candidate, refusal
from rustpbx.media.ice.facts import (
    Close,
    Datagram,
    Effect,
    Failed,
    Gather,
    Gathered,
    IceOptions,
    Input,
    Payload,
    Remote,
    Restart,
    Returned,
    Selected,
    Send,
    Silent,
    Trickled,
)
from rustpbx.media.ice.pair import VALID, Checklist, Pair
from rustpbx.media.ice.query import Query
from rustpbx.media.ice.stun import (
    ROLE_CONFLICT,
    check_request,
    is_authentic,
    is_stun,
    mapped_address,
    read_stun,
    role_conflict,
    success,
)
from rustpbx.media.ice.tables import (
    ICE_AGENT,
    AgentAction,
    AgentState,
    AgentTrigger,
    PairAction,
    PairState,
    PairTrigger,
)
from rustpbx.media.sdp.ice import MOST_CANDIDATES, Candidate, CandidateKind, IceDescription

PACE = 0.05
"""Seconds between two new checks (section 14.2)."""

CHECK_TIMEOUT = 39.5
"""Seconds until there must be a path: a peer that we know nothing of may still begin (RFC 8863 4)."""

CHOICE_TIME = 0.2
"""Seconds that the controlling side waits for a better pair than the one that works."""

CONSENT_PERIOD = 5.0
CONSENT_TIMEOUT = 30.0
"""RFC 7675 5.1: asked for every 4 to 6 s; without it for 30 s, nothing more is sent."""

ANXIOUS_PERIOD = 1.0
"""Seconds between questions once the peer is silent: where one datagram in five is lost, six would not be enough."""

SILENCE = 12.0
"""Seconds without consent that its owner is told of: two questions have had no answer."""

MOST_ASKED = 500
"""Transactions that may still be answered; the oldest are forgotten."""


@attrs.frozen
class _Asked:
    """A check that is not answered yet, and what it said."""

    pair: Pair
    pwd: str
    controlling: bool
    nominating: bool
    consent: bool


@attrs.frozen
class _Early:
    """A check that came before the peer's description."""

    base: Address
    source: Address
    ufrag: str
    priority: int
    wanted: bool


class IceAgent:
    """One side. `entropy(n)` gives n random bytes; `counters` has what was dropped, by reason."""

    def __init__(
        self, *, controlling: bool, entropy: Callable[[int], bytes], options: IceOptions | None = None
    ) -> None:
        self.controlling = controlling
        self.options = options or IceOptions()
        self.path: Pair | None = None
        self.remote: IceDescription | None = None
        self.counters: Counter[str] = Counter()
        self.checks = Checklist()
        self._entropy = entropy
        self._tie_breaker = self._new_tie_breaker()
        self._machine = Machine(ICE_AGENT, self._duration)
        self._locals: dict[Address, Candidate] = {}
        self._queries: list[Query] = []
        self._remotes: dict[Address, Candidate] = {}
        self._asked: dict[bytes, _Asked] = {}
        self._early: list[_Early] = []
        self._passwords: dict[str, str] = {}
        self._next_turn = 0.0
        self._out: list[Effect] = []
        self.local = self._new_description(())

    @property
    def state(self) -> AgentState:
        """Where it stands."""
        return self._machine.state

    @property
    def done(self) -> bool:
        """True once it is closed."""
        return self._machine.done

    def handle(self, what: Input | Tick, now: float) -> list[Effect]:
        """Take one input, look at every timer, and go on as far as that leads."""
        if self.done:
            return []
        match what:
            case Gather():
                self._gather(what.bases, now)
            case Remote():
                self._describe(what.description, now)
            case Trickled():
                self._learn([what.candidate])
            case Datagram():
                self._receive(what, now)
            case Restart():
                self._step(AgentTrigger.RESTART, now)
            case Close():
                self._step(AgentTrigger.CLOSE, now)
            case Tick():
                pass
        self._tick(now)
        self._progress(now)
        self._turn(now)
        out, self._out = self._out, []
        return out

    def deadline(self) -> Deadline:
        """The next timer of the agent, a pair or a question, or the next turn of the checklist."""
        if self.done:
            return NEVER
        found = [self._machine.deadline(), *(pair.machine.deadline() for pair in self.checks.pairs)]
        found.extend(query.deadline() for query in self._queries)
        if self._has_turns():
            found.append(Deadline(self._next_turn, "the next check"))
        return min(found)

    def send(self, data: bytes) -> Send | None:
        """Media or DTLS on its way to the peer; None, and counted, where there is no path."""
        if self.path is None:
            self.counters["ice_nowhere_to_send"] += 1
            return None
        return Send(data, self.path.base, self.path.remote.address)

    # -- our side

    def _new_tie_breaker(self) -> int:
        return int.from_bytes(self._entropy(8))

    def _new_description(self, candidates: Iterable[Candidate]) -> IceDescription:
        ufrag, pwd = (base64.b64encode(self._entropy(n)).decode() for n in (6, 24))
        # The checks of a peer that does not know of the restart yet are answered (9): the last password is kept.
        self._passwords = dict([*self._passwords.items(), (ufrag, pwd)][-2:])
        ended = not any(not query.done for query in self._queries)
        return IceDescription(ufrag, pwd, tuple(candidates), lite=self.options.lite, ended=ended)

    def _gather(self, bases: tuple[Address, ...], now: float) -> None:
        """Section 5.1.1: hosts at once, the others when servers have answered. A lite agent has hosts only (5.2)."""
        found = []
        for number, base in enumerate(bases):
            preference = 65535 - number
            host = self._locals[base] = host_candidate(base, preference)
            outside = [ip for ip in self.options.external_ips if (":" in ip) == is_ipv6(base)]
            if outside and self.options.lite:
                found.append(attrs.evolve(host, address=(outside[0], base[1])))
                continue
            found.append(host)
            if outside:
                found.append(reflexive_candidate((outside[0], base[1]), base, preference, None))
            else:
                self._ask_servers(base, now)
        self.local = attrs.evolve(self.local, candidates=tuple(found), ended=not self._queries)
        if not self._queries:
            self._out.append(Gathered())

    def _ask_servers(self, base: Address, now: float) -> None:
        if self.options.lite:
            return
        for server in self.options.stun_servers:
            if is_ipv6(server) == is_ipv6(base):
                query = Query(base, server, self._entropy(12), now)
                self._queries.append(query)
                self._out.append(Send(query.request, base, server))

    def _answered(self, query: Query, message: Message, now: float) -> None:
        query.answer(message, now)
        known = {candidate.address for candidate in self.local.candidates}
        if query.mapped is not None and query.mapped not in known:
            preference = (self._locals[query.base].priority >> 8) & 0xFFFF
            found = reflexive_candidate(query.mapped, query.base, preference, query.server)
            self.local = attrs.evolve(self.local, candidates=(*self.local.candidates, found))
        self._settle_queries()

    def _settle_queries(self) -> None:
        """Tell when the last question is done."""
        if self._queries and all(query.done for query in self._queries):
            self._queries.clear()
            self.local = attrs.evolve(self.local, ended=True)
            self._out.append(Gathered())

    # -- the peer's side

    def _describe(self, description: IceDescription, now: float) -> None:
        old = self.remote
        if old is not None and (old.ufrag, old.pwd) != (description.ufrag, description.pwd):
            # The peer restarts: its offer is answered with new credentials, or ours was (section 9).
            self._step(AgentTrigger.RESTART, now)
            old = None
        self.remote = description
        if old is None:
            if description.lite != self.options.lite:
                self._take_role(controlling=description.lite, now=now)  # 6.1.1: the full side controls a lite one
            self._step(AgentTrigger.REMOTE, now)
        self._learn(description.candidates)
        early, self._early = self._early, []
        for check in early:
            if check.ufrag == description.ufrag:
                self._checked(check, now)

    def _learn(self, candidates: Iterable[Candidate]) -> None:
        """Pair the peer's candidates with our bases (6.1.2.2); those that we touch not are counted."""
        for candidate in candidates:
            problem = self._problem(candidate)
            if problem:
                self.counters[problem] += 1
                continue
            self._remotes[candidate.address] = candidate
            if self.options.lite or self.remote is None:
                continue
            for local in self._locals.values():
                self._pair(local, candidate)

    def _problem(self, candidate: Candidate) -> str | None:
        if candidate.component != 1 or candidate.transport != "udp":
            return "ice_candidates_of_no_use"
        if candidate.is_name:
            return "ice_names"  # only the peer's network can resolve it; its checks will show the address
        if refusal(candidate.address, allow_loopback=self.options.allow_loopback):
            return "ice_candidates_refused"
        if candidate.address in self._remotes:
            return "ice_candidates_repeated"
        return "ice_candidates_too_many" if len(self._remotes) >= MOST_CANDIDATES else None

    def _pair(self, local: Candidate, remote: Candidate) -> Pair | None:
        """The pair of the two, a new one if need be; None across families, and for one too many."""
        if is_ipv6(local.address) != is_ipv6(remote.address):
            return None
        found = self.checks.find(local.address, remote.address)
        if found is not None:
            return found
        pair = Pair(local, remote)
        return pair if self.checks.add(pair, controlling=self.controlling) else None

    # -- what comes in

    def _receive(self, datagram: Datagram, now: float) -> None:
        if not is_stun(datagram.data):
            self._take_payload(datagram)
            return
        try:
            message = read_stun(datagram.data)
        except RemoteError:
            self.counters["stun_unreadable"] += 1
            return
        if message.message_method != Method.BINDING or message.message_class == Class.INDICATION:
            self.counters["stun_of_no_use"] += 1
        elif message.message_class == Class.REQUEST:
            self._on_request(message, datagram, now)
        else:
            self._on_response(message, datagram, now)

    def _take_payload(self, datagram: Datagram) -> None:
        """Let media through from where the peer has been proved to be, and from nowhere else."""
        pair = self.checks.find(datagram.base, datagram.source)
        of_path = self.path is not None and (self.path.base, self.path.remote.address) == (
            datagram.base,
            datagram.source,
        )
        if of_path or (pair is not None and pair.state in VALID):
            self._out.append(Payload(datagram.data, datagram.base, datagram.source))
        else:
            self.counters["payload_from_elsewhere"] += 1

    def _on_request(self, message: Message, datagram: Datagram, now: float) -> None:
        """Section 7.3: a check of the peer."""
        ufrag, _, other = message.attributes.get("USERNAME", "").partition(":")
        pwd = self._passwords.get(ufrag)
        if pwd is None or not is_authentic(message, pwd):
            self.counters["stun_not_authentic"] += 1
            return
        if refusal(datagram.source, allow_loopback=self.options.allow_loopback) or datagram.base not in self._locals:
            self.counters["stun_from_nowhere"] += 1
            return
        if self._is_conflict(message, now):
            answer = role_conflict(message.transaction_id, pwd)
            self._out.append(Send(answer, datagram.base, datagram.source))
            return
        answer = success(message.transaction_id, datagram.source, pwd)
        self._out.append(Send(answer, datagram.base, datagram.source))
        if ufrag != self.local.ufrag:
            return
        given = message.attributes.get("PRIORITY", 1)
        check = _Early(datagram.base, datagram.source, other, given, "USE-CANDIDATE" in message.attributes)
        if self.remote is not None and other == self.remote.ufrag:
            self._checked(check, now)
        elif check not in self._early and len(self._early) < MOST_CANDIDATES:
            self._early.append(check)

    def _is_conflict(self, message: Message, now: float) -> bool:
        """Section 7.3.1.1: both want the same role. The larger tie-breaker controls; True if the peer has to yield."""
        name = "ICE-CONTROLLING" if self.controlling else "ICE-CONTROLLED"
        theirs = message.attributes.get(name)
        if theirs is None:
            return False
        we_control = self._tie_breaker >= theirs
        if we_control == self.controlling:
            return True
        self._take_role(controlling=we_control, now=now)
        return False

    def _checked(self, check: _Early, now: float) -> None:
        """Sections 7.3.1.3 to 7.3.1.5: the peer is there, and perhaps nominates; we check the same way back."""
        remote = self._remotes.get(check.source)
        if remote is None:
            if len(self._remotes) >= MOST_CANDIDATES:
                self.counters["ice_candidates_too_many"] += 1
                return
            kind = CandidateKind.PEER_REFLEXIVE
            remote = Candidate(f"prflx{len(self._remotes)}", check.priority, check.source, kind)
            self._remotes[check.source] = remote
        pair = self._pair(self._locals[check.base], remote)
        if pair is None:
            return
        wanted = check.wanted and not self.controlling
        pair.wanted = pair.wanted or wanted
        if self.options.lite:
            self._take_word(pair, wanted=wanted, now=now)
            return
        if wanted:
            self._step_pair(pair, PairTrigger.WANTED, now)
        self._step_pair(pair, PairTrigger.TRIGGERED, now)

    def _take_word(self, pair: Pair, *, wanted: bool, now: float) -> None:
        """Section 7.3.2: a lite agent checks nothing itself; that the peer asks is its consent."""
        pair.step(PairTrigger.UNFREEZE, now)
        self._step_pair(pair, PairTrigger.ANSWERED_WANTED if wanted else PairTrigger.ANSWERED, now)
        if wanted:
            self._step_pair(pair, PairTrigger.WANTED, now)
        if pair is self.path:
            self._step(AgentTrigger.HEARD, now)

    def _on_response(self, message: Message, datagram: Datagram, now: float) -> None:
        came = (datagram.base, datagram.source)
        for query in self._queries:
            if query.transaction == message.transaction_id and (query.base, query.server) == came:
                self._answered(query, message, now)
                return
        asked = self._asked.get(message.transaction_id)
        if asked is None:
            self.counters["stun_unasked"] += 1
        elif not is_authentic(message, asked.pwd):
            self.counters["stun_not_authentic"] += 1
        else:
            del self._asked[message.transaction_id]
            self._judge(asked, message, datagram, now)

    def _judge(self, asked: _Asked, message: Message, datagram: Datagram, now: float) -> None:
        """Section 7.2.5: what the answer to a check of ours means."""
        pair = asked.pair
        symmetric = (datagram.base, datagram.source) == (pair.base, pair.remote.address)
        if message.message_class == Class.ERROR:
            if message.error_code == ROLE_CONFLICT and asked.controlling == self.controlling:
                self._take_role(controlling=not self.controlling, now=now)
            self._step_pair(pair, _verdict(message), now)
        elif not symmetric or mapped_address(message) is None:
            self._step_pair(pair, PairTrigger.REFUSED, now)
        elif asked.consent:
            if pair is self.path:
                self._step(AgentTrigger.HEARD, now)
        elif asked.nominating == (pair.state is PairState.NOMINATING):
            wanted = pair.wanted and not self.controlling
            self._step_pair(pair, PairTrigger.ANSWERED_WANTED if wanted else PairTrigger.ANSWERED, now)

    def _take_role(self, *, controlling: bool, now: float) -> None:
        """Sections 7.2.5.1 and 7.3.1.1: the priorities change with the role, and so does the tie-breaker."""
        if controlling == self.controlling:
            return
        self.counters["ice_role_changes"] += 1
        self.controlling = controlling
        self._tie_breaker = self._new_tie_breaker()
        self.checks.sort(controlling=controlling)
        if not controlling:
            self._step(AgentTrigger.LOST, now)

    # -- time

    def _tick(self, now: float) -> None:
        for query in self._queries:
            if query.tick(now):
                self._out.append(Send(query.request, query.base, query.server))
        self._settle_queries()
        for pair in list(self.checks.pairs):
            for fired in pair.machine.fired(now):
                self._step_pair(pair, fired, now)
        for trigger in self._machine.fired(now):
            self._step(trigger, now)

    def _checks_ordinarily(self) -> bool:
        return self.state in (AgentState.CHECKING, AgentState.CHOOSING, AgentState.NOMINATING)

    def _has_turns(self) -> bool:
        if self.remote is None or self.options.lite:
            return False
        return self.checks.has_turns(ordinary=self._checks_ordinarily())

    def _turn(self, now: float) -> None:
        """Section 6.1.4.2: one new check each `PACE`."""
        if self._has_turns() and now >= self._next_turn:
            self._next_turn = now + PACE
            pair = self.checks.take(now, ordinary=self._checks_ordinarily())
            if pair is not None:
                self._step_pair(pair, PairTrigger.CHECK, now)

    def _progress(self, now: float) -> None:
        """Go from what the pairs are to what the agent is."""
        nominated = self.checks.best(PairState.NOMINATED)
        if nominated is not None and self._is_better(nominated):
            self._step(AgentTrigger.PATH, now)
        if self.state is AgentState.NOMINATING and not self.checks.best(PairState.NOMINATING):
            self._step(AgentTrigger.LOST, now)
        valid = self.checks.best(PairState.SUCCEEDED)
        if valid is None or not self.controlling or self.options.lite:
            return
        self._step(AgentTrigger.VALID, now)
        if valid is self.checks.best(PairState.SUCCEEDED, PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS):
            self._step(AgentTrigger.BEST, now)

    def _is_better(self, pair: Pair) -> bool:
        """Whether a nominated pair takes the place of the path: any does for one from before a restart."""
        if self.path is None or self.path not in self.checks.pairs:
            return True
        own = self.path.priority(controlling=self.controlling)
        return pair is not self.path and pair.priority(controlling=self.controlling) > own

    def _duration(self, trigger: AgentTrigger) -> float:
        match trigger:
            case AgentTrigger.CHECK_TIMEOUT:
                return CHECK_TIMEOUT
            case AgentTrigger.CHOICE_TIMER:
                return CHOICE_TIME
            case AgentTrigger.CONSENT_TIMEOUT:
                return CONSENT_TIMEOUT
            case AgentTrigger.SILENCE_TIMER:
                return SILENCE
            case _:  # CONSENT_TIMER; spread by a fifth, so that not all calls ask at once (RFC 7675 5.1)
                period = ANXIOUS_PERIOD if self.state is AgentState.DISCONNECTED else CONSENT_PERIOD
                return period * (0.8 + 0.4 * self._entropy(1)[0] / 255)

    # -- what is done

    def _step(self, trigger: AgentTrigger, now: float) -> None:
        before = self.state
        for action in self._machine.step(trigger, now):
            self._do(action, before, now)

    def _do(self, action: AgentAction, before: AgentState, now: float) -> None:
        match action:
            case AgentAction.BEGIN:
                known, self._remotes = list(self._remotes.values()), {}
                self._learn(known)  # candidates can come before the description that they belong to
            case AgentAction.NOMINATE:
                valid = self.checks.best(PairState.SUCCEEDED)
                if valid is not None:
                    self._step_pair(valid, PairTrigger.NOMINATE, now)
            case AgentAction.SELECT:
                self._select()
                self._renew(now)
            case AgentAction.ASK_CONSENT:
                if self.path is not None and not self.options.lite:
                    self._check(self.path, consent=True)
            case AgentAction.RENEW_CONSENT:
                self._renew(now)
            case _:
                self._part(action, before)

    def _part(self, action: AgentAction, before: AgentState) -> None:
        """Steps that lead away from the peer, and back."""
        match action:
            case AgentAction.REPORT_SILENCE:
                self._out.append(Silent())
            case AgentAction.REPORT_RETURN:
                self._out.append(Returned())
            case AgentAction.FAIL:
                self._fail(before)
            case AgentAction.RESTART:
                self._forget()
                self.local = self._new_description(self.local.candidates)
            case _:  # END
                self._forget()
                self.path = None

    def _renew(self, now: float) -> None:
        for timer in (AgentTrigger.CONSENT_TIMEOUT, AgentTrigger.SILENCE_TIMER):
            self._machine.restart(timer, now)

    def _select(self) -> None:
        """Section 8.1.2: what is worse than the path is of no interest any more."""
        path = self.checks.best(PairState.NOMINATED)
        assert path is not None  # noqa: S101 - the one that was reported
        self.path = path
        for pair in self.checks.pairs[self.checks.pairs.index(path) + 1 :]:
            if pair.state not in VALID:
                self.checks.remove(pair)
        self._out.append(Selected(path.base, path.remote.address))

    def _fail(self, before: AgentState) -> None:
        if self.path is not None and before not in (AgentState.CHECKING, AgentState.CHOOSING, AgentState.NOMINATING):
            where = address_text(self.path.remote.address)
            reason = f"the peer at {where} has not consented to our media for {CONSENT_TIMEOUT:.0f} s"
        else:
            names = self.counters["ice_names"]
            reason = f"none of {len(self.checks.pairs)} candidate pairs works" + (
                f" ({names} of the peer's candidates were names)" if names else ""
            )
        self._forget()
        self.path = None
        self._out.append(Failed(reason))

    def _forget(self) -> None:
        """Forget what was known of the peer."""
        self.checks.clear()
        self._remotes.clear()
        self._asked.clear()
        self._early.clear()
        self.remote = None

    def _step_pair(self, pair: Pair, trigger: PairTrigger, now: float) -> None:
        for action in pair.step(trigger, now):
            match action:
                case PairAction.ENQUEUE:
                    self.checks.enqueue(pair)
                case PairAction.SEND_CHECK | PairAction.SEND_NOMINATION:
                    pair.request = self._check(pair, nominating=action is PairAction.SEND_NOMINATION)
                case PairAction.SEND_AGAIN:
                    self._out.append(Send(pair.request, pair.base, pair.remote.address))
                case PairAction.UNFREEZE_OTHERS:
                    self.checks.unfreeze_like(pair, now)
                case PairAction.REPORT_NOMINATED:
                    self._progress(now)

    def _check(self, pair: Pair, *, nominating: bool = False, consent: bool = False) -> bytes:
        """Send a check on a pair, and remember what was asked."""
        if self.remote is None:
            return b""
        transaction = self._entropy(12)
        preference = (pair.local.priority >> 8) & 0xFFFF
        request = check_request(
            transaction,
            f"{self.remote.ufrag}:{self.local.ufrag}",
            self.remote.pwd,
            priority(CandidateKind.PEER_REFLEXIVE, preference),
            self._tie_breaker,
            controlling=self.controlling,
            nominate=nominating,
        )
        while len(self._asked) >= MOST_ASKED:
            del self._asked[next(iter(self._asked))]
        self._asked[transaction] = _Asked(pair, self.remote.pwd, self.controlling, nominating, consent)
        self._out.append(Send(request, pair.base, pair.remote.address))
        return request


def _verdict(message: Message) -> PairTrigger:
    return PairTrigger.CONFLICT if message.error_code == ROLE_CONFLICT else PairTrigger.REFUSED
