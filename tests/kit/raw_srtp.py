"""SRTP as a peer and a stranger may send it: what is opened is what was sealed, once, and nothing else ever.

An input is the number of a suite and then records of a kind, a size (one byte each) and so many bytes: a datagram as it
is, as RTP or as RTCP; the peer's next packet exclusive-or these bytes, or cut, or lengthened by them; an old one again.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rustpbx.media.events import SrtpKey, SrtpSuite
from rustpbx.media.rtcp import ReceiverReport, build_rtcp
from rustpbx.media.rtp import RtpPacket, build_rtp
from rustpbx.media.srtp import REJECTED, REPLAYED, Opener, pointers
from tests.kit.srtp import Protector

MOST = 60
"""Records of one input."""

REPORT = build_rtcp([ReceiverReport(ssrc=7)])
SUITES = list(SrtpSuite)


def listen(data: bytes) -> None:
    """Only what the peer has sealed is opened, each packet once; nothing raises or writes beside its place."""
    if not data:
        return
    suite = SUITES[data[0] % len(SUITES)]
    ear = Ear(SrtpKey(suite, bytes(range(suite.key_size))))
    for kind, content in records(data[1:]):
        ear.take(kind % 7, content)


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each record."""
    at = 0
    for _ in range(MOST):
        if at + 2 > len(data):
            return
        kind, size = data[at : at + 2]
        yield kind, data[at + 2 : at + 2 + size]
        at += 2 + size


class Ear:
    """An opener, and a peer with its key."""

    def __init__(self, key: SrtpKey) -> None:
        self._opener = Opener(key)
        self._peer = Protector(key)
        self._rows = np.zeros((3, 700), np.uint8)
        self._place = pointers(self._rows)[1]
        self._sequence = 0
        self._reports = 0
        self._sent: list[bytes] = []

    def take(self, kind: int, content: bytes) -> None:
        """Let one record happen."""
        match kind:
            case 0:
                assert self._open(content) in {REJECTED, REPLAYED}
            case 1:
                assert self._opener.open_report(content) is None
            case 2:
                packet = self._next(len(content))
                sealed = self._peer.seal(packet)
                bent = bytes(a ^ b for a, b in zip(sealed, content.ljust(len(sealed), b"\0"), strict=False))
                self._judge(bent, packet, sealed)
            case 3 | 4:
                packet = self._next(60)
                sealed = self._peer.seal(packet)
                size = content[0] if content else 0
                self._judge(sealed[:size] if kind == 3 else sealed + content, packet, sealed)
            case 5:
                self._reports += 1
                sealed = self._peer.seal_report(REPORT, self._reports)
                bent = bytes(a ^ b for a, b in zip(sealed, content.ljust(len(sealed), b"\0"), strict=False))
                assert self._opener.open_report(bent) == (REPORT if bent == sealed else None)
                assert self._opener.open_report(bent) is None
            case _:
                for old in self._sent[-3:]:
                    assert self._open(old) == REPLAYED

    def _next(self, size: int) -> bytes:
        self._sequence += 1
        return build_rtp(
            RtpPacket(payload_type=0, sequence=self._sequence, timestamp=160, ssrc=7, payload=b"\xd5" * size)
        )

    def _judge(self, bent: bytes, packet: bytes, sealed: bytes) -> None:
        """A packet as it came, as it was before it was sealed, and after."""
        opened = self._open(bent)
        if bent == sealed:
            assert opened == packet
            self._sent.append(sealed)
        else:
            assert opened in {REJECTED, REPLAYED}

    def _open(self, data: bytes) -> bytes | int:
        data = data[:600]
        self._rows[:] = 0xEE
        self._rows[1, : len(data)] = np.frombuffer(data, np.uint8)
        size = self._opener.open(self._place, memoryview(self._rows[1])[: len(data)])
        assert (self._rows[[0, 2]] == 0xEE).all()
        assert (self._rows[1, len(data) :] == 0xEE).all()
        return bytes(self._rows[1, :size]) if size >= 0 else size
