"""The state of all legs as a struct of arrays: a slot per leg, allocated once, handed out and given back.

Everything the tick touches for every call each 20 ms lives here, so that each step of the tick is a few numpy
operations over all rows. What happens rarely lives in `rustpbx.media.plane.leg`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rustpbx.errors import OverloadedError
from rustpbx.media.plane.stages import FRAME, HEADER, SILENCE
from rustpbx.media.srtp import TRAILER

if TYPE_CHECKING:
    from rustpbx.media.plane.coded import Coded

DEPTH = 32
"""Frames in a jitter ring: 640 ms, which holds the deepest buffer and a burst after a stall."""

PLAYOUT = 25
"""Frames in a source's ring: 500 ms."""

LONGEST_BLOCK = 25
"""Frames in the longest block of a tap: 500 ms."""

KEPT = LONGEST_BLOCK + 1
"""Frames of heard audio kept for taps; the one before a block is the filter's past."""

MOST_FRAMES = 3
"""Frames in one packet that we send: a ptime of 60 ms."""

PACKET = 1536
"""Bytes of a received datagram that are looked at; anything longer is no packet for us."""


class Bank:
    """The arrays. A row is defined only between `take` and `give`; `take` clears it."""

    def __init__(self, slots: int) -> None:  # noqa: PLR0915 - one line an array is the clearest list of them
        self.slots = slots
        self._free = list(range(slots - 1, -1, -1))
        self.tick = 0  # of the clock: what `kept` and `said` are indexed by
        self.coders: dict[int, Coded] = {}  # of the slots whose codec is none of `stages.LAWS`
        self.step = np.full(slots, FRAME, np.int64)  # RTP time of a frame

        # -- receive: what we expect and the statistics of RFC 3550 appendix A
        self.receive_pt = np.full(slots, -1, np.int16)  # -1: drop everything
        self.coded = np.zeros(slots, np.bool_)  # has one of `coders`: its frames go one by one
        self.ssrc_known = np.zeros(slots, np.bool_)
        self.ssrc_in = np.zeros(slots, np.uint32)
        self.law_in = np.zeros(slots, np.int64)
        self.base_sequence = np.zeros(slots, np.int64)
        self.last_sequence = np.zeros(slots, np.int64)  # extended
        self.received = np.zeros(slots, np.int64)
        self.transit = np.zeros(slots, np.uint32)  # arrival minus RTP time, in samples
        self.jitter = np.zeros(slots, np.float64)  # in samples

        # -- the jitter buffer: frames from `cursor` (RTP time of the one due next) on
        self.ring = np.zeros((slots, DEPTH, FRAME), np.uint8)
        self.present = np.zeros((slots, DEPTH), np.bool_)
        self.head = np.zeros(slots, np.int64)
        self.cursor = np.zeros(slots, np.uint32)
        self.flowing = np.zeros(slots, np.bool_)  # anchored to the peer's RTP time
        self.lead = np.zeros(slots, np.int64)  # frames from the cursor to the newest
        self.hold = np.zeros(slots, np.int64)  # ticks to wait before the first frame
        self.delay = np.zeros(slots, np.int64)  # frames that the buffer delays what it plays
        self.misses = np.zeros(slots, np.int64)  # frames missing in a row
        self.spare = np.zeros(slots, np.int64)  # least lead left after a take, in this window
        self.surplus = np.zeros(slots, np.int64)  # frames to leave out when it is quiet

        # -- heard audio
        self.heard = np.zeros(slots, np.bool_)  # audio has begun: from here on every tick yields a frame
        self.wanted = np.zeros(slots, np.bool_)  # a tap or a detector listens
        self.lag = np.zeros(slots, np.int64)  # frames that what is kept lies behind what is played out
        self.power = np.zeros(slots, np.float32)
        self.kept = np.zeros((slots, KEPT, FRAME), np.int16)

        # -- send
        self.sending = np.zeros(slots, np.bool_)
        self.law_out = np.zeros(slots, np.int64)
        self.send_pt = np.zeros(slots, np.uint8)
        self.ssrc_out = np.zeros(slots, np.uint32)
        self.sequence = np.zeros(slots, np.int64)
        self.rtp_time = np.zeros(slots, np.int64)  # of this tick, whether or not anything is sent
        self.stamp = np.zeros(slots, np.int64)  # of the packet being filled
        self.frames = np.ones(slots, np.int64)  # frames per packet
        self.phase = np.zeros(slots, np.int64)  # frames already in the packet being filled
        self.size = np.zeros(slots, np.int64)  # bytes of a coder's payload
        self.marker = np.zeros(slots, np.bool_)  # the next packet begins a talk spurt
        self.talking = np.zeros(slots, np.bool_)  # the last frame came from a source
        self.packets = np.zeros((slots, HEADER + MOST_FRAMES * FRAME + TRAILER), np.uint8)
        self.payload = self.packets[:, HEADER:-TRAILER].reshape(slots, MOST_FRAMES, FRAME)
        self.sent = np.zeros(slots, np.int64)
        self.octets = np.zeros(slots, np.int64)

        # -- bridges
        self.bridged = np.full(slots, -1, np.int64)  # whose heard audio is sent while no source plays; -1: nobody's

        # -- what is sent, for those who listen to it
        self.overheard = np.zeros(slots, np.bool_)
        self.said = np.zeros((slots, KEPT, FRAME), np.int16)

        # -- the source's ring
        self.playout = np.zeros((slots, PLAYOUT, FRAME), np.uint8)  # encoded
        self.playout_head = np.zeros(slots, np.int64)
        self.playout_count = np.zeros(slots, np.int64)
        self.spooled = np.zeros(slots, np.bool_)  # the source has more outside the ring
        self.closing = np.zeros(slots, np.bool_)  # the source will write no more
        self.beginning = np.zeros(slots, np.bool_)  # somebody waits for the source's first packet
        self.unsent = np.zeros(slots, np.int64)  # source frames in the packet being filled
        self.played = np.zeros(slots, np.int64)  # source frames really sent

        self._arrays = [value for name, value in vars(self).items() if isinstance(value, np.ndarray)]
        if not np.shares_memory(self.payload, self.packets):
            raise AssertionError("the payload view must be the packets' memory")  # numpy would copy silently

    def take(self) -> int:
        """A cleared slot. Raises `OverloadedError` if all are in use."""
        if not self._free:
            raise OverloadedError(f"all {self.slots} call slots are in use")
        slot = self._free.pop()
        for array in self._arrays:
            array[slot] = 0
        self.step[slot] = FRAME
        self.receive_pt[slot] = self.bridged[slot] = -1
        self.frames[slot] = 1
        return slot

    def give(self, slot: int) -> None:
        """Give a slot back; nothing is received, heard or sent on it any more."""
        self.silence(slot)
        self.coders.pop(slot, None)
        self._free.append(slot)

    def silence(self, slot: int) -> None:
        """Take a slot out of every step of the tick."""
        self.receive_pt[slot] = self.bridged[slot] = -1
        self.sending[slot] = self.heard[slot] = self.wanted[slot] = self.flowing[slot] = False
        self.overheard[slot] = False
        self.spooled[slot] = self.closing[slot] = self.beginning[slot] = False

    def silence_code(self, slot: int) -> int:
        """The byte that is silence in the codec we send."""
        return int(SILENCE[self.law_out[slot]])
