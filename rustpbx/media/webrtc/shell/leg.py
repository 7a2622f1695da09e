"""`PeerLeg`: one leg to a browser. Its task holds the sockets; media goes between them and the plane without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import attrs
import trio

from rustpbx.core import Address
from rustpbx.errors import OverloadedError
from rustpbx.media.dtls import Association
from rustpbx.media.events import Fact
from rustpbx.media.ice import Close, IceAgent, Trickled
from rustpbx.media.ice.shell import IceTransport
from rustpbx.media.sdp.ice import Candidate, IceDescription
from rustpbx.media.sdp.webrtc import OwnEnd, PeerOffer
from rustpbx.media.webrtc.facts import PeerFact, PeerReady, PeerSecured
from rustpbx.media.webrtc.peer import Described, Effect, Input, Moved, Peer, Send
from rustpbx.media.webrtc.shell.server import WebRtc
from rustpbx.shell.drive import drive, settle

BIND_TRIES = 8
"""Ports tried for one leg: others on this machine may hold some of our range."""

MOST_WAITING = 256
"""What ICE and DTLS say that waits for the leg; more waits in theirs, and is dropped there."""

MOST_TRICKLED = 100
"""Candidates of the peer that wait until ICE can take them."""


@attrs.frozen(kw_only=True)
class PeerWish:
    """A leg to be opened. `signalled_from` is where the offer came from, "" if nobody knows.

    `patience` is how many seconds each may take: our candidates, the path, and the handshake on it.
    """

    leg: str
    offer: PeerOffer
    signalled_from: str = ""
    ipv6: bool = False
    patience: float = 15.0


class PeerLeg:
    """Opens the plane's leg at once, raising as `Plane.open_carried` does; `run` does the rest.

    `tell` is called with what the call must know; it must not wait.
    """

    def __init__(
        self, wish: PeerWish, webrtc: WebRtc, facts: trio.MemorySendChannel[Fact], tell: Callable[[PeerFact], None]
    ) -> None:
        self._wish = wish
        self._webrtc = webrtc
        self._tell = tell
        self._certificate = webrtc.certificate()
        self._association = Association(
            self._certificate,
            active=wish.offer.active,
            entropy=webrtc.entropy,
            timeout=wish.patience,
            call=wish.leg,
        )
        self._core = Peer(
            wish.leg, self._association, wish.offer.fingerprints, patience=wish.patience, now=webrtc.clock.now()
        )
        self._transport: IceTransport | None = None
        self._early: list[Candidate] = []
        self._send, self._inbox = trio.open_memory_channel[Input](MOST_WAITING)
        self._closed = trio.Event()
        self._ssrc = webrtc.plane.open_carried(wish.leg, self._carry_out, facts).ssrc
        self._secured = False
        self._lent: Address | None = None
        self.ready: PeerReady | None = None
        """Our end, once it is known."""

    async def run(self) -> None:
        """Hold the leg until `close`, or until cancelled. Raises `OverloadedError` if there is no port."""
        async with trio.open_nursery() as nursery:
            try:
                transport = await self._bind(nursery)
                nursery.start_soon(_pass_on, transport.facts, self._send.clone())
                nursery.start_soon(_pass_on, transport.dtls, self._send.clone())
                await drive(self._core, self._inbox, self._perform)
                await self._closed.wait()  # what the call makes of it comes first
                nursery.cancel_scope.cancel()
            finally:
                self._webrtc.plane.close_leg(self._wish.leg)  # says RTCP BYE, which DTLS must not forestall
                self.close()
                self._webrtc.plane.counters.update(self.counters())

    def counters(self) -> Counter[str]:
        """What has been dropped by ICE and DTLS, by reason; the plane's have it once the leg is over."""
        found = Counter(self._association.counters)
        if self._transport is not None:
            found.update(self._transport.counters)
            found.update(self._transport.agent.counters)
        return found

    def describe(self, offer: PeerOffer) -> PeerReady:
        """Take another offer of the peer, which may restart ICE; our end as it is then."""
        assert self._transport is not None  # noqa: S101 - nobody offers again before the first answer
        return self._described(self._transport.describe(offer.ice))

    def trickle(self, candidate: Candidate) -> None:
        """One more candidate of the peer."""
        if self._transport is not None:
            self._transport.tell(Trickled(candidate))
        elif len(self._early) < MOST_TRICKLED:
            self._early.append(candidate)

    def close(self) -> None:
        """Say goodbye to the peer and end `run`. Idempotent, and done when it returns but for the sockets."""
        settle(self._core, Close(), self._perform, trio.current_time())
        self._closed.set()
        if self._transport is not None:
            self._transport.close()

    # -- sockets

    async def _bind(self, nursery: trio.Nursery) -> IceTransport:
        """A transport on our addresses and a port of the range, running."""
        webrtc = self._webrtc
        hosts = webrtc.hosts(self._wish.signalled_from, ipv6=self._wish.ipv6)
        options = await webrtc.ice_options(hosts)
        for _ in range(BIND_TRIES):
            agent = IceAgent(controlling=False, entropy=webrtc.entropy, options=options)
            transport = IceTransport(webrtc.network, agent, self._carry_in)
            port = webrtc.plane.lend_port()
            self._transport = transport  # before it runs: whatever ends the leg from now on must stop it
            try:
                await nursery.start(self._hold, transport, hosts, port)
            except OSError:
                self._transport = None
                continue
            for candidate in self._early:
                transport.tell(Trickled(candidate))
            return transport
        raise OverloadedError(f"{BIND_TRIES} ports of the RTP range are held by others")

    async def _hold(
        self, transport: IceTransport, hosts: tuple[str, ...], port: int, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Run a transport, which the end of the leg stops and nothing else: the last words must get out."""
        try:
            with trio.CancelScope(shield=True):
                await transport.run(hosts, port, task_status=task_status)
        finally:
            self._webrtc.plane.return_port(port)

    def _carry_out(self, data: bytes) -> bool:
        return self._transport is not None and self._transport.send(data)

    def _carry_in(self, data: bytes) -> None:
        if not self._core.done:
            self._webrtc.plane.arrive(self._wish.leg, data)

    # -- what the core says

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Described():
                assert self._transport is not None  # noqa: S101 - it has gathered
                self._tell(self._described(self._transport.describe(self._wish.offer.ice)))
            case Send():
                self._carry_out(effect.data)
            case Moved():
                self._follow()
            case PeerSecured():
                self._secured = True
                self._follow()
                self._tell(effect)
            case _:
                self._tell(effect)

    def _follow(self) -> None:
        """Let the plane itself carry secured media, where the path begins at a socket of ours and not at a relay."""
        transport, plane = self._transport, self._webrtc.plane
        if transport is None or transport.agent.path is None or not self._secured:
            return
        base, remote = transport.agent.path.base, transport.agent.path.remote.address
        if self._lent is not None:
            plane.give_back(self._wish.leg)
            transport.give_back(self._lent)
        sock = transport.lend(base)
        self._lent = None if sock is None else base
        if sock is not None:
            plane.adopt(self._wish.leg, sock, remote, partial(transport.take, base))

    def _described(self, ice: IceDescription) -> PeerReady:
        end = OwnEnd(ice=attrs.evolve(ice, ended=True), fingerprint=self._certificate.fingerprint)
        self.ready = PeerReady(self._wish.leg, end, self._ssrc)
        return self.ready


async def _pass_on(source: trio.MemoryReceiveChannel[Input], sink: trio.MemorySendChannel[Input]) -> None:
    async with sink:
        async for what in source:
            await sink.send(what)
