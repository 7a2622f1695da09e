"""`IceAgent`: finds a path to one peer, keeps it while the peer consents, finds another after a restart (RFC 8445).

A core without I/O, for one stream with RTP and RTCP on one port. Its owner binds the bases, hands in every datagram of
theirs, and performs the effects. Nothing is believed that is not authentic: a check must be made with our password,
an answer with the peer's and with a transaction of ours. What is not is dropped, without an answer, and counted.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable

from aioice.stun import Class, Message, Method

from rustpbx.core import NEVER, Address, Deadline, Tick, address_text
from rustpbx.errors import RemoteError
from rustpbx.machine import Machine
from rustpbx.media.ice.candidates import is_ipv6, refusal
from rustpbx.media.ice.credentials import Credentials
from rustpbx.media.ice.facts import (
    Close,
    Datagram,
    Effect,
    Failed,
    Gather,
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
from rustpbx.media.ice.gathering import Gathering
from rustpbx.media.ice.inquiry import Inquiries, Inquiry
from rustpbx.media.ice.pair import VALID, Checklist, Pair
from rustpbx.media.ice.remotes import PeerCheck, Remotes
from rustpbx.media.ice.role import Role
from rustpbx.media.ice.stun import (
    ROLE_CONFLICT,
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
from rustpbx.media.ice.timing import CONSENT_TIMEOUT, PACE, duration
from rustpbx.media.sdp.ice import Candidate, IceDescription


class IceAgent:
    """One side. `entropy(n)` gives n random bytes; `counters` has what was dropped, by reason."""

    def __init__(
        self, *, controlling: bool, entropy: Callable[[int], bytes], options: IceOptions | None = None
    ) -> None:
        self.options = options or IceOptions()
        self.path: Pair | None = None
        self.remote: IceDescription | None = None
        self.counters: Counter[str] = Counter()
        self.checks = Checklist()
        self._entropy = entropy
        self._role = Role(controlling=controlling, entropy=entropy)
        self._machine = Machine(ICE_AGENT, self._duration)
        self._gathering = Gathering(self.options, entropy)
        self._remotes = Remotes(self.counters, allow_loopback=self.options.allow_loopback)
        self._inquiries = Inquiries(entropy)
        self._credentials = Credentials(entropy)
        self._next_turn = 0.0
        self._out: list[Effect] = []

    @property
    def state(self) -> AgentState:
        """Where it stands."""
        return self._machine.state

    @property
    def controlling(self) -> bool:
        """Whether it is ours to choose the path."""
        return self._role.controlling

    @property
    def local(self) -> IceDescription:
        """What the peer is to be told of us."""
        own, found = self._credentials, self._gathering
        return IceDescription(own.ufrag, own.pwd, found.candidates, lite=self.options.lite, ended=found.ended)

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
                self._out.extend(self._gathering.begin(what.bases, now))
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
        found = [
            self._machine.deadline(),
            self._gathering.deadline(),
            *(pair.machine.deadline() for pair in self.checks.pairs),
        ]
        if self._has_turns():
            found.append(Deadline(self._next_turn, "the next check"))
        return min(found)

    def send(self, data: bytes) -> Send | None:
        """Media or DTLS on its way to the peer; None, and counted, where there is no path."""
        if self.path is None:
            self.counters["ice_nowhere_to_send"] += 1
            return None
        return Send(data, self.path.base, self.path.remote.address)

    def is_proved(self, base: Address, source: Address) -> bool:
        """Whether the peer has been proved to be at `source`, seen from this base: media may come from there."""
        if self.path is not None and (self.path.base, self.path.remote.address) == (base, source):
            return True
        pair = self.checks.find(base, source)
        return pair is not None and pair.state in VALID

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
        for check in self._remotes.kept(description.ufrag):
            self._checked(check, now)

    def _learn(self, candidates: Iterable[Candidate]) -> None:
        """Pair the peer's candidates with our bases (6.1.2.2), once its description is there."""
        found = self._remotes.learn(candidates)
        if self.remote is not None:
            self._pair_all(found)

    def _pair_all(self, remotes: Iterable[Candidate]) -> None:
        if not self.options.lite:
            for remote, local in itertools.product(remotes, self._gathering.locals.values()):
                self._pair(local, remote)

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
        if self.is_proved(datagram.base, datagram.source):
            self._out.append(Payload(datagram.data, datagram.base, datagram.source))
        else:
            self.counters["payload_from_elsewhere"] += 1

    def _on_request(self, message: Message, datagram: Datagram, now: float) -> None:
        """Section 7.3: a check of the peer."""
        known = self._credentials.password_of(message)
        if known is None:
            self.counters["stun_not_authentic"] += 1
            return
        ufrag, pwd, other = known
        if (
            refusal(datagram.source, allow_loopback=self.options.allow_loopback)
            or datagram.base not in self._gathering.locals
        ):
            self.counters["stun_from_nowhere"] += 1
            return
        if self._is_conflict(message, now):
            answer = role_conflict(message.transaction_id, pwd)
            self._out.append(Send(answer, datagram.base, datagram.source))
            return
        answer = success(message.transaction_id, datagram.source, pwd)
        self._out.append(Send(answer, datagram.base, datagram.source))
        if ufrag != self._credentials.ufrag:
            return
        given = message.attributes.get("PRIORITY", 1)
        check = PeerCheck(datagram.base, datagram.source, other, given, "USE-CANDIDATE" in message.attributes)
        if self.remote is not None and other == self.remote.ufrag:
            self._checked(check, now)
        else:
            self._remotes.keep(check)

    def _is_conflict(self, message: Message, now: float) -> bool:
        """Section 7.3.1.1: both want the same role. The larger tie-breaker controls; True if the peer has to yield."""
        we_control = self._role.contested(message)
        if we_control is None:
            return False
        if we_control == self.controlling:
            return True
        self._take_role(controlling=we_control, now=now)
        return False

    def _checked(self, check: PeerCheck, now: float) -> None:
        """Sections 7.3.1.3 to 7.3.1.5: the peer is there, and perhaps nominates; we check the same way back."""
        remote = self._remotes.source_of(check)
        if remote is None:
            return
        pair = self._pair(self._gathering.locals[check.base], remote)
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
        gathered = self._gathering.answer(message, datagram, now)
        if gathered is not None:
            self._out.extend(gathered)
            return
        asked = self._inquiries.find(message.transaction_id)
        if asked is None:
            self.counters["stun_unasked"] += 1
        elif not is_authentic(message, asked.pwd):
            self.counters["stun_not_authentic"] += 1
        else:
            self._inquiries.close(message.transaction_id)
            self._judge(asked, message, datagram, now)

    def _judge(self, asked: Inquiry, message: Message, datagram: Datagram, now: float) -> None:
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
        self._role.take(controlling=controlling)
        self.checks.sort(controlling=controlling)
        if not controlling:
            self._step(AgentTrigger.LOST, now)

    # -- time

    def _tick(self, now: float) -> None:
        self._out.extend(self._gathering.tick(now))
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
        if nominated is not None and self.checks.improves(nominated, self.path, controlling=self.controlling):
            self._step(AgentTrigger.PATH, now)
        if self.state is AgentState.NOMINATING and not self.checks.best(PairState.NOMINATING):
            self._step(AgentTrigger.LOST, now)
        valid = self.checks.best(PairState.SUCCEEDED)
        if valid is None or not self.controlling or self.options.lite:
            return
        self._step(AgentTrigger.VALID, now)
        if valid is self.checks.best(PairState.SUCCEEDED, PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS):
            self._step(AgentTrigger.BEST, now)

    def _duration(self, trigger: AgentTrigger) -> float:
        return duration(trigger, self.state, self._entropy)

    # -- what is done

    def _step(self, trigger: AgentTrigger, now: float) -> None:
        before = self.state
        for action in self._machine.step(trigger, now):
            self._do(action, before, now)

    def _do(self, action: AgentAction, before: AgentState, now: float) -> None:
        match action:
            case AgentAction.BEGIN:
                self._pair_all(self._remotes.all())  # candidates can come before the description that they belong to
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
                self._credentials.renew()
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
        self.checks.drop_below(path)
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
        self._inquiries.clear()
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
        ufrag = self._credentials.ufrag
        request = self._inquiries.ask(pair, self.remote, ufrag, self._role, nominating=nominating, consent=consent)
        self._out.append(Send(request, pair.base, pair.remote.address))
        return request


def _verdict(message: Message) -> PairTrigger:
    return PairTrigger.CONFLICT if message.error_code == ROLE_CONFLICT else PairTrigger.REFUSED
