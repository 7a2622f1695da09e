"""`Association`: DTLS with one peer, over one path, to agree on the keys of SRTP (RFC 5764). A core without I/O.

Who may disturb it: nobody but from the address that its owner has found to be the peer's (`Path`), and from there, as
source addresses can be forged, nobody who does not receive what is sent to it: a hello must bring back our cookie. What
is not authentic (an alert in plain text, a handshake that cannot go on) ends nothing; time does. Keys are given out for
the certificate that SDP promised, and for no other.

Flights are sent again by timers of our own, on `now`. OpenSSL's know the real clock only, so plain records get their
numbers here, anew each time, and encrypted ones are sent again as they were. A peer that has had them ignores them as
replays, which hurts in one case: we are active and its last flight was lost. There our repetition begins anew in all
its records once OpenSSL's own second has passed, too.
"""

from __future__ import annotations

import hmac
import math
from collections import Counter
from collections.abc import Callable

import attrs

from rustpbx.core import Address, Deadline, Tick
from rustpbx.machine import Machine
from rustpbx.media.dtls.certificate import Certificate
from rustpbx.media.dtls.handshake import Handshake, Progress
from rustpbx.media.dtls.record import ALERT, HANDSHAKE, Hello, Record, pack, read_hello, read_records, verify_request
from rustpbx.media.dtls.tables import DTLS, DtlsAction, DtlsState, DtlsTrigger
from rustpbx.media.dtls.trust import is_promised
from rustpbx.media.events import SrtpKeys
from rustpbx.media.sdp.fingerprint import Fingerprint

FIRST_WAIT = 0.2
LONGEST_WAIT = 2.0
"""Seconds until a flight is sent again: twice as many each time (RFC 6347 4.2.4.1 allows less than its 1 s)."""

SHORTEST_REPETITION = 0.05
"""Seconds between two repetitions of our last flight that a peer which repeats itself can cause."""


# -- inputs ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Path:
    """The peer is at this address: ICE has validated it, or SDP named it. A later one takes the place of it."""

    address: Address


@attrs.frozen
class Trust:
    """The fingerprints of the peer's SDP; an offer of ours may be answered by a handshake before they are there."""

    fingerprints: tuple[Fingerprint, ...]


@attrs.frozen
class Datagram:
    """What came, and from where: anything whose first byte is 20 to 63 (RFC 7983)."""

    data: bytes = attrs.field(repr=False)
    source: Address


@attrs.frozen
class Close:
    """The call is over."""


Input = Path | Trust | Datagram | Close


# -- effects --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Send:
    """A datagram for the peer."""

    data: bytes = attrs.field(repr=False)
    destination: Address


@attrs.frozen
class Secured:
    """The peer is who it should be; media goes and comes with these keys."""

    keys: SrtpKeys


@attrs.frozen
class Failed:
    """There will be no keys: the call cannot have media."""

    problem: str


@attrs.frozen
class Closed:
    """The peer has said goodbye."""


Effect = Send | Secured | Failed | Closed


class Association:
    """See the module. `active` says who begins; `timeout` is what a handshake may take, in seconds.

    `entropy(n)` gives n unpredictable bytes. `counters` says what was ignored.
    """

    def __init__(
        self,
        certificate: Certificate,
        *,
        active: bool,
        entropy: Callable[[int], bytes],
        timeout: float = 15.0,
        call: str = "",
    ) -> None:
        self._certificate = certificate
        self._active = active
        self._secret = entropy(16)
        self._timeout = timeout
        self._machine = Machine(DTLS, self._duration, call=call)
        self._path: Address | None = None
        self._trust: tuple[Fingerprint, ...] | None = None
        self._wait = FIRST_WAIT
        self._handshake: Handshake | None = None
        self._hello: Hello | None = None
        self._begun_with: Hello | None = None
        self._flight: list[Record] = []  # what was said last
        self._fresh: list[Record] = []  # what of it has not been sent yet
        self._next_number = 0
        self._repeated_at = -math.inf
        self._problem = "the peer did not answer" if active else "the peer did not begin"
        self.counters: Counter[str] = Counter()

    # -- the core

    @property
    def state(self) -> DtlsState:
        """Where the table stands."""
        return self._machine.state

    @property
    def done(self) -> bool:
        """True once it has failed or is closed."""
        return self._machine.done

    def deadline(self) -> Deadline:
        """See `Core`."""
        return self._machine.deadline()

    def handle(self, what: Input | Tick, now: float) -> list[Effect]:
        """See `Core`."""
        match what:
            case Tick():
                return [effect for trigger in self._machine.fired(now) for effect in self._step(trigger, now)]
            case Path(address):
                self._path = address
                trigger = DtlsTrigger.CONNECT if self._active else DtlsTrigger.LISTEN
                return self._step(trigger, now) if self.state is DtlsState.IDLE else []
            case Trust(fingerprints):
                self._trust = fingerprints
                return self._step(self._verdict(), now) if self.state is DtlsState.UNPROVEN else []
            case Close():
                return self._step(DtlsTrigger.CLOSE, now)
            case Datagram(data, source):
                return self._take(data, source, now)

    def _duration(self, trigger: DtlsTrigger) -> float:
        if trigger is DtlsTrigger.HANDSHAKE_TIMEOUT:
            return self._timeout
        wait, self._wait = self._wait, min(2 * self._wait, LONGEST_WAIT)
        return wait

    def _step(self, trigger: DtlsTrigger, now: float, cause: object = None) -> list[Effect]:
        return [effect for do in self._machine.step(trigger, now, cause) for effect in self._do(do, now)]

    # -- what comes

    def _take(self, data: bytes, source: Address, now: float) -> list[Effect]:
        if self.done:
            return []
        if source != self._path:
            self.counters["dtls_from_elsewhere"] += 1
            return []
        hello = None if self._active else read_hello(data)
        if hello is None or self._is_ours(hello):
            return self._feed(data, now)
        self._hello = hello
        if hmac.compare_digest(hello.cookie, self._cookie()):
            return [*self._step(DtlsTrigger.HELLO, now), *self._feed(data, now)]
        self.counters["dtls_bare_hellos"] += 1
        return self._step(DtlsTrigger.BARE_HELLO, now)

    def _is_ours(self, hello: Hello) -> bool:
        """Whether it is, once more, the hello that the handshake began with."""
        begun = self._begun_with
        return begun is not None and (hello.random, hello.cookie) == (begun.random, begun.cookie)

    def _cookie(self) -> bytes:
        """What only somebody knows who receives at the peer's address (RFC 6347 4.2.1)."""
        host, port = self._path or ("", 0)
        return hmac.digest(self._secret, f"{host} {port}".encode(), "sha256")[:20]

    def _feed(self, data: bytes, now: float) -> list[Effect]:
        """Go on with the handshake; what is not whole, or an alert that anybody may have written, is left out."""
        if self._handshake is None:
            self.counters["dtls_strays"] += 1
            return []
        records = [record for record in read_records(data) if not self._is_hearsay(record)]
        if not records:
            return []
        progress = self._handshake.feed(b"".join(map(bytes, records)))
        self._fresh = self._handshake.said()
        self._flight = self._fresh or self._flight
        repeated = any(record.content == HANDSHAKE for record in records)
        trigger = self._judge(progress, now, repeated=repeated)
        return [] if trigger is None else self._step(trigger, now, self._handshake.problem or None)

    def _is_hearsay(self, record: Record) -> bool:
        if record.content != ALERT or not record.is_plain:
            return False
        self.counters["dtls_plain_alerts"] += 1
        self._problem = f"it got the alert {record.body.hex()}, perhaps from the peer"
        return True

    def _judge(self, progress: Progress, now: float, *, repeated: bool) -> DtlsTrigger | None:
        """What a datagram amounts to; None if it is nothing."""
        match progress:
            case Progress.CLOSED:
                return DtlsTrigger.PEER_CLOSED
            case Progress.BROKEN:
                return self._broken()
            case Progress.UNDER_WAY:
                return DtlsTrigger.FLIGHT if self._fresh else None
        if self.state is DtlsState.HANDSHAKING:
            return self._verdict()
        if repeated and not self._active and now >= self._repeated_at + SHORTEST_REPETITION:
            self._repeated_at = now
            return DtlsTrigger.REPEATED
        return None

    def _broken(self) -> DtlsTrigger | None:
        """A handshake that broke; one that was complete cannot break any more."""
        self.counters["dtls_broken"] += 1
        if self.state is not DtlsState.HANDSHAKING or self._handshake is None:
            return None
        self._problem = self._handshake.problem
        return DtlsTrigger.REJECTED if self._active else DtlsTrigger.BROKEN

    def _verdict(self) -> DtlsTrigger:
        """What a complete handshake is worth."""
        assert self._handshake is not None  # noqa: S101 - there is one that is complete
        if self._trust is None:
            self._problem = "the fingerprint of the peer's certificate did not come"
            return DtlsTrigger.UNANNOUNCED
        if not is_promised(self._handshake.certificate(), self._trust):
            self._problem = "the peer's certificate is not the one that its SDP has the fingerprint of"
            return DtlsTrigger.FOREIGN
        if self._handshake.keys() is None:
            self._problem = "the peer agreed on no way of SRTP that we have"
            return DtlsTrigger.FOREIGN
        return DtlsTrigger.PROMISED

    # -- what is done

    def _do(self, action: DtlsAction, now: float) -> list[Effect]:
        match action:
            case DtlsAction.BEGIN:
                self._handshake = Handshake(self._certificate, active=True)
                self._handshake.feed()
                self._flight = self._fresh = self._handshake.said()
            case DtlsAction.ACCEPT:
                self._accept()
            case DtlsAction.FORGET:
                self._handshake = self._begun_with = None
                self._flight = []
            case DtlsAction.VERIFY:
                assert self._hello is not None  # noqa: S101 - the one that came without a cookie
                return self._send([verify_request(self._hello, self._cookie())])
            case DtlsAction.SEND:
                self._wait = FIRST_WAIT
                if DtlsTrigger.RESEND_TIMER in self._machine.armed:
                    self._machine.restart(DtlsTrigger.RESEND_TIMER, now)
                return self._say(self._fresh)
            case DtlsAction.SEND_AGAIN:
                return self._say(self._anew() or self._flight)
            case _:
                return self._finish(action)
        return []

    def _finish(self, action: DtlsAction) -> list[Effect]:
        """What an association comes to."""
        match action:
            case DtlsAction.SECURE:
                keys = self._handshake.keys() if self._handshake else None
                assert keys is not None  # noqa: S101 - without any there is no promise
                return [Secured(keys)]
            case DtlsAction.FAIL:
                return [Failed(f"no DTLS with the peer: {self._problem}")]
            case DtlsAction.REPORT_CLOSED:
                return [Closed()]
            case _:  # SAY_GOODBYE
                return self._say(self._handshake.goodbye() if self._handshake else [])

    def _accept(self) -> None:
        """A handshake that begins with a hello whose sender has our cookie; its number is our first (4.2.1)."""
        assert self._hello is not None  # noqa: S101 - that one
        self._begun_with = self._hello
        self._next_number = self._hello.sequence
        self._handshake = Handshake(self._certificate, active=False)
        self._problem = "the peer did not go on"

    def _anew(self) -> list[Record]:
        """The last flight, made anew by OpenSSL, if it does so."""
        if self._handshake is None or self.state is not DtlsState.HANDSHAKING:
            return []
        said = self._handshake.repeat()
        if said:
            self._flight = said
        return said

    def _say(self, records: list[Record]) -> list[Effect]:
        """Records as datagrams: plain ones with new numbers, encrypted ones as they are."""
        numbered = []
        for record in records:
            if record.is_plain:
                numbered.append(attrs.evolve(record, sequence=self._next_number))
                self._next_number += 1
            else:
                numbered.append(record)
        return self._send(pack(numbered))

    def _send(self, datagrams: list[bytes]) -> list[Effect]:
        assert self._path is not None  # noqa: S101 - nothing is said before there is a path
        return [Send(data, self._path) for data in datagrams]
