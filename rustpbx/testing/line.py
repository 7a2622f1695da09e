"""The audio side of a test phone's call: one RTP socket, a frame sent every 20 ms, everything heard kept.

A phone may be simple: it has a task per call, no jitter buffer and no concealment. What it heard is laid out by RTP
time afterwards, so a recording is sample-exact whatever order the packets came in. That is so for G.711; Opus and G.722
are decoded as they come, and are spoken and heard at 16 kHz.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable

import attrs
import numpy as np
import trio

from rustpbx.errors import MediaError
from rustpbx.media.codec.base import RATE as WIDE_RATE
from rustpbx.media.codec.base import WIDE, Coder
from rustpbx.media.codec.g711 import LAWS
from rustpbx.media.codec.registry import make_coder
from rustpbx.media.codec.resample import downsampling_matrix, resample
from rustpbx.media.dtmf import DigitPacket, DigitReceiver, digit_packets
from rustpbx.media.events import Codec, Direction, MediaFormat, Pcm
from rustpbx.media.rtp import RtpPacket, build_rtp, is_rtcp, parse_rtp
from rustpbx.media.seq import extend
from rustpbx.media.srtp import Opener, Sealer
from rustpbx.shell.network import Datagrams

RATE = 8000
FRAME = 160  # samples: 20 ms
NARROWING, PAST = downsampling_matrix(WIDE)
LOUD = 500  # a frame with a larger sample is sound: about -36 dBFS
FARTHEST = 5 * RATE  # a timestamp that jumps farther than this from the arrival begins anew there
KEPT = 30_000  # packets remembered of each kind: ten minutes

STATIC = {0: Codec.PCMU, 8: Codec.PCMA}
SENDING = frozenset({Direction.SENDRECV, Direction.SENDONLY})


@attrs.frozen
class Heard:
    """One audio packet that arrived. `position` is its first sample's place in the recording, by RTP time.

    `pcm` is at 8 kHz; `wide` is the same at 16 kHz, where the codec has that.
    """

    at: float
    position: int
    packet: RtpPacket
    pcm: Pcm = attrs.field(eq=False, repr=False)
    wide: Pcm | None = attrs.field(default=None, eq=False, repr=False)

    @property
    def loud(self) -> bool:
        """Whether it holds sound."""
        return bool(len(self.pcm)) and int(np.abs(self.pcm.astype(np.int32)).max()) > LOUD


@attrs.frozen
class Spoken:
    """When something was said: the first packet left, and the end of the last one's 20 ms."""

    started_at: float
    ended_at: float


@attrs.define(eq=False)
class _Job:
    """Something to send: audio frames or the packets of a key press, and when it was done."""

    frames: deque[Pcm | DigitPacket]
    done: trio.Event = attrs.field(factory=trio.Event)
    started_at: float | None = None
    ended_at: float = 0.0


class _Narrowing:
    """Makes 8 kHz of frames at 16 kHz, one after the other."""

    def __init__(self) -> None:
        self._recent: Pcm = np.zeros(PAST + WIDE, np.int16)

    def feed(self, pcm: Pcm) -> Pcm:
        """Whole frames of 20 ms, or what a peer packs otherwise, by itself."""
        if pcm.size % WIDE:
            return resample(pcm, WIDE_RATE, RATE)
        found = [np.zeros(0, np.int16)]
        for frame in pcm.reshape(-1, WIDE):
            self._recent = np.concatenate([self._recent[-PAST:], frame])
            samples = self._recent.astype(np.float32) @ NARROWING
            found.append(np.clip(np.rint(samples), -32768, 32767).astype(np.int16))
        return np.concatenate(found)


@attrs.define
class _Stream:
    """Where one SSRC's timestamps lie in the recording."""

    timestamp: int
    position: int


class AudioLine:
    """RTP of one call. `run` it for the length of the call; `agree` tells it the negotiated format.

    `loud_at` is when sound last arrived. `digits` are the DTMF digits heard, those by SIP INFO among them, `rtcp` the
    RTCP packets, opened where SRTP was agreed; `unopened` counts what came and was not sealed as agreed.
    """

    def __init__(self, socket: Datagrams, rng: random.Random, *, sends_silence: bool = True) -> None:
        self.ssrc = rng.getrandbits(32)
        self.format: MediaFormat | None = None
        self.heard: deque[Heard] = deque(maxlen=KEPT)
        self.digits: list[str] = []
        self.rtcp: deque[bytes] = deque(maxlen=1000)
        self.packets_sent = 0
        self.unopened = 0
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._coder: Coder | None = None
        self.loud_at = float("-inf")
        self._socket = socket
        self._sockets = {socket}
        self._sends_silence = sends_silence
        self._sequence = rng.getrandbits(16)
        self._timestamp = rng.getrandbits(32)
        self._position_sent = 0
        self._sent: deque[tuple[int, Pcm]] = deque(maxlen=KEPT)
        self._narrow_sent, self._narrow_heard = _Narrowing(), _Narrowing()
        self._jobs: deque[_Job] = deque()
        self._press_timestamp = 0
        self._marker = True
        self._digits = DigitReceiver()
        self._streams: dict[int, _Stream] = {}
        self._first_at: float | None = None
        self._news = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self._closed = False

    @property
    def port(self) -> int:
        """The RTP port we receive on."""
        return self._socket.address[1]

    def agree(self, media: MediaFormat) -> None:
        """Send and receive as agreed, from now on."""
        if self.format is None or (media.codec, media.opus) != (self.format.codec, self.format.opus):
            self._coder = make_coder(media)
        self.format = media
        if media.srtp is None:
            self._sealer = self._opener = None
            return
        if self._sealer is None or self._sealer.key != media.srtp.send:
            self._sealer = Sealer(media.srtp.send)
        if self._opener is None or self._opener.key != media.srtp.receive:
            self._opener = Opener(media.srtp.receive)

    def move(self, socket: Datagrams) -> None:
        """Use another port from now on; what still comes to the old one is heard too."""
        self._socket = socket
        self._sockets.add(socket)
        if self._nursery is not None:
            self._nursery.start_soon(self._receive_from, socket)

    async def run(self, *, sends: bool = True) -> None:
        """Send and receive until cancelled; gives the ports back. One that never `sends` has no frame each 20 ms."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for socket in self._sockets:
                    nursery.start_soon(self._receive_from, socket)
                if sends:
                    nursery.start_soon(self._send)
        finally:
            self.close()

    def close(self) -> None:
        """Give the ports back; what waits to be said is given up. Idempotent."""
        self._closed = True
        self._news.unpark_all()
        for socket in self._sockets:
            socket.close()
        while self._jobs:
            self._jobs.popleft().done.set()

    # -- saying -------------------------------------------------------------------------------------------------

    async def say(self, pcm: Pcm, rate: int = RATE) -> Spoken:
        """Queue samples (of 8 kHz, or of `rate`) and wait until they are sent; the last frame is filled with silence.

        Raises `MediaError` if the call ends first.
        """
        at = self._rate
        fitting = resample(pcm, rate, at) if rate != at else pcm
        frame = at // 50
        padded = np.pad(fitting, (0, -len(fitting) % frame))
        return await self._finish(_Job(deque(padded.reshape(-1, frame))))

    @property
    def _rate(self) -> int:
        """Hz of what is said and heard in the codec of now."""
        return RATE if self._coder is None else WIDE_RATE

    @property
    def _clock(self) -> int:
        """Hz of RTP time, likewise."""
        return RATE if self._coder is None else self._coder.clock_rate

    async def press(self, digit: str, duration: int = 100) -> Spoken:
        """Queue one key press of `duration` ms (RFC 4733) and wait until it is sent. Raises `MediaError`."""
        if self.format is None or self.format.send_dtmf_pt is None:
            raise MediaError("telephone-event was not agreed")
        clock = self.format.dtmf_rate or self._clock
        return await self._finish(_Job(deque(digit_packets(digit, duration=duration, clock_rate=clock))))

    async def _finish(self, job: _Job) -> Spoken:
        if not job.frames:
            now = trio.current_time()
            return Spoken(now, now)
        self._jobs.append(job)
        try:
            await job.done.wait()
        finally:
            if job in self._jobs:
                self._jobs.remove(job)  # cancelled: say no more of it
        if job.started_at is None or job.frames:
            raise MediaError("the call ended before it was said")
        return Spoken(job.started_at, job.ended_at)

    async def _send(self) -> None:
        """A frame each 20 ms on an absolute schedule, so that lateness does not add up."""
        due = trio.current_time()
        while True:
            await self._send_frame()
            while self._jobs and not self._jobs[0].frames:
                self._jobs.popleft().done.set()
            self._timestamp = (self._timestamp + self._clock // 50) & 0xFFFFFFFF
            self._position_sent += FRAME
            due += FRAME / RATE
            await trio.sleep_until(due)

    async def _send_frame(self) -> None:
        media = self.format
        if media is None or media.direction not in SENDING:
            self._marker = True
            return
        item = self._next()
        if isinstance(item, DigitPacket):
            if item.marker:
                self._press_timestamp = self._timestamp
            if media.send_dtmf_pt is not None:
                packet = self._packet(media.send_dtmf_pt, self._press_timestamp, item.payload, marker=item.marker)
                await self._socket.send(packet, media.remote)
            return
        if item is None and not self._sends_silence:
            self._marker = True
            return
        payload = self._encoded(media, np.zeros(self._rate // 50, np.int16) if item is None else item)
        if not payload:  # DTX
            self._marker = True
            return
        packet = self._packet(media.send_pt, self._timestamp, payload, marker=self._marker)
        self._marker = False
        await self._socket.send(packet, media.remote)

    def _encoded(self, media: MediaFormat, pcm: Pcm) -> bytes:
        if pcm.size != self._rate // 50:  # it was queued for another codec
            pcm = np.resize(resample(pcm, pcm.size * 50, self._rate), self._rate // 50)
        if self._coder is not None:
            self._sent.append((self._position_sent, self._narrow_sent.feed(pcm)))
            return self._coder.encode(pcm)
        law = LAWS[media.codec]
        codes = law.encode(pcm)
        self._sent.append((self._position_sent, law.decode(codes)))
        return codes.tobytes()

    def _next(self) -> Pcm | DigitPacket | None:
        if not self._jobs:
            return None
        job, now = self._jobs[0], trio.current_time()
        if job.started_at is None:
            job.started_at = now
        item = job.frames.popleft()
        if not job.frames:
            job.ended_at = now + FRAME / RATE
        return item

    def _packet(self, payload_type: int, timestamp: int, payload: bytes, *, marker: bool) -> bytes:
        packet = RtpPacket(
            payload_type=payload_type,
            sequence=self._sequence,
            timestamp=timestamp,
            ssrc=self.ssrc,
            payload=payload,
            marker=marker,
        )
        self._sequence = (self._sequence + 1) & 0xFFFF
        self.packets_sent += 1
        data = build_rtp(packet)
        return data if self._sealer is None else self._sealer.sealed(data) or b""

    def said(self) -> Pcm:
        """All audio sent so far, silences included, aligned by RTP time, at 8 kHz; of G.711, as the peer decodes it."""
        return _laid_out(self._sent)

    # -- hearing ------------------------------------------------------------------------------------------------

    async def _receive_from(self, socket: Datagrams) -> None:
        try:
            while True:
                data, _ = await socket.receive()
                self._receive(data, trio.current_time())
        except trio.ClosedResourceError:
            return

    def _receive(self, data: bytes, now: float) -> None:
        if self._opener is not None:
            opened = self._opener.open_report(data) if is_rtcp(data) else self._opener.opened(data)
            if opened is None:
                self.unopened += 1
                return
            data = opened
        if is_rtcp(data):
            self.rtcp.append(data)
            return
        packet = parse_rtp(data)
        if packet is None:
            return
        codec = STATIC.get(packet.payload_type)
        if self.format is not None and packet.payload_type == self.format.receive_pt:
            codec = self.format.codec
        if codec is not None:
            self._receive_audio(packet, codec, now)
        elif self.format is not None and packet.payload_type == self.format.receive_dtmf_pt:
            digit = self._digits.receive(packet.ssrc, packet.timestamp, packet.payload)
            if digit is not None:
                self.digits.append(digit)
        self._news.unpark_all()

    def take_digit(self, digit: str) -> None:
        """A digit that came another way than by RTP."""
        self.digits.append(digit)
        self._news.unpark_all()

    def _receive_audio(self, packet: RtpPacket, codec: Codec, now: float) -> None:
        wide, clock = None, RATE
        if codec in LAWS:
            pcm = LAWS[codec].decode(np.frombuffer(packet.payload, np.uint8))
        elif self._coder is not None:
            try:
                wide, clock = self._coder.decode(packet.payload), self._clock
            except MediaError:
                return  # it is not of the codec
            pcm = self._narrow_heard.feed(wide)
        else:
            return
        heard = Heard(now, self._position(packet, clock, now), packet, pcm, wide)
        self.heard.append(heard)
        if heard.loud:
            self.loud_at = now

    def _position(self, packet: RtpPacket, clock: int, now: float) -> int:
        if self._first_at is None:
            self._first_at = now
        by_arrival = round((now - self._first_at) * RATE)
        stream = self._streams.get(packet.ssrc)
        if stream is not None:
            timestamp = extend(packet.timestamp, stream.timestamp, 32)
            position = stream.position + (timestamp - stream.timestamp) * RATE // clock
            if abs(position - by_arrival) < FARTHEST:
                return position
        self._streams[packet.ssrc] = _Stream(packet.timestamp, by_arrival)
        return by_arrival

    def hear(self) -> Pcm:
        """Everything heard so far at 8 kHz, from the first packet on, aligned by RTP time; gaps are silence."""
        return _laid_out((heard.position, heard.pcm) for heard in self.heard)

    def hear_wide(self) -> Pcm:
        """The same at 16 kHz, without the samples of a codec that has only 8."""
        return _laid_out((2 * heard.position, heard.wide) for heard in self.heard if heard.wide is not None)

    async def sound(self, after: float = float("-inf")) -> float:
        """Wait for sound that arrives after the time `after`; when it arrived."""
        for heard in self.heard:
            if heard.at > after and heard.loud:
                return heard.at
        await self.until(lambda: self.loud_at > after)
        return self.loud_at

    async def hush(self, seconds: float = 0.8, after: float = float("-inf")) -> float:
        """Wait for sound after `after` and then for `seconds` without any; when the last of it arrived."""
        await self.sound(after)
        while True:
            last = self.loud_at
            with trio.move_on_at(last + seconds):
                await self.sound(last)
            if self.loud_at == last:
                return last

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` holds; asked again with each packet that arrives. `MediaError` if the call ends."""
        while not condition():
            if self._closed:
                raise MediaError("the call ended")
            await self._news.park()


def _laid_out(pieces: Iterable[tuple[int, Pcm]]) -> Pcm:
    placed = [(max(0, position), pcm) for position, pcm in pieces]
    recording = np.zeros(max((position + len(pcm) for position, pcm in placed), default=0), np.int16)
    for position, pcm in placed:
        recording[position : position + len(pcm)] = pcm
    return recording
