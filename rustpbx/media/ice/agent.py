"""`IceAgent`: finds a path to one peer, keeps it while the peer consents, finds another after a restart (RFC 8445).

A core without I/O, for one stream with RTP and RTCP on one port. Its owner binds the bases, hands in every datagram of
theirs, and performs the effects. Nothing is believed that is not authentic: a check must be made with our password,
an answer with the peer's and with a transaction of ours. What is not is dropped, without an answer, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from aioice.stun import Class, Message, Method

from rustpbx.core import NEVER, Address, Deadline, Tick
from rustpbx.errors import RemoteError
from rustpbx.media.ice.candidates import refusal
from rustpbx.media.ice.connectivity import Connectivity
from rustpbx.media.ice.facts import (
    Close,
    Connected,
    Datagram,
    Disconnected,
    Effect,
    Failed,
    Gather,
    IceOptions,
    Input,
    Payload,
    Received,
    RelayLost,
    Remote,
    Restart,
    Send,
    Trickled,
    Write,
)
from rustpbx.media.ice.gathering import Gathering
from rustpbx.media.ice.pair import VALID, Checklist, Pair
from rustpbx.media.ice.remotes import PeerCheck
from rustpbx.media.ice.role import Role
from rustpbx.media.ice.stun import is_stun, read_stun, role_conflict, success
from rustpbx.media.ice.tables import AgentState, AgentTrigger
from rustpbx.media.ice.turn.relays import Outcome
from rustpbx.media.sdp.ice import IceDescription


class IceAgent:
    """One side. `entropy(n)` gives n random bytes; `counters` has what was dropped, by reason."""

    def __init__(
        self, *, controlling: bool, entropy: Callable[[int], bytes], options: IceOptions | None = None
    ) -> None:
        self.options = options or IceOptions()
        self.counters: Counter[str] = Counter()
        role = Role(controlling=controlling, entropy=entropy)
        self._gathering = Gathering(self.options, entropy, self.counters)
        self._relays = self._gathering.relays
        self._checking = Connectivity(role, self._gathering.locals, self.options, entropy, self.counters)

    @property
    def state(self) -> AgentState:
        """Where it stands."""
        return self._checking.state

    @property
    def armed(self) -> Mapping[AgentTrigger, float]:
        """Its running timers and when each fires; tests compare it with the table."""
        return self._checking.machine.armed

    @property
    def controlling(self) -> bool:
        """Whether it is ours to choose the path."""
        return self._checking.controlling

    @property
    def path(self) -> Pair | None:
        """Where media goes, as long as it may."""
        return self._checking.path

    @property
    def checks(self) -> Checklist:
        """All pairs."""
        return self._checking.list

    @property
    def local(self) -> IceDescription:
        """What the peer is to be told of us."""
        own, found = self._checking.credentials, self._gathering
        return IceDescription(own.ufrag, own.pwd, found.candidates, lite=self.options.lite, ended=found.ended)

    @property
    def remote(self) -> IceDescription | None:
        """What the peer has told."""
        return self._checking.remote

    @property
    def lost_relays(self) -> Sequence[RelayLost]:
        """The relays that there are not, or not any more."""
        return self._gathering.lost

    @property
    def done(self) -> bool:
        """True once it is closed, and the relays are given back."""
        return self._checking.machine.done and self._relays.done

    def handle(self, what: Input | Tick, now: float) -> list[Effect]:
        """Take one input, look at every timer, and go on as far as that leads."""
        if self.done:
            return []
        if self._checking.machine.done:
            return self._part(what, now)
        self._take(what, now)
        for effect in self._gathering.tick(now):
            self._say([effect])
            if isinstance(effect, RelayLost):
                self._checking.forsake_bases()
        for local in self._gathering.pop_fresh():
            self._checking.pair_local(local)
        self._checking.tick(now)
        if self._relays.all and self.state is AgentState.CONNECTED:
            self._relays.retain(self._checking.hopes())
        return self._outgoing(now)

    def _take(self, what: Input | Tick, now: float) -> None:
        match what:
            case Gather():
                self._say(self._gathering.begin(what.bases, now))
            case Remote():
                self._checking.describe(what.description, now)
            case Trickled():
                self._checking.learn([what.candidate])
            case Datagram():
                self._receive(what, now)
            case Connected() | Received() | Disconnected():
                self._absorb(self._relays.hear(what, now), now)
            case Restart():
                self._checking.step(AgentTrigger.RESTART, now)
            case Close():
                self._checking.step(AgentTrigger.CLOSE, now)
                self._say(self._relays.release(now))
            case Tick():
                pass

    def deadline(self) -> Deadline:
        """The next timer of the agent, a pair, a question or a relay, or the next turn of the checklist."""
        if self.done:
            return NEVER
        if self._checking.machine.done:
            return self._relays.deadline()
        return min(self._gathering.deadline(), self._checking.deadline())

    def send(self, data: bytes) -> Send | Write | None:
        """Media or DTLS on its way to the peer; None, and counted, where there is no path."""
        if self.path is None:
            self.counters["ice_nowhere_to_send"] += 1
            return None
        relay = self._relays.at(self.path.base)
        if relay is not None:
            return relay.send(data, self.path.remote.address)
        return Send(data, self.path.base, self.path.remote.address)

    def relayed(self, datagram: Datagram) -> Datagram | None:
        """What a peer sent by way of a channel of a relay, as it was sent; None for all else. It changes nothing."""
        return self._relays.from_channel(datagram)

    def is_proved(self, base: Address, source: Address) -> bool:
        """Whether the peer has been proved to be at `source`, seen from this base: media may come from there."""
        if self.path is not None and (self.path.base, self.path.remote.address) == (base, source):
            return True
        pair = self.checks.find(base, source)
        return pair is not None and pair.state in VALID

    def _say(self, effects: Iterable[Effect]) -> None:
        self._checking.out.extend(effects)

    def _outgoing(self, now: float) -> list[Effect]:
        """What has come together; what goes by a relay is wrapped."""
        out, self._checking.out = self._checking.out, []
        return [routed for effect in out for routed in self._relays.route(self._explained(effect), now)]

    def _explained(self, effect: Effect) -> Effect:
        """Where no path is found, the relay that there is not may be why."""
        if not isinstance(effect, Failed) or not self.lost_relays:
            return effect
        lost = "; ".join(f"no relay at {relay.server}: {relay.reason}" for relay in self.lost_relays)
        return Failed(f"{effect.reason}; {lost}")

    def _part(self, what: Input | Tick, now: float) -> list[Effect]:
        """Closed: the servers alone are listened to, until they have their relays back."""
        outcomes: list[Outcome] = []
        if isinstance(what, Datagram):
            outcomes = self._relays.take(what, now) or []
        elif isinstance(what, Received | Disconnected):
            outcomes = self._relays.hear(what, now)
        told = [outcome for outcome in outcomes if not isinstance(outcome, Datagram)]
        return [*told, *self._relays.tick(now)]

    # -- what comes in

    def _absorb(self, outcomes: Iterable[Outcome], now: float) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Datagram):
                self._receive(outcome, now)
            else:
                self._say([outcome])

    def _receive(self, datagram: Datagram, now: float) -> None:
        relayed = self._relays.take(datagram, now)
        if relayed is not None:
            self._absorb(relayed, now)
            return
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
            self._say([Payload(datagram.data, datagram.base, datagram.source)])
        else:
            self.counters["payload_from_elsewhere"] += 1

    def _on_request(self, message: Message, datagram: Datagram, now: float) -> None:
        """Section 7.3: a check of the peer."""
        known = self._checking.credentials.password_of(message)
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
        if self._checking.is_conflict(message, now):
            answer = role_conflict(message.transaction_id, pwd)
            self._say([Send(answer, datagram.base, datagram.source)])
            return
        answer = success(message.transaction_id, datagram.source, pwd)
        self._say([Send(answer, datagram.base, datagram.source)])
        if ufrag == self._checking.credentials.ufrag:
            given, wanted = message.attributes.get("PRIORITY", 1), "USE-CANDIDATE" in message.attributes
            self._checking.hear(PeerCheck(datagram.base, datagram.source, other, given, wanted), now)

    def _on_response(self, message: Message, datagram: Datagram, now: float) -> None:
        if not self._gathering.answer(message, datagram, now):
            self._checking.take_response(message, datagram, now)
