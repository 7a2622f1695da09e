"""From the sockets into the jitter rings: drain, judge, place.

Ordinary packets (20 ms of the agreed codec from the known SSRC) are handled a round at a time, all calls at once.
Everything else (first packets, other packet times, DTMF, RTCP on the same port, padding, strangers) takes the slower
way, packet by packet, to the same arrays. SRTP is opened where it lies, before anything else is believed of it; from
there on it is RTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from rustpbx.core import Address
from rustpbx.media.events import DigitPressed
from rustpbx.media.plane import stages
from rustpbx.media.plane.bank import DEPTH, PACKET, Bank
from rustpbx.media.plane.coded import Coded
from rustpbx.media.plane.early import Early
from rustpbx.media.plane.leg import Leg, Newcomer
from rustpbx.media.plane.port import Datagram, Ports
from rustpbx.media.plane.stages import FRAME, HEADER, Flags, Slots
from rustpbx.media.plane.stream import AHEAD
from rustpbx.media.rtp import FIRST_RTCP, LAST_RTCP, VERSION, RtpPacket, is_rtcp, parse_rtp
from rustpbx.media.seq import extend
from rustpbx.media.srtp import REPLAYED, pointers

ROUNDS = 64
"""Packets taken from one socket in one tick. A flood beyond overflows in the kernel's buffer, or is dropped here."""

BATCH = 6
"""From so many packets in a round the arrays are faster than the single way."""

START = 2
"""Frames that the jitter buffer waits for at first: 40 ms."""

LONGEST = 6 * FRAME
"""Payload bytes that we accept in one packet: 120 ms. Offered is at most 60."""

STRAYS = 2
"""So many packets in a row outside the ring mean that the peer's time has jumped."""


Taken = tuple[int, int, int]
"""A packet to be judged: the row of the buffer that it is in, its leg's slot, its size."""


class Ingress:
    """The receiving side of the tick. `eject(leg, error)` is called for a leg whose packet raised, `route(leg)` when
    its peer has been found.
    """

    def __init__(
        self,
        bank: Bank,
        ports: Ports,
        counters: Counter[str],
        *,
        eject: Callable[[Leg, Exception], None],
        route: Callable[[Leg], None],
    ) -> None:
        self._bank = bank
        self._ports = ports
        self._counters = counters
        self._eject = eject
        self._route = route
        self._rtp: dict[int, Leg] = {}
        self._rtcp: dict[int, Leg] = {}
        self._legs: dict[int, Leg] = {}
        self._early: dict[int, Early] = {}
        self._streams: dict[int, Leg] = {}
        self._packets = ports.packets
        self._desk = np.zeros((1, PACKET), np.uint8)  # one more row, for what was kept
        self._views = [memoryview(row) for row in (*ports.packets, *self._desk)]
        self._places = [*pointers(ports.packets), *pointers(self._desk)]

    def add(self, leg: Leg) -> None:
        """Read this leg's sockets from now on."""
        self._legs[leg.slot] = leg
        if leg.stream is not None:
            self._streams[leg.slot] = leg
        elif leg.bound is not None:
            self._rtp[leg.rtp] = leg
            self._rtcp[leg.rtcp] = leg
            self._early[leg.rtp] = Early()

    def attend(self, leg: Leg) -> None:
        """Read the socket that a carried leg has been lent, until it is left."""
        self._rtp[leg.rtp] = leg

    def leave(self, leg: Leg) -> None:
        """Read it no more."""
        self._rtp.pop(leg.rtp, None)

    def remove(self, leg: Leg) -> None:
        """Read them no more."""
        self._streams.pop(leg.slot, None)
        self._rtp.pop(leg.rtp, None)
        self._rtcp.pop(leg.rtcp, None)
        self._legs.pop(leg.slot, None)
        self._early.pop(leg.rtp, None)

    def settle(self, leg: Leg, now: float) -> None:
        """The leg has its first peer: judge what came from there before. Of what others sent, nothing is learned."""
        early = self._early.pop(leg.rtp, None)
        desk = len(self._views) - 1
        for arrived, data, source in early.fresh(now) if early else ():
            if leg.latch is None or source != leg.latch.signalled:
                leg.drop("rtp_stranger")
                continue
            taken: list[Taken] = []
            self._views[desk][: len(data)] = data
            self._sort([(leg.rtp, desk, len(data), source)], taken, arrived, arrived)
            self._take(taken, arrived, arrived)

    def drain(self, now: float, epoch: float) -> None:
        """Read what waits on every socket, at most `ROUNDS` packets each, and what came in streams."""
        for leg in tuple(self._streams.values()):
            self._pump(leg)
        taken: list[Taken] = []
        for _ in range(ROUNDS):
            datagrams = self._ports.receive()
            if not datagrams:
                break
            self._sort(datagrams, taken, now, epoch)
            if len(taken) > self._bank.slots:
                self._take(taken, now, epoch)
                taken = []
                self._ports.recycle()
        self._take(taken, now, epoch)
        self._ports.recycle()

    def take(self, leg: Leg, data: bytes, now: float, epoch: float) -> None:
        """Judge a packet that came to a leg by another way, from where only its peer can send."""
        if leg.failed or leg.format is None or leg.latch is None or len(data) >= PACKET:
            leg.drop("rtp_early" if leg.format is None else "rtp_malformed")
            return
        desk, source = len(self._views) - 1, leg.latch.signalled
        self._views[desk][: len(data)] = data
        leg.believed = source
        datagram, size = (leg.rtp, desk, len(data), source), len(data)
        if leg.opener is not None:
            size = self._open(leg, datagram, now, epoch)
        if size:
            self._guarded(leg, self._views[desk][:size], now, epoch)

    def _sort(self, datagrams: list[Datagram], taken: list[Taken], now: float, epoch: float) -> None:
        """Tell packets of a leg's believed peer, which are `taken`, from others."""
        by_handle = self._rtp
        for datagram in datagrams:
            handle, row, size, source = datagram
            leg = by_handle.get(handle)
            if leg is None:
                self._aside(handle, self._views[row][:size], source, epoch)
            elif leg.aside is not None and (source != leg.path or self._views[row][0] >> 6 != VERSION):
                leg.aside(bytes(self._views[row][:size]), source)
            elif leg.opener is not None:
                opened = self._open(leg, datagram, now, epoch)
                if opened:
                    taken.append((row, leg.slot, opened))
            elif source == leg.believed or self._admit(leg, self._views[row][:size], source, now):
                taken.append((row, leg.slot, size))

    def _open(self, leg: Leg, datagram: Datagram, now: float, epoch: float) -> int:
        """Open what came to a leg with SRTP, if it can be the peer's; its size as RTP, 0 if it is none to be judged."""
        _, row, size, source = datagram
        data, latch, opener = self._views[row][:size], leg.latch, leg.opener
        if latch is None or opener is None:  # keys and peer are agreed on together, and asked for by the caller
            return 0
        if size > 1 and FIRST_RTCP <= data[1] <= LAST_RTCP:
            self._report(leg, data, source, epoch)
            return 0
        believed = source == leg.believed
        if not believed and not latch.may_learn(source, now):
            leg.drop("rtp_stranger")
            return 0
        opened = opener.open(self._places[row], data)
        if opened < 0:
            leg.drop(_why_not(data, opened))
            return 0
        return opened if believed or self._admit(leg, data[:opened], source, now) else 0

    def _take(self, taken: list[Taken], now: float, epoch: float) -> None:
        """Judge and place packets, those of one leg in their order and not more than `ROUNDS` of it."""
        for _ in range(ROUNDS):
            if not taken:
                return
            by_slot: dict[int, Taken] = {}
            later = [packet for packet in taken if by_slot.setdefault(packet[1], packet) is not packet]
            if len(by_slot) >= BATCH:
                self._batch(list(by_slot.values()), now, epoch)
            else:
                for row, slot, size in by_slot.values():
                    self._guarded(self._legs[slot], self._views[row][:size], now, epoch)
            taken = later
        for _, slot, _ in taken:
            self._legs[slot].drop("rtp_flood")

    def _aside(self, handle: int, data: memoryview, source: Address, epoch: float) -> None:
        """A packet on an RTCP port, or on the port of a leg that has failed."""
        leg = self._rtcp.get(handle)
        if leg is not None:
            self._report(leg, data, source, epoch)

    def _report(self, leg: Leg, data: memoryview, source: Address, epoch: float) -> None:
        latch = leg.latch
        if latch is None or source[0] not in (latch.signalled[0], latch.send_to[0]):
            leg.drop("rtcp_stranger")
            return
        opened = data if leg.opener is None else leg.opener.open_report(data)
        if opened is None:
            leg.drop("srtcp_rejected" if data and data[0] >> 6 == VERSION else "rtcp_malformed")
        elif not leg.reporter.receive(opened, epoch):
            leg.drop("rtcp_malformed")

    def _admit(self, leg: Leg, data: memoryview, source: Address, now: float) -> bool:
        """A packet from another source than the believed one: may it be the peer's?"""
        latch, early = leg.latch, self._early.get(leg.rtp)
        if early is not None and early.keep(data, source, now):
            return False
        if latch is not None and leg.format is not None:
            if is_rtcp(data) and leg.format.rtcp_mux and source == latch.send_to:
                return True
            packet = parse_rtp(data)
            known = packet and packet.payload_type in (leg.format.receive_pt, leg.format.receive_dtmf_pt)
            if packet and known and latch.offer(source, packet.ssrc, packet.sequence, now):
                leg.believed = latch.address
                self._route(leg)
                return True
        leg.drop("rtp_stranger")
        return False

    # -- all at once

    def _batch(self, taken: list[Taken], now: float, epoch: float) -> None:
        rows, slots, sizes = np.array(taken).T
        try:
            odd = np.flatnonzero(~self._place_rows(rows, slots, sizes, now))
        except Exception:  # noqa: BLE001 - one row must not take the others with it: find it one by one
            odd = np.arange(rows.size)
        for index in odd.tolist():
            row, slot, size = taken[index]
            self._guarded(self._legs[slot], self._views[row][:size], now, epoch)

    def _place_rows(self, rows: Slots, slots: Slots, sizes: stages.Ints, now: float) -> Flags:
        """Put the ordinary packets into their rings, and say which ones they were."""
        bank = self._bank
        packets = self._packets[rows, : HEADER + FRAME]
        header = stages.parse_headers(packets)
        delta = stages.signed(header.rtp_time - bank.cursor[slots])
        ordinary: Flags = (
            (header.first == 0x80)
            & (header.payload_type == bank.receive_pt[slots])
            & bank.ssrc_known[slots]
            & (header.ssrc == bank.ssrc_in[slots])
            & bank.flowing[slots]
            & (delta >= 0)
        )
        coded = bank.coded[slots]
        plain: Flags = ordinary & ~coded & (sizes == HEADER + FRAME) & (delta < DEPTH * FRAME) & (delta % FRAME == 0)
        at = slots if plain.all() else slots[plain]
        ahead = delta[plain] // FRAME
        stages.insert(bank.ring, bank.present, bank.head, at, ahead=ahead, payload=packets[plain, HEADER:])
        bank.lead[at] = np.maximum(bank.lead[at], ahead + 1)
        if coded.any():
            for index in np.flatnonzero(ordinary & coded).tolist():
                payload = bytes(self._views[rows[index]][HEADER : sizes[index]])
                plain[index] = bank.coders[int(slots[index])].take(int(delta[index]), payload)
        if plain.all():
            self._count_rows(slots, header, now)
        else:
            self._count_rows(slots[plain], header.only(plain), now)
        return plain

    def _count_rows(self, slots: Slots, header: stages.Headers, now: float) -> None:
        """The statistics of RFC 3550 appendix A.1, A.8 for one packet per slot."""
        bank = self._bank
        last = bank.last_sequence[slots]
        step = (header.sequence.astype(np.int64) - last + 0x8000) % 0x10000 - 0x8000
        bank.last_sequence[slots] = np.maximum(last, last + step)
        bank.received[slots] += 1
        arrived = np.rint(now * 50 * bank.step[slots]).astype(np.int64).astype(np.uint32)
        transit = arrived - header.rtp_time
        difference = np.abs(stages.signed(transit - bank.transit[slots]))
        bank.transit[slots] = transit
        bank.jitter[slots] += (difference - bank.jitter[slots]) / 16

    # -- one by one

    def _guarded(self, leg: Leg, data: memoryview, now: float, epoch: float) -> None:
        try:
            self._single(leg, data, now, epoch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this leg's alone
            self._eject(leg, error)

    def _single(self, leg: Leg, data: memoryview, now: float, epoch: float) -> None:
        media = leg.format
        if media is None or not leg.receiving:
            return
        if is_rtcp(data):
            self._report(leg, data, leg.believed or media.remote, epoch)
            return
        packet = parse_rtp(data)
        if packet is None or len(data) >= PACKET:
            leg.drop("rtp_malformed")
        elif packet.payload_type == media.receive_dtmf_pt:
            self._digit(leg, packet, now)
        elif packet.payload_type != media.receive_pt:
            leg.drop("rtp_wrong_type")
        elif not 0 < len(packet.payload) <= (LONGEST if leg.coded is None else PACKET):
            leg.drop("rtp_malformed")
        else:
            known = self._known(leg, packet)
            for one in known:
                self._audio(leg, one, now)
            if len(known) > 1:
                self._bank.hold[leg.slot] -= 1  # the first has waited for the second already

    def _known(self, leg: Leg, packet: RtpPacket) -> tuple[RtpPacket, ...]:
        """What may be heard now that this packet is here: itself, if its SSRC is believed.

        A new SSRC is believed with its second packet in sequence (RFC 3550 appendix A.1), which brings the first along,
        and not while the old one goes on: two streams at once would start the jitter buffer again and again.
        """
        bank, slot = self._bank, leg.slot
        if not bank.ssrc_known[slot] or packet.ssrc == bank.ssrc_in[slot]:
            return (packet,)
        received, before = int(bank.received[slot]), leg.newcomer
        if before is not None and before.received == received and before.packet.ssrc == packet.ssrc:
            if packet.sequence == (before.packet.sequence + 1) & 0xFFFF:
                leg.newcomer = None
                return (before.packet, packet)
            if packet.sequence == before.packet.sequence:
                return ()
        if before is not None:
            leg.drop("rtp_probation")
        leg.newcomer = Newcomer(packet, received)
        return ()

    def _digit(self, leg: Leg, packet: RtpPacket, now: float) -> None:
        if self._bank.ssrc_known[leg.slot] and packet.ssrc == self._bank.ssrc_in[leg.slot]:
            self._count(leg, packet, now)  # one of an SSRC of its own says nothing about the audio
        digit = leg.digits.receive(packet.ssrc, packet.timestamp, packet.payload)
        if digit is not None:
            leg.tell(DigitPressed(leg.name, digit, now))

    def _count(self, leg: Leg, packet: RtpPacket, now: float) -> None:
        """`_count_rows` for one packet; a new SSRC starts the statistics and the jitter buffer again."""
        bank, slot = self._bank, leg.slot
        arrived = round(now * leg.clock_rate)
        if not bank.ssrc_known[slot] or packet.ssrc != bank.ssrc_in[slot]:
            leg.heard_before = leg.totals()
            leg.forget()
            bank.ssrc_known[slot] = True
            bank.ssrc_in[slot] = packet.ssrc
            bank.base_sequence[slot] = bank.last_sequence[slot] = packet.sequence
            bank.received[slot] = 1
            bank.jitter[slot] = 0
            bank.transit[slot] = (arrived - packet.timestamp) & 0xFFFFFFFF
            return
        last = int(bank.last_sequence[slot])
        bank.last_sequence[slot] = max(last, extend(packet.sequence, last))
        bank.received[slot] += 1
        transit = (arrived - packet.timestamp) & 0xFFFFFFFF
        difference = abs(extend(transit, int(bank.transit[slot]), 32) - int(bank.transit[slot]))
        if packet.payload_type == bank.receive_pt[slot]:  # DTMF keeps its first timestamp: no measure of jitter
            bank.transit[slot] = transit
            bank.jitter[slot] += (difference - bank.jitter[slot]) / 16

    def _audio(self, leg: Leg, packet: RtpPacket, now: float) -> None:
        bank, slot = self._bank, leg.slot
        self._count(leg, packet, now)
        if not bank.flowing[slot]:
            self._anchor(leg, packet.timestamp)
        delta = extend(packet.timestamp - int(bank.cursor[slot]), 0, 32)
        coded = bank.coders.get(slot)
        fits = delta + len(packet.payload) <= DEPTH * FRAME if coded is None else coded.fits(delta, packet.payload)
        if fits and delta > -leg.clock_rate:
            leg.strays = 0
        else:
            leg.strays += 1
            if leg.strays < STRAYS:
                leg.drop("rtp_out_of_window")
                return
            leg.forget()
            self._anchor(leg, packet.timestamp)
            delta = 0
        if coded is not None:
            self._place_coded(leg, coded, delta, packet.payload)
        elif delta + len(packet.payload) <= 0:
            leg.drop("rtp_late")
        else:
            self._place(slot, max(0, delta), packet.payload[max(0, -delta) :])

    def _anchor(self, leg: Leg, rtp_time: int) -> None:
        """Start the jitter buffer at `rtp_time`."""
        bank, slot = self._bank, leg.slot
        bank.present[slot] = False
        bank.cursor[slot] = rtp_time
        bank.hold[slot] = bank.delay[slot] = START
        bank.lead[slot] = 0
        bank.surplus[slot] = 0
        bank.spare[slot] = START
        bank.flowing[slot] = bank.heard[slot] = True
        leg.strays = 0

    def _pump(self, leg: Leg) -> None:
        """Move whole frames of a stream into the jitter buffer, as many as it shall hold."""
        bank, slot, stream, coded = self._bank, leg.slot, leg.stream, leg.coded
        assert stream is not None and coded is not None  # noqa: S101, PT018 - a leg with a stream has both
        if stream.ready and not bank.flowing[slot]:
            self._anchor(leg, 0)
        while bank.lead[slot] < AHEAD and (frame := stream.next()) is not None:
            coded.place(int(bank.lead[slot]) * coded.step, frame)

    def _place_coded(self, leg: Leg, coded: Coded, delta: int, payload: bytes) -> None:
        """Keep a payload that is decoded when it is its turn."""
        if not coded.duration(payload):
            leg.drop("rtp_malformed")
        elif coded.late(delta, payload):
            leg.drop("rtp_late")
        elif coded.fits(delta, payload):
            coded.place(delta, payload)
        else:
            leg.drop("rtp_out_of_window")

    def _place(self, slot: int, delta: int, payload: bytes) -> None:
        """Write samples into the ring from `delta` samples after the cursor on, across frames."""
        bank = self._bank
        at = 0
        while at < len(payload):
            frame, offset = divmod(delta + at, FRAME)
            index = (int(bank.head[slot]) + frame) % DEPTH
            size = min(FRAME - offset, len(payload) - at)
            if not bank.present[slot, index]:
                bank.ring[slot, index] = stages.SILENCE[bank.law_in[slot]]
                bank.present[slot, index] = True
            bank.ring[slot, index, offset : offset + size] = np.frombuffer(payload, np.uint8, size, at)
            bank.lead[slot] = max(int(bank.lead[slot]), frame + 1)
            at += size


def _why_not(data: memoryview, opened: int) -> str:
    """What a packet that was not opened is counted as. STUN, say, is no sign of a key that does not fit."""
    if not data or data[0] >> 6 != VERSION:
        return "rtp_malformed"
    return "srtp_replayed" if opened == REPLAYED else "srtp_rejected"
