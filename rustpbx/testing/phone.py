"""A scripted SIP phone with audio, on any `Network`: what tests and the demo call the server with.

    async with open_phone(wire.host("10.0.0.2"), "10.0.0.2") as phone:
        call = await phone.dial("sip:agent@10.0.0.1:5060")
        await call.answered()
        await call.say(pcm)
        await call.ended()

Everything is observed by awaiting it; nothing sleeps. Leaving the block is a phone whose battery is pulled: no BYE is
sent for calls that are still up.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum
from typing import TypeVar

import attrs
import trio

from rustpbx.core import Address
from rustpbx.errors import MediaError, RemoteError, RustpbxError
from rustpbx.media.events import Codec, Direction, MediaFormat, Pcm, SrtpKey, SrtpSuite
from rustpbx.media.sdp.crypto import PLAIN, Security
from rustpbx.media.sdp.encoder import encode_sdp
from rustpbx.media.sdp.model import SessionDescription
from rustpbx.media.sdp.negotiate import LocalMedia, accept_answer, answer, offer
from rustpbx.media.sdp.parser import parse_sdp
from rustpbx.shell.clock import Clock, TrioClock
from rustpbx.shell.network import Datagrams, Network
from rustpbx.sip import events as sip
from rustpbx.sip.endpoint import EndpointConfig
from rustpbx.sip.extensions import Extensions
from rustpbx.sip.headers import parse_name_addr
from rustpbx.sip.message import Lines, NameAddr
from rustpbx.sip.shell.connections import Streams
from rustpbx.sip.shell.stack import Stack
from rustpbx.sip.trace import Traced
from rustpbx.sip.uri import parse_uri
from rustpbx.testing.line import AudioLine, Spoken

UNANSWERED = 16  # incoming calls that nobody took from `ring()`; one more is busy (486)
BOTH_LAWS = (Codec.PCMU, Codec.PCMA)

FactT = TypeVar("FactT", bound=sip.Fact)


class CallRefusedError(RustpbxError):
    """The call we dialled was not answered; `status` is the final response's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


class State(Enum):
    """Where a phone's call is."""

    DIALLING = "dialling"
    INCOMING = "incoming"
    TALKING = "talking"
    ENDED = "ended"


@attrs.frozen
class Ending:
    """How a call ended: `cause` is the peer's or the network's fact, None if we ended it ourselves."""

    at: float
    cause: sip.Fact | None

    @property
    def by_us(self) -> bool:
        """True if we hung up, cancelled or rejected."""
        return self.cause is None


_ENDING_FACTS = (sip.CallCancelled, sip.CallRefused, sip.ByeReceived, sip.CallLost)


class PhoneCall:
    """One call of a phone. `facts` is everything the SIP side told, in order; `line` is the audio."""

    def __init__(self, phone: Phone, leg: str, state: State, line: AudioLine) -> None:
        self.leg = leg
        self.state = state
        self.line = line
        self.facts: list[sip.Fact] = []
        self.ending: Ending | None = None
        self.incoming: sip.IncomingCall | None = None
        self.scope = trio.CancelScope()
        self._phone = phone
        self._local = LocalMedia(
            host=phone.local_host,
            port=line.port,
            ssrc=line.ssrc,
            session_id=random.Random(leg).getrandbits(31),
            security=phone.security(leg),
        )
        self._ours: SessionDescription | None = None  # our offer, where the other side made none
        self._news = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<PhoneCall {self.leg} {self.state.value}>"

    # -- what the peer did --------------------------------------------------------------------------------------

    async def until(self, kind: type[FactT], count: int = 1) -> FactT:
        """Wait for the `count`-th fact of this kind. Raises RustpbxError if the call ends first."""
        while True:
            found = [fact for fact in self.facts if isinstance(fact, kind)]
            if len(found) >= count:
                return found[count - 1]
            self._raise_if_ended(f"before its {kind.__name__} number {count}")
            await self._news.park()

    async def progressed(self, count: int = 1) -> sip.CallProgress:
        """Wait for the `count`-th provisional response (180, 183) to our INVITE."""
        return await self.until(sip.CallProgress, count)

    async def answered(self) -> MediaFormat:
        """Wait until audio can flow: the answer to our INVITE, or the ACK to ours. Raises `CallRefusedError`."""
        await self._wait(lambda: self.state is not State.DIALLING)
        if self.incoming is not None:
            await self.until(sip.CallConfirmed)
        else:
            await self.until(sip.CallAnswered)
        if self.line.format is None:
            raise RustpbxError(f"{self}: no audio was agreed")
        return self.line.format

    async def ended(self) -> Ending:
        """Wait for the end of the call, whoever ends it."""
        while self.ending is None:
            await self._news.park()
        return self.ending

    async def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.park()

    def _raise_if_ended(self, when: str) -> None:
        if self.ending is None:
            return
        if isinstance(self.ending.cause, sip.CallRefused):
            raise CallRefusedError(self.ending.cause.status, self.ending.cause.reason)
        raise RustpbxError(f"{self} ended {when}: {self.ending.cause or 'by ourselves'}")

    # -- what we do ---------------------------------------------------------------------------------------------

    def ringing(self, status: int = 180, *, early_media: bool = False) -> None:
        """Tell the caller that we ring; with `early_media`, answer the SDP already (audio flows)."""
        body = self._description() if early_media else b""
        self._phone.wish(sip.Ring(self.leg, status, body))

    def answer(
        self,
        *,
        codecs: tuple[Codec, ...] = BOTH_LAWS,
        dtmf: bool = True,
        body: bytes | None = None,
        headers: Lines = (),
    ) -> None:
        """Answer the incoming call, `headers` in the 200. Raises `NegotiationError` if the offer has nothing for us.

        With a `body`, that is what the 200 carries, whatever it is; there is no audio then.
        """
        self._local = attrs.evolve(self._local, codecs=codecs, dtmf=dtmf)
        if body is None:
            body = self._description()
        self._phone.wish(sip.Answer(self.leg, body, headers))
        self._become(State.TALKING)

    def reject(self, status: int = 486, reason: str | None = None, headers: Lines = ()) -> None:
        """Refuse the incoming call with a final status."""
        self._phone.wish(sip.Refuse(self.leg, status, reason, headers))
        self._end(None)

    def hang_up(self, headers: Lines = ()) -> None:
        """End the call: BYE, CANCEL or a refusal, as its state demands; `headers` go with it."""
        self._phone.wish(sip.HangUp(self.leg, headers))
        self._end(None)

    cancel = hang_up
    """The same, by the name it has before the answer."""

    def refer(self, target: str, *, headers: Lines = ()) -> None:
        """Ask the other side to call `target` (REFER); `until(ReferProgress)` and `until(ReferEnded)` tell the rest."""
        self._phone.wish(
            sip.SendRefer(self.leg, parse_name_addr(target), NameAddr(parse_uri(self._phone.uri)), headers)
        )

    def report_referral(self, status: int, reason: str = "") -> None:
        """Tell the other side what has become of its REFER (`until(ReferReceived)`)."""
        self._phone.wish(sip.ReportReferral(self.leg, status, reason))

    async def re_invite(
        self,
        *,
        codecs: tuple[Codec, ...] | None = None,
        direction: Direction | None = None,
        port: int | None = None,
        new_keys: bool = False,
    ) -> sip.OfferAnswered | sip.OfferRefused:
        """Offer other codecs, direction (hold), RTP port (0: any one) or keys, and wait for the outcome."""
        if port is not None:
            self.line.move(await self._phone.open_rtp(port))
        before = attrs.evolve(self._local, port=self.line.port)
        self._local = attrs.evolve(
            before.next(), codecs=codecs or before.codecs, direction=direction or before.direction
        )
        if new_keys:
            security = self._phone.security(f"{self.leg} {self._local.version}")
            self._local = attrs.evolve(self._local, security=security)
        ours = offer(self._local)
        outcome = await self.re_offer(encode_sdp(ours))
        if isinstance(outcome, sip.OfferAnswered):
            self.line.agree(accept_answer(ours, parse_sdp(outcome.body)))
        else:
            self._local = attrs.evolve(before, version=self._local.version)
        return outcome

    async def re_offer(self, body: bytes) -> sip.OfferAnswered | sip.OfferRefused:
        """Offer this, whatever it is, and wait for the outcome; the audio stays as it was agreed."""
        count = len(self._outcomes())
        self._phone.wish(sip.SendOffer(self.leg, body))
        await self._wait(lambda: len(self._outcomes()) > count or self.ending is not None)
        self._raise_if_ended("before its offer was answered")
        return self._outcomes()[count]

    def _outcomes(self) -> list[sip.OfferAnswered | sip.OfferRefused]:
        return [fact for fact in self.facts if isinstance(fact, sip.OfferAnswered | sip.OfferRefused)]

    async def say(self, pcm: Pcm, rate: int = 8000) -> Spoken:
        """Say samples of this rate; returns when the last is sent. See `AudioLine.say`."""
        return await self.line.say(pcm, rate)

    async def press(self, digit: str, duration: int = 100) -> Spoken:
        """Press a key for `duration` ms (RFC 4733)."""
        return await self.line.press(digit, duration)

    def hear(self) -> Pcm:
        """Everything heard so far, 8 kHz, aligned by RTP time."""
        return self.line.hear()

    # -- inside -------------------------------------------------------------------------------------------------

    def _offer(self) -> bytes:
        if self.incoming is None:
            raise RustpbxError(f"{self} is not an incoming call")
        return self.incoming.offer

    def _description(self) -> bytes:
        """Our answer to the INVITE's offer; an offer of ours if it has none."""
        theirs = self._offer()
        if theirs:
            return self._answer_offer(theirs)
        self._ours = offer(self._local)
        return encode_sdp(self._ours)

    def _answer_offer(self, theirs: bytes) -> bytes:
        ours, media = answer(parse_sdp(theirs), self._local)
        self.line.agree(media)
        return encode_sdp(ours)

    def our_offer(self, codecs: tuple[Codec, ...], direction: Direction, *, dtmf: bool) -> SessionDescription:
        """The SDP offer of this call's INVITE."""
        self._local = attrs.evolve(self._local, codecs=codecs, direction=direction, dtmf=dtmf)
        return offer(self._local)

    def note(self, fact: sip.Fact, ours: SessionDescription | None) -> None:
        """Take a fact of this call; `ours` is the offer of our INVITE."""
        self.facts.append(fact)
        body = fact.body if isinstance(fact, sip.CallAnswered | sip.CallProgress) else b""
        if body and ours is not None:
            self.line.agree(accept_answer(ours, parse_sdp(body)))
        if isinstance(fact, sip.CallAnswered):
            self._become(State.TALKING)
            if fact.offered:
                self._phone.wish(sip.AcceptOffer(self.leg, self._answer_offer(fact.body)))
        elif isinstance(fact, sip.CallConfirmed) and fact.body and self._ours is not None:
            self.line.agree(accept_answer(self._ours, parse_sdp(fact.body)))
        elif isinstance(fact, sip.OfferReceived):
            self._take_offer(fact.body)
        elif isinstance(fact, sip.DigitReceived):
            self.line.take_digit(fact.digit)
        elif isinstance(fact, _ENDING_FACTS):
            self._end(fact)
        self._news.unpark_all()

    def _take_offer(self, theirs: bytes) -> None:
        """Answer a re-INVITE as it asks, with an offer of ours if it has none; refuse what we cannot do."""
        self._local = self._local.next()
        if not theirs:
            self._ours = offer(self._local)
            self._phone.wish(sip.AcceptOffer(self.leg, encode_sdp(self._ours)))
            return
        try:
            body = self._answer_offer(theirs)
        except (RemoteError, MediaError):
            self._phone.wish(sip.RefuseOffer(self.leg))
        else:
            self._phone.wish(sip.AcceptOffer(self.leg, body))

    def _become(self, state: State) -> None:
        self.state = state
        self._news.unpark_all()

    def _end(self, cause: sip.Fact | None) -> None:
        if self.ending is None:
            self.ending = Ending(trio.current_time(), cause)
            self.scope.cancel()
            self._become(State.ENDED)


class Phone:
    """A phone with one SIP address. Made by `open_phone`. `trace` holds every SIP message in and out, in order.

    Calls begun without `audio` send no RTP: for tests of signalling, where an hour passes. `srtp` is what it wants of
    the calls that begin from now on: `SrtpPolicy(mode=SrtpMode.REQUIRE)`.
    """

    def __init__(self, network: Network, stack: Stack, host: str, user: str, rng: random.Random) -> None:
        self.network = network
        self.local_host = host
        self.user = user
        self.audio = True
        self.srtp = PLAIN
        self.calls: dict[str, PhoneCall] = {}
        self.trace: list[Traced] = []
        self.on_trace: Callable[[Traced], None] | None = None
        self.address: Address = (host, 0)
        self._stack = stack
        self._rng = rng
        self._offers: dict[str, SessionDescription] = {}
        self._ringing, self._rung = trio.open_memory_channel[PhoneCall](UNANSWERED)
        self._nursery: trio.Nursery | None = None
        stack.trace = self._traced

    @property
    def uri(self) -> str:
        """What to dial to reach this phone."""
        return f"sip:{self.user}@{self.address[0]}:{self.address[1]}"

    def security(self, seed: str) -> Security:
        """Its keys for a call, the same for the same seed: what is tested is not their secrecy."""
        rng = random.Random(seed)
        keys = tuple(SrtpKey(suite, rng.randbytes(suite.key_size)) for suite in SrtpSuite)
        return Security(mode=self.srtp.mode, keys=keys, offered=self.srtp.suites)

    def wish(self, wish: sip.Wish) -> None:
        """Hand a wish to the SIP stack."""
        self._stack.wish(wish)

    async def dial(
        self,
        uri: str,
        *,
        caller: str | None = None,
        credentials: sip.Credentials | None = None,
        headers: Lines = (),
        codecs: tuple[Codec, ...] = BOTH_LAWS,
        direction: Direction = Direction.SENDRECV,
        dtmf: bool = True,
        sends_silence: bool = True,
        delayed_offer: bool = False,
        body: bytes | None = None,
    ) -> PhoneCall:
        """Send an INVITE and return at once; `call.answered()` waits. A phone with `sends_silence` sends RTP always.

        With `delayed_offer` the INVITE has no SDP: the other side offers, and our ACK answers. With a `body`, that is
        what the INVITE offers: the audio is somebody else's, a browser's say, and so is the answer's meaning.
        """
        callee = parse_uri(uri)
        leg = f"{self.user}-{len(self.calls)}-{self._rng.getrandbits(32):08x}"
        call = await self._open_call(leg, State.DIALLING, sends_silence=sends_silence)
        ours = call.our_offer(codecs, direction, dtmf=dtmf)
        if not delayed_offer and body is None:
            self._offers[leg] = ours
        if body is None:
            body = b"" if delayed_offer else encode_sdp(ours)
        self.wish(
            sip.SendInvite(
                leg=leg,
                caller=NameAddr(parse_uri(caller or self.uri)),
                callee=callee,
                body=body,
                local_host=self.local_host,
                credentials=credentials,
                headers=headers,
            )
        )
        return call

    async def ring(self) -> PhoneCall:
        """Wait for the next incoming call that nobody has taken yet."""
        return await self._rung.receive()

    async def open_rtp(self, port: int = 0) -> Datagrams:
        """Bind an RTP port; with 0 an even free one."""
        socket = await self.network.open_datagrams(self.local_host, port)
        odd: list[Datagrams] = []
        while port == 0 and socket.address[1] % 2:
            odd.append(socket)  # held until an even one is found, so that the system does not offer it again
            socket = await self.network.open_datagrams(self.local_host, 0)
        for unwanted in odd:
            unwanted.close()
        return socket

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started when the SIP address is bound."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self.address = await nursery.start(self._stack.run)
            task_status.started()
            async for fact in self._stack.facts:
                await self._note(fact)

    async def _note(self, fact: sip.Fact) -> None:
        if isinstance(fact, sip.IncomingCall):
            await self._take(fact)
        elif fact.leg in self.calls:
            self.calls[fact.leg].note(fact, self._offers.get(fact.leg))

    async def _take(self, fact: sip.IncomingCall) -> None:
        call = await self._open_call(fact.leg, State.INCOMING, sends_silence=True)
        call.incoming = fact
        call.note(fact, None)
        try:
            self._ringing.send_nowait(call)
        except trio.WouldBlock:
            call.reject(486)

    async def _open_call(self, leg: str, state: State, *, sends_silence: bool) -> PhoneCall:
        if self._nursery is None:
            raise RustpbxError("the phone is not running")
        line = AudioLine(await self.open_rtp(), random.Random(self._rng.random()), sends_silence=sends_silence)
        call = self.calls[leg] = PhoneCall(self, leg, state, line)
        self._nursery.start_soon(self._hold_line, call, name=f"{call}")
        return call

    async def _hold_line(self, call: PhoneCall) -> None:
        with call.scope:
            await call.line.run(sends=self.audio)

    def _traced(self, traced: Traced) -> None:
        self.trace.append(traced)
        if self.on_trace is not None:
            self.on_trace(traced)


@asynccontextmanager
async def open_phone(
    network: Network,
    host: str,
    port: int = 0,
    *,
    user: str = "phone",
    clock: Clock | None = None,
    seed: int = 0,
    streams: Streams | None = None,
    extensions: Extensions | None = None,
) -> AsyncIterator[Phone]:
    """A phone for the length of a block, bound to `host` (an IP literal) and `port` (0: a free one) over UDP.

    It dials by the transport that the dialled URI names (`sip:...;transport=tcp`, `tls`, `ws`). `streams` are the ports
    at which it can be called so, and whose certificates it trusts; `extensions` are what its SIP does beyond RFC 3261.

    Raises OSError if the address is taken. In virtual time the same `seed` gives the same tags, branches and SSRCs; a
    phone opened later on the same address has others, or peers would take its calls for repetitions.
    """
    rng = random.Random(f"{seed} {user} {host}:{port} {trio.current_time()}")
    config = EndpointConfig(user_agent="rustpbx test phone", port=port, extensions=extensions or Extensions())
    stack = Stack(config, network, clock or TrioClock(), host, port, None, rng, streams)
    async with trio.open_nursery() as nursery:
        phone = Phone(network, stack, host, user, rng)
        await nursery.start(phone.run)
        yield phone
        nursery.cancel_scope.cancel()
