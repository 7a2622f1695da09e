"""One leg: what happens to it now and then, beside the arrays that hold what happens each tick."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import attrs
import trio

from rustpbx.core import Address
from rustpbx.media.codec.base import Coder
from rustpbx.media.codec.registry import make_coder
from rustpbx.media.dtmf import DigitReceiver
from rustpbx.media.events import Codec, Direction, Fact, LegStats, MediaFormat, SrtpKeys
from rustpbx.media.plane.bank import Bank
from rustpbx.media.plane.binding import Bound
from rustpbx.media.plane.coded import Coded
from rustpbx.media.plane.keypad import Keypad
from rustpbx.media.plane.latch import Latch
from rustpbx.media.plane.outlet import Carrier
from rustpbx.media.plane.playout import LawPlayout, Playout, WidePlayout, fit
from rustpbx.media.plane.report import Reporter
from rustpbx.media.plane.source import Source
from rustpbx.media.plane.stages import FRAME, LAW_OF
from rustpbx.media.plane.stream import Stream
from rustpbx.media.plane.tap import Tap
from rustpbx.media.rtp import RtpPacket
from rustpbx.media.srtp import Opener, Sealer
from rustpbx.media.vad.activity import Activity
from rustpbx.media.vad.detector import Detector

Aside = Callable[[bytes, Address], None]
"""Takes a datagram, and where it came from."""

RECEIVING = frozenset({Direction.SENDRECV, Direction.RECVONLY})
SENDING = frozenset({Direction.SENDRECV, Direction.SENDONLY})


@attrs.frozen(eq=False)
class Watch:
    """How a leg is watched: what it makes of voiced frames, and who says which those are.

    `detector` judges each frame within the tick. Without one `engine` names the one that scores many legs' chunks at
    once (`rustpbx.media.plane.deliberation`); a score above `threshold` is speech.
    """

    engine: str
    detector: Detector | None
    activity: Activity
    threshold: float


@attrs.frozen
class Newcomer:
    """The first packet of an SSRC that is not believed yet, and how many of the believed one had come before it."""

    packet: RtpPacket
    received: int


@attrs.define(eq=False)
class Leg:
    """A call's media leg in slot `slot` of the bank. `rtp` and `rtcp` are the handles that packets leave by."""

    name: str
    slot: int
    ssrc: int
    facts: trio.MemorySendChannel[Fact]
    bank: Bank
    counters: Counter[str]
    reporter: Reporter
    rtp: int = -1
    rtcp: int = -1
    bound: Bound | None = None  # its ports, if it has any of its own
    format: MediaFormat | None = None
    latch: Latch | None = None
    carrier: Carrier | None = None  # takes its packets to the peer, if it has neither ports nor a stream
    path: Address | None = None  # where its peer is proved to be, while we do what the carrier would
    aside: Aside | None = None  # takes what comes to the socket of that path and is no media of the peer's
    believed: Address | None = None  # the latch's address, where the drain loop finds it fastest
    former: Address | None = None  # whom the port's last call believed: it may still be sending
    stream: Stream | None = None  # in place of ports
    sealer: Sealer | None = None  # both are None on a leg without SRTP
    opener: Opener | None = None
    newcomer: Newcomer | None = None
    digits: DigitReceiver = attrs.field(factory=DigitReceiver)
    keypad: Keypad = attrs.field(factory=Keypad)
    source: Source | None = None
    taps: list[Tap] = attrs.field(factory=list)
    watch: Watch | None = None
    overhearers: int = 0  # legs that send what is heard here
    seeks_tones: bool = False  # digits are looked for in its audio
    seeks_beeps: bool = False  # and the beep of an answering machine
    life: int = -1  # packets of both kinds when the vigil last looked, and since when they are as many
    quiet_since: float = 0.0
    patience: float | None = None  # seconds of silence that are too much; None is as the plane has it
    muted: bool = False  # what is played on it is silence
    failed: bool = False
    dropped: int = 0
    strays: int = 0  # packets in a row outside the jitter ring
    heard_before: tuple[int, int] = (0, 0)  # received and expected of earlier SSRCs
    _contexts: tuple[Sealer, Opener] | None = None

    @property
    def port(self) -> int:
        """Its RTP port; 0 if it has none of its own."""
        return 0 if self.bound is None else self.bound.port

    @property
    def coded(self) -> Coded | None:
        """Its codec, if it is none of the arrays' own."""
        return self.bank.coders.get(self.slot)

    @property
    def playout(self) -> Playout:
        """What its sources fill."""
        return LawPlayout(self.bank, self.slot) if self.coded is None else WidePlayout(self.coded.playout)

    @property
    def clock_rate(self) -> int:
        """Hz of its RTP time."""
        return int(self.bank.step[self.slot]) * 50

    @property
    def receiving(self) -> bool:
        """Whether what comes in counts at all: not while our direction is sendonly or inactive."""
        return self.format is not None and self.format.direction in RECEIVING

    @property
    def destination(self) -> Address | None:
        """Where our RTP goes."""
        return self.latch.send_to if self.latch else None

    @property
    def rtcp_destination(self) -> Address | None:
        """Where our RTCP goes: as agreed, but after the peer if it was learned elsewhere."""
        if self.format is None or self.latch is None:
            return None
        if self.format.rtcp_mux:
            return self.latch.send_to
        if self.latch.address in (None, self.format.remote):
            return self.format.rtcp
        host, port = self.latch.send_to
        return (host, port + 1) if self.format.rtcp and port < 65535 else None

    def tell(self, fact: Fact) -> None:
        """Hand a fact up; a full or closed channel is counted and never waited for."""
        try:
            self.facts.send_nowait(fact)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.counters["facts_dropped"] += 1

    def drop(self, why: str) -> None:
        """Count a packet that is not used."""
        self.dropped += 1
        self.counters[why] += 1

    def agree(self, media: MediaFormat, now: float) -> None:
        """Obey a new agreement: keys, address (learned anew), codecs, direction, packet time.

        Raises `MediaError`, and changes nothing, if there is no SRTP of that suite, or no such codec, here.
        """
        changed = self.format is None or media.codec is not self.format.codec
        coder = make_coder(media) if changed else None
        self._protect(media.srtp)
        before, self.format = self.format, media
        bank, slot = self.bank, self.slot
        self.locate(media.remote, now)
        bank.receive_pt[slot] = media.receive_pt if media.direction in RECEIVING else -1
        if changed or not self.receiving:
            self.forget()
        if changed:
            self._use(media.codec, coder)
        bank.send_pt[slot] = media.send_pt
        if self.source is None or not bank.unsent[slot]:
            bank.payload[slot] = bank.silence_code(slot)
        frames = media.ptime // 20 if media.ptime in (20, 40, 60) and self.coded is None else 1
        if frames != bank.frames[slot]:
            bank.frames[slot], bank.phase[slot] = frames, 0
        bank.sending[slot] = media.direction in SENDING
        bank.marker[slot] |= before is None or before.direction not in SENDING

    def locate(self, remote: Address, now: float) -> None:
        """Look for the peer anew: where its path leads, or where `remote` says."""
        self.latch = Latch(self.path or remote, now, barred=self.former)
        self.believed = self.path

    def carry(self, coder: Coder) -> None:
        """Have the stream's codec. There is no agreement to obey: both directions are open."""
        self._use(None, coder)
        self.bank.sending[self.slot] = True

    def _use(self, codec: Codec | None, coder: Coder | None) -> None:
        """Change the codec: to that of the arrays, or a coder. What is being played goes on in the new one."""
        bank, slot = self.bank, self.slot
        played = self.playout.rows()
        bank.coders.pop(slot, None)
        bank.coded[slot] = coder is not None
        if coder is None:
            assert codec is not None  # noqa: S101 - only streams have no name for theirs
            bank.law_in[slot] = bank.law_out[slot] = LAW_OF[codec]
            bank.step[slot] = FRAME
        else:
            bank.coders[slot] = Coded(coder, bank, slot)
            bank.step[slot] = bank.coders[slot].step
        playout = self.playout
        playout.put(0, fit(played, playout.frame))
        if self.source is not None:
            self.source.move(playout)

    def _protect(self, keys: SrtpKeys | None) -> None:
        """Seal and open with these keys from now on.

        A key that stays keeps its context, over holds and stretches of plain RTP: its rollover counter goes on, no
        keystream is used twice, and what was heard before is still a replay. A new key starts both anew.
        """
        if keys is None:
            self.sealer = self.opener = None
            return
        sealer, opener = self._contexts or (None, None)
        if sealer is None or sealer.key != keys.send:
            sealer = Sealer(keys.send)
        if opener is None or opener.key != keys.receive:
            opener = Opener(keys.receive)
        self._contexts = self.sealer, self.opener = sealer, opener

    def forget(self) -> None:
        """Empty the jitter buffer; the next packet starts it again."""
        bank, slot = self.bank, self.slot
        bank.present[slot] = False
        bank.flowing[slot] = False
        bank.misses[slot] = 1000  # silence, no repeat of what was there before
        bank.lead[slot] = bank.hold[slot] = bank.surplus[slot] = 0
        if self.coded is not None:
            self.coded.forget()

    def listen(self) -> None:
        """Note whether anybody listens; whoever begins to does not hear what was before."""
        bank, slot = self.bank, self.slot
        overheard = any(tap.played for tap in self.taps) and not self.failed
        if overheard and not bank.overheard[slot]:
            bank.said[slot] = 0
            if self.coded is not None:
                self.coded.said[:] = 0
        bank.overheard[slot] = overheard
        taps = any(not tap.played for tap in self.taps)
        asked = taps or self.watch is not None or self.seeks_tones or self.seeks_beeps or self.overhearers > 0
        wanted = asked and not self.failed
        if wanted and not bank.wanted[slot]:
            bank.kept[slot] = 0
            if self.coded is not None:
                self.coded.deafen()
        bank.wanted[slot] = wanted

    def stats(self) -> LegStats:
        """The counters as they stand."""
        bank, slot = self.bank, self.slot
        received, expected = self.totals()
        return LegStats(
            packets_sent=int(bank.sent[slot]),
            packets_received=received,
            packets_lost=max(0, expected - received),
            packets_dropped=self.dropped,
            jitter=float(bank.jitter[slot]) / self.clock_rate,
            round_trip=self.reporter.round_trip,
        )

    def totals(self) -> tuple[int, int]:
        """Packets received and expected, over every SSRC the peer had."""
        bank, slot = self.bank, self.slot
        received, expected = self.heard_before
        if bank.ssrc_known[slot]:
            received += int(bank.received[slot])
            expected += int(bank.last_sequence[slot] - bank.base_sequence[slot]) + 1
        return received, expected
