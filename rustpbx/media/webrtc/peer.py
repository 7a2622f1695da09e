"""`Peer`: how far a leg to a browser is, from what ICE reports and what DTLS makes of it. A core without I/O.

ICE runs beside it (`rustpbx.media.ice.shell`), since it owns the sockets; the DTLS association is within. Every DTLS
datagram comes from an address that ICE has proved to be the peer's, so it counts wherever on our side it came in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

from rustpbx.core import Address, Deadline, Tick
from rustpbx.machine import Machine
from rustpbx.media import dtls, ice
from rustpbx.media.sdp.fingerprint import Fingerprint
from rustpbx.media.webrtc.facts import PeerGone, PeerLost, PeerSecured
from rustpbx.media.webrtc.tables import PEER, PeerAction, PeerState, PeerTrigger

SILENCE = 8.0
"""Seconds that a peer may not answer after ICE has found it silent."""

MOST_EARLY = 8
"""Datagrams of DTLS kept until there is a path: a peer that chose it may begin before its choice has reached us."""

Input = ice.Gathered | ice.Selected | ice.Silent | ice.Returned | ice.Failed | ice.Payload | ice.Close


@attrs.frozen
class Described:
    """Our end is known: tell the peer."""


@attrs.frozen
class Send:
    """DTLS for the peer, on the path."""

    data: bytes = attrs.field(repr=False)


@attrs.frozen
class Moved:
    """There is a path, or another one than before."""


Effect = Described | Send | Moved | PeerSecured | PeerLost | PeerGone

_TRIGGERS: dict[type, PeerTrigger] = {
    ice.Gathered: PeerTrigger.GATHERED,
    ice.Silent: PeerTrigger.FELL_SILENT,
    ice.Returned: PeerTrigger.RETURNED,
    ice.Close: PeerTrigger.CLOSE,
}


class Peer:
    """The far end of the leg `leg`.

    `fingerprints` are those of its SDP. `patience` is how many seconds each may take: our candidates, from `now` on,
    and the path.
    """

    def __init__(
        self,
        leg: str,
        association: dtls.Association,
        fingerprints: Iterable[Fingerprint],
        *,
        patience: float,
        now: float,
    ) -> None:
        self._leg = leg
        self._association = association
        self._association.handle(dtls.Trust(tuple(fingerprints)), now)
        self._patience = patience
        self._machine = Machine(PEER, self._duration, call=leg)
        self._machine.settle(now)
        self._path: Address | None = None
        self._early: deque[bytes] = deque(maxlen=MOST_EARLY)
        self._problem = ""
        self._keys: dtls.Secured | None = None
        self._out: list[Effect] = []

    @property
    def state(self) -> PeerState:
        """Where it stands."""
        return self._machine.state

    @property
    def done(self) -> bool:
        """See `Core`."""
        return self._machine.done

    def deadline(self) -> Deadline:
        """See `Core`."""
        return min(self._machine.deadline(), self._association.deadline())

    def handle(self, what: Input | Tick, now: float) -> list[Effect]:
        """See `Core`."""
        match what:
            case Tick():
                self._tick(now)
            case ice.Selected():
                self._path = what.remote
                self._step(PeerTrigger.PATH, now)
            case ice.Failed():
                self._problem = what.reason
                self._step(PeerTrigger.PATH_FAILED, now)
            case ice.Payload():
                self._receive(what.data, now)
            case _:
                self._step(_TRIGGERS[type(what)], now)
        out, self._out = self._out, []
        return out

    def _duration(self, trigger: PeerTrigger) -> float:
        return SILENCE if trigger is PeerTrigger.SILENCE_TIMEOUT else self._patience

    def _tick(self, now: float) -> None:
        for trigger in self._machine.fired(now):
            silent = trigger is PeerTrigger.SILENCE_TIMEOUT
            self._problem = "the peer does not answer any more" if silent else "there is no path to the peer yet"
            self._step(trigger, now)
        self._handshake(Tick(), now)

    def _receive(self, data: bytes, now: float) -> None:
        if self._path is None:
            self._early.append(data)
        else:
            self._handshake(dtls.Datagram(data, self._path), now)

    def _handshake(self, what: dtls.Input | Tick, now: float) -> None:
        """Let DTLS go on, and step with what it comes to."""
        if self.done:
            return
        for effect in self._association.handle(what, now):
            match effect:
                case dtls.Send():
                    self._out.append(Send(effect.data))
                case dtls.Secured():
                    self._keys = effect
                    self._step(PeerTrigger.SECURED, now)
                case dtls.Failed():
                    self._problem = effect.problem
                    self._step(PeerTrigger.DTLS_FAILED, now)
                case dtls.Closed():
                    self._step(PeerTrigger.PEER_CLOSED, now)

    def _step(self, trigger: PeerTrigger, now: float) -> None:
        for action in self._machine.step(trigger, now):
            self._do(action, now)

    def _do(self, action: PeerAction, now: float) -> None:
        match action:
            case PeerAction.REPORT_READY:
                self._out.append(Described())
            case PeerAction.FOLLOW:
                assert self._path is not None  # noqa: S101 - the one that was selected
                self._out.append(Moved())
                self._handshake(dtls.Path(self._path), now)
                early, self._early = self._early, deque(maxlen=MOST_EARLY)
                for data in early:
                    self._receive(data, now)
            case PeerAction.REPORT_SECURED:
                assert self._keys is not None  # noqa: S101 - what it was secured with
                self._out.append(PeerSecured(self._leg, self._keys.keys))
            case PeerAction.REPORT_LOST:
                self._out.append(PeerLost(self._leg, self._problem))
            case PeerAction.REPORT_GONE:
                self._out.append(PeerGone(self._leg))
            case PeerAction.SAY_GOODBYE:
                said = self._association.handle(dtls.Close(), now)
                self._out.extend(Send(effect.data) for effect in said if isinstance(effect, dtls.Send))
