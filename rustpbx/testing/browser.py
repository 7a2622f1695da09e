"""A browser as test code: an offer, ICE, DTLS and SRTP, and a voice, over any `Network`.

    async with open_browser(network, ["10.0.0.4"]) as browser:
        ...                                  # browser.offer to the server, its answer back
        browser.accept(answer)
        await browser.connected()
        await browser.say(spoken("hello", rate=16000))

It does what a page with `RTCPeerConnection` does, by the server's own cores, so in virtual time too; it has none of a
browser's kindness (no jitter buffer, no concealment), so that a test sees what really came.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import numpy as np
import trio

from rustpbx.core import Tick
from rustpbx.errors import MediaError
from rustpbx.media.codec.base import Coder
from rustpbx.media.codec.registry import make_coder, make_stream_coder
from rustpbx.media.dtls import Association, Certificate
from rustpbx.media.dtmf import DigitReceiver, digit_packets
from rustpbx.media.events import Codec, Direction, MediaFormat, Pcm, SrtpKeys
from rustpbx.media.ice import Close, Gathered, IceAgent, IceOptions, Restart, Trickled
from rustpbx.media.ice.shell import IceTransport
from rustpbx.media.rtp import RtpPacket, build_rtp, is_rtcp, parse_rtp
from rustpbx.media.sdp.encoder import encode_sdp
from rustpbx.media.sdp.fingerprint import Fingerprint, Setup
from rustpbx.media.sdp.ice import Candidate, IceDescription, ice_attributes, read_ice
from rustpbx.media.sdp.model import (
    Attribute,
    Connection,
    Fmtp,
    MediaDescription,
    Origin,
    RtpMap,
    SessionDescription,
)
from rustpbx.media.sdp.negotiate import accept_answer
from rustpbx.media.sdp.parser import parse_sdp
from rustpbx.media.seq import extend
from rustpbx.media.srtp import Opener, Sealer
from rustpbx.media.webrtc import Described, Peer, PeerGone, PeerLost, PeerSecured, Send
from rustpbx.media.webrtc.peer import Effect, Input, Moved
from rustpbx.shell.drive import drive, settle
from rustpbx.shell.network import Network
from rustpbx.testing.line import KEPT
from rustpbx.testing.script import PATIENCE, ScriptError

RATE = 16000
FRAME = 320
"""Samples of 20 ms."""

FORMATS = {
    Codec.OPUS: RtpMap(111, "opus", 48_000, 2),
    Codec.G722: RtpMap(9, "G722", 8000),
    Codec.PCMU: RtpMap(0, "PCMU", 8000),
    Codec.PCMA: RtpMap(8, "PCMA", 8000),
}
KEYS = {48_000: RtpMap(110, "telephone-event", 48_000), 8000: RtpMap(126, "telephone-event", 8000)}
"""Payload types as Chromium has them."""

_PROFILE = "UDP/TLS/RTP/SAVPF"


@attrs.frozen(kw_only=True)
class Habits:
    """How a browser is. `codecs` are offered in this order; with `keys` telephone-event too.

    With `video` a camera is offered beside the microphone. `trickles` leaves the candidates out of the offer:
    `Browser.late` has them. `setup` is its part in DTLS; `never_begins` is one that never says hello.
    """

    codecs: tuple[Codec, ...] = (Codec.OPUS, Codec.G722, Codec.PCMU, Codec.PCMA)
    keys: bool = True
    video: bool = False
    trickles: bool = False
    setup: Setup = Setup.ACTPASS
    never_begins: bool = False
    ice: IceOptions = attrs.field(factory=IceOptions)


class Browser:
    """One peer connection. `lost` says why it ended, if it was not told goodbye.

    `digits` are the keys that came, `rtcp` the reports; `unopened` counts what came and was not sealed as agreed.
    """

    def __init__(self, network: Network, habits: Habits, seed: int) -> None:
        self.habits = habits
        self.agreed: MediaFormat | None = None
        self.gone = False
        self.lost = ""
        self.unopened = 0
        self.rtcp: deque[bytes] = deque(maxlen=1000)
        self.digits: list[str] = []
        self._digits = DigitReceiver()
        self._rng = random.Random(f"browser {seed}")
        self._certificate = Certificate(1_760_000_000.0)
        agent = IceAgent(controlling=True, entropy=self._rng.randbytes, options=habits.ice)
        self.transport = IceTransport(network, agent, self._hear)
        self._gathered = trio.Event()
        self._accepted = trio.Event()
        self._settled = trio.Event()
        self._over = trio.Event()
        self._offered: SessionDescription | None = None
        self._peer: Peer | None = None
        self._send, self._inbox = trio.open_memory_channel[Input](1000)
        self._coder: Coder | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._ssrc = self._rng.getrandbits(32)
        self._sequence = self._rng.getrandbits(15)
        self._timestamp = self._rng.getrandbits(32)
        self._frames: deque[tuple[Pcm, trio.Event | None]] = deque()
        self._heard: deque[tuple[int, Pcm]] = deque(maxlen=KEPT)
        self._first: int | None = None
        self._version = 1

    # -- offer and answer

    @property
    def offer(self) -> str:
        """What the page hands to the server."""
        agent = self.transport.agent
        ice = attrs.evolve(agent.local, candidates=(), ended=False) if self.habits.trickles else agent.local
        self._offered = self._description(ice)
        return encode_sdp(self._offered).decode()

    @property
    def late(self) -> list[str]:
        """The candidates, as a page's script gets them one by one."""
        return [f"candidate:{candidate}" for candidate in self.transport.agent.local.candidates]

    def _description(self, ice: IceDescription) -> SessionDescription:
        rtpmaps = [FORMATS[codec] for codec in self.habits.codecs]
        if self.habits.keys:
            rtpmaps += [KEYS[rate] for rate in sorted({rtpmap.clock_rate for rtpmap in rtpmaps}, reverse=True)]
        nowhere = Connection("0.0.0.0")  # noqa: S104 - an address in SDP, not one to bind
        audio = MediaDescription(
            kind="audio",
            port=9,
            protocol=_PROFILE,
            formats=tuple(str(rtpmap.payload_type) for rtpmap in rtpmaps),
            connection=nowhere,
            rtpmaps=tuple(rtpmaps),
            fmtps=(Fmtp("111", "minptime=10;useinbandfec=1"),) if Codec.OPUS in self.habits.codecs else (),
            rtcp_mux=True,
            direction=Direction.SENDRECV,
            fingerprints=(self._certificate.fingerprint,),
            setup=self.habits.setup,
            attributes=(Attribute("mid", "0"), *ice_attributes(ice)),
        )
        video = attrs.evolve(audio, kind="video", formats=("96",), rtpmaps=(RtpMap(96, "VP8", 90_000),), fmtps=())
        video = attrs.evolve(video, attributes=(Attribute("mid", "1"), *ice_attributes(ice)))
        media = (audio, video) if self.habits.video else (audio,)
        return SessionDescription(
            origin=Origin("4611731400430051336", str(self._version), Connection("127.0.0.1")),
            media=media,
            attributes=(Attribute("group", "BUNDLE 0 1" if self.habits.video else "BUNDLE 0"),),
        )

    def accept(self, answer: str, fingerprints: tuple[Fingerprint, ...] | None = None) -> None:
        """Take the server's answer; ICE begins. `fingerprints` are believed in place of the answer's."""
        if self._offered is None:
            raise ScriptError("an answer, and the browser has not offered anything")
        theirs = parse_sdp(answer.encode())
        ours, audio = self._offered, theirs.media[0]
        self.agreed = accept_answer(_plain(ours), _plain(theirs))
        self._coder = make_coder(self.agreed) or make_stream_coder(self.agreed.codec.value.lower())
        ice = read_ice(theirs, audio)
        if ice is None:
            raise ScriptError(f"an answer without ICE: {answer}")
        if self._peer is None:
            association = Association(
                self._certificate,
                active=theirs.setup_of(audio) is not Setup.ACTIVE,
                entropy=self._rng.randbytes,
                timeout=60.0,
            )
            self._peer = Peer(
                "browser",
                association,
                fingerprints or theirs.fingerprints_of(audio),
                patience=60.0,
                now=trio.current_time(),
            )
            self._send.send_nowait(Gathered())
            self._accepted.set()
        self.transport.describe(ice)

    def restart(self) -> str:
        """Begin ICE anew, as `restartIce` does: the offer for it. The path stays until there is another."""
        settle(self.transport.agent, Restart(), lambda _: None, trio.current_time())
        self.transport.tell(Tick())
        self._version += 1
        return self.offer

    def hears_of(self, candidate: Candidate) -> None:
        """A candidate of the server that came late."""
        self.transport.tell(Trickled(candidate))

    # -- the call

    async def connected(self, within: float = PATIENCE) -> None:
        """Wait until media can flow. Raises `ScriptError` if it cannot."""
        with trio.move_on_after(within):
            await self._settled.wait()
        if self._sealer is None:
            raise ScriptError(f"the browser is not connected within {within:g} s: {self.lost or 'nothing happened'}")

    async def ended(self, within: float = PATIENCE) -> None:
        """Wait until the server says goodbye. Raises `ScriptError` if it does not."""
        with trio.move_on_after(within):
            await self._over.wait()
        if not self.gone:
            raise ScriptError(f"nobody said goodbye to the browser within {within:g} s: {self.lost or 'it goes on'}")

    async def say(self, pcm: Pcm) -> None:
        """Say 16 kHz samples, and wait until they are sent."""
        frames = np.pad(pcm, (0, -len(pcm) % FRAME)).reshape(-1, FRAME)
        said = trio.Event()
        self._frames.extend((frame, said if n == len(frames) - 1 else None) for n, frame in enumerate(frames))
        await said.wait()

    async def press(self, digit: str) -> None:
        """Press a key (RFC 4733)."""
        if self.agreed is None or self.agreed.send_dtmf_pt is None:
            raise MediaError("telephone-event was not agreed")
        timestamp = self._timestamp
        for packet in digit_packets(digit):
            self._packet(self.agreed.send_dtmf_pt, timestamp, packet.payload, marker=packet.marker)
            await trio.sleep(0.02)

    def hear(self) -> Pcm:
        """Everything heard so far at 16 kHz, aligned by RTP time; gaps are silence."""
        end = max((at + len(pcm) for at, pcm in self._heard), default=0)
        recording = np.zeros(end, np.int16)
        for at, pcm in self._heard:
            recording[at : at + len(pcm)] = pcm
        return recording

    def send_raw(self, data: bytes) -> None:
        """Send anything on the path, as media goes."""
        self.transport.send(data)

    def sealed(self, packet: RtpPacket) -> bytes:
        """A packet of our own making, sealed."""
        if self._sealer is None:
            raise ScriptError("the browser is not connected")
        return self._sealer.sealed(build_rtp(packet)) or b""

    def close(self) -> None:
        """Say goodbye (close_notify) and stop, as `RTCPeerConnection.close` does."""
        if self._peer is not None:
            settle(self._peer, Close(), self._perform, trio.current_time())
        self.transport.close()

    # -- inside

    async def run(self, hosts: Sequence[str], *, task_status: trio.TaskStatus[None]) -> None:
        """Hold the sockets, and speak, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.transport.run, hosts)
            nursery.start_soon(self._take_facts)
            await self._gathered.wait()
            task_status.started()
            await self._accepted.wait()
            nursery.start_soon(self._take_dtls)
            nursery.start_soon(self._speak)
            assert self._peer is not None  # noqa: S101 - made with the answer
            await drive(self._peer, self._inbox, self._perform)

    async def _take_facts(self) -> None:
        async for fact in self.transport.facts:
            if isinstance(fact, Gathered):
                self._gathered.set()
            else:
                await self._send.send(fact)

    async def _take_dtls(self) -> None:
        async for payload in self.transport.dtls:
            if not self.habits.never_begins:
                await self._send.send(payload)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send() if not self.habits.never_begins:
                self.transport.send(effect.data)
            case PeerSecured():
                self._secure(effect.keys)
            case PeerLost():
                self.lost = effect.problem
                self._end()
            case PeerGone():
                self.gone = True
                self._end()
            case Described() | Moved() | Send():
                pass

    def _secure(self, keys: SrtpKeys) -> None:
        self._sealer, self._opener = Sealer(keys.send), Opener(keys.receive)
        self._settled.set()

    def _end(self) -> None:
        self._settled.set()
        self._over.set()

    async def _speak(self) -> None:
        """A frame each 20 ms, silence where there is nothing to say."""
        await self._settled.wait()
        due = trio.current_time()
        while not self._over.is_set() and self.agreed is not None and self._coder is not None:
            frame, said = self._frames.popleft() if self._frames else (np.zeros(FRAME, np.int16), None)
            self._packet(self.agreed.send_pt, self._timestamp, self._coder.encode(frame))
            self._timestamp = (self._timestamp + self._coder.clock_rate // 50) & 0xFFFFFFFF
            if said is not None:
                said.set()
            due += FRAME / RATE
            await trio.sleep_until(due)

    def _packet(self, payload_type: int, timestamp: int, payload: bytes, *, marker: bool = False) -> None:
        packet = RtpPacket(
            payload_type=payload_type,
            sequence=self._sequence,
            timestamp=timestamp,
            ssrc=self._ssrc,
            payload=payload,
            marker=marker,
        )
        self._sequence = (self._sequence + 1) & 0xFFFF
        self.transport.send(self.sealed(packet))

    def _hear(self, data: bytes) -> None:
        if self._opener is None or self.agreed is None or self._coder is None:
            return
        opened = self._opener.open_report(data) if is_rtcp(data) else self._opener.opened(data)
        if opened is None:
            self.unopened += 1
        elif is_rtcp(opened):
            self.rtcp.append(opened)
        else:
            self._play(parse_rtp(opened), self.agreed, self._coder)

    def _play(self, packet: RtpPacket | None, agreed: MediaFormat, coder: Coder) -> None:
        if packet is not None and packet.payload_type == agreed.receive_dtmf_pt:
            digit = self._digits.receive(packet.ssrc, packet.timestamp, packet.payload)
            self.digits.extend(digit or "")
        if packet is None or packet.payload_type != agreed.receive_pt:
            return
        if self._first is None:
            self._first = packet.timestamp
        at = extend((packet.timestamp - self._first) & 0xFFFFFFFF, 0, 32) * RATE // coder.clock_rate
        if at >= 0:
            self._heard.append((at, coder.decode(packet.payload)))


def _plain(description: SessionDescription) -> SessionDescription:
    """The same as if it were ordinary RTP: what `accept_answer` is for."""
    first = description.media[0]
    audio = attrs.evolve(first, protocol="RTP/AVP", connection=Connection("192.0.2.1"))
    return attrs.evolve(description, media=(audio, *description.media[1:]))


@asynccontextmanager
async def open_browser(
    network: Network, hosts: Sequence[str], *, seed: int = 0, habits: Habits | None = None
) -> AsyncIterator[Browser]:
    """A browser whose candidates are known, for the length of the block; then it vanishes without a word."""
    async with trio.open_nursery() as nursery:
        browser = Browser(network, habits or Habits(), seed)
        await nursery.start(browser.run, hosts)
        yield browser
        nursery.cancel_scope.cancel()
