"""RTCP of one leg: our reports about every five seconds, and what the peer's say about the way there and back."""

from __future__ import annotations

import attrs

from rustpbx.media.rtcp import (
    Bye,
    ReceiverReport,
    ReportBlock,
    RtcpPacket,
    SenderReport,
    SourceDescription,
    build_rtcp,
    middle,
    ntp_time,
    parse_rtcp,
    round_trip,
)
from rustpbx.media.rtp import Buffer


@attrs.frozen(kw_only=True)
class Sent:
    """What a report says of our stream: counts, and the RTP time of now."""

    packets: int
    octets: int
    rtp_time: int


@attrs.frozen(kw_only=True)
class Heard:
    """What a report says of the peer's stream `ssrc`: packets, highest extended sequence number, jitter in ticks."""

    ssrc: int
    received: int
    expected: int
    highest: int
    jitter: int


class Reporter:
    """The reports of one leg. `epoch` arguments are wall-clock seconds since 1970 (they go out as NTP time)."""

    def __init__(self, ssrc: int, cname: str) -> None:
        self._ssrc = ssrc
        self._cname = cname
        self._packets_before = 0
        self._told = (0, 0)
        self._last_sr: tuple[int, float] | None = None
        self.round_trip: float | None = None
        self.peer_left = False
        self.received = 0

    def report(self, sent: Sent, heard: Heard | None, epoch: float) -> bytes:
        """A compound of SR (RR if nothing was sent since the last) and our CNAME (RFC 3550 section 6.4)."""
        return build_rtcp(self._packets(sent, heard, epoch))

    def bye(self, sent: Sent, heard: Heard | None, epoch: float) -> bytes:
        """A last report with BYE (6.6)."""
        return build_rtcp([*self._packets(sent, heard, epoch), Bye(ssrcs=(self._ssrc,))])

    def receive(self, data: Buffer, epoch: float) -> bool:
        """Take a compound from the peer; False if it is none."""
        packets = parse_rtcp(data)
        for packet in packets:
            match packet:
                case SenderReport():
                    self._last_sr = (middle(packet.ntp), epoch)
                    self._measure(packet.reports, epoch)
                case ReceiverReport():
                    self._measure(packet.reports, epoch)
                case Bye():
                    self.peer_left = True
                case SourceDescription():
                    pass
        self.received += bool(packets)
        return bool(packets)

    def _packets(self, sent: Sent, heard: Heard | None, epoch: float) -> list[RtcpPacket]:
        reports = (self._block(heard, epoch),) if heard else ()
        active = sent.packets != self._packets_before
        self._packets_before = sent.packets
        first: RtcpPacket = ReceiverReport(ssrc=self._ssrc, reports=reports)
        if active:
            first = SenderReport(
                ssrc=self._ssrc,
                ntp=ntp_time(epoch),
                rtp_time=sent.rtp_time & 0xFFFFFFFF,
                packets=sent.packets & 0xFFFFFFFF,
                octets=sent.octets & 0xFFFFFFFF,
                reports=reports,
            )
        return [first, SourceDescription(ssrc=self._ssrc, cname=self._cname)]

    def _block(self, heard: Heard, epoch: float) -> ReportBlock:
        received_before, expected_before = self._told
        self._told = (heard.received, heard.expected)
        expected = heard.expected - expected_before
        lost = expected - (heard.received - received_before)
        last_sr, delay = 0, 0
        if self._last_sr is not None:
            last_sr, at = self._last_sr
            delay = max(0, round((epoch - at) * 65536))
        return ReportBlock(
            ssrc=heard.ssrc,
            fraction_lost=min(255, (lost << 8) // expected) if expected > 0 and lost > 0 else 0,
            lost=max(-0x800000, min(0x7FFFFF, heard.expected - heard.received)),
            highest=heard.highest & 0xFFFFFFFF,
            jitter=heard.jitter,
            last_sr=last_sr,
            delay=delay & 0xFFFFFFFF,
        )

    def _measure(self, reports: tuple[ReportBlock, ...], epoch: float) -> None:
        for block in reports:
            if block.ssrc == self._ssrc:
                measured = round_trip(block, ntp_time(epoch))
                self.round_trip = self.round_trip if measured is None else measured
