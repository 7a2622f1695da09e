"""The checks of an agent: from what is known of both sides to one path that works and is kept (RFC 8445 6 to 9)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from aioice.stun import Class, Message

from rustpbx.core import Address, Deadline, address_text
from rustpbx.machine import Machine
from rustpbx.media.ice.candidates import is_ipv6
from rustpbx.media.ice.credentials import Credentials
from rustpbx.media.ice.facts import Datagram, Effect, Failed, IceOptions, Returned, Selected, Send, Silent
from rustpbx.media.ice.inquiry import Inquiries, Inquiry
from rustpbx.media.ice.pair import Checklist, Pair
from rustpbx.media.ice.remotes import PeerCheck, Remotes
from rustpbx.media.ice.role import Role
from rustpbx.media.ice.stun import ROLE_CONFLICT, is_authentic, mapped_address
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


class Connectivity:
    """`locals` are our candidates by base, which its owner keeps; `out` is what is to be performed, for him to take.

    `entropy(n)` gives n random bytes; `counters` gets what was dropped, by reason.
    """

    def __init__(
        self,
        role: Role,
        locals_: Mapping[Address, Candidate],
        options: IceOptions,
        entropy: Callable[[int], bytes],
        counters: Counter[str],
    ) -> None:
        self.path: Pair | None = None
        self.remote: IceDescription | None = None
        self.list = Checklist()
        self.credentials = Credentials(entropy)
        self.machine = Machine(ICE_AGENT, self._duration)
        self.out: list[Effect] = []
        self._role = role
        self._locals = locals_
        self._options = options
        self._entropy = entropy
        self._counters = counters
        self._remotes = Remotes(counters, allow_loopback=options.allow_loopback)
        self._inquiries = Inquiries(entropy)
        self._next_turn = 0.0

    @property
    def state(self) -> AgentState:
        """Where it stands."""
        return self.machine.state

    @property
    def controlling(self) -> bool:
        """Whether it is ours to choose the path."""
        return self._role.controlling

    def deadline(self) -> Deadline:
        """The next timer of the agent or of a pair, or the next turn of the checklist."""
        found = [self.machine.deadline(), *(pair.machine.deadline() for pair in self.list.pairs)]
        if self._has_turns():
            found.append(Deadline(self._next_turn, "the next check"))
        return min(found)

    # -- both sides

    def describe(self, description: IceDescription, now: float) -> None:
        """The peer's description, the first or another."""
        old = self.remote
        if old is not None and (old.ufrag, old.pwd) != (description.ufrag, description.pwd):
            # The peer restarts: its offer is answered with new credentials, or ours was (section 9).
            self.step(AgentTrigger.RESTART, now)
            old = None
        self.remote = description
        if old is None:
            if description.lite != self._options.lite:
                self._take_role(controlling=description.lite, now=now)  # 6.1.1: the full side controls a lite one
            self.step(AgentTrigger.REMOTE, now)
        self.learn(description.candidates)
        for check in self._remotes.kept(description.ufrag):
            self._checked(check, now)

    def learn(self, candidates: Iterable[Candidate]) -> None:
        """Pair the peer's candidates with our bases (6.1.2.2), once its description is there."""
        found = self._remotes.learn(candidates)
        if self.remote is not None:
            self._pair_all(found)

    def _pair_all(self, remotes: Iterable[Candidate]) -> None:
        if not self._options.lite:
            for remote, local in itertools.product(remotes, self._locals.values()):
                self._pair(local, remote)

    def _pair(self, local: Candidate, remote: Candidate) -> Pair | None:
        """The pair of the two, a new one if need be; None across families, and for one too many."""
        if is_ipv6(local.address) != is_ipv6(remote.address):
            return None
        found = self.list.find(local.address, remote.address)
        if found is not None:
            return found
        pair = Pair(local, remote)
        return pair if self.list.add(pair, controlling=self.controlling) else None

    def pair_local(self, local: Candidate) -> None:
        """One more of ours."""
        if self.remote is not None and not self._options.lite:
            for remote in self._remotes.all():
                self._pair(local, remote)

    def hopes(self) -> Iterator[tuple[Address, Address]]:
        """The two ends of the path, and of the pairs that may yet take its place."""
        for pair in self.list.pairs:
            if pair.state is not PairState.FAILED:
                yield pair.base, pair.remote.address
        if self.path is not None:
            yield self.path.base, self.path.remote.address

    def forsake_bases(self) -> None:
        """A base is not there any more; of its pairs, only the path waits for what the peer says."""
        for pair in list(self.list.pairs):
            if pair.base not in self._locals and pair is not self.path:
                self.list.remove(pair)

    # -- what comes in

    def hear(self, check: PeerCheck, now: float) -> None:
        """An authentic check of the peer, with our present password."""
        if self.remote is not None and check.ufrag == self.remote.ufrag:
            self._checked(check, now)
        else:
            self._remotes.keep(check)

    def is_conflict(self, message: Message, now: float) -> bool:
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
        pair = self._pair(self._locals[check.base], remote)
        if pair is None:
            return
        wanted = check.wanted and not self.controlling
        pair.wanted = pair.wanted or wanted
        if self._options.lite:
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
            self.step(AgentTrigger.HEARD, now)

    def take_response(self, message: Message, datagram: Datagram, now: float) -> None:
        """A response to what may be a check of ours."""
        asked = self._inquiries.find(message.transaction_id)
        if asked is None:
            self._counters["stun_unasked"] += 1
        elif not is_authentic(message, asked.pwd):
            self._counters["stun_not_authentic"] += 1
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
                self.step(AgentTrigger.HEARD, now)
        elif asked.nominating == (pair.state is PairState.NOMINATING):
            wanted = pair.wanted and not self.controlling
            self._step_pair(pair, PairTrigger.ANSWERED_WANTED if wanted else PairTrigger.ANSWERED, now)

    def _take_role(self, *, controlling: bool, now: float) -> None:
        """Sections 7.2.5.1 and 7.3.1.1: the priorities change with the role, and so does the tie-breaker."""
        if controlling == self.controlling:
            return
        self._counters["ice_role_changes"] += 1
        self._role.take(controlling=controlling)
        self.list.sort(controlling=controlling)
        if not controlling:
            self.step(AgentTrigger.LOST, now)

    # -- time

    def tick(self, now: float) -> None:
        """All timers, what the pairs make of the agent, and the next turn."""
        for pair in list(self.list.pairs):
            for fired in pair.machine.fired(now):
                self._step_pair(pair, fired, now)
        for trigger in self.machine.fired(now):
            self.step(trigger, now)

        self._progress(now)
        self._turn(now)

    def _checks_ordinarily(self) -> bool:
        return self.state in (AgentState.CHECKING, AgentState.CHOOSING, AgentState.NOMINATING)

    def _has_turns(self) -> bool:
        if self.remote is None or self._options.lite:
            return False
        return self.list.has_turns(ordinary=self._checks_ordinarily())

    def _turn(self, now: float) -> None:
        """Section 6.1.4.2: one new check each `PACE`."""
        if self._has_turns() and now >= self._next_turn:
            self._next_turn = now + PACE
            pair = self.list.take(now, ordinary=self._checks_ordinarily())
            if pair is not None:
                self._step_pair(pair, PairTrigger.CHECK, now)

    def _progress(self, now: float) -> None:
        """Go from what the pairs are to what the agent is."""
        nominated = self.list.best(PairState.NOMINATED)
        if nominated is not None and self.list.improves(nominated, self.path, controlling=self.controlling):
            self.step(AgentTrigger.PATH, now)
        if self.state is AgentState.NOMINATING and not self.list.best(PairState.NOMINATING):
            self.step(AgentTrigger.LOST, now)
        valid = self.list.best(PairState.SUCCEEDED)
        if valid is None or not self.controlling or self._options.lite:
            return
        self.step(AgentTrigger.VALID, now)
        if valid is self.list.best(PairState.SUCCEEDED, PairState.FROZEN, PairState.WAITING, PairState.IN_PROGRESS):
            self.step(AgentTrigger.BEST, now)

    def _duration(self, trigger: AgentTrigger) -> float:
        return duration(trigger, self.state, self._entropy)

    # -- what is done

    def step(self, trigger: AgentTrigger, now: float) -> None:
        """One step of the agent's table."""
        before = self.state
        for action in self.machine.step(trigger, now):
            self._do(action, before, now)

    def _do(self, action: AgentAction, before: AgentState, now: float) -> None:
        match action:
            case AgentAction.BEGIN:
                self._pair_all(self._remotes.all())  # candidates can come before the description that they belong to
            case AgentAction.NOMINATE:
                valid = self.list.best(PairState.SUCCEEDED)
                if valid is not None:
                    self._step_pair(valid, PairTrigger.NOMINATE, now)
            case AgentAction.SELECT:
                self._select()
                self._renew(now)
            case AgentAction.ASK_CONSENT:
                if self.path is not None and not self._options.lite:
                    self._check(self.path, consent=True)
            case AgentAction.RENEW_CONSENT:
                self._renew(now)
            case AgentAction.REPORT_SILENCE:
                self.machine.restart(AgentTrigger.CONSENT_TIMER, now)  # it is asked more often from now on
                self.out.append(Silent())
            case _:
                self._part(action, before)

    def _part(self, action: AgentAction, before: AgentState) -> None:
        """Steps that lead away from the peer, and back."""
        match action:
            case AgentAction.REPORT_RETURN:
                self.out.append(Returned())
            case AgentAction.FAIL:
                self._fail(before)
            case AgentAction.RESTART:
                self._forget()
                self.credentials.renew()
            case _:  # END
                self._forget()
                self.path = None

    def _renew(self, now: float) -> None:
        for timer in (AgentTrigger.CONSENT_TIMEOUT, AgentTrigger.SILENCE_TIMER):
            self.machine.restart(timer, now)

    def _select(self) -> None:
        """Section 8.1.2: what is worse than the path is of no interest any more."""
        path = self.list.best(PairState.NOMINATED)
        assert path is not None  # noqa: S101 - the one that was reported
        self.path = path
        self.list.drop_below(path)
        self.out.append(Selected(path.base, path.remote.address))

    def _fail(self, before: AgentState) -> None:
        if self.path is not None and before not in (AgentState.CHECKING, AgentState.CHOOSING, AgentState.NOMINATING):
            where = address_text(self.path.remote.address)
            reason = f"the peer at {where} has not consented to our media for {CONSENT_TIMEOUT:.0f} s"
        else:
            names = self._counters["ice_names"]
            reason = f"none of {len(self.list.pairs)} candidate pairs works" + (
                f" ({names} of the peer's candidates were names)" if names else ""
            )
        self._forget()
        self.path = None
        self.out.append(Failed(reason))

    def _forget(self) -> None:
        """Forget what was known of the peer."""
        self.list.clear()
        self._remotes.clear()
        self._inquiries.clear()
        self.remote = None

    def _step_pair(self, pair: Pair, trigger: PairTrigger, now: float) -> None:
        for action in pair.step(trigger, now):
            match action:
                case PairAction.ENQUEUE:
                    self.list.enqueue(pair)
                case PairAction.SEND_CHECK | PairAction.SEND_NOMINATION:
                    pair.request = self._check(pair, nominating=action is PairAction.SEND_NOMINATION)
                case PairAction.SEND_AGAIN:
                    self.out.append(Send(pair.request, pair.base, pair.remote.address))
                case PairAction.UNFREEZE_OTHERS:
                    self.list.unfreeze_like(pair, now)
                case PairAction.REPORT_NOMINATED:
                    self._progress(now)

    def _check(self, pair: Pair, *, nominating: bool = False, consent: bool = False) -> bytes:
        """Send a check on a pair, and remember what was asked."""
        if self.remote is None:
            return b""
        ufrag = self.credentials.ufrag
        request = self._inquiries.ask(pair, self.remote, ufrag, self._role, nominating=nominating, consent=consent)
        self.out.append(Send(request, pair.base, pair.remote.address))
        return request


def _verdict(message: Message) -> PairTrigger:
    return PairTrigger.CONFLICT if message.error_code == ROLE_CONFLICT else PairTrigger.REFUSED
